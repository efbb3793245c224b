//! The answer to an attempt, with everything it rests on.

use cardea_behavior::Deviation;
use cardea_policy_store::engine::Unevaluable;
pub use cardea_policy_store::fragment::FactValue;
use cardea_policy_store::fragment::{Fact, Needs};
use cardea_policy_store::index::PolicyIndex;
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::comparison::Comparison;
use crate::consequences::Consequences;
use crate::counters::Counted;
use crate::reason::{Reason, ReasonCode};

/// The three answers, from open to strict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// The action may run.
    Allow,
    /// It may run once the requirements are met.
    StepUp,
    /// It must not run.
    Deny,
}

impl Decision {
    /// Its name in records, metrics and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::StepUp => "step_up",
            Self::Deny => "deny",
        }
    }
}

/// One fact that a determining policy read, with the value it had.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The fact.
    pub fact: Fact,
    /// Its value.
    pub value: FactValue,
    /// Where the value comes from, in words; empty if there is nothing to add.
    pub why: String,
}

/// How an attempt deviated from what was approved; only where a candidate reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Deviated {
    /// What policies read.
    pub read: Comparison,
    /// The same once the answer is known: what policies deny that read nothing of it is judged as denied.
    pub deviation: Deviation,
    /// In words; `None`: a plain allow of what does not deviate.
    pub told: Option<Box<DeviationTold>>,
    /// The task that it was compared in, empty if none was named; `None`: one that it may not use, of which nothing can be learned.
    pub task: Option<SmolStr>,
    /// Its identity is observed: policies read nothing of what its baseline lacks.
    pub is_observed: bool,
}

/// A deviation in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviationTold {
    /// A sentence for each missing entry.
    pub evidence: Vec<String>,
    /// The baseline that says so; empty: none.
    pub baseline: SmolStr,
}

/// What one hop of a delegation chain came to.
#[derive(Clone, Debug, PartialEq)]
pub struct HopVerdict {
    /// Its answer.
    pub decision: Decision,
    /// The policies that settled it.
    pub determining: Policies,
}

/// How long an allow may be reused without asking again, and for which attempts: those with the same principal, action,
/// resource and delegation chain, and with the same of what it says it rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// For an enforcement point that keeps no Hold stream, in milliseconds; 0: ask every time.
    pub lease_ms: u32,
    /// For one that keeps a Hold stream and forgets what it is told to, in milliseconds; at least `lease_ms`.
    pub held_lease_ms: u32,
    /// It rests on the session; if not, the attempt had none, and it holds only for attempts without one.
    pub on_session: bool,
    /// It rests on what the enforcement point sent of the request.
    pub on_context: bool,
    /// It rests on the token; if not, the attempt had none, and it holds only for attempts without one.
    pub on_token: bool,
    /// How long it may be used after the Hold stream was lost, in milliseconds.
    pub stream_loss_max_ms: u32,
}

/// Policies of the snapshot that judged, in the order of the bundle.
pub type Policies = SmallVec<[PolicyIndex; 4]>;

/// See the module. Only [`crate::decide::decide`] builds one that allows or steps up.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub(crate) decision: Decision,
    pub(crate) reasons: SmallVec<[Reason; 1]>,
    pub(crate) message: Option<Box<str>>,
    pub(crate) determining: Policies,
    pub(crate) errors: Vec<(PolicyIndex, Unevaluable)>,
    pub(crate) requirements: SmallVec<[u16; 4]>,
    pub(crate) obligations: Policies,
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) needs: Needs,
    pub(crate) hops: Vec<HopVerdict>,
    pub(crate) lease: Lease,
    pub(crate) deviated: Option<Deviated>,
    pub(crate) consequences: Option<Box<Consequences>>,
    pub(crate) counters: Vec<Counted>,
    pub(crate) candidates: u32,
    pub(crate) asked: bool,
}

impl Verdict {
    /// Deny, without policy having been asked.
    #[must_use]
    pub fn deny(code: ReasonCode) -> Self {
        Self {
            decision: Decision::Deny,
            reasons: SmallVec::from_elem(code.into(), 1),
            message: None,
            determining: Policies::new(),
            errors: Vec::new(),
            requirements: SmallVec::new(),
            obligations: Policies::new(),
            evidence: Vec::new(),
            needs: Needs::default(),
            hops: Vec::new(),
            lease: Lease::default(),
            deviated: None,
            consequences: None,
            counters: Vec::new(),
            candidates: 0,
            asked: false,
        }
    }

    /// Deny, with a message for the caller that says more than the code.
    #[must_use]
    pub fn deny_because(code: ReasonCode, message: impl Into<Box<str>>) -> Self {
        Self { message: Some(message.into()), ..Self::deny(code) }
    }

    /// The answer.
    #[must_use]
    pub fn decision(&self) -> Decision {
        self.decision
    }

    /// Why it is not a plain allow, the weightiest first; empty for an allow.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// What to tell the caller about the first reason, where no policy does and the code alone says too little.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// The policies that settled it: the satisfied forbids of a deny or step-up, the permits of an allow.
    #[must_use]
    pub fn determining(&self) -> &[PolicyIndex] {
        &self.determining
    }

    /// Policies that could not be evaluated, and why.
    #[must_use]
    pub fn errors(&self) -> &[(PolicyIndex, Unevaluable)] {
        &self.errors
    }

    /// What a step-up asks for, as places of [`cardea_policy_store::snapshot::Snapshot::requirement`].
    #[must_use]
    pub fn requirements(&self) -> &[u16] {
        &self.requirements
    }

    /// Policies whose obligations come with an allow.
    #[must_use]
    pub fn obligations(&self) -> &[PolicyIndex] {
        &self.obligations
    }

    /// Facts that the determining policies read, and how the attempt deviates, if anything must be said of that.
    #[must_use]
    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }

    /// Facts that any candidate read.
    #[must_use]
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// The answer for each hop, root first; empty without delegation.
    #[must_use]
    pub fn hops(&self) -> &[HopVerdict] {
        &self.hops
    }

    /// How long an allow may be reused without asking again, and for which attempts.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// How the attempt deviated from what was approved, if a candidate reads that.
    #[must_use]
    pub fn deviated(&self) -> Option<&Deviated> {
        self.deviated.as_ref()
    }

    /// What it has done beside its answer, if anything.
    #[must_use]
    pub fn consequences(&self) -> Option<&Consequences> {
        self.consequences.as_deref()
    }

    /// The counters that a candidate read, or that the attempt is counted by.
    #[must_use]
    pub fn counters(&self) -> &[Counted] {
        &self.counters
    }

    /// Whether policy was asked; false for what was disqualified before.
    #[must_use]
    pub fn policy_was_asked(&self) -> bool {
        self.asked
    }

    /// How many candidate policies were evaluated, over all hops.
    #[must_use]
    pub fn candidates(&self) -> u32 {
        self.candidates
    }
}
