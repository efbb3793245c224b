//! The record of one attempt that a candidate bundle would have answered differently.

use cardea_proto::v1;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::{Entity, Reason};
use crate::audit::text;

/// Fields as in `cardea.v1.ShadowRecord`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowRecord {
    /// The decision that was given.
    pub decision_id: SmolStr,
    /// Name of the door the attempt came in by.
    pub door: SmolStr,
    /// Who acted.
    pub principal: Entity,
    /// What it wanted to do.
    pub action: Entity,
    /// What it wanted to do it to.
    pub resource: Entity,
    /// The session of the attempt; empty if none.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub session_id: SmolStr,
    /// Whether the candidate is more open.
    #[serde(with = "text::shadow_effect")]
    pub effect: v1::ShadowEffect,
    /// The answer that was given.
    pub in_force: ShadowAnswer,
    /// The answer of the candidate.
    pub candidate: ShadowAnswer,
}

/// One of the two answers; fields as in `cardea.v1.ShadowAnswer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowAnswer {
    /// Revision of the bundle.
    pub revision: u64,
    /// SHA-256 of the bundle, lower-case hexadecimal.
    pub digest: SmolStr,
    /// The answer.
    #[serde(with = "text::decision")]
    pub decision: v1::Decision,
    /// Why it is not a plain allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// Policies that settled it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub determining_policies: Vec<SmolStr>,
    /// Names of the step-up requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step_up: Vec<SmolStr>,
    /// Obligations of an allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub obligations: Vec<SmolStr>,
    /// How long the answer might be reused, in milliseconds.
    #[serde(default)]
    pub lease_ms: u32,
}
