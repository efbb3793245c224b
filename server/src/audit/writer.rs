//! The writer: one thread that drains the queue, numbers the records, appends them to the log, syncs and signs it.
//!
//! Owns: the next sequence number, the batch in hand (at most `BATCH_BYTES_MAX` and one record), the gaps not yet
//! written, when the log is synced and signed, the retries.
//! Never does: drop a batch that the disk refused. It keeps trying the same bytes, the queue fills up behind
//! it, and the configured choice decides; only `close` gives up, after `CLOSE_WAIT_MAX`, and says how many. It never shows a record to
//! readers that a crash of the machine could take back.

use std::{collections::VecDeque, io, sync::Arc, thread, time::Duration};

use cardea_proto::v1::{self, gap_record::Cause, record::Entry};
use crossbeam_channel::Sender;
use prost::Message as _;
use tokio::sync::{oneshot, watch};

use super::{
    AuditConfig, WallClock, Written,
    log::{Batch, Log, RECORD_BYTES_MAX},
    mask::Masker,
    queue::{Filled, Lost, Queue},
    record::{self, IntoEntry, timestamp},
    salts::Salts,
};

/// Most bytes of one write, give or take one record; bounds what the writer holds in memory.
pub(super) const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// How often what was appended is signed: a reader waits no longer for a proof.
const SIGN_INTERVAL: Duration = Duration::from_secs(1);

/// First pause after the disk refused; doubles up to `RETRY_PAUSE_MAX`.
const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(10);

/// Longest pause between two tries: once there is space again, records flow within this.
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(500);

/// How long `close` waits for reserved places and for a disk that refuses, summed over its pauses.
pub(super) const CLOSE_WAIT_MAX: Duration = Duration::from_secs(3);

/// What `close` left behind.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) records: u64,
    pub(super) why: String,
}

/// Where the writer puts its batches.
pub(super) trait Disk: Send + 'static {
    /// Appends a batch: all of it, or an error and the caller tries the same again.
    fn append(&mut self, batch: &Batch) -> io::Result<()>;

    /// Makes what was appended survive a crash of the machine.
    fn sync(&mut self) -> io::Result<()>;

    /// Signs what was synced.
    fn sign(&mut self) -> io::Result<()>;

    /// Signs, and marks the log as closed in order.
    fn close(&mut self) -> io::Result<()>;

    /// Whether the open segment should end with the tile in hand.
    fn is_full(&self) -> bool;

    /// First record of a segment that is closed and waits to be packed, each once.
    fn take_unpacked(&mut self) -> Option<u64>;
}

impl Disk for Log {
    fn append(&mut self, batch: &Batch) -> io::Result<()> {
        Self::append(self, batch)
    }

    fn sync(&mut self) -> io::Result<()> {
        Self::sync(self)
    }

    fn sign(&mut self) -> io::Result<()> {
        Self::sign(self)
    }

    fn close(&mut self) -> io::Result<()> {
        Self::close(self)
    }

    fn is_full(&self) -> bool {
        Self::is_full(self)
    }

    fn take_unpacked(&mut self) -> Option<u64> {
        Self::take_unpacked(self)
    }
}

pub(super) struct Writer<D> {
    queue: Arc<Queue>,
    disk: D,
    clock: WallClock,
    written: watch::Sender<Written>,
    flush_interval: Duration,
    batch_bytes_max: usize,
    batch: Batch,
    /// Places that the batch occupies; gaps have none.
    places: usize,
    /// The record in hand, encoded.
    encoded: Vec<u8>,
    masker: Masker,
    /// Who waits until the batch is on the disk.
    waiting: Vec<oneshot::Sender<()>>,
    /// Segments for whoever packs them.
    unpacked: Sender<Closed>,
    syncs: Due,
    signs: Due,
    /// Gaps in the order of their places.
    gaps: VecDeque<Gap>,
    /// Entries taken from the queue so far; gaps are placed by this count.
    popped: u64,
    /// How many of the lost are in `gaps` or written.
    lost_placed: Lost,
    /// How long the closing writer has waited so far.
    waited: Duration,
}

/// A segment that was closed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    /// Sequence number of its first record.
    pub(super) first: u64,
    /// When this was noticed, Unix milliseconds.
    pub(super) at_ms: u64,
}

/// Records lost at one place of the order: after the entry numbered `after`.
struct Gap {
    after: u64,
    lost: Lost,
}

/// Marks the queue as ended whichever way the thread ends.
struct EndOnDrop(Arc<Queue>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.set_fault(Some("the audit writer ended early".to_owned()));
        }
        self.0.end();
    }
}

impl<D: Disk> Writer<D> {
    pub(super) fn new(
        queue: Arc<Queue>,
        disk: D,
        clock: WallClock,
        written: watch::Sender<Written>,
        unpacked: Sender<Closed>,
        next_sequence: u64,
        config: &AuditConfig,
    ) -> Self {
        let segment_bytes_max = usize::try_from(config.segment_bytes_max).unwrap_or(usize::MAX);
        Self {
            queue,
            disk,
            clock,
            written,
            flush_interval: config.flush_interval,
            batch_bytes_max: BATCH_BYTES_MAX.min(segment_bytes_max),
            batch: Batch::new(next_sequence),
            places: 0,
            encoded: Vec::new(),
            masker: Masker::new(Salts::path(&config.dir)),
            waiting: Vec::new(),
            unpacked,
            syncs: Due::every(config.sync_interval, config.flush_interval),
            signs: Due::every(SIGN_INTERVAL, config.flush_interval),
            gaps: VecDeque::new(),
            popped: 0,
            lost_placed: Lost::default(),
            waited: Duration::ZERO,
        }
    }

    /// Runs until the queue is closed and all is written, or until `CLOSE_WAIT_MAX` after closing. What the process before this one
    /// left open comes first.
    pub(super) fn run(mut self, left_open: Option<Entry>) -> Result<(), Unwritten> {
        let _end = EndOnDrop(Arc::clone(&self.queue));
        if let Some(gap) = left_open {
            let time_ms = (self.clock)();
            self.add(time_ms, gap);
        }
        let result = self.drain_until_closed().and_then(|()| self.close());
        self.written.send_modify(|written| written.closed = true);
        result
    }

    fn drain_until_closed(&mut self) -> Result<(), Unwritten> {
        loop {
            // Read before draining: what was filled before the close is in the queue by now.
            let closed = self.queue.is_closed();
            self.queue.wake_when_half_full();
            self.collect();
            let more = self.is_cut();
            self.write_batch()?;
            self.place_lost();
            self.release_batch();
            self.keep_up()?;
            if more || !self.gaps.is_empty() {
                continue;
            }
            if closed {
                if self.queue.taken() == 0 {
                    return Ok(());
                }
                self.wait_while_closing()?;
            } else {
                thread::park_timeout(self.flush_interval);
            }
        }
    }

    /// Takes entries and gaps in their order until the batch is full or there are no more.
    fn collect(&mut self) {
        while !self.is_cut() {
            if let Some(lost) = self.gap_due() {
                let time_ms = (self.clock)();
                self.add(time_ms, queue_full(lost));
            } else if let Some(mut filled) = self.queue.pop() {
                self.popped += 1;
                self.places += 1;
                self.waiting.extend(filled.waits.take());
                self.add_filled(filled);
            } else {
                return;
            }
        }
    }

    /// Whether the batch should take no more: it is full, or the segment ends here.
    fn is_cut(&self) -> bool {
        self.batch.bytes() >= self.batch_bytes_max
            || (self.batch.records() > 0 && self.disk.is_full() && self.batch.ends_tile())
    }

    fn gap_due(&mut self) -> Option<Lost> {
        let due = self.gaps.front().is_some_and(|gap| gap.after <= self.popped);
        if due { self.gaps.pop_front().map(|gap| gap.lost) } else { None }
    }

    fn add_filled(&mut self, filled: Filled) {
        let Filled { time_ms, entry, .. } = filled;
        self.encoded.clear();
        let is_written = entry.encode(self.batch.next(), time_ms, &mut self.encoded);
        if is_written && self.encoded.len() <= RECORD_BYTES_MAX {
            if cfg!(debug_assertions) {
                self.assert_same(time_ms, entry);
            }
            self.batch.push(&self.encoded);
            return;
        }
        self.masker.begin(&self.queue.masks(), time_ms);
        let entry = entry.into_entry(&mut self.masker);
        self.add(time_ms, entry);
    }

    /// INVARIANT (same bytes): what was written straight is what the record encodes to.
    fn assert_same(&mut self, time_ms: u64, entry: Box<dyn IntoEntry>) {
        let time = timestamp(i64::try_from(time_ms).unwrap_or(i64::MAX));
        let entry = entry.into_entry(&mut self.masker);
        let built = v1::Record { sequence: self.batch.next(), time: Some(time), entry: Some(entry) };
        debug_assert_eq!(self.encoded, built.encode_to_vec(), "INVARIANT (same bytes): {built:?}");
    }

    fn add(&mut self, time_ms: u64, entry: Entry) {
        let class = if matches!(entry, Entry::Decision(_)) { Lost::DECISION } else { Lost::CHANGE };
        let sequence = self.batch.next();
        let time = timestamp(i64::try_from(time_ms).unwrap_or(i64::MAX));
        let record = v1::Record { sequence, time: Some(time), entry: Some(entry) };
        if !record::encode(record, &mut self.encoded) {
            // Counted where it stands, so it makes no gap of its own.
            self.queue.count_lost(class);
            self.lost_placed = self.lost_placed.and(class);
            tracing::error!(sequence, "audit record too long to be written, a gap stands in its place");
        }
        self.batch.push(&self.encoded);
    }

    /// Writes the batch, however often it takes.
    fn write_batch(&mut self) -> Result<(), Unwritten> {
        if self.batch.records() == 0 {
            return Ok(());
        }
        self.until_it_works(|writer| writer.disk.append(&writer.batch))
    }

    /// Syncs and signs where it is time, and tells readers how far the log goes.
    fn keep_up(&mut self) -> Result<(), Unwritten> {
        let now = (self.clock)();
        if self.syncs.is_due(now) || !self.waiting.is_empty() {
            self.sync()?;
            self.syncs.done(now);
        }
        for waits in self.waiting.drain(..) {
            // Whoever waited may have given up.
            let _unheard = waits.send(());
        }
        if self.signs.is_due(now) {
            self.sync()?;
            self.until_it_works(|writer| writer.disk.sign())?;
            self.signs.done(now);
        }
        while let Some(first) = self.disk.take_unpacked() {
            // Whoever packs ends only with the process.
            let _unheard = self.unpacked.send(Closed { first, at_ms: now });
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Unwritten> {
        if self.batch.next() - 1 == self.written.borrow().sequence {
            return Ok(());
        }
        self.until_it_works(|writer| writer.disk.sync())?;
        self.written.send_modify(|written| written.sequence = self.batch.next() - 1);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Unwritten> {
        self.sync()?;
        self.until_it_works(|writer| writer.disk.close())
    }

    fn until_it_works(&mut self, attempt: impl Fn(&mut Self) -> io::Result<()>) -> Result<(), Unwritten> {
        let mut pause = RETRY_PAUSE_FIRST;
        let mut failed = false;
        while let Err(error) = attempt(self) {
            if !failed {
                tracing::error!(%error, "audit cannot write, trying again until it can");
            }
            failed = true;
            self.queue.set_fault(Some(error.to_string()));
            if self.queue.is_closed() {
                if self.waited >= CLOSE_WAIT_MAX {
                    return Err(self.give_up(error.to_string()));
                }
                self.waited += pause;
            }
            thread::park_timeout(pause);
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
        if failed {
            self.queue.set_fault(None);
            tracing::info!("audit writes again");
        }
        Ok(())
    }

    fn wait_while_closing(&mut self) -> Result<(), Unwritten> {
        if self.waited >= CLOSE_WAIT_MAX {
            self.sync()?;
            return Err(self.give_up("places stayed reserved".to_owned()));
        }
        self.waited += self.flush_interval;
        thread::park_timeout(self.flush_interval);
        Ok(())
    }

    fn give_up(&self, why: String) -> Unwritten {
        let places = self.queue.taken() as u64;
        let gaps = self.batch.records().saturating_sub(self.places as u64);
        Unwritten { records: places + gaps, why }
    }

    /// Gives the records that were lost since the last time their place in the order. A record is lost only
    /// while every place is taken, and only the writer frees places; so just before it does, everything that
    /// waits is older than the loss, and everything that comes later is younger.
    fn place_lost(&mut self) {
        let lost = self.queue.lost();
        if lost != self.lost_placed {
            let after = self.popped + self.queue.waiting() as u64;
            self.gaps.push_back(Gap { after, lost: lost.since(self.lost_placed) });
            self.lost_placed = lost;
        }
    }

    fn release_batch(&mut self) {
        self.queue.release(self.places);
        self.places = 0;
        self.batch.clear();
    }
}

fn queue_full(lost: Lost) -> Entry {
    Entry::Gap(v1::GapRecord {
        lost: lost.all(),
        lost_decisions: lost.decisions,
        lost_changes: lost.changes,
        cause: Cause::QueueFull.into(),
        ..v1::GapRecord::default()
    })
}

/// When something is to be done again: after so much time, or after as many drains as fit into it, so that a clock which stands still
/// or was set back holds nothing up.
struct Due {
    interval_ms: u64,
    drains_max: u128,
    drains: u128,
    last_ms: u64,
}

impl Due {
    fn every(interval: Duration, drain: Duration) -> Self {
        let drains_max = interval.as_nanos() / drain.as_nanos().max(1);
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        Self { interval_ms, drains_max, drains: 0, last_ms: 0 }
    }

    /// Asked once in each drain.
    fn is_due(&mut self, now_ms: u64) -> bool {
        self.drains += 1;
        let is_time = now_ms.checked_sub(self.last_ms).is_none_or(|passed| passed >= self.interval_ms);
        is_time || self.drains > self.drains_max
    }

    const fn done(&mut self, now_ms: u64) {
        self.drains = 0;
        self.last_ms = now_ms;
    }
}
