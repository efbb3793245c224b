//! The part of a decision's record from which baselines are learned.

use cardea_core::observed::Named;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Fields as in `cardea.v1.ObservedRecord`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedRecord {
    /// The task that it was compared in; empty: none was named.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub task: SmolStr,
    /// Whom or what it was done to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<SmolStr>,
    /// External references.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<SmolStr>,
    /// Where it came from; empty: unknown.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub network: SmolStr,
    /// Its identity was observed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observing: bool,
    /// It names more than is kept, or a task that it may not use: nothing can be learned from it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unusable: bool,
}

impl From<&Named> for ObservedRecord {
    fn from(named: &Named) -> Self {
        let Named { task, targets, references, network } = named.clone();
        Self { task, targets, references, network, observing: false, unusable: false }
    }
}
