//! The snapshot in force, and how a newer one takes its place.
//!
//! A good bundle is swapped in whole; a bad one is refused, with every fault, while the last good one goes on
//! serving. INVARIANT (revision rises): each activation has a higher revision than the one before.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::fault::{Fault, Faults};
use crate::load;
use crate::snapshot::Snapshot;

/// Holds the snapshot in force. Shared by all threads.
#[derive(Debug, Default)]
pub struct PolicyStore {
    current: ArcSwapOption<Snapshot>,
    /// Held while a newer snapshot is made ready, so that two loaders cannot pass each other.
    loading: Mutex<()>,
}

/// What became of an offered bundle.
#[derive(Debug)]
pub enum Offer {
    /// It is in force.
    Activated(Arc<Snapshot>, Vec<Fault>),
    /// It is the one in force already.
    Unchanged,
    /// The one before goes on serving.
    Refused(Arc<Faults>),
}

impl PolicyStore {
    /// The snapshot in force. One serves a whole decision.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// Loads the bundle in `dir` and puts it in force.
    ///
    /// A directory has no publisher who counts: if its content changed and its revision did not rise, it gets
    /// the next one.
    pub fn offer(&self, dir: &Path) -> Offer {
        let _alone = self.loading.lock();
        let loaded = match load::directory(dir) {
            Ok(loaded) => loaded,
            Err(faults) => return Offer::Refused(Arc::new(faults)),
        };
        let mut snapshot = loaded.snapshot;
        if let Some(current) = self.snapshot() {
            if current.digest() == snapshot.digest() {
                return Offer::Unchanged;
            }
            if snapshot.settings().revision <= current.settings().revision {
                let next = current.settings().revision + 1;
                snapshot = snapshot.with_revision(next);
            }
        }
        let snapshot = Arc::new(snapshot);
        self.current.store(Some(Arc::clone(&snapshot)));
        Offer::Activated(snapshot, loaded.warnings)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_bad_change_is_refused_and_the_last_good_one_serves_on() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("bundle.toml", "name = \"t\"\nrevision = 3");
        write("schema.cedarschema", "entity E; action a appliesTo { principal: E, resource: E };");
        fs::create_dir(dir.path().join("policies")).unwrap();
        write("policies/p.cedar", "permit(principal, action, resource);");
        let path = dir.path();
        let store = PolicyStore::default();
        assert!(store.snapshot().is_none());
        assert!(matches!(store.offer(path), Offer::Activated(..)));
        assert!(matches!(store.offer(path), Offer::Unchanged));

        write("policies/p.cedar", "permit(principal, action, resource");
        let Offer::Refused(faults) = store.offer(path) else { panic!("a broken policy cannot serve") };
        assert!(faults.to_string().starts_with("policies/p.cedar:1:"), "{faults}");
        assert_eq!(store.snapshot().unwrap().settings().revision, 3);

        write("policies/p.cedar", "forbid(principal, action, resource);");
        assert!(matches!(store.offer(path), Offer::Activated(..)));
        assert_eq!(store.snapshot().unwrap().settings().revision, 4, "the revision rises");
    }
}
