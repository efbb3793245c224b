//! The shape of a line, and that nothing is lost between memory, disk and wire.

use std::collections::BTreeMap;

use cardea_proto::v1;
use proptest::{collection::vec, option, prelude::*};
use smol_str::SmolStr;

use super::*;
use crate::audit::record::{
    Basis, BundleRecord, CounterRecord, DecisionRecord, DeviationRecord, Entity, Evidence, FactAge,
    GapRecord, HoldCause, HoldRecord, HopVerdict, LINE_BYTES_MAX, Reason, Replay, ReplayFact, ReviewRecord,
    ShadowAnswer, ShadowRecord, SignalRecord, TaskRecord, VALUE_DEPTH_MAX, Value,
};

fn text() -> impl Strategy<Value = SmolStr> + Clone {
    any::<String>().prop_map(SmolStr::from)
}

fn entity() -> impl Strategy<Value = Entity> + Clone {
    (text(), text()).prop_map(|(type_name, id)| Entity { type_name, id })
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Long),
        text().prop_map(Value::String),
        entity().prop_map(Value::Entity),
        text().prop_map(Value::Decimal),
        text().prop_map(Value::Ip),
        any::<i64>().prop_map(Value::Datetime),
        (0_i64..4_000_000_000_000).prop_map(Value::Datetime),
        any::<i64>().prop_map(Value::Duration),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Set),
            prop::collection::btree_map(text(), inner, 0..4).prop_map(Value::Record),
        ]
    })
}

fn answer() -> impl Strategy<Value = v1::Decision> {
    (0_i32..4).prop_map(|n| v1::Decision::try_from(n).unwrap())
}

fn reason() -> impl Strategy<Value = Reason> {
    (0_i32..20, text())
        .prop_map(|(code, message)| Reason { code: v1::ReasonCode::try_from(code).unwrap(), message })
}

fn evidence() -> impl Strategy<Value = Evidence> {
    (text(), value(), text()).prop_map(|(fact, value, why)| Evidence { fact, value, why })
}

fn basis() -> impl Strategy<Value = Basis> {
    let age = (text(), any::<u64>()).prop_map(|(fact, age_ms)| FactAge { fact, age_ms });
    (any::<u64>(), text(), any::<u64>(), vec(age, 0..3))
        .prop_map(|(revision, digest, state_version, ages)| Basis { revision, digest, state_version, ages })
}

fn replay() -> impl Strategy<Value = Box<Replay>> {
    let fact = (text(), any::<u32>(), value()).prop_map(|(fact, hop, value)| ReplayFact { fact, hop, value });
    (prop::collection::btree_map(text(), value(), 0..3), vec(fact, 0..3))
        .prop_map(|(request, facts)| Box::new(Replay { request, facts }))
}

fn hop() -> impl Strategy<Value = HopVerdict> {
    (option::of(entity()), answer(), vec(text(), 0..3)).prop_map(
        |(principal, decision, determining_policies)| HopVerdict {
            principal,
            decision,
            determining_policies,
        },
    )
}

prop_compose! {
    fn decision()(
        (decision_id, attempt_id, door, session_id) in (text(), text(), text(), text()),
        (principal, action, resource) in (option::of(entity()), option::of(entity()), option::of(entity())),
        (determining_policies, policy_errors) in (vec(text(), 0..3), vec(text(), 0..3)),
        (step_up, obligations) in (vec(text(), 0..3), vec(text(), 0..3)),
        (delegation, reasons, hops) in (vec(entity(), 0..3), vec(reason(), 0..3), vec(hop(), 0..3)),
        (severity, replay, hold) in (text(), option::of(replay()), option::of(hold())),
        (deviation, counters) in (option::of(deviation()), vec(counter(), 0..3)),
        (evidence, basis) in (vec(evidence(), 0..3), option::of(basis())),
        (decision, latency_ns) in (answer(), any::<u64>()),
    ) -> DecisionRecord {
        DecisionRecord {
            decision_id, attempt_id, door, session_id, principal, action, resource, determining_policies,
            policy_errors, step_up, obligations, delegation, reasons, hops, evidence, basis, decision, latency_ns,
            severity, replay, hold, deviation, counters,
        }
    }
}

prop_compose! {
    fn counter()((name, count, warm, outcome) in (text(), any::<i64>(), any::<bool>(), text())) -> CounterRecord {
        CounterRecord { name, count, warm, outcome }
    }
}

prop_compose! {
    fn deviation()(
        (flags, evidence) in (vec(text(), 0..3), vec(text(), 0..3)),
        (assessment, baseline, confidence) in (text(), text(), any::<u32>()),
    ) -> Box<DeviationRecord> {
        Box::new(DeviationRecord { flags, assessment, confidence, evidence, baseline })
    }
}

prop_compose! {
    fn hold()(
        (enforcement_point, hold_id, before) in (text(), any::<u64>(), answer()),
        (name, change, state_version) in (text(), text(), any::<u64>()),
        is_first in any::<bool>(),
    ) -> Box<HoldRecord> {
        let cause = HoldCause { kind: v1::hold_cause::Kind::Session, name, change, state_version };
        let (cause, before) = if is_first { (None, v1::Decision::Unspecified) } else { (Some(cause), before) };
        Box::new(HoldRecord { enforcement_point, hold_id, cause, before })
    }
}

prop_compose! {
    fn shadow_answer()(
        (revision, digest, decision, lease_ms) in (any::<u64>(), text(), answer(), any::<u32>()),
        (reasons, determining_policies) in (vec(reason(), 0..3), vec(text(), 0..3)),
        (step_up, obligations) in (vec(text(), 0..3), vec(text(), 0..3)),
    ) -> ShadowAnswer {
        ShadowAnswer { revision, digest, decision, reasons, determining_policies, step_up, obligations, lease_ms }
    }
}

prop_compose! {
    fn shadow()(
        (decision_id, door, session_id) in (text(), text(), text()),
        (principal, action, resource) in (entity(), entity(), entity()),
        effect in prop_oneof![
            Just(v1::ShadowEffect::Widened), Just(v1::ShadowEffect::Tightened), Just(v1::ShadowEffect::Changed)
        ],
        (in_force, candidate) in (shadow_answer(), shadow_answer()),
    ) -> ShadowRecord {
        ShadowRecord {
            decision_id, door, principal, action, resource, session_id, effect, in_force, candidate,
        }
    }
}

prop_compose! {
    fn task()(
        (task_id, change, reason, asked_by) in (text(), text(), text(), text()),
        (agent, by, on_behalf_of) in (entity(), entity(), option::of(entity())),
        (state_version, not_after) in (any::<u64>(), any::<i64>()),
    ) -> TaskRecord {
        TaskRecord { task_id, agent, on_behalf_of, change, by, state_version, reason, asked_by, not_after }
    }
}

prop_compose! {
    fn review()(
        (review_id, change, argument_digest, requirement) in (text(), text(), text(), text()),
        (decision_id, reason, asked_by) in (text(), text(), text()),
        (principal, action, resource, reviewer) in (entity(), entity(), entity(), option::of(entity())),
        (delegation, round) in (vec(entity(), 0..3), any::<u32>()),
        (grant_ends_at, state_version) in (option::of(any::<i64>()), any::<u64>()),
    ) -> ReviewRecord {
        ReviewRecord {
            review_id, round, change, principal, delegation, action, resource, argument_digest, requirement,
            decision_id, reviewer, grant_ends_at, state_version, reason, asked_by,
        }
    }
}

prop_compose! {
    fn other()(
        pick in 0..7,
        (a, b, c, d, e) in (text(), text(), text(), text(), text()),
        principal in option::of(entity()),
        n in any::<u64>(),
        shadow in shadow(),
        (task, review) in (task(), review()),
    ) -> Body {
        match pick {
            0 => Body::Signal(SignalRecord {
                subject: principal, kind: a, source: b, outcome: c.clone(), state_version: n, reason: d, session_id: e.clone(),
                txn: c, token_id: e,
            }),
            1 => Body::Session(SessionRecord { session_id: a, principal, change: b, state_version: n, reason: c }),
            2 => Body::Bundle(BundleRecord { change: a, name: b, revision: n, digest: c, reason: d, asked_by: e }),
            3 => Body::Shadow(Box::new(shadow)),
            4 => Body::Task(Box::new(task)),
            5 => Body::Review(Box::new(review)),
            _ => Body::Gap(GapRecord { lost: n }),
        }
    }
}

fn record() -> impl Strategy<Value = Record> {
    let body = prop_oneof![decision().prop_map(Body::Decision), other()];
    // Times that RFC 3339 can write, and others.
    let time = prop_oneof![0_u64..253_402_207_200_999, 0..=i64::MAX.unsigned_abs()];
    (any::<u64>(), time, body).prop_map(|(sequence, time_ms, body)| Record { sequence, time_ms, body })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_one_line_that_reads_back_the_same(record in record()) {
        let mut line = Vec::new();
        prop_assert!(record.clone().write_line(&mut line));
        prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        prop_assert_eq!(line.last(), Some(&b'\n'));
        let read: Record = serde_json::from_slice(&line).unwrap();
        prop_assert_eq!(&read, &record);
        prop_assert_eq!(v1::Record::from(read), v1::Record::from(record));
    }
}

fn example() -> Record {
    let entity = |type_name: &str, id: &str| Some(Entity { type_name: type_name.into(), id: id.into() });
    Record {
        sequence: 42,
        time_ms: 1_767_323_045_070,
        body: Body::Decision(DecisionRecord {
            decision_id: "d1".into(),
            attempt_id: "".into(),
            door: "ext_authz".into(),
            principal: entity("Acme::Agent", "a1"),
            action: entity("Action", "read"),
            resource: entity("Acme::Doc", "x\"y"),
            session_id: "s1".into(),
            delegation: vec![],
            decision: v1::Decision::StepUp,
            reasons: vec![Reason { code: v1::ReasonCode::StepUpRequired, message: "log in".into() }],
            determining_policies: vec!["p1".into()],
            policy_errors: vec![],
            step_up: vec!["mfa".into()],
            obligations: vec![],
            evidence: vec![Evidence { fact: "risk.score".into(), value: Value::Long(72), why: "".into() }],
            basis: Some(Basis { revision: 3, digest: "ab".into(), state_version: 9, ages: vec![] }),
            latency_ns: 800,
            hops: vec![],
            severity: SmolStr::default(),
            replay: None,
            hold: None,
            deviation: None,
            counters: vec![],
        }),
    }
}

#[test]
fn a_line_looks_as_documented() {
    let mut line = Vec::new();
    assert!(example().write_line(&mut line));
    let expected = concat!(
        r#"{"sequence":42,"time":"2026-01-02T03:04:05.070Z","decision":{"decision_id":"d1","door":"ext_authz","#,
        r#""principal":{"type":"Acme::Agent","id":"a1"},"action":{"type":"Action","id":"read"},"#,
        r#""resource":{"type":"Acme::Doc","id":"x\"y"},"session_id":"s1","decision":"step_up","#,
        r#""reasons":[{"code":"step_up_required","message":"log in"}],"determining_policies":["p1"],"#,
        r#""step_up":["mfa"],"evidence":[{"fact":"risk.score","value":{"long":72}}],"#,
        r#""basis":{"revision":3,"digest":"ab","state_version":9},"latency_ns":800}}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(line).unwrap(), expected);
}

#[test]
fn the_wire_gets_every_field() {
    let wire = v1::Record::from(example());
    let time = wire.time.unwrap();
    assert_eq!((wire.sequence, time.seconds, time.nanos), (42, 1_767_323_045, 70_000_000));
    let Some(v1::record::Entry::Decision(decision)) = wire.entry else { panic!("a decision") };
    assert_eq!(decision.decision(), v1::Decision::StepUp);
    assert_eq!(decision.reasons[0].code(), v1::ReasonCode::StepUpRequired);
    assert_eq!(decision.resource.unwrap().id, "x\"y");
    assert_eq!(decision.evidence[0].value.as_ref().unwrap().kind, Some(v1::value::Kind::Long(72)));
    assert_eq!(decision.basis.unwrap().state_version, 9);
    let before_1970 = v1::Value::from(Value::Datetime(-1));
    let Some(v1::value::Kind::Datetime(time)) = before_1970.kind else { panic!("a datetime") };
    assert_eq!((time.seconds, time.nanos), (-1, 999_000_000));
}

#[test]
fn a_line_with_no_entry_two_entries_or_an_unknown_word_is_refused() {
    for bad in [
        r#"{"sequence":1,"time":"2026-01-02T03:04:05.070Z"}"#,
        r#"{"sequence":1,"time":"2026-01-02T03:04:05.070Z","gap":{"lost":1},"bundle":{"change":"","name":"","revision":1}}"#,
        r#"{"sequence":1,"time":"yesterday","gap":{"lost":1}}"#,
        r#"{"sequence":1,"time":"2026-01-02T03:04:05.070Z","decision":{"decision_id":"","door":"","decision":"maybe","latency_ns":1}}"#,
    ] {
        assert!(serde_json::from_str::<Record>(bad).is_err(), "{bad}");
    }
}

fn with_evidence(value: Value) -> Record {
    let mut record = example();
    if let Body::Decision(decision) = &mut record.body {
        decision.evidence = vec![Evidence { fact: "request.x".into(), value, why: "".into() }];
    }
    record
}

#[test]
fn evidence_nested_too_deep_to_be_read_back_is_cut_with_a_note() {
    let nest = |levels| {
        (0..levels).fold(Value::Long(1), |inner, level| match level % 2 {
            0 => Value::Set(vec![inner]),
            _ => Value::Record(BTreeMap::from([("k".into(), inner)])),
        })
    };
    for (levels, whole) in [(VALUE_DEPTH_MAX - 1, true), (VALUE_DEPTH_MAX, false), (500, false)] {
        let (mut line, record) = (Vec::new(), with_evidence(nest(levels)));
        assert!(record.clone().write_line(&mut line));
        let read: Record = serde_json::from_slice(&line).unwrap();
        assert_eq!(read == record, whole, "{levels} levels");
        assert_eq!(String::from_utf8(line).unwrap().contains("nested deeper than 32 levels"), !whole);
    }
}

#[test]
fn a_record_too_long_for_a_line_loses_its_evidence_and_failing_that_becomes_a_gap() {
    let long = SmolStr::from("x".repeat(LINE_BYTES_MAX));
    let mut out = b"before\n".to_vec();
    assert!(with_evidence(Value::String(long.clone())).write_line(&mut out));
    let text = String::from_utf8(out).unwrap();
    let line = text.strip_prefix("before\n").unwrap();
    assert!(line.contains("evidence left out: the record took 26"), "{line}");
    assert!(line.contains("\"decision\":\"step_up\"") && line.len() < 1_000);

    let mut record = example();
    if let Body::Decision(decision) = &mut record.body {
        decision.session_id = long;
    }
    let mut out = Vec::new();
    assert!(!record.write_line(&mut out));
    let read: Record = serde_json::from_slice(&out).unwrap();
    assert_eq!((read.sequence, read.body), (42, Body::Gap(GapRecord { lost: 1 })));
}
