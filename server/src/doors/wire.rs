//! Wire messages from and to the domain: one place for each, both directions side by side.

use std::collections::BTreeMap;
use std::sync::Arc;

use cardea_core::ask::AskDigest;
use cardea_core::attempt::Token;
use cardea_core::counters::{self, Counted};
use cardea_core::named::Named;
use cardea_core::reason::{Reason, ReasonCode};
use cardea_core::task::{ResourcePattern, SCOPE_MAX, Task};
use cardea_core::verdict::{Decision, Evidence, FactValue, Lease, Verdict};
use cardea_policy_store::engine::{Extension, Record, Uid, Value};
use cardea_policy_store::settings::Requirement;
use cardea_policy_store::snapshot::Snapshot;
use cardea_proto::v1;
use prost_types::{Duration, Timestamp};
use smol_str::SmolStr;
use tonic::Status;

use crate::pipeline::{Judgement, reason_text};
use crate::state::{Reservation, State};

/// Longest type name of an entity, in bytes.
const TYPE_BYTES_MAX: usize = 256;
/// Entries on a page when the caller does not say.
const PAGE_DEFAULT: usize = 100;
/// Most entries on a page.
const PAGE_MAX: usize = 1000;
/// Deepest nesting of a value from outside.
const VALUE_DEPTH_MAX: usize = 8;

/// A message that cannot be read; for the caller.
pub(super) type Unreadable = String;

pub(super) fn pair(reference: Option<&v1::EntityRef>) -> (&str, &str) {
    reference.map_or(("", ""), |reference| (reference.r#type.as_str(), reference.id.as_str()))
}

pub(super) fn entity_ref(uid: &Uid) -> v1::EntityRef {
    v1::EntityRef { r#type: uid.type_text(), id: uid.id().to_owned() }
}

/// The entity that a message names, in the types of the bundle in force.
pub(super) fn uid(role: &str, reference: Option<&v1::EntityRef>, snapshot: &Snapshot) -> Result<Uid, Status> {
    let (type_name, id) = pair(reference);
    if type_name.is_empty() || id.len() > cardea_core::attempt::ID_BYTES_MAX {
        return Err(Status::invalid_argument(format!(
            "`{role}` is missing, has no type, or its id is too long"
        )));
    }
    match snapshot.type_name(type_name) {
        Some(name) => Ok(Uid::new(name, id)),
        None => Err(Status::invalid_argument(format!(
            "`{role}` has a type that the bundle's schema does not have; see its entity types"
        ))),
    }
}

/// Somebody whom a message names, in whatever type.
pub(super) fn named(role: &str, reference: Option<&v1::EntityRef>) -> Result<Named, Status> {
    let (type_name, id) = pair(reference);
    if type_name.is_empty()
        || type_name.len() > TYPE_BYTES_MAX
        || id.len() > cardea_core::attempt::ID_BYTES_MAX
    {
        return Err(Status::invalid_argument(format!(
            "`{role}` is missing, has no type, or its type or id is too long"
        )));
    }
    Ok(Named { type_name: type_name.into(), id: id.into() })
}

/// Whoever is disabled opens nothing. Who has no type of the schema cannot be disabled.
pub(super) fn may_approve(by: &Named, snapshot: &Snapshot, state: &State) -> Result<(), Status> {
    let uid = snapshot.type_name(&by.type_name).map(|name| Uid::new(name, &by.id));
    if uid.is_some_and(|uid| state.is_disabled(&uid)) {
        return Err(Status::permission_denied(format!(
            "`{by}` is disabled and can neither approve nor extend; let somebody else do it"
        )));
    }
    Ok(())
}

pub(super) fn named_message(named: &Named) -> v1::EntityRef {
    v1::EntityRef { r#type: named.type_name.to_string(), id: named.id.to_string() }
}

/// How many things stand on a page, as the caller asks for.
pub(super) fn page_size(asked: u32) -> Result<usize, Status> {
    match usize::try_from(asked).unwrap_or(usize::MAX) {
        0 => Ok(PAGE_DEFAULT),
        size if size <= PAGE_MAX => Ok(size),
        _ => Err(Status::invalid_argument(format!("`page_size` is at most {PAGE_MAX}"))),
    }
}

/// One page of what is left, and the name of its last entry if there is more behind it.
pub(super) fn page<T>(
    mut rest: impl Iterator<Item = T>,
    size: usize,
    name: impl Fn(&T) -> String,
) -> (Vec<T>, String) {
    let page: Vec<T> = rest.by_ref().take(size).collect();
    let next_page_token = match (rest.next(), page.last()) {
        (Some(_), Some(last)) => name(last),
        _ => String::new(),
    };
    (page, next_page_token)
}

pub(super) fn record(
    fields: &BTreeMap<String, v1::Value>,
    snapshot: &Snapshot,
) -> Result<Record, Unreadable> {
    if fields.is_empty() {
        return Ok(Record::default());
    }
    fields
        .iter()
        .map(|(name, field)| match value(field, snapshot, 0) {
            Ok(value) => Ok((name.as_str(), value)),
            Err(fault) => Err(format!("`{name}`: {fault}")),
        })
        .collect()
}

fn value(value: &v1::Value, snapshot: &Snapshot, depth: usize) -> Result<Value, Unreadable> {
    use v1::value::Kind;
    if depth > VALUE_DEPTH_MAX {
        return Err(format!("values nest at most {VALUE_DEPTH_MAX} deep"));
    }
    let extension = |constructor: Extension, text: &str| {
        Value::extension(constructor, text).map_err(|_| format!("not a {}", constructor.type_name()))
    };
    match value.kind.as_ref().ok_or("a value has no kind set")? {
        Kind::Bool(value) => Ok((*value).into()),
        Kind::Long(value) => Ok((*value).into()),
        Kind::String(text) => Ok(text.as_str().into()),
        Kind::Entity(reference) => {
            let name =
                snapshot.type_name(&reference.r#type).ok_or("an entity of a type that the schema lacks")?;
            if reference.id.len() > cardea_core::attempt::ID_BYTES_MAX {
                return Err("an entity's id is too long".to_owned());
            }
            Ok(Value::from(&Uid::new(name, &reference.id)))
        }
        Kind::Set(set) => {
            let values: Result<Vec<Value>, _> =
                set.values.iter().map(|element| self::value(element, snapshot, depth + 1)).collect();
            Ok(Value::set(values?))
        }
        Kind::Record(record) => {
            let fields: Result<Record, Unreadable> = record
                .fields
                .iter()
                .map(|(name, field)| Ok((name.as_str(), self::value(field, snapshot, depth + 1)?)))
                .collect();
            Ok(fields?.into())
        }
        Kind::Decimal(text) => extension(Extension::Decimal, text),
        Kind::Ip(text) => extension(Extension::Ip, text),
        Kind::Datetime(at) => Ok(Value::datetime(unix_ms(at).ok_or("a time out of range")?)),
        Kind::Duration(span) => {
            let ms = duration_ms(span).ok_or("a duration out of range")?;
            extension(Extension::Duration, &format!("{ms}ms"))
        }
    }
}

fn fact_value(value: &FactValue) -> v1::Value {
    use v1::value::Kind;
    let text = |text: &SmolStr| v1::Value { kind: Some(Kind::String(text.to_string())) };
    match value {
        FactValue::Bool(value) => v1::Value { kind: Some(Kind::Bool(*value)) },
        FactValue::Long(value) => v1::Value { kind: Some(Kind::Long(*value)) },
        FactValue::Text(value) => text(value),
        FactValue::Texts(values) => {
            v1::Value { kind: Some(Kind::Set(v1::ValueSet { values: values.iter().map(text).collect() })) }
        }
    }
}

/// Unix milliseconds; `None` if the message is out of range.
pub(super) fn unix_ms(at: &Timestamp) -> Option<i64> {
    let in_second = (0..1_000_000_000).contains(&at.nanos).then_some(i64::from(at.nanos) / 1_000_000)?;
    at.seconds.checked_mul(1000)?.checked_add(in_second)
}

pub(crate) fn timestamp(unix_ms: i64) -> Timestamp {
    let nanos = i32::try_from(unix_ms.rem_euclid(1000)).unwrap_or(0) * 1_000_000;
    Timestamp { seconds: unix_ms.div_euclid(1000), nanos }
}

pub(super) fn duration_ms(span: &Duration) -> Option<i64> {
    span.seconds.checked_mul(1000)?.checked_add(i64::from(span.nanos) / 1_000_000)
}

pub(super) fn optional_ms(at: Option<&Timestamp>) -> Result<Option<i64>, Unreadable> {
    at.map(|at| unix_ms(at).ok_or_else(|| "a time is out of range".to_owned())).transpose()
}

pub(super) fn token(token: Option<&v1::Token>) -> Result<Option<Token>, Unreadable> {
    let Some(token) = token else { return Ok(None) };
    Ok(Some(Token {
        issuer: token.issuer.as_str().into(),
        issued_ms: optional_ms(token.issued_at.as_ref())?,
        expires_ms: optional_ms(token.expires_at.as_ref())?,
        scopes: token.scopes.iter().map(SmolStr::from).collect(),
        bound: token.bound,
        authenticated_ms: optional_ms(token.authenticated_at.as_ref())?,
        acr: token.acr.as_str().into(),
        amr: token.amr.iter().map(SmolStr::from).collect(),
    }))
}

pub(super) fn task(task: &v1::Task) -> Result<Arc<Task>, Unreadable> {
    if task.id.is_empty() {
        return Err("a task needs an id".to_owned());
    }
    if task.actions.len() > SCOPE_MAX || task.resources.len() > SCOPE_MAX {
        return Err(format!("a task names at most {SCOPE_MAX} actions and {SCOPE_MAX} resources"));
    }
    let resources: Result<Vec<_>, _> =
        task.resources.iter().map(|text| ResourcePattern::parse(text)).collect();
    Ok(Arc::new(Task {
        id: task.id.as_str().into(),
        purpose: task.purpose.as_str().into(),
        not_before_ms: optional_ms(task.not_before.as_ref())?,
        not_after_ms: optional_ms(task.not_after.as_ref())?,
        actions: task.actions.iter().map(SmolStr::from).collect(),
        resources: resources.map_err(|fault| fault.to_string())?,
    }))
}

pub(super) fn task_message(task: &Task) -> v1::Task {
    v1::Task {
        id: task.id.to_string(),
        purpose: task.purpose.to_string(),
        not_before: task.not_before_ms.map(timestamp),
        not_after: task.not_after_ms.map(timestamp),
        actions: task.actions.iter().map(ToString::to_string).collect(),
        resources: task.resources.iter().map(ToString::to_string).collect(),
    }
}

/// The wire's code of a reason.
#[must_use]
pub fn reason_code(code: ReasonCode) -> v1::ReasonCode {
    match code {
        ReasonCode::Forbidden => v1::ReasonCode::Forbidden,
        ReasonCode::NoPermit => v1::ReasonCode::NoPermit,
        ReasonCode::PolicyErrored => v1::ReasonCode::PolicyErrored,
        ReasonCode::StepUpRequired => v1::ReasonCode::StepUpRequired,
        ReasonCode::SessionRevoked => v1::ReasonCode::SessionRevoked,
        ReasonCode::SessionExpired => v1::ReasonCode::SessionExpired,
        ReasonCode::SessionMismatch => v1::ReasonCode::SessionMismatch,
        ReasonCode::PrincipalDisabled => v1::ReasonCode::PrincipalDisabled,
        ReasonCode::DelegationMalformed => v1::ReasonCode::DelegationMalformed,
        ReasonCode::FactStale => v1::ReasonCode::FactStale,
        ReasonCode::StateTooOld => v1::ReasonCode::StateTooOld,
        ReasonCode::Malformed => v1::ReasonCode::Malformed,
        ReasonCode::UnknownType => v1::ReasonCode::UnknownType,
        ReasonCode::NoRoute => v1::ReasonCode::NoRoute,
        ReasonCode::NoIdentity => v1::ReasonCode::NoIdentity,
        ReasonCode::AuditFull => v1::ReasonCode::AuditFull,
        ReasonCode::NoPolicy => v1::ReasonCode::NoPolicy,
        ReasonCode::PolicyStale => v1::ReasonCode::PolicyStale,
        ReasonCode::TokenExpired => v1::ReasonCode::TokenExpired,
        ReasonCode::StateFull => v1::ReasonCode::StateFull,
        ReasonCode::StateUnreadable => v1::ReasonCode::StateUnreadable,
    }
}

/// The wire's decision.
#[must_use]
pub fn decision(decision: Decision) -> v1::Decision {
    match decision {
        Decision::Allow => v1::Decision::Allow,
        Decision::StepUp => v1::Decision::StepUp,
        Decision::Deny => v1::Decision::Deny,
    }
}

/// The id of a review, as the wire has it.
pub(super) fn review_id(digest: &AskDigest) -> String {
    digest.0.to_string()
}

fn requirement(
    (name, requirement): &(SmolStr, Requirement),
    review: Option<&AskDigest>,
) -> v1::StepUpRequirement {
    use v1::step_up_requirement::Kind;
    let mut message = v1::StepUpRequirement { name: name.to_string(), ..v1::StepUpRequirement::default() };
    match requirement {
        Requirement::Authentication { acr_values, max_age_s } => {
            message.set_kind(Kind::Authentication);
            message.acr_values = acr_values.iter().map(ToString::to_string).collect();
            message.max_age_s = *max_age_s;
        }
        Requirement::Approval { reviewers, grant_s } => {
            message.set_kind(Kind::Approval);
            message.reviewers = reviewers.iter().map(ToString::to_string).collect();
            message.grant_s = Some(*grant_s);
            message.review_id = review.map(review_id).unwrap_or_default();
        }
        Requirement::Attestation {} => message.set_kind(Kind::Attestation),
    }
    message
}

fn evidence(evidence: &Evidence) -> v1::Evidence {
    v1::Evidence {
        fact: evidence.fact.path().to_owned(),
        value: Some(fact_value(&evidence.value)),
        why: evidence.why.clone(),
    }
}

/// A verdict in the words of the native wire.
fn lease(lease: Lease) -> v1::Lease {
    let Lease { lease_ms, held_lease_ms, on_session, on_context, on_token, stream_loss_max_ms } = lease;
    v1::Lease { lease_ms, held_lease_ms, on_session, on_context, on_token, stream_loss_max_ms }
}

pub(super) fn verdict(judgement: &Judgement<'_>, attempt_id: &str) -> v1::Verdict {
    let Judgement { verdict, snapshot, .. } = *judgement;
    let names = |policies: &[u32]| -> Vec<String> {
        policies.iter().filter_map(|at| Some(snapshot?.policy(*at)?.id.to_string())).collect()
    };
    let reason = |reason: &Reason| v1::Reason {
        code: reason_code(reason.code).into(),
        message: reason_text(*reason, verdict, snapshot).to_owned(),
    };
    let obligation = |at: &u32| Some(snapshot?.policy(*at)?.obligation.as_ref()?.to_string());
    let hops = judgement.attempt.into_iter().flat_map(|attempt| attempt.hops()).zip(verdict.hops());
    let errored: Vec<u32> = verdict.errors().iter().map(|(at, _)| *at).collect();
    v1::Verdict {
        attempt_id: attempt_id.to_owned(),
        decision: decision(verdict.decision()).into(),
        reasons: verdict.reasons().iter().map(reason).collect(),
        determining_policies: names(verdict.determining()),
        policy_errors: names(&errored),
        step_up: verdict
            .requirements()
            .iter()
            .filter_map(|at| {
                let review = judgement.reviews.iter().find(|(of, _)| of == at).map(|(_, review)| review);
                Some(requirement(snapshot?.requirement(*at)?, review))
            })
            .collect(),
        obligations: verdict.obligations().iter().filter_map(obligation).collect(),
        evidence: verdict.evidence().iter().map(evidence).chain(counted(verdict, snapshot)).collect(),
        basis: Some(v1::Basis {
            revision: snapshot.map_or(0, |snapshot| snapshot.settings().revision),
            digest: snapshot.map(|snapshot| snapshot.digest().to_string()).unwrap_or_default(),
            state_version: judgement.state_version,
            ages: judgement
                .ages
                .iter()
                .map(|(group, age_ms)| v1::FactAge { fact: group.name().to_owned(), age_ms: *age_ms })
                .collect(),
        }),
        decision_id: judgement.id.hyphenated().to_string(),
        lease: Some(lease(verdict.lease())),
        hops: hops
            .map(|(uid, hop)| v1::HopVerdict {
                principal: Some(entity_ref(uid)),
                decision: decision(hop.decision).into(),
                determining_policies: names(&hop.determining),
            })
            .collect(),
        reservation: judgement.reservation.map(|reservation| reserved(reservation, verdict, snapshot)),
    }
}

/// The counters that determining policies read, as evidence.
fn counted(verdict: &Verdict, snapshot: Option<&Snapshot>) -> Vec<v1::Evidence> {
    let told = |counted: &Counted| {
        let counter = snapshot?.counter(counted.number)?;
        Some(v1::Evidence {
            fact: format!("counters.{}.count", counter.name),
            value: Some(fact_value(&FactValue::Long(counted.fact.count))),
            why: counted.why(counter),
        })
    };
    verdict.counters().iter().filter(|counted| counted.is_evidence).filter_map(told).collect()
}

fn reserved(reservation: &Reservation, verdict: &Verdict, snapshot: Option<&Snapshot>) -> v1::Reservation {
    let waits = |counted: &Counted| {
        let counter = snapshot?.counter(counted.number)?;
        (counted.outcome(counter, verdict.decision()) == counters::Outcome::Reserved)
            .then(|| counter.name.to_string())
    };
    v1::Reservation {
        token: reservation.token.clone(),
        settle_ms: reservation.settle_ms,
        counters: verdict.counters().iter().filter_map(waits).collect(),
    }
}
