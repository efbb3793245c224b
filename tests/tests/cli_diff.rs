//! `cardea bundle diff`: in words, over the matrix, and over decisions that a service has recorded.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use cardea_proto::v1;
use cardea_tests::attempts::{attempt, entity, long};
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::process::{Finished, run_cardea};
use cardea_tests::{audit, bundle};
use serde_json::Value;

fn diff(old: &Path, new: &Path, more: &[&str]) -> Result<Finished> {
    let mut arguments = vec!["bundle".as_ref(), "diff".as_ref(), old.as_os_str(), new.as_os_str()];
    arguments.extend(more.iter().map(|argument| std::ffi::OsStr::new(*argument)));
    run_cardea(&arguments, b"")
}

fn json(finished: &Finished) -> Result<impl Fn(&str) -> Value> {
    let said: Value = serde_json::from_str(&finished.stdout)?;
    Ok(move |at: &str| said.pointer(at).cloned().unwrap_or_default())
}

/// A copy in which reads are bounded at ten thousand rows instead of one.
fn widened() -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    bundle::copy_web(dir.path())?;
    bundle::edit(dir.path(), "policies/guards.cedar", "* 1000 > 1000000", "* 1000 > 10000000")?;
    Ok(dir)
}

#[test]
fn equal_bundles_differ_in_nothing() -> Result<()> {
    let finished = diff(&bundle::web(), &bundle::web(), &["--fail-on", "any"])?;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("Nothing is written otherwise."), "{}", finished.stdout);
    Ok(())
}

#[test]
fn every_kind_of_change_is_told_in_words() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let new = dir.path();
    bundle::copy_web(new)?;
    bundle::edit(new, "policies/access.cedar", "principal is Workload", "principal")?;
    bundle::edit(new, "policies/guards.cedar", "risk.score >= 70", "risk.score >= 80")?;
    bundle::edit(new, "policies/guards.cedar", "Tables are not dropped", "Tables stay, and are not dropped")?;
    bundle::edit(
        new,
        "policies/guards.cedar",
        "@id(\"medium_risk_writes_need_approval\")",
        "@id(\"renamed\")",
    )?;
    bundle::edit(new, "bundle.toml", "max_age_s = 3600", "max_age_s = 7200")?;
    bundle::edit(new, "schema.cedarschema", "entity Account;", "entity Account;\nentity Vault;")?;
    bundle::edit(
        new,
        "entities.json",
        "\"id\": \"salaries\" }, \"attrs\": {}, \"parents\": []",
        "\"id\": \"salaries\" }, \"attrs\": {}, \"parents\": [{ \"type\": \"Schema\", \"id\": \"sales\" }]",
    )?;
    let finished = diff(&bundle::web(), new, &["--format", "json"])?;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let at = json(&finished)?;
    assert_eq!(at("/words/policies/added"), serde_json::json!(["renamed"]));
    assert_eq!(at("/words/policies/removed"), serde_json::json!(["medium_risk_writes_need_approval"]));
    let changed = at("/words/policies/changed");
    let parts: Vec<String> = changed
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| format!("{} {}", one["id"].as_str().unwrap_or(""), one["parts"]))
        .collect();
    assert_eq!(
        parts,
        [
            "high_risk_stops [\"condition\"]",
            "tables_are_never_dropped [\"annotations\"]",
            "workloads_read_sales [\"scope\"]"
        ]
    );
    assert_eq!(at("/words/settings/0/key"), "sessions.max_age_s");
    assert_eq!((at("/words/settings/0/old"), at("/words/settings/0/new")), ("3600".into(), "7200".into()));
    assert_eq!(at("/words/entities/names"), serde_json::json!(["~ Table::\"salaries\""]));
    assert_eq!(at("/words/schema/1"), "+ entity Vault;");
    let text = diff(&bundle::web(), new, &[])?.stdout;
    for said in [
        "policy high_risk_stops: condition changed",
        "- when { context.risk.score >= 70 };",
        "+ when { context.risk.score >= 80 };",
    ] {
        assert!(text.contains(said), "`{said}` is not in\n{text}");
    }
    Ok(())
}

#[test]
fn a_widening_stands_first_and_fails_where_it_must() -> Result<()> {
    let dir = tempfile::tempdir()?;
    bundle::copy_web(dir.path())?;
    bundle::edit(dir.path(), "policies/access.cedar", "principal is Workload", "principal is Agent")?;
    let finished = diff(&bundle::web(), dir.path(), &["--fail-on", "widening"])?;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let opens = finished.stdout.find("OPENS   deny -> allow  read");
    let closes = finished.stdout.find("closes  allow -> deny  read");
    assert!(opens.zip(closes).is_some_and(|(opens, closes)| opens < closes), "{}", finished.stdout);
    assert!(finished.stdout.contains("Agent::\"stranger\" Table::\"orders\" (calm)"), "{}", finished.stdout);

    // The other way round closes as much as it opens; without a permit it only closes.
    let closed = tempfile::tempdir()?;
    bundle::copy_web(closed.path())?;
    bundle::edit(
        closed.path(),
        "policies/access.cedar",
        "permit (principal is Workload",
        "forbid (principal is Workload",
    )?;
    assert_eq!(diff(&bundle::web(), closed.path(), &["--fail-on", "widening"])?.code, Some(0));
    assert_eq!(diff(&bundle::web(), closed.path(), &["--fail-on", "any"])?.code, Some(1));
    assert_eq!(diff(&bundle::web(), Path::new("missing"), &[])?.code, Some(2));
    Ok(())
}

#[test]
fn a_changed_template_and_its_links_are_told() -> Result<()> {
    let (old, new) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let template =
        "@id(\"linked\") permit (principal == ?principal, action == Action::\"write\", resource);\n";
    let link = |id: &str, who: &str| {
        format!("{{\"template_id\":\"linked\",\"link_id\":\"{id}\",\"args\":{{\"?principal\":\"{who}\"}}}}")
    };
    let ann = link("for-ann", "User::\\\"ann\\\"");
    let stranger = link("for-all", "User::\\\"stranger\\\"");
    for (dir, text, links) in [
        (old.path(), template.to_owned(), format!("[{ann}]")),
        (
            new.path(),
            template.replace("resource);", "resource) when { context.risk.score < 50 };"),
            format!("[{ann},{stranger}]"),
        ),
    ] {
        bundle::copy_web(dir)?;
        fs::write(dir.join("policies/linked.cedar"), text)?;
        fs::write(dir.join("links.json"), links)?;
    }
    let finished = diff(old.path(), new.path(), &["--format", "json", "--fail-on", "widening"])?;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let at = json(&finished)?;
    assert_eq!(at("/words/templates/changed/0/parts"), serde_json::json!(["condition"]));
    assert_eq!(at("/words/links/names"), serde_json::json!(["+ for-all"]));
    assert_eq!(at("/words/policies/added"), serde_json::json!(["for-all"]));
    assert_eq!(at("/matrix/groups/0/new/policies"), serde_json::json!(["for-all"]));
    Ok(())
}

#[test]
fn an_allow_that_loses_its_obligation_is_a_widening() -> Result<()> {
    let dir = tempfile::tempdir()?;
    bundle::copy_web(dir.path())?;
    bundle::edit(dir.path(), "policies/access.cedar", "@obligation(\"mask_personal_data\")", "")?;
    let finished = diff(&bundle::web(), dir.path(), &["--fail-on", "widening"])?;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stdout.contains("OPENS   allow -> allow"), "{}", finished.stdout);
    Ok(())
}

/// Four decisions by a service with this configuration; then it stops.
async fn recorded(config: &str) -> Result<(Cardea, Vec<PathBuf>)> {
    let mut cardea = Cardea::start_with(Options::default().config(config)).await?;
    let mut clients = cardea.clients()?;
    clients.open_session("s-1", "Agent::biller").await?;
    let read = |limit: i64| -> Result<v1::Attempt> {
        let asked = attempt("Agent::biller", "read", "Table::orders", "s-1")?;
        Ok(v1::Attempt { context: [("limit".to_owned(), long(limit))].into(), ..asked })
    };
    clients.decide(read(10)?).await?;
    clients.decide(read(5000)?).await?;
    let on_behalf = v1::Attempt { delegation: vec![entity("User::ann")?], ..read(6000)? };
    clients.decide(on_behalf).await?;
    let last = clients.decide(attempt("Agent::biller", "read", "Table::orders", "gone")?).await?;
    audit::decision(&mut clients, &last.decision_id).await?;
    cardea.process.terminate().await?;
    let segments = audit::segments(&cardea.audit_dir())?;
    Ok((cardea, segments))
}

#[tokio::test]
async fn recorded_decisions_are_judged_again_as_they_were() -> Result<()> {
    let (cardea, segments) = recorded("").await?;
    let new = widened()?;
    let files: Vec<String> = segments.iter().map(|path| path.display().to_string()).collect();
    let mut more = vec!["--format", "json", "--fail-on", "widening", "--records"];
    more.extend(files.iter().map(String::as_str));
    let finished = diff(&cardea.bundle(), new.path(), &more)?;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let at = json(&finished)?;
    assert_eq!(
        (at("/records/decisions"), at("/records/from_facts")),
        (4.into(), 4.into()),
        "{}",
        finished.stdout
    );
    assert_eq!((at("/records/not_reproducible"), at("/records/with_unknown_facts")), (0.into(), 0.into()));
    assert_eq!((at("/records/effects/changed"), at("/records/effects/widening")), (2.into(), 2.into()));
    assert_eq!(at("/records/effects/groups/0/old/policies"), serde_json::json!(["reads_are_bounded"]));
    assert_eq!(at("/records/effects/groups/0/new/verdict"), "allow");
    assert!(at("/records/others").as_u64().is_some_and(|others| others >= 2), "bundle and session");

    // Under the bundle that judged them every one comes out as it was; under the other the differences are grouped.
    let replay = |bundle: &Path, more: &[&str]| -> Result<Finished> {
        let bundle = bundle.display().to_string();
        let audit = cardea.audit_dir().display().to_string();
        let words = ["replay", "--records", audit.as_str(), "--bundle", bundle.as_str(), "--format", "json"];
        run_cardea(&[words.as_slice(), more].concat(), b"")
    };
    let same = replay(&cardea.bundle(), &["--same"])?;
    assert_eq!(same.code, Some(0), "{same:?}");
    let at = json(&same)?;
    assert_eq!(
        (at("/reproduced"), at("/not_reproducible"), at("/effects/changed")),
        (4.into(), 0.into(), 0.into())
    );
    assert_eq!(replay(new.path(), &["--same"])?.code, Some(1), "it is not the same");
    let other = replay(new.path(), &[])?;
    let at = json(&other)?;
    assert_eq!((at("/effects/changed"), at("/effects/widening")), (2.into(), 2.into()), "{}", other.stdout);

    // A fact that the old bundle never read was never recorded.
    let reading = tempfile::tempdir()?;
    bundle::copy_web(reading.path())?;
    bundle::edit(
        reading.path(),
        "policies/guards.cedar",
        "when { context.risk.score >= 70 }",
        "when { context.risk.score >= 70 || context.session.aal > 2 }",
    )?;
    let finished = diff(&cardea.bundle(), reading.path(), &more)?;
    let at = json(&finished)?;
    assert_eq!(at("/records/with_unknown_facts"), 4, "{}", finished.stdout);
    Ok(())
}

#[tokio::test]
async fn records_without_the_request_are_counted_apart_and_nothing_is_dropped() -> Result<()> {
    let (cardea, _) = recorded("[audit]\nreplayable = false\n").await?;
    let audit = cardea.audit_dir().display().to_string();
    let exported =
        run_cardea(&["audit", "query", &audit, "--format", "json"].map(std::ffi::OsStr::new), b"")?;
    assert!(!exported.stdout.contains("\"replay\""), "it was switched off");
    let new = widened()?;
    let lines = new.path().join("records.jsonl");
    fs::write(&lines, &exported.stdout)?;
    let judged = |records: &Path| {
        diff(&cardea.bundle(), new.path(), &["--format", "json", "--records", &records.display().to_string()])
    };
    let finished = judged(&lines)?;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(finished.stdout, judged(&cardea.audit_dir())?.stdout, "lines of JSON say what the log says");
    let at = json(&finished)?;
    assert_eq!((at("/records/decisions"), at("/records/from_facts")), (4.into(), 0.into()));
    // Without the request `reads_are_bounded` does not hold, so two denies do not come out again.
    assert_eq!(
        (at("/records/from_evidence"), at("/records/not_reproducible")),
        (2.into(), 2.into()),
        "{}",
        finished.stdout
    );
    assert_eq!((at("/records/unreadable"), at("/records/effects/changed")), (0.into(), 0.into()));
    fs::write(&lines, exported.stdout + "{\"sequence\":99\n")?;
    let refused = judged(&lines)?;
    assert!(
        refused.code == Some(2) && refused.stderr.contains("a line is a record of a node's audit"),
        "{refused:?}"
    );
    Ok(())
}
