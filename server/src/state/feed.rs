//! The change feed: what changed, told to those who follow it, without ever holding up the change.
//!
//! Each follower has a bounded queue of its own. When it is full the follower is told that it missed something: from
//! there everything may have changed. Nothing is skipped silently.
//! Limits: [`limits::FEED_QUEUE`] changes wait for each follower.
//! Never does: waiting, dropping without a mark.

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

    pub(super) fn push(&self, change: &Touched) {
        for follower in self.0.load().iter() {
            follower.push(change);
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
}
