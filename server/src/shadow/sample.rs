//! One attempt with everything that its answer came from, so that a candidate can be asked the same question.
//!
//! Made on the deciding thread from shared pieces; everything else happens on the thread of the shadow.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use cardea_core::attempt::Attempt;
use cardea_core::counters::CounterFact;
use cardea_core::decide::{Question, decide};
use cardea_core::facts::Facts;
use cardea_core::reason::{Reason, ReasonCode};
use cardea_core::time::Now;
use cardea_core::verdict::{Decision, Lease, Policies, Verdict};
use cardea_policy_store::counters::Counter;
use cardea_policy_store::settings::Requirement;
use cardea_policy_store::snapshot::Snapshot;
use cardea_proto::v1;
use smallvec::SmallVec;
use smol_str::SmolStr;
use uuid::Uuid;

use crate::pipeline::{Door, entity};

/// Most policies that a record names for one answer; a record is a line that people read.
const POLICIES_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Which decision it is.
    pub(crate) occasion: Occasion,
    /// What decided it.
    pub(crate) snapshot: Arc<Snapshot>,
    /// The attempt.
    pub(crate) attempt: Attempt,
    /// What was known at that instant, with everything that any policy could read.
    pub(crate) facts: Facts,
    /// The answer that was given.
    pub(crate) answer: Answer,
}

/// Which decision it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occasion {
    /// Names the decision.
    pub(crate) id: Uuid,
    /// Where the attempt came in.
    pub(crate) door: Door,
    /// When it was decided.
    pub(crate) now: Now,
}

/// The parts of a verdict that enforcement points act on, and what settled them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(super) decision: Decision,
    reasons: SmallVec<[Reason; 1]>,
    determining: Policies,
    requirements: SmallVec<[u16; 4]>,
    obligations: Policies,
    lease: Lease,
    message: Option<SmolStr>,
}

/// How the candidate's answer differs, from what matters most to what matters least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// It is more open.
    Widened,
    /// It is stricter.
    Tightened,
    /// The decision is the same, and its details are not.
    Changed,
}

impl Effect {
    /// The wire's name for it.
    #[must_use]
    pub const fn on_wire(self) -> v1::ShadowEffect {
        match self {
            Self::Widened => v1::ShadowEffect::Widened,
            Self::Tightened => v1::ShadowEffect::Tightened,
            Self::Changed => v1::ShadowEffect::Changed,
        }
    }
}

impl From<&Verdict> for Answer {
    fn from(verdict: &Verdict) -> Self {
        Self {
            decision: verdict.decision(),
            reasons: verdict.reasons().into(),
            determining: verdict.determining().into(),
            requirements: verdict.requirements().into(),
            obligations: verdict.obligations().into(),
            lease: verdict.lease(),
            message: verdict.message().map(SmolStr::new),
        }
    }
}

impl Sample {
    /// The verdict that the candidate would have given at that instant. An attempt that its schema refuses is a deny, as
    /// a door would give it.
    pub(crate) fn judge(&self, candidate: &Snapshot) -> Verdict {
        match self.attempt.for_snapshot(candidate) {
            Ok(attempt) => {
                let facts = self.facts_for(candidate);
                decide(&Question::new(candidate, &attempt), &facts, self.occasion.now)
            }
            Err(refused) => Verdict::deny_because(refused.code, refused.message),
        }
    }

    /// A counter that the bundle in force does not have would begin with the candidate.
    fn facts_for(&self, candidate: &Snapshot) -> Cow<'_, Facts> {
        let is_known =
            |counter: &&Counter| self.facts.counters.iter().any(|fact| fact.definition == counter.definition);
        let mut facts = Cow::Borrowed(&self.facts);
        for counter in candidate.counters().iter().filter(|counter| !is_known(counter)) {
            facts.to_mut().counters.push(CounterFact::beginning(counter, self.occasion.now.wall_ms));
        }
        facts
    }

    /// How the candidate's answer differs; `None` if an enforcement point could not tell the two apart.
    pub(super) fn effect(&self, candidate: &Snapshot, answer: &Answer) -> Option<Effect> {
        match answer.decision.cmp(&self.answer.decision) {
            std::cmp::Ordering::Less => Some(Effect::Widened),
            std::cmp::Ordering::Greater => Some(Effect::Tightened),
            std::cmp::Ordering::Equal => {
                let same = self.answer.details(&self.snapshot) == answer.details(candidate);
                (!same).then_some(Effect::Changed)
            }
        }
    }

    /// The record of a difference.
    pub(super) fn record(&self, candidate: &Snapshot, answer: &Answer, effect: Effect) -> v1::ShadowRecord {
        v1::ShadowRecord {
            decision_id: self.occasion.id.hyphenated().to_string(),
            door: self.occasion.door.name().to_owned(),
            principal: Some(entity(&self.attempt.principal)),
            action: Some(entity(&self.attempt.action.uid)),
            resource: Some(entity(&self.attempt.resource)),
            session_id: self.attempt.session_id.as_ref().map(SmolStr::to_string).unwrap_or_default(),
            effect: effect.on_wire().into(),
            in_force: Some(self.answer.spoken(&self.snapshot)),
            candidate: Some(answer.spoken(candidate)),
        }
    }
}

/// What an enforcement point can see of an answer beside the decision.
type Details<'a> = (BTreeSet<ReasonCode>, Vec<&'a (SmolStr, Requirement)>, BTreeSet<&'a SmolStr>, Lease);

impl Answer {
    /// The codes of its reasons.
    pub(super) fn codes(&self) -> BTreeSet<ReasonCode> {
        self.reasons.iter().map(|reason| reason.code).collect()
    }

    /// Names of the policies that settled it, by the snapshot that gave it.
    pub(super) fn policies<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = SmolStr> + 'a {
        self.determining.iter().filter_map(|at| Some(snapshot.policy(*at)?.id.clone()))
    }

    fn details<'a>(&self, snapshot: &'a Snapshot) -> Details<'a> {
        let mut requirements: Vec<_> = self.requirements(snapshot).collect();
        requirements.sort_by(|one, other| one.0.cmp(&other.0));
        (self.codes(), requirements, self.obligations(snapshot).collect(), self.lease)
    }

    fn requirements<'a>(&self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a (SmolStr, Requirement)> {
        self.requirements.iter().filter_map(|at| snapshot.requirement(*at))
    }

    fn obligations<'a>(&self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a SmolStr> {
        self.obligations.iter().filter_map(|at| snapshot.policy(*at)?.obligation.as_ref())
    }

    fn spoken(&self, snapshot: &Snapshot) -> v1::ShadowAnswer {
        let reason = |reason: &Reason| v1::Reason {
            code: crate::doors::reason_code(reason.code).into(),
            message: crate::pipeline::reason_words(*reason, self.message.as_deref(), Some(snapshot))
                .to_owned(),
        };
        v1::ShadowAnswer {
            revision: snapshot.settings().revision,
            digest: snapshot.digest().to_string(),
            decision: crate::doors::decision(self.decision).into(),
            reasons: self.reasons.iter().map(reason).collect(),
            determining_policies: self.policies(snapshot).take(POLICIES_MAX).map(Into::into).collect(),
            step_up: self.requirements(snapshot).map(|(name, _)| name.to_string()).collect(),
            obligations: self.obligations(snapshot).map(SmolStr::to_string).collect(),
            lease_ms: self.lease.lease_ms,
        }
    }
}
