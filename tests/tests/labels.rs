//! Labels that policies put on sessions, and policies in dry run, over gRPC.

use std::fs;

use anyhow::{Context as _, Result};
use cardea_proto::v1;
use cardea_proto::v1::Decision;
use cardea_tests::attempts::{attempt, entity};
use cardea_tests::audit;
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use cardea_tests::hold::{Point, decision, held};
use tempfile::TempDir;

const SETTINGS: &str = r#"name = "untrusted"

[step_up.review]
kind = "approval"
reviewers = ["Agent::\"duty\""]
grant_s = 900

[labels.saw_untrusted]
description = "It read what somebody outside wrote."
for_s = 3600

[responses.stop]
description = "The session ends."
revoke_session = true
"#;

const SCHEMA: &str = "entity Agent; entity Page;
action fetch, send, read, dump appliesTo { principal: Agent, resource: Page, context: { session: Cardea::Session } };
";

const POLICIES: &str = r#"@id("fetches") @label("saw_untrusted")
permit (principal, action == Action::"fetch", resource) when { context.session.known };

@id("works")
permit (principal, action in [Action::"send", Action::"read"], resource);

@id("no-egress") @reason("it read untrusted text; somebody must look at it") @step_up("review")
forbid (principal, action == Action::"send", resource)
when { context.session.labels.contains("saw_untrusted") && !context.session.grants.contains("review") };

@id("dump") @respond("stop")
forbid (principal, action == Action::"dump", resource);

@id("trial") @dry_run("since 2026-11: would it stop work?")
forbid (principal, action == Action::"read", resource) when { context.session.labels.contains("saw_untrusted") };
"#;

async fn started() -> Result<(Cardea, Clients, TempDir)> {
    let dir = tempfile::tempdir()?;
    fs::create_dir(dir.path().join("policies"))?;
    for (name, text) in
        [("bundle.toml", SETTINGS), ("schema.cedarschema", SCHEMA), ("policies/all.cedar", POLICIES)]
    {
        fs::write(dir.path().join(name), text)?;
    }
    let source = Some(dir.path().display().to_string());
    let cardea = Cardea::start_with(Options { source, ..Options::default() }).await?;
    let clients = cardea.clients()?;
    Ok((cardea, clients, dir))
}

fn of(action: &str, session: &str) -> Result<v1::Attempt> {
    attempt("Agent::a", action, "Page::p", session)
}

#[tokio::test]
async fn what_was_read_outside_stops_what_leaves_until_somebody_looked_at_it() -> Result<()> {
    let (mut cardea, mut clients, _dir) = started().await?;
    clients.open_session("s", "Agent::a").await?;
    clients.open_session("clean", "Agent::a").await?;
    assert_eq!(clients.decide(of("send", "s")?).await?.decision(), Decision::Allow);
    assert_eq!(clients.decide(of("fetch", "s")?).await?.decision(), Decision::Allow);
    assert_eq!(clients.decide(of("send", "s")?).await?.decision(), Decision::StepUp);
    assert_eq!(clients.decide(of("send", "clean")?).await?.decision(), Decision::Allow, "another session");
    // The label is on disk with the next commit; an acknowledged change behind it is proof.
    clients.open_session("later", "Agent::a").await?;
    cardea.process.kill()?;
    cardea.start_again().await?;
    let mut clients = cardea.clients()?;
    assert_eq!(clients.decide(of("send", "s")?).await?.decision(), Decision::StepUp, "after a kill");
    Ok(())
}

/// A sub-agent is handed what its parent read.
#[tokio::test]
async fn a_session_under_another_has_the_labels_of_those_above_it() -> Result<()> {
    let (_cardea, mut clients, _dir) = started().await?;
    clients.open_session("above", "Agent::a").await?;
    for (id, parent) in [("below", "above"), ("far_below", "below")] {
        let session = v1::Session {
            id: id.to_owned(),
            principal: Some(entity("Agent::a")?),
            parent_session_id: parent.to_owned(),
            ..v1::Session::default()
        };
        clients.session.open(v1::OpenSessionRequest { session: Some(session) }).await?;
    }
    let mut point = Point::open(&mut clients, None).await?;
    point.add(vec![held(1, of("send", "below")?)]).await?;
    assert_eq!(decision(&point.answer().await?), Decision::Allow);
    assert_eq!(clients.decide(of("send", "far_below")?).await?.decision(), Decision::Allow);
    assert_eq!(clients.decide(of("fetch", "above")?).await?.decision(), Decision::Allow);
    assert_eq!(clients.decide(of("send", "far_below")?).await?.decision(), Decision::StepUp);
    assert_eq!(decision(&point.answer().await?), Decision::StepUp, "what is held below is looked at");
    assert_eq!(clients.decide(of("send", "above")?).await?.decision(), Decision::StepUp);
    Ok(())
}

/// Whoever can name a session must not end it before its owner opens it, nor fill the table of ends.
#[tokio::test]
async fn a_response_ends_no_session_that_nobody_opened() -> Result<()> {
    let (_cardea, mut clients, _dir) = started().await?;
    clients.open_session("own", "Agent::a").await?;
    for session in ["own", "of_tomorrow"] {
        assert_eq!(clients.decide(of("dump", session)?).await?.decision(), Decision::Deny);
    }
    let own = clients.decide(of("read", "own")?).await?;
    assert_eq!(own.reasons[0].code(), v1::ReasonCode::SessionRevoked);
    clients.open_session("of_tomorrow", "Agent::b").await?;
    Ok(())
}

#[tokio::test]
async fn a_policy_in_dry_run_changes_no_answer_and_tells_what_it_would_have_answered() -> Result<()> {
    let (cardea, mut clients, _dir) = started().await?;
    clients.open_session("s", "Agent::a").await?;
    let before = clients.decide(of("read", "s")?).await?;
    clients.decide(of("fetch", "s")?).await?;
    let after = clients.decide(of("read", "s")?).await?;
    assert_eq!((before.decision(), after.decision()), (Decision::Allow, Decision::Allow));
    assert!(audit::decision(&mut clients, &before.decision_id).await?.would_have.is_empty());
    let record = audit::decision(&mut clients, &after.decision_id).await?;
    let would = record.would_have.first().context("nothing is told")?;
    assert_eq!((would.policy.as_str(), would.decision()), ("trial", Decision::Deny));
    assert_eq!(record.determining_policies, ["works"]);
    let metrics = cardea.page("/metrics").await?.body;
    let counted =
        metrics.lines().find(|line| line.starts_with("cardea_dry_run_total{")).context("not counted")?;
    assert!(counted.contains("trial") && counted.contains("deny") && counted.ends_with(" 1"), "{counted}");
    Ok(())
}
