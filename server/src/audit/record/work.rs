//! The records of tasks and reviews.

use cardea_proto::v1;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::{DeviationRecord, Entity, ObservedRecord, text};

/// The record of one change of a task; fields as in `cardea.v1.TaskRecord`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The task.
    pub task_id: SmolStr,
    /// Who may use it.
    pub agent: Entity,
    /// On whose behalf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<Entity>,
    /// `approved`, `narrowed`, `extended`, `ended`.
    pub change: SmolStr,
    /// Who asked for it, as the request says.
    pub by: Entity,
    /// Version of this node's state after it.
    pub state_version: u64,
    /// Why, in words; the purpose of an approval.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub reason: SmolStr,
    /// Who asked, as the connection proves it.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub asked_by: SmolStr,
    /// The end of its window, Unix milliseconds.
    #[serde(with = "text::time")]
    pub not_after: i64,
}

/// The record of one change of a review; fields as in `cardea.v1.ReviewRecord`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewRecord {
    /// The review.
    pub review_id: SmolStr,
    /// Its round.
    pub round: u32,
    /// `opened`, `approved`, `used`, `rejected`, `revoked`, `expired`.
    pub change: SmolStr,
    /// Who wants to act.
    pub principal: Entity,
    /// Those on whose behalf, root first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delegation: Vec<Entity>,
    /// What it wants to do.
    pub action: Entity,
    /// What it wants to do it to.
    pub resource: Entity,
    /// SHA-256 over the arguments.
    pub argument_digest: SmolStr,
    /// The step-up requirement.
    pub requirement: SmolStr,
    /// The decision that opened the round.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub decision_id: SmolStr,
    /// Who decided, as the request says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reviewer: Option<Entity>,
    /// When the grant ends, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_time")]
    pub grant_ends_at: Option<i64>,
    /// Version of this node's state after it.
    pub state_version: u64,
    /// Why, in the reviewer's words.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub reason: SmolStr,
    /// Who asked, as the connection proves it.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub asked_by: SmolStr,
    /// How the attempt deviated when the round was opened, where it was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation: Option<Box<DeviationRecord>>,
    /// The grant opens one attempt only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
    /// What the reviewer approved into the next baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into_baseline: Option<Box<ObservedRecord>>,
}

mod optional_time {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::text;

    #[derive(Serialize, Deserialize)]
    struct Time(#[serde(with = "text::time")] i64);

    #[expect(clippy::ref_option, reason = "serde calls it with a reference")]
    pub(super) fn serialize<S: Serializer>(at: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
        at.map(Time).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
        Ok(Option::<Time>::deserialize(deserializer)?.map(|time| time.0))
    }
}

impl From<TaskRecord> for v1::TaskRecord {
    fn from(record: TaskRecord) -> Self {
        Self {
            task_id: record.task_id.into(),
            agent: Some(record.agent.into()),
            on_behalf_of: record.on_behalf_of.map(Into::into),
            change: record.change.into(),
            by: Some(record.by.into()),
            state_version: record.state_version,
            reason: record.reason.into(),
            asked_by: record.asked_by.into(),
            not_after: Some(crate::doors::timestamp(record.not_after)),
        }
    }
}

impl From<ReviewRecord> for v1::ReviewRecord {
    fn from(record: ReviewRecord) -> Self {
        Self {
            review_id: record.review_id.into(),
            round: record.round,
            change: record.change.into(),
            principal: Some(record.principal.into()),
            delegation: record.delegation.into_iter().map(Into::into).collect(),
            action: Some(record.action.into()),
            resource: Some(record.resource.into()),
            argument_digest: record.argument_digest.into(),
            requirement: record.requirement.into(),
            decision_id: record.decision_id.into(),
            reviewer: record.reviewer.map(Into::into),
            grant_ends_at: record.grant_ends_at.map(crate::doors::timestamp),
            state_version: record.state_version,
            reason: record.reason.into(),
            asked_by: record.asked_by.into(),
            deviation: record.deviation.map(|deviation| (*deviation).into()),
            once: record.once,
            into_baseline: record.into_baseline.map(|named| (*named).into()),
        }
    }
}
