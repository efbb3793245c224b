//! A bundle in the file system: a directory, or a packed file.
//!
//! A change is noticed by the operating system's notices, and by looking at intervals, because notices get lost on
//! renames, on link swaps (how Kubernetes changes a ConfigMap) and on network file systems. Looking compares what the file
//! system says of every file, through links.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use cardea_policy_store::fault::Faults;
use cardea_policy_store::load::{self, Files};
use cardea_policy_store::pack::PACKED_BYTES_MAX;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;

use super::Bundles;
use crate::limits;

/// The place, and what it held when it was last read.
#[derive(Debug)]
pub(super) struct Local {
    path: PathBuf,
    seen: Mutex<Fingerprint>,
}

/// What is at the place.
#[derive(Debug)]
pub(super) enum Found {
    /// The files of a bundle in directory form, or what is wrong with them.
    Directory(Result<Files, Faults>),
    /// A file; a packed bundle, if it is one.
    Packed(Vec<u8>),
}

impl Local {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, seen: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the place holds something else than when it was last read. What was refused is not read again until then.
    pub(super) fn has_changed(&self) -> bool {
        fingerprint(&self.path) != *self.seen.lock()
    }

    /// Waits until the place rests: an editor or a copy touches many files, and half of a bundle may lack the half that
    /// forbids.
    pub(super) fn settle(&self) {
        let mut before = fingerprint(&self.path);
        for _ in 0..limits::BUNDLE_SETTLE_ROUNDS_MAX {
            std::thread::sleep(limits::BUNDLE_SETTLE);
            let after = fingerprint(&self.path);
            if after == before {
                return;
            }
            before = after;
        }
    }

    /// Reads what is there now.
    pub(super) fn read(&self) -> io::Result<Found> {
        // Before reading: what changes meanwhile differs from this, and is read again.
        *self.seen.lock() = fingerprint(&self.path);
        if fs::metadata(&self.path)?.is_dir() {
            return Ok(Found::Directory(load::read_directory(&self.path)));
        }
        let mut bytes = Vec::new();
        // One byte beyond the limit is enough to refuse it.
        fs::File::open(&self.path)?.take(PACKED_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Found::Packed(bytes))
    }

    /// Has `bundles` look at each notice of a change, while the result lives.
    pub(super) fn notices(&self, bundles: &Arc<Bundles>) -> Option<RecommendedWatcher> {
        let bundles: Weak<Bundles> = Arc::downgrade(bundles);
        notices(&self.path, move || {
            if let Some(bundles) = bundles.upgrade() {
                bundles.look();
            }
        })
    }
}

fn notices(path: &Path, wake: impl Fn() + Send + 'static) -> Option<RecommendedWatcher> {
    let failed =
        |error: &notify::Error| tracing::warn!(%error, "no notices of bundle changes; looking at intervals");
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Looking opens the files, and that is noticed too: a look must not ask for the next.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            wake();
        }
    })
    .inspect_err(failed)
    .ok()?;
    // A file is watched from above: what is renamed over it is another file.
    let (watched, mode) = match path.parent() {
        Some(parent) if !path.is_dir() => {
            (if parent.as_os_str().is_empty() { Path::new(".") } else { parent }, RecursiveMode::NonRecursive)
        }
        _ => (path, RecursiveMode::Recursive),
    };
    watcher.watch(watched, mode).inspect_err(failed).ok()?;
    Some(watcher)
}

/// Every file, through links: its path, and what the file system says of its identity, length and last changes of
/// content and of rights.
type Fingerprint = Vec<(PathBuf, [i64; 6])>;

fn fingerprint(root: &Path) -> Fingerprint {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(meta) = fs::metadata(&path) else { continue };
        if meta.is_dir() && found.len() < load::FILES_MAX {
            let entries = fs::read_dir(&path).into_iter().flatten();
            left.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        } else {
            let of = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
            let [mtime, mtime_ns, ctime, ctime_ns] = times;
            found.push((path, [of(meta.ino()), of(meta.len()), mtime, mtime_ns, ctime, ctime_ns]));
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::bounded;

    use super::*;

    #[test]
    fn a_change_is_noticed_and_a_look_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.cedar");
        fs::write(&file, "a").unwrap();
        let (wake, woken) = bounded(1);
        let _watcher = notices(dir.path(), move || {
            let _full = wake.try_send(());
        })
        .unwrap();
        for _ in 0..3 {
            fingerprint(dir.path());
            fs::read(&file).unwrap();
        }
        assert!(woken.recv_timeout(Duration::from_millis(300)).is_err(), "a look asked for the next");
        fs::write(&file, "b").unwrap();
        assert!(woken.recv_timeout(Duration::from_secs(5)).is_ok());
    }

    #[test]
    fn a_change_of_content_rights_or_identity_changes_the_fingerprint() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("bundle");
        let file = |tree: &str| dir.path().join(tree).join("p.cedar");
        for tree in ["one", "two"] {
            fs::create_dir(dir.path().join(tree)).unwrap();
            fs::write(file(tree), "same").unwrap();
        }
        symlink(dir.path().join("one"), &bundle).unwrap();
        let first = fingerprint(&bundle);
        assert_eq!(fingerprint(&bundle), first);
        fs::remove_file(&bundle).unwrap();
        symlink(dir.path().join("two"), &bundle).unwrap();
        let swapped = fingerprint(&bundle);
        assert_ne!(swapped, first, "a link was swapped");
        fs::set_permissions(file("two"), fs::Permissions::from_mode(0o600)).unwrap();
        let chmodded = fingerprint(&bundle);
        assert_ne!(chmodded, swapped, "rights changed");
        fs::write(file("two"), "diff").unwrap();
        assert_ne!(fingerprint(&bundle), chmodded, "content of the same length changed");
    }
}
