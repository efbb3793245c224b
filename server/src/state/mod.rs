//! What this node knows: sessions, subjects (standing, risk, cut-offs), revocations, devices and tenants: in memory, bounded,
//! over the ledger.
//!
//! Readers are decisions; writers are the session and signal services. A change is complete before its state
//! version is given out, so whoever is told a version can demand it (`at_least_version`). A change counts at once; it is
//! acknowledged only after [`State::durable`].
//!
//! INVARIANT (eviction is safe): dropping an entry from memory never turns a deny into an allow. Sessions are a cache over
//! the ledger, read through on a miss; that a session was ended is remembered apart from it, too. Subjects, revocations,
//! devices and tenants are never evicted: when their tables are full, new knowledge is refused, or unknown sessions
//! count as revoked.
//! INVARIANT (versions rise): across restarts too. Versions are reserved on disk in blocks before they are given out.
//! Never does: waiting for the disk on the way of a decision, other than to read a session that is not in memory.

mod bursts;
mod counters;
mod feed;
mod gather;
mod grants;
mod heard;
mod keeping;
mod labels;
mod memory;
mod once;
mod reviews;
mod rows;
mod sessions;
mod signals;
mod table;
mod tasks;
mod work_rows;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cardea_core::behavior::SessionBehavior;
use cardea_core::facts::{Behavior, is_silent};
use cardea_core::posture::Posture;
use cardea_core::session::Session;
use cardea_core::subject::Subject;
use cardea_core::task::life::Life;
use cardea_core::time::Now;
use cardea_policy_store::engine::Uid;
use cardea_policy_store::settings::Settings;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use smol_str::SmolStr;

use bursts::Bursts;
pub use counters::{Counters, CountersUsage, Counting, Kept, NotSettled, Reservation, Taken, Unreadable};
pub use feed::{Feed, Follower, KeptBack, Key, Touched};
pub use gather::{Learned, SKEW_MAX_MS, life_ms};
use heard::Heard;
use memory::Memory;
pub use reviews::{Known, NotDecided, NotOpened, Settled};
pub use sessions::{Closed, OpenFault, SessionChange, Target};
pub use signals::{Change, Outcome, Signal};
use table::Table;
pub use table::TableFull;
pub use tasks::{Decided, TaskRefusal};

use crate::ledger::{self, Ledger, LedgerFault, LedgerUsage, Row};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Sessions in memory; the least recently used makes room.
    pub sessions: u64,
    /// Sessions on disk; beyond it none can be opened.
    pub stored_sessions: u64,
    /// Subjects with risk, a cut-off, or disabled; devices and tenants as many each.
    pub subjects: usize,
    /// Ended sessions that are remembered.
    pub revocations: usize,
    /// Approved tasks.
    pub tasks: usize,
    /// Reviews, with the grants that they give.
    pub reviews: usize,
    /// Subjects of which a counter counts something.
    pub counters: usize,
}

/// See the module.
#[derive(Debug)]
pub struct State {
    version: AtomicU64,
    /// Versions below this one may be given out: the disk knows that they were.
    reserved: AtomicU64,
    capacity: Capacity,
    sessions: Cache<SmolStr, Arc<Held>, ahash::RandomState>,
    /// Sessions on disk, or on their way to it.
    stored: AtomicU64,
    subjects: Table<Uid, Subject>,
    /// Ended sessions, with the time after which nothing could bring them back, Unix milliseconds.
    revoked: Table<SmolStr, i64>,
    heard: Heard,
    /// Approved tasks, by id.
    tasks: Table<SmolStr, Arc<Life>>,
    reviews: reviews::Reviews,
    grants: grants::GrantIndex,
    devices: Table<SmolStr, Posture>,
    /// Sessions of a tenant that were opened up to here are over, Unix milliseconds.
    tenants: Table<SmolStr, i64>,
    /// None: what is known ends with the process.
    ledger: Option<Ledger>,
    memory: Memory,
    /// Whether what the disk holds of what sessions did is told with this process's fingerprints.
    knows_fingerprints: bool,
    bursts: Bursts,
    /// How often the ledger did not take a row of what is in memory.
    refused: AtomicU64,
    /// How many of these were made good since.
    caught_up: AtomicU64,
    feed: Feed,
    counters: Counters,
}

/// A session and what it did.
#[derive(Debug)]
struct Held {
    session: Mutex<Arc<Session>>,
    behavior: Mutex<Noted>,
}

/// What a session did, and how much of it the disk knows.
#[derive(Debug, Default)]
struct Noted {
    behavior: Behavior,
    stored_attempts: u64,
    /// Only of a session whose attempts were compared with what was approved: most are not, and a million are kept.
    monitored: Option<Box<SessionBehavior>>,
}

impl Held {
    fn new(session: Arc<Session>, behavior: Behavior) -> Arc<Self> {
        Self::with(session, behavior, None)
    }

    fn with(session: Arc<Session>, behavior: Behavior, monitored: Option<Box<SessionBehavior>>) -> Arc<Self> {
        let stored_attempts = behavior.attempts;
        let behavior = Mutex::new(Noted { behavior, stored_attempts, monitored });
        Arc::new(Self { session: Mutex::new(session), behavior })
    }
}

/// How full everything is.
#[derive(Clone, Debug)]
pub struct Usage {
    /// State version.
    pub version: u64,
    /// Sessions in memory.
    pub sessions: u64,
    /// Sessions on disk.
    pub stored_sessions: u64,
    /// Subjects.
    pub subjects: u64,
    /// Remembered revocations.
    pub revocations: u64,
    /// Approved tasks.
    pub tasks: u64,
    /// Reviews.
    pub reviews: u64,
    /// Devices.
    pub devices: u64,
    /// Tenants.
    pub tenants: u64,
    /// Their maxima.
    pub capacity: Capacity,
    /// The store; `None` if what is known ends with the process.
    pub ledger: Option<LedgerUsage>,
}

impl State {
    /// Empty state that ends with the process.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self::over(capacity, None)
    }

    /// The state that the ledger holds.
    ///
    /// # Errors
    /// When it cannot be read: the process must not start without it.
    pub fn restore(capacity: Capacity, ledger: Ledger) -> Result<Self, LedgerFault> {
        let mut state = Self::over(capacity, Some(ledger));
        state.load()?;
        Ok(state)
    }

    fn over(capacity: Capacity, ledger: Option<Ledger>) -> Self {
        let dropped = |table: ledger::Table| {
            let ledger = ledger.clone();
            move |key: Vec<u8>| {
                if let Some(ledger) = &ledger {
                    // A row that stays is spent, and is dropped again after the next start.
                    let _kept = ledger.write(vec![Row::Delete { table, key }]);
                }
            }
        };
        let named = |table: ledger::Table| {
            let dropped = dropped(table);
            Box::new(move |key: &SmolStr| dropped(key.as_bytes().to_vec()))
        };
        let dropped_subject = dropped(ledger::Table::Subjects);
        Self {
            version: AtomicU64::new(0),
            reserved: AtomicU64::new(u64::MAX),
            capacity,
            heard: Heard::default(),
            sessions: cache(capacity.sessions, ledger.clone()),
            stored: AtomicU64::new(0),
            subjects: Table::new(
                capacity.subjects,
                Box::new(move |uid: &Uid| dropped_subject(rows::uid_key(uid))),
            ),
            revoked: Table::new(capacity.revocations, named(ledger::Table::Revocations)),
            devices: Table::new(capacity.subjects, named(ledger::Table::Devices)),
            tenants: Table::new(capacity.subjects, named(ledger::Table::Tenants)),
            tasks: Table::new(capacity.tasks, named(ledger::Table::Tasks)),
            reviews: reviews::Reviews::default(),
            grants: grants::GrantIndex::default(),
            ledger,
            memory: Memory::default(),
            knows_fingerprints: false,
            bursts: Bursts::default(),
            refused: AtomicU64::new(0),
            caught_up: AtomicU64::new(0),
            feed: Feed::default(),
            counters: Counters::new(capacity.counters),
        }
    }

    /// The version of what every reader sees from now on.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// Something was heard of a source of signals, whatever it was. That one speaks again which this bundle expects and
    /// which was silent is a change.
    pub fn hear(&self, source: &str, settings: &Settings, now: Now) {
        let before_ms = self.heard.hear(source, now);
        let expected = settings.signals.source.get(source);
        if expected.is_some_and(|expected| is_silent(before_ms, expected.max_silence_s, now)) {
            self.advance(Key::Source(source.into()), "spoke");
        }
    }

    /// Completes when everything that was changed so far survives the end of the process. Nothing may be acknowledged
    /// before.
    ///
    /// # Errors
    /// When the disk refuses. The changes count on this node all the same.
    pub async fn durable(&self) -> Result<(), LedgerFault> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        if self.is_behind() {
            return Err(LedgerFault::Full { why: ledger.fault() });
        }
        ledger.durable(ledger.ticket()).await
    }

    /// Why nothing can be acknowledged, while that is so.
    #[must_use]
    pub fn fault(&self) -> Option<Arc<str>> {
        self.ledger.as_ref()?.fault()
    }

    /// The store, for other parts that keep something in it.
    #[must_use]
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// What changes, for those who follow it.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How full everything is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        // The cache counts behind its back; a reader wants to see the session that was just opened.
        self.sessions.run_pending_tasks();
        Usage {
            version: self.version(),
            sessions: self.sessions.entry_count(),
            stored_sessions: self.stored.load(Ordering::Relaxed),
            subjects: self.subjects.len(),
            revocations: self.revoked.len(),
            tasks: self.tasks.len(),
            reviews: u64::try_from(self.reviews.len()).unwrap_or(u64::MAX),
            devices: self.devices.len(),
            tenants: self.tenants.len(),
            capacity: self.capacity,
            ledger: self.ledger.as_ref().map(Ledger::usage),
        }
    }

    /// Whether an ended session could have been forgotten, because the table of them is full.
    fn forgets_revocations(&self, now: Now) -> bool {
        self.revoked.is_full(now.wall_ms, |until| *until < now.wall_ms)
    }

    /// Gives out the version of a change that is complete, and tells who follows.
    fn advance(&self, key: Key, what: &'static str) -> u64 {
        let version = self.version.fetch_add(1, Ordering::SeqCst) + 1;
        if version.saturating_add(keeping::VERSIONS_MARGIN) >= self.reserved.load(Ordering::Relaxed) {
            self.reserve(version);
        }
        self.feed.push(&Touched { version, key, what });
        version
    }

    /// Has all that rests on it judged again, though nothing of it changed.
    pub fn touch(&self, key: Key) {
        self.advance(key, "touched");
    }

    /// Keeps a row of what is never evicted. If the ledger does not take it, it is written later, and nothing is durable
    /// until then.
    fn keep(&self, table: ledger::Table, key: Vec<u8>, value: Vec<u8>) {
        let Some(ledger) = &self.ledger else { return };
        if ledger.write(vec![Row::Put { table, key, value }]).is_err() {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Whether knowledge is in memory whose row the ledger did not take.
    fn is_behind(&self) -> bool {
        self.caught_up.load(Ordering::SeqCst) < self.refused.load(Ordering::SeqCst)
    }

    /// For how long the end of sessions is remembered, now that they may last so long.
    fn remembers_ms(&self, life_ms: i64, now: Now) -> i64 {
        let keep = |row| self.keep(ledger::Table::Meta, keeping::MEMORY_KEY.to_vec(), row);
        self.memory.rise(life_ms, now, keep);
        self.memory.life_ms()
    }

    /// Forgets a row of something that is spent: one that stays is dropped again after the next start.
    fn forget(&self, table: ledger::Table, key: Vec<u8>) {
        if let Some(ledger) = &self.ledger {
            let _kept = ledger.write(vec![Row::Delete { table, key }]);
        }
    }
}

fn cache(capacity: u64, ledger: Option<Ledger>) -> Cache<SmolStr, Arc<Held>, ahash::RandomState> {
    // Least recently used, not least frequently: a session that was just opened must not be turned away.
    let builder = Cache::builder().max_capacity(capacity).eviction_policy(EvictionPolicy::lru());
    let builder = match ledger {
        None => builder,
        Some(ledger) => builder.eviction_listener(move |id: Arc<SmolStr>, held: Arc<Held>, cause| {
            if cause.was_evicted() {
                let _stored = keeping::store_behavior(&ledger, &id, &held);
            }
        }),
    };
    builder.build_with_hasher(ahash::RandomState::new())
}
