//! The file: one redb database, one table for each [`Table`], and a checksum over each row.
//!
//! redb verifies its own pages only when it repairs after a crash; the checksum finds a row that is not what was written
//! at any time. It covers table, key and value, so that a row cannot stand in for another.
//! Limits: [`limits::LEDGER_CACHE_BYTES`] of pages in memory.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition};

use super::{LedgerFault, Row, Table, Visit, upgrade};
use crate::limits;

/// Name of the file within its directory.
const NAME: &str = "state.redb";
/// Bytes of a row's checksum, at its front.
const CHECKSUM_BYTES: usize = 8;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Why the store cannot be opened. The process must not start without it: it would have forgotten what was revoked.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// The directory or the file cannot be used.
    #[error("the state in `{}` cannot be opened: {why}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        why: String,
    },
    /// Another process has it.
    #[error("the state in `{}` is in use by another process; give this one its own `state.dir`", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is not what was written.
    #[error(
        "the state in `{}` is corrupt ({why}): restore it from a copy, or move it away to start without the sessions, \
         revocations and tasks that it held", path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A later version wrote it.
    #[error(
        "the state in `{}` has format {found}, and this version knows {} at most: run the version that wrote it",
        path.display(), upgrade::FORMAT
    )]
    Later {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

/// Makes a file that is whole or not there.
fn create(dir: &Path, path: &Path) -> Result<(), OpenFault> {
    let io = |why: std::io::Error| OpenFault::Io { path: path.to_owned(), why: why.to_string() };
    tracing::info!(path = %path.display(), "there is no state yet: it begins with no sessions, revocations or tasks");
    let unfinished = path.with_extension("new");
    match fs::remove_file(&unfinished) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(io(why)),
        Ok(()) | Err(_) => {}
    }
    fs::OpenOptions::new().create_new(true).append(true).mode(0o600).open(&unfinished).map_err(io)?;
    drop(builder().create(&unfinished).map_err(|why| refused(&unfinished, why))?);
    // Never in the place of a file that somebody else made meanwhile, and has open.
    match fs::hard_link(&unfinished, path) {
        Err(why) if why.kind() != std::io::ErrorKind::AlreadyExists => return Err(io(why)),
        Ok(()) | Err(_) => {}
    }
    fs::remove_file(&unfinished).map_err(io)?;
    // A new file has a name only once its directory is on disk, too.
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}

#[derive(Debug)]
pub(super) struct StoreFile {
    path: PathBuf,
    /// None after it could not be opened again.
    database: RwLock<Option<Database>>,
}

impl StoreFile {
    pub(super) fn open(dir: &Path) -> Result<Self, OpenFault> {
        let path = dir.join(NAME);
        let io = |why: std::io::Error| OpenFault::Io { path: path.clone(), why: why.to_string() };
        // What is in here names identities and how far they are trusted: nobody else's business.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        match fs::metadata(&path) {
            // redb would take it for a new one, and all that was revoked would be forgotten.
            Ok(known) if known.len() == 0 => {
                return Err(io(std::io::Error::other(
                    "it is empty, as after a copy that was cut: restore it, or remove it to begin with no state at all",
                )));
            }
            Ok(_) => {}
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => create(dir, &path)?,
            Err(why) => return Err(io(why)),
        }
        let database = builder().open(&path).map_err(|why| refused(&path, why))?;
        upgrade::to_current(&database, &path)?;
        Ok(Self { path, database: RwLock::new(Some(database)) })
    }

    pub(super) fn reopen(&self) -> Result<(), LedgerFault> {
        let mut database = self.database.write();
        // Two of them cannot have the file at once.
        *database = None;
        *database = Some(builder().open(&self.path).map_err(|why| LedgerFault::NotWritten(text(&why)))?);
        Ok(())
    }

    /// Makes the rows durable, all or none.
    pub(super) fn commit(&self, rows: &[Row]) -> Result<(), LedgerFault> {
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(|| LedgerFault::NotWritten("it is not open".into()))?;
        write(database, rows).map_err(|why| LedgerFault::NotWritten(text(&why)))
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, LedgerFault> {
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(|| LedgerFault::NotRead("it is not open".into()))?;
        let read = || -> Result<Option<Arc<[u8]>>, redb::Error> {
            let reading = database.begin_read()?;
            let rows = reading.open_table(definition(table))?;
            let Some(value) = rows.get(key)? else { return Ok(None) };
            checked(table, key, value.value()).map(|value| Some(Arc::from(value)))
        };
        read().map_err(|why| LedgerFault::NotRead(text(&why)))
    }

    pub(super) fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), LedgerFault> {
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(|| LedgerFault::NotRead("it is not open".into()))?;
        let mut read = || -> Result<(), redb::Error> {
            let reading = database.begin_read()?;
            let rows = reading.open_table(definition(table))?;
            for row in rows.range(from..)? {
                let (key, value) = row?;
                if visit(key.value(), checked(table, key.value(), value.value())?).is_break() {
                    break;
                }
            }
            Ok(())
        };
        read().map_err(|why| LedgerFault::NotRead(text(&why)))
    }

    pub(super) fn len(&self, table: Table) -> Result<u64, LedgerFault> {
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(|| LedgerFault::NotRead("it is not open".into()))?;
        let read = || -> Result<u64, redb::Error> {
            Ok(database.begin_read()?.open_table(definition(table))?.len()?)
        };
        read().map_err(|why| LedgerFault::NotRead(text(&why)))
    }
}

/// The redb table.
pub(super) const fn definition(table: Table) -> Definition {
    TableDefinition::new(table.name())
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(limits::LEDGER_CACHE_BYTES);
    builder
}

/// Commits rows in one transaction.
pub(super) fn write(database: &Database, rows: &[Row]) -> Result<(), redb::Error> {
    let mut writing = database.begin_write()?;
    // Opening after a crash then costs nothing, however large the file is.
    writing.set_quick_repair(true);
    for table in Table::ALL {
        let mut of_table = rows.iter().filter(|row| row.place().0 == table).peekable();
        if of_table.peek().is_none() {
            continue;
        }
        let mut open = writing.open_table(definition(table))?;
        for row in of_table {
            match row {
                Row::Put { key, value, .. } => {
                    let mut sealed = Vec::with_capacity(CHECKSUM_BYTES + value.len());
                    sealed.extend_from_slice(&checksum(table, key, value));
                    sealed.extend_from_slice(value);
                    open.insert(key.as_slice(), sealed.as_slice())?;
                }
                Row::Delete { key, .. } => {
                    open.remove(key.as_slice())?;
                }
            }
        }
    }
    writing.commit()?;
    Ok(())
}

/// The value of a row, if its checksum holds.
fn checked<'r>(table: Table, key: &[u8], sealed: &'r [u8]) -> Result<&'r [u8], redb::Error> {
    let value = sealed.split_at_checked(CHECKSUM_BYTES);
    let held = value.filter(|(sum, value)| *sum == checksum(table, key, value));
    held.map(|(_, value)| value).ok_or_else(|| {
        redb::Error::Corrupted(format!("a row of the table `{}` is not what was written", table.name()))
    })
}

fn checksum(table: Table, key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(table.name().as_bytes());
    context.update(&u64::try_from(key.len()).unwrap_or(u64::MAX).to_le_bytes());
    context.update(key);
    context.update(value);
    let mut sum = [0; CHECKSUM_BYTES];
    for (to, from) in sum.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    sum
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the type says that there will be more")]
fn refused(path: &Path, why: redb::DatabaseError) -> OpenFault {
    let path = path.to_owned();
    match why {
        redb::DatabaseError::DatabaseAlreadyOpen => OpenFault::InUse { path },
        redb::DatabaseError::Storage(redb::StorageError::Io(why))
            if why.kind() != std::io::ErrorKind::InvalidData =>
        {
            OpenFault::Io { path, why: why.to_string() }
        }
        why => OpenFault::Corrupt { path, why: why.to_string() },
    }
}

fn text(why: &impl ToString) -> Arc<str> {
    Arc::from(why.to_string())
}
