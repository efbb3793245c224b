//! What waits to be told on one stream: written by the thread of the holds, read by the stream's task.
//!
//! Of a hold that changes again before its change was read only the newest answer waits, in the place of the first. That
//! is enough: an enforcement point acts on the newest answer, and never on an allow that it was not told. An answer is
//! not taken back when it comes to be what it was before: an allow after a deny that nobody read is still told.
//! When more wait than fit, all that waits is dropped and *forget* stands in its place.
//!
//! INVARIANT (told up to here): a batch says number `n` only if every answer up to `n` was taken, or a newer answer to the
//! same hold has a higher number.
//! Limits: `max` answers wait; of one hold at most one.
//! The lock is held for single insertions and for taking a batch. Never does: awaiting under the lock.

use std::collections::BTreeMap;

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Why nothing counts any more that was told on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forget {
    /// Its reader was too slow.
    SlowReader,
    /// What it missed cannot be told again.
    TooOld,
}

/// Why no more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Another connection carries the stream now.
    Resumed,
    /// The node is stopping.
    Stopping,
}

/// How a reader left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The connection broke; it may come back.
    Lost,
    /// The caller is done.
    Done,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Waits,
    /// In the place of an older answer to the same hold.
    Coalesced,
    /// There was no room: everything that waited is gone, the answer too, and *forget* waits.
    Overflowed,
}

/// What is told next.
#[derive(Debug, PartialEq, Eq)]
pub enum Batch<T> {
    /// Nothing that was told counts any more.
    Forget {
        /// Why.
        why: Forget,
        /// Everything up to here was told.
        sequence: u64,
    },
    /// Answers, by hold.
    Answers {
        /// The answers.
        answers: Vec<(u64, T)>,
        /// Everything up to here was told.
        sequence: u64,
        /// Nothing else waits.
        is_all: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Outbox<T> {
    inner: Mutex<Inner<T>>,
    wake: Notify,
    max: usize,
}

#[derive(Debug)]
struct Inner<T> {
    /// By the number of the first answer that took the place.
    waiting: BTreeMap<u64, (u64, T)>,
    /// The place of each hold that waits.
    places: AHashMap<u64, u64>,
    forget: Option<Forget>,
    end: Option<End>,
    left: Option<Left>,
    /// Answers that were asked for and have not come yet.
    expected: usize,
    /// What a resumed stream missed after this number has not all been put here yet.
    catching_up: Option<u64>,
    /// The number of the newest answer.
    sequence: u64,
}

impl<T> Outbox<T> {
    /// An empty one, whose numbers go on after `sequence`.
    pub(super) fn new(max: usize, sequence: u64) -> Self {
        let inner = Inner {
            waiting: BTreeMap::new(),
            places: AHashMap::new(),
            forget: None,
            end: None,
            left: None,
            expected: 0,
            catching_up: None,
            sequence,
        };
        Self { inner: Mutex::new(inner), wake: Notify::new(), max }
    }

    /// Puts in the answer with the next number.
    pub(super) fn push(&self, hold_id: u64, sequence: u64, answer: T) -> Pushed {
        let mut inner = self.inner.lock();
        inner.sequence = sequence;
        let pushed = match inner.places.get(&hold_id).copied() {
            Some(place) => {
                inner.waiting.insert(place, (hold_id, answer));
                Pushed::Coalesced
            }
            None if inner.waiting.len() >= self.max => {
                inner.forget(Forget::SlowReader);
                Pushed::Overflowed
            }
            None => {
                inner.places.insert(hold_id, sequence);
                inner.waiting.insert(sequence, (hold_id, answer));
                Pushed::Waits
            }
        };
        drop(inner);
        self.wake.notify_one();
        pushed
    }

    /// Takes back what waits for a hold that is over.
    pub(super) fn remove(&self, hold_id: u64) {
        let mut inner = self.inner.lock();
        if let Some(place) = inner.places.remove(&hold_id) {
            inner.waiting.remove(&place);
        }
    }

    /// Drops what waits; nothing that was told counts any more.
    pub(super) fn forget(&self, why: Forget) {
        self.inner.lock().forget(why);
        self.wake.notify_one();
    }

    /// Tells the reader that no more comes.
    pub(super) fn end(&self, why: End) {
        self.inner.lock().end = Some(why);
        self.wake.notify_one();
    }

    /// How the reader left, if it did.
    pub(super) fn left(&self) -> Option<Left> {
        self.inner.lock().left
    }

    /// What a resumed stream missed after `from` will be put here; until `None` is said nothing beyond it counts as told.
    pub(super) fn set_catching_up(&self, from: Option<u64>) {
        self.inner.lock().catching_up = from;
        self.wake.notify_one();
    }

    /// An answer that was asked for has come.
    pub(super) fn came(&self, count: usize) {
        let mut inner = self.inner.lock();
        inner.expected = inner.expected.saturating_sub(count);
        drop(inner);
        self.wake.notify_one();
    }

    /// How many answers wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.lock().waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For the reader: whether answers to `count` more holds fit with room to spare for changes; they are then expected.
    #[must_use]
    pub fn expect(&self, count: usize) -> bool {
        let mut inner = self.inner.lock();
        let fits = inner.waiting.len().saturating_add(inner.expected).saturating_add(count) <= self.max / 2;
        // However little room there is, one at a time goes on.
        let is_idle = inner.waiting.is_empty() && inner.expected == 0;
        if fits || is_idle {
            inner.expected = inner.expected.saturating_add(count);
        }
        fits || is_idle
    }

    /// For the reader: what is told next, `max` answers at most.
    #[must_use]
    pub fn take(&self, max: usize) -> Option<Batch<T>> {
        let mut inner = self.inner.lock();
        if let Some(why) = inner.forget.take() {
            return Some(Batch::Forget { why, sequence: inner.told() });
        }
        let mut answers = Vec::with_capacity(max.min(inner.waiting.len()));
        while answers.len() < max
            && let Some((_, (hold_id, answer))) = inner.waiting.pop_first()
        {
            inner.places.remove(&hold_id);
            answers.push((hold_id, answer));
        }
        let is_all = inner.waiting.is_empty() && inner.catching_up.is_none();
        (!answers.is_empty()).then(|| Batch::Answers { answers, sequence: inner.told(), is_all })
    }

    /// For the reader: up to where everything was told, if nothing else waits or is still to come of what was missed.
    #[must_use]
    pub fn told(&self) -> Option<u64> {
        let inner = self.inner.lock();
        let is_all = inner.waiting.is_empty() && inner.forget.is_none() && inner.catching_up.is_none();
        is_all.then_some(inner.sequence)
    }

    /// For the reader: why no more comes, once what waits was taken.
    #[must_use]
    pub fn ended(&self) -> Option<End> {
        self.inner.lock().end
    }

    /// For the reader: completes when something may have changed here since the last time.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// For the reader: says that it left, and whether it means to.
    pub fn leave(&self, is_done: bool) {
        self.inner.lock().left.get_or_insert(if is_done { Left::Done } else { Left::Lost });
    }
}

impl<T> Inner<T> {
    fn forget(&mut self, why: Forget) {
        self.waiting.clear();
        self.places.clear();
        self.catching_up = None;
        self.forget = Some(why);
    }

    fn told(&self) -> u64 {
        let newest = match self.waiting.first_key_value() {
            Some((first, _)) => first.saturating_sub(1),
            None => self.sequence,
        };
        self.catching_up.map_or(newest, |from| from.min(newest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answers(batch: Option<Batch<char>>) -> (Vec<(u64, char)>, u64, bool) {
        match batch {
            Some(Batch::Answers { answers, sequence, is_all }) => (answers, sequence, is_all),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_hold_that_changes_twice_is_told_once_the_newest_in_the_first_place() {
        let outbox = Outbox::new(8, 0);
        assert_eq!(outbox.push(7, 1, 'a'), Pushed::Waits);
        assert_eq!(outbox.push(8, 2, 'b'), Pushed::Waits);
        assert_eq!(outbox.push(7, 3, 'c'), Pushed::Coalesced);
        assert_eq!(answers(outbox.take(1)), (vec![(7, 'c')], 1, false), "the other one is at 2");
        assert_eq!(answers(outbox.take(1)), (vec![(8, 'b')], 3, true));
        assert!(outbox.take(1).is_none());
    }

    #[test]
    fn an_allow_after_a_deny_that_nobody_read_is_told() {
        let outbox = Outbox::new(8, 0);
        outbox.push(7, 1, 'A');
        assert_eq!(answers(outbox.take(9)).0, [(7, 'A')]);
        outbox.push(7, 2, 'D');
        outbox.push(7, 3, 'A');
        assert_eq!(answers(outbox.take(9)).0, [(7, 'A')]);
    }

    #[test]
    fn a_slow_reader_loses_everything_and_is_told_so_first() {
        let outbox = Outbox::new(2, 0);
        outbox.push(1, 1, 'a');
        outbox.push(2, 2, 'b');
        assert_eq!(outbox.push(3, 3, 'c'), Pushed::Overflowed);
        assert_eq!(outbox.told(), None, "who breaks off here has not heard of it");
        assert_eq!(outbox.push(4, 4, 'd'), Pushed::Waits, "what is registered after it counts");
        assert_eq!(outbox.take(9), Some(Batch::Forget { why: Forget::SlowReader, sequence: 3 }));
        assert_eq!(answers(outbox.take(9)).0, [(4, 'd')]);
    }

    #[test]
    fn a_registration_waits_until_there_is_room_for_its_answers_but_never_for_ever() {
        let outbox = Outbox::new(8, 0);
        assert!(outbox.expect(100), "nothing waits, so nothing can make more room");
        assert!(!outbox.expect(1));
        outbox.came(100);
        assert!(outbox.expect(4) && !outbox.expect(1));
        outbox.came(4);
        outbox.push(1, 1, 'a');
        assert!(outbox.expect(3) && !outbox.expect(1));
    }

    #[test]
    fn nothing_beyond_what_was_heard_counts_as_told_until_a_resumed_stream_caught_up() {
        let outbox = Outbox::new(8, 3);
        outbox.set_catching_up(Some(3));
        assert_eq!(outbox.told(), None);
        outbox.push(1, 10, 'a');
        assert_eq!(answers(outbox.take(9)), (vec![(1, 'a')], 3, false));
        assert_eq!(outbox.told(), None);
        outbox.push(2, 11, 'b');
        outbox.set_catching_up(None);
        assert_eq!(outbox.told(), None);
        assert_eq!(answers(outbox.take(9)), (vec![(2, 'b')], 11, true));
        assert_eq!(outbox.told(), Some(11));
    }

    proptest! {
        /// What a reader has heard, with what it is told again after `from`, is the newest answer to every hold.
        #[test]
        fn a_reader_that_resumes_from_what_it_heard_misses_nothing(
            steps in prop::collection::vec((0..5_u64, 0..3_usize, any::<bool>()), 1..60),
        ) {
            let outbox = Outbox::new(100, 0);
            let mut newest: BTreeMap<u64, (u64, u32)> = BTreeMap::new();
            let mut heard: BTreeMap<u64, u32> = BTreeMap::new();
            let (mut from, mut connected) = (0, true);
            for (sequence, (hold, take, breaks)) in (1..).zip(steps) {
                let answer = u32::try_from(sequence).unwrap();
                outbox.push(hold, sequence, answer);
                newest.insert(hold, (sequence, answer));
                if let Some(Batch::Answers { answers, sequence, .. }) = outbox.take(take) && connected {
                    heard.extend(answers);
                    from = sequence;
                }
                connected &= !breaks || take == 0;
            }
            heard.extend(newest.iter().filter(|(_, (at, _))| *at > from).map(|(hold, (_, answer))| (*hold, *answer)));
            prop_assert_eq!(heard, newest.iter().map(|(hold, (_, answer))| (*hold, *answer)).collect());
        }
    }
}
