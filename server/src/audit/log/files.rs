//! The names in an audit directory.
//!
//! ```text
//! LOCK                            held by the process that writes
//! 00000000000000000001.log        records from this sequence number on, in blocks as they were written
//! 00000000000000000001.log.zst    the same, packed once the segment is closed
//! tree/0, tree/1, …               hashes of the Merkle tree: of the records, of 256 records, of 65,536, …
//! checkpoint                      size and root of the tree, signed (C2SP tlog-checkpoint)
//! sinks/NAME.json, NAME.dead.jsonl where a sink is in the log, and what it refused
//! closed                          size of the log when it was last closed in order; gone while it is open
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Name of the lock file.
pub(super) const LOCK: &str = "LOCK";
/// Name of the directory of hashes.
pub(super) const TREE: &str = "tree";
/// Name of the signed checkpoint.
pub(in crate::audit) const CHECKPOINT: &str = "checkpoint";
/// Name of the mark that the log was closed in order.
pub(super) const CLOSED: &str = "closed";

/// Name of the directory of sinks.
const SINKS: &str = "sinks";

const STORED: &str = ".log";
const PACKED: &str = ".log.zst";
/// What is being made; left behind only by a kill, and of no worth.
const UNFINISHED: &str = ".tmp";
/// Digits of a sequence number in a file name; enough for every `u64`, so that names sort by number.
const NAME_DIGITS: usize = 20;

/// A segment by its place in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// Sequence number of its first record.
    pub(super) first: u64,
    /// Whether it is packed.
    pub(super) is_packed: bool,
}

impl Name {
    pub(super) fn path(self, dir: &Path) -> PathBuf {
        let suffix = if self.is_packed { PACKED } else { STORED };
        dir.join(format!("{:020}{suffix}", self.first))
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let packed = name.strip_suffix(PACKED).map(|digits| (digits, true));
        let (digits, is_packed) = packed.or_else(|| Some((name.strip_suffix(STORED)?, false)))?;
        let is_name = digits.len() == NAME_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        let first = digits.parse().ok().filter(|first| is_name && *first > 0)?;
        Some(Self { first, is_packed })
    }
}

/// The segments of a directory, in order. Of one that is there in both forms the packed one is meant: it gets its name
/// only once it is whole.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<Name>> {
    // While one is packed, a single look may see neither of its names; two looks that agree have seen one of them.
    let mut names = look(dir)?;
    loop {
        let again = look(dir)?;
        if again == names {
            return Ok(names);
        }
        names = again;
    }
}

fn look(dir: &Path) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().to_str().and_then(Name::parse));
    }
    names.sort_unstable_by_key(|name| (name.first, !name.is_packed));
    names.dedup_by_key(|name| name.first);
    Ok(names)
}

/// Where sinks keep their places and dead letters.
pub(in crate::audit) fn of_sinks(dir: &Path) -> PathBuf {
    dir.join(SINKS)
}

/// Writes a file that is there whole or not at all.
pub(in crate::audit) fn replace(path: &Path, bytes: &[u8], is_durable: bool) -> io::Result<()> {
    let unfinished = unfinished(path);
    let mut file = File::create(&unfinished)?;
    io::Write::write_all(&mut file, bytes)?;
    if is_durable {
        file.sync_all()?;
    }
    fs::rename(&unfinished, path)?;
    if is_durable { sync_dir(path.parent().unwrap_or(path)) } else { Ok(()) }
}

/// The name of a file while it is made.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

/// Makes names that were given or taken away in a directory survive a crash of the machine.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_segments_are_segments_and_packed_ones_win() {
        let dir = tempfile::tempdir().unwrap();
        let stored = |first| Name { first, is_packed: false };
        let packed = |first| Name { first, is_packed: true };
        for name in [stored(257), stored(1), packed(1), stored(u64::MAX)] {
            File::create(name.path(dir.path())).unwrap();
        }
        for other in
            ["1.log", "00000000000000000000.log", "00000000000000000001.log.zst.tmp", "LOCK", "x.log"]
        {
            File::create(dir.path().join(other)).unwrap();
        }
        assert_eq!(segments(dir.path()).unwrap(), [packed(1), stored(257), stored(u64::MAX)]);
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        for text in ["first", "2"] {
            replace(&path, text.as_bytes(), true).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
