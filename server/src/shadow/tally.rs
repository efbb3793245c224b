//! What a shadow has found: counts for each pair of answers, and groups of differences with an example each.
//!
//! Limits: [`GROUPS_MAX`] groups, each with the first [`RECORDS_PER_GROUP`] differences recorded and the others counted;
//! what fits in no group is counted apart. A group names at most [`POLICIES_SHOWN`] policies on each side.

use std::collections::{BTreeMap, BTreeSet};

use cardea_core::reason::ReasonCode;
use cardea_core::verdict::Decision;
use cardea_policy_store::snapshot::Snapshot;
use cardea_proto::v1;
use smol_str::{SmolStr, ToSmolStr};

use super::sample::{Answer, Effect, Sample};
use crate::pipeline::entity;

/// Most groups. A change that people can review falls into tens; a thousand of some hundred bytes are no burden.
pub const GROUPS_MAX: usize = 1_000;

/// Differences of one group that become records: enough to see what they have in common. With [`GROUPS_MAX`] groups a
/// shadow adds at most 10,000 records to the audit, about 10 MB.
pub const RECORDS_PER_GROUP: u64 = 10;

/// Most policies that a group names for one answer; two sets that differ only beyond them are one group.
pub const POLICIES_SHOWN: usize = 8;

/// Two answers and how they differ, from the most permissive change to the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// How they differ.
    pub effect: Effect,
    /// The candidate's answer.
    pub candidate: Decision,
    /// The answer in force.
    pub in_force: Decision,
}

impl Step {
    /// Every step that there is.
    pub const ALL: [Self; 9] = {
        use Decision::{Allow, Deny, StepUp};
        const fn step(effect: Effect, in_force: Decision, candidate: Decision) -> Step {
            Step { effect, candidate, in_force }
        }
        [
            step(Effect::Widened, Deny, Allow),
            step(Effect::Widened, StepUp, Allow),
            step(Effect::Widened, Deny, StepUp),
            step(Effect::Tightened, Allow, StepUp),
            step(Effect::Tightened, Allow, Deny),
            step(Effect::Tightened, StepUp, Deny),
            step(Effect::Changed, Allow, Allow),
            step(Effect::Changed, StepUp, StepUp),
            step(Effect::Changed, Deny, Deny),
        ]
    };
}

/// What the differences of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    /// The two answers.
    pub step: Step,
    /// Type and id of the action.
    pub action: (SmolStr, SmolStr),
    /// Policies that settled the answer in force.
    pub in_force_policies: Vec<SmolStr>,
    /// Policies that settled the candidate's answer.
    pub candidate_policies: Vec<SmolStr>,
}

/// The differences of a group.
#[derive(Clone, Debug)]
pub struct Group {
    /// How many.
    pub count: u64,
    /// How many became records.
    pub recorded: u64,
    /// When the first attempt was made, Unix milliseconds.
    pub first_ms: i64,
    /// When the last one was made, Unix milliseconds.
    pub last_ms: i64,
    /// Reasons of the candidate's first answer.
    pub candidate_reasons: BTreeSet<ReasonCode>,
    /// Decision id of the first.
    pub decision_id: SmolStr,
    /// Who made the first.
    pub principal: v1::EntityRef,
    /// To what.
    pub resource: v1::EntityRef,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Attempts that were evaluated.
    pub evaluated: u64,
    /// Those with the same answer.
    pub same: u64,
    /// The others, by the two answers.
    pub steps: BTreeMap<Step, u64>,
    /// The others, by what they have in common.
    pub groups: BTreeMap<GroupKey, Group>,
    /// Differences that fit in no group.
    pub ungrouped: u64,
    /// Differences that became records.
    pub recorded: u64,
}

impl Tally {
    /// Counts one evaluated attempt; true if its difference is to be recorded, which it is only where there is room.
    pub(super) fn count(
        &mut self,
        sample: &Sample,
        candidate: &Snapshot,
        answer: &Answer,
        step: Option<Step>,
        has_room: bool,
    ) -> bool {
        self.evaluated += 1;
        let Some(step) = step else {
            self.same += 1;
            return false;
        };
        *self.steps.entry(step).or_default() += 1;
        let action = entity(&sample.attempt.action.uid);
        let key = GroupKey {
            step,
            action: (action.r#type.into(), action.id.into()),
            in_force_policies: shown(sample.answer.policies(&sample.snapshot)),
            candidate_policies: shown(answer.policies(candidate)),
        };
        let is_full = self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&key);
        if is_full {
            self.ungrouped += 1;
            return false;
        }
        let at_ms = sample.occasion.now.wall_ms;
        let group = self.groups.entry(key).or_insert_with(|| Group {
            count: 0,
            recorded: 0,
            first_ms: at_ms,
            last_ms: at_ms,
            candidate_reasons: answer.codes(),
            decision_id: sample.occasion.id.hyphenated().to_smolstr(),
            principal: entity(&sample.attempt.principal),
            resource: entity(&sample.attempt.resource),
        });
        group.count += 1;
        group.last_ms = group.last_ms.max(at_ms);
        if group.recorded >= RECORDS_PER_GROUP || !has_room {
            return false;
        }
        group.recorded += 1;
        self.recorded += 1;
        true
    }

    /// The groups, the most permissive change first, then the most frequent; at most `max`.
    #[must_use]
    pub fn top(&self, max: usize) -> Vec<(&GroupKey, &Group)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by(|(one, a), (other, b)| {
            (one.step, std::cmp::Reverse(a.count)).cmp(&(other.step, std::cmp::Reverse(b.count)))
        });
        groups.truncate(max);
        groups
    }
}

fn shown(policies: impl Iterator<Item = SmolStr>) -> Vec<SmolStr> {
    let mut names: Vec<SmolStr> = policies.take(POLICIES_SHOWN + 1).collect();
    if let Some(beyond) = names.get_mut(POLICIES_SHOWN) {
        *beyond = SmolStr::new_static("…");
    }
    names
}
