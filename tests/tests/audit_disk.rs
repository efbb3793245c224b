//! A disk that is full for a while in the middle of the load, a real one: no crash, the configured choice holds, what is missing is counted
//! exactly, and everything goes on by itself once there is room.
//!
//! `CARDEA_FULL_DISK_S` sets for how many seconds it is full. Mounting a file system of its own needs root; without it the test says so and
//! has shown nothing.

#![expect(clippy::print_stdout, reason = "what was measured is part of what the test tells")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1::{self, ReasonCode, record::Entry};
use cardea_server::audit::stored::Stored;
use cardea_tests::attempts::{attempt, codes};
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use cardea_tests::process::run_cardea;
use cardea_tests::wait;
use tokio::task::JoinSet;

const FULL_S_DEFAULT: u64 = 2;
const CALLERS: usize = 4;

/// A small file system in memory, gone when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where it cannot be mounted.
    fn mount() -> Result<Option<Self>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("disk");
        std::fs::create_dir(&path)?;
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]).arg(&path).output();
        let is_mounted = mounted.is_ok_and(|done| done.status.success());
        Ok(is_mounted.then_some(Self(dir)))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("disk")
    }

    /// Fills it to the last byte.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.path().join("filler");
        let mut file = std::fs::File::create(&path)?;
        let mut part = vec![0; 1 << 20];
        while !part.is_empty() {
            if file.write_all(&part).is_err() {
                part.truncate(part.len() / 2);
            }
        }
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is still open keeps it for a moment.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// What callers were told.
#[derive(Default)]
struct Told {
    /// Decisions that were answered.
    answered: BTreeSet<String>,
    /// Answers that say that the audit is full.
    refused: u64,
}

async fn ask(mut clients: Clients, over: Arc<AtomicBool>) -> Result<Told> {
    let one = attempt("Agent::biller", "read", "Table::orders", "")?;
    let batch = v1::DecideBatchRequest { attempts: vec![one; 5] };
    let mut told = Told::default();
    while !over.load(Ordering::Acquire) {
        let answer = clients.decision.decide_batch(batch.clone()).await?.into_inner();
        for verdict in answer.verdicts {
            if codes(&verdict).contains(&ReasonCode::AuditFull) {
                ensure!(verdict.decision() == v1::Decision::Deny, "{verdict:?}");
                told.refused += 1;
            } else {
                told.answered.insert(verdict.decision_id);
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(told)
}

async fn audit(clients: &mut Clients) -> Result<v1::AuditStatus> {
    clients.status().await?.audit.context("no audit")
}

/// Decisions in the log, and decisions that gaps stand for.
fn logged(dir: &Path) -> Result<(BTreeSet<String>, u64)> {
    let (mut known, mut lost) = (BTreeSet::new(), 0);
    for record in Stored::open(&[dir.to_owned()])? {
        match record?.entry {
            Some(Entry::Decision(decision)) => drop(known.insert(decision.decision_id)),
            Some(Entry::Gap(gap)) => {
                ensure!(gap.lost == gap.lost_decisions + gap.lost_changes, "{gap:?}");
                lost += gap.lost_decisions;
            }
            _ => {}
        }
    }
    Ok((known, lost))
}

async fn full_for_a_while(when_full: &str) -> Result<Option<(Told, BTreeSet<String>, u64)>> {
    let Some(disk) = SmallDisk::mount()? else {
        println!("NOT SHOWN: a small file system cannot be mounted here; that needs root and CAP_SYS_ADMIN");
        return Ok(None);
    };
    let full_s = std::env::var("CARDEA_FULL_DISK_S").ok().and_then(|text| text.parse().ok());
    let full = Duration::from_secs(full_s.unwrap_or(FULL_S_DEFAULT));
    let config = format!("[audit]\nwhen_full = \"{when_full}\"\nqueue_max = 512\nsegment_mb = 1\n");
    let dir = disk.path().join("audit");
    let options = Options { audit_dir: Some(dir.clone()), ..Options::default().config(config) };
    let mut cardea = Cardea::start_with(options).await?;
    let mut clients = cardea.clients()?;
    let over = Arc::new(AtomicBool::new(false));
    let mut asking = JoinSet::new();
    for _ in 0..CALLERS {
        asking.spawn(ask(cardea.clients()?, Arc::clone(&over)));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let filler = disk.fill()?;
    #[expect(clippy::disallowed_methods, reason = "a test measures how long it takes")]
    let begun = Instant::now();
    let fault = wait::until("Status to tell", async || {
        Ok(Some(audit(&mut clients).await?.fault).filter(|fault| !fault.is_empty()))
    });
    let fault = fault.await?;
    while begun.elapsed() < full {
        cardea.process.must_run()?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let last = audit(&mut clients).await?;
    ensure!(!last.fault.is_empty() && last.queued == last.queue_max, "it is still full: {last:?}");
    std::fs::remove_file(filler)?;
    #[expect(clippy::disallowed_methods, reason = "a test measures how long it takes")]
    let freed = Instant::now();
    wait::until("the audit to go on by itself", async || {
        let now = audit(&mut clients).await?;
        Ok((now.fault.is_empty() && now.last_sequence > last.last_sequence).then_some(()))
    })
    .await?;
    let recovered = freed.elapsed();
    ensure!(recovered < Duration::from_secs(5), "it took {recovered:?} to go on");
    tokio::time::sleep(Duration::from_millis(500)).await;
    over.store(true, Ordering::Release);
    let mut told = Told::default();
    while let Some(ended) = asking.join_next().await {
        let one = ended??;
        told.answered.extend(one.answered);
        told.refused += one.refused;
    }
    let key = audit(&mut clients).await?.vkey;
    cardea.process.terminate().await?;
    let verified = run_cardea(&["audit", "verify", &dir.display().to_string(), "--key", &key], b"")?;
    ensure!(verified.code == Some(0), "{verified:?}");
    let (known, lost) = logged(&dir)?;
    println!(
        "{when_full}: full for {full:?} ({fault}), went on {recovered:?} after there was room; {} answered, {} refused, {} recorded, {lost} in gaps",
        told.answered.len(),
        told.refused,
        known.len()
    );
    Ok(Some((told, known, lost)))
}

#[tokio::test]
async fn on_a_full_disk_no_verdict_leaves_without_its_record_where_that_is_the_choice() -> Result<()> {
    let Some((told, known, lost)) = full_for_a_while("deny").await? else { return Ok(()) };
    ensure!(told.refused > 0, "it was never full");
    ensure!(
        lost == 0 && told.answered == known,
        "{} answered, {} recorded, {lost} lost",
        told.answered.len(),
        known.len()
    );
    Ok(())
}

#[tokio::test]
async fn on_a_full_disk_verdicts_go_on_and_gaps_tell_exactly_how_many_records_are_missing() -> Result<()> {
    let Some((told, known, lost)) = full_for_a_while("count_gap").await? else { return Ok(()) };
    ensure!(told.refused == 0 && lost > 0, "{} refused, {lost} lost", told.refused);
    ensure!(known.is_subset(&told.answered), "a record of nobody's decision");
    let missing = (told.answered.len() - known.len()) as u64;
    ensure!(missing == lost, "{missing} are missing, and gaps tell {lost}");
    Ok(())
}
