//! Who may send here: whoever shows a text that stands in a file.
//!
//! Each line of the file is one text, so that a new one can be added before the old one goes. What was read counts for
//! [`limits::SSF_SECRET_REST`], so that a change of the file needs no restart, in either direction. Texts are compared in
//! constant time.
//! Limits: [`limits::SECRET_FILE_BYTES_MAX`]. Never does: showing a text.

use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;
use ring::hmac::{self, HMAC_SHA256, Key, Tag};
use ring::rand::SystemRandom;

use crate::clock::Clock;
use crate::limits;
use crate::remote::{RemoteError, secret};

/// See the module.
#[derive(Debug)]
pub(crate) struct Guard {
    file: PathBuf,
    /// A key of this process alone: what is compared are tags, and how long that takes tells nothing about a text.
    key: Key,
    clock: Clock,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    tags: Vec<Tag>,
    read_ns: u64,
}

impl Guard {
    /// Reads the file.
    pub(crate) fn new(file: PathBuf, clock: Clock) -> Result<Self, RemoteError> {
        let key = Key::generate(HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| RemoteError::Credentials("the system gives no random numbers".to_owned()))?;
        let tags = read(&file, &key)?;
        let known = Mutex::new(Known { tags, read_ns: clock.mono_ns() });
        Ok(Self { file, key, clock, known })
    }

    /// Whether this text stands in the file.
    pub(crate) fn lets_in(&self, text: &[u8]) -> bool {
        let mut known = self.known.lock();
        let now_ns = self.clock.mono_ns();
        if Duration::from_nanos(now_ns.saturating_sub(known.read_ns)) >= limits::SSF_SECRET_REST {
            known.read_ns = now_ns;
            match read(&self.file, &self.key) {
                Ok(tags) => known.tags = tags,
                Err(error) => {
                    tracing::warn!(file = %self.file.display(), %error, "the old texts still count")
                }
            }
        }
        self.fits(&known.tags, text)
    }

    /// Every line is compared, whichever fits.
    fn fits(&self, tags: &[Tag], text: &[u8]) -> bool {
        tags.iter().fold(false, |fits, tag| fits | hmac::verify(&self.key, text, tag.as_ref()).is_ok())
    }
}

fn read(file: &std::path::Path, key: &Key) -> Result<Vec<Tag>, RemoteError> {
    let text = secret(file)?;
    let lines = text.reveal().lines().map(str::trim).filter(|line| !line.is_empty());
    let tags: Vec<Tag> = lines.map(|line| hmac::sign(key, line.as_bytes())).collect();
    if tags.is_empty() {
        let why = "holds no text".to_owned();
        return Err(RemoteError::Content { path: file.to_owned(), why });
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_knows_a_line_is_let_in_and_a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("texts");
        std::fs::write(&file, "old\nnew\n").unwrap();
        let clock = Clock::standing_at(0);
        let guard = Guard::new(file.clone(), clock.clone()).unwrap();
        assert!(guard.lets_in(b"old") && guard.lets_in(b"new"));
        for wrong in ["", "ol", "olds", "old\nnew", "old\n", "Old"] {
            assert!(!guard.lets_in(wrong.as_bytes()), "{wrong}");
        }
        std::fs::write(&file, "third").unwrap();
        assert!(!guard.lets_in(b"third"), "not read for every stranger");
        assert!(guard.lets_in(b"old"));
        clock.advance(limits::SSF_SECRET_REST);
        assert!(!guard.lets_in(b"old"), "whoever was taken out stays out, though nobody else comes");
        assert!(guard.lets_in(b"third"));
        std::fs::remove_file(&file).unwrap();
        clock.advance(limits::SSF_SECRET_REST);
        assert!(!guard.lets_in(b"other") && guard.lets_in(b"third"));
        assert!(!format!("{guard:?}").contains("third"));
    }

    #[test]
    fn a_file_without_a_text_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("texts");
        assert!(Guard::new(file.clone(), Clock::standing_at(0)).is_err());
        for empty in ["", "\n", " \n\t\n"] {
            std::fs::write(&file, empty).unwrap();
            assert!(Guard::new(file.clone(), Clock::standing_at(0)).is_err());
        }
    }
}
