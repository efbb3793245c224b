//! The part of a decision's record that tells how the attempt deviated from what was approved.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Fields as in `cardea.v1.DeviationRecord`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviationRecord {
    /// The evidence by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<SmolStr>,
    /// What it amounts to.
    pub assessment: SmolStr,
    /// 0 to 100.
    pub confidence: u32,
    /// The evidence in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<SmolStr>,
    /// Version of the baseline; empty: nothing is approved.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub baseline: SmolStr,
    /// The identity was observed: policies read nothing of what its baseline lacks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observed: bool,
}
