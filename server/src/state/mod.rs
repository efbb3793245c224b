//! What this node knows: sessions, subjects (risk, disabled, cut-offs) and revocations, in memory and bounded.
//!
//! Readers are decisions; writers are the session and signal services. A change is complete before its state
//! version is given out, so whoever is told a version can demand it (`at_least_version`).
//!
//! INVARIANT (eviction is safe): dropping an entry never turns a deny into an allow. Sessions are a cache, but
//! that a session was ended is remembered apart from it; subjects and revocations are never evicted: when
//! their tables are full, new knowledge is refused, or unknown sessions count as revoked.
//! Never does: I/O, reading a clock.

mod feed;
mod gather;
mod sessions;
mod signals;
mod table;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cardea_core::facts::Behavior;
use cardea_core::risk::Risk;
use cardea_core::session::Session;
use cardea_core::time::Now;
use cardea_policy_store::engine::Uid;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use smol_str::SmolStr;

pub use feed::{Feed, Follower, Key, Touched};
pub use gather::{Learned, SKEW_MAX_MS, life_ms};
pub use sessions::{Closed, OpenFault, SessionChange, Target};
pub use signals::{Change, Outcome, Signal};
use table::Table;
pub use table::TableFull;

/// How much the tables hold.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Sessions in memory; the least recently used makes room.
    pub sessions: u64,
    /// Subjects with risk, a cut-off, or disabled.
    pub subjects: usize,
    /// Ended sessions that are remembered.
    pub revocations: usize,
}

/// See the module.
#[derive(Debug)]
pub struct State {
    version: AtomicU64,
    capacity: Capacity,
    sessions: Cache<SmolStr, Arc<Held>, ahash::RandomState>,
    subjects: Table<Uid, Subject>,
    /// Ended sessions, with the time after which nothing could bring them back, Unix milliseconds.
    revoked: Table<SmolStr, i64>,
    feed: Feed,
}

/// A session and what it did.
#[derive(Debug)]
struct Held {
    session: Mutex<Arc<Session>>,
    behavior: Mutex<Behavior>,
}

/// What is known of one subject.
#[derive(Clone, Debug, Default)]
struct Subject {
    risk: Option<Arc<Risk>>,
    /// Event time and whether it was disabled then.
    standing: Option<(i64, bool)>,
    /// Sessions that were opened up to here are ended, Unix milliseconds.
    cutoff_ms: Option<i64>,
    /// When a credential last changed, Unix milliseconds. Kept here and not with a session, which may be evicted.
    credential_ms: Option<i64>,
}

impl Subject {
    fn is_disabled(&self) -> bool {
        self.standing.is_some_and(|(_, disabled)| disabled)
    }

    /// Whether forgetting it changes no decision.
    fn is_spent(&self, now: Now, session_life_ms: i64) -> bool {
        let is_past = |at: i64| at.saturating_add(session_life_ms) < now.wall_ms;
        self.risk.as_ref().is_none_or(|risk| risk.score(now) == 0)
            && self.standing.is_none_or(|(at, disabled)| !disabled && is_past(at))
            && self.cutoff_ms.is_none_or(is_past)
            && self.credential_ms.is_none_or(is_past)
    }
}

/// How full the tables are.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// State version.
    pub version: u64,
    /// Sessions in memory.
    pub sessions: u64,
    /// Subjects.
    pub subjects: u64,
    /// Remembered revocations.
    pub revocations: u64,
    /// Their maxima.
    pub capacity: Capacity,
}

impl State {
    /// Empty state.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self {
            version: AtomicU64::new(0),
            capacity,
            // Least recently used, not least frequently: a session that was just opened must not be turned away.
            sessions: Cache::builder()
                .max_capacity(capacity.sessions)
                .eviction_policy(EvictionPolicy::lru())
                .build_with_hasher(ahash::RandomState::new()),
            subjects: Table::new(capacity.subjects),
            revoked: Table::new(capacity.revocations),
            feed: Feed::default(),
        }
    }

    /// The version of what every reader sees from now on.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// How full the tables are.
    #[must_use]
    pub fn usage(&self) -> Usage {
        // The cache counts behind its back; a reader wants to see the session that was just opened.
        self.sessions.run_pending_tasks();
        Usage {
            version: self.version(),
            sessions: self.sessions.entry_count(),
            subjects: self.subjects.len(),
            revocations: self.revoked.len(),
            capacity: self.capacity,
        }
    }

    /// Whether an ended session could have been forgotten, because the table of them is full.
    fn forgets_revocations(&self, now: Now) -> bool {
        self.revoked.is_full(now.wall_ms, |until| *until < now.wall_ms)
    }

    /// What changes, for those who follow it.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Gives out the version of a change that is complete, and tells who follows.
    fn advance(&self, key: Key, what: &'static str) -> u64 {
        let version = self.version.fetch_add(1, Ordering::SeqCst) + 1;
        self.feed.push(&Touched { version, key, what });
        version
    }
}
