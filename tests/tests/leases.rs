//! Allows that the Rust client reuses, on a real node: for as long as their leases say, and no longer than the node holds.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cardea_client::{CachedClient, Client, Holding};
use cardea_proto::v1::{self, Decision};
use cardea_tests::attempts::{attempt, long};
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use cardea_tests::wait;

const SESSION: &str = "s";

/// A node whose bundle has this `[lease]`, a session, and clients beside the one that caches.
async fn leasing(lease: &str) -> Result<(Cardea, Clients)> {
    let options = Options::default().edit("bundle.toml", "[risk]", format!("[lease]\n{lease}\n[risk]"));
    let cardea = Cardea::start_with(options).await?;
    let mut clients = cardea.clients()?;
    clients.open_session(SESSION, "Agent::biller").await?;
    Ok((cardea, clients))
}

async fn caching(cardea: &Cardea) -> Result<(CachedClient, Holding)> {
    let client = Client::connect(format!("http://{}", cardea.grpc)).await?;
    Ok(CachedClient::holding(client, 1000, "gate"))
}

/// Runs the test beside the task that keeps the stream.
async fn beside(holding: Holding, test: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
        () = holding.run() => bail!("the stream is given up while somebody uses it"),
        result = test => result,
    }
}

fn read() -> Result<v1::Attempt> {
    attempt("Agent::biller", "read", "Table::orders", SESSION)
}

/// Asks until an allow is held.
async fn held(cached: &CachedClient, attempt: &v1::Attempt) -> Result<()> {
    wait::until("an allow that is held", async || {
        let answer = cached.decide(attempt.clone()).await?;
        anyhow::ensure!(answer.verdict.decision() == Decision::Allow, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(cached.reuse(attempt).map(drop))
    })
    .await
}

async fn taken_back(cached: &CachedClient, attempt: &v1::Attempt) -> Result<()> {
    wait::until("an allow that is taken back", async || Ok(cached.reuse(attempt).is_none().then_some(())))
        .await
}

#[tokio::test]
async fn without_a_stream_an_allow_in_a_session_is_asked_for_each_time_unless_the_bundle_says_otherwise()
-> Result<()> {
    let (cardea, _clients) = leasing("max_ms = 60000").await?;
    let cached = CachedClient::new(Client::connect(format!("http://{}", cardea.grpc)).await?, 1000);
    for _ in 0..2 {
        let answer = cached.decide(read()?).await?;
        let lease = answer.verdict.lease.unwrap_or_default();
        assert!(!answer.reused && lease.lease_ms == 0 && lease.held_lease_ms == 60_000, "{lease:?}");
        assert!(lease.on_session && lease.on_context && !lease.on_token, "{lease:?}");
    }

    let (cardea, _clients) = leasing("max_ms = 60000\nunheld_max_ms = 60000").await?;
    let cached = CachedClient::new(Client::connect(format!("http://{}", cardea.grpc)).await?, 1000);
    let first = cached.decide(read()?).await?;
    let second = cached.decide(v1::Attempt { id: "again".into(), ..read()? }).await?;
    assert!(!first.reused && second.reused);
    assert_eq!(first.verdict.decision_id, second.verdict.decision_id);
    let basis = first.verdict.basis.clone().unwrap_or_default();
    let newer = v1::Attempt { at_least_version: basis.state_version + 1, ..read()? };
    let newer = cached.decide(newer).await?;
    assert!(!newer.reused && newer.verdict.decision() == Decision::Deny, "newer state is demanded");
    Ok(())
}

#[tokio::test]
async fn an_allow_holds_whatever_the_context_where_no_policy_reads_it() -> Result<()> {
    let (cardea, _clients) = leasing("max_ms = 60000\nunheld_max_ms = 60000").await?;
    let cached = CachedClient::new(Client::connect(format!("http://{}", cardea.grpc)).await?, 1000);
    let with_limit = |action: &str, limit: i64| -> Result<v1::Attempt> {
        let context = [("limit".to_owned(), long(limit))].into_iter().collect();
        Ok(v1::Attempt { context, ..attempt("Agent::biller", action, "Table::orders", SESSION)? })
    };
    assert!(!cached.decide(with_limit("write", 1)?).await?.reused);
    assert!(cached.decide(with_limit("write", 2)?).await?.reused);
    assert!(!cached.decide(with_limit("read", 1)?).await?.reused);
    assert!(!cached.decide(with_limit("read", 5000)?).await?.reused, "its limit is forbidden");
    assert!(
        cached.reuse(&with_limit("read", 1)?).is_some() && cached.reuse(&with_limit("read", 5000)?).is_none()
    );
    Ok(())
}

#[tokio::test]
async fn an_allow_that_is_held_is_reused_until_a_fact_changes() -> Result<()> {
    let (cardea, mut clients) = leasing("max_ms = 60000\nstream_loss_max_ms = 60000").await?;
    let (cached, holding) = caching(&cardea).await?;
    beside(holding, async {
        held(&cached, &read()?).await?;
        let write = attempt("Agent::biller", "write", "Table::orders", SESSION)?;
        held(&cached, &write).await?;

        clients.report_risk("Agent::biller", 40).await?;
        taken_back(&cached, &write).await?;
        assert_eq!(cached.decide(write).await?.verdict.decision(), Decision::StepUp);
        held(&cached, &read()?).await?;

        #[expect(clippy::disallowed_methods, reason = "a test measures how long it takes")]
        let told = Instant::now();
        clients.end_session(SESSION).await?;
        taken_back(&cached, &read()?).await?;
        println!("taken back {:?} after the call that ended the session began", told.elapsed());
        assert_eq!(cached.decide(read()?).await?.verdict.decision(), Decision::Deny);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_cache_that_loses_its_stream_goes_on_for_as_long_as_the_bundle_says_and_no_longer() -> Result<()> {
    for (loss_ms, is_patient) in [(0, false), (60_000, true)] {
        let lease = format!("max_ms = 600000\nstream_loss_max_ms = {loss_ms}");
        let (mut cardea, _clients) = leasing(&lease).await?;
        let (cached, holding) = caching(&cardea).await?;
        beside(holding, async {
            held(&cached, &read()?).await?;
            cardea.process.kill()?;
            wait::until("the loss of the stream", async || Ok((!cached.is_holding()).then_some(()))).await?;
            assert_eq!(cached.reuse(&read()?).is_some(), is_patient);
            assert_eq!(cached.decide(read()?).await.is_ok_and(|answer| answer.reused), is_patient);
            Ok(())
        })
        .await?;
    }
    Ok(())
}
