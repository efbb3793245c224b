//! The part of a decision's record that tells which hold it was told to, and why.

use cardea_proto::v1;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::audit::text;

/// Fields as in `cardea.v1.HoldRecord`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRecord {
    /// Name of the enforcement point.
    pub enforcement_point: SmolStr,
    /// The enforcement point's own name for the hold.
    pub hold_id: u64,
    /// What changed; unset for the first answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<HoldCause>,
    /// The answer before; unspecified for the first answer.
    #[serde(with = "text::decision", default, skip_serializing_if = "is_unspecified")]
    pub before: v1::Decision,
}

/// Fields as in `cardea.v1.HoldCause`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldCause {
    /// What kind of thing changed.
    #[serde(with = "text::hold_cause")]
    pub kind: v1::hold_cause::Kind,
    /// Which one.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub name: SmolStr,
    /// What happened, in a word.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub change: SmolStr,
    /// State version of the change.
    pub state_version: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_unspecified(decision: &v1::Decision) -> bool {
    *decision == v1::Decision::Unspecified
}
