//! Allows that may be reused, in a table of fixed size. Time is an argument, in nanoseconds of a monotonic clock.
//!
//! Each key has [`WAYS`] places; when all are taken by answers that still count, the one that ends first makes room. What is
//! dropped is only asked again. INVARIANT (fails closed): [`Table::find`] gives out an answer only while its own lease
//! lasts, or while its held lease lasts and the stream that covers it is there, or was lost for no longer than the answer
//! says; and none that was asked for before [`Table::forget_all`], or before its key was last taken back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::key::Key;
use crate::v1::Verdict;

/// Places for one key: enough that a few busy keys which share them do not drive each other out.
const WAYS: usize = 8;

/// The Hold stream as answers see it. It counts as there for a while after each thing that was heard on it, so that nobody
/// need notice that it fell silent.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Number of the stream; answers are covered by the one under which they were held. 0: none was ever there.
    stream: AtomicU64,
    /// Until when it counts as there.
    until_ns: AtomicU64,
}

impl Link {
    /// A new stream is there; answers that were held under earlier ones are not covered by it. Gives its number.
    pub(super) fn opened(&self, until_ns: u64) -> u64 {
        // The number first: whoever sees the new stream there sees which one it is.
        let stream = self.stream.fetch_add(1, Ordering::SeqCst) + 1;
        self.until_ns.store(until_ns, Ordering::SeqCst);
        stream
    }

    /// Something was heard on it.
    pub(super) fn heard(&self, until_ns: u64) {
        self.until_ns.store(until_ns, Ordering::SeqCst);
    }

    /// It is not there since that time.
    pub(super) fn lost(&self, at_ns: u64) {
        self.until_ns.fetch_min(at_ns, Ordering::SeqCst);
    }

    /// Whether it is there.
    pub(super) fn is_there(&self, now_ns: u64) -> bool {
        now_ns < self.until_ns.load(Ordering::Acquire)
    }

    fn covers(&self, held: &Held, now_ns: u64) -> bool {
        let until_ns = self.until_ns.load(Ordering::Acquire).saturating_add(held.loss_max_ns);
        now_ns < until_ns && self.stream.load(Ordering::Acquire) == held.stream
    }
}

/// How an answer is covered by a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Number of the stream.
    pub(super) stream: u64,
    /// End of the held lease.
    pub(super) until_ns: u64,
    /// How long the answer outlives the stream.
    pub(super) loss_max_ns: u64,
}

/// An allow to keep.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) verdict: Arc<Verdict>,
    /// End of the lease that needs no stream.
    pub(super) until_ns: u64,
    pub(super) held: Option<Held>,
}

impl Kept {
    fn ends_ns(&self) -> u64 {
        self.until_ns.max(self.held.map_or(0, |held| held.until_ns))
    }

    fn holds(&self, link: &Link, now_ns: u64) -> bool {
        now_ns < self.until_ns
            || self.held.is_some_and(|held| now_ns < held.until_ns && link.covers(&held, now_ns))
    }
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    key: Box<[u8]>,
    generation: u64,
    kept: Kept,
}

/// The places of a key.
#[derive(Debug, Default)]
struct Set {
    /// The hashes of the entries, for whoever looks for what is not there: they need no lock.
    hashes: [AtomicU64; WAYS],
    /// How often a key of these places was taken back.
    removals: AtomicU64,
    entries: Mutex<[Option<Entry>; WAYS]>,
}

/// When an answer was asked for, as the table counts: what was taken back since must not be stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) generation: u64,
    pub(super) removals: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    sets: Box<[Set]>,
    hashing: ahash::RandomState,
    generation: AtomicU64,
}

impl Table {
    /// A table with at least so many places.
    pub(super) fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(WAYS).max(1);
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
            hashing: ahash::RandomState::new(),
            generation: AtomicU64::new(0),
        }
    }

    /// What the keys are hashed with.
    pub(super) fn hashing(&self) -> &ahash::RandomState {
        &self.hashing
    }

    /// To be read before an answer for that key is asked for, and given to [`Table::store`].
    pub(super) fn asked(&self, key: Key<'_>) -> Asked {
        let removals = self.set(key.hash).map_or(0, |set| set.removals.load(Ordering::SeqCst));
        Asked { generation: self.generation.load(Ordering::SeqCst), removals }
    }

    /// The answer for the key of that hash, if it may be reused now and rests on state at least that new. `is` compares with
    /// a stored key.
    pub(super) fn find(
        &self,
        hash: u64,
        is: impl Fn(&[u8]) -> bool,
        at_least: u64,
        link: &Link,
        now_ns: u64,
    ) -> Option<Arc<Verdict>> {
        let set = self.set(hash)?;
        // What is being stored just now may be overlooked: then it is asked for.
        let place = set.hashes.iter().position(|of| of.load(Ordering::Acquire) == hash)?;
        let entries = set.entries.lock();
        // Nearly always this one; else those whose hashes are equal.
        let entry =
            entries.get(place..)?.iter().flatten().find(|entry| entry.hash == hash && is(&entry.key))?;
        let is_current = entry.generation == self.generation.load(Ordering::Acquire);
        let verdict = &entry.kept.verdict;
        let is_new_enough =
            at_least == 0 || verdict.basis.as_ref().is_some_and(|basis| basis.state_version >= at_least);
        (is_current && is_new_enough && entry.kept.holds(link, now_ns)).then(|| Arc::clone(verdict))
    }

    /// Keeps an answer that was asked for then, in the place of an older one.
    pub(super) fn store(&self, key: Key<'_>, kept: Kept, asked: Asked, now_ns: u64) {
        let Some(set) = self.set(key.hash) else { return };
        let mut entries = set.entries.lock();
        let current = self.generation.load(Ordering::SeqCst);
        let Asked { generation, removals } = asked;
        // Forgotten or taken back while it was on its way.
        let is_late = generation != current || removals != set.removals.load(Ordering::SeqCst);
        if is_late || kept.ends_ns() <= now_ns {
            return;
        }
        // Its own place, else a free one, else that of the answer which ends first.
        let rank = |place: &Option<Entry>| match place {
            Some(entry) if entry.is(key) => (0, 0),
            Some(entry) if entry.generation == current && entry.kept.ends_ns() > now_ns => {
                (2, entry.kept.ends_ns())
            }
            Some(_) | None => (1, 0),
        };
        if let Some((place, hash)) = entries.iter_mut().zip(&set.hashes).min_by_key(|(place, _)| rank(place))
        {
            *place = Some(Entry { hash: key.hash, key: key.bytes.into(), generation, kept });
            hash.store(key.hash, Ordering::Release);
        }
    }

    /// Drops the answer for that key, and those that are on their way.
    pub(super) fn remove(&self, key: Key<'_>) {
        let Some(set) = self.set(key.hash) else { return };
        let mut entries = set.entries.lock();
        set.removals.fetch_add(1, Ordering::SeqCst);
        if let Some(place) =
            entries.iter_mut().find(|place| place.as_ref().is_some_and(|entry| entry.is(key)))
        {
            *place = None;
        }
    }

    /// Drops every answer, and those that are on their way.
    pub(super) fn forget_all(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    fn set(&self, hash: u64) -> Option<&Set> {
        let count = u128::try_from(self.sets.len()).ok()?;
        // The high bits choose: a multiplication costs less than a division.
        self.sets.get(usize::try_from((u128::from(hash) * count) >> 64).ok()?)
    }
}

impl Entry {
    fn is(&self, key: Key<'_>) -> bool {
        self.hash == key.hash && *self.key == *key.bytes
    }
}

#[cfg(test)]
mod tests;
