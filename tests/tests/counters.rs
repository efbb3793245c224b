//! Counters over gRPC: limits that parallel callers cannot overshoot, allows that are given back, and what a restart knows.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1;
use cardea_proto::v1::settle_request::Outcome;
use cardea_proto::v1::{Decision, SettleRequest};
use cardea_tests::attempts::attempt;
use cardea_tests::audit;
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use cardea_tests::process::run_cardea;
use cardea_tests::wait;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::Code;

const SETTINGS: &str = r#"name = "office"

[counters.mails]
actions = ["send_*"]
per = "identity"
window_s = 3600

[counters.orders]
actions = ["order"]
per = "root"
on = "commit"
window_s = 3600
reserve_s = 600
"#;

const SCHEMA: &str = r#"entity Agent; entity Mailbox;
action send_mail, send_note appliesTo { principal: Agent, resource: Mailbox,
  context: { counters: { mails: Cardea::Counter } } };
action order appliesTo { principal: Agent, resource: Mailbox, context: { counters: { orders: Cardea::Counter } } };
"#;

const POLICIES: &str = r#"@id("work")
permit (principal is Agent, action, resource is Mailbox);

@id("mails") @reason("ten mails an hour")
forbid (principal, action in [Action::"send_mail", Action::"send_note"], resource)
when { context.counters.mails.count >= 10 };

@id("orders") @reason("two orders an hour")
forbid (principal, action == Action::"order", resource)
when { context.counters.orders.count >= 2 };
"#;

/// A scenario of the bundle itself.
const SCENARIO: &str = r#"name: two orders an hour, and what was not done does not count
steps:
  - attempt: { principal: 'Agent::"a"', action: order, resource: 'Mailbox::"m"', expect: allow }
  - attempt: { principal: 'Agent::"a"', action: order, resource: 'Mailbox::"m"', expect: allow }
  - attempt: { principal: 'Agent::"a"', action: order, resource: 'Mailbox::"m"', expect: deny }
  - settle: released
  - attempt: { principal: 'Agent::"a"', action: order, resource: 'Mailbox::"m"', expect: allow }
  - settle: committed
  - advance: 2h
  - attempt: { principal: 'Agent::"a"', action: order, resource: 'Mailbox::"m"', times: 2, expect: allow }
"#;

fn bundle() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    for (name, text) in [
        ("bundle.toml", SETTINGS),
        ("schema.cedarschema", SCHEMA),
        ("policies/all.cedar", POLICIES),
        ("tests/orders.yaml", SCENARIO),
    ] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().context("a file lies in a directory")?)?;
        fs::write(path, text)?;
    }
    Ok(dir)
}

async fn started() -> Result<(Cardea, TempDir)> {
    let dir = bundle()?;
    let options =
        Options { source: Some(dir.path().display().to_string()), workers: 4, ..Options::default() };
    Ok((Cardea::start_with(options).await?, dir))
}

async fn ask(clients: &mut Clients, principal: &str, action: &str) -> Result<v1::Verdict> {
    clients.decide(attempt(&format!("Agent::{principal}"), action, "Mailbox::m", "")?).await
}

async fn settle(clients: &mut Clients, token: &str, outcome: Outcome) -> Result<(), Code> {
    let request = SettleRequest { token: token.to_owned(), outcome: outcome.into() };
    clients.decision.settle(request).await.map(|_| ()).map_err(|status| status.code())
}

/// How a counter stood for a decision, by its record.
async fn counted(clients: &mut Clients, verdict: &v1::Verdict) -> Result<v1::CounterRecord> {
    let record = audit::decision(clients, &verdict.decision_id).await?;
    record.counters.into_iter().next().context("the record tells of no counter")
}

#[tokio::test]
async fn parallel_callers_get_exactly_as_many_allows_as_the_limit() -> Result<()> {
    let (mut cardea, bundle) = started().await?;
    let mut callers = JoinSet::new();
    for caller in 0..16 {
        let mut clients = cardea.clients()?;
        callers.spawn(async move {
            let mut allowed = 0;
            for _ in 0..20 {
                let action = if caller % 2 == 0 { "send_mail" } else { "send_note" };
                let verdict = ask(&mut clients, "busy", action).await?;
                allowed += usize::from(verdict.decision() == Decision::Allow);
            }
            Ok::<usize, anyhow::Error>(allowed)
        });
    }
    let mut allowed = 0;
    while let Some(ended) = callers.join_next().await {
        allowed += ended??;
    }
    ensure!(allowed == 10, "{allowed} of 320 were allowed");

    let mut clients = cardea.clients()?;
    let verdict = ask(&mut clients, "busy", "send_mail").await?;
    let evidence = verdict.evidence.first().context("a deny by a counter says so")?;
    ensure!(evidence.fact == "counters.mails.count", "{evidence:?}");
    ensure!(evidence.why.starts_with("10 in 3600 s per identity, warm at 20"), "{evidence:?}");
    let record = counted(&mut clients, &verdict).await?;
    ensure!((record.name.as_str(), record.count, record.outcome.as_str()) == ("mails", 10, "released"));
    ensure!(!record.warm, "it has not counted for an hour");
    let other = ask(&mut clients, "other", "send_mail").await?;
    ensure!(other.decision() == Decision::Allow && other.reservation.is_none(), "{other:?}");
    ensure!(other.lease.is_some_and(|lease| lease.held_lease_ms == 0), "what counts is asked each time");

    // What was recorded is judged again with the counts of then; a stricter limit shows what it would have refused.
    cardea.process.terminate().await?;
    let stricter = tempfile::tempdir()?;
    for name in ["bundle.toml", "schema.cedarschema"] {
        fs::copy(bundle.path().join(name), stricter.path().join(name))?;
    }
    fs::create_dir(stricter.path().join("policies"))?;
    fs::write(
        stricter.path().join("policies/all.cedar"),
        POLICIES.replace("mails.count >= 10", "mails.count >= 4"),
    )?;
    let (old, new) = (bundle.path().display().to_string(), stricter.path().display().to_string());
    let mut words = vec!["bundle".to_owned(), "diff".to_owned(), old, new];
    words.extend(["--format", "json", "--records"].map(ToOwned::to_owned));
    words.extend(audit::segments(&cardea.audit_dir())?.iter().map(|path| path.display().to_string()));
    let done = run_cardea(&words, b"")?;
    let told: serde_json::Value =
        serde_json::from_str(&done.stdout).with_context(|| format!("{}{}", done.stdout, done.stderr))?;
    let at = |path: &str| told.pointer(path).and_then(serde_json::Value::as_u64);
    ensure!(at("/records/not_reproducible") == Some(0), "{}", done.stdout);
    ensure!(
        (at("/records/effects/changed"), at("/records/effects/widening")) == (Some(6), Some(0)),
        "{}",
        done.stdout
    );
    Ok(())
}

#[tokio::test]
async fn an_allow_that_came_to_nothing_is_given_back_by_whoever_got_it_and_nobody_else() -> Result<()> {
    let (cardea, _bundle) = started().await?;
    let mut clients = cardea.clients()?;
    let first = ask(&mut clients, "a", "order").await?;
    let second = ask(&mut clients, "a", "order").await?;
    let reservation = first.reservation.clone().context("an order waits to be settled")?;
    ensure!(reservation.counters == ["orders"] && reservation.settle_ms == 600_000, "{reservation:?}");
    let third = ask(&mut clients, "a", "order").await?;
    ensure!(third.decision() == Decision::Deny && third.reservation.is_none(), "{third:?}");

    // Ids of decisions are in records; they settle nothing.
    let hex = first.decision_id.replace('-', "");
    for guess in ["", &first.decision_id, &hex, &"0".repeat(32)] {
        ensure!(settle(&mut clients, guess, Outcome::Released).await == Err(Code::NotFound), "{guess}");
    }
    let token = reservation.token;
    ensure!(settle(&mut clients, &token, Outcome::Unspecified).await == Err(Code::InvalidArgument));
    ensure!(ask(&mut clients, "a", "order").await?.decision() == Decision::Deny);
    for _ in 0..2 {
        ensure!(settle(&mut clients, &token, Outcome::Released).await == Ok(()));
    }
    ensure!(settle(&mut clients, &token, Outcome::Committed).await == Err(Code::FailedPrecondition));
    let again = ask(&mut clients, "a", "order").await?;
    ensure!(again.decision() == Decision::Allow, "{again:?}");
    ensure!(counted(&mut clients, &again).await?.outcome == "reserved");

    let token = second.reservation.context("so does the second")?.token;
    ensure!(settle(&mut clients, &token, Outcome::Committed).await == Ok(()));
    ensure!(ask(&mut clients, "a", "order").await?.decision() == Decision::Deny, "it was given back once");
    let page = cardea.page("/metrics").await?;
    ensure!(page.body.contains("cardea_counter_settled_total{outcome=\"released\"} 1"), "{}", page.body);
    Ok(())
}

#[tokio::test]
async fn counts_survive_a_restart_and_a_kill_is_told() -> Result<()> {
    let (mut cardea, _bundle) = started().await?;
    let mut clients = cardea.clients()?;
    for _ in 0..10 {
        ensure!(ask(&mut clients, "a", "send_mail").await?.decision() == Decision::Allow);
    }
    cardea.process.terminate().await?;
    cardea.start_again().await?;
    let mut clients = cardea.clients()?;
    ensure!(ask(&mut clients, "a", "send_mail").await?.decision() == Decision::Deny);
    let losses = |page: &str| page.contains("cardea_counter_losses_total 1");
    ensure!(!losses(&cardea.page("/metrics").await?.body), "it ended in order");

    let file = cardea.state_dir().join("counters");
    let before = fs::read(&file)?;
    for _ in 0..10 {
        ensure!(ask(&mut clients, "b", "send_mail").await?.decision() == Decision::Allow);
    }
    wait::until("a snapshot of the counters", async || Ok((fs::read(&file)? != before).then_some(())))
        .await?;
    cardea.process.kill()?;
    cardea.start_again().await?;
    let mut clients = cardea.clients()?;
    for principal in ["a", "b"] {
        let verdict = ask(&mut clients, principal, "send_mail").await?;
        ensure!(verdict.decision() == Decision::Deny, "{principal}: {verdict:?}");
        ensure!(!counted(&mut clients, &verdict).await?.warm);
    }
    ensure!(losses(&cardea.page("/metrics").await?.body), "the loss is told");
    Ok(())
}

#[test]
fn a_bundle_that_counts_passes_its_check_and_its_own_scenarios() -> Result<()> {
    let dir = bundle()?;
    let path = dir.path().display().to_string();
    for command in [["bundle", "check", &path], ["bundle", "test", &path]] {
        let done = run_cardea(&command, b"")?;
        ensure!(done.code == Some(0), "{command:?}: {}{}", done.stdout, done.stderr);
    }
    Ok(())
}
