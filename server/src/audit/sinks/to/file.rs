//! Lines in files: the one that is written, and older ones beside it.
//!
//! A file that is large enough is renamed after its last record, `audit-00000000000000004711.jsonl`, and a new one begins. A line that a crash
//! cut off is taken away before the next one, which is the same record again.
//! Limits: `keep` older files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::super::options::FileTo;
use super::{Event, Failed, lines};

/// See the module.
#[derive(Debug)]
pub(in crate::audit::sinks) struct Files(FileTo);

/// The file that is written.
pub(in crate::audit::sinks) struct Open {
    to: FileTo,
    file: File,
    bytes: u64,
}

impl Files {
    pub(super) fn new(to: FileTo) -> Self {
        Self(to)
    }

    pub(super) fn open(&self) -> io::Result<Open> {
        open(&self.0).map_err(|error| said(&self.0.path, &error))
    }
}

fn said(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}

fn open(to: &FileTo) -> io::Result<Open> {
    if let Some(parent) = to.path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    // Records tell who did what.
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    let mut file = options.open(&to.path)?;
    let bytes = whole_lines(&mut file)?;
    file.set_len(bytes)?;
    file.seek(SeekFrom::Start(bytes))?;
    Ok(Open { to: to.clone(), file, bytes })
}

/// Where the last whole line ends.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut part = [0; 4096];
    while end > 0 {
        let begin = end.saturating_sub(part.len() as u64);
        let size = usize::try_from(end - begin).unwrap_or(part.len());
        let part = part.get_mut(..size).unwrap_or_default();
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

impl Open {
    pub(super) fn send(&mut self, batch: &[Event]) -> Result<(), Failed> {
        let path = self.to.path.clone();
        self.append(batch).map_err(|error| Failed::later(0, said(&path, &error)))
    }

    fn append(&mut self, batch: &[Event]) -> io::Result<()> {
        let lines = lines(batch);
        self.file.write_all(&lines)?;
        self.file.sync_data()?;
        self.bytes += lines.len() as u64;
        let last = batch.last().map_or(0, |event| event.record.sequence);
        if self.bytes >= self.to.rotate_bytes { self.rotate(last) } else { Ok(()) }
    }

    fn rotate(&mut self, last: u64) -> io::Result<()> {
        let (before, after) = names(&self.to.path);
        fs::rename(&self.to.path, self.to.path.with_file_name(format!("{before}-{last:020}{after}")))?;
        *self = open(&self.to)?;
        if self.to.keep > 0 {
            let older = older(&self.to.path)?;
            for path in older.iter().take(older.len().saturating_sub(self.to.keep)) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// What stands before and behind the number in the names of older files.
fn names(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy()));
    (stem, extension.unwrap_or_default())
}

/// Older files, the oldest first.
fn older(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (before, after) = names(path);
    let is_older = |name: &str| {
        let number = name
            .strip_prefix(&before)
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|rest| rest.strip_suffix(&after));
        number.is_some_and(|number| number.len() == 20 && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut found = Vec::new();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_older) {
            found.push(entry.path());
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use cardea_proto::v1;

    use super::super::super::format::Format;
    use super::*;

    fn event(sequence: u64) -> Event {
        Event::new("log", Format::Json, v1::Record { sequence, ..v1::Record::default() })
    }

    fn sequences(path: &Path) -> Vec<u64> {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["sequence"].as_u64().unwrap()
            })
            .collect()
    }

    #[test]
    fn files_rotate_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let files = Files::new(FileTo { path: path.clone(), rotate_bytes: 30, keep: 2 });
        let mut open = files.open().unwrap();
        for sequence in 1..=9 {
            open.send(&[event(sequence)]).unwrap();
        }
        let older = older(&path).unwrap();
        assert_eq!(older.len(), 2, "{older:?}");
        let mut kept: Vec<u64> = older.iter().flat_map(|path| sequences(path)).collect();
        kept.extend(sequences(&path));
        let first = kept[0];
        assert_eq!(kept, (first..=9).collect::<Vec<_>>(), "one after the other");
        assert!(first > 1);
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let files = Files::new(FileTo { path: path.clone(), rotate_bytes: u64::MAX, keep: 0 });
        for torn in ["", "{\"sequence\":3,", &"x".repeat(10_000)] {
            fs::write(&path, format!("{{\"sequence\":1}}\n{torn}")).unwrap();
            files.open().unwrap().send(&[event(2)]).unwrap();
            assert_eq!(sequences(&path), [1, 2], "{} bytes", torn.len());
        }
        fs::write(&path, "no line at all").unwrap();
        files.open().unwrap().send(&[event(1)]).unwrap();
        assert_eq!(sequences(&path), [1]);
    }
}
