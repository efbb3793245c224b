//! A decision on its way into the audit: shared pieces on the hot path, text on the writer's thread.

use std::sync::Arc;

use cardea_core::attempt::Attempt;
use cardea_core::behavior::Deviation;
use cardea_core::consequences;
use cardea_core::counters::Counted;
use cardea_core::facts::{Facts, Reading};
use cardea_core::observed::Named;
use cardea_core::reason::{Reason, ReasonCode};
use cardea_core::time::Now;
use cardea_core::verdict::{Deviated, FactValue, Verdict};
use cardea_policy_store::engine::{Extension, Plain, Record, Uid, Value};
use cardea_policy_store::fragment::Group;
use cardea_policy_store::snapshot::Snapshot;
use smol_str::{SmolStr, ToSmolStr};
use uuid::Uuid;

use super::{Ages, Door};
use crate::audit::IntoBody;
use crate::audit::record::{self, Body, DecisionRecord, Entity};
use crate::doors::decision;

/// What a door saw of something that is no attempt; texts cut to 256 bytes.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Type and id of the principal.
    pub principal: Option<(SmolStr, SmolStr)>,
    /// Type and id of the action.
    pub action: Option<(SmolStr, SmolStr)>,
    /// Type and id of the resource.
    pub resource: Option<(SmolStr, SmolStr)>,
    /// The caller's own id.
    pub attempt_id: SmolStr,
    /// The session.
    pub session_id: SmolStr,
}

impl Seen {
    /// A text from outside, cut at a character so that it has at most 256 bytes.
    #[must_use]
    pub fn text(text: &str) -> SmolStr {
        const BYTES_MAX: usize = 256;
        let end = (0..=text.len().min(BYTES_MAX)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        SmolStr::new(text.get(..end).unwrap_or(""))
    }

    /// A reference from outside; `None` if both parts are empty.
    #[must_use]
    pub fn reference((type_name, id): (&str, &str)) -> Option<(SmolStr, SmolStr)> {
        (!type_name.is_empty() || !id.is_empty()).then(|| (Self::text(type_name), Self::text(id)))
    }
}

pub(super) struct Decided {
    pub(super) id: Uuid,
    pub(super) door: Door,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) attempt: Option<Attempt>,
    pub(super) seen: Seen,
    pub(super) verdict: Verdict,
    pub(super) state_version: u64,
    pub(super) ages: Ages,
    /// For a replayable record: what was known, and when.
    pub(super) facts: Option<(Facts, Now)>,
    pub(super) elapsed_ns: u64,
    /// For door `hold`.
    pub(super) hold: Option<Box<record::HoldRecord>>,
}

impl IntoBody for Decided {
    fn into_body(self: Box<Self>) -> Body {
        let Self { id, door, snapshot, attempt, seen, verdict, state_version, ages, facts, elapsed_ns, hold } =
            *self;
        let replay = facts
            .zip(attempt.as_ref().zip(snapshot.as_deref()))
            .map(|((facts, now), (attempt, snapshot))| replay(attempt, snapshot, &verdict, &facts, now));
        // What a hold is told is no attempt: nothing is learned from it, and nothing is done because of it.
        let is_told = hold.is_some();
        let observed = observed(&verdict, attempt.as_ref(), snapshot.as_deref(), is_told);
        let snapshot = snapshot.as_deref();
        let names = |policies: &[u32]| -> Vec<SmolStr> {
            let policy = |at: &u32| Some(snapshot?.policy(*at)?.id.clone());
            policies.iter().filter_map(policy).collect()
        };
        let errored: Vec<u32> = verdict.errors().iter().map(|(at, _)| *at).collect();
        let requirement = |at: &u16| Some(snapshot?.requirement(*at)?.0.clone());
        let obligation = |at: &u32| snapshot?.policy(*at)?.obligation.clone();
        let hops =
            attempt.iter().flat_map(Attempt::hops).zip(verdict.hops()).map(|(uid, hop)| record::HopVerdict {
                principal: Some(entity(uid)),
                decision: decision(hop.decision),
                determining_policies: names(&hop.determining),
            });
        Body::Decision(DecisionRecord {
            decision_id: id.hyphenated().to_smolstr(),
            attempt_id: attempt
                .as_ref()
                .map_or_else(|| seen.attempt_id.clone(), |attempt| attempt.id.clone()),
            door: SmolStr::new_static(door.name()),
            principal: attempt
                .as_ref()
                .map_or_else(|| raw(seen.principal), |attempt| Some(entity(&attempt.principal))),
            action: attempt
                .as_ref()
                .map_or_else(|| raw(seen.action), |attempt| Some(entity(&attempt.action.uid))),
            resource: attempt
                .as_ref()
                .map_or_else(|| raw(seen.resource), |attempt| Some(entity(&attempt.resource))),
            session_id: attempt
                .as_ref()
                .map_or(seen.session_id, |attempt| attempt.session_id.clone().unwrap_or_default()),
            delegation: attempt.iter().flat_map(|attempt| attempt.delegation.iter().map(entity)).collect(),
            decision: decision(verdict.decision()),
            reasons: verdict.reasons().iter().map(|reason| spoken(*reason, &verdict, snapshot)).collect(),
            determining_policies: names(verdict.determining()),
            policy_errors: names(&errored),
            step_up: verdict.requirements().iter().filter_map(requirement).collect(),
            obligations: verdict.obligations().iter().filter_map(obligation).collect(),
            evidence: verdict.evidence().iter().map(evidence).chain(counted(&verdict, snapshot)).collect(),
            basis: Some(basis(snapshot, state_version, &ages)),
            latency_ns: elapsed_ns,
            hops: hops.collect(),
            severity: verdict
                .determining()
                .iter()
                .find_map(|at| snapshot?.policy(*at)?.severity.clone())
                .unwrap_or_default(),
            replay,
            hold,
            deviation: verdict.deviated().and_then(deviation),
            responses: if is_told { Vec::new() } else { responses(&verdict, snapshot) },
            would_have: would_have(&verdict, snapshot),
            observed,
            counters: counters(&verdict, snapshot),
        })
    }
}

fn responses(verdict: &Verdict, snapshot: Option<&Snapshot>) -> Vec<SmolStr> {
    let asked_for = verdict.consequences().into_iter().flat_map(|consequences| &consequences.responses);
    asked_for.filter_map(|(at, _)| Some(snapshot?.declared().response(*at)?.0.clone())).collect()
}

fn would_have(verdict: &Verdict, snapshot: Option<&Snapshot>) -> Vec<record::WouldHave> {
    let dry = verdict.consequences().into_iter().flat_map(|consequences| &consequences.dry);
    dry.filter_map(|at| {
        let policy = snapshot?.policy(*at)?;
        let decision = decision(consequences::would_have(policy));
        Some(record::WouldHave { policy: policy.id.clone(), decision })
    })
    .collect()
}

fn basis(snapshot: Option<&Snapshot>, state_version: u64, ages: &Ages) -> record::Basis {
    let age = |(group, age_ms): &(Group, u64)| record::FactAge {
        fact: SmolStr::new_static(group.name()),
        age_ms: *age_ms,
    };
    record::Basis {
        revision: snapshot.map_or(0, |snapshot| snapshot.settings().revision),
        digest: snapshot.map(|snapshot| snapshot.digest().clone()).unwrap_or_default(),
        state_version,
        ages: ages.iter().map(age).collect(),
    }
}

fn counters(verdict: &Verdict, snapshot: Option<&Snapshot>) -> Vec<record::CounterRecord> {
    let told = |counted: &Counted| {
        let counter = snapshot?.counter(counted.number)?;
        Some(record::CounterRecord {
            name: counter.name.clone(),
            count: counted.fact.count,
            warm: counted.fact.is_warm,
            outcome: SmolStr::new_static(counted.outcome(counter, verdict.decision()).name()),
        })
    };
    verdict.counters().iter().filter_map(told).collect()
}

/// The counters that determining policies read, as evidence.
fn counted(verdict: &Verdict, snapshot: Option<&Snapshot>) -> Vec<record::Evidence> {
    let told = |counted: &Counted| {
        let counter = snapshot?.counter(counted.number)?;
        Some(record::Evidence {
            fact: format!("counters.{}.count", counter.name).into(),
            value: record::Value::Long(counted.fact.count),
            why: counted.why(counter).into(),
        })
    };
    verdict.counters().iter().filter(|counted| counted.is_evidence).filter_map(told).collect()
}

fn deviation(deviated: &Deviated) -> Option<Box<record::DeviationRecord>> {
    let told = deviated.told.as_ref()?;
    let Deviation { flags, assessment, confidence, .. } = deviated.deviation;
    Some(Box::new(record::DeviationRecord {
        flags: flags.iter().map(|flag| SmolStr::new_static(flag.name())).collect(),
        assessment: SmolStr::new_static(assessment.name()),
        confidence: confidence.into(),
        evidence: told.evidence.iter().map(SmolStr::new).collect(),
        baseline: told.baseline.clone(),
        observed: deviated.is_observed,
    }))
}

/// What baselines are learned from; what a hold is told is no attempt.
fn observed(
    verdict: &Verdict,
    attempt: Option<&Attempt>,
    snapshot: Option<&Snapshot>,
    is_hold: bool,
) -> Option<Box<record::ObservedRecord>> {
    let deviated = verdict.deviated().filter(|_| !is_hold)?;
    let (attempt, snapshot) = attempt.zip(snapshot)?;
    let named = deviated.task.as_ref().and_then(|task| Named::of(attempt, snapshot, task));
    let record = named.as_ref().map(record::ObservedRecord::from);
    let unusable = record::ObservedRecord { unusable: true, ..record::ObservedRecord::default() };
    let observing = deviated.is_observed;
    Some(Box::new(record::ObservedRecord { observing, ..record.unwrap_or(unusable) }))
}

/// What was sent, and every fact that a candidate read. Facts of the attempt stand once, facts of a hop for each hop.
fn replay(
    attempt: &Attempt,
    snapshot: &Snapshot,
    verdict: &Verdict,
    facts: &Facts,
    now: Now,
) -> Box<record::Replay> {
    let request = attempt.request.iter().map(|(name, value)| (name.clone(), recorded(&value))).collect();
    let hops = attempt.hops().count();
    let of_hop = |hop: usize| {
        let comparison = verdict.deviated().map(|deviated| &deviated.read);
        let reading = Reading { attempt, settings: snapshot.settings(), comparison, hop, now };
        let told = verdict.needs().facts().filter(move |fact| hop == 0 || fact.group().is_of_hop());
        told.map(move |fact| record::ReplayFact {
            fact: fact.path().into(),
            hop: u32::try_from(hop).unwrap_or(u32::MAX),
            value: fact_value(&facts.value(fact, &reading)),
        })
        .collect::<Vec<_>>()
    };
    Box::new(record::Replay { request, facts: (0..hops).flat_map(of_hop).collect() })
}

/// A value as records show it.
pub(crate) fn recorded(value: &Value) -> record::Value {
    match value.plain() {
        Plain::Bool(value) => record::Value::Bool(value),
        Plain::Long(value) => record::Value::Long(value),
        Plain::String(text) => record::Value::String(text),
        Plain::Entity(uid) => record::Value::Entity(entity(&uid)),
        Plain::Set(values) => record::Value::Set(values.iter().map(recorded).collect()),
        Plain::Record(fields) => record::Value::Record(
            fields.iter().map(|(name, value)| (name.clone(), recorded(&value))).collect(),
        ),
        Plain::Decimal(text) => record::Value::Decimal(text),
        Plain::Ip(text) => record::Value::Ip(text),
        Plain::Datetime(ms) => record::Value::Datetime(ms),
        Plain::Duration(ms) => record::Value::Duration(ms),
    }
}

/// The value that a record shows; `uid` knows the types that entities in it may have. `None` if it has no such value.
pub(crate) fn unrecorded(value: &record::Value, uid: &dyn Fn(&str, &str) -> Option<Uid>) -> Option<Value> {
    match value {
        record::Value::Bool(value) => Some((*value).into()),
        record::Value::Long(value) => Some((*value).into()),
        record::Value::String(text) => Some(text.clone().into()),
        record::Value::Entity(entity) => Some(Value::from(&uid(&entity.type_name, &entity.id)?)),
        record::Value::Set(values) => {
            values.iter().map(|one| unrecorded(one, uid)).collect::<Option<Vec<_>>>().map(Value::set)
        }
        record::Value::Record(fields) => fields
            .iter()
            .map(|(name, one)| Some((name.clone(), unrecorded(one, uid)?)))
            .collect::<Option<Record>>()
            .map(Value::from),
        record::Value::Decimal(text) => Value::extension(Extension::Decimal, text).ok(),
        record::Value::Ip(text) => Value::extension(Extension::Ip, text).ok(),
        record::Value::Datetime(ms) => Some(Value::datetime(*ms)),
        record::Value::Duration(ms) => Value::extension(Extension::Duration, &format!("{ms}ms")).ok(),
    }
}

/// An entity id as records show it.
#[must_use]
pub fn entity(uid: &Uid) -> Entity {
    Entity { type_name: uid.type_text().into(), id: uid.id().into() }
}

fn raw(seen: Option<(SmolStr, SmolStr)>) -> Option<Entity> {
    seen.map(|(type_name, id)| Entity { type_name, id })
}

fn spoken(reason: Reason, verdict: &Verdict, snapshot: Option<&Snapshot>) -> record::Reason {
    let message = reason_text(reason, verdict, snapshot);
    record::Reason { code: crate::doors::reason_code(reason.code), message: message.into() }
}

/// What to tell the caller: the policy's own words, else what the door found, else the code's sentence.
pub(crate) fn reason_text<'t>(
    reason: Reason,
    verdict: &'t Verdict,
    snapshot: Option<&'t Snapshot>,
) -> &'t str {
    reason_words(reason, verdict.message(), snapshot)
}

/// As [`reason_text`], where the verdict itself is gone; `message` is the one that it had.
pub(crate) fn reason_words<'t>(
    reason: Reason,
    message: Option<&'t str>,
    snapshot: Option<&'t Snapshot>,
) -> &'t str {
    let by_policy = reason.policy.and_then(|at| snapshot?.policy(at)?.reason.as_deref());
    // An errored policy's reason speaks of a condition that nobody knows to hold.
    let by_policy = by_policy.filter(|_| reason.code != ReasonCode::PolicyErrored);
    by_policy.or(message).unwrap_or_else(|| reason.code.sentence())
}

fn evidence(evidence: &cardea_core::verdict::Evidence) -> record::Evidence {
    record::Evidence {
        fact: evidence.fact.path().into(),
        value: fact_value(&evidence.value),
        why: evidence.why.as_str().into(),
    }
}

fn fact_value(value: &FactValue) -> record::Value {
    match value {
        FactValue::Bool(value) => record::Value::Bool(*value),
        FactValue::Long(value) => record::Value::Long(*value),
        FactValue::Text(value) => record::Value::String(value.clone()),
        FactValue::Texts(values) => {
            record::Value::Set(values.iter().cloned().map(record::Value::String).collect())
        }
    }
}
