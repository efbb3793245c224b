//! A shadow on a real node: the bundle that was in force goes on as the candidate beside the one that took its place, so
//! that the two differ on live attempts.

use anyhow::{Context as _, Result};
use cardea_proto::v1::{self, Decision, ShadowEffect};
use cardea_tests::attempts::attempt;
use cardea_tests::cardea::Cardea;
use cardea_tests::process::{Finished, run_cardea};
use cardea_tests::{audit, bundle, wait};
use serde_json::Value;

fn command(cardea: &Cardea, words: &[&str]) -> Result<Finished> {
    let node = format!("http://{}", cardea.grpc);
    let all: Vec<&str> = ["bundle"].iter().chain(words).chain(&["--node", &node]).copied().collect();
    let all: Vec<&std::ffi::OsStr> = all.into_iter().map(std::ffi::OsStr::new).collect();
    run_cardea(&all, b"")
}

fn json(finished: &Finished) -> Result<Value> {
    serde_json::from_str(&finished.stdout).with_context(|| format!("{finished:?}"))
}

fn number(shadow: &Value, field: &str) -> Option<u64> {
    shadow.get("shadow")?.get(field)?.as_u64()
}

#[tokio::test]
async fn live_attempts_are_compared_counted_and_recorded_and_nobody_is_told_the_candidates_answer()
-> Result<()> {
    let cardea = Cardea::start().await?;
    let mut clients = cardea.clients()?;
    clients.open_session("s", "Agent::biller").await?;
    let read = || attempt("Agent::biller", "read", "Table::orders", "s");
    let first = clients.status().await?.bundle.context("no bundle")?;
    let revision = first.revision.to_string();
    let started =
        command(&cardea, &["shadow", "start", "--revision", &revision, "--reason", "does it still hold?"])?;
    assert_eq!(started.code, Some(0), "{started:?}");

    // From here on reads are denied by what is in force, and still allowed by the candidate.
    bundle::edit(&cardea.bundle(), "policies/guards.cedar", r#"action == Action::"drop""#, "action")?;
    let denied = wait::until("the change to be in force", async || {
        let verdict = clients.decide(read()?).await?;
        Ok((verdict.decision() == Decision::Deny).then_some(verdict))
    })
    .await?;
    let status = wait::until("the shadow to have evaluated it", async || {
        let status = json(&command(&cardea, &["shadow", "status", "--format", "json"])?)?;
        let counted = status.pointer("/shadow/changes/0/count").and_then(Value::as_u64);
        Ok((counted == Some(1)).then_some(status))
    })
    .await?;
    assert_eq!(status.pointer("/shadow/changes/0/effect").and_then(Value::as_str), Some("widened"));
    let group = status.pointer("/shadow/groups/0").context("no group")?;
    assert_eq!(group.get("in_force_policies"), Some(&serde_json::json!(["tables_are_never_dropped"])));
    assert_eq!(group.get("candidate_policies"), Some(&serde_json::json!(["billing_works_on_sales"])));
    let (evaluated, same) = (number(&status, "evaluated"), number(&status, "same"));
    assert_eq!(evaluated.zip(same).map(|(all, same)| all - same), Some(1), "{status}");
    let failing = command(&cardea, &["shadow", "status", "--fail-on", "widening"])?;
    assert_eq!(failing.code, Some(1), "{failing:?}");

    let difference =
        audit::find(&mut clients, "the record of the difference", |record| match &record.entry {
            Some(v1::record::Entry::Shadow(shadow)) => Some(shadow.clone()),
            _ => None,
        })
        .await?;
    assert_eq!(difference.decision_id, denied.decision_id);
    assert_eq!(difference.effect(), ShadowEffect::Widened);
    let (in_force, candidate) =
        difference.in_force.zip(difference.candidate).context("one answer is missing")?;
    assert_eq!((in_force.decision(), candidate.decision()), (Decision::Deny, Decision::Allow));
    assert_eq!(candidate.digest, first.digest);
    assert!(in_force.revision > candidate.revision);

    let page = cardea.page("/metrics").await?.body;
    let line = r#"cardea_shadow_differences_total{effect="widened",in_force="deny",candidate="allow"} 1"#;
    assert!(page.contains(line), "{page}");
    let listed = command(&cardea, &["list"])?;
    assert!(listed.stdout.contains("in force") && listed.stdout.contains("shadow"), "{listed:?}");
    let wrong = command(&cardea, &["promote", &"0".repeat(64)])?;
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    let stopped = command(&cardea, &["shadow", "stop", "--reason", "seen enough"])?;
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    let stop = audit::find(&mut clients, "the record of the end", |record| match &record.entry {
        Some(v1::record::Entry::Bundle(bundle)) if bundle.change == "shadow_stopped" => Some(bundle.clone()),
        _ => None,
    })
    .await?;
    assert_eq!((stop.reason.as_str(), stop.digest), ("seen enough", first.digest));
    Ok(())
}
