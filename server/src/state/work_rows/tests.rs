//! What is written is read back.

use cardea_core::asked::Asked;
use cardea_core::observed;
use cardea_core::task::life::Standing;
use cardea_core::time::Now;
use cardea_policy_store::engine::{Extension, Record, Value};

use super::*;

fn uid_of(text: &str) -> Uid {
    Uid::from(&text.parse::<cedar_policy::EntityUid>().unwrap())
}

fn by() -> Named {
    Named { type_name: "Person".into(), id: "with \"quotes\"".into() }
}

#[test]
fn a_task_comes_back_with_everything_that_happened_to_it() {
    let resources = vec![ResourcePattern::parse("N::T::\"a*\"").unwrap()];
    let task = Task {
        id: "t".into(),
        purpose: "p".into(),
        not_before_ms: Some(-1),
        not_after_ms: Some(50),
        actions: vec!["read".into(), "write".into()],
        resources,
    };
    let mut life_of = Life::new(Approval {
        task,
        agent: uid_of("Agent::\"x\""),
        on_behalf_of: Some(uid_of("N::Person::\"y\"")),
        approved_by: by(),
        approved_ms: 1,
        latest_end_ms: 90,
    });
    let narrowing = Narrowing {
        actions: Some(["read".into()].into()),
        resources: Some(vec![ResourcePattern::parse("N::T::\"ab\"").unwrap()]),
        not_before_ms: Some(3),
        not_after_ms: None,
    };
    for (at_ms, step) in [
        (2, Step::Extended(80)),
        (3, Step::Narrowed(narrowing)),
        (4, Step::Narrowed(Narrowing::default())),
        (5, Step::Ended),
    ] {
        assert_eq!(to_life("t", &life(&life_of)).as_ref(), Some(&life_of));
        life_of.apply(Change { at_ms, step, by: by(), reason: "r".into() });
    }
    let read = to_life("t", &life(&life_of)).unwrap();
    assert_eq!(read, life_of);
    assert_eq!(read.standing(Now { mono_ns: 0, wall_ms: 5 }), Standing::Ended);
    assert_eq!(to_life("t", b"\xff"), None);
}

#[test]
fn a_review_comes_back_with_its_arguments_and_its_digest() {
    let extension = |kind, text| Value::extension(kind, text).unwrap();
    let arguments: Record = [
        ("to", Value::from("a \"b\"\n")),
        ("amount", extension(Extension::Decimal, "1.50")),
        ("from", extension(Extension::Ip, "10.0.0.0/8")),
        ("who", Value::from(&uid_of("Agent::\"x\""))),
        ("tags", Value::strings(["b", "a"])),
    ]
    .into_iter()
    .collect();
    let ask = Ask {
        principal: uid_of("Agent::\"x\""),
        delegation: [uid_of("Person::\"y\"")].into_iter().collect(),
        action: uid_of("Action::\"send\""),
        resource: uid_of("Box::\"out\""),
        arguments,
        requirement: "second_look".into(),
    };
    let digest = ask.digest();
    let mut review_of = Review::new(ask);
    let named = observed::Named {
        task: "t".into(),
        targets: vec!["bob".into()],
        references: vec!["https://x.io/".into()],
        network: "n".into(),
    };
    let asked = Asked {
        assessment: "abuse".into(),
        confidence: 75,
        flags: vec!["new_target".into()],
        evidence: vec!["send → bob was never a target".into()],
        baseline: "3 (approved by ann)".into(),
        named: Some(named),
    };
    let opening = Opening {
        at_ms: 1,
        decision_id: "d".into(),
        session_id: Some("s".into()),
        asked: Some(Box::new(asked)),
    };
    let approval = review::Approval {
        at_ms: 2,
        ends_ms: 9,
        session_id: Some("s".into()),
        once: true,
        into_baseline: true,
        by: by(),
        reason: "ok".into(),
    };
    let rejection = Rejection { until_ms: 7, at_ms: 3, by: by(), reason: "no".into() };
    for event in [
        review::Event::Opened(opening),
        review::Event::Approved(approval),
        review::Event::Used(4),
        review::Event::Rejected(rejection),
    ] {
        review_of.apply(3, event);
        let read = to_review(&review(&review_of, 5, 6, true)).unwrap();
        assert_eq!(read, (review_of.clone(), 5, 6, true));
        assert_eq!(read.0.ask.digest(), digest);
    }
    assert_eq!(to_review(b""), None);
}
