//! Where a sink is in the log, on disk.
//!
//! Owns: one small file, replaced whole. It names the log that it counts in, so that a log that was begun anew is sent from its beginning.
//! It is not made to survive a crash of the machine each time: what it forgets is sent again.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::audit::log::replace;

/// See the module.
#[derive(Debug)]
pub(super) struct Cursor {
    path: PathBuf,
    at: At,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct At {
    /// The log.
    log: String,
    /// The next record.
    next: u64,
}

/// What the file said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There was none.
    Nothing,
    /// The next record in this log.
    Place(u64),
    /// A place in this other log.
    AnotherLog(String),
}

impl Cursor {
    /// Reads it. Without a file, or with one of another log, it begins where `begin` says for a log that is new to it, or not.
    pub(super) fn open(path: PathBuf, log: &str, begin: impl FnOnce(Found) -> u64) -> Result<Self, String> {
        let shown = path.display().to_string();
        let found = match std::fs::read(&path) {
            Ok(bytes) => Some(serde_json::from_slice::<At>(&bytes).map_err(|error| {
                format!(
                    "`{shown}` does not say where in the log it is ({error}): remove it to send everything again, or write \
                     {{\"log\":\"{log}\",\"next\":NUMBER}}"
                )
            })?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(format!("`{shown}` cannot be read: {error}")),
        };
        let next = begin(match found {
            None => Found::Nothing,
            Some(at) if at.log == log => Found::Place(at.next),
            Some(at) => Found::AnotherLog(at.log),
        });
        // Kept at once: "now" is the first start, and not each one.
        let mut cursor = Self { path, at: At { log: log.to_owned(), next: 0 } };
        cursor.set(next).map_err(|error| format!("`{shown}` cannot be written: {error}"))?;
        Ok(cursor)
    }

    /// The next record.
    pub(super) fn next(&self) -> u64 {
        self.at.next
    }

    /// Moves on, and keeps that.
    pub(super) fn set(&mut self, next: u64) -> std::io::Result<()> {
        if self.at.next == next {
            return Ok(());
        }
        let at = At { next, ..self.at.clone() };
        replace(&self.path, serde_json::to_string(&at)?.as_bytes(), false)?;
        self.at = at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_and_belongs_to_one_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let open = |log, expected, next| {
            let begin = |found| {
                assert_eq!(found, expected);
                next
            };
            Cursor::open(path.clone(), log, begin).unwrap()
        };
        let mut cursor = open("one", Found::Nothing, 3);
        assert_eq!(open("one", Found::Place(3), 3).next(), 3, "kept at once");
        cursor.set(7).unwrap();
        open("one", Found::Place(7), 7);
        assert_eq!(open("another", Found::AnotherLog("one".to_owned()), 1).next(), 1);
    }

    #[test]
    fn what_is_no_place_is_refused_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        for text in
            ["", "{", r#"{"log":"one"}"#, r#"{"log":"one","next":-1}"#, r#"{"log":"one","next":1,"x":2}"#]
        {
            std::fs::write(&path, text).unwrap();
            let why = Cursor::open(path.clone(), "one", |_| 1).unwrap_err();
            assert!(why.contains("remove it to send everything again"), "{text}: {why}");
        }
    }
}
