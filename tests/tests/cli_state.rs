//! `cardea session` and `cardea signal` against a real node: what they print, and what their exit codes say.

use anyhow::{Context as _, Result};
use cardea_proto::v1::{self, Decision};
use cardea_tests::attempts::{attempt, codes};
use cardea_tests::audit;
use cardea_tests::cardea::Cardea;
use cardea_tests::clients::Clients;
use cardea_tests::process::{Finished, run_cardea};
use serde_json::Value;

const BILLER: &str = "Agent::\"biller\"";

/// A command's output as JSON.
fn json(finished: &Finished) -> Result<Value> {
    serde_json::from_str(&finished.stdout).with_context(|| format!("no JSON: {finished:?}"))
}

async fn started() -> Result<(Cardea, Clients)> {
    let cardea = Cardea::start().await?;
    let clients = cardea.clients()?;
    Ok((cardea, clients))
}

/// Runs a command that must end with this code, and gives its JSON.
async fn run(cardea: &Cardea, code: i32, words: &[&str]) -> Result<Value> {
    let finished = cardea.run(&[words, &["--format", "json"]].concat()).await?;
    assert_eq!(finished.code, Some(code), "{words:?}: {finished:?}");
    json(&finished)
}

async fn verdict(clients: &mut Clients, session: &str) -> Result<v1::Verdict> {
    clients.decide(attempt("Agent::biller", "read", "Table::orders", session)?).await
}

#[tokio::test]
async fn sessions_are_opened_listed_shown_and_ended() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    let open = |id: &'static str| ["session", "open", id, "--principal", BILLER];
    let more = [
        "--expires",
        "30m",
        "--authenticated",
        "0s",
        "--acr",
        "urn:example:acr:mfa",
        "--amr",
        "pwd",
        "--amr",
        "otp",
        "--label",
        "nightly",
        "--device",
        "laptop-7",
        "--tenant",
        "acme",
    ];
    let opened = run(&cardea, 0, &[&open("run-1")[..], &more].concat()).await?;
    let version = opened["state_version"].as_u64().context("no version")?;
    let session = &opened["session"];
    assert_eq!((&session["id"], &session["status"]), (&"run-1".into(), &"live".into()));
    assert_eq!(session["principal"], BILLER);
    assert_eq!(session["amr"], serde_json::json!(["otp", "pwd"]));
    assert_eq!((&session["device_id"], &session["tenant"]), (&"laptop-7".into(), &"acme".into()));
    assert_eq!(verdict(&mut clients, "run-1").await?.decision(), Decision::Allow);

    // Below the first one: ending that ends it.
    let human = cardea.run(&[&open("run-2")[..], &["--parent", "run-1"]].concat()).await?;
    assert_eq!(human.code, Some(0), "{human:?}");
    assert!(human.stdout.contains("run-2 (live)") && human.stdout.contains("below      run-1"), "{human:?}");

    let again = run(&cardea, 1, &open("run-1")).await?;
    assert_eq!((&again["ok"], &again["refused"]), (&false.into(), &true.into()), "{again}");

    let listed = run(&cardea, 0, &["session", "list", "--principal", BILLER, "--limit", "1"]).await?;
    assert_eq!((&listed["sessions"][0]["id"], &listed["has_more"]), (&"run-1".into(), &true.into()));
    let table = cardea.run(&["session", "list"]).await?;
    assert_eq!((table.code, table.stdout.lines().count()), (Some(0), 3), "{table:?}");
    assert!(table.stdout.starts_with("SESSION") && table.stdout.contains("nightly"), "{table:?}");
    let none = cardea.run(&["session", "list", "--principal", "User::\"ann\""]).await?;
    assert_eq!((none.code, none.stdout.as_str()), (Some(0), "the node keeps no such session\n"));

    let shown = run(&cardea, 0, &["session", "show", "run-1"]).await?;
    assert_eq!(&shown, session);
    let unknown = run(&cardea, 1, &["session", "show", "run-9"]).await?;
    assert_eq!(unknown["error"], "this node does not know the session");

    let ended = run(&cardea, 0, &["session", "end", "run-1", "--reason", "wrong target"]).await?;
    assert_eq!(ended["ended"], 1);
    assert!(ended["state_version"].as_u64() > Some(version), "{ended}");
    for session in ["run-1", "run-2"] {
        assert_eq!(codes(&verdict(&mut clients, session).await?), [v1::ReasonCode::SessionRevoked]);
        let shown = cardea.run(&["session", "show", session]).await?;
        assert!(shown.stdout.contains(&format!("{session} (revoked)")), "{shown:?}");
    }
    let record = audit::find(&mut clients, "the end", |record| match &record.entry {
        Some(v1::record::Entry::Session(session)) if session.change == "ended" => Some(session.clone()),
        _ => None,
    });
    assert_eq!(record.await?.reason, "wrong target");
    let nobody = run(&cardea, 0, &["session", "end", "run-9"]).await?;
    assert_eq!(nobody["ended"], 0, "a mistyped id must not look like a session that is over");
    Ok(())
}

#[tokio::test]
async fn every_session_of_a_principal_is_ended() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    for id in ["a", "b"] {
        clients.open_session(id, "Agent::biller").await?;
    }
    let human = cardea.run(&["session", "end", "--principal", BILLER]).await?;
    assert_eq!(human.code, Some(0), "{human:?}");
    assert!(human.stdout.starts_with("2 ended that the node knew"), "{human:?}");
    assert_eq!(codes(&verdict(&mut clients, "a").await?), [v1::ReasonCode::SessionRevoked]);
    Ok(())
}

#[tokio::test]
async fn signals_say_what_became_of_them() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    clients.open_session("s", "Agent::biller").await?;
    let applied = async |words: &[&str]| -> Result<()> {
        let outcome = run(&cardea, 0, &[&["signal"], words].concat()).await?;
        assert_eq!((&outcome["ok"], &outcome["outcome"]), (&true.into(), &"applied".into()), "{words:?}");
        Ok(())
    };
    let superseded = async |words: &[&str]| -> Result<()> {
        let outcome = run(&cardea, 1, &[&["signal"], words].concat()).await?;
        assert_eq!((&outcome["ok"], &outcome["outcome"]), (&false.into(), &"superseded".into()), "{words:?}");
        Ok(())
    };

    applied(&["risk", BILLER, "--kind", "data-exfiltration", "--severity", "95", "--half-life", "10m"])
        .await?;
    superseded(&[
        "risk",
        BILLER,
        "--kind",
        "data-exfiltration",
        "--severity",
        "1",
        "--at",
        "2020-01-01T00:00:00Z",
    ])
    .await?;
    let denied = verdict(&mut clients, "s").await?;
    assert_eq!(denied.determining_policies, ["high_risk_stops"]);
    applied(&["risk", BILLER, "--kind", "data-exfiltration", "--severity", "0"]).await?;
    assert_eq!(verdict(&mut clients, "s").await?.decision(), Decision::Allow);

    applied(&["disable", BILLER, "--reason", "left the project"]).await?;
    assert_eq!(codes(&verdict(&mut clients, "s").await?), [v1::ReasonCode::PrincipalDisabled]);
    applied(&["enable", BILLER]).await?;
    assert_eq!(verdict(&mut clients, "s").await?.decision(), Decision::Allow);

    applied(&["credential", BILLER]).await?;
    let shown = run(&cardea, 0, &["session", "show", "s"]).await?;
    assert_eq!(shown["credential_changed"], true, "{shown}");

    applied(&["device", "--session", "s", "--compliant", "false"]).await?;
    let shown = run(&cardea, 0, &["session", "show", "s"]).await?;
    assert_eq!(shown["device_compliant"], false, "{shown}");
    applied(&["device", "--device", "laptop-7", "--compliant", "false"]).await?;
    let unknown = run(&cardea, 1, &["signal", "device", "--session", "none", "--compliant", "true"]).await?;
    assert_eq!(unknown["outcome"], "unknown_subject");

    let human = cardea.run(&["signal", "revoke", "--session", "s", "--reason", "key leaked"]).await?;
    assert_eq!(human.code, Some(0), "{human:?}");
    assert!(human.stdout.starts_with("in force and durable (state version "), "{human:?}");
    superseded(&["revoke", "--session", "s"]).await?;
    assert_eq!(codes(&verdict(&mut clients, "s").await?), [v1::ReasonCode::SessionRevoked]);
    applied(&["revoke", "--principal", BILLER]).await?;
    applied(&["revoke", "--tenant", "acme"]).await?;

    applied(&["purge", BILLER]).await?;
    superseded(&["enable", BILLER]).await
}

#[tokio::test]
async fn bad_input_is_refused_with_what_to_do() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    clients.open_session("s", "Agent::biller").await?;
    for (words, code, says) in [
        (&["signal", "risk", "biller", "--severity", "9"][..], 2, "`biller`"),
        (&["signal", "risk", BILLER, "--severity", "101"], 2, "101"),
        (&["signal", "risk", BILLER], 2, "--severity"),
        (&["signal", "risk", BILLER, "--severity", "9", "--kind", "gossip"], 2, "possible values"),
        (&["signal", "risk", BILLER, "--severity", "9", "--at", "soon"], 2, "write a span from now"),
        (&["signal", "revoke"], 2, "--session"),
        (&["signal", "revoke", "--session", "s", "--tenant", "acme"], 2, "cannot be used with"),
        (&["signal", "device", "--compliant", "true"], 2, "--device"),
        (&["signal", "device", "--device", "d", "--compliant", "perhaps"], 2, "perhaps"),
        (&["signal", "credential", BILLER, "--reason", "none is kept"], 2, "--reason"),
        (&["session", "open", "x"], 2, "--principal"),
        (&["session", "end"], 2, "--principal"),
        (&["session", "end", "s", "--principal", BILLER], 2, "cannot be used with"),
        // What the node refuses.
        (&["signal", "disable", "Ghost::\"x\""], 1, "see its entity types"),
        (&["session", "open", "x", "--principal", "Ghost::\"x\""], 1, "see its entity types"),
        (
            &["session", "open", "x", "--principal", BILLER, "--expires", "2020-01-01T00:00:00Z"],
            1,
            "`expires_at` has passed",
        ),
        (&["session", "open", "x", "--principal", BILLER, "--task", "none"], 1, "approve it first"),
        (&["session", "open", "x", "--principal", BILLER, "--parent", "none"], 1, "none"),
        (&["session", "open", "", "--principal", BILLER], 1, "1 to"),
    ] {
        let finished = cardea.run(words).await?;
        assert_eq!(finished.code, Some(code), "{words:?}: {finished:?}");
        assert!(finished.stderr.contains(says), "{words:?}: {finished:?}");
        assert_eq!(finished.stdout, "", "{words:?}");
    }
    assert_eq!(verdict(&mut clients, "s").await?.decision(), Decision::Allow, "nothing was changed");
    Ok(())
}

#[test]
fn a_node_that_is_not_there_is_no_finding() -> Result<()> {
    let gone = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let node = format!("http://{gone}");
    for words in [&["session", "list"][..], &["session", "end", "s"], &["signal", "revoke", "--session", "s"]]
    {
        let finished = run_cardea(&[words, &["--node", node.as_str()]].concat(), b"")?;
        assert_eq!(finished.code, Some(2), "{words:?}: {finished:?}");
        assert!(finished.stderr.contains("is a node serving there"), "{finished:?}");
        let finished = run_cardea(&[words, &["--node", node.as_str(), "--format", "json"]].concat(), b"")?;
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(2), ""), "{finished:?}");
        let failed = json(&finished)?;
        assert_eq!((&failed["ok"], &failed["refused"]), (&false.into(), &false.into()));
    }
    Ok(())
}
