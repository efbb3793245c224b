//! What the audit takes: how many records a second, in how much memory, and what a decision's record costs.
#![expect(clippy::print_stdout, reason = "a bench prints what it found")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot set itself up has nothing to say")]
#![expect(clippy::cast_precision_loss, reason = "counts in a table")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cardea_benches::inside::{judge, pipeline};
use cardea_benches::mono;
use cardea_client::v1::{self, record::Entry};
use cardea_core::verdict::Decision;
use cardea_server::audit::mask::Masker;
use cardea_server::audit::stored::Stored;
use cardea_server::audit::{Audit, AuditConfig, IntoEntry, WhenFull, verify};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the audit takes and costs.
#[derive(Parser)]
enum Args {
    /// Fill the log at a steady rate, read it all back, and verify it.
    Write {
        /// Records a second.
        #[arg(long, default_value_t = 200_000)]
        rate: u64,
        /// For how long, in seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Where; a directory of its own is made in it.
        #[arg(long, value_name = "DIR")]
        at: Option<PathBuf>,
    },
    /// Decide in process, and say what each thread used for it.
    Decide {
        /// Decisions.
        #[arg(long, default_value_t = 2_000_000)]
        decisions: usize,
        /// Without what it takes to judge them again.
        #[arg(long)]
        brief: bool,
    },
}

/// A record like that of a decision, made on the writer's thread as decisions' are.
struct Like(Arc<v1::DecisionRecord>);

impl IntoEntry for Like {
    fn into_entry(self: Box<Self>, _masker: &mut Masker) -> Entry {
        Entry::Decision((*self.0).clone())
    }
}

fn main() -> ExitCode {
    match Args::parse() {
        Args::Write { rate, seconds, at } => write(rate, seconds, at.as_deref()),
        Args::Decide { decisions, brief } => decide(decisions, brief),
    }
}

/// Wall time in milliseconds.
fn wall_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// The record of a real decision, and the average length of such records in bytes.
fn prototype() -> v1::DecisionRecord {
    let dir = tempfile::tempdir().unwrap();
    let config = AuditConfig::in_dir(dir.path().join("audit"));
    let pipeline = pipeline(&config);
    assert_eq!(judge(&pipeline, 0), Decision::Allow);
    pipeline.audit().close().unwrap();
    let mut records = Stored::open(&[config.dir]).unwrap().map(Result::unwrap);
    records
        .find_map(|record| if let Some(Entry::Decision(one)) = record.entry { Some(one) } else { None })
        .unwrap()
}

fn write(rate: u64, seconds: u64, at: Option<&Path>) -> ExitCode {
    let like = Arc::new(prototype());
    let dir = at.map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let config =
        AuditConfig { when_full: WhenFull::CountGap, ..AuditConfig::in_dir(dir.path().join("audit")) };
    let audit = Audit::open(&config, Box::new(wall_ms)).unwrap();
    let before = resident_bytes();
    let (mut filled, mut refused, mut most) = (0_u64, 0_u64, before);
    let mut late_ms = 0;
    let start = mono::now();
    for tick in 0..seconds * 1_000 {
        let due = start + Duration::from_millis(tick);
        while mono::now() < due {
            std::thread::sleep(Duration::from_micros(200));
        }
        late_ms = late_ms.max(mono::now().duration_since(due).as_millis());
        let now = wall_ms();
        for _ in 0..rate / 1_000 {
            match audit.admit().unwrap() {
                Some(place) => {
                    place.fill(now, Box::new(Like(Arc::clone(&like))));
                    filled += 1;
                }
                None => refused += 1,
            }
        }
        if tick % 100 == 0 {
            most = most.max(resident_bytes());
        }
    }
    let took = start.elapsed().as_secs_f64();
    let behind = audit.stats().queued;
    let used = threads();
    audit.close().unwrap();
    let drained = start.elapsed().as_secs_f64() - took;
    println!(
        "{filled} records in {took:.1} s ({:.0} a second), {refused} refused for want of a place",
        filled as f64 / took
    );
    println!(
        "the producer was at most {late_ms} ms late; {behind} waited at its end, written after {drained:.2} s"
    );
    println!(
        "resident: {:.1} MiB before, at most {:.1} MiB",
        before as f64 / f64::from(1 << 20),
        most as f64 / f64::from(1 << 20)
    );
    for (name, ns) in &used {
        println!("CPU of {name}: {:.0} ns a record", *ns as f64 / filled as f64);
    }
    let on_disk: u64 = files(&config.dir).iter().map(|path| path.metadata().map_or(0, |of| of.len())).sum();
    println!("on disk: {:.0} bytes a record, hashes included", on_disk as f64 / filled as f64);
    let begun = mono::now();
    let verified = verify(&config.dir, &[audit.verifier().clone()]).unwrap();
    println!(
        "verified in {:.1} s: {} of {} records, {} findings",
        begun.elapsed().as_secs_f64(),
        verified.records,
        verified.signed,
        verified.findings.len()
    );
    let expected = filled + refused.min(1) * (verified.signed - filled);
    let is_whole = verified.findings.is_empty() && verified.signed == expected;
    if is_whole && refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn decide(decisions: usize, brief: bool) -> ExitCode {
    let dir = tempfile::tempdir().unwrap();
    let config =
        AuditConfig { when_full: WhenFull::CountGap, ..AuditConfig::in_dir(dir.path().join("audit")) };
    let pipeline = pipeline(&config).replayable(!brief);
    (0..100).for_each(|at| assert_eq!(judge(&pipeline, at), Decision::Allow));
    let before = threads();
    for at in 0..decisions {
        assert_eq!(judge(&pipeline, at), Decision::Allow);
        // As fast as the writer follows, so that every decision has its record.
        while pipeline.audit().stats().queued > 32_768 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    while pipeline.audit().stats().queued > 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let lost = pipeline.audit().stats().lost;
    for (name, ns) in threads() {
        let earlier = before.iter().find(|(known, _)| *known == name).map_or(0, |(_, ns)| *ns);
        println!("CPU of {name}: {:.0} ns a decision", ns.saturating_sub(earlier) as f64 / decisions as f64);
    }
    println!("{decisions} decisions, {lost} without a record");
    ExitCode::SUCCESS
}

/// CPU time of each thread of this process, by name, in nanoseconds.
fn threads() -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let ns = read("schedstat").split_ascii_whitespace().next().and_then(|ns| ns.parse().ok());
        found.extend(ns.map(|ns| (read("comm").trim().to_owned(), ns)));
    }
    found
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap();
    pages * 4096
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}
