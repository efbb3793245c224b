//! Behaviours of the audit as a whole, and what its tests share: a disk that can be held up or made to fail,
//! and a reader of segments that knows nothing of `Tail`.

mod killing;
mod lines;
mod reading;
mod writing;

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use super::{
    Audit, AuditConfig, Record, WallClock, WhenFull,
    record::{Body, SessionRecord},
    segments::{Disk, Segments, list, path},
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

/// Real segments behind a gate.
struct GatedDisk {
    segments: Segments,
    gate: Gate,
}

impl Disk for GatedDisk {
    fn append(&mut self, first_sequence: u64, lines: &[u8]) -> io::Result<()> {
        self.gate.pass()?;
        self.segments.append(first_sequence, lines)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.segments.sync()
    }
}

fn config(dir: &Path, queue_max: usize, when_full: WhenFull) -> AuditConfig {
    AuditConfig { queue_max, when_full, segment_bytes_max: 4 * 1024, ..AuditConfig::in_dir(dir) }
}

fn clock() -> WallClock {
    Box::new(|| 1_000)
}

fn open(config: &AuditConfig) -> Audit {
    Audit::open(config, clock()).unwrap()
}

fn open_gated(config: &AuditConfig, mode: Mode) -> (Audit, Gate) {
    let gate = Gate(Arc::new((Mutex::new(mode), Condvar::new())));
    let (segments, next) = Segments::open(&config.dir, config.segment_bytes_max).unwrap();
    let disk = GatedDisk { segments, gate: gate.clone() };
    (Audit::start(config, clock(), disk, next).unwrap(), gate)
}

/// A body that can be told from others.
fn numbered(number: usize) -> Body {
    Body::Session(SessionRecord {
        session_id: number.to_string().into(),
        principal: None,
        change: "opened".into(),
        state_version: 0,
        reason: "".into(),
    })
}

fn number(record: &Record) -> Option<usize> {
    match &record.body {
        Body::Session(session) => session.session_id.parse().ok(),
        Body::Decision(_)
        | Body::Signal(_)
        | Body::Bundle(_)
        | Body::Gap(_)
        | Body::Shadow(_)
        | Body::Task(_)
        | Body::Review(_)
        | Body::Stream(_) => None,
    }
}

fn lost(records: &[Record]) -> u64 {
    records.iter().map(|record| if let Body::Gap(gap) = record.body { gap.lost } else { 0 }).sum()
}

fn numbers(records: &[Record]) -> Vec<usize> {
    records.iter().filter_map(number).collect()
}

fn put(audit: &Audit, number: usize) {
    audit.reserve().unwrap().fill_body(2_000, numbered(number));
}

/// Every record on disk; fails unless every line is whole and the sequence rises by one from 1.
fn on_disk(dir: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    for first in list(dir).unwrap() {
        assert_eq!(first, records.len() as u64 + 1, "a segment is named by its first record");
        let text = fs::read_to_string(path(dir, first)).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
        for line in text.lines() {
            let record: Record = serde_json::from_str(line).unwrap();
            assert_eq!(record.sequence, records.len() as u64 + 1, "no gap, no repetition");
            records.push(record);
        }
    }
    records
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
