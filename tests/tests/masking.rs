//! What the bundle masks is told nowhere: not in the log, not by a sink; and what links a pseudonym to somebody can be erased.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1;
use cardea_tests::attempts::attempt;
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::process::run_cardea;
use cardea_tests::wait;
use serde_json::Value;

const TENANT: &str = "tenant-of-nobody-else";
const SESSION: &str = "session-4711-of-quentin";
const AGENT: &str = "quentin-the-biller";

fn masked(out: &Path) -> Options {
    let sink = format!("[audit.sink.archive]\ntype = \"file\"\npath = \"{}\"\n", out.display());
    let mask = "name = \"web\"\n\n[audit.mask]\n\"entity.Agent\" = \"hash\"\n\"request.tenant\" = \"hash\"\n\"request.limit\" = \"remove\"\nsession_id = \"hash\"\n";
    Options::default().config(sink).edit("bundle.toml", "name = \"web\"\n", mask)
}

/// Every byte of every file below a directory.
fn bytes(dir: &Path) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        all.extend(if path.is_dir() { bytes(&path)? } else { std::fs::read(&path)? });
    }
    Ok(all)
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn what_is_masked_is_neither_in_the_log_nor_in_a_sink_and_its_pseudonym_can_be_erased() -> Result<()> {
    let elsewhere = tempfile::tempdir()?;
    let out = elsewhere.path().join("out/audit.jsonl");
    let mut cardea = Cardea::start_with(masked(&out)).await?;
    let mut clients = cardea.clients()?;
    clients.open_session(SESSION, &format!("Agent::{AGENT}")).await?;
    let mut asked = attempt(&format!("Agent::{AGENT}"), "read", "Table::orders", SESSION)?;
    let text = v1::Value { kind: Some(v1::value::Kind::String(TENANT.to_owned())) };
    asked.context.insert("tenant".to_owned(), text);
    asked.context.insert("limit".to_owned(), cardea_tests::attempts::long(7_654_321));
    let verdict = clients.decide(asked).await?;
    clients.report_risk(&format!("Agent::{AGENT}"), 30).await?;
    clients.end_session(SESSION).await?;
    wait::until("the sink to have the decision and what followed", async || {
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        Ok((text.contains(&verdict.decision_id) && text.contains("\"ended\"")).then_some(()))
    })
    .await?;
    let audit = cardea.audit_dir().display().to_string();
    let query = |words: &[&str]| -> Result<Vec<Value>> {
        let words = [&["audit", "query", &audit, "--format", "json"], words].concat();
        run_cardea(&words, b"")?.stdout.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    };
    let known = |value: &str| -> Result<Option<String>> {
        let finished = run_cardea(&["audit", "pseudonym", value, "--audit", &audit], b"")?;
        Ok((finished.code == Some(0)).then(|| finished.stdout.trim().to_owned()))
    };

    // The log and the sink.
    for hidden in [TENANT, SESSION, AGENT, "7654321"] {
        ensure!(!holds(&bytes(&cardea.audit_dir())?, hidden), "the log tells {hidden}");
        ensure!(!holds(&bytes(elsewhere.path())?, hidden), "the sink tells {hidden}");
    }
    ensure!(holds(&bytes(&cardea.audit_dir())?, "orders"), "the search finds what is there");

    // Whoever may can still find what is told of somebody.
    let pseudonym = known(AGENT)?.context("no pseudonym")?;
    let found = query(&["--principal", &format!("Agent::\"{pseudonym}\"")])?;
    let kinds = |kind: &str| found.iter().filter(|record| record.get(kind).is_some()).count();
    ensure!(kinds("decision") == 1 && kinds("session") >= 2 && kinds("signal") == 1, "{found:?}");
    let decision = found.iter().find_map(|record| record.get("decision")).context("no decision")?;
    ensure!(
        decision["masked"]
            == serde_json::json!(["entity.Agent", "request.limit", "request.tenant", "session_id"]),
        "{decision}"
    );
    ensure!(decision["replay"]["request"]["limit"]["string"] == "~removed", "{decision}");

    // And it is proven like any other.
    let key = clients.status().await?.audit.context("no audit")?.vkey;
    cardea.process.terminate().await?;
    let verified = run_cardea(&["audit", "verify", &audit, "--key", &key], b"")?;
    ensure!(verified.code == Some(0), "{verified:?}");
    // Judged again, it says that it says too little, and no more.
    let bundle = cardea.bundle().display().to_string();
    let replayed = run_cardea(&["replay", "--records", &audit, "--bundle", &bundle, "--same"], b"")?;
    ensure!(replayed.code == Some(0), "{replayed:?}");

    // Erased, it is about nobody.
    let erased = run_cardea(&["audit", "erase", AGENT, "nobody", "--audit", &audit], b"")?;
    ensure!(erased.code == Some(0) && erased.stdout.contains("1 of 2 values"), "{erased:?}");
    ensure!(known(AGENT)?.is_none() && known(TENANT)?.is_some());
    cardea.start_again().await?;
    let again = attempt(&format!("Agent::{AGENT}"), "read", "Table::orders", "")?;
    cardea.clients()?.decide(again).await?;
    let new = wait::until("the next record", async || known(AGENT)).await?;
    ensure!(new != pseudonym, "nobody can tell that it is the same one");
    Ok(())
}

#[tokio::test]
async fn a_bundle_that_masks_what_the_schema_does_not_have_is_refused() -> Result<()> {
    let cardea = Cardea::start().await?;
    let bundle = cardea.bundle();
    for (path, why) in [
        ("request.tenantt", "no action's `context.request` has it"),
        ("entity.Agnt", "the schema has no such type"),
        ("princpal", "names nothing that records hold"),
    ] {
        let file = bundle.join("bundle.toml");
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(&file, format!("{text}\n[audit.mask]\n\"{path}\" = \"hash\"\n"))?;
        let checked = run_cardea(&["bundle", "check", &bundle.display().to_string()], b"")?;
        let said = format!("{}{}", checked.stdout, checked.stderr);
        ensure!(checked.code == Some(1) && said.contains(why), "{path}: {checked:?}");
        std::fs::write(&file, text)?;
    }
    Ok(())
}
