//! Audit segments as they lie on disk, read as a stream of the records that the wire has: of a directory all, in order.
//!
//! A node may be writing the last one: a line without its end is not there yet. Limit: [`LINE_BYTES_MAX`] for each line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use cardea_proto::v1;

use super::Fault;
use crate::audit::record::{LINE_BYTES_MAX, Record};

/// What segments are called.
const SUFFIX: &str = "jsonl";

/// See the module. A record that is not the next of its directory is told as a gap before it.
pub struct Segments {
    files: VecDeque<(PathBuf, bool)>,
    open: Option<(PathBuf, BufReader<File>, u64)>,
    line: Vec<u8>,
    /// The number that the next record of this directory has; `None`: it is the first.
    next: Option<u64>,
    held: Option<v1::Record>,
    is_broken: bool,
}

impl Segments {
    /// Opens files and directories, in that order.
    ///
    /// # Errors
    ///
    /// One cannot be read, or is a directory without segments.
    pub fn open(paths: &[PathBuf]) -> Result<Self, Fault> {
        let mut files = VecDeque::new();
        for path in paths {
            if !path.is_dir() {
                // Somebody may name segments one by one; those of one node follow each other.
                files.push_back((path.clone(), false));
                continue;
            }
            let unread = |error| Fault::of(path, format!("cannot be read: {error}"));
            let mut of_dir = Vec::new();
            for entry in std::fs::read_dir(path).map_err(unread)? {
                let file = entry.map_err(unread)?.path();
                if file.extension().is_some_and(|extension| extension == SUFFIX) {
                    of_dir.push(file);
                }
            }
            if of_dir.is_empty() {
                let what =
                    format!("holds no segments (*.{SUFFIX}); name the directory in `audit.dir` of a node");
                return Err(Fault::of(path, what));
            }
            // Names are numbers of the same length.
            of_dir.sort();
            files.extend(of_dir.into_iter().enumerate().map(|(at, file)| (file, at == 0)));
        }
        Ok(Self { files, open: None, line: Vec::new(), next: None, held: None, is_broken: false })
    }

    fn read(&mut self) -> Result<Option<v1::Record>, Fault> {
        loop {
            let Some((path, file, number)) = &mut self.open else {
                let Some((path, is_first)) = self.files.pop_front() else { return Ok(None) };
                let file = File::open(&path)
                    .map_err(|error| Fault::of(&path, format!("cannot be opened: {error}")))?;
                if is_first {
                    self.next = None;
                }
                self.open = Some((path, BufReader::new(file), 0));
                continue;
            };
            *number += 1;
            self.line.clear();
            let fault = |what: String| Fault { place: format!("{}:{number}", path.display()), what };
            let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX) + 1;
            let read = file.by_ref().take(most).read_until(b'\n', &mut self.line);
            read.map_err(|error| fault(format!("cannot be read: {error}")))?;
            if self.line.len() > LINE_BYTES_MAX {
                return Err(fault(format!("the line has more than {LINE_BYTES_MAX} bytes")));
            }
            if !self.line.ends_with(b"\n") {
                self.open = None;
                continue;
            }
            let record: Record = serde_json::from_slice(&self.line)
                .map_err(|error| fault(format!("{error}; a line is a record of a node's audit")))?;
            return Ok(Some(record.into()));
        }
    }
}

impl Iterator for Segments {
    type Item = Result<v1::Record, Fault>;

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
        let gap = v1::record::Entry::Gap(v1::GapRecord { lost: missing });
        let told = v1::Record { sequence: record.sequence, time: record.time, entry: Some(gap) };
        self.held = Some(record);
        Some(Ok(told))
    }
}

/// The name of what is read, for those who name it in a fault.
#[must_use]
pub fn named(paths: &[PathBuf]) -> &Path {
    paths.first().map_or_else(|| Path::new("audit"), PathBuf::as_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sequence: u64) -> String {
        format!("{{\"sequence\":{sequence},\"time\":\"2026-01-01T00:00:00Z\",\"gap\":{{\"lost\":0}}}}\n")
    }

    #[test]
    fn segments_are_read_in_order_and_what_is_missing_is_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
        write("01.jsonl", line(1) + &line(2));
        // Another segment was taken away, and a line is not written to its end yet.
        write("07.jsonl", line(7) + "{\"sequence\":8,");
        write("LOCK", String::new());
        let read: Vec<_> = Segments::open(&[dir.path().to_owned()]).unwrap().map(Result::unwrap).collect();
        let lost = |record: &v1::Record| match &record.entry {
            Some(v1::record::Entry::Gap(gap)) => gap.lost,
            _ => 0,
        };
        let seen: Vec<_> = read.iter().map(|record| (record.sequence, lost(record))).collect();
        assert_eq!(seen, [(1, 0), (2, 0), (7, 4), (7, 0)]);
    }

    #[test]
    fn a_line_that_is_no_record_is_named_and_a_directory_without_segments_too() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [dir.path().to_owned()];
        assert!(Segments::open(&paths).is_err_and(|fault| fault.what.contains("audit.dir")));
        std::fs::write(dir.path().join("1.jsonl"), line(1) + "{}\n" + &line(2)).unwrap();
        let read: Vec<_> = Segments::open(&paths).unwrap().collect();
        assert_eq!(read.len(), 2);
        assert!(read[1].as_ref().unwrap_err().place.ends_with("1.jsonl:2"));
    }
}
