//! Behaviours of the audit as a whole, and what its tests share: a disk that can be held up or made to fail,
//! and a reader of segments that knows nothing of `Tail`.

mod killing;
mod reading;
pub(super) mod records;
mod writing;

use std::{
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use cardea_proto::v1::{self, record::Entry};

use super::{
    Audit, AuditConfig, WallClock, WhenFull, key,
    log::{Batch, Log},
    stored::Stored,
    writer::Disk,
};

/// What the disk under test does with the next writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Works,
    /// Lets this many writes through, then holds the writer up.
    Holds(u32),
    Fails,
}

/// Controls a `GatedDisk` from the test.
#[derive(Clone)]
struct Gate(Arc<(Mutex<Mode>, Condvar)>);

impl Gate {
    fn set(&self, mode: Mode) {
        *self.0.0.lock().unwrap() = mode;
        self.0.1.notify_all();
    }

    fn pass(&self) -> io::Result<()> {
        let mut mode = self.0.1.wait_while(self.0.0.lock().unwrap(), |mode| *mode == Mode::Holds(0)).unwrap();
        match &mut *mode {
            Mode::Works => Ok(()),
            Mode::Holds(left) => {
                *left -= 1;
                Ok(())
            }
            Mode::Fails => Err(io::Error::from(io::ErrorKind::StorageFull)),
        }
    }
}

/// A real log behind a gate.
struct GatedDisk {
    log: Log,
    gate: Gate,
}

impl Disk for GatedDisk {
    fn append(&mut self, batch: &Batch) -> io::Result<()> {
        self.gate.pass()?;
        self.log.append(batch)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.log.sync()
    }

    fn sign(&mut self) -> io::Result<()> {
        self.log.sign()
    }

    fn close(&mut self) -> io::Result<()> {
        self.log.close()
    }

    fn is_full(&self) -> bool {
        self.log.is_full()
    }

    fn take_unpacked(&mut self) -> Option<u64> {
        self.log.take_unpacked()
    }
}

fn config(dir: &Path, queue_max: usize, when_full: WhenFull) -> AuditConfig {
    AuditConfig {
        queue_max,
        when_full,
        segment_bytes_max: 4 * 1024,
        // The clock of these tests stands still.
        sync_interval: Duration::ZERO,
        key_file: dir.join("key"),
        ..AuditConfig::in_dir(dir)
    }
}

fn clock() -> WallClock {
    Box::new(|| 1_000)
}

fn open(config: &AuditConfig) -> Audit {
    Audit::open(config, clock()).unwrap()
}

fn open_gated(config: &AuditConfig, mode: Mode) -> (Audit, Gate) {
    let gate = Gate(Arc::new((Mutex::new(mode), Condvar::new())));
    let signer = key::read_or_make(&config.key_file, &config.origin).unwrap();
    let verifier = signer.verifier().clone();
    let (log, found) = Log::open(&config.dir, config.segment_bytes_max, signer).unwrap();
    let disk = GatedDisk { log, gate: gate.clone() };
    (Audit::start(config, clock(), disk, found.next, None, verifier).unwrap(), gate)
}

/// An entry that can be told from others.
fn numbered(number: usize) -> Entry {
    Entry::Session(v1::SessionRecord {
        session_id: number.to_string(),
        change: "opened".to_owned(),
        ..v1::SessionRecord::default()
    })
}

fn number(record: &v1::Record) -> Option<usize> {
    match &record.entry {
        Some(Entry::Session(session)) => session.session_id.parse().ok(),
        _ => None,
    }
}

fn gap_of(record: &v1::Record) -> Option<v1::GapRecord> {
    if let Some(Entry::Gap(gap)) = record.entry { Some(gap) } else { None }
}

fn lost(records: &[v1::Record]) -> u64 {
    records.iter().filter_map(gap_of).map(|gap| gap.lost).sum()
}

fn numbers(records: &[v1::Record]) -> Vec<usize> {
    records.iter().filter_map(number).collect()
}

fn put(audit: &Audit, number: usize) {
    audit.reserve().unwrap().fill_entry(2_000, numbered(number));
}

/// Every record on disk; fails unless the sequence rises by one from 1 and all is what was signed.
fn on_disk(dir: &Path) -> Vec<v1::Record> {
    if segments(dir).is_empty() {
        return Vec::new();
    }
    let records: Vec<v1::Record> =
        Stored::open(&[dir.to_owned()]).unwrap().collect::<Result<_, _>>().unwrap();
    for (record, sequence) in records.iter().zip(1..) {
        assert_eq!(record.sequence, sequence, "no gap, no repetition");
    }
    // Where it was not closed, there may be none: the clock of these tests stands still.
    if dir.join("checkpoint").exists() {
        let signer = key::read_or_make(&dir.join("key"), "").unwrap();
        let verified = super::verify(dir, &[signer.verifier().clone()]).unwrap();
        assert_eq!(verified.findings, []);
        assert_eq!(verified.signed + verified.unsigned, records.len() as u64);
    }
    records
}

/// First records of the segments in a directory.
fn segments(dir: &Path) -> Vec<u64> {
    super::log::firsts(dir).unwrap()
}

/// Waits for the writer's thread; fails after ten seconds or more.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("waited in vain until {what}");
}
