//! The audit: every decision, signal and change of state becomes a record with a sequence number, written to
//! segments of JSON Lines by one thread and streamed to consumers.
//!
//! ```text
//! reserve -> Place -> fill -> queue -> writer thread -> 00000000000000000001.jsonl -> Tail -> AuditService
//! ```
//!
//! Owns: one directory of segments (one process at a time), the queue in front of it, the writer's thread.
//! Promises: the sequence on disk starts at 1 and rises by one, across restarts and kill -9; a verdict that
//! holds a `Place` has room for its record; what is lost is counted and recorded as a gap in its place.
//! Limits: `queue_max` records not yet on disk; kill -9 loses at most those, in normal running what was filled
//! in the last `flush_interval`. A crash of the machine loses what the kernel had not written back: records
//! are synced at rotation and at close, not one by one.
//! Never does: hold up the caller, read the clock (entries carry their time), remove segments.

mod queue;
mod reader;
/// The records themselves.
pub mod record;
mod segments;
mod service;
mod text;
mod wire;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::watch;

use queue::Queue;
use segments::{Disk, Segments};
use writer::{Unwritten, Writer};

pub use queue::Place;
pub use reader::{BATCH_RECORDS_MAX, BadFilter, Filter, Tail, TailError};
pub use record::{IntoBody, Record};
pub use service::{AuditStreams, STREAMS_MAX};

/// How often the writer drains the queue. Waking it per record would cost the deciding thread a cross-core
/// wake-up, tens of microseconds on virtual machines; two milliseconds of records are a small loss window, and
/// five hundred wake-ups a second of an otherwise idle thread are cheap.
pub const FLUSH_INTERVAL_DEFAULT: Duration = Duration::from_millis(2);

/// Places in the queue. At 100,000 decisions a second it bridges a disk that hangs for 650 ms; full of typical
/// entries it holds about 50 MB.
pub const QUEUE_MAX_DEFAULT: usize = 65_536;

/// Most places that a configuration may ask for.
pub const QUEUE_MAX_LIMIT: usize = 1 << 24;

/// Size at which a segment is closed, in bytes. The last segment is read whole at start: 64 MiB take well under
/// a second.
pub const SEGMENT_BYTES_MAX_DEFAULT: u64 = 64 * 1024 * 1024;

/// Smallest segment that a configuration may ask for, in bytes; a few records.
pub const SEGMENT_BYTES_MAX_LEAST: u64 = 4 * 1024;

/// Reads wall time, in milliseconds since 1970. Only gap records need it: all others carry their own time.
pub type WallClock = Box<dyn Fn() -> u64 + Send>;

/// What happens to a verdict for whose record there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// It becomes a deny.
    Deny,
    /// It goes out, and its missing record is counted in a gap record.
    CountGap,
}

/// How the audit runs.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// Directory of the segments; created if missing.
    pub dir: PathBuf,
    /// Most records not yet on disk.
    pub queue_max: usize,
    /// The choice when there are that many.
    pub when_full: WhenFull,
    /// Size at which a segment is closed, in bytes; it is passed by less than one line.
    pub segment_bytes_max: u64,
    /// How often the writer drains the queue.
    pub flush_interval: Duration,
}

/// What Status and metrics show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditStats {
    /// Last sequence number on disk; 0 before the first.
    pub last_sequence: u64,
    /// Places taken: reserved, waiting, or being written.
    pub queued: usize,
    /// All places.
    pub queue_max: usize,
    /// Records lost since start.
    pub lost: u64,
    /// Why the writer cannot write at the moment.
    pub fault: Option<String>,
}

/// There is no place in the audit queue, or the audit is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the audit queue has no place")]
pub struct Full;

/// Why the audit could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Configuration: a value is out of range.
    #[error("audit `{field}` is {value}, and must be {range}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        range: String,
    },
    /// Configuration: another process writes here.
    #[error("another process holds the audit directory `{}`; one process writes one directory", .dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// Peer: somebody else changed a segment.
    #[error(
        "audit segment `{}` is corrupt at line {line}: {why}; move the segment away to keep it as evidence, or \
         restore it",
        .file.display()
    )]
    Corrupt {
        /// The segment.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The file system refused.
    #[error("cannot {action} `{}`", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why not every record is on disk after `close`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CloseError {
    /// The disk took no more, or places stayed reserved too long.
    #[error("{records} audit records were not written: {why}")]
    Unwritten {
        /// How many.
        records: u64,
        /// Why.
        why: String,
    },
    /// Us: the writer's thread panicked.
    #[error("the audit writer ended early")]
    WriterEnded,
}

/// How far the segments go. The writer alone changes it, after the records are in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    sequence: u64,
    closed: bool,
}

/// The shared handle: put it in an `Arc`.
pub struct Audit {
    queue: Arc<Queue>,
    dir: Arc<Path>,
    when_full: WhenFull,
    written: watch::Receiver<Written>,
    writer: Mutex<Option<JoinHandle<Result<(), Unwritten>>>>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Audit {
    /// Takes the directory, checks its last segment, cuts off a line that a kill left torn, and starts the
    /// writer.
    ///
    /// # Errors
    /// See `OpenError`; nothing is changed on disk unless the directory is ours.
    pub fn open(config: &AuditConfig, clock: WallClock) -> Result<Self, OpenError> {
        check(config)?;
        let (segments, next_sequence) = Segments::open(&config.dir, config.segment_bytes_max)?;
        Self::start(config, clock, segments, next_sequence)
    }

    fn start<D: Disk>(
        config: &AuditConfig,
        clock: WallClock,
        disk: D,
        next_sequence: u64,
    ) -> Result<Self, OpenError> {
        let queue = Arc::new(Queue::new(config.queue_max));
        let (publish, written) = watch::channel(Written { sequence: next_sequence - 1, closed: false });
        let writer = Writer::new(Arc::clone(&queue), disk, clock, publish, next_sequence, config);
        let thread =
            thread::Builder::new().name("audit-writer".to_owned()).spawn(move || writer.run()).map_err(
                |source| OpenError::Io { action: "start a writer for", path: config.dir.clone(), source },
            )?;
        queue.set_writer(thread.thread().clone());
        Ok(Self {
            queue,
            dir: config.dir.as_path().into(),
            when_full: config.when_full,
            written,
            writer: Mutex::new(Some(thread)),
        })
    }

    /// Takes a place for one record: no lock, no system call.
    ///
    /// # Errors
    /// `Full` if there is none, or the audit is closed; `when_full` says what then. See also `admit`.
    pub fn reserve(&self) -> Result<Place<'_>, Full> {
        self.queue.reserve()
    }

    /// Takes a place, or applies the configured choice: a verdict may go out on `Ok`, with `None` if its record
    /// is counted in a gap instead.
    ///
    /// # Errors
    /// `Full` if the verdict must become a deny: the choice is deny, or the audit is closed, since a closed
    /// audit can record no gap.
    pub fn admit(&self) -> Result<Option<Place<'_>>, Full> {
        match (self.reserve(), self.when_full) {
            (Ok(place), _) => Ok(Some(place)),
            (Err(Full), WhenFull::CountGap) if !self.queue.is_closed() => {
                self.count_lost();
                Ok(None)
            }
            (Err(Full), WhenFull::Deny | WhenFull::CountGap) => Err(Full),
        }
    }

    /// Whether at least half of the places are free: room for records that decisions do not wait for.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queue.taken() < self.queue.queue_max().div_ceil(2)
    }

    /// Counts one record that goes missing; the writer records the count where the queue was full.
    pub fn count_lost(&self) {
        self.queue.count_lost(1);
    }

    /// Records a change that is never held back for want of a place: what finds none is counted as lost, and a gap record
    /// tells. Returns whether it found one.
    pub fn record(&self, time_ms: u64, body: record::Body) -> bool {
        match self.reserve() {
            Ok(place) => {
                place.fill_body(time_ms, body);
                true
            }
            Err(Full) => {
                self.count_lost();
                false
            }
        }
    }

    /// The configured choice.
    #[must_use]
    pub fn when_full(&self) -> WhenFull {
        self.when_full
    }

    /// Why the writer cannot write at the moment.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.queue.fault()
    }

    /// The state of things, for Status and metrics.
    #[must_use]
    pub fn stats(&self) -> AuditStats {
        AuditStats {
            last_sequence: self.written.borrow().sequence,
            queued: self.queue.taken(),
            queue_max: self.queue.queue_max(),
            lost: self.queue.lost(),
            fault: self.fault(),
        }
    }

    /// Reads the records from `from_sequence` on, then follows; 0 means from now on.
    #[must_use]
    pub fn tail(&self, from_sequence: u64, filter: Filter) -> Tail {
        Tail::new(Arc::clone(&self.dir), self.written.clone(), from_sequence, filter)
    }

    /// Takes no more reservations, writes out what is filled, syncs, and joins the writer. Blocks: for as long
    /// as places stay reserved or the disk refuses, at most `writer::CLOSE_WAIT_MAX`. A second call does nothing.
    ///
    /// # Errors
    /// `CloseError` says how many records are not on disk.
    pub fn close(&self) -> Result<(), CloseError> {
        self.queue.close();
        let mut writer = self.writer.lock();
        let Some(thread) = writer.take() else { return Ok(()) };
        match thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Unwritten { records, why })) => Err(CloseError::Unwritten { records, why }),
            Err(_panic) => Err(CloseError::WriterEnded),
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "audit closed with a loss");
        }
    }
}

impl AuditConfig {
    /// The defaults, in `dir`.
    #[must_use]
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            queue_max: QUEUE_MAX_DEFAULT,
            when_full: WhenFull::Deny,
            segment_bytes_max: SEGMENT_BYTES_MAX_DEFAULT,
            flush_interval: FLUSH_INTERVAL_DEFAULT,
        }
    }
}

fn check(config: &AuditConfig) -> Result<(), OpenError> {
    if !(1..=QUEUE_MAX_LIMIT).contains(&config.queue_max) {
        let range = format!("from 1 to {QUEUE_MAX_LIMIT}");
        return Err(OpenError::Config { field: "queue_max", value: config.queue_max.to_string(), range });
    }
    if config.segment_bytes_max < SEGMENT_BYTES_MAX_LEAST {
        let range = format!("at least {SEGMENT_BYTES_MAX_LEAST}");
        let value = config.segment_bytes_max.to_string();
        return Err(OpenError::Config { field: "segment_bytes_max", value, range });
    }
    if config.flush_interval.is_zero() || config.flush_interval > Duration::from_secs(1) {
        let value = format!("{:?}", config.flush_interval);
        let range = "above zero and at most one second".to_owned();
        return Err(OpenError::Config { field: "flush_interval", value, range });
    }
    Ok(())
}
