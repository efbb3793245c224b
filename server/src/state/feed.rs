//! The change feed: what changed, told to those who follow it, without ever holding up the change.
//!
//! Each follower has a bounded queue of its own. When it is full the follower is told that it missed something: from
//! there everything may have changed. Nothing is skipped silently.
//! Limits: [`limits::FEED_QUEUE`] changes wait for each follower.
//! Never does: waiting, dropping without a mark.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use cardea_policy_store::engine::Uid;
use crossbeam_queue::ArrayQueue;
use smol_str::SmolStr;

use crate::limits;

/// What something was changed of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// One session, by id.
    Session(SmolStr),
    /// A principal: its standing, cut-off, credential or risk.
    Principal(Uid),
    /// A device, by id.
    Device(SmolStr),
    /// A tenant, by name.
    Tenant(SmolStr),
    /// An approved task, by id.
    Task(SmolStr),
    /// The grants of a principal.
    Grants(Uid),
    /// A signal source, by name.
    Source(SmolStr),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// State version from which readers see it.
    pub version: u64,
    /// Of what.
    pub key: Key,
    /// What happened, in a word: `revoked`, `risk`, `disabled`, …
    pub what: &'static str,
}

/// One follower's end.
pub struct Follower {
    queue: ArrayQueue<Touched>,
    missed: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

impl Follower {
    /// The next change, in the order of the pushes.
    #[must_use]
    pub fn next(&self) -> Option<Touched> {
        self.queue.pop()
    }

    /// Whether changes were missed since this was asked last: everything may have changed. Ask before [`Self::next`], so
    /// that what comes after the gap is not taken for all there is.
    #[must_use]
    pub fn missed(&self) -> bool {
        self.missed.swap(false, Ordering::AcqRel)
    }

    fn push(&self, change: &Touched) {
        if self.queue.push(change.clone()).is_err() {
            self.missed.store(true, Ordering::Release);
        }
        (self.wake)();
    }
}

/// The writing end.
#[derive(Debug, Default)]
pub struct Feed(ArcSwap<Vec<Arc<Follower>>>);

impl Feed {
    /// Follows the changes from now on. `wake` is called after each, on the thread that makes the change: it must be quick.
    pub fn follow(&self, wake: Box<dyn Fn() + Send + Sync>) -> Arc<Follower> {
        let follower = Arc::new(Follower {
            queue: ArrayQueue::new(limits::FEED_QUEUE),
            missed: AtomicBool::new(false),
            wake,
        });
        self.0.rcu(|followers| {
            let mut more = Vec::clone(followers);
            more.push(Arc::clone(&follower));
            more
        });
        follower
    }

    /// Keeps back what this thread changes until the guard is dropped, so that the record of a change stands before the
    /// records of what comes of it. The guard stays on its thread and must not live long; one within another does nothing.
    #[must_use = "changes are told as soon as it is dropped"]
    pub fn keep_back(&self) -> KeptBack<'_> {
        let is_outermost = KEPT_BACK.with_borrow_mut(|kept| {
            let is_outermost = kept.is_none();
            if is_outermost {
                *kept = Some((self.name(), Vec::new()));
            }
            is_outermost
        });
        KeptBack { feed: is_outermost.then_some(self), stays: PhantomData }
    }

    pub(super) fn push(&self, change: &Touched) {
        let is_kept = KEPT_BACK.with_borrow_mut(|kept| match kept {
            Some((of, changes)) if *of == self.name() => {
                changes.push(change.clone());
                true
            }
            Some(_) | None => false,
        });
        if !is_kept {
            self.tell(change);
        }
    }

    fn tell(&self, change: &Touched) {
        for follower in self.0.load().iter() {
            follower.push(change);
        }
    }

    /// Tells this feed from others while it lives.
    fn name(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

thread_local! {
    /// Of which feed this thread keeps changes back, and which: those of one call.
    static KEPT_BACK: RefCell<Option<(usize, Vec<Touched>)>> = const { RefCell::new(None) };
}

/// See [`Feed::keep_back`].
#[derive(Debug)]
pub struct KeptBack<'f> {
    /// Unset within another.
    feed: Option<&'f Feed>,
    /// What is kept back belongs to one thread.
    stays: PhantomData<*const ()>,
}

impl Drop for KeptBack<'_> {
    fn drop(&mut self) {
        let Some(feed) = self.feed else { return };
        for change in KEPT_BACK.take().into_iter().flat_map(|(_, changes)| changes) {
            feed.tell(&change);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn change(version: u64) -> Touched {
        Touched { version, key: Key::Session("s".into()), what: "revoked" }
    }

    #[test]
    fn each_follower_hears_every_change_in_order_and_is_woken() {
        let feed = Feed::default();
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&woken);
        let one = feed.follow(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        feed.push(&change(1));
        let two = feed.follow(Box::new(|| {}));
        feed.push(&change(2));
        assert_eq!([one.next(), one.next(), one.next()], [Some(change(1)), Some(change(2)), None]);
        assert_eq!([two.next(), two.next()], [Some(change(2)), None]);
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        assert!(!one.missed() && !two.missed());
    }

    #[test]
    fn a_follower_that_lags_is_told_that_it_missed_something() {
        let feed = Feed::default();
        let follower = feed.follow(Box::new(|| {}));
        for version in 0..=u64::try_from(limits::FEED_QUEUE).unwrap() {
            feed.push(&change(version));
        }
        assert!(follower.missed());
        assert!(!follower.missed());
        assert_eq!(follower.next(), Some(change(0)));
    }

    #[test]
    fn what_is_kept_back_is_told_in_order_when_the_outermost_guard_goes() {
        let (feed, other) = (Feed::default(), Feed::default());
        let follower = feed.follow(Box::new(|| {}));
        let elsewhere = other.follow(Box::new(|| {}));
        let outer = feed.keep_back();
        feed.push(&change(1));
        other.push(&change(7));
        assert_eq!(elsewhere.next().map(|told| told.version), Some(7), "another feed goes on");
        let inner = feed.keep_back();
        feed.push(&change(2));
        drop(inner);
        assert_eq!(follower.next(), None);
        std::thread::scope(|threads| threads.spawn(|| feed.push(&change(3))).join()).unwrap();
        assert_eq!(follower.next().map(|told| told.version), Some(3), "another thread goes on");
        drop(outer);
        feed.push(&change(4));
        let told: Vec<u64> = std::iter::from_fn(|| follower.next()).map(|told| told.version).collect();
        assert_eq!(told, [1, 2, 4]);
    }
}
