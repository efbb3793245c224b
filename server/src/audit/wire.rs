//! Turns a record as it is stored into the record of the wire, for `AuditService`.
//!
//! Owns: nothing. The two have the same fields, so nothing is lost or invented here.
//! Never does: the other direction; no record comes in by the wire.

use cardea_proto::v1;

use super::record::{
    Basis, Body, BundleRecord, CounterRecord, DecisionRecord, DeviationRecord, Entity, Evidence, FactAge,
    GapRecord, HoldCause, HoldRecord, HopVerdict, ObservedRecord, Reason, Record, Replay, ReplayFact,
    SessionRecord, ShadowAnswer, ShadowRecord, SignalRecord, StreamRecord, Value, WouldHave,
};

impl From<Record> for v1::Record {
    fn from(record: Record) -> Self {
        use v1::record::Entry;
        let entry = match record.body {
            Body::Decision(body) => Entry::Decision(body.into()),
            Body::Signal(body) => Entry::Signal(body.into()),
            Body::Session(body) => Entry::Session(body.into()),
            Body::Bundle(body) => Entry::Bundle(body.into()),
            Body::Gap(GapRecord { lost }) => Entry::Gap(v1::GapRecord { lost }),
            Body::Shadow(body) => Entry::Shadow((*body).into()),
            Body::Task(body) => Entry::Task((*body).into()),
            Body::Review(body) => Entry::Review((*body).into()),
            Body::Stream(body) => Entry::Stream(body.into()),
        };
        let time = timestamp(i64::try_from(record.time_ms).unwrap_or(i64::MAX));
        Self { sequence: record.sequence, time: Some(time), entry: Some(entry) }
    }
}

impl From<DecisionRecord> for v1::DecisionRecord {
    fn from(record: DecisionRecord) -> Self {
        Self {
            decision_id: record.decision_id.into(),
            door: record.door.into(),
            principal: record.principal.map(Into::into),
            action: record.action.map(Into::into),
            resource: record.resource.map(Into::into),
            session_id: record.session_id.into(),
            delegation: all(record.delegation),
            decision: record.decision.into(),
            reasons: all(record.reasons),
            determining_policies: all(record.determining_policies),
            policy_errors: all(record.policy_errors),
            step_up: all(record.step_up),
            obligations: all(record.obligations),
            evidence: all(record.evidence),
            basis: record.basis.map(Into::into),
            latency_ns: record.latency_ns,
            hops: all(record.hops),
            severity: record.severity.into(),
            attempt_id: record.attempt_id.into(),
            replay: record.replay.map(|replay| Box::new((*replay).into())),
            hold: record.hold.map(|hold| (*hold).into()),
            deviation: record.deviation.map(|deviation| Box::new((*deviation).into())),
            counters: all(record.counters),
            responses: all(record.responses),
            would_have: all(record.would_have),
            observed: record.observed.map(|observed| Box::new((*observed).into())),
        }
    }
}

impl From<WouldHave> for v1::WouldHave {
    fn from(record: WouldHave) -> Self {
        Self { policy: record.policy.into(), decision: record.decision.into() }
    }
}

impl From<ObservedRecord> for v1::ObservedRecord {
    fn from(record: ObservedRecord) -> Self {
        let texts = |texts: Vec<smol_str::SmolStr>| texts.into_iter().map(Into::into).collect();
        Self {
            task: record.task.into(),
            targets: texts(record.targets),
            references: texts(record.references),
            network: record.network.into(),
            observing: record.observing,
            unusable: record.unusable,
        }
    }
}

impl From<DeviationRecord> for v1::DeviationRecord {
    fn from(record: DeviationRecord) -> Self {
        let texts = |texts: Vec<smol_str::SmolStr>| texts.into_iter().map(Into::into).collect();
        Self {
            flags: texts(record.flags),
            assessment: record.assessment.into(),
            confidence: record.confidence,
            evidence: texts(record.evidence),
            baseline: record.baseline.into(),
            observed: record.observed,
        }
    }
}

impl From<CounterRecord> for v1::CounterRecord {
    fn from(record: CounterRecord) -> Self {
        let CounterRecord { name, count, warm, outcome } = record;
        Self { name: name.into(), count, warm, outcome: outcome.into() }
    }
}

impl From<HoldRecord> for v1::HoldRecord {
    fn from(record: HoldRecord) -> Self {
        Self {
            enforcement_point: record.enforcement_point.into(),
            hold_id: record.hold_id,
            cause: record.cause.map(Into::into),
            before: record.before.into(),
        }
    }
}

impl From<HoldCause> for v1::HoldCause {
    fn from(cause: HoldCause) -> Self {
        Self {
            kind: cause.kind.into(),
            name: cause.name.into(),
            change: cause.change.into(),
            state_version: cause.state_version,
        }
    }
}

impl From<Replay> for v1::Replay {
    fn from(replay: Replay) -> Self {
        Self {
            request: replay.request.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            facts: all(replay.facts),
        }
    }
}

impl From<ReplayFact> for v1::ReplayFact {
    fn from(fact: ReplayFact) -> Self {
        Self { fact: fact.fact.into(), hop: fact.hop, value: Some(fact.value.into()) }
    }
}

impl From<SignalRecord> for v1::SignalRecord {
    fn from(record: SignalRecord) -> Self {
        Self {
            subject: record.subject.map(Into::into),
            kind: record.kind.into(),
            source: record.source.into(),
            outcome: record.outcome.into(),
            state_version: record.state_version,
            reason: record.reason.into(),
            session_id: record.session_id.into(),
            txn: record.txn.into(),
            token_id: record.token_id.into(),
        }
    }
}

impl From<SessionRecord> for v1::SessionRecord {
    fn from(record: SessionRecord) -> Self {
        Self {
            session_id: record.session_id.into(),
            principal: record.principal.map(Into::into),
            change: record.change.into(),
            state_version: record.state_version,
            reason: record.reason.into(),
        }
    }
}

impl From<BundleRecord> for v1::BundleRecord {
    fn from(record: BundleRecord) -> Self {
        Self {
            change: record.change.into(),
            name: record.name.into(),
            revision: record.revision,
            digest: record.digest.into(),
            reason: record.reason.into(),
            asked_by: record.asked_by.into(),
            baseline_version: record.baseline_version,
            baseline_approved_by: record.baseline_approved_by.into(),
        }
    }
}

impl From<StreamRecord> for v1::StreamRecord {
    fn from(record: StreamRecord) -> Self {
        Self {
            stream_id: record.stream_id.into(),
            receiver: record.receiver.into(),
            change: record.change.into(),
            events: record.events,
            reason: record.reason.into(),
        }
    }
}

impl From<ShadowRecord> for v1::ShadowRecord {
    fn from(record: ShadowRecord) -> Self {
        Self {
            decision_id: record.decision_id.into(),
            door: record.door.into(),
            principal: Some(record.principal.into()),
            action: Some(record.action.into()),
            resource: Some(record.resource.into()),
            session_id: record.session_id.into(),
            effect: record.effect.into(),
            in_force: Some(record.in_force.into()),
            candidate: Some(record.candidate.into()),
        }
    }
}

impl From<ShadowAnswer> for v1::ShadowAnswer {
    fn from(answer: ShadowAnswer) -> Self {
        Self {
            revision: answer.revision,
            digest: answer.digest.into(),
            decision: answer.decision.into(),
            reasons: all(answer.reasons),
            determining_policies: all(answer.determining_policies),
            step_up: all(answer.step_up),
            obligations: all(answer.obligations),
            lease_ms: answer.lease_ms,
        }
    }
}

impl From<Entity> for v1::EntityRef {
    fn from(entity: Entity) -> Self {
        Self { r#type: entity.type_name.into(), id: entity.id.into() }
    }
}

impl From<Reason> for v1::Reason {
    fn from(reason: Reason) -> Self {
        Self { code: reason.code.into(), message: reason.message.into() }
    }
}

impl From<Evidence> for v1::Evidence {
    fn from(evidence: Evidence) -> Self {
        Self { fact: evidence.fact.into(), value: Some(evidence.value.into()), why: evidence.why.into() }
    }
}

impl From<Basis> for v1::Basis {
    fn from(basis: Basis) -> Self {
        Self {
            revision: basis.revision,
            digest: basis.digest.into(),
            state_version: basis.state_version,
            ages: all(basis.ages),
        }
    }
}

impl From<FactAge> for v1::FactAge {
    fn from(age: FactAge) -> Self {
        Self { fact: age.fact.into(), age_ms: age.age_ms }
    }
}

impl From<HopVerdict> for v1::HopVerdict {
    fn from(hop: HopVerdict) -> Self {
        Self {
            principal: hop.principal.map(Into::into),
            decision: hop.decision.into(),
            determining_policies: all(hop.determining_policies),
        }
    }
}

impl From<Value> for v1::Value {
    fn from(value: Value) -> Self {
        use v1::value::Kind;
        let kind = match value {
            Value::Bool(value) => Kind::Bool(value),
            Value::Long(value) => Kind::Long(value),
            Value::String(text) => Kind::String(text.into()),
            Value::Entity(entity) => Kind::Entity(entity.into()),
            Value::Set(values) => Kind::Set(v1::ValueSet { values: all(values) }),
            Value::Record(fields) => Kind::Record(v1::ValueRecord {
                fields: fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            }),
            Value::Decimal(text) => Kind::Decimal(text.into()),
            Value::Ip(text) => Kind::Ip(text.into()),
            Value::Datetime(ms) => Kind::Datetime(timestamp(ms)),
            Value::Duration(ms) => Kind::Duration(duration(ms)),
        };
        Self { kind: Some(kind) }
    }
}

fn all<T: Into<U>, U>(items: Vec<T>) -> Vec<U> {
    items.into_iter().map(Into::into).collect()
}

fn timestamp(ms: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: ms.div_euclid(MS_PER_S), nanos: nanos(ms.rem_euclid(MS_PER_S)) }
}

/// Seconds and nanoseconds of a protobuf duration carry the same sign.
fn duration(ms: i64) -> prost_types::Duration {
    prost_types::Duration { seconds: ms / MS_PER_S, nanos: nanos(ms % MS_PER_S) }
}

const MS_PER_S: i64 = 1_000;

fn nanos(ms_of_second: i64) -> i32 {
    i32::try_from(ms_of_second * 1_000_000).unwrap_or_default()
}
