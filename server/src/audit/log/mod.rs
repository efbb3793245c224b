//! The log on disk: records as bytes, in order, in segments of checked blocks, under a Merkle tree whose root is signed.
//!
//! ```text
//! Batch -> segment (.log) -> hashes (tree/) -> sync -> checkpoint, signed        closed segment -> packed (.log.zst)
//! ```
//!
//! Owns: one directory, by one process. It knows nothing of what records say.
//! Promises: sequence numbers rise by one from 1 and are never given twice; a checkpoint is signed only for records that survive a crash of
//! the machine, and each agrees with all before it; what a kill left half-written is cut off, what anybody else changed is told and
//! never gone on with. INVARIANT (never forked): the log that is opened begins with the log that was last signed.
//! Limits: those of blocks; a segment ends at the first tile boundary beyond its size.

mod block;
mod cursor;
mod files;
mod pack;
mod retain;
mod scan;
mod segment;
mod tree;
mod verify;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use cardea_tlog::{BadCheckpoint, Checkpoint, Hash, Signer, root};
use thiserror::Error;

use block::Header;
use files::Name;
use segment::{Blocks, Writing};
use tree::{Tree, ends_tile};

pub use block::BadBlock;
pub(super) use block::RECORD_BYTES_MAX;
pub use cursor::BadRead;
pub(super) use cursor::Cursor;
pub(super) use files::{CHECKPOINT, of_sinks as files_of_sinks, replace};
pub(super) use pack::pack;
pub use retain::Keep;
pub(super) use retain::{kept_from, let_go};
pub(super) use scan::Scan;
pub use segment::BadSegment;
pub(super) use tree::Hashes;
pub use verify::{Finding, Verified, verify};

/// Records on their way to the disk: one block.
#[derive(Debug)]
pub(super) struct Batch {
    first: u64,
    payload: Vec<u8>,
    leaves: Vec<Hash>,
}

/// Why a directory cannot be written on.
#[derive(Debug, Error)]
pub enum BadLog {
    /// Another process writes here.
    #[error("another process holds the audit directory `{}`; one process writes one directory", .0.display())]
    InUse(PathBuf),
    /// A segment is not what was written.
    #[error("audit segment `{}` is damaged: {why}; `cardea audit verify` tells more. Move the directory away to keep it as evidence and begin a new one, or put back a copy", .file.display())]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The log is not the one that was signed.
    #[error("the audit log in `{}` is not the one that was signed: {why}; `cardea audit verify` tells more. Move the directory away to keep it as evidence and begin a new one, or put back a copy", .dir.display())]
    Forked {
        /// The directory.
        dir: PathBuf,
        /// What differs.
        why: String,
    },
    /// The checkpoint is another key's, or none.
    #[error("the checkpoint in `{}` cannot be relied on: {why}; give the key that signed it, or move the directory away and begin a new one", .dir.display())]
    Checkpoint {
        /// The directory.
        dir: PathBuf,
        /// Why.
        why: BadCheckpoint,
    },
    /// The file system refused.
    #[error("cannot {action} `{}`", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// How a log was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Sequence number that the next record gets.
    pub(super) next: u64,
    /// The process that wrote before ended without closing; records that it had not written are gone.
    pub(super) is_unclean: bool,
}

/// See the module.
pub(super) struct Log {
    dir: PathBuf,
    segment_bytes_max: u64,
    signer: Signer,
    segment: Option<Writing>,
    /// The record after those that are in segments.
    next: u64,
    tree: Tree,
    /// Size of the newest checkpoint.
    signed: u64,
    /// First records of the segments that are closed and not packed.
    unpacked: Vec<u64>,
    _lock: File,
}

impl Log {
    /// Takes a directory, and goes on where it ends.
    ///
    /// # Errors
    /// See [`BadLog`]; nothing is changed on disk unless the directory is ours.
    pub(super) fn open(dir: &Path, segment_bytes_max: u64, signer: Signer) -> Result<(Self, Found), BadLog> {
        fs::create_dir_all(dir).map_err(|source| io_error("create", dir, source))?;
        let lock = lock(dir)?;
        let io = |source| io_error("read", dir, source);
        remove_leftovers(dir).map_err(io)?;
        let checkpoint = checkpoint(dir, &signer)?;
        let names = files::segments(dir).map_err(io)?;
        let signed = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        let recovered = match names.last() {
            Some(name) => recover(dir, *name, signed)?,
            None => Recovered { first: 1, next: 1, leaves: Vec::new(), bytes: None },
        };
        let mut tree = Tree::open(dir, recovered.first - 1)
            .map_err(|source| io_error("read the hashes in", &dir.join(files::TREE), source))?;
        recovered.leaves.into_iter().for_each(|leaf| tree.push(leaf));
        tree.write().map_err(|source| io_error("write the hashes in", &dir.join(files::TREE), source))?;
        if let Some(checkpoint) = &checkpoint {
            agrees(dir, checkpoint, tree.size())?;
        }
        let closed = closed_at(dir).map_err(io)?;
        let segment = recovered.bytes.map(|bytes| Writing::resume(dir, recovered.first, bytes)).transpose();
        let segment = segment.map_err(|source| io_error("write", dir, source))?;
        let is_last = |name: &Name| name.first == recovered.first;
        let unpacked = names.iter().filter(|name| !name.is_packed && !is_last(name)).map(|name| name.first);
        let next = recovered.next;
        let log = Self {
            dir: dir.to_owned(),
            segment_bytes_max,
            signer,
            segment,
            next,
            tree,
            signed,
            unpacked: unpacked.collect(),
            _lock: lock,
        };
        Ok((log, Found { next, is_unclean: next > 1 && closed != Some(next - 1) }))
    }

    /// Appends a batch: all of it, or an error, and the same may be tried again.
    pub(super) fn append(&mut self, batch: &Batch) -> io::Result<()> {
        let after = batch.first + batch.leaves.len() as u64;
        if self.next == batch.first {
            self.write(batch)?;
            self.next = after;
        }
        if self.tree.size() + 1 == batch.first {
            batch.leaves.iter().for_each(|leaf| self.tree.push(*leaf));
        }
        self.tree.write()
    }

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        if let Some(segment) = &self.segment
            && self.is_full()
            && ends_tile(batch.first - 1)
        {
            segment.sync()?;
            self.tree.sync()?;
            self.unpacked.push(segment.first());
            self.segment = None;
        }
        let segment = match &mut self.segment {
            Some(segment) => segment,
            None => self.segment.insert(Writing::begin(&self.dir, batch.first)?),
        };
        let records = u32::try_from(batch.leaves.len()).map_err(io::Error::other)?;
        segment.append(&Header::of(batch.first, records, &batch.payload, None), &batch.payload)
    }

    /// Whether the open segment is as large as it should get: it ends with the tile in hand.
    pub(super) fn is_full(&self) -> bool {
        self.segment.as_ref().is_some_and(|segment| segment.bytes() >= self.segment_bytes_max)
    }

    /// Makes what was appended survive a crash of the machine.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.segment.as_ref().map_or(Ok(()), Writing::sync)
    }

    /// Signs the log as it stands, if anything was appended since. Only after [`Self::sync`].
    pub(super) fn sign(&mut self) -> io::Result<()> {
        let size = self.tree.size();
        if size == self.signed {
            return Ok(());
        }
        let origin = self.signer.verifier().name().to_owned();
        let checkpoint = Checkpoint { origin, size, root: self.tree.root(), extensions: Vec::new() };
        let note = checkpoint.sign(&self.signer);
        let path = self.dir.join(CHECKPOINT);
        let written = replace(&path, note.as_bytes(), true);
        written.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot write `{}`: {error}", path.display()))
        })?;
        self.signed = size;
        Ok(())
    }

    /// Signs, and marks the log as closed in order. Nothing may be appended after that.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.sync()?;
        self.tree.sync()?;
        self.sign()?;
        replace(&self.dir.join(files::CLOSED), self.tree.size().to_string().as_bytes(), true)
    }

    /// First record of a segment that is closed and waits to be packed, each once.
    pub(super) fn take_unpacked(&mut self) -> Option<u64> {
        (!self.unpacked.is_empty()).then(|| self.unpacked.remove(0))
    }
}

impl Batch {
    /// One whose first record gets this sequence number.
    pub(super) const fn new(first: u64) -> Self {
        Self { first, payload: Vec::new(), leaves: Vec::new() }
    }

    /// Adds a record of at most [`RECORD_BYTES_MAX`] bytes.
    pub(super) fn push(&mut self, record: &[u8]) {
        debug_assert!(record.len() <= RECORD_BYTES_MAX, "the caller bounds records");
        self.leaves.push(Hash::leaf(record));
        block::push(&mut self.payload, record);
    }

    /// Sequence number of the next record.
    pub(super) fn next(&self) -> u64 {
        self.first + self.records()
    }

    /// How many there are.
    pub(super) fn records(&self) -> u64 {
        self.leaves.len() as u64
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        self.payload.len()
    }

    /// Whether the next record would begin a tile.
    pub(super) fn ends_tile(&self) -> bool {
        ends_tile(self.next() - 1)
    }

    /// Begins the next one.
    pub(super) fn clear(&mut self) {
        self.first = self.next();
        self.payload.clear();
        self.leaves.clear();
    }
}

/// What the last segment holds.
struct Recovered {
    first: u64,
    next: u64,
    leaves: Vec<Hash>,
    /// Where it is to be gone on with; `None`: it is packed, and the next one begins.
    bytes: Option<u64>,
}

/// Reads the last segment, checks it against the hashes there are, and finds where it ends.
fn recover(dir: &Path, name: Name, signed: u64) -> Result<Recovered, BadLog> {
    let damaged = |why: String| BadLog::Damaged { file: name.path(dir), why };
    let mut hashes = Hashes::open(dir);
    let known = hashes.len(0).map_err(|source| io_error("read the hashes in", dir, source))?;
    let mut recovered = Recovered { first: name.first, next: name.first, leaves: Vec::new(), bytes: Some(0) };
    let mut blocks = match Blocks::open(dir, name) {
        Ok(blocks) => blocks,
        // Nothing was written after its name.
        Err(BadSegment::Torn(0)) if signed < name.first => {
            return Ok(Recovered { bytes: None, ..recovered });
        }
        Err(BadSegment::Io(source)) => return Err(io_error("read", &name.path(dir), source)),
        Err(why) => return Err(damaged(why.to_string())),
    };
    loop {
        let block = match blocks.read() {
            Ok(Some(block)) => block,
            Ok(None) => break,
            Err(BadSegment::Io(source)) => return Err(io_error("read", &name.path(dir), source)),
            // What was never signed was never promised to be there.
            Err(why) if blocks.next() > signed && !name.is_packed => {
                tracing::warn!(segment = %name.path(dir).display(), %why, next = blocks.next(), "cut off what a crash left");
                break;
            }
            Err(why) => return Err(damaged(why.to_string())),
        };
        let records =
            block::records(&block.payload, block.records).map_err(|why| damaged(why.to_string()))?;
        for record in records {
            let leaf = Hash::leaf(record);
            let index = recovered.next - 1;
            let is_known = index < known && index < signed;
            if is_known
                && hashes.hash(0, index).map_err(|source| io_error("read the hashes in", dir, source))?
                    != leaf
            {
                return Err(damaged(format!("record {} is not the one that was hashed", recovered.next)));
            }
            recovered.leaves.push(leaf);
            recovered.next += 1;
        }
    }
    recovered.bytes = (!name.is_packed).then(|| blocks.at());
    Ok(recovered)
}

/// Whether the log begins with what was signed.
fn agrees(dir: &Path, checkpoint: &Checkpoint, size: u64) -> Result<(), BadLog> {
    let forked = |why: String| BadLog::Forked { dir: dir.to_owned(), why };
    if size < checkpoint.size {
        return Err(forked(format!("{} records were signed, and {size} are there", checkpoint.size)));
    }
    let root = root(checkpoint.size, &mut Hashes::open(dir))
        .map_err(|source| io_error("read the hashes in", &dir.join(files::TREE), source))?;
    if root == checkpoint.root {
        Ok(())
    } else {
        Err(forked(format!("the root of its first {} records is another", checkpoint.size)))
    }
}

/// First records of the segments in a directory, in order.
pub(super) fn firsts(dir: &Path) -> io::Result<Vec<u64>> {
    Ok(files::segments(dir)?.into_iter().map(|name| name.first).collect())
}

fn checkpoint(dir: &Path, signer: &Signer) -> Result<Option<Checkpoint>, BadLog> {
    let path = dir.join(CHECKPOINT);
    let note = match fs::read_to_string(&path) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("read", &path, source)),
    };
    Checkpoint::open(&note, &[signer.verifier().clone()])
        .map(Some)
        .map_err(|why| BadLog::Checkpoint { dir: dir.to_owned(), why })
}

/// The size at which the log was closed in order, if it was; the mark is taken away.
fn closed_at(dir: &Path) -> io::Result<Option<u64>> {
    let path = dir.join(files::CLOSED);
    let closed = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    fs::remove_file(&path)?;
    files::sync_dir(dir)?;
    Ok(closed)
}

/// Removes what a kill left: files that were being made, and stored forms of packed segments.
fn remove_leftovers(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(path)?;
        }
    }
    for name in files::segments(dir)?.into_iter().filter(|name| name.is_packed) {
        let stored = Name { is_packed: false, ..name }.path(dir);
        if stored.exists() {
            fs::remove_file(stored)?;
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, BadLog> {
    let path = dir.join(files::LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|source| io_error("open", &path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BadLog::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path, source)),
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> BadLog {
    BadLog::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
