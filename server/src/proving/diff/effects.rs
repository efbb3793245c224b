//! Verdicts that change between two bundles, grouped, the most permissive changes first.
//!
//! Limits: [`GROUPS_MAX`] groups, [`EXAMPLES_MAX`] examples of each; what is beyond is counted.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::proving::matrix::Answer;

/// Most groups that are told apart: more than a review reads.
pub const GROUPS_MAX: usize = 10_000;
/// Most examples of a group.
pub const EXAMPLES_MAX: usize = 3;

/// Where a change leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// More is possible than before.
    Widening,
    /// Less is.
    Tightening,
}

/// Changes that are alike: from what to what, settled by which policies, for which action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Where it leads.
    pub direction: Direction,
    /// The action.
    pub action: String,
    /// The answer of the old bundle.
    pub old: Answer,
    /// The answer of the new one.
    pub new: Answer,
    /// How many there are.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<String>,
    /// How many of them rest on facts that the new bundle reads and nobody recorded.
    #[serde(skip_serializing_if = "is_zero")]
    pub with_unknown_facts: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a change of bundle does to a list of questions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Effects {
    /// Questions that were put to both bundles.
    pub compared: u64,
    /// Those whose verdict changes.
    pub changed: u64,
    /// Those of them where more is possible than before.
    pub widening: u64,
    /// Changes beyond the most groups.
    #[serde(skip_serializing_if = "is_zero")]
    pub not_grouped: u64,
    /// The changes, the most permissive first.
    pub groups: Vec<Group>,
    #[serde(skip)]
    found: BTreeMap<(u8, Answer, Answer, String), Group>,
}

impl Effects {
    /// Takes in the two answers to one question.
    pub(super) fn note(
        &mut self,
        old: &Answer,
        new: &Answer,
        action: &str,
        has_unknown_facts: bool,
        example: impl FnOnce() -> String,
    ) {
        self.compared += 1;
        let Some(rank) = rank(old, new) else { return };
        let direction = if rank < TIGHTENING_FROM { Direction::Widening } else { Direction::Tightening };
        self.changed += 1;
        self.widening += u64::from(direction == Direction::Widening);
        let key = (rank, old.clone(), new.clone(), action.to_owned());
        if self.found.len() >= GROUPS_MAX && !self.found.contains_key(&key) {
            self.not_grouped += 1;
            return;
        }
        let group = self.found.entry(key).or_insert_with(|| Group {
            direction,
            action: action.to_owned(),
            old: old.clone(),
            new: new.clone(),
            count: 0,
            examples: Vec::new(),
            with_unknown_facts: 0,
        });
        group.count += 1;
        group.with_unknown_facts += u64::from(has_unknown_facts);
        if group.examples.len() < EXAMPLES_MAX {
            group.examples.push(example());
        }
    }

    /// All questions are in: puts the groups in order.
    #[must_use]
    pub(super) fn ordered(mut self) -> Self {
        let mut groups: Vec<(u8, Group)> =
            std::mem::take(&mut self.found).into_iter().map(|((rank, ..), group)| (rank, group)).collect();
        // The sort is stable: groups of the same kind and size stay in the order of their keys.
        groups.sort_by_key(|(rank, group)| (*rank, std::cmp::Reverse(group.count)));
        self.groups = groups.into_iter().map(|(_, group)| group).collect();
        self
    }
}

/// The first rank that tightens.
const TIGHTENING_FROM: u8 = 4;

/// How permissive a change is, the most permissive first; `None` if nothing changes for the caller.
fn rank(old: &Answer, new: &Answer) -> Option<u8> {
    let loses = |before: &[String], after: &[String]| before.iter().any(|one| !after.contains(one));
    match (old.verdict, new.verdict) {
        ("deny", "allow") => Some(0),
        ("step_up", "allow") => Some(1),
        ("deny", "step_up") => Some(2),
        ("allow", "deny") => Some(4),
        ("allow", "step_up") => Some(5),
        ("step_up", "deny") => Some(6),
        // The same answer that asks for less is a widening, one that asks for more a tightening.
        _ if loses(&old.requirements, &new.requirements) || loses(&old.obligations, &new.obligations) => {
            Some(3)
        }
        _ if loses(&new.requirements, &old.requirements) || loses(&new.obligations, &old.obligations) => {
            Some(7)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(verdict: &'static str, obligations: &[&str]) -> Answer {
        Answer {
            verdict,
            policies: Vec::new(),
            reasons: Vec::new(),
            requirements: Vec::new(),
            obligations: obligations.iter().map(|&one| one.to_owned()).collect(),
        }
    }

    #[test]
    fn the_most_permissive_changes_come_first_and_equal_ones_count_together() {
        let all = ["allow", "step_up", "deny"];
        let mut effects = Effects::default();
        for old in all {
            for new in all {
                effects.note(&answer(old, &[]), &answer(new, &[]), "read", false, || "x".to_owned());
                effects.note(&answer(old, &[]), &answer(new, &[]), "read", true, || "y".to_owned());
            }
        }
        effects.note(&answer("allow", &["log"]), &answer("allow", &[]), "read", false, || "z".to_owned());
        let effects = effects.ordered();
        assert_eq!((effects.compared, effects.changed, effects.widening), (19, 13, 7));
        let order: Vec<_> =
            effects.groups.iter().map(|one| (one.old.verdict, one.new.verdict, one.count)).collect();
        let expected = [
            ("deny", "allow", 2),
            ("step_up", "allow", 2),
            ("deny", "step_up", 2),
            ("allow", "allow", 1),
            ("allow", "deny", 2),
            ("allow", "step_up", 2),
            ("step_up", "deny", 2),
        ];
        assert_eq!(order, expected);
        assert_eq!(effects.groups[0].with_unknown_facts, 1);
    }
}
