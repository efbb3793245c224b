//! Which segments may go: the oldest ones, once all of them together are too large, or are old enough.
//!
//! Only segments that are closed go, and only their records: the hashes of all records stay, so what is left is still proven. Whoever removes
//! them records it first.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::files::{segments, sync_dir};

/// What is kept; nothing set: everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Bytes that segments may take together.
    pub bytes: Option<u64>,
    /// How long after it was closed a segment stays.
    pub age: Option<Duration>,
}

/// The record that would be the first one if whatever may go went; `None`: everything stays.
///
/// # Errors
/// The directory cannot be read.
pub(in crate::audit) fn kept_from(dir: &Path, keep: Keep, now_ms: u64) -> io::Result<Option<u64>> {
    let names = segments(dir)?;
    let mut sizes = Vec::with_capacity(names.len());
    for name in &names {
        let metadata = fs::metadata(name.path(dir))?;
        let closed_ms = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        sizes.push((name.first, metadata.len(), closed_ms));
    }
    let mut total: u64 = sizes.iter().map(|(_, bytes, _)| bytes).sum();
    let is_old = |closed_ms: u128| {
        keep.age.is_some_and(|age| closed_ms.saturating_add(age.as_millis()) <= u128::from(now_ms))
    };
    let mut first = None;
    for pair in sizes.windows(2) {
        let [(_, bytes, closed_ms), (next, _, _)] = pair else { break };
        if keep.bytes.is_none_or(|most| total <= most) && !is_old(*closed_ms) {
            break;
        }
        total -= bytes;
        first = Some(*next);
    }
    Ok(first)
}

/// Removes the segments before this record.
///
/// # Errors
/// The file system refuses; what is left is whole.
pub(in crate::audit) fn let_go(dir: &Path, kept_from: u64) -> io::Result<()> {
    // The oldest first, so that what a crash leaves has no hole.
    for name in segments(dir)?.into_iter().filter(|name| name.first < kept_from) {
        fs::remove_file(name.path(dir))?;
    }
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::super::files::Name;
    use super::*;

    #[test]
    fn the_oldest_closed_segments_go_by_size_and_by_age_and_the_last_one_never() {
        let dir = tempfile::tempdir().unwrap();
        for first in [1, 257, 513, 769] {
            let path = Name { first, is_packed: first < 513 }.path(dir.path());
            fs::write(path, vec![0; 1_000]).unwrap();
        }
        let day = Duration::from_secs(24 * 3600);
        let later = |days: u32| {
            let now =
                fs::metadata(dir.path()).unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
            u64::try_from((now + day * days).as_millis()).unwrap()
        };
        let from = |bytes, age, now_ms| kept_from(dir.path(), Keep { bytes, age }, now_ms).unwrap();
        assert_eq!(from(None, None, later(1_000)), None);
        assert_eq!(from(Some(4_000), None, later(0)), None);
        assert_eq!(from(Some(3_999), None, later(0)), Some(257));
        assert_eq!(from(Some(2_500), None, later(0)), Some(513));
        assert_eq!(from(Some(0), None, later(0)), Some(769));
        assert_eq!(from(None, Some(day), later(0)), None);
        assert_eq!(from(None, Some(day), later(2)), Some(769));
        let_go(dir.path(), 513).unwrap();
        let left: Vec<u64> = segments(dir.path()).unwrap().into_iter().map(|name| name.first).collect();
        assert_eq!(left, [513, 769]);
    }
}
