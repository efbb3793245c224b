//! The embedded store behind the state: what must survive the end of the process, in one file (`state.redb`).
//!
//! Writing is in two steps. [`Ledger::write`] takes rows into a queue and returns a [`Ticket`] at once;
//! [`Ledger::durable`] completes when the rows are on disk. One thread takes everything that waits and commits it with
//! one fsync, so many changes share the price of one.
//!
//! INVARIANT (read your writes): [`Ledger::get`] sees what was written before, durable or not. Rows of one key reach the
//! disk in the order of the calls of `write`; who changes a key calls it under the lock that orders the key's changes.
//! When the disk refuses, rows stay queued and are tried again, [`Ledger::durable`] fails for those who wait, and
//! [`Ledger::fault`] says why until a commit succeeds.
//! Limits: [`limits::LEDGER_PENDING_MAX`] rows wait; then `write` refuses.
//! Never does: knowing what rows mean, deciding, reading a clock.

mod file;
mod upgrade;
mod writer;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

pub use file::OpenFault;
use file::StoreFile;
pub use writer::Writer;

use crate::limits;

/// The tables; each name is a part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// What the store says of itself: the state version that was given out.
    Meta,
    /// Sessions, by id.
    Sessions,
    /// What sessions did, by id.
    Behaviors,
    /// Subjects with risk, standing, cut-off or a changed credential, by type and id.
    Subjects,
    /// Ended sessions, by id.
    Revocations,
    /// Postures of devices, by id.
    Devices,
    /// Cut-offs of tenants, by name.
    Tenants,
    /// Approved tasks, by id.
    Tasks,
    /// Reviews with their grants, by id.
    Reviews,
    /// Streams of signals that come in.
    Receivers,
    /// Signals that were taken in, by issuer and id.
    Seen,
    /// Streams of signals that go out.
    Streams,
    /// Signals that wait to go out.
    Outbox,
    /// Signing keys.
    Keys,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 14] = [
        Self::Meta,
        Self::Sessions,
        Self::Behaviors,
        Self::Subjects,
        Self::Revocations,
        Self::Devices,
        Self::Tenants,
        Self::Tasks,
        Self::Reviews,
        Self::Receivers,
        Self::Seen,
        Self::Streams,
        Self::Outbox,
        Self::Keys,
    ];

    /// Its name in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Sessions => "sessions",
            Self::Behaviors => "behaviors",
            Self::Subjects => "subjects",
            Self::Revocations => "revocations",
            Self::Devices => "devices",
            Self::Tenants => "tenants",
            Self::Tasks => "tasks",
            Self::Reviews => "reviews",
            Self::Receivers => "receivers",
            Self::Seen => "seen",
            Self::Streams => "streams",
            Self::Outbox => "outbox",
            Self::Keys => "keys",
        }
    }
}

/// A change of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// The row has this value from now on.
    Put {
        /// The table.
        table: Table,
        /// Its key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// There is no such row from now on.
    Delete {
        /// The table.
        table: Table,
        /// Its key.
        key: Vec<u8>,
    },
}

impl Row {
    fn place(&self) -> (Table, &[u8]) {
        match self {
            Self::Put { table, key, .. } | Self::Delete { table, key } => (*table, key),
        }
    }
}

/// Names a moment of the queue: everything written up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Why something is not durable, or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerFault {
    /// The disk refuses, and as much waits for it as may.
    #[error("{} changes wait for the disk, and no more are taken: {}", limits::LEDGER_PENDING_MAX, why.as_deref().unwrap_or("it is too slow"))]
    Full {
        /// What the disk says, if it refuses.
        why: Option<Arc<str>>,
    },
    /// The disk refused.
    #[error("the state cannot be written to disk: {0}")]
    NotWritten(Arc<str>),
    /// A row cannot be read, or is not what was written.
    #[error("the state cannot be read from disk: {0}")]
    NotRead(Arc<str>),
    /// The process ends.
    #[error("the process ends")]
    Closed,
}

/// Looks at a row, by key and value.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// How the ledger is doing.
#[derive(Clone, Debug, Default)]
pub struct LedgerUsage {
    /// Rows that wait for the disk.
    pub pending: u64,
    /// Rows that were made durable since the start.
    pub written: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Rows that were refused because too many waited.
    pub refused: u64,
    /// Why the disk refuses, while it does.
    pub fault: Option<Arc<str>>,
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: StoreFile,
    pending: Mutex<Pending>,
    /// Rings when rows wait, or the end has come.
    work: Condvar,
    progress: watch::Sender<Progress>,
    written: AtomicU64,
    commits: AtomicU64,
    refused: AtomicU64,
}

/// What waits for the disk.
#[derive(Debug, Default)]
struct Pending {
    rows: Vec<Row>,
    /// The newest value of each row that waits or is being committed, with the moment it was written.
    overlay: AHashMap<(Table, Box<[u8]>), Newest>,
    /// Number of the last row that was taken in.
    last: u64,
    /// No more rows come.
    is_closed: bool,
}

/// The moment at which a row was written, and its value; none if it was deleted.
type Newest = (u64, Option<Arc<[u8]>>);

/// How far the disk is.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// Rows up to here are durable.
    durable: u64,
    /// An attempt to commit rows up to here failed; they are tried again.
    failed: u64,
    fault: Option<Arc<str>>,
    is_closed: bool,
}

impl Ledger {
    /// Opens the store in a directory, which is made if it is not there; older formats are brought up to date. The
    /// [`Writer`] must run for anything to become durable.
    ///
    /// # Errors
    /// When it cannot be opened, is another process's, is corrupt, or of a later format.
    pub fn open(dir: &Path) -> Result<(Self, Writer), OpenFault> {
        let file = StoreFile::open(dir)?;
        let ledger = Self(Arc::new(Inner {
            file,
            pending: Mutex::default(),
            work: Condvar::new(),
            progress: watch::Sender::new(Progress::default()),
            written: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }));
        Ok((ledger.clone(), Writer::new(ledger)))
    }

    /// Takes rows in. They are visible to [`Ledger::get`] from now on, and durable once [`Ledger::durable`] says so. The writer
    /// is not woken for them: whoever made the change tells of it first, and then waits for the disk.
    ///
    /// # Errors
    /// When too many wait; then none of these is taken.
    pub fn write(&self, rows: Vec<Row>) -> Result<Ticket, LedgerFault> {
        let mut pending = self.0.pending.lock();
        if pending.is_closed {
            return Err(LedgerFault::Closed);
        }
        // What is being committed counts too: the overlay holds it until it is on disk.
        if pending.overlay.len().saturating_add(rows.len()) > limits::LEDGER_PENDING_MAX {
            drop(pending);
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            return Err(LedgerFault::Full { why: self.fault() });
        }
        for row in rows {
            pending.last += 1;
            let seen = (
                pending.last,
                match &row {
                    Row::Put { value, .. } => Some(Arc::from(value.as_slice())),
                    Row::Delete { .. } => None,
                },
            );
            let (table, key) = row.place();
            let place = (table, Box::from(key));
            pending.overlay.insert(place, seen);
            pending.rows.push(row);
        }
        Ok(Ticket(pending.last))
    }

    /// Takes no more rows; the writer ends once what waits is on disk.
    pub fn close(&self) {
        self.0.pending.lock().is_closed = true;
        self.0.work.notify_all();
    }

    /// Everything written so far.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket(self.0.pending.lock().last)
    }

    /// Has everything up to the ticket written, and completes when it is on disk.
    ///
    /// # Errors
    /// When an attempt to write it failed. It stays queued and may become durable later, but nobody must be told that it
    /// is.
    pub async fn durable(&self, ticket: Ticket) -> Result<(), LedgerFault> {
        let mut progress = self.0.progress.subscribe();
        let settled = |progress: &Progress| progress.settles(ticket).is_some();
        self.0.work.notify_one();
        match progress.wait_for(settled).await {
            Ok(progress) => progress.settles(ticket).unwrap_or(Err(LedgerFault::Closed)),
            Err(_closed) => Err(LedgerFault::Closed),
        }
    }

    /// As [`Ledger::durable`], on a thread that must not await: waits for at most so long.
    ///
    /// # Errors
    /// As [`Ledger::durable`], and when it takes longer.
    pub fn wait(&self, ticket: Ticket, at_most: Duration) -> Result<(), LedgerFault> {
        /// Between two looks; a commit takes several milliseconds.
        const LOOK: Duration = Duration::from_micros(200);
        let progress = self.0.progress.subscribe();
        self.0.work.notify_one();
        let mut waited = Duration::ZERO;
        loop {
            if let Some(settled) = progress.borrow().settles(ticket) {
                return settled;
            }
            if waited >= at_most {
                return Err(LedgerFault::NotWritten("the disk is too slow".into()));
            }
            std::thread::park_timeout(LOOK);
            waited += LOOK;
        }
    }

    /// The value of a row.
    ///
    /// # Errors
    /// When the disk cannot be read, or the row is not what was written.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, LedgerFault> {
        {
            let pending = self.0.pending.lock();
            if !pending.overlay.is_empty()
                && let Some((_, value)) = pending.overlay.get(&(table, Box::from(key)))
            {
                return Ok(value.clone());
            }
        }
        self.0.file.get(table, key)
    }

    /// Shows every row of a table that is on disk, in the order of keys, from a key on, until `visit` breaks. Rows that
    /// still wait are not seen.
    ///
    /// # Errors
    /// When the disk cannot be read, or a row is not what was written.
    pub fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), LedgerFault> {
        self.0.file.scan(table, from, visit)
    }

    /// How many rows of a table are on disk.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn len(&self, table: Table) -> Result<u64, LedgerFault> {
        self.0.file.len(table)
    }

    /// Why the disk refuses, while it does.
    #[must_use]
    pub fn fault(&self) -> Option<Arc<str>> {
        self.0.progress.borrow().fault.clone()
    }

    /// How it is doing.
    #[must_use]
    pub fn usage(&self) -> LedgerUsage {
        LedgerUsage {
            pending: u64::try_from(self.0.pending.lock().overlay.len()).unwrap_or(u64::MAX),
            written: self.0.written.load(Ordering::Relaxed),
            commits: self.0.commits.load(Ordering::Relaxed),
            refused: self.0.refused.load(Ordering::Relaxed),
            fault: self.fault(),
        }
    }
}

impl Progress {
    /// What is known about the rows up to a ticket; `None`: not yet.
    fn settles(&self, ticket: Ticket) -> Option<Result<(), LedgerFault>> {
        if self.durable >= ticket.0 {
            Some(Ok(()))
        } else if self.failed >= ticket.0 {
            let why = self.fault.clone().unwrap_or_else(|| "the disk refused".into());
            Some(Err(LedgerFault::NotWritten(why)))
        } else if self.is_closed {
            Some(Err(LedgerFault::Closed))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
