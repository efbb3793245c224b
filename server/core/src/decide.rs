//! Decides one attempt. Pure: same inputs, same verdict, on every node.
//!
//! The snapshot and the attempt come as a [`Question`], because the candidates that the index finds tell which
//! facts must be gathered before `decide` can be called.
//!
//! INVARIANT (deny by default): `Allow` is built in exactly one place, the last line of `Answer::settle`.

use cardea_policy_store::engine::{ContextLayout, Reads, Record, Scene, Uid, Unevaluable, Value};
use cardea_policy_store::fragment::{CounterField, CounterSet, Fact, Group, Needs};
use cardea_policy_store::index::{Candidates, PolicyIndex};
use cardea_policy_store::snapshot::{Policy, Snapshot};
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::attempt::Attempt;
use crate::boundary;
use crate::comparison::{Compared, Comparison};
use crate::consequences::{self, Consequences};
use crate::facts::{Facts, Reading};
use crate::reason::{Reason, ReasonCode};
use crate::time::Now;
use crate::verdict::{Decision, Evidence, FactValue, HopVerdict, Lease, Policies, Verdict};

/// An attempt, the snapshot that judges it, and the policies that can matter.
#[derive(Debug)]
pub struct Question<'q> {
    snapshot: &'q Snapshot,
    attempt: &'q Attempt,
    /// One entry per hop, root first.
    candidates: SmallVec<[Candidates; 1]>,
    needs: Needs,
}

impl<'q> Question<'q> {
    /// Looks up the candidates of each hop.
    #[must_use]
    pub fn new(snapshot: &'q Snapshot, attempt: &'q Attempt) -> Self {
        let found = |hop| snapshot.candidates(hop, &attempt.action.uid, &attempt.resource);
        let candidates: SmallVec<[Candidates; 1]> = attempt.hops().map(found).collect();
        let needs = candidates
            .iter()
            .fold(Needs::default(), |needs, hop| needs.with(snapshot.needs(hop, &attempt.action)));
        let needs = match attempt.action.max_ages().risk_s {
            Some(_) => needs.and(Fact::RiskAge),
            None => needs,
        };
        Self { snapshot, attempt, candidates, needs }
    }

    /// The facts that the candidates read; others need not be gathered.
    #[must_use]
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// The counters that the candidates read, and those that the attempt is counted by.
    #[must_use]
    pub fn counters(&self) -> CounterSet {
        self.needs.counters().with(self.attempt.action.counted())
    }

    /// The policies that can matter to each hop, root first.
    #[must_use]
    pub fn candidates(&self) -> &[Candidates] {
        &self.candidates
    }

    /// The attempt.
    #[must_use]
    pub fn attempt(&self) -> &'q Attempt {
        self.attempt
    }

    /// The snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &'q Snapshot {
        self.snapshot
    }
}

/// The one path from a question and the facts to a verdict.
#[must_use]
pub fn decide(question: &Question<'_>, facts: &Facts, now: Now) -> Verdict {
    let Question { snapshot, attempt, needs, .. } = question;
    if snapshot.layout() == ContextLayout::Gathered
        && let Some(code) = facts.disqualify(attempt, snapshot.settings(), now)
    {
        return Verdict { needs: *needs, ..Verdict::deny(code) };
    }
    let compared = Compared::of(question, facts, now);
    let comparison = compared.as_ref().map(|compared| &compared.comparison);
    let mut verdict = judge(question, facts, comparison, now);
    if let Some(compared) = &compared {
        compared.tell(&mut verdict);
        name_deviation(&mut verdict);
    }
    if verdict.consequences.is_some() {
        consequences::keep_what_would_differ(snapshot, &mut verdict);
    }
    if !question.counters().is_empty() && verdict.asked {
        let evidence = snapshot.needs(&verdict.determining, &attempt.action).counters();
        verdict.counters = facts.counted(question.counters(), evidence, snapshot);
    }
    if verdict.decision == Decision::Allow {
        let lease = boundary::lease(question, facts, now);
        let is_narrowed = consequences::narrows(snapshot, &verdict);
        verdict.lease = if is_narrowed { Lease { lease_ms: 0, held_lease_ms: 0, ..lease } } else { lease };
    }
    verdict
}

fn judge(question: &Question<'_>, facts: &Facts, comparison: Option<&Comparison>, now: Now) -> Verdict {
    let Question { snapshot, attempt, candidates, .. } = question;
    let mut answers = attempt.hops().zip(candidates).enumerate().map(|(hop, (principal, candidates))| {
        let reading = Reading { attempt, settings: snapshot.settings(), comparison, hop, now };
        let mut answer = Answer::default();
        ask(question, facts, &reading, principal, candidates, |index, policy, said| {
            answer.hear(index, policy, said);
        });
        answer.settle(question, facts, &reading)
    });
    let Some(mut verdict) = answers.next() else { return Verdict::deny(ReasonCode::Malformed) };
    if attempt.delegation.is_empty() {
        return verdict;
    }
    verdict.hops.push(HopVerdict { decision: verdict.decision, determining: verdict.determining.clone() });
    for next in answers {
        verdict.hops.push(HopVerdict { decision: next.decision, determining: next.determining.clone() });
        verdict = meet(verdict, next);
    }
    verdict
}

/// What a policy's condition came to.
pub type Outcome = Result<bool, Unevaluable>;

/// What every candidate said, one list per hop, root first; empty where [`decide`] denies without asking policy.
/// For tests of policy: a verdict needs only what settled it.
#[must_use]
pub fn outcomes(question: &Question<'_>, facts: &Facts, now: Now) -> Vec<Vec<(PolicyIndex, Outcome)>> {
    let Question { snapshot, attempt, candidates, .. } = question;
    if snapshot.layout() == ContextLayout::Gathered
        && facts.disqualify(attempt, snapshot.settings(), now).is_some()
    {
        return Vec::new();
    }
    let compared = Compared::of(question, facts, now);
    let comparison = compared.as_ref().map(|compared| &compared.comparison);
    let of_hop = |(hop, (principal, candidates)): (usize, (_, &Candidates))| {
        let reading = Reading { attempt, settings: snapshot.settings(), comparison, hop, now };
        let mut said = Vec::with_capacity(candidates.len());
        ask(question, facts, &reading, principal, candidates, |index, _, outcome| {
            said.push((index, outcome))
        });
        said
    };
    attempt.hops().zip(candidates).enumerate().map(of_hop).collect()
}

/// Evaluates the candidates of one hop, in the order of the bundle.
#[inline]
fn ask(
    question: &Question<'_>,
    facts: &Facts,
    reading: &Reading<'_>,
    principal: &Uid,
    candidates: &Candidates,
    mut hear: impl FnMut(PolicyIndex, &Policy, Outcome),
) {
    let Question { snapshot, attempt, .. } = question;
    let told = Gathered { question, facts, reading };
    let scene = Scene::new(principal, &attempt.action.uid, &attempt.resource, &told, snapshot.world());
    for &index in candidates {
        if let Some(policy) = snapshot.policy(index) {
            hear(index, policy, scene.holds(&policy.condition));
        }
    }
}

/// What the candidates of one hop said.
#[derive(Default)]
struct Answer {
    permits: Policies,
    hard_forbids: Policies,
    soft_forbids: Policies,
    requirements: SmallVec<[u16; 4]>,
    errored_forbid: Option<PolicyIndex>,
    errors: Vec<(PolicyIndex, Unevaluable)>,
    /// Satisfied policies in dry run.
    dry: Vec<PolicyIndex>,
}

impl Answer {
    fn hear(&mut self, index: PolicyIndex, policy: &Policy, said: Outcome) {
        match said {
            Ok(false) => {}
            Ok(true) if policy.is_dry_run() => self.dry.push(index),
            Err(_) if policy.is_dry_run() => {}
            Ok(true) if !policy.forbids => self.permits.push(index),
            Ok(true) => match policy.step_up {
                None => self.hard_forbids.push(index),
                Some(requirement) => {
                    self.soft_forbids.push(index);
                    if !self.requirements.contains(&requirement) {
                        self.requirements.push(requirement);
                    }
                }
            },
            Err(error) => {
                self.errors.push((index, error));
                if policy.forbids && self.errored_forbid.is_none() {
                    self.errored_forbid = Some(index);
                }
            }
        }
    }

    fn settle(self, question: &Question<'_>, facts: &Facts, reading: &Reading<'_>) -> Verdict {
        let snapshot = question.snapshot;
        let errored_forbid = self.errored_forbid.filter(|_| !snapshot.skips_errors());
        let (decision, reasons): (Decision, SmallVec<[Reason; 1]>) = if !self.hard_forbids.is_empty() {
            let forbidden =
                |index: &PolicyIndex| Reason { code: ReasonCode::Forbidden, policy: Some(*index) };
            (Decision::Deny, self.hard_forbids.iter().map(forbidden).collect())
        } else if let Some(policy) = errored_forbid {
            (
                Decision::Deny,
                SmallVec::from_elem(Reason { code: ReasonCode::PolicyErrored, policy: Some(policy) }, 1),
            )
        } else if self.permits.is_empty() {
            (Decision::Deny, SmallVec::from_elem(ReasonCode::NoPermit.into(), 1))
        } else if !self.soft_forbids.is_empty() {
            let required =
                |index: &PolicyIndex| Reason { code: ReasonCode::StepUpRequired, policy: Some(*index) };
            (Decision::StepUp, self.soft_forbids.iter().map(required).collect())
        } else {
            return self.into_verdict(question, facts, reading, Decision::Allow, SmallVec::new());
        };
        self.into_verdict(question, facts, reading, decision, reasons)
    }

    fn into_verdict(
        self,
        question: &Question<'_>,
        facts: &Facts,
        reading: &Reading<'_>,
        decision: Decision,
        reasons: SmallVec<[Reason; 1]>,
    ) -> Verdict {
        let snapshot = question.snapshot;
        let needs = question.needs;
        let allows = decision == Decision::Allow;
        let mut determining = if allows { self.permits } else { self.hard_forbids };
        if !allows {
            determining.extend(self.soft_forbids);
            determining.sort_unstable();
        }
        let obliges =
            |index: &&PolicyIndex| snapshot.policy(**index).is_some_and(|policy| policy.obligation.is_some());
        let obligations =
            if allows { determining.iter().filter(obliges).copied().collect() } else { Policies::new() };
        let read = snapshot.needs(&determining, &question.attempt.action);
        let consequences = Consequences::of(snapshot, &determining, allows, self.dry);
        let requirements = if decision == Decision::StepUp { self.requirements } else { SmallVec::new() };
        let candidates = question.candidates.get(reading.hop).map_or(0, Candidates::len);
        Verdict {
            decision,
            reasons,
            message: None,
            determining,
            errors: self.errors,
            requirements,
            obligations,
            evidence: evidence(read, facts, reading, allows),
            needs,
            hops: Vec::new(),
            lease: Lease::default(),
            deviated: None,
            consequences,
            counters: Vec::new(),
            candidates: u32::try_from(candidates).unwrap_or(u32::MAX),
            asked: true,
        }
    }
}

fn evidence(read: Needs, facts: &Facts, reading: &Reading<'_>, allows: bool) -> Vec<Evidence> {
    let found = |fact: Fact| Evidence {
        fact,
        value: facts.value(fact, reading),
        // Nobody asks why an allow's facts are what they are; the words cost more than the decision.
        why: if allows { String::new() } else { facts.why(fact, reading) },
    };
    let mut evidence = Vec::with_capacity(read.facts().count());
    evidence.extend(read.facts().map(found));
    evidence
}

/// Says in the evidence how the attempt deviates, and why, whichever facts the determining policies read.
fn name_deviation(verdict: &mut Verdict) {
    let Some(deviated) = &verdict.deviated else { return };
    let Some(told) = &deviated.told else { return };
    // What policies were not shown is for the record, not for the caller.
    if deviated.is_observed && verdict.decision == Decision::Allow {
        return;
    }
    let why = told.evidence.join("; ");
    if why.is_empty() {
        return;
    }
    let fact = Fact::BehaviorAssessment;
    match verdict.evidence.iter_mut().find(|evidence| evidence.fact == fact) {
        Some(evidence) => evidence.why = why,
        None => {
            let value = FactValue::Text(SmolStr::new_static(deviated.read.deviation.assessment.name()));
            verdict.evidence.push(Evidence { fact, value, why });
        }
    }
}

/// The stricter answer wins; of two equal ones both speak.
fn meet(one: Verdict, other: Verdict) -> Verdict {
    let candidates = one.candidates.saturating_add(other.candidates);
    let mut errors = one.errors.clone();
    errors.extend(other.errors.iter().filter(|error| !one.errors.contains(error)).cloned());
    let hops = if one.hops.is_empty() { other.hops.clone() } else { one.hops.clone() };
    let both = one.decision == other.decision;
    let (mut kept, left) = if other.decision > one.decision { (other, one) } else { (one, other) };
    kept.consequences = Consequences::meet(kept.consequences.take(), left.consequences, both);
    if both {
        extend(&mut kept.reasons, left.reasons);
        extend(&mut kept.determining, left.determining);
        extend(&mut kept.requirements, left.requirements);
        extend(&mut kept.obligations, left.obligations);
        kept.determining.sort_unstable();
        kept.evidence.extend(left.evidence);
    }
    Verdict { hops, errors, candidates, ..kept }
}

fn extend<const N: usize, T: PartialEq>(list: &mut SmallVec<[T; N]>, more: SmallVec<[T; N]>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

/// What the conditions read, where they read it.
struct Gathered<'g> {
    question: &'g Question<'g>,
    facts: &'g Facts,
    reading: &'g Reading<'g>,
}

impl Reads for Gathered<'_> {
    fn fact(&self, fact: Fact) -> FactValue {
        self.facts.value(fact, self.reading)
    }

    fn counter(&self, number: u8, field: CounterField) -> Option<FactValue> {
        let counter = self.question.snapshot.counter(number)?;
        Some(self.facts.counter(counter.definition).value(field))
    }

    fn sent(&self) -> &Record {
        &self.question.attempt.request
    }

    /// The facts, flat, in the order of their keys; then the groups that are read as a whole; then what the enforcement point sent.
    fn context(&self) -> Record {
        let Self { question, facts, reading } = self;
        let (attempt, needs) = (question.attempt, question.needs);
        if question.snapshot.layout() == ContextLayout::Given {
            return attempt.request.clone();
        }
        let value = |fact: Fact| Value::from(self.fact(fact));
        let flat = needs.facts().map(|fact| (fact.key(), value(fact)));
        let counters = needs.counters().numbers().flat_map(|number| {
            let field =
                move |field: CounterField| Some((field.key(number), self.counter(number, field)?.into()));
            CounterField::ALL.into_iter().filter_map(field)
        });
        let whole = Group::ALL.into_iter().filter(|group| needs.reads_whole(*group)).map(|group| {
            let of_group = match group {
                Group::Request => Value::from(attempt.request.clone()),
                Group::Now => Value::datetime(reading.now.wall_ms),
                Group::Counters => counters_whole(question, facts).into(),
                Group::Session
                | Group::Risk
                | Group::Behavior
                | Group::Task
                | Group::Token
                | Group::Actor
                | Group::Signals => {
                    Value::from(group.facts().map(|fact| (fact.name(), value(fact))).collect::<Record>())
                }
            };
            (SmolStr::new_static(group.name()), of_group)
        });
        flat.chain(counters).chain(whole).collect()
    }
}

/// The counters as the schema nests them.
fn counters_whole(question: &Question<'_>, facts: &Facts) -> Record {
    let of = |number| {
        let counter = question.snapshot.counter(number)?;
        let fact = facts.counter(counter.definition);
        let fields = CounterField::ALL.map(|field| (field.name(), Value::from(fact.value(field))));
        Some((counter.name.clone(), Value::from(fields.into_iter().collect::<Record>())))
    };
    question.needs.counters().numbers().filter_map(of).collect()
}

#[cfg(test)]
mod tests;
