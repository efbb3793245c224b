//! Behaviour monitoring on recorded attempts: learn what approved runs did, and score others against it.
//!
//! The same comparison as the service's; only where attempts come from differs. Attempts are JSON Lines, one object for each,
//! read as a stream in bounded memory. Labels and other truth that a recording may carry beside the attempt are never read.

pub mod attempts;
pub mod audited;
pub mod config;
pub mod declared;
mod expiring;
pub mod learn;
pub mod lines;
pub mod prepared;
pub mod report;
pub mod score;
pub mod whole;

use std::path::Path;

use cardea_core::behavior::kept::Unkept;
use cardea_core::behavior::promoted::Signed;
use cardea_core::behavior::{Kept, Key};
use cardea_policy_store::digest::Digest;
use jiff::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize as _, Deserializer, de::Error as _};

/// Largest file of baselines, in bytes.
const BASELINES_BYTES_MAX: u64 = 256 << 20;

/// What is wrong with an input, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Fault {
    /// File, and line where there is one.
    pub place: String,
    /// What is wrong, and the remedy.
    pub what: String,
}

impl From<crate::audit::stored::Unreadable> for Fault {
    fn from(unreadable: crate::audit::stored::Unreadable) -> Self {
        Self { place: unreadable.place, what: unreadable.what }
    }
}

impl Fault {
    /// A fault of a file.
    pub(crate) fn of(path: &Path, what: impl Into<String>) -> Self {
        Self { place: path.display().to_string(), what: what.into() }
    }
}

/// A key that nobody can know beforehand. Nothing that is printed depends on it.
///
/// # Errors
///
/// The operating system has no randomness.
pub fn fresh_key() -> Result<Key, Fault> {
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).map_err(|_unspecified| Fault {
        place: "randomness".to_owned(),
        what: "the operating system gives none".to_owned(),
    })?;
    Ok(Key::new(random))
}

/// Reads a file of baselines.
///
/// # Errors
///
/// It cannot be read, or is no file of baselines that this version knows.
pub fn read_kept(path: &Path) -> Result<Kept, Fault> {
    read(path, Kept::parse).map(|file| file.kept)
}

/// A file of baselines, and the SHA-256 of its bytes.
#[derive(Clone, Debug)]
pub struct KeptFile {
    /// What it holds.
    pub kept: Kept,
    /// Lower-case hexadecimal.
    pub digest: String,
}

impl KeptFile {
    /// Reads a file of baselines, be it approved or a candidate: to look at it, or to approve it.
    ///
    /// # Errors
    ///
    /// As [`read_kept`].
    pub fn read(path: &Path) -> Result<Self, Fault> {
        read(path, Kept::parse_any)
    }

    /// Reads one that somebody approved.
    ///
    /// # Errors
    ///
    /// As [`read_kept`].
    pub fn approved(path: &Path) -> Result<Self, Fault> {
        read(path, Kept::parse)
    }

    /// It, for whoever promotes.
    #[must_use]
    pub fn signed(&self) -> Signed<'_> {
        Signed { kept: &self.kept, digest: &self.digest }
    }
}

fn read(path: &Path, parse: impl Fn(&[u8]) -> Result<Kept, Unkept>) -> Result<KeptFile, Fault> {
    let unread = |error| Fault::of(path, format!("cannot be read: {error}"));
    let length = std::fs::metadata(path).map_err(unread)?.len();
    if length > BASELINES_BYTES_MAX {
        return Err(Fault::of(path, format!("has more than {BASELINES_BYTES_MAX} bytes")));
    }
    let bytes = std::fs::read(path).map_err(unread)?;
    let kept = parse(&bytes).map_err(|fault| Fault::of(path, fault.to_string()))?;
    Ok(KeptFile { kept, digest: Digest::of(&bytes).to_string() })
}

/// A point in time, RFC 3339.
fn timestamp<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(from)?;
    text.parse().map_err(|_| D::Error::custom(format!("`{text}` is no time; write 2026-01-01T12:00:00Z")))
}

/// The same where it may be absent.
fn some_timestamp<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    timestamp(from).map(Some)
}
