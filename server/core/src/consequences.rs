//! What a verdict has done beside its answer: labels, responses, and what policies in dry run would have made of it.
//!
//! Only policies that settle the answer count, and labels only with an allow. Nothing is done here: the shell carries out what a verdict
//! of an attempt that is made says; one that is only judged again has nothing carried out.

use cardea_policy_store::index::PolicyIndex;
use cardea_policy_store::snapshot::{Policy, Snapshot};

use crate::reason::ReasonCode;
use crate::verdict::{Decision, Verdict};

/// See the module. Places are those of [`cardea_policy_store::responses::Declared`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consequences {
    /// Labels for the session.
    pub labels: Vec<u16>,
    /// Responses, each with the first policy that asks for it.
    pub responses: Vec<(u16, PolicyIndex)>,
    /// Policies in dry run that were satisfied; once the verdict stands, those without which it would be another.
    pub dry: Vec<PolicyIndex>,
}

impl Consequences {
    /// Of one hop's answer; `None` where there are none, as in nearly all bundles.
    pub(crate) fn of(
        snapshot: &Snapshot,
        determining: &[PolicyIndex],
        allows: bool,
        dry: Vec<PolicyIndex>,
    ) -> Option<Box<Self>> {
        if !snapshot.declared().acts && dry.is_empty() {
            return None;
        }
        let mut found = Self { dry, ..Self::default() };
        for index in determining {
            let Some(effects) = snapshot.policy(*index).and_then(|policy| policy.effects.as_ref()) else {
                continue;
            };
            if allows {
                found.add_labels(&effects.labels);
            }
            found.add_responses(effects.responses.iter().map(|response| (*response, *index)));
        }
        (found != Self::default()).then(|| Box::new(found))
    }

    /// Of two hops: what the stricter answer has done, or both where they are the same; what is in dry run is told of both.
    pub(crate) fn meet(kept: Option<Box<Self>>, left: Option<Box<Self>>, both: bool) -> Option<Box<Self>> {
        let Some(left) = left else { return kept };
        let mut kept = kept.unwrap_or_default();
        if both {
            kept.add_labels(&left.labels);
            kept.add_responses(left.responses.iter().copied());
        }
        for index in left.dry {
            if !kept.dry.contains(&index) {
                kept.dry.push(index);
            }
        }
        Some(kept)
    }

    fn add_labels(&mut self, labels: &[u16]) {
        for label in labels {
            if !self.labels.contains(label) {
                self.labels.push(*label);
            }
        }
    }

    fn add_responses(&mut self, responses: impl Iterator<Item = (u16, PolicyIndex)>) {
        for (response, policy) in responses {
            if !self.responses.iter().any(|(known, _)| *known == response) {
                self.responses.push((response, policy));
            }
        }
    }
}

/// Leaves of the policies in dry run those that would have changed this answer.
pub(crate) fn keep_what_would_differ(snapshot: &Snapshot, verdict: &mut Verdict) {
    let (decision, no_permit) = (verdict.decision, is_without_permit(verdict));
    let Some(consequences) = &mut verdict.consequences else { return };
    consequences.dry.retain(|index| {
        snapshot.policy(*index).is_some_and(|policy| match would_have(policy) {
            Decision::Allow => no_permit,
            stricter @ (Decision::StepUp | Decision::Deny) => stricter > decision,
        })
    });
}

/// What a satisfied policy asks for by itself.
#[must_use]
pub fn would_have(policy: &Policy) -> Decision {
    match (policy.forbids, policy.step_up) {
        (false, _) => Decision::Allow,
        (true, Some(_)) => Decision::StepUp,
        (true, None) => Decision::Deny,
    }
}

fn is_without_permit(verdict: &Verdict) -> bool {
    verdict.reasons.iter().any(|reason| reason.code == ReasonCode::NoPermit)
}

/// Whether something takes the lease from an allow: a response that says so, or a label that ends some time after the last attempt that
/// sets it. Whoever reuses the allow makes no attempt here, and the label would end while what sets it goes on.
pub(crate) fn narrows(snapshot: &Snapshot, verdict: &Verdict) -> bool {
    verdict.consequences.as_ref().is_some_and(|consequences| {
        let declared = snapshot.declared();
        let narrows = |(response, _): &(u16, PolicyIndex)| {
            declared.response(*response).is_some_and(|(_, response)| response.narrow)
        };
        let ends = |label: &u16| declared.label(*label).is_some_and(|(_, label)| label.for_s.is_some());
        consequences.responses.iter().any(narrows) || consequences.labels.iter().any(ends)
    })
}
