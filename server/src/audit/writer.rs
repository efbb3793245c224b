//! The writer: one thread that drains the queue, numbers the records, and appends them to the segments.
//!
//! Owns: the next sequence number, the batch in hand (at most `BATCH_BYTES_MAX` and one line), the gaps not yet
//! written, the retries.
//! Never does: drop a batch that the disk refused. It keeps trying the same bytes, the queue fills up behind
//! it, and the configured choice decides; only `close` gives up, after `CLOSE_WAIT_MAX`, and says how many.

use std::{collections::VecDeque, sync::Arc, thread, time::Duration};

use tokio::sync::watch;

use super::{
    AuditConfig, WallClock, Written,
    queue::Queue,
    record::{Body, GapRecord, Record},
    segments::Disk,
};

/// Most bytes of one write, give or take one line; bounds what the writer holds in memory.
pub(super) const BATCH_BYTES_MAX: usize = 1024 * 1024;

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

pub(super) struct Writer<D> {
    queue: Arc<Queue>,
    disk: D,
    clock: WallClock,
    written: watch::Sender<Written>,
    flush_interval: Duration,
    batch_bytes_max: usize,
    next_sequence: u64,
    batch: Batch,
    /// Gaps in the order of their places.
    gaps: VecDeque<Gap>,
    /// Entries taken from the queue so far; gaps are placed by this count.
    popped: u64,
    /// How many of the lost are in `gaps` or written.
    lost_placed: u64,
    /// How long the closing writer has waited so far.
    waited: Duration,
}

/// Lines that are on their way to the disk.
#[derive(Default)]
struct Batch {
    lines: Vec<u8>,
    records: u64,
    /// Places that the lines occupy; gaps have none.
    places: usize,
}

/// Records lost at one place of the order: after the entry numbered `after`.
struct Gap {
    after: u64,
    lost: u64,
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
            next_sequence,
            batch: Batch::default(),
            gaps: VecDeque::new(),
            popped: 0,
            lost_placed: 0,
            waited: Duration::ZERO,
        }
    }

    /// Runs until the queue is closed and all is written, or until `CLOSE_WAIT_MAX` after closing.
    pub(super) fn run(mut self) -> Result<(), Unwritten> {
        let _end = EndOnDrop(Arc::clone(&self.queue));
        let result = self.drain_until_closed().and_then(|()| self.sync());
        self.written.send_modify(|written| written.closed = true);
        result
    }

    fn drain_until_closed(&mut self) -> Result<(), Unwritten> {
        loop {
            // Read before draining: what was filled before the close is in the queue by now.
            let closed = self.queue.is_closed();
            self.queue.wake_when_half_full();
            self.collect();
            let more = self.batch.lines.len() >= self.batch_bytes_max;
            self.write_batch()?;
            self.place_lost();
            self.release_batch();
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
        while self.batch.lines.len() < self.batch_bytes_max {
            if let Some(lost) = self.gap_due() {
                let time_ms = (self.clock)();
                self.add(time_ms, Body::Gap(GapRecord { lost }));
            } else if let Some(entry) = self.queue.pop() {
                self.popped += 1;
                self.batch.places += 1;
                self.add(entry.time_ms, entry.body.into_body());
            } else {
                return;
            }
        }
    }

    fn gap_due(&mut self) -> Option<u64> {
        let due = self.gaps.front().is_some_and(|gap| gap.after <= self.popped);
        if due { self.gaps.pop_front().map(|gap| gap.lost) } else { None }
    }

    fn add(&mut self, time_ms: u64, body: Body) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.batch.records += 1;
        let record = Record { sequence, time_ms, body };
        if !record.write_line(&mut self.batch.lines) {
            self.queue.count_lost(1);
            self.lost_placed += 1;
            tracing::error!(sequence, "audit record too long to be written, a gap stands in its place");
        }
    }

    /// Writes the batch, however often it takes.
    fn write_batch(&mut self) -> Result<(), Unwritten> {
        if self.batch.lines.is_empty() {
            return Ok(());
        }
        let first = self.next_sequence - self.batch.records;
        self.until_it_works(|writer| writer.disk.append(first, &writer.batch.lines))?;
        self.written.send_modify(|written| written.sequence = self.next_sequence - 1);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Unwritten> {
        self.until_it_works(|writer| writer.disk.sync())
    }

    fn until_it_works(
        &mut self,
        attempt: impl Fn(&mut Self) -> std::io::Result<()>,
    ) -> Result<(), Unwritten> {
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
        let gaps = self.batch.records - self.batch.places as u64;
        Unwritten { records: places + gaps, why }
    }

    /// Gives the records that were lost since the last time their place in the order. A record is lost only
    /// while every place is taken, and only the writer frees places; so just before it does, everything that
    /// waits is older than the loss, and everything that comes later is younger.
    fn place_lost(&mut self) {
        let lost = self.queue.lost();
        if lost > self.lost_placed {
            let after = self.popped + self.queue.waiting() as u64;
            self.gaps.push_back(Gap { after, lost: lost - self.lost_placed });
            self.lost_placed = lost;
        }
    }

    fn release_batch(&mut self) {
        self.queue.release(self.batch.places);
        self.batch.lines.clear();
        self.batch.places = 0;
        self.batch.records = 0;
    }
}
