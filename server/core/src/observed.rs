//! What is learned from one attempt: the names that its comparison saw, in a form that can be kept.
//!
//! Made away from decisions, from the attempt and the snapshot that judged it: the same names as [`crate::comparison`] compares.
//! Limit: [`NAME_BYTES_MAX`] bytes of names. An attempt with more is not shortened, because what is left out would look as if it had
//! not been there: nothing is learned from it.

use cardea_behavior::attempt::NAMES_BEYOND;
use cardea_policy_store::snapshot::Snapshot;
use smol_str::SmolStr;

use crate::attempt::Attempt;
use crate::comparison::{references, targets};

/// Most names of one attempt that are kept, in bytes: what measured agents name takes a few hundred.
pub const NAME_BYTES_MAX: usize = 8 * 1024;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// The task that it was done in; empty: none.
    pub task: SmolStr,
    /// Whom or what it was done to.
    pub targets: Vec<SmolStr>,
    /// External references.
    pub references: Vec<SmolStr>,
    /// Where it came from; empty: unknown.
    pub network: SmolStr,
}

impl Named {
    /// What an attempt names, in the task that it was compared in; `None`: more than is kept.
    #[must_use]
    pub fn of(attempt: &Attempt, snapshot: &Snapshot, task: &SmolStr) -> Option<Self> {
        let settings = &snapshot.settings().behavior;
        let references = references(attempt, &settings.references);
        let targets = targets(attempt, &references);
        let network = attempt.request.texts(&settings.network).next().unwrap_or_default();
        let all = || targets.iter().chain(&references).chain([&network]);
        let bytes: usize = all().map(|name| name.len()).sum();
        if bytes > NAME_BYTES_MAX || all().any(|name| *name == NAMES_BEYOND) {
            return None;
        }
        let owned = |names: &[&str]| names.iter().copied().map(SmolStr::new).collect();
        Some(Self {
            task: task.clone(),
            targets: owned(&targets),
            references: owned(&references),
            network: network.into(),
        })
    }
}
