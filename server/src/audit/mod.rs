//! The audit: every decision, signal and change of state becomes a record with a sequence number, written to a log by one thread and
//! streamed to consumers.
//!
//! ```text
//! reserve -> Place -> fill -> queue -> writer thread -> log/ (segments, hashes, checkpoint) -> Tail -> AuditService
//!                                                         closed segments -> packer thread
//! ```
//!
//! Owns: one directory (one process at a time), the queue in front of it, the threads of writer and packer.
//! Promises: the sequence on disk starts at 1 and rises by one, across restarts, kill -9 and crashes of the machine; a verdict that
//! holds a `Place` has room for its record; what is lost is counted and recorded as a gap in its place; what is in the log is proven by
//! its signed checkpoints.
//! Limits: `queue_max` records not yet on disk; kill -9 loses at most those, in normal running what was filled
//! in the last `flush_interval`. A crash of the machine loses at most what was filled in the last `sync_interval`; readers are shown no
//! record before that, so that none is taken back.
//! Never does: hold up the caller, read the clock (entries carry their time).

/// The key that signs checkpoints.
pub mod key;
mod log;
/// What records do not tell.
pub mod mask;
/// Proofs that a record is in the log.
pub mod prove;
/// The log as static files.
pub mod publish;
mod queue;
mod reader;
/// The records themselves.
pub mod record;
/// Pseudonyms, and their end.
pub mod salts;
mod service;
/// What the log is sent to.
pub mod sinks;
/// Records as they lie on disk.
pub mod stored;
/// Records as a table.
pub mod table;
/// Records as bytes, without a message built first.
pub(crate) mod wire;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    thread::{self, JoinHandle},
    time::Duration,
};

use cardea_policy_store::masks::Masks;
use cardea_proto::v1::{self, gap_record::Cause, record::Entry};
use cardea_tlog::VerifierKey;
use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use prost::Message as _;
use thiserror::Error;
use tokio::sync::watch;

use log::{Cursor, Found, Log};
use queue::{Lost, Queue};
use writer::{Closed, Disk, Unwritten, Writer};

pub use key::NoKey;
pub use log::{BadBlock, BadLog, BadRead, BadSegment, Finding, Keep, Verified, verify};
pub use queue::{Durable, Place};
pub use reader::{BATCH_RECORDS_MAX, BadFilter, Filter, Tail, TailError};
pub use record::IntoEntry;
pub use service::{AuditStreams, STREAMS_MAX};
pub use sinks::{SinkState, SinkStates};

/// How often the writer drains the queue. Waking it per record would cost the deciding thread a cross-core
/// wake-up, tens of microseconds on virtual machines; two milliseconds of records are a small loss window, and
/// five hundred wake-ups a second of an otherwise idle thread are cheap.
pub const FLUSH_INTERVAL_DEFAULT: Duration = Duration::from_millis(2);

/// How often what was written is made to survive a crash of the machine, and shown to readers. Fifty syncs a second of an idle disk cost
/// the writer a few percent of its time, and nobody else any.
pub const SYNC_INTERVAL_DEFAULT: Duration = Duration::from_millis(20);

/// Places in the queue. At 100,000 decisions a second it bridges a disk that hangs for 650 ms; full of typical
/// entries it holds about 50 MB.
pub const QUEUE_MAX_DEFAULT: usize = 65_536;

/// Most places that a configuration may ask for.
pub const QUEUE_MAX_LIMIT: usize = 1 << 24;

/// Size at which a segment is closed, in bytes. The last segment is read and hashed whole at start: 64 MiB take well under
/// a second.
pub const SEGMENT_BYTES_MAX_DEFAULT: u64 = 64 * 1024 * 1024;

/// Smallest segment that a configuration may ask for, in bytes; a few records.
pub const SEGMENT_BYTES_MAX_LEAST: u64 = 4 * 1024;

/// How long a decision waits for the writer while three quarters of the places are taken. At ten thousand a second for each worker the writer
/// catches up on any disk that works at all; where it does not, the queue fills and the configured choice holds, without a wait.
const PRESSED_PAUSE: Duration = Duration::from_micros(50);

/// How far packing stands back.
const PACKER_NICE: i32 = 19;

/// How long packing rests after each tile, unless more segments wait: so that it never takes a core for longer than one tile takes, about
/// a third of a millisecond, and still packs more than half a million records a second.
const PACK_REST: Duration = Duration::from_micros(200);

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
    /// Size at which a segment is closed, in bytes; it ends at the next tile.
    pub segment_bytes_max: u64,
    /// How often the writer drains the queue.
    pub flush_interval: Duration,
    /// How often what was written is made to survive a crash of the machine.
    pub sync_interval: Duration,
    /// The file of the key that signs checkpoints; made if missing, under `origin`.
    pub key_file: PathBuf,
    /// Name of the log and of the key that is made for it, as in `example.com/audit`.
    pub origin: String,
    /// Which records are kept.
    pub keep: Keep,
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
    /// The directory cannot be written on.
    #[error(transparent)]
    Log(#[from] BadLog),
    /// Checkpoints cannot be signed.
    #[error(transparent)]
    Key(#[from] NoKey),
    /// Us: a thread could not be started.
    #[error("cannot start a thread of the audit")]
    Thread(#[from] std::io::Error),
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
    verifier: VerifierKey,
    windows: Windows,
    sinks: OnceLock<SinkStates>,
}

/// What may be lost of records that nobody waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// When the process is killed: what was filled in this time, in normal running.
    pub kill: Duration,
    /// When the machine crashes.
    pub crash: Duration,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Audit {
    /// Takes the directory, checks its last segment, cuts off a block that a kill left torn, and starts the
    /// writer. What the process before this one left open becomes a gap.
    ///
    /// # Errors
    /// See `OpenError`; nothing is changed on disk unless the directory is ours.
    pub fn open(config: &AuditConfig, clock: WallClock) -> Result<Self, OpenError> {
        check(config)?;
        let signer = key::read_or_make(&config.key_file, &config.origin)?;
        let verifier = signer.verifier().clone();
        let (log, found) = Log::open(&config.dir, config.segment_bytes_max, signer)?;
        let left_open = found.is_unclean.then(|| left_open(config, found));
        Self::start(config, clock, log, found.next, left_open, verifier)
    }

    fn start<D: Disk>(
        config: &AuditConfig,
        clock: WallClock,
        disk: D,
        next_sequence: u64,
        left_open: Option<Entry>,
        verifier: VerifierKey,
    ) -> Result<Self, OpenError> {
        let queue = Arc::new(Queue::new(config.queue_max));
        let (publish, written) = watch::channel(Written { sequence: next_sequence - 1, closed: false });
        let (unpacked, to_pack) = crossbeam_channel::unbounded();
        let writer = Writer::new(Arc::clone(&queue), disk, clock, publish, unpacked, next_sequence, config);
        let dir: Arc<Path> = config.dir.as_path().into();
        let packer = Packer { dir: Arc::clone(&dir), keep: config.keep, queue: Arc::clone(&queue) };
        // Ends with the writer, whose end of the channel is the only one.
        let _detached =
            thread::Builder::new().name("audit-packer".to_owned()).spawn(move || packer.run(&to_pack))?;
        let thread =
            thread::Builder::new().name("audit-writer".to_owned()).spawn(move || writer.run(left_open))?;
        queue.set_writer(thread.thread().clone());
        Ok(Self {
            queue,
            dir,
            when_full: config.when_full,
            written,
            writer: Mutex::new(Some(thread)),
            verifier,
            windows: Windows { kill: config.flush_interval, crash: config.sync_interval },
            sinks: OnceLock::new(),
        })
    }

    /// The key that verifies this node's checkpoints; its name is the log's origin.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Names this log for all time: its origin, and the key that signs it. A log that is begun anew under another key is another one.
    #[must_use]
    pub fn log_id(&self) -> String {
        let verifier = self.verifier.to_string();
        let mut parts = verifier.split('+');
        format!("{}+{}", parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    }

    /// The directory of the log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The first record that is still there; 1 before there is any.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        log::firsts(&self.dir).ok().and_then(|firsts| firsts.first().copied()).unwrap_or(1)
    }

    /// Hides this in the records of all that happens from now on; decisions are masked by the bundle that judged them.
    pub fn hide(&self, masks: &Masks) {
        self.queue.set_masks(Arc::new(masks.clone()));
    }

    /// Lets Status tell of sinks; once.
    pub fn show_sinks(&self, sinks: SinkStates) {
        // A second call would be a mistake of ours, and Status would tell of the first.
        let _once = self.sinks.set(sinks);
    }

    /// How sinks are doing.
    pub fn sinks(&self) -> impl Iterator<Item = &SinkState> {
        self.sinks.get().into_iter().flat_map(|sinks| sinks.iter()).map(AsRef::as_ref)
    }

    /// What may be lost of records that nobody waited for.
    #[must_use]
    pub fn windows(&self) -> Windows {
        self.windows
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
        // Where decisions come faster than the writer follows, callers wait a little instead of being refused.
        if self.queue.taken() > self.queue.queue_max() / 4 * 3 {
            thread::sleep(PRESSED_PAUSE);
        }
        match (self.reserve(), self.when_full) {
            (Ok(place), _) => Ok(Some(place)),
            (Err(Full), WhenFull::CountGap) if !self.queue.is_closed() => {
                self.queue.count_lost(Lost::DECISION);
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

    /// Records a change that is never held back for want of a place: what finds none is counted as lost, and a gap record
    /// tells. Returns whether it found one.
    pub fn record(&self, time_ms: u64, entry: Entry) -> bool {
        match self.reserve() {
            Ok(place) => {
                place.fill_entry(time_ms, entry);
                true
            }
            Err(Full) => {
                self.queue.count_lost(Lost::CHANGE);
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
            lost: self.queue.lost().all(),
            fault: self.fault(),
        }
    }

    /// Reads the records from `from_sequence` on, then follows; 0 means from now on.
    #[must_use]
    pub fn tail(&self, from_sequence: u64, filter: Filter) -> Tail {
        Tail::new(Arc::clone(&self.dir), self.written.clone(), from_sequence, filter)
    }

    /// As `tail`, from the segment on in which a time falls; records before that time are not shown. `time_ms` is wall time in milliseconds
    /// since 1970.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn tail_since(&self, time_ms: i64, filter: Filter) -> std::io::Result<Tail> {
        let from = reader::first_since(&self.dir, time_ms)?;
        let filter = Filter { since_ms: Some(time_ms), ..filter };
        Ok(Tail::new(Arc::clone(&self.dir), self.written.clone(), from, filter))
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
        let dir = dir.into();
        Self {
            key_file: dir.with_extension("key"),
            dir,
            queue_max: QUEUE_MAX_DEFAULT,
            when_full: WhenFull::Deny,
            segment_bytes_max: SEGMENT_BYTES_MAX_DEFAULT,
            flush_interval: FLUSH_INTERVAL_DEFAULT,
            sync_interval: SYNC_INTERVAL_DEFAULT,
            origin: "localhost/audit".to_owned(),
            keep: Keep::default(),
        }
    }
}

/// What the end of a log says that was not closed. How many records its process had taken on and not written, nobody knows; no more than
/// its queue holds.
fn left_open(config: &AuditConfig, found: Found) -> Entry {
    let last = found.next - 1;
    let mut cursor = Cursor::new(config.dir.as_path().into(), last);
    let record = cursor.read(last).ok().flatten().and_then(|(_, bytes)| v1::Record::decode(bytes).ok());
    tracing::warn!(last, "the audit was not closed in order; records that were not written yet are gone");
    Entry::Gap(v1::GapRecord {
        lost: 0,
        cause: Cause::UncleanStop.into(),
        lost_max: config.queue_max as u64,
        since: record.and_then(|record| record.time),
        ..v1::GapRecord::default()
    })
}

/// Packs segments as they are closed, and lets go of old ones, standing back behind those that decide.
struct Packer {
    dir: Arc<Path>,
    keep: Keep,
    queue: Arc<Queue>,
}

impl Packer {
    fn run(&self, segments: &Receiver<Closed>) {
        if let Err(error) = rustix::process::nice(PACKER_NICE) {
            tracing::debug!(%error, "the packer runs at the same priority as all");
        }
        for Closed { first, at_ms } in segments {
            let rest = || {
                if segments.is_empty() {
                    thread::sleep(PACK_REST);
                }
            };
            if let Err(error) = log::pack(&self.dir, first, rest) {
                tracing::warn!(%error, first, "an audit segment could not be packed, it stays as it is until the next start");
            }
            self.let_go(at_ms);
        }
    }

    /// What goes is recorded before it does; without a place for that it stays until the next segment is closed.
    fn let_go(&self, now_ms: u64) {
        let kept_from = match log::kept_from(&self.dir, self.keep, now_ms) {
            Ok(Some(kept_from)) => kept_from,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "which audit segments may go cannot be told, all stay");
                return;
            }
        };
        let Ok(place) = self.queue.reserve() else { return };
        let entry = Entry::Retention(v1::RetentionRecord { kept_from });
        if place.fill_durable(now_ms, Box::new(entry)).wait_here()
            && let Err(error) = log::let_go(&self.dir, kept_from)
        {
            tracing::warn!(%error, kept_from, "old audit segments cannot be removed, they are tried again");
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
