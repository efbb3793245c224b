//! What the columns say of one record.

use std::borrow::Cow;

use cardea_proto::v1::{self, hold_cause, record::Entry};

use crate::audit::record::unix_ms;
use crate::proving::words::Named;

/// The columns of one record, as far as it says them. docs/audit.md has what each means.
#[derive(Debug, Default)]
pub struct Row<'r> {
    pub(super) sequence: u64,
    pub(super) time_ms: Option<i64>,
    pub(super) kind: &'static str,
    pub(super) change: Option<Cow<'r, str>>,
    pub(super) decision_id: Option<&'r str>,
    pub(super) attempt_id: Option<&'r str>,
    pub(super) door: Option<&'r str>,
    pub(super) principal: Option<&'r v1::EntityRef>,
    pub(super) action: Option<&'r v1::EntityRef>,
    pub(super) resource: Option<&'r v1::EntityRef>,
    pub(super) session_id: Option<&'r str>,
    pub(super) task: Option<&'r str>,
    pub(super) delegation: Option<Vec<String>>,
    pub(super) decision: Option<String>,
    pub(super) reasons: Option<Vec<String>>,
    pub(super) determining_policies: Option<&'r [String]>,
    pub(super) policy_errors: Option<&'r [String]>,
    pub(super) step_up: Option<&'r [String]>,
    pub(super) obligations: Option<&'r [String]>,
    pub(super) responses: Option<&'r [String]>,
    pub(super) severity: Option<&'r str>,
    pub(super) latency_ns: Option<u64>,
    pub(super) bundle_revision: Option<u64>,
    pub(super) bundle_digest: Option<&'r str>,
    pub(super) state_version: Option<u64>,
    pub(super) enforcement_point: Option<&'r str>,
    pub(super) hold_before: Option<String>,
    pub(super) hold_cause: Option<String>,
    pub(super) deviation: Option<&'r [String]>,
    pub(super) assessment: Option<&'r str>,
    pub(super) confidence: Option<u64>,
    pub(super) signal: Option<&'r str>,
    pub(super) source: Option<&'r str>,
    pub(super) reason: Option<&'r str>,
    pub(super) record: &'r str,
}

impl<'r> Row<'r> {
    /// Reads a record, of which `json` is the whole.
    #[must_use]
    pub fn new(record: &'r v1::Record, json: &'r str) -> Self {
        let row = match &record.entry {
            Some(Entry::Decision(decision)) => decided(decision),
            Some(Entry::Signal(signal)) => signalled(signal),
            Some(Entry::Session(session)) => Self {
                kind: "session",
                change: changed(&session.change),
                principal: session.principal.as_ref(),
                session_id: said(&session.session_id),
                state_version: Some(session.state_version),
                reason: said(&session.reason),
                ..Self::default()
            },
            Some(Entry::Bundle(bundle)) => Self {
                kind: "bundle",
                change: changed(&bundle.change),
                bundle_revision: Some(bundle.revision),
                bundle_digest: said(&bundle.digest),
                source: said(&bundle.asked_by),
                reason: said(&bundle.reason),
                ..Self::default()
            },
            Some(Entry::Gap(gap)) => Self {
                kind: "gap",
                change: Some(word(gap.cause().as_str_name(), "CAUSE_").into()),
                ..Self::default()
            },
            Some(Entry::Shadow(shadow)) => shadowed(shadow),
            Some(Entry::Task(task)) => Self {
                kind: "task",
                change: changed(&task.change),
                principal: task.agent.as_ref(),
                task: said(&task.task_id),
                state_version: Some(task.state_version),
                source: said(&task.asked_by),
                reason: said(&task.reason),
                ..Self::default()
            },
            Some(Entry::Review(review)) => reviewed(review),
            Some(Entry::Stream(stream)) => Self {
                kind: "stream",
                change: changed(&stream.change),
                reason: said(&stream.reason),
                ..Self::default()
            },
            Some(Entry::Withheld(withheld)) => Self {
                kind: "withheld",
                decision_id: said(&withheld.decision_id),
                door: said(&withheld.door),
                ..Self::default()
            },
            Some(Entry::Retention(_)) => Self { kind: "retention", ..Self::default() },
            None => Self { kind: "unknown", ..Self::default() },
        };
        let time_ms = record.time.as_ref().map(unix_ms);
        Self { sequence: record.sequence, time_ms, record: json, ..row }
    }
}

fn decided(decision: &v1::DecisionRecord) -> Row<'_> {
    let basis = decision.basis.as_ref();
    let hold = decision.hold.as_ref();
    let cause = hold.and_then(|hold| hold.cause.as_ref());
    Row {
        kind: "decision",
        decision_id: said(&decision.decision_id),
        attempt_id: said(&decision.attempt_id),
        door: said(&decision.door),
        principal: decision.principal.as_ref(),
        action: decision.action.as_ref(),
        resource: decision.resource.as_ref(),
        session_id: said(&decision.session_id),
        task: decision.observed.as_ref().and_then(|observed| said(&observed.task)),
        delegation: Some(chain(&decision.delegation)),
        decision: Some(answer(decision.decision())),
        reasons: Some(
            decision.reasons.iter().map(|reason| word(reason.code().as_str_name(), "REASON_CODE_")).collect(),
        ),
        determining_policies: Some(&decision.determining_policies),
        policy_errors: Some(&decision.policy_errors),
        step_up: Some(&decision.step_up),
        obligations: Some(&decision.obligations),
        responses: Some(&decision.responses),
        severity: said(&decision.severity),
        latency_ns: Some(decision.latency_ns),
        bundle_revision: basis.map(|basis| basis.revision),
        bundle_digest: basis.and_then(|basis| said(&basis.digest)),
        state_version: basis.map(|basis| basis.state_version),
        enforcement_point: hold.and_then(|hold| said(&hold.enforcement_point)),
        hold_before: hold
            .filter(|hold| hold.before() != v1::Decision::Unspecified)
            .map(|hold| answer(hold.before())),
        hold_cause: cause.map(|cause: &v1::HoldCause| {
            let kind: hold_cause::Kind = cause.kind();
            word(kind.as_str_name(), "KIND_")
        }),
        ..deviating(decision.deviation.as_deref())
    }
}

fn signalled(signal: &v1::SignalRecord) -> Row<'_> {
    Row {
        kind: "signal",
        change: changed(&signal.outcome),
        principal: signal.subject.as_ref(),
        session_id: said(&signal.session_id),
        state_version: Some(signal.state_version),
        signal: said(&signal.kind),
        source: said(&signal.source),
        reason: said(&signal.reason),
        ..Row::default()
    }
}

/// Its answers are in the record alone: the one that was given is counted with its decision, the other was given to nobody.
fn shadowed(shadow: &v1::ShadowRecord) -> Row<'_> {
    Row {
        kind: "shadow",
        change: Some(word(shadow.effect().as_str_name(), "SHADOW_EFFECT_").into()),
        decision_id: said(&shadow.decision_id),
        door: said(&shadow.door),
        principal: shadow.principal.as_ref(),
        action: shadow.action.as_ref(),
        resource: shadow.resource.as_ref(),
        session_id: said(&shadow.session_id),
        ..Row::default()
    }
}

fn reviewed(review: &v1::ReviewRecord) -> Row<'_> {
    Row {
        kind: "review",
        change: changed(&review.change),
        decision_id: said(&review.decision_id),
        principal: review.principal.as_ref(),
        action: review.action.as_ref(),
        resource: review.resource.as_ref(),
        delegation: Some(chain(&review.delegation)),
        task: review.into_baseline.as_ref().and_then(|observed| said(&observed.task)),
        state_version: Some(review.state_version),
        source: said(&review.asked_by),
        reason: said(&review.reason),
        ..deviating(review.deviation.as_ref())
    }
}

fn deviating(deviation: Option<&v1::DeviationRecord>) -> Row<'_> {
    Row {
        deviation: deviation.map(|one| &*one.flags),
        assessment: deviation.and_then(|one| said(&one.assessment)),
        confidence: deviation.map(|one| one.confidence.into()),
        ..Row::default()
    }
}

/// In protobuf a text that nobody set is empty.
fn said(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn changed(text: &str) -> Option<Cow<'_, str>> {
    said(text).map(Cow::Borrowed)
}

fn chain(hops: &[v1::EntityRef]) -> Vec<String> {
    hops.iter().map(|hop| Named { type_name: hop.r#type.clone(), id: hop.id.clone() }.to_string()).collect()
}

fn answer(decision: v1::Decision) -> String {
    word(decision.as_str_name(), "DECISION_")
}

/// The name of an enum's value as JSON has it.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}
