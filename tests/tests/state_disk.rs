//! A disk that takes no more: decisions go on with what is known, what closes counts at once, nothing is acknowledged that a
//! restart would lose, and it shows. And a store that is corrupt: the node does not start.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1::{self, Decision, ReasonCode};
use cardea_tests::attempts::{attempt, codes, entity};
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use cardea_tests::process::run_cardea;
use cardea_tests::wait;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Room for the empty store and some hundred sessions; the file grows by doubling.
const FILE_BYTES: u64 = 3 * 1024 * 1024;

async fn health(clients: &Clients, service: &str) -> Result<ServingStatus> {
    let mut health = HealthClient::new(clients.channel.clone());
    let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await?;
    Ok(answer.into_inner().status())
}

async fn state(clients: &mut Clients) -> Result<v1::StateStatus> {
    clients.status().await?.state.context("no state")
}

/// Opens sessions until one is refused; gives how many were acknowledged, and the refusal.
async fn fill(clients: &mut Clients) -> Result<(u64, tonic::Status)> {
    for number in 0..20_000_u32 {
        let session = v1::Session {
            id: format!("fill-{number}"),
            principal: Some(entity("Agent::biller")?),
            labels: (0..16).map(|label| format!("{label:0>200}")).collect(),
            ..v1::Session::default()
        };
        let request = v1::OpenSessionRequest { session: Some(session) };
        if let Err(refusal) = clients.session.open(request).await {
            return Ok((number.into(), refusal));
        }
    }
    anyhow::bail!("the store never got full")
}

#[tokio::test]
async fn on_a_full_disk_decisions_go_on_and_nothing_is_acknowledged_that_would_be_lost() -> Result<()> {
    let options = Options { file_bytes_max: Some(FILE_BYTES), ..Options::default() };
    let mut cardea = Cardea::start_with(options).await?;
    let mut clients = cardea.clients()?;
    clients.open_session("s", "Agent::biller").await?;
    clients.open_session("other", "Agent::biller").await?;
    let (kept, refusal) = fill(&mut clients).await?;
    ensure!(refusal.code() == Code::Unavailable, "{refusal:?}");
    println!("{kept} sessions, then: {}", refusal.message());

    // What is known decides.
    let read = |session: &str| attempt("Agent::biller", "read", "Table::orders", session);
    assert_eq!(clients.decide(read("s")?).await?.decision(), Decision::Allow);
    // It shows.
    let told = state(&mut clients).await?;
    ensure!(!told.fault.is_empty() && told.unwritten > 0, "{told:?}");
    wait::until("health to tell", async || {
        let is_told = health(&clients, "cardea.v1.SessionService").await? == ServingStatus::NotServing;
        Ok(is_told.then_some(()))
    })
    .await?;
    assert_eq!(health(&clients, "cardea.v1.DecisionService").await?, ServingStatus::Serving);
    let metrics = cardea.page("/metrics").await?;
    ensure!(metrics.body.contains("cardea_state_fault 1"), "the metrics do not tell");
    // What closes counts at once, and is not acknowledged.
    let target = Some(v1::end_session_request::Target::Id("s".to_owned()));
    let end = v1::EndSessionRequest { target, reason: String::new() };
    let refusal = clients.session.end(end.clone()).await.err().context("the end was acknowledged")?;
    ensure!(
        refusal.code() == Code::Unavailable && refusal.message().contains("send it again"),
        "{refusal:?}"
    );
    assert_eq!(codes(&clients.decide(read("s")?).await?), [ReasonCode::SessionRevoked]);
    // What opens is refused before it counts.
    let refusal = clients.open_session("late", "Agent::biller").await.err().context("it was opened")?;
    ensure!(refusal.to_string().contains("nothing was changed"), "{refusal}");
    // Reading goes on, but for the instants in which writing is tried; those deny with a reason of their own.
    wait::until("the disk to be read", async || {
        let codes = codes(&clients.decide(read("late")?).await?);
        ensure!(codes == [ReasonCode::NoPermit] || codes == [ReasonCode::StateUnreadable], "{codes:?}");
        Ok((codes == [ReasonCode::NoPermit]).then_some(()))
    })
    .await?;
    // So is a risk that is cleared, and one that is found is not.
    clients.report_risk("Agent::biller", 95).await.err().context("the risk was acknowledged")?;
    assert_ne!(clients.decide(read("other")?).await?.decision(), Decision::Allow);
    clients.report_risk("Agent::biller", 0).await.err().context("the end of the risk was acknowledged")?;
    assert_ne!(clients.decide(read("other")?).await?.decision(), Decision::Allow);

    // Once there is room, what waited is written, and the same call is acknowledged.
    let pid = cardea.process.pid().to_string();
    let given = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status()?;
    ensure!(given.success(), "prlimit: {given}");
    wait::until("the disk to be written again", async || {
        Ok(state(&mut clients).await?.fault.is_empty().then_some(()))
    })
    .await?;
    clients.session.end(end).await?;
    clients.report_risk("Agent::biller", 0).await?;
    clients.open_session("late", "Agent::biller").await?;
    cardea.process.kill()?;
    cardea.start_again().await?;
    let mut clients = cardea.clients()?;
    assert_eq!(codes(&clients.decide(read("s")?).await?), [ReasonCode::SessionRevoked]);
    assert_eq!(clients.decide(read("other")?).await?.decision(), Decision::Allow);
    assert_eq!(clients.decide(read("late")?).await?.decision(), Decision::Allow);
    Ok(())
}

#[tokio::test]
async fn a_node_does_not_start_on_a_corrupt_store_and_says_what_to_do() -> Result<()> {
    let mut cardea = Cardea::start().await?;
    cardea.clients()?.open_session("s", "Agent::biller").await?;
    cardea.process.kill()?;
    let file = cardea.state_dir().join("state.redb");
    let mut bytes = std::fs::read(&file)?;
    // The second half of the head, and whatever pages stand there.
    for byte in bytes.iter_mut().skip(64).take(4096) {
        *byte = !*byte;
    }
    std::fs::write(&file, &bytes)?;
    let (bundle, state_dir) = (cardea.bundle(), cardea.state_dir());
    let ended = tokio::task::spawn_blocking(move || {
        let paths =
            [("--bundle", bundle), ("--state-dir", state_dir.clone()), ("--store", state_dir.join("b"))];
        let mut arguments =
            vec!["serve".into(), "--allow-unsigned".into(), "--listen".into(), "127.0.0.1:0".into()];
        arguments.extend([
            "--http".into(),
            "127.0.0.1:0".into(),
            "--audit-dir".into(),
            state_dir.join("a").into(),
        ]);
        for (flag, path) in paths {
            arguments.extend([std::ffi::OsString::from(flag), path.into()]);
        }
        run_cardea(&arguments, b"")
    })
    .await??;
    ensure!(ended.code.is_some_and(|code| code != 0), "it started");
    ensure!(ended.stderr.contains("is corrupt") && ended.stderr.contains("restore it"), "{}", ended.stderr);
    assert_eq!(std::fs::read(&file)?, bytes, "it was left alone");
    Ok(())
}
