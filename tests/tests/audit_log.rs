//! The audit log of a real node: proven from outside, held up by nobody, and whole after every kill.
//!
//! `CARDEA_KILLS` sets how many times the process is killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1::{self, Decision, gap_record::Cause, record::Entry};
use cardea_server::audit::stored::Stored;
use cardea_tests::attempts::attempt;
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use cardea_tests::process::{Finished, run_cardea};
use cardea_tests::wait;
use serde_json::Value;
use tokio::task::JoinSet;

const KILLS_DEFAULT: usize = 5;
const CALLERS: usize = 8;
/// The process lives at most this long under load.
const LIFE_MS_MAX: u64 = 150;

/// Every answer waits for the disk.
const ALL_DURABLE: &str = "[audit]\ndurable = [\"allow\", \"step_up\", \"deny\"]\nsegment_mb = 1\n";

/// Asks until the service is gone; gives the ids of the decisions that it was told.
async fn ask(mut clients: Clients, mut told: BTreeSet<String>) -> Result<BTreeSet<String>> {
    let one = attempt("Agent::biller", "read", "Table::orders", "")?;
    let batch = v1::DecideBatchRequest { attempts: vec![one; 5] };
    while let Ok(answer) = clients.decision.decide_batch(batch.clone()).await {
        told.extend(answer.into_inner().verdicts.into_iter().map(|verdict| verdict.decision_id));
    }
    Ok(told)
}

async fn key(clients: &mut Clients) -> Result<String> {
    Ok(clients.status().await?.audit.context("no audit")?.vkey)
}

fn verify(audit: &Path, key: &str) -> Result<(Finished, Value)> {
    let words = ["audit", "verify", &audit.display().to_string(), "--key", key, "--format", "json"];
    let finished = run_cardea(&words, b"")?;
    let outcome = serde_json::from_str(&finished.stdout).with_context(|| format!("{finished:?}"))?;
    Ok((finished, outcome))
}

#[tokio::test]
async fn after_kill_9_every_durable_record_that_somebody_was_told_is_in_the_log() -> Result<()> {
    let kills =
        std::env::var("CARDEA_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS_DEFAULT);
    let mut cardea = Cardea::start_with(Options::default().config(ALL_DURABLE)).await?;
    let key = key(&mut cardea.clients()?).await?;
    let mut told = BTreeSet::new();
    for kill in 0..kills {
        let mut asking = JoinSet::new();
        for _ in 0..CALLERS {
            asking.spawn(ask(cardea.clients()?, BTreeSet::new()));
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..LIFE_MS_MAX))).await;
        cardea.process.kill()?;
        while let Some(ended) = asking.join_next().await {
            told.extend(ended??);
        }
        cardea.start_again().await?;
        // The gap of the kill is on the disk before anything else is.
        let mut clients = cardea.clients()?;
        let verdict = clients.decide(attempt("Agent::biller", "read", "Table::orders", "")?).await?;
        told.insert(verdict.decision_id);
        let (mut known, mut gaps, mut last) = (BTreeSet::new(), 0, 0);
        for record in Stored::open(&[cardea.audit_dir()])? {
            let record = record?;
            ensure!(record.sequence == last + 1, "kill {kill}: {} after {last}", record.sequence);
            last = record.sequence;
            match record.entry {
                Some(Entry::Decision(decision)) => drop(known.insert(decision.decision_id)),
                Some(Entry::Gap(gap)) if gap.cause() == Cause::UncleanStop => gaps += 1,
                _ => {}
            }
        }
        let lost: Vec<_> = told.difference(&known).collect();
        ensure!(lost.is_empty(), "kill {kill}: {} decisions were told and are not there", lost.len());
        ensure!(gaps == kill + 1, "kill {kill}: {gaps} gaps");
    }
    cardea.process.terminate().await?;
    let (finished, outcome) = verify(&cardea.audit_dir(), &key)?;
    ensure!(finished.code == Some(0) && outcome["unsigned"] == 0, "{outcome}");
    ensure!(told.len() > kills * CALLERS, "only {} decisions: too little load", told.len());
    println!("{kills} kills, {} durable decisions told, none lost", told.len());
    Ok(())
}

#[tokio::test]
async fn a_decision_is_proven_to_somebody_who_has_nothing_else_of_the_log() -> Result<()> {
    let mut cardea = Cardea::start().await?;
    let mut clients = cardea.clients()?;
    let key = key(&mut clients).await?;
    let asked = attempt("Agent::biller", "read", "Table::orders", "")?;
    let verdict = clients.decide(asked).await?;
    let audit = cardea.audit_dir().display().to_string();
    let elsewhere = tempfile::tempdir()?;
    let proof = elsewhere.path().join("receipt.tlog-proof").display().to_string();
    wait::until("the record to be signed", async || {
        let words = ["audit", "prove", &verdict.decision_id, "--audit", &audit, "--out", &proof];
        let finished = run_cardea(&words, b"")?;
        ensure!(
            finished.code == Some(0)
                || finished.stderr.contains("a node signs every second")
                || finished.stderr.contains("no record of decision")
                || finished.stderr.contains("No such file"),
            "{finished:?}"
        );
        Ok((finished.code == Some(0)).then_some(()))
    })
    .await?;
    let proven = |proof: &str, key: &str| {
        run_cardea(&["audit", "verify", "--proof", proof, "--key", key, "--format", "json"], b"")
    };
    let said = proven(&proof, &key)?;
    ensure!(said.code == Some(0), "{said:?}");
    let record: Value = serde_json::from_str(&said.stdout)?;
    assert_eq!(record["decision"]["decision_id"], verdict.decision_id);
    assert_eq!(record["decision"]["principal"]["id"], "biller");

    // Another key, another record, another place.
    let other = run_cardea(
        &["audit", "key", "elsewhere.example", "--out", &elsewhere.path().join("k").display().to_string()],
        b"",
    )?;
    ensure!(proven(&proof, other.stdout.trim())?.code == Some(1), "another key proves nothing");
    let text = std::fs::read_to_string(&proof)?;
    let forged = elsewhere.path().join("forged.tlog-proof");
    std::fs::write(&forged, text.replace("index ", "index 1"))?;
    ensure!(proven(&forged.display().to_string(), &key)?.code == Some(1), "another place");
    cardea.process.terminate().await?;
    Ok(())
}

#[tokio::test]
async fn whoever_changes_a_record_is_found_by_record_and_the_node_does_not_go_on() -> Result<()> {
    let mut cardea = Cardea::start().await?;
    let mut clients = cardea.clients()?;
    let key = key(&mut clients).await?;
    for _ in 0..50 {
        clients.decide(attempt("Agent::biller", "read", "Table::orders", "")?).await?;
    }
    cardea.process.terminate().await?;
    let (finished, outcome) = verify(&cardea.audit_dir(), &key)?;
    ensure!(finished.code == Some(0) && outcome["ok"] == true, "{outcome}");
    let segments = cardea_tests::audit::segments(&cardea.audit_dir())?;
    let segment = segments.first().context("no segment")?;
    let mut bytes = std::fs::read(segment)?;
    let at = bytes.windows(6).rposition(|window| window == b"biller").context("no biller")?;
    bytes[at] = b'k';
    std::fs::write(segment, bytes)?;
    let (finished, outcome) = verify(&cardea.audit_dir(), &key)?;
    ensure!(finished.code == Some(1) && outcome["ok"] == false, "{outcome}");
    let findings = outcome["findings"].as_array().context("no findings")?;
    ensure!(
        matches!(&findings[..], [one] if one.as_str().is_some_and(|one| one.ends_with("altered"))),
        "{findings:?}"
    );
    let refused = cardea.start_again().await.err().context("it went on")?;
    ensure!(format!("{refused:#}").contains("cardea audit verify"), "{refused:#}");
    Ok(())
}

#[tokio::test]
async fn what_a_policy_settles_durably_is_on_the_disk_before_the_answer_leaves() -> Result<()> {
    // With a sync only once a second, readers see a record at once only if somebody waited for it.
    let slow = "[audit]\nsync_ms = 1000\ndurable = [\"deny\"]\n";
    let options = Options::default().config(slow);
    let cardea = Cardea::start_with(options).await?;
    let mut clients = cardea.clients()?;
    let deny = attempt("Agent::stranger", "read", "Table::orders", "")?;
    for _ in 0..5 {
        let verdict = clients.decide(deny.clone()).await?;
        assert_eq!(verdict.decision(), Decision::Deny);
        let last = clients.status().await?.audit.context("no audit")?.last_sequence;
        let records: Vec<v1::Record> = Stored::open(&[cardea.audit_dir()])?.collect::<Result<_, _>>()?;
        let of_verdict = records.iter().find(|record| {
            matches!(&record.entry, Some(Entry::Decision(decision)) if decision.decision_id == verdict.decision_id)
        });
        ensure!(of_verdict.is_some_and(|record| record.sequence <= last), "it was not waited for");
    }
    Ok(())
}

#[tokio::test]
async fn records_are_queried_by_answer_principal_policy_and_time_and_followed_live() -> Result<()> {
    let mut cardea = Cardea::start().await?;
    let mut clients = cardea.clients()?;
    clients.open_session("s-1", "Agent::biller").await?;
    let allowed = clients.decide(attempt("Agent::biller", "read", "Table::orders", "s-1")?).await?;
    let denied = clients.decide(attempt("Agent::stranger", "read", "Table::orders", "")?).await?;
    cardea_tests::audit::decision(&mut clients, &denied.decision_id).await?;
    let audit = cardea.audit_dir().display().to_string();
    let query = |more: &[&str]| -> Result<Finished> {
        run_cardea(&[&["audit", "query", audit.as_str()], more].concat(), b"")
    };
    let lines = |finished: &Finished| finished.stdout.lines().count();
    let all = query(&[])?;
    ensure!(all.code == Some(0) && lines(&all) >= 4, "{all:?}");
    let one = query(&["--decision", "deny"])?;
    ensure!(lines(&one) == 1 && one.stdout.contains(&denied.decision_id), "{one:?}");
    let of_biller = query(&["--principal", "Agent::\"biller\"", "--decision", "allow", "--format", "json"])?;
    let record: Value = serde_json::from_str(of_biller.stdout.trim())?;
    assert_eq!(record["decision"]["decision_id"], allowed.decision_id);
    let policy = record["decision"]["determining_policies"][0].as_str().context("no policy")?;
    ensure!(query(&["--policy", policy])?.stdout.contains(&allowed.decision_id), "by policy");
    ensure!(query(&["--policy", "nobody"])?.code == Some(1), "none fits");
    ensure!(query(&["--id", &denied.decision_id])?.stdout.contains("stranger"), "by id");
    ensure!(query(&["--until", "2020-01-01T00:00:00Z"])?.code == Some(1), "nothing is so old");
    ensure!(lines(&query(&["--since", "2020-01-01T00:00:00Z", "--limit", "2"])?) == 2, "a limit");
    let wrong = query(&["--principal", "biller"])?;
    ensure!(wrong.code == Some(2) && wrong.stderr.contains("Type::"), "{wrong:?}");
    cardea.process.terminate().await?;
    Ok(())
}
