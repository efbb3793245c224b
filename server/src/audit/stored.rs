//! Records as they lie on disk, for commands: directories of logs, single segments, and JSON Lines, read as one stream.
//!
//! A node may be writing the last segment: what is not whole is not there yet. What is missing between two records of a directory is told
//! as a gap. Limits: one block, or one line of `LINE_BYTES_MAX`, at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use cardea_proto::v1;
use prost::Message as _;
use thiserror::Error;

use super::log::Scan;
use super::record::gap;

/// Longest line, in bytes: a record of the longest in JSON, with room.
pub const LINE_BYTES_MAX: u64 = 1 << 20;

/// Why something cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {what}")]
pub struct Unreadable {
    /// The file, and the line or the record in it.
    pub place: String,
    /// What is wrong, and what to do.
    pub what: String,
}

/// See the module.
pub struct Stored {
    paths: VecDeque<PathBuf>,
    open: Option<Open>,
    /// The number that the next record of this directory has; `None`: it is the first.
    next: Option<u64>,
    held: Option<v1::Record>,
    is_broken: bool,
}

enum Open {
    Log(PathBuf, Scan),
    Lines(PathBuf, BufReader<File>, u64),
}

impl Stored {
    /// Opens directories and files, in that order.
    ///
    /// # Errors
    /// One cannot be read, or is a directory without segments.
    pub fn open(paths: &[PathBuf]) -> Result<Self, Unreadable> {
        for path in paths.iter().filter(|path| path.is_dir()) {
            let scan =
                Scan::open(path).map_err(|error| unreadable(path, format!("cannot be read: {error}")))?;
            if scan.is_empty() {
                let what = "holds no segments (*.log); name the directory in `audit.dir` of a node";
                return Err(unreadable(path, what));
            }
        }
        let paths = paths.iter().cloned().collect();
        Ok(Self { paths, open: None, next: None, held: None, is_broken: false })
    }

    fn read(&mut self) -> Result<Option<v1::Record>, Unreadable> {
        loop {
            let read = match &mut self.open {
                None => {
                    let Some(path) = self.paths.pop_front() else { return Ok(None) };
                    self.next = None;
                    self.open = Some(Open::new(path)?);
                    continue;
                }
                Some(Open::Log(path, scan)) => from_log(path, scan)?,
                Some(Open::Lines(path, file, number)) => from_line(path, file, number)?,
            };
            match read {
                Some(record) => return Ok(Some(record)),
                None => self.open = None,
            }
        }
    }
}

impl Open {
    fn new(path: PathBuf) -> Result<Self, Unreadable> {
        let is_segment = |path: &Path| {
            let name = path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
            name.ends_with(".log") || name.ends_with(".log.zst")
        };
        let opened = |error| unreadable(&path, format!("cannot be opened: {error}"));
        if path.is_dir() || is_segment(&path) {
            let scan = Scan::open(&path).map_err(opened)?;
            return Ok(Self::Log(path, scan));
        }
        let file = File::open(&path).map_err(opened)?;
        Ok(Self::Lines(path, BufReader::new(file), 0))
    }
}

fn from_log(path: &Path, scan: &mut Scan) -> Result<Option<v1::Record>, Unreadable> {
    match scan.read() {
        Ok(Some((sequence, bytes))) => v1::Record::decode(bytes).map(Some).map_err(|why| {
            unreadable(path, format!("record {sequence} is none that this version knows: {why}"))
        }),
        Ok(None) => Ok(None),
        Err(why) => Err(unreadable(path, format!("{why}; `cardea audit verify` tells more"))),
    }
}

fn from_line(
    path: &Path,
    file: &mut BufReader<File>,
    number: &mut u64,
) -> Result<Option<v1::Record>, Unreadable> {
    let mut line = Vec::new();
    *number += 1;
    let fault = |what: String| Unreadable { place: format!("{}:{number}", path.display()), what };
    let read = file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
    let read = read.map_err(|error| fault(format!("cannot be read: {error}")))?;
    if !line.ends_with(b"\n") {
        let is_long = u64::try_from(read).is_ok_and(|read| read >= LINE_BYTES_MAX);
        return if is_long {
            Err(fault(format!("the line has more than {LINE_BYTES_MAX} bytes")))
        } else {
            Ok(None)
        };
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|error| fault(format!("{error}; a line is a record of a node's audit")))
}

fn unreadable(path: &Path, what: impl Into<String>) -> Unreadable {
    Unreadable { place: path.display().to_string(), what: what.into() }
}

impl Iterator for Stored {
    type Item = Result<v1::Record, Unreadable>;

    /// Nothing comes after a fault.
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(held) = self.held.take() {
            return Some(Ok(held));
        }
        if self.is_broken {
            return None;
        }
        let record = match self.read() {
            Ok(record) => record?,
            Err(fault) => {
                self.is_broken = true;
                return Some(Err(fault));
            }
        };
        let missing = self.next.map_or(0, |next| record.sequence.saturating_sub(next));
        self.next = Some(record.sequence.saturating_add(1));
        if missing == 0 {
            return Some(Ok(record));
        }
        let gap = gap(missing, v1::gap_record::Cause::Unspecified);
        let told = v1::Record { sequence: record.sequence, time: record.time, entry: Some(gap) };
        self.held = Some(record);
        Some(Ok(told))
    }
}
