//! The snapshot in force, and how a newer one takes its place: one atomic swap.
//!
//! INVARIANT (revision rises): each activation has a higher revision than the one before.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::snapshot::Snapshot;

/// Holds the snapshot in force. Shared by all threads.
#[derive(Debug, Default)]
pub struct PolicyStore {
    current: ArcSwapOption<Snapshot>,
    /// Held during a swap, so that two cannot pass each other.
    swapping: Mutex<()>,
}

/// A snapshot whose revision is not higher than the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {offered} is not higher than revision {in_force}, which is in force")]
pub struct NotHigher {
    /// The revision that was offered.
    pub offered: u64,
    /// The revision in force.
    pub in_force: u64,
}

impl PolicyStore {
    /// The snapshot in force. One serves a whole decision.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// Puts a snapshot in force and hands out the one before, whose last reader frees it: keep it until nobody else does,
    /// or a thread that decides pays for freeing a whole bundle.
    ///
    /// # Errors
    /// When its revision is not higher.
    pub fn activate(&self, snapshot: Arc<Snapshot>) -> Result<Option<Arc<Snapshot>>, NotHigher> {
        let _alone = self.swapping.lock();
        let offered = snapshot.settings().revision;
        if let Some(current) = self.snapshot()
            && offered <= current.settings().revision
        {
            return Err(NotHigher { offered, in_force: current.settings().revision });
        }
        Ok(self.current.swap(Some(snapshot)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;
    use crate::pack;

    fn snapshot(revision: u64) -> Arc<Snapshot> {
        let files = load::Files::from([
            ("bundle.toml".into(), b"name = \"t\"".to_vec()),
            (
                "schema.cedarschema".into(),
                b"entity E; action a appliesTo { principal: E, resource: E };".to_vec(),
            ),
        ]);
        let manifest = pack::manifest_for("t", revision, &files);
        Arc::new(load::files(&files).unwrap().snapshot.identified(&manifest, load::digest(&files)))
    }

    #[test]
    fn a_swap_takes_only_a_higher_revision_and_hands_out_the_one_before() {
        let store = PolicyStore::default();
        assert!(store.snapshot().is_none());
        assert!(store.activate(snapshot(3)).unwrap().is_none());
        for not_higher in [0, 2, 3] {
            let refused = store.activate(snapshot(not_higher)).unwrap_err();
            assert_eq!(refused, NotHigher { offered: not_higher, in_force: 3 });
        }
        let before = store.activate(snapshot(4)).unwrap().unwrap();
        assert_eq!(before.settings().revision, 3);
        assert_eq!(store.snapshot().unwrap().settings().revision, 4);
    }
}
