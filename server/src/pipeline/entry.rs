//! A decision on its way into the audit: shared pieces on the hot path, a record on the writer's thread.

use std::collections::BTreeMap;
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
use cardea_policy_store::masks::Masks;
use cardea_policy_store::snapshot::Snapshot;
use cardea_proto::v1::value::Kind;
use cardea_proto::v1::{self, record::Entry};
use smol_str::SmolStr;
use uuid::Uuid;

use super::{Ages, Door, encoding};
use crate::audit::IntoEntry;
use crate::audit::mask::Masker;
use crate::audit::record::{duration, timestamp, unix_ms};
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
    pub(super) hold: Option<Box<v1::HoldRecord>>,
}

impl IntoEntry for Decided {
    fn encode(&self, sequence: u64, time_ms: u64, out: &mut Vec<u8>) -> bool {
        encoding::encode(self, sequence, time_ms, out)
    }

    fn into_entry(self: Box<Self>, masker: &mut Masker) -> Entry {
        let Self { id, door, snapshot, attempt, seen, verdict, state_version, ages, facts, elapsed_ns, hold } =
            *self;
        let replay = facts
            .zip(attempt.as_ref().zip(snapshot.as_deref()))
            .map(|((facts, now), (attempt, snapshot))| replay(attempt, snapshot, &verdict, &facts, now));
        // What a hold is told is no attempt: nothing is learned from it, and nothing is done because of it.
        let is_told = hold.is_some();
        let observed = observed(&verdict, attempt.as_ref(), snapshot.as_deref(), is_told);
        let snapshot = snapshot.as_deref();
        let masks = snapshot.map(|snapshot| &snapshot.declared().masks);
        let sent = masks.zip(attempt.as_ref()).map(|(masks, attempt)| sent(masks, attempt));
        let names = |policies: &[u32]| -> Vec<String> {
            let policy = |at: &u32| Some(snapshot?.policy(*at)?.id.to_string());
            policies.iter().filter_map(policy).collect()
        };
        let errored: Vec<u32> = verdict.errors().iter().map(|(at, _)| *at).collect();
        let requirement = |at: &u16| Some(snapshot?.requirement(*at)?.0.to_string());
        let obligation = |at: &u32| snapshot?.policy(*at)?.obligation.as_ref().map(SmolStr::to_string);
        let hops =
            attempt.iter().flat_map(Attempt::hops).zip(verdict.hops()).map(|(uid, hop)| v1::HopVerdict {
                principal: Some(entity(uid)),
                decision: decision(hop.decision).into(),
                determining_policies: names(&hop.determining),
            });
        let attempt = attempt.as_ref();
        let mut record = v1::DecisionRecord {
            decision_id: id.hyphenated().to_string(),
            attempt_id: attempt.map_or(&seen.attempt_id, |attempt| &attempt.id).to_string(),
            door: door.name().to_owned(),
            principal: attempt
                .map_or_else(|| raw(seen.principal), |attempt| Some(entity(&attempt.principal))),
            action: attempt.map_or_else(|| raw(seen.action), |attempt| Some(entity(&attempt.action.uid))),
            resource: attempt.map_or_else(|| raw(seen.resource), |attempt| Some(entity(&attempt.resource))),
            session_id: match attempt {
                Some(attempt) => attempt.session_id.as_ref().map(SmolStr::to_string).unwrap_or_default(),
                None => seen.session_id.to_string(),
            },
            delegation: attempt
                .into_iter()
                .flat_map(|attempt| attempt.delegation.iter().map(entity))
                .collect(),
            decision: decision(verdict.decision()).into(),
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
                .find_map(|at| snapshot?.policy(*at)?.severity.as_ref())
                .map(SmolStr::to_string)
                .unwrap_or_default(),
            replay,
            hold: hold.map(|hold| *hold),
            deviation: verdict.deviated().and_then(deviation),
            responses: if is_told { Vec::new() } else { responses(&verdict, snapshot) },
            would_have: would_have(&verdict, snapshot),
            observed,
            counters: counters(&verdict, snapshot),
            left_out: Vec::new(),
            masked: Vec::new(),
        };
        masker.hide_decision(masks, &mut record, sent.unwrap_or_default());
        Entry::Decision(record)
    }
}

/// What was sent in fields of which something is masked.
fn sent(masks: &Masks, attempt: &Attempt) -> BTreeMap<String, v1::Value> {
    let names = masks.request().iter().filter_map(|(path, _)| path.first());
    names.filter_map(|name| Some((name.to_string(), recorded(&attempt.request.get(name)?)))).collect()
}

pub(super) fn responses(verdict: &Verdict, snapshot: Option<&Snapshot>) -> Vec<String> {
    let asked_for = verdict.consequences().into_iter().flat_map(|consequences| &consequences.responses);
    asked_for.filter_map(|(at, _)| Some(snapshot?.declared().response(*at)?.0.to_string())).collect()
}

pub(super) fn would_have(verdict: &Verdict, snapshot: Option<&Snapshot>) -> Vec<v1::WouldHave> {
    let dry = verdict.consequences().into_iter().flat_map(|consequences| &consequences.dry);
    dry.filter_map(|at| {
        let policy = snapshot?.policy(*at)?;
        let decision = decision(consequences::would_have(policy)).into();
        Some(v1::WouldHave { policy: policy.id.to_string(), decision })
    })
    .collect()
}

fn basis(snapshot: Option<&Snapshot>, state_version: u64, ages: &Ages) -> v1::Basis {
    let age = |(group, age_ms): &(Group, u64)| v1::FactAge { fact: group.name().to_owned(), age_ms: *age_ms };
    v1::Basis {
        revision: snapshot.map_or(0, |snapshot| snapshot.settings().revision),
        digest: snapshot.map(|snapshot| snapshot.digest().to_string()).unwrap_or_default(),
        state_version,
        ages: ages.iter().map(age).collect(),
    }
}

pub(super) fn counters(verdict: &Verdict, snapshot: Option<&Snapshot>) -> Vec<v1::CounterRecord> {
    let told = |counted: &Counted| {
        let counter = snapshot?.counter(counted.number)?;
        Some(v1::CounterRecord {
            name: counter.name.to_string(),
            count: counted.fact.count,
            warm: counted.fact.is_warm,
            outcome: counted.outcome(counter, verdict.decision()).name().to_owned(),
        })
    };
    verdict.counters().iter().filter_map(told).collect()
}

/// The counters that determining policies read, as evidence.
pub(super) fn counted<'v>(
    verdict: &'v Verdict,
    snapshot: Option<&'v Snapshot>,
) -> impl Iterator<Item = v1::Evidence> + 'v {
    let told = move |counted: &'v Counted| {
        let counter = snapshot?.counter(counted.number)?;
        Some(v1::Evidence {
            fact: format!("counters.{}.count", counter.name),
            value: Some(plain(Kind::Long(counted.fact.count))),
            why: counted.why(counter),
        })
    };
    verdict.counters().iter().filter(|counted| counted.is_evidence).filter_map(told)
}

pub(super) fn deviation(deviated: &Deviated) -> Option<Box<v1::DeviationRecord>> {
    let told = deviated.told.as_ref()?;
    let Deviation { flags, assessment, confidence, .. } = deviated.deviation;
    Some(Box::new(v1::DeviationRecord {
        flags: flags.iter().map(|flag| flag.name().to_owned()).collect(),
        assessment: assessment.name().to_owned(),
        confidence: confidence.into(),
        evidence: told.evidence.clone(),
        baseline: told.baseline.to_string(),
        observed: deviated.is_observed,
    }))
}

/// What baselines are learned from; what a hold is told is no attempt.
pub(super) fn observed(
    verdict: &Verdict,
    attempt: Option<&Attempt>,
    snapshot: Option<&Snapshot>,
    is_hold: bool,
) -> Option<Box<v1::ObservedRecord>> {
    let deviated = verdict.deviated().filter(|_| !is_hold)?;
    let (attempt, snapshot) = attempt.zip(snapshot)?;
    let named = deviated.task.as_ref().and_then(|task| Named::of(attempt, snapshot, task));
    let record = named.as_ref().map(observed_record);
    let unusable = v1::ObservedRecord { unusable: true, ..v1::ObservedRecord::default() };
    let observing = deviated.is_observed;
    Some(Box::new(v1::ObservedRecord { observing, ..record.unwrap_or(unusable) }))
}

/// What was sent, and every fact that a candidate read. Facts of the attempt stand once, facts of a hop for each hop.
fn replay(
    attempt: &Attempt,
    snapshot: &Snapshot,
    verdict: &Verdict,
    facts: &Facts,
    now: Now,
) -> Box<v1::Replay> {
    let request = attempt.request.iter().map(|(name, value)| (name.to_string(), recorded(&value))).collect();
    let hops = attempt.hops().count();
    let of_hop = |hop: usize| {
        let comparison = verdict.deviated().map(|deviated| &deviated.read);
        let reading = Reading { attempt, settings: snapshot.settings(), comparison, hop, now };
        let told = verdict.needs().facts().filter(move |fact| hop == 0 || fact.group().is_of_hop());
        told.map(move |fact| v1::ReplayFact {
            fact: fact.path().to_owned(),
            hop: u32::try_from(hop).unwrap_or(u32::MAX),
            value: Some(fact_value(&facts.value(fact, &reading))),
        })
        .collect::<Vec<_>>()
    };
    Box::new(v1::Replay { request, facts: (0..hops).flat_map(of_hop).collect() })
}

/// A value as records show it.
pub(crate) fn recorded(value: &Value) -> v1::Value {
    plain(match value.plain() {
        Plain::Bool(value) => Kind::Bool(value),
        Plain::Long(value) => Kind::Long(value),
        Plain::String(text) => Kind::String(text.into()),
        Plain::Entity(uid) => Kind::Entity(entity(&uid)),
        Plain::Set(values) => Kind::Set(v1::ValueSet { values: values.iter().map(recorded).collect() }),
        Plain::Record(fields) => Kind::Record(v1::ValueRecord {
            fields: fields.iter().map(|(name, value)| (name.to_string(), recorded(&value))).collect(),
        }),
        Plain::Decimal(text) => Kind::Decimal(text.into()),
        Plain::Ip(text) => Kind::Ip(text.into()),
        Plain::Datetime(ms) => Kind::Datetime(timestamp(ms)),
        Plain::Duration(ms) => Kind::Duration(duration(ms)),
    })
}

const fn plain(kind: Kind) -> v1::Value {
    v1::Value { kind: Some(kind) }
}

/// The value that a record shows; `uid` knows the types that entities in it may have. `None` if it has no such value.
pub(crate) fn unrecorded(value: &v1::Value, uid: &dyn Fn(&str, &str) -> Option<Uid>) -> Option<Value> {
    match value.kind.as_ref()? {
        Kind::Bool(value) => Some((*value).into()),
        Kind::Long(value) => Some((*value).into()),
        Kind::String(text) => Some(text.as_str().into()),
        Kind::Entity(entity) => Some(Value::from(&uid(&entity.r#type, &entity.id)?)),
        Kind::Set(set) => {
            let values = set.values.iter().map(|one| unrecorded(one, uid));
            values.collect::<Option<Vec<_>>>().map(Value::set)
        }
        Kind::Record(record) => {
            let fields = record.fields.iter();
            let fields = fields.map(|(name, one)| Some((name.as_str(), unrecorded(one, uid)?)));
            fields.collect::<Option<Record>>().map(Value::from)
        }
        Kind::Decimal(text) => Value::extension(Extension::Decimal, text).ok(),
        Kind::Ip(text) => Value::extension(Extension::Ip, text).ok(),
        Kind::Datetime(time) => Some(Value::datetime(unix_ms(time))),
        Kind::Duration(span) => {
            let ms = span.seconds.saturating_mul(1_000).saturating_add(i64::from(span.nanos / 1_000_000));
            Value::extension(Extension::Duration, &format!("{ms}ms")).ok()
        }
    }
}

/// The names that something is learned from, as records show them.
pub(crate) fn observed_record(named: &Named) -> v1::ObservedRecord {
    let texts = |texts: &[SmolStr]| texts.iter().map(SmolStr::to_string).collect();
    v1::ObservedRecord {
        task: named.task.to_string(),
        targets: texts(&named.targets),
        references: texts(&named.references),
        network: named.network.to_string(),
        observing: false,
        unusable: false,
    }
}

/// An entity id as records show it.
#[must_use]
pub fn entity(uid: &Uid) -> v1::EntityRef {
    v1::EntityRef { r#type: uid.type_text(), id: uid.id().to_owned() }
}

fn raw(seen: Option<(SmolStr, SmolStr)>) -> Option<v1::EntityRef> {
    seen.map(|(type_name, id)| v1::EntityRef { r#type: type_name.into(), id: id.into() })
}

fn spoken(reason: Reason, verdict: &Verdict, snapshot: Option<&Snapshot>) -> v1::Reason {
    let message = reason_text(reason, verdict, snapshot);
    v1::Reason { code: crate::doors::reason_code(reason.code).into(), message: message.to_owned() }
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

fn evidence(evidence: &cardea_core::verdict::Evidence) -> v1::Evidence {
    v1::Evidence {
        fact: evidence.fact.path().to_owned(),
        value: Some(fact_value(&evidence.value)),
        why: evidence.why.clone(),
    }
}

fn fact_value(value: &FactValue) -> v1::Value {
    plain(match value {
        FactValue::Bool(value) => Kind::Bool(*value),
        FactValue::Long(value) => Kind::Long(*value),
        FactValue::Text(text) => Kind::String(text.to_string()),
        FactValue::Texts(texts) => {
            let values = texts.iter().map(|text| plain(Kind::String(text.to_string())));
            Kind::Set(v1::ValueSet { values: values.collect() })
        }
    })
}
