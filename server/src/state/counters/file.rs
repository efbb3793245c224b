//! The snapshot of what is counted, in one file beside the store.
//!
//! Written under another name, made durable and renamed, so that it is whole at any moment; a SHA-256 stands before it. It says
//! whether the process ended in order after it: then it holds all, and a counter that was warm stays so, as nobody could attempt
//! anything meanwhile. A start after any other end has lost what happened since: what the file holds counts, and no counter is
//! warm before it has counted for a whole window again.
//! Never does: keeping reservations' tokens. What was reserved counts once its time is over.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::Ordering;

use cardea_core::counters::{Part, Window};
use cardea_core::time::Now;
use cardea_policy_store::counters::Definition;
use cardea_policy_store::digest::Digest;
use prost::Message;

use super::table::{Key, Subject};
use super::{Counters, Running, millis};
use crate::state::rows;

/// Its name in the directory of the state.
pub(super) const FILE: &str = "counters";
const MAGIC: &[u8; 8] = b"cardea.1";
const DIGEST_BYTES: usize = 32;

/// What a start found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// No file: nothing was counted yet, or it was taken away.
    Nothing,
    /// Everything, as the process left it: so many windows.
    Everything(usize),
    /// So many windows, and not what was counted after them, in milliseconds before this start.
    UpTo(usize, u64),
}

/// A file that is no snapshot of counters, or not a whole one.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The system does not give it.
    #[error("the snapshot of the counters cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("the snapshot of the counters is not what was written")]
    Damaged,
}

#[derive(Clone, PartialEq, Message)]
struct SnapshotFile {
    #[prost(uint64, tag = "1")]
    at_ms: u64,
    #[prost(bool, tag = "2")]
    is_last: bool,
    #[prost(message, repeated, tag = "3")]
    counters: Vec<CounterRow>,
    #[prost(message, repeated, tag = "4")]
    windows: Vec<WindowRow>,
}

#[derive(Clone, PartialEq, Message)]
struct CounterRow {
    #[prost(bytes = "vec", tag = "1")]
    definition: Vec<u8>,
    #[prost(uint64, tag = "2")]
    window_ms: u64,
    #[prost(uint64, tag = "3")]
    since_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
struct WindowRow {
    /// Place in `counters`.
    #[prost(uint32, tag = "1")]
    counter: u32,
    /// A session, task or tenant.
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
    /// An entity: its type, then its id.
    #[prost(string, tag = "3")]
    type_name: String,
    #[prost(string, tag = "4")]
    id: String,
    #[prost(uint64, repeated, tag = "5")]
    parts: Vec<u64>,
    #[prost(uint32, repeated, tag = "6")]
    counts: Vec<u32>,
}

impl Counters {
    /// Goes on from the snapshot in that directory, if there is one; before anything is counted. From here on the file says that
    /// the process has not ended in order.
    ///
    /// # Errors
    /// A damaged snapshot, or a disk that does not take the mark: then what is counted begins anew, and nothing is warm.
    pub fn restore(&self, dir: &Path, now: Now) -> Result<Kept, Unreadable> {
        let restored = self.read(dir, now).and_then(|kept| {
            if matches!(kept, Kept::Everything(_)) {
                self.write(dir, false, now)?;
            }
            Ok(kept)
        });
        let is_lost = !matches!(restored, Ok(Kept::Nothing | Kept::Everything(_)));
        if is_lost {
            self.tallies.lost.fetch_add(1, Ordering::Relaxed);
            self.begin_anew(now);
        }
        restored
    }

    /// Writes a snapshot if anything changed; `is_last`: nothing is counted after it.
    pub fn keep(&self, dir: &Path, is_last: bool, now: Now) {
        let has_changed = self.changed.swap(false, Ordering::Relaxed);
        if !has_changed && (!is_last || self.running.load().is_empty()) {
            return;
        }
        if let Err(why) = self.write(dir, is_last, now) {
            self.changed.store(true, Ordering::Relaxed);
            if self.tallies.unwritten.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::error!(%why, "the counters cannot be kept; a restart would lose what was counted");
            }
        }
    }

    /// Nothing was counted up to now, as far as anybody knows.
    fn begin_anew(&self, now: Now) {
        let at_ms = self.at_ms(now);
        let cold =
            self.running.load().iter().map(|running| Running { since_ms: at_ms, ..*running }).collect();
        self.running.store(std::sync::Arc::new(cold));
    }

    fn read(&self, dir: &Path, now: Now) -> Result<Kept, Unreadable> {
        let bytes = match fs::read(dir.join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::Nothing),
            Err(error) => return Err(error.into()),
        };
        let file = unwrapped(&bytes).ok_or(Unreadable::Damaged)?;
        // A clock that stands before the snapshot says nothing of how long the process was away: as if it never had been.
        let mono_ms = millis(now.mono_ns / 1_000_000);
        let _set_once = self.offset_ms.set(now.wall_ms.max(millis(file.at_ms)).saturating_sub(mono_ms));
        let at_ms = self.at_ms(now);
        let counters: Option<Vec<Running>> = file.counters.iter().map(CounterRow::running).collect();
        let counters = counters.ok_or(Unreadable::Damaged)?;
        let mut windows = 0;
        for row in file.windows {
            let running = usize::try_from(row.counter).ok().and_then(|place| counters.get(place));
            let (key, window) =
                running.and_then(|running| row.window(running, at_ms)).ok_or(Unreadable::Damaged)?;
            if !window.is_over() {
                self.table.restore(key, window);
                windows += 1;
            }
        }
        self.running.store(std::sync::Arc::new(counters));
        Ok(match file.is_last {
            true => Kept::Everything(windows),
            false => Kept::UpTo(windows, at_ms.saturating_sub(file.at_ms)),
        })
    }

    fn write(&self, dir: &Path, is_last: bool, now: Now) -> io::Result<()> {
        let at_ms = self.at_ms(now);
        let running = self.running.load_full();
        let places: BTreeMap<Definition, u32> =
            running.iter().map(|running| running.definition).zip(0..).collect();
        let mut windows = Vec::new();
        self.table.each(at_ms, |key, window| {
            // What the bundle in force does not count begins anew should it be counted again.
            if let Some(counter) = places.get(&key.definition) {
                windows.push(WindowRow::of(*counter, key, window));
            }
        });
        let counters = running.iter().map(CounterRow::of).collect();
        let body = SnapshotFile { at_ms, is_last, counters, windows }.encode_to_vec();
        let (path, new) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
        let mut file = private(&new)?;
        file.write_all(MAGIC)?;
        file.write_all(Digest::of(&body).as_bytes())?;
        file.write_all(&body)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()
    }
}

/// It names identities, as the store beside it does.
fn private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn unwrapped(bytes: &[u8]) -> Option<SnapshotFile> {
    let (digest, body) = bytes.strip_prefix(MAGIC)?.split_at_checked(DIGEST_BYTES)?;
    let is_whole = Digest::of(body).as_bytes().as_slice() == digest;
    is_whole.then(|| SnapshotFile::decode(body).ok()).flatten()
}

impl CounterRow {
    fn of(running: &Running) -> Self {
        let Running { definition, window_ms, since_ms } = *running;
        Self { definition: definition.0.to_be_bytes().to_vec(), window_ms, since_ms }
    }

    fn running(&self) -> Option<Running> {
        let definition = <[u8; 16]>::try_from(self.definition.as_slice()).ok()?;
        let definition = Definition(u128::from_be_bytes(definition));
        Some(Running { definition, window_ms: self.window_ms, since_ms: self.since_ms })
    }
}

impl WindowRow {
    fn of(counter: u32, key: &Key, window: &Window) -> Self {
        let (parts, counts) = window.parts().map(|(Part(part), count)| (part, count)).unzip();
        let row = Self { counter, parts, counts, ..Self::default() };
        match &key.subject {
            Subject::Name(name) => Self { name: Some(name.to_string()), ..row },
            Subject::Entity(uid) => Self { type_name: uid.type_text(), id: uid.id().to_owned(), ..row },
        }
    }

    fn window(self, of: &Running, at_ms: u64) -> Option<(Key, Window)> {
        let subject = match self.name {
            Some(name) => Subject::Name(name.into()),
            None => Subject::Entity(rows::entity(&self.type_name, &self.id)?),
        };
        let mut window = Window::new(of.window_ms, at_ms);
        for (part, count) in self.parts.into_iter().zip(self.counts) {
            window.restore(Part(part), count);
        }
        Some((Key { definition: of.definition, subject }, window))
    }
}
