//! An attempt compared with what its bundle approved, where a policy reads it.
//!
//! Pure: bundle, attempt, facts and time make the comparison, so that another bundle's policies can compare the same attempt anew. Nothing
//! is allocated for up to [`NAMES_INLINE`] targets and as many references, and no text is built before somebody must be told.

use cardea_behavior::attempt::{bounded, is_target, pieces};
use cardea_behavior::evidence::{Subject, evidence};
use cardea_behavior::{
    ActionClass, Assessment, Baselines, Deviation, Flag, Hints, Observed, Scope, SessionBehavior, compare,
    find,
};
use cardea_policy_store::approvals::TargetField;
use cardea_policy_store::index::PolicyIndex;
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::attempt::Attempt;
use crate::decide::Question;
use crate::facts::{Facts, SessionFacts, TaskFacts};
use crate::reason::ReasonCode;
use crate::task::Task;
use crate::time::Now;
use crate::verdict::{Decision, Deviated, DeviationTold, Verdict};

/// Targets, and references, that are compared without allocating; measured agents name one to five.
pub const NAMES_INLINE: usize = 8;

pub(crate) type Names<'s> = SmallVec<[&'s str; NAMES_INLINE]>;

/// What comparing came to, as policies read it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Comparison {
    /// How the attempt deviates.
    pub deviation: Deviation,
    /// Deviations of the session before it.
    pub deviations: u32,
    /// What they weigh by now.
    pub risk: u32,
}

/// An attempt as the monitor sees it.
pub(crate) struct Compared<'s> {
    question: &'s Question<'s>,
    task: Option<&'s Task>,
    names_task: bool,
    class: ActionClass,
    is_out_of_window: bool,
    targets: Names<'s>,
    references: Names<'s>,
    network: &'s str,
    token_age_s: Option<u64>,
    burst_score: f32,
    baselines: Baselines<'s>,
    session: SessionBehavior,
    pub(crate) comparison: Comparison,
    /// How it deviates, whatever policies read.
    deviation: Deviation,
    is_observed: bool,
}

impl<'s> Compared<'s> {
    /// Compares, if a candidate reads what comes of it. Where values are told, nothing is compared.
    pub(crate) fn of(question: &'s Question<'s>, facts: &'s Facts, now: Now) -> Option<Self> {
        let is_told = matches!(facts.session, SessionFacts::Told(_));
        (question.needs().compares() && !is_told).then(|| Self::new(question, facts, now))
    }

    fn new(question: &'s Question<'s>, facts: &'s Facts, now: Now) -> Self {
        let (attempt, snapshot) = (question.attempt(), question.snapshot());
        let settings = &snapshot.settings().behavior;
        let task = facts.task(facts.session.session());
        let references = references(attempt, &settings.references);
        let mut compared = Self {
            question,
            task,
            names_task: match facts.task {
                TaskFacts::OfSession => task.is_some(),
                TaskFacts::Approved(..) | TaskFacts::Unknown => true,
            },
            class: class(attempt, &settings.hints),
            is_out_of_window: task.is_some_and(|task| !task.is_active(now)),
            targets: targets(attempt, &references),
            references,
            network: attempt.request.texts(&settings.network).next().unwrap_or_default(),
            token_age_s: token_age_s(attempt, now),
            burst_score: facts.burst_score,
            baselines: snapshot.approvals().of(&attempt.principal, task.map(|task| task.id.as_str())),
            session: SessionBehavior::default(),
            comparison: Comparison::default(),
            deviation: Deviation::default(),
            is_observed: snapshot.approvals().observing().covers(&attempt.principal, now.wall_ms),
        };
        compared.session = compared.so_far(facts);
        compared.deviation = compared.deviation(false);
        compared.comparison = compared.as_read(now);
        compared
    }

    /// What policies read: of an identity that is observed nothing of what its baseline lacks.
    fn as_read(&self, now: Now) -> Comparison {
        match self.is_observed.then(|| self.deviation.excused(self.class)).flatten() {
            Some(deviation) => Comparison { deviation, deviations: 0, risk: 0 },
            None => Comparison {
                deviation: self.deviation,
                deviations: self.session.deviations(),
                risk: self.session.risk(now.wall_ms),
            },
        }
    }

    /// What the session did, as far as its attempts were compared; of one whose attempts were not, the action before.
    fn so_far(&self, facts: &Facts) -> SessionBehavior {
        let known = facts.monitored.filter(|monitored| monitored.attempts() > 0);
        known.unwrap_or_else(|| match facts.previous_action() {
            Some(action) => SessionBehavior::after(self.question.snapshot().approvals().key().text(action)),
            None => SessionBehavior::default(),
        })
    }

    fn observed(&self, is_denied: bool) -> Observed<'_> {
        let attempt = self.question.attempt();
        let covers = |task: &Task| task.covers(&attempt.action.uid, &attempt.resource);
        Observed {
            action: attempt.action.uid.id(),
            class: self.class,
            targets: &self.targets,
            references: &self.references,
            network: self.network,
            token_age_s: self.token_age_s,
            is_denied,
            names_task: self.names_task,
            // A task that nobody knows was declared for nothing.
            scope: match self.task {
                Some(task) if covers(task) => Scope::Inside,
                None if !self.names_task => Scope::Undeclared,
                Some(_) | None => Scope::Outside,
            },
            is_out_of_window: self.is_out_of_window,
            purpose: self.task.map(|task| task.purpose.as_str()).unwrap_or_default(),
            burst_score: self.burst_score,
        }
    }

    fn deviation(&self, is_denied: bool) -> Deviation {
        let snapshot = self.question.snapshot();
        let (rules, key) = (&snapshot.settings().behavior.rules, snapshot.approvals().key());
        compare(rules, key, &self.observed(is_denied), &self.baselines, &self.session)
    }

    /// Says in the verdict how the attempt deviated; in words, unless it is a plain allow of what does not deviate.
    pub(crate) fn tell(&self, verdict: &mut Verdict) {
        if !verdict.asked {
            return;
        }
        let is_denied = denies_by_itself(self.question, verdict);
        let deviation = if is_denied { self.deviation(true) } else { self.deviation };
        let is_plain = verdict.decision == Decision::Allow && deviation.assessment == Assessment::None;
        let told = (!is_plain).then(|| Box::new(self.words(&deviation, is_denied)));
        let task = match self.task {
            Some(task) => Some(task.id.clone()),
            None => (!self.names_task).then(SmolStr::default),
        };
        let (read, is_observed) = (self.comparison, self.is_observed);
        verdict.deviated = Some(Deviated { read, deviation, told, task, is_observed });
    }

    fn words(&self, deviation: &Deviation, is_denied: bool) -> DeviationTold {
        let principal = self.question.attempt().principal.to_string();
        let task = self.task.map(|task| task.id.as_str()).unwrap_or_default();
        let subject = Subject { principal: &principal, task };
        let baseline = self.baselines.task.or(self.baselines.identity);
        DeviationTold {
            evidence: evidence(deviation, subject, &self.observed(is_denied), &self.baselines),
            baseline: baseline.map(|baseline| baseline.version().into()).unwrap_or_default(),
        }
    }
}

impl Comparison {
    /// Whether a flag is set.
    #[must_use]
    pub const fn has(&self, flag: Flag) -> bool {
        self.deviation.flags.has(flag)
    }
}

/// Whether policies deny that read nothing of the comparison: then the denial itself is evidence.
fn denies_by_itself(question: &Question<'_>, verdict: &Verdict) -> bool {
    let snapshot = question.snapshot();
    let action = &question.attempt().action;
    let compares = |index: &PolicyIndex| snapshot.needs(&[*index], action).compares();
    let candidates = || question.candidates().iter().flatten();
    let permits = |index: &&PolicyIndex| snapshot.policy(**index).is_some_and(|policy| !policy.forbids);
    verdict.decision == Decision::Deny
        && verdict.reasons.iter().any(|reason| match reason.policy {
            Some(policy) => !compares(&policy),
            None => reason.code == ReasonCode::NoPermit && !candidates().filter(permits).any(compares),
        })
}

pub(crate) fn targets<'s>(attempt: &'s Attempt, references: &[&str]) -> Names<'s> {
    let Some(fields) = &attempt.action.monitored().targets else {
        return SmallVec::from_slice(&[attempt.resource.id()]);
    };
    let in_field = |TargetField { name, is_list }: &'s TargetField| {
        attempt.request.texts(name).flat_map(move |text| {
            let (one, several) = if *is_list { (None, Some(pieces(text))) } else { (Some(text), None) };
            one.into_iter().chain(several.into_iter().flatten())
        })
    };
    let named = fields.iter().flat_map(in_field).filter(|target| is_target(target, references));
    bounded(named).collect()
}

/// Those that the enforcement point names, and those that stand in the texts which the bundle has searched.
pub(crate) fn references<'s>(attempt: &'s Attempt, fields: &'s [SmolStr]) -> Names<'s> {
    let told = fields.iter().flat_map(|field| attempt.request.texts(field));
    let searched =
        attempt.action.monitored().search.iter().flat_map(|field| attempt.request.texts_within(field));
    bounded(told.chain(searched.flat_map(find::references))).collect()
}

/// What the bundle says that the action does, or what its tool says of itself if that is stricter.
fn class(attempt: &Attempt, hints: &str) -> ActionClass {
    let class = attempt.action.monitored().class;
    if hints.is_empty() {
        return class;
    }
    let is_hinted = |name| attempt.request.flag(hints, name);
    class.hinted(Hints {
        is_destructive: is_hinted("destructiveHint"),
        is_open_world: is_hinted("openWorldHint"),
    })
}

/// A token of unknown age counts as brand-new.
fn token_age_s(attempt: &Attempt, now: Now) -> Option<u64> {
    let token = attempt.token.as_deref()?;
    let age_s = token.issued_ms.map_or(0, |issued| now.since_s(issued));
    Some(u64::try_from(age_s).unwrap_or(0))
}

impl Facts {
    /// The action that the session was last allowed.
    fn previous_action(&self) -> Option<&str> {
        let behavior = match &self.session {
            SessionFacts::Known(_, behavior) => behavior,
            SessionFacts::Unknown
            | SessionFacts::Revoked
            | SessionFacts::Untellable
            | SessionFacts::Unreadable
            | SessionFacts::Told(_) => return None,
        };
        Some(behavior.previous_action.as_str()).filter(|action| !action.is_empty())
    }
}

#[cfg(test)]
mod tests;
