//! The segments on disk: files of JSON Lines, named by the sequence number of their first record
//! (`00000000000000000001.jsonl`), and the lock that keeps the directory to one process.
//!
//! Owns: the open segment, its known-good length, the lock file.
//! Limits: a segment is closed before it would pass `segment_bytes_max`; the first write into it always fits.
//! Never does: leave half a write in the middle of a segment (what a failed write left is cut off before the
//! next), trust a segment that somebody removed, or remove one itself.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{
    OpenError,
    record::{LINE_BYTES_MAX, Record},
};

const LOCK_NAME: &str = "LOCK";
const SUFFIX: &str = ".jsonl";

/// Digits of a sequence number in a file name; enough for every `u64`, so that names sort by number.
const NAME_DIGITS: usize = 20;

/// Where the writer puts its batches.
pub(super) trait Disk: Send + 'static {
    /// Appends whole lines, the first with this sequence number: all of them, or an error and the caller
    /// tries the same again.
    fn append(&mut self, first_sequence: u64, lines: &[u8]) -> io::Result<()>;

    /// Makes what was appended survive a crash of the machine.
    fn sync(&mut self) -> io::Result<()>;
}

/// The directory, ours alone.
pub(super) struct Segments {
    dir: PathBuf,
    segment_bytes_max: u64,
    current: Option<Current>,
    /// Held while the directory is ours; given up when the directory turns out to be gone.
    lock: Option<File>,
}

/// The segment that is written.
struct Current {
    file: File,
    /// INVARIANT (whole lines): the file up to here is whole lines, all acknowledged to the writer.
    bytes: u64,
    /// A write failed: there may be a part of it beyond `bytes`.
    torn: bool,
    /// The name may not be in the directory yet, as far as a crash of the machine goes.
    unnamed: bool,
}

impl Segments {
    /// Takes the directory and makes the last segment ready; also returns the next sequence number.
    pub(super) fn open(dir: &Path, segment_bytes_max: u64) -> Result<(Self, u64), OpenError> {
        fs::create_dir_all(dir).map_err(|source| io_error("create", dir, source))?;
        let lock = lock(dir)?;
        let mut segments = Self { dir: dir.to_owned(), segment_bytes_max, current: None, lock: Some(lock) };
        let firsts = list(dir).map_err(|source| io_error("list", dir, source))?;
        let Some(&first) = firsts.last() else { return Ok((segments, 1)) };
        let (current, next_sequence) = recover(&path(dir, first), first)?;
        segments.current = Some(current);
        Ok((segments, next_sequence))
    }

    /// As if a write had failed half-way.
    #[cfg(test)]
    pub(super) fn tear(&mut self) {
        self.current.iter_mut().for_each(|current| current.torn = true);
    }

    /// The segment for a write of this size, rotated or begun if need be.
    fn room_for(&mut self, first_sequence: u64, bytes: u64) -> io::Result<&mut Current> {
        if let Some(current) = &self.current
            && current.bytes > 0
            && current.bytes + bytes > self.segment_bytes_max
        {
            current.file.sync_all()?;
            self.current = None;
        }
        if self.lock.is_none() {
            self.lock = Some(lock(&self.dir).map_err(io::Error::other)?);
        }
        let current = match self.current.take() {
            Some(current) => current,
            None => begin(&path(&self.dir, first_sequence))?,
        };
        let current = self.current.insert(current);
        if current.unnamed {
            File::open(&self.dir)?.sync_all()?;
            current.unnamed = false;
        }
        Ok(current)
    }
}

impl Disk for Segments {
    fn append(&mut self, first_sequence: u64, lines: &[u8]) -> io::Result<()> {
        let current = self.room_for(first_sequence, lines.len() as u64)?;
        if current.torn {
            current.file.set_len(current.bytes)?;
        }
        current.torn = true;
        current.file.write_all(lines)?;
        // A file that was removed still takes writes, which then end nowhere.
        if current.file.metadata()?.nlink() == 0 {
            self.current = None;
            self.lock = None;
            return Err(io::Error::other("the segment was removed, going on in a new one"));
        }
        current.torn = false;
        current.bytes += lines.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.current.as_ref().map_or(Ok(()), |current| current.file.sync_all())
    }
}

/// First sequence numbers of the segments in a directory, in order.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(dir)? {
        firsts.extend(entry?.file_name().to_str().and_then(first_of));
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Where the segment lies whose first record has this sequence number.
pub(super) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}{SUFFIX}"))
}

/// Reads one line into `line`, without its line end. False at the end of the file, and for a line that has no
/// end yet: then `line` holds what there is of it.
pub(super) fn read_line(file: &mut impl io::BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    file.take(LINE_BYTES_MAX as u64).read_until(b'\n', line)?;
    Ok(line.pop_if(|last| *last == b'\n').is_some())
}

fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    if digits.len() != NAME_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|&first| first > 0)
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK_NAME);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| io_error("open", &path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path, source)),
    }
}

/// Begins a segment. One of this name that is empty is left over from an earlier try.
fn begin(path: &Path) -> io::Result<Current> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let bytes = file.metadata()?.len();
    if bytes > 0 {
        return Err(io::Error::other(format!("`{}` is already there", path.display())));
    }
    Ok(Current { file, bytes, torn: false, unnamed: true })
}

/// Checks every line of the last segment, and cuts off the last one if it was not written whole.
fn recover(path: &Path, first: u64) -> Result<(Current, u64), OpenError> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .open(path)
        .map_err(|source| io_error("open", path, source))?;
    let (mut bytes, mut next, mut line) = (0, first, Vec::new());
    let mut reader = BufReader::new(&file);
    while read_line(&mut reader, &mut line).map_err(|source| io_error("read", path, source))? {
        check_line(&line, next).map_err(|why| corrupt(path, next - first + 1, why))?;
        bytes += line.len() as u64 + 1;
        next += 1;
    }
    if line.len() >= LINE_BYTES_MAX {
        return Err(corrupt(path, next - first + 1, format!("longer than {LINE_BYTES_MAX} bytes")));
    }
    if !line.is_empty() {
        tracing::warn!(segment = %path.display(), bytes = line.len(), next, "cut off a torn last line");
        file.set_len(bytes).map_err(|source| io_error("cut", path, source))?;
    }
    Ok((Current { file, bytes, torn: false, unnamed: false }, next))
}

/// Parses one line that must hold this sequence number.
pub(super) fn check_line(line: &[u8], sequence: u64) -> Result<Record, String> {
    let record: Record = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if record.sequence == sequence {
        Ok(record)
    } else {
        Err(format!("sequence {} where {sequence} belongs", record.sequence))
    }
}

fn corrupt(path: &Path, line: u64, why: String) -> OpenError {
    OpenError::Corrupt { file: path.to_owned(), line, why }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { action, path: path.to_owned(), source }
}
