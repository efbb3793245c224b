//! The bounded queue between the hot path and the writer.
//!
//! Owns: the places, the entries that wait, the count of lost records, and when the writer is woken early.
//! A place is taken from `reserve` until its record is on disk (or the place is dropped unfilled), so records
//! not yet on disk number at most `queue_max`.
//! Never does: a lock, a system call or a wake-up per record. The exceptions are passing half full, which
//! wakes the writer once per drain, and records that somebody waits for.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::Thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use cardea_policy_store::masks::Masks;
use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use cardea_proto::v1::record::Entry;

use super::{Full, record::IntoEntry};

/// Set in `Queue::taken` once the queue takes no more reservations. Above every possible count, so that the
/// hot path compares once.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// What the hot path and the writer share.
pub(super) struct Queue {
    /// Places taken, and the `CLOSED` bit.
    ///
    /// INVARIANT (a place fits): every entry in `waiting` has its place counted here, and the count never
    /// passes the capacity of `waiting`; so filling a place cannot fail.
    taken: AtomicUsize,
    waiting: ArrayQueue<Filled>,
    /// The writer is woken by the place whose number reaches this; `usize::MAX` once that has happened.
    wake_at: AtomicUsize,
    lost_decisions: AtomicU64,
    lost_changes: AtomicU64,
    /// The writer's thread has ended; what is filled from now on is lost.
    ended: AtomicBool,
    writer: OnceLock<Thread>,
    fault: Mutex<Option<String>>,
    /// What records do not tell.
    masks: ArcSwap<Masks>,
}

/// A filled place.
pub(super) struct Filled {
    pub(super) time_ms: u64,
    pub(super) entry: Box<dyn IntoEntry>,
    /// Who waits until it is on the disk.
    pub(super) waits: Option<oneshot::Sender<()>>,
}

/// Records that are not in the log, by their class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// Decisions whose answers went out all the same.
    pub(super) decisions: u64,
    /// Everything else.
    pub(super) changes: u64,
}

impl Lost {
    pub(super) const DECISION: Self = Self { decisions: 1, changes: 0 };
    pub(super) const CHANGE: Self = Self { decisions: 0, changes: 1 };

    pub(super) const fn all(self) -> u64 {
        self.decisions + self.changes
    }

    /// What came since.
    pub(super) const fn since(self, before: Self) -> Self {
        Self { decisions: self.decisions - before.decisions, changes: self.changes - before.changes }
    }

    pub(super) const fn and(self, more: Self) -> Self {
        Self { decisions: self.decisions + more.decisions, changes: self.changes + more.changes }
    }
}

/// A record on its way to the disk.
#[derive(Debug)]
#[must_use = "what waits for the disk has to be waited for"]
pub struct Durable(oneshot::Receiver<()>);

impl Durable {
    /// As [`Self::wait`], on a thread that may wait as long as it takes; false: it never will.
    pub(super) fn wait_here(self) -> bool {
        self.0.blocking_recv().is_ok()
    }

    /// Whether the record survives a crash of the machine; waits for that at most so long.
    pub async fn wait(self, at_most: Duration) -> bool {
        matches!(timeout(at_most, self.0).await, Ok(Ok(())))
    }
}

/// The right to one record: a verdict that holds a place can be released. Dropped unfilled, it is given back.
#[must_use = "a place that is dropped is given back, and nothing is recorded"]
pub struct Place<'audit> {
    queue: &'audit Queue,
    /// How many places were taken with this one.
    number: usize,
}

impl Place<'_> {
    /// Hands the entry to the writer. `time_ms` is wall time in milliseconds since 1970.
    pub fn fill(self, time_ms: u64, entry: Box<dyn IntoEntry>) {
        self.push(Filled { time_ms, entry, waits: None });
    }

    /// As `fill`, and wakes the writer: somebody waits until the record is on the disk. Those who wait at the same time share one sync.
    pub fn fill_durable(self, time_ms: u64, entry: Box<dyn IntoEntry>) -> Durable {
        let (waits, durable) = oneshot::channel();
        let queue = self.queue;
        self.push(Filled { time_ms, entry, waits: Some(waits) });
        queue.wake();
        Durable(durable)
    }

    fn push(self, filled: Filled) {
        let (queue, number) = (self.queue, self.number);
        // From here the place belongs to the entry, and the writer gives it back.
        std::mem::forget(self);
        queue.push(filled, number);
    }

    /// As `fill`, for a record that needs no further formatting.
    pub fn fill_entry(self, time_ms: u64, entry: Entry) {
        self.fill(time_ms, Box::new(entry));
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.release(1);
    }
}

impl Queue {
    pub(super) fn new(queue_max: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            waiting: ArrayQueue::new(queue_max),
            wake_at: AtomicUsize::new(usize::MAX),
            lost_decisions: AtomicU64::new(0),
            lost_changes: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            writer: OnceLock::new(),
            fault: Mutex::new(None),
            masks: ArcSwap::default(),
        }
    }

    pub(super) fn reserve(&self) -> Result<Place<'_>, Full> {
        let queue_max = self.waiting.capacity();
        let free = |taken: usize| (taken < queue_max).then(|| taken + 1);
        match self.taken.fetch_update(Ordering::SeqCst, Ordering::Relaxed, free) {
            Ok(before) => Ok(Place { queue: self, number: before + 1 }),
            Err(_) => Err(Full),
        }
    }

    fn push(&self, filled: Filled, number: usize) {
        if self.waiting.push(filled).is_err() {
            debug_assert!(false, "INVARIANT (a place fits)");
            self.count_lost(Lost::CHANGE);
            self.release(1);
        }
        let wake_at = self.wake_at.load(Ordering::Relaxed);
        if number >= wake_at {
            self.wake_once(wake_at);
        }
        if self.ended.load(Ordering::SeqCst) {
            self.lose_waiting();
        }
    }

    #[cold]
    fn wake_once(&self, wake_at: usize) {
        let claimed =
            self.wake_at.compare_exchange(wake_at, usize::MAX, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if claimed {
            self.wake();
        }
    }

    pub(super) fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Names the thread that `wake` wakes.
    pub(super) fn set_writer(&self, writer: Thread) {
        let _already_set = self.writer.set(writer);
    }

    /// From now on the first place past half full wakes the writer, once.
    pub(super) fn wake_when_half_full(&self) {
        self.wake_at.store(self.waiting.capacity() / 2 + 1, Ordering::Relaxed);
    }

    pub(super) fn pop(&self) -> Option<Filled> {
        self.waiting.pop()
    }

    /// Entries that wait for the writer.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn release(&self, places: usize) {
        let before = self.taken.fetch_sub(places, Ordering::SeqCst);
        debug_assert!(before & !CLOSED >= places, "a place is given back once");
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst) & !CLOSED
    }

    pub(super) fn queue_max(&self) -> usize {
        self.waiting.capacity()
    }

    pub(super) fn close(&self) {
        self.taken.fetch_or(CLOSED, Ordering::SeqCst);
        self.wake();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.taken.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// The writer's thread is done, whatever the reason: nothing more is taken, and what waits is counted lost.
    pub(super) fn end(&self) {
        self.taken.fetch_or(CLOSED, Ordering::SeqCst);
        self.ended.store(true, Ordering::SeqCst);
        self.lose_waiting();
    }

    fn lose_waiting(&self) {
        let mut lost = 0_usize;
        while self.waiting.pop().is_some() {
            lost += 1;
        }
        if lost > 0 {
            self.release(lost);
            // What they were is not looked at any more.
            self.count_lost(Lost { changes: lost as u64, ..Lost::default() });
            tracing::error!(lost, "audit records came after the writer had ended");
        }
    }

    pub(super) fn count_lost(&self, lost: Lost) {
        self.lost_decisions.fetch_add(lost.decisions, Ordering::SeqCst);
        self.lost_changes.fetch_add(lost.changes, Ordering::SeqCst);
    }

    pub(super) fn lost(&self) -> Lost {
        Lost {
            decisions: self.lost_decisions.load(Ordering::SeqCst),
            changes: self.lost_changes.load(Ordering::SeqCst),
        }
    }

    pub(super) fn set_masks(&self, masks: Arc<Masks>) {
        self.masks.store(masks);
    }

    pub(super) fn masks(&self) -> Arc<Masks> {
        self.masks.load_full()
    }

    pub(super) fn set_fault(&self, fault: Option<String>) {
        *self.fault.lock() = fault;
    }

    pub(super) fn fault(&self) -> Option<String> {
        self.fault.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(queue: &Queue) {
        queue.reserve().unwrap().fill_entry(0, Entry::Gap(cardea_proto::v1::GapRecord::default()));
    }

    #[test]
    fn only_the_first_place_past_half_full_wakes_the_writer() {
        let queue = Queue::new(8);
        for _ in 0..2 {
            queue.wake_when_half_full();
            (0..4).for_each(|_| fill(&queue));
            assert_eq!(queue.wake_at.load(Ordering::Relaxed), 5, "not yet");
            fill(&queue);
            assert_eq!(queue.wake_at.load(Ordering::Relaxed), usize::MAX, "once");
            while queue.pop().is_some() {
                queue.release(1);
            }
        }
    }

    #[test]
    fn a_wake_up_ends_the_wait_of_the_writer() {
        let queue = Queue::new(2);
        queue.set_writer(std::thread::current());
        queue.wake_when_half_full();
        fill(&queue);
        fill(&queue);
        // Would wait for ever without the wake-up.
        std::thread::park();
    }
}
