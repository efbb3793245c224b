//! Watches a bundle's directory and offers each change to the policy store.
//!
//! A change is noticed by the operating system's notices, and by looking every [`limits::BUNDLE_LOOK_INTERVAL`],
//! because notices get lost on renames, on link swaps and on network file systems. Loading runs on this module's own
//! thread, never on one that decides.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cardea_policy_store::fault::Faults;
use cardea_policy_store::store::Offer;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use smol_str::SmolStr;

use crate::audit::record::{Body, BundleRecord};
use crate::limits;
use crate::pipeline::Pipeline;
use crate::shutdown::{Phase, Shutdown};

/// The bundle's directory and what became of it so far.
#[derive(Debug)]
pub struct BundleWatch {
    dir: PathBuf,
    pipeline: Arc<Pipeline>,
    history: Mutex<History>,
    /// What the directory held when it was last read.
    seen: Mutex<Fingerprint>,
}

/// What became of the bundle so far.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Activations since the start.
    pub activations: u64,
    /// When the snapshot in force was activated, Unix milliseconds.
    pub activated_ms: Option<i64>,
    /// When and why the newest content was refused, if it was.
    pub refused: Option<(i64, Arc<Faults>)>,
}

impl BundleWatch {
    /// Will watch `dir`.
    #[must_use]
    pub fn new(dir: PathBuf, pipeline: Arc<Pipeline>) -> Self {
        Self { dir, pipeline, history: Mutex::new(History::default()), seen: Mutex::default() }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The pipeline that it serves.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// What became of the bundle so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.history.lock().clone()
    }

    /// Loads the directory once.
    ///
    /// # Errors
    /// Every fault, if it was refused.
    pub fn load(&self) -> Result<(), Arc<Faults>> {
        let now = self.pipeline.now();
        let metrics = self.pipeline.metrics();
        // Before reading: what changes meanwhile differs from this, and is read again.
        *self.seen.lock() = fingerprint(&self.dir);
        match self.pipeline.policy().offer(&self.dir) {
            Offer::Unchanged => {
                self.history.lock().refused = None;
                Ok(())
            }
            Offer::Activated(snapshot, warnings) => {
                for warning in warnings {
                    tracing::warn!(%warning, "bundle");
                }
                let settings = snapshot.settings();
                self.pipeline.label_actions(&snapshot);
                metrics.reloads.ok.increment(1);
                #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
                {
                    metrics.snapshot_revision.set(settings.revision as f64);
                    metrics.snapshot_policies.set(snapshot.policies().len() as f64);
                }
                tracing::info!(
                    bundle = %settings.name,
                    revision = settings.revision,
                    digest = %snapshot.digest(),
                    policies = snapshot.policies().len(),
                    entities = snapshot.world().len(),
                    "bundle in force"
                );
                {
                    let mut history = self.history.lock();
                    history.activations += 1;
                    history.activated_ms = Some(now.wall_ms);
                    history.refused = None;
                }
                let record = record("activated", &settings.name, settings.revision, snapshot.digest(), "");
                self.pipeline.record(record, now);
                Ok(())
            }
            Offer::Refused(faults) => {
                metrics.reloads.refused.increment(1);
                let serves_on = self.pipeline.policy().snapshot().is_some();
                for fault in faults.list() {
                    tracing::error!(%fault, serves_on, "bundle refused");
                }
                self.history.lock().refused = Some((now.wall_ms, Arc::clone(&faults)));
                let first = faults.list().first().map(ToString::to_string).unwrap_or_default();
                self.pipeline.record(record("refused", "", 0, "", &first), now);
                Err(faults)
            }
        }
    }

    /// Watches until the process stops.
    ///
    /// # Errors
    /// Never while the directory is only missing or unreadable for a time; that is a refusal like any other.
    pub fn run(&self, shutdown: &Shutdown) -> Result<(), notify::Error> {
        let (wake, woken) = bounded(1);
        let _watcher = notices(&self.dir, wake);
        while shutdown.phase() == Phase::Running {
            if let Err(RecvTimeoutError::Disconnected) = woken.recv_timeout(limits::BUNDLE_LOOK_INTERVAL) {
                // The watcher could not be started; looking goes on.
                std::thread::sleep(limits::BUNDLE_LOOK_INTERVAL);
            }
            // What was refused is not loaded again until it changes.
            if fingerprint(&self.dir) != *self.seen.lock() {
                self.settle();
                let _refused = self.load();
            }
        }
        Ok(())
    }

    /// Waits until the directory rests: an editor or a copy touches many files, and half of a bundle may lack the
    /// half that forbids.
    fn settle(&self) {
        let mut before = fingerprint(&self.dir);
        for _ in 0..limits::BUNDLE_SETTLE_ROUNDS_MAX {
            std::thread::sleep(limits::BUNDLE_SETTLE);
            let after = fingerprint(&self.dir);
            if after == before {
                return;
            }
            before = after;
        }
    }
}

fn notices(dir: &Path, wake: Sender<()>) -> Option<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Looking opens the files, and that is noticed too: a look must not ask for the next.
        if event.is_ok_and(|event| event.kind.is_access()) {
            return;
        }
        // Full means that a wake-up is on its way already.
        let _full = wake.try_send(());
    })
    .inspect_err(|error| tracing::warn!(%error, "no notices of bundle changes; looking at intervals"))
    .ok()?;
    watcher
        .watch(dir, RecursiveMode::Recursive)
        .inspect_err(|error| tracing::warn!(%error, "no notices of bundle changes; looking at intervals"))
        .ok()?;
    Some(watcher)
}

/// Every file, through links: its path, and what the file system says of its identity, length and last changes of
/// content and of rights.
type Fingerprint = Vec<(PathBuf, [i64; 6])>;

fn fingerprint(dir: &Path) -> Fingerprint {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let Ok(meta) = fs::metadata(&path) else { continue };
            if meta.is_dir() && found.len() < cardea_policy_store::load::FILES_MAX {
                left.push(path);
            } else {
                let of = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
                let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
                let [mtime, mtime_ns, ctime, ctime_ns] = times;
                found.push((path, [of(meta.ino()), of(meta.len()), mtime, mtime_ns, ctime, ctime_ns]));
            }
        }
    }
    found.sort();
    found
}

fn record(change: &'static str, name: &str, revision: u64, digest: &str, reason: &str) -> Body {
    Body::Bundle(BundleRecord {
        change: SmolStr::new_static(change),
        name: name.into(),
        revision,
        digest: digest.into(),
        reason: reason.into(),
        asked_by: SmolStr::default(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_change_is_noticed_and_a_look_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.cedar");
        fs::write(&file, "a").unwrap();
        let (wake, woken) = bounded(1);
        let _watcher = notices(dir.path(), wake).unwrap();
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
