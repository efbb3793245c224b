//! What policies in dry run would have answered, by policy.
//!
//! Handles are made when a bundle comes into force, so that counting looks nothing up by name. Limit: [`NAMES_MAX`] names of policies in the
//! life of the process; what comes after them counts as `other`.

use std::collections::{BTreeMap, BTreeSet};

use arc_swap::ArcSwap;
use cardea_core::consequences::would_have;
use cardea_policy_store::index::PolicyIndex;
use cardea_policy_store::snapshot::Snapshot;
use metrics::{Counter, counter};
use parking_lot::Mutex;
use smol_str::SmolStr;

/// Most names: some bundles with as many policies in dry run as there may be.
const NAMES_MAX: usize = 1_024;

/// See the module.
#[derive(Debug, Default)]
pub struct DryRuns {
    /// Of one revision.
    handles: ArcSwap<(u64, BTreeMap<PolicyIndex, Counter>)>,
    names: Mutex<BTreeSet<SmolStr>>,
}

impl DryRuns {
    /// Prepares for a bundle that comes into force; `register` has handles made by the recorder.
    pub(super) fn prepare(&self, snapshot: &Snapshot, register: impl Fn(&mut dyn FnMut())) {
        let mut handles = BTreeMap::new();
        let mut names = self.names.lock();
        register(&mut || {
            for (index, policy) in snapshot.dry_runs() {
                let is_named = names.contains(&policy.id) || names.len() < NAMES_MAX;
                let name = if is_named { policy.id.clone() } else { SmolStr::new_static("other") };
                names.insert(name.clone());
                let answer = would_have(policy).name();
                let handle =
                    counter!("cardea_dry_run_total", "policy" => name.to_string(), "answer" => answer);
                // A policy that would never have changed an answer shows as 0, not as missing.
                handle.increment(0);
                handles.insert(index, handle);
            }
        });
        self.handles.store(std::sync::Arc::new((snapshot.settings().revision, handles)));
    }

    /// Counts an attempt that these policies would have answered otherwise.
    pub fn count(&self, snapshot: &Snapshot, policies: &[PolicyIndex]) {
        let handles = self.handles.load();
        if snapshot.settings().revision != handles.0 {
            return;
        }
        for handle in policies.iter().filter_map(|index| handles.1.get(index)) {
            handle.increment(1);
        }
    }
}
