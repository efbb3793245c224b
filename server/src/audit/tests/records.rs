//! Records keep what they hold, in protobuf and in JSON, and stay within their bounds.

use std::collections::BTreeMap;

use cardea_proto::v1::value::Kind;
use proptest::{collection::vec, option, prelude::*};
use prost::Message as _;

use super::*;
use crate::audit::record::{VALUE_DEPTH_MAX, encode, timestamp};

fn text() -> impl Strategy<Value = String> + Clone {
    any::<String>()
}

fn entity() -> impl Strategy<Value = v1::EntityRef> + Clone {
    (text(), text()).prop_map(|(r#type, id)| v1::EntityRef { r#type, id })
}

fn plain(kind: Kind) -> v1::Value {
    v1::Value { kind: Some(kind) }
}

fn value() -> impl Strategy<Value = v1::Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Kind::Bool),
        any::<i64>().prop_map(Kind::Long),
        text().prop_map(Kind::String),
        entity().prop_map(Kind::Entity),
        text().prop_map(Kind::Decimal),
        text().prop_map(Kind::Ip),
        (i64::MIN / 2..i64::MAX / 2).prop_map(|ms| Kind::Datetime(timestamp(ms))),
        (i64::MIN / 2..i64::MAX / 2).prop_map(|ms| Kind::Duration(crate::audit::record::duration(ms))),
    ]
    .prop_map(plain);
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|values| plain(Kind::Set(v1::ValueSet { values }))),
            prop::collection::btree_map(text(), inner, 0..4)
                .prop_map(|fields| plain(Kind::Record(v1::ValueRecord { fields }))),
        ]
    })
}

prop_compose! {
    fn decision()(
        (decision_id, door, session_id, severity) in (text(), text(), text(), text()),
        (principal, resource) in (option::of(entity()), option::of(entity())),
        (delegation, codes) in (vec(entity(), 0..3), vec((0..20_i32, text()), 0..3)),
        (determining_policies, left_out) in (vec(text(), 0..3), vec(text(), 0..2)),
        evidence in vec((text(), value(), text()), 0..3),
        (request, decision, latency_ns) in (prop::collection::btree_map(text(), value(), 0..3), 0..4_i32, any::<u64>()),
        (has_replay, has_hold, before) in (any::<bool>(), any::<bool>(), 0..4_i32),
    ) -> v1::DecisionRecord {
        let cause = v1::HoldCause { kind: v1::hold_cause::Kind::Session.into(), name: door.clone(), ..v1::HoldCause::default() };
        v1::DecisionRecord {
            decision_id, door, session_id, severity, principal, resource, delegation, determining_policies, left_out,
            decision, latency_ns,
            reasons: codes.into_iter().map(|(code, message)| v1::Reason { code, message }).collect(),
            evidence: evidence
                .into_iter()
                .map(|(fact, value, why)| v1::Evidence { fact, value: Some(value), why })
                .collect(),
            replay: has_replay.then(|| Box::new(v1::Replay { request, facts: Vec::new() })),
            hold: has_hold.then_some(v1::HoldRecord { hold_id: 7, before, cause: Some(cause), ..v1::HoldRecord::default() }),
            ..v1::DecisionRecord::default()
        }
    }
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        4 => decision().prop_map(Entry::Decision),
        1 => (text(), text(), option::of(entity()), any::<u64>()).prop_map(|(session_id, change, principal, state_version)| {
            Entry::Session(v1::SessionRecord { session_id, change, principal, state_version, reason: String::new() })
        }),
        1 => (any::<u64>(), 0..4_i32, any::<i32>()).prop_map(|(lost, cause, since)| {
            Entry::Gap(v1::GapRecord { lost, cause, lost_max: 9, since: Some(timestamp(since.into())), lost_decisions: lost / 3, lost_changes: lost - lost / 3 })
        }),
    ]
}

pub(in crate::audit) fn record() -> impl Strategy<Value = v1::Record> {
    // Times that RFC 3339 can write, and others.
    let time = prop_oneof![0_i64..253_402_207_200_999, 0..i64::MAX / 2].prop_map(timestamp);
    (any::<u64>(), time, entry()).prop_map(|(sequence, time, entry)| v1::Record {
        sequence,
        time: Some(time),
        entry: Some(entry),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_record_reads_back_the_same_in_protobuf_and_from_a_line_of_json(record in record()) {
        let mut bytes = Vec::new();
        prop_assert!(encode(record.clone(), &mut bytes));
        prop_assert_eq!(v1::Record::decode(bytes.as_slice()), Ok(record.clone()));
        let line = serde_json::to_string(&record).unwrap();
        prop_assert!(!line.contains('\n'));
        let read: v1::Record = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(read, record);
    }
}

fn example() -> v1::Record {
    let entity =
        |r#type: &str, id: &str| Some(v1::EntityRef { r#type: r#type.to_owned(), id: id.to_owned() });
    v1::Record {
        sequence: 42,
        time: Some(timestamp(1_767_323_045_070)),
        entry: Some(Entry::Decision(v1::DecisionRecord {
            decision_id: "d1".to_owned(),
            door: "ext_authz".to_owned(),
            principal: entity("Acme::Agent", "a1"),
            resource: entity("Acme::Doc", "x\"y"),
            decision: v1::Decision::StepUp.into(),
            reasons: vec![v1::Reason {
                code: v1::ReasonCode::StepUpRequired.into(),
                message: "log in".to_owned(),
            }],
            evidence: vec![v1::Evidence {
                fact: "risk.score".to_owned(),
                value: Some(plain(Kind::Long(72))),
                why: String::new(),
            }],
            basis: Some(v1::Basis { revision: 3, digest: "ab".to_owned(), state_version: 9, ages: vec![] }),
            latency_ns: 800,
            ..v1::DecisionRecord::default()
        })),
    }
}

#[test]
fn a_line_of_json_looks_as_documented() {
    let expected = concat!(
        r#"{"sequence":42,"time":"2026-01-02T03:04:05.070Z","decision":{"decision_id":"d1","door":"ext_authz","#,
        r#""principal":{"type":"Acme::Agent","id":"a1"},"resource":{"type":"Acme::Doc","id":"x\"y"},"decision":"step_up","#,
        r#""reasons":[{"code":"step_up_required","message":"log in"}],"#,
        r#""evidence":[{"fact":"risk.score","value":{"long":72}}],"#,
        r#""basis":{"revision":3,"digest":"ab","state_version":9},"latency_ns":800}}"#,
    );
    assert_eq!(serde_json::to_string(&example()).unwrap(), expected);
    let later = expected.replace("\"door\":", "\"of_a_later_version\":[1],\"door\":");
    assert_eq!(serde_json::from_str::<v1::Record>(&later).unwrap(), example());
}

#[test]
fn a_line_with_no_entry_or_an_unknown_word_is_refused() {
    for bad in [
        r#"{"sequence":1,"time":"2026-01-02T03:04:05.070Z"}"#,
        r#"{"sequence":1,"time":"yesterday","gap":{"lost":1}}"#,
        r#"{"sequence":1,"time":"2026-01-02T03:04:05.070Z","gap":{"lost":1,"cause":"whim"}}"#,
        r#"{"sequence":1,"time":"2026-01-02T03:04:05.070Z","decision":{"decision":"maybe"}}"#,
    ] {
        assert!(serde_json::from_str::<v1::Record>(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_line_that_says_two_things_is_refused_since_nobody_knows_which_is_meant() {
    for (bad, why) in [
        (
            r#"{"sequence":1,"time":"2026-01-02T03:04:05.070Z","gap":{"lost":1},"decision":{}}"#,
            "this has `gap` and `decision`",
        ),
        (
            r#"{"sequence":1,"time":"2026-01-02T03:04:05.070Z","gap":{"lost":1},"gap":{"lost":2}}"#,
            "this has `gap` and `gap`",
        ),
        (
            r#"{"sequence":1,"sequence":2,"time":"2026-01-02T03:04:05.070Z","gap":{}}"#,
            "`sequence` stands twice",
        ),
        (
            r#"{"sequence":1,"time":"2026-01-02T03:04:05.070Z","gap":{"lost":1,"lost":2}}"#,
            "duplicate field `lost`",
        ),
    ] {
        let said = serde_json::from_str::<v1::Record>(bad).unwrap_err().to_string();
        assert!(said.contains(why), "{bad}: {said}");
    }
}

fn with_evidence(value: v1::Value) -> v1::Record {
    let mut record = example();
    if let Some(Entry::Decision(decision)) = &mut record.entry {
        decision.evidence =
            vec![v1::Evidence { fact: "request.x".to_owned(), value: Some(value), why: String::new() }];
    }
    record
}

#[test]
fn a_value_nested_too_deep_to_be_read_back_is_cut_with_a_note() {
    let nest = |levels| {
        (0..levels).fold(plain(Kind::Long(1)), |inner, _| {
            plain(Kind::Record(v1::ValueRecord { fields: BTreeMap::from([("k".to_owned(), inner)]) }))
        })
    };
    for (levels, whole) in [(VALUE_DEPTH_MAX - 1, true), (VALUE_DEPTH_MAX, false), (90, false)] {
        let (mut bytes, record) = (Vec::new(), with_evidence(nest(levels)));
        assert!(encode(record.clone(), &mut bytes));
        let read = v1::Record::decode(bytes.as_slice()).unwrap();
        assert_eq!(read == record, whole, "{levels} levels");
        let line = serde_json::to_string(&read).unwrap();
        assert_eq!(line.contains("nested deeper than 24 levels"), !whole);
        assert_eq!(serde_json::from_str::<v1::Record>(&line).unwrap(), read);
    }
}

#[test]
fn a_record_too_long_names_what_it_leaves_out_and_failing_that_becomes_a_gap() {
    let long = "x".repeat(70_000);
    let mut record = with_evidence(plain(Kind::String(long.clone())));
    if let Some(Entry::Decision(decision)) = &mut record.entry {
        decision.observed = Some(Box::new(v1::ObservedRecord {
            task: "t".to_owned(),
            targets: vec!["to".to_owned()],
            ..v1::ObservedRecord::default()
        }));
    }
    let mut bytes = b"left over".to_vec();
    assert!(encode(record.clone(), &mut bytes));
    let read = v1::Record::decode(bytes.as_slice()).unwrap();
    let Some(Entry::Decision(decision)) = &read.entry else { panic!("{read:?}") };
    assert_eq!(decision.left_out, ["observed", "evidence"]);
    assert_eq!(decision.decision(), v1::Decision::StepUp);
    let observed = decision.observed.as_deref().unwrap();
    assert!(observed.unusable && observed.targets.is_empty() && observed.task == "t");

    if let Some(Entry::Decision(decision)) = &mut record.entry {
        decision.session_id = long;
    }
    assert!(!encode(record, &mut bytes));
    let read = v1::Record::decode(bytes.as_slice()).unwrap();
    let gap = gap_of(&read).unwrap();
    assert_eq!((read.sequence, gap.lost, gap.cause()), (42, 1, v1::gap_record::Cause::TooLong));
}
