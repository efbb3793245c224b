//! The bundles that a node keeps on disk: the one in force, those before it, and how far revisions have risen.
//!
//! ```text
//! lock                     held while a process uses the store
//! state.json               which bundle is in force, and the floor: the highest revision ever in force
//! bundles/DIGEST.cardea    packed bundles, by the digest of their archive
//! ```
//!
//! INVARIANT (whole at any moment): a file is written under another name, made durable, and renamed; a bundle is there
//! before `state.json` names it. Whenever the process ends, what `state.json` names is whole.
//! INVARIANT (floor rises): the floor never falls, across restarts. What lies below it does not come into force again.
//! Limits: as many bundles as the configuration keeps. Never believes what it reads: the caller verifies it again.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::pack::{EXTENSION, PACKED_BYTES_MAX, Packed};

const STATE: &str = "state.json";
const STATE_FORMAT: u32 = 1;
/// Largest `state.json` that is read; it has about 300 bytes.
const STATE_BYTES_MAX: u64 = 64 * 1024;

/// The store's directory, locked for this process.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    _lock: File,
    state: State,
    #[cfg(test)]
    after: Option<fn(&'static str)>,
}

/// `state.json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: u32,
    floor: u64,
    in_force: Option<InForce>,
}

/// The bundle in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InForce {
    /// The revision that it serves under.
    pub revision: u64,
    /// Which bundle.
    pub digest: Digest,
    /// The revision in its own manifest, if this node went back to it under a higher one.
    pub rollback_of: Option<u64>,
}

/// Why the store cannot be used, or something not be kept in it.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The operating system refused something.
    #[error("`{path}` cannot be {what}: {error}")]
    Io {
        /// What should have happened.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Another process uses the store.
    #[error("the bundle store `{0}` is in use by another process: give each node a store of its own")]
    Locked(PathBuf),
    /// `state.json` cannot be read.
    #[error(
        "`{path}` is damaged ({why}), so it is not known how far revisions have risen; restore it, or remove it to start with no floor"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A revision that does not rise above the floor.
    #[error("revision {offered} is not higher than {floor}, the highest that was ever in force here")]
    BelowFloor {
        /// The revision.
        offered: u64,
        /// The floor.
        floor: u64,
    },
}

impl Disk {
    /// Opens the store, making it if it is not there, and locks it.
    ///
    /// # Errors
    /// When it cannot be made, locked or read.
    pub fn open(root: &Path) -> Result<Self, DiskError> {
        let bundles = root.join("bundles");
        fs::create_dir_all(&bundles).map_err(|error| failed("made", &bundles, error))?;
        let path = root.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|error| failed("opened", &path, error))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => DiskError::Locked(root.to_owned()),
            TryLockError::Error(error) => failed("locked", &path, error),
        })?;
        let state = read_state(&root.join(STATE))?;
        let disk = Self {
            root: root.to_owned(),
            _lock: lock,
            state,
            #[cfg(test)]
            after: None,
        };
        disk.sweep();
        Ok(disk)
    }

    /// The highest revision that was ever in force.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.state.floor
    }

    /// The bundle in force.
    #[must_use]
    pub fn in_force(&self) -> Option<InForce> {
        self.state.in_force
    }

    /// Keeps a bundle, without putting it in force.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub fn keep(&self, packed: &Packed) -> Result<(), DiskError> {
        let path = self.path(packed.digest());
        if fs::read(&path).is_ok_and(|there| there == packed.bytes()) {
            return Ok(());
        }
        self.replace(&path, packed.bytes())?;
        self.passed("kept");
        Ok(())
    }

    /// Puts a bundle that is kept in force; after this returns it is what a restart serves.
    ///
    /// # Errors
    /// When its revision does not rise, or this cannot be made durable.
    pub fn commit(&mut self, in_force: InForce) -> Result<(), DiskError> {
        let State { floor, .. } = self.state;
        if in_force.revision <= floor {
            return Err(DiskError::BelowFloor { offered: in_force.revision, floor });
        }
        let state = State { format: STATE_FORMAT, floor: in_force.revision, in_force: Some(in_force) };
        let json = serde_json::to_vec_pretty(&state).unwrap_or_default();
        self.replace(&self.root.join(STATE), &json)?;
        self.state = state;
        self.passed("committed");
        Ok(())
    }

    /// Reads a bundle that is kept; `None` if it is not.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(&self, digest: Digest) -> Result<Option<Vec<u8>>, DiskError> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(meta) if meta.len() > PACKED_BYTES_MAX as u64 => {
                Err(failed("read", &path, io::Error::new(io::ErrorKind::FileTooLarge, "it is too large")))
            }
            Ok(_) => fs::read(&path).map(Some).map_err(|error| failed("read", &path, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, error)),
        }
    }

    /// Digests of all bundles that are kept, the one kept last first.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn kept(&self) -> Result<Vec<Digest>, DiskError> {
        let dir = self.root.join("bundles");
        let unreadable = |error| failed("read", &dir, error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()?.parse::<Digest>().ok());
            let Some(digest) = name.filter(|_| path.extension().is_some_and(|of| of == EXTENSION)) else {
                continue;
            };
            let at = fs::metadata(&path).and_then(|meta| meta.modified()).ok();
            found.push((at, digest));
        }
        found.sort();
        Ok(found.into_iter().rev().map(|(_, digest)| digest).collect())
    }

    /// Removes the oldest bundles beyond `most`, never one of `needed`.
    pub fn prune(&self, most: usize, needed: &[Digest]) {
        let in_force = self.state.in_force.map(|in_force| in_force.digest);
        let kept = self.kept().unwrap_or_default();
        let spare = kept.into_iter().skip(most);
        for digest in spare.filter(|digest| Some(*digest) != in_force && !needed.contains(digest)) {
            // One that cannot be removed now is tried again next time.
            let _left = fs::remove_file(self.path(digest));
        }
        self.passed("pruned");
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.root.join("bundles").join(format!("{digest}.{EXTENSION}"))
    }

    /// Writes a file so that at any moment the old or the new content is there, whole.
    fn replace(&self, path: &Path, content: &[u8]) -> Result<(), DiskError> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        let unwritable = |error| failed("written", &new, error);
        let mut file = File::create(&new).map_err(unwritable)?;
        let (first, second) = content.split_at(content.len() / 2);
        file.write_all(first).map_err(unwritable)?;
        self.passed("half written");
        file.write_all(second).map_err(unwritable)?;
        self.passed("written");
        file.sync_all().map_err(unwritable)?;
        self.passed("synced");
        fs::rename(&new, path).map_err(|error| failed("put in place", path, error))?;
        self.passed("renamed");
        let dir = path.parent().unwrap_or(&self.root);
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| failed("made durable", path, error))?;
        self.passed("durable");
        Ok(())
    }

    /// Removes what an earlier process left half written.
    fn sweep(&self) {
        for dir in [self.root.clone(), self.root.join("bundles")] {
            let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
            for path in entries.map(|entry| entry.path()) {
                if path.extension().is_some_and(|extension| extension == "new") {
                    let _left = fs::remove_file(path);
                }
            }
        }
    }

    /// A place where a test may end the process.
    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, clippy::missing_const_for_fn, reason = "tests stop here")
    )]
    fn passed(&self, _step: &'static str) {
        #[cfg(test)]
        if let Some(after) = self.after {
            after(_step);
        }
    }
}

fn read_state(path: &Path) -> Result<State, DiskError> {
    let damaged = |why: String| DiskError::Damaged { path: path.to_owned(), why };
    let json = match fs::metadata(path) {
        Ok(meta) if meta.len() > STATE_BYTES_MAX => return Err(damaged("it is too large".to_owned())),
        Ok(_) => fs::read(path).map_err(|error| failed("read", path, error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(State { format: STATE_FORMAT, floor: 0, in_force: None });
        }
        Err(error) => return Err(failed("read", path, error)),
    };
    let state: State = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
    match state {
        State { format, .. } if format != STATE_FORMAT => Err(damaged(format!("its format is {format}"))),
        State { floor, in_force: Some(in_force), .. } if in_force.revision != floor => {
            Err(damaged("its floor is not the revision in force".to_owned()))
        }
        state => Ok(state),
    }
}

fn failed(what: &'static str, path: &Path, error: io::Error) -> DiskError {
    DiskError::Io { what, path: path.to_owned(), error }
}

#[cfg(test)]
mod tests;
