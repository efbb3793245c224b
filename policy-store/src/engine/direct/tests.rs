//! Direct evaluation against Cedar's own, on conditions made at random and on those that policies are full of.

use proptest::prelude::*;

use super::super::{Condition, Reads, Record, Uid, Value, World};
use super::*;
use crate::engine::Unevaluable;

/// What is read; every field may be set to whatever kind of value.
struct Told {
    sent: Record,
    fact: fn(Fact) -> FactValue,
}

impl Reads for Told {
    fn fact(&self, fact: Fact) -> FactValue {
        (self.fact)(fact)
    }

    fn counter(&self, number: u8, field: CounterField) -> Option<FactValue> {
        (number == 0).then_some(match field {
            CounterField::Count => FactValue::Long(3),
            CounterField::Warm => FactValue::Bool(true),
        })
    }

    fn sent(&self) -> &Record {
        &self.sent
    }

    fn context(&self) -> Record {
        let flat = Fact::ALL.into_iter().map(|fact| (fact.key(), Value::from(self.fact(fact))));
        let counters = CounterField::ALL
            .into_iter()
            .filter_map(|field| Some((field.key(0), Value::from(self.counter(0, field)?))));
        flat.chain(counters).chain([("request".into(), Value::from(self.sent.clone()))]).collect()
    }
}

fn fact(fact: Fact) -> FactValue {
    let told = [
        (Fact::SessionLabels, FactValue::Texts(vec!["x".into(), "saw_untrusted".into()])),
        (Fact::BehaviorKnown, FactValue::Bool(true)),
        (Fact::TaskActive, FactValue::Bool(true)),
        (Fact::BehaviorAttempts, FactValue::Long(5)),
        (Fact::BehaviorPreviousAction, FactValue::Text("x".into())),
    ];
    told.into_iter().find(|(one, _)| *one == fact).map_or(FactValue::Long(0), |(_, value)| value)
}

fn told() -> Told {
    let deep: Record = [("b", Value::from(false)), ("n", Value::from(7))].into_iter().collect();
    let sent = [
        ("n", Value::from(5)),
        ("s", Value::from("x")),
        ("b", Value::from(true)),
        ("who", Value::from(&uid("User", "u2"))),
        ("texts", Value::strings(["x", "y"])),
        ("mixed", Value::set([Value::from(1), Value::from(deep.clone())])),
        ("ip", Value::extension(super::super::Extension::Ip, "10.0.0.1").unwrap()),
        ("deep", Value::from(deep)),
    ];
    Told { sent: sent.into_iter().collect(), fact }
}

fn uid(type_name: &str, id: &str) -> Uid {
    Uid::from(&format!("{type_name}::\"{id}\"").parse::<cedar_policy::EntityUid>().unwrap())
}

fn world() -> World {
    let reference = |of: &str, id: &str| serde_json::json!({ "type": of, "id": id });
    let entities = serde_json::json!([
        { "uid": reference("User", "u1"), "parents": [reference("Group", "g1")],
          "attrs": { "age": 5, "name": "x", "boss": { "__entity": reference("User", "u2") }, "tags": ["x"] } },
        { "uid": reference("User", "u2"), "parents": [], "attrs": { "age": 6, "name": "y" } },
        { "uid": reference("Group", "g1"), "parents": [reference("Group", "g0")], "attrs": {} },
    ]);
    World::new(cedar_policy::Entities::from_json_value(entities, None).unwrap())
}

/// What Cedar says of a condition, and what direct evaluation says of it; `None`: no policy has such a condition.
fn both(text: &str) -> Option<(Result<bool, Unevaluable>, Option<bool>)> {
    let policy: cedar_policy::Policy =
        format!("permit(principal, action, resource) when {{ {text} }};").parse().ok()?;
    let condition = Condition::of(&policy, ContextLayout::Gathered, &["calls"]);
    let (told, world) = (told(), world());
    let (principal, action, resource) = (uid("User", "u1"), uid("Action", "read"), uid("User", "nobody"));
    let scene = Scene::new(&principal, &action, &resource, &told, &world);
    let direct = condition.direct.as_ref().and_then(|direct| direct.holds(&scene));
    Some((scene.holds_by_cedar(condition.expression.as_ref()?), direct))
}

const TERMS: [&str; 32] = [
    "context.behavior.known",
    "context.behavior.attempts",
    "context.behavior.previous_action",
    "context.session.labels",
    "context.task.active",
    "context.counters.calls.count",
    "context.counters.calls.warm",
    "context.request",
    "context.request.n",
    "context.request.s",
    "context.request.b",
    "context.request.who",
    "context.request.texts",
    "context.request.mixed",
    "context.request.ip",
    "context.request.deep",
    "context.request.deep.b",
    "context.request.absent",
    "principal",
    "action",
    "resource",
    "principal.age",
    "principal.boss",
    "principal.boss.age",
    "principal.tags",
    "resource.age",
    "5",
    "\"x\"",
    "true",
    "User::\"u2\"",
    "Group::\"g0\"",
    "context.request.n + 1",
];

fn term() -> impl Strategy<Value = String> {
    prop::sample::select(&TERMS[..]).prop_map(str::to_owned)
}

fn condition() -> impl Strategy<Value = String> {
    let operator = prop::sample::select(&["==", "!=", "<", "<=", ">", ">=", "in"][..]);
    let test = prop_oneof![
        3 => (term(), operator, term()).prop_map(|(one, operator, other)| format!("({one}) {operator} ({other})")),
        1 => (term(), term()).prop_map(|(set, member)| format!("({set}).contains({member})")),
        1 => (term(), prop::sample::select(&["n", "deep", "absent", "age", "boss"][..]))
            .prop_map(|(of, name)| format!("({of}) has {name}")),
        1 => (term(), prop::sample::select(&["x", "*", "x*", "sa*ted", "y"][..]))
            .prop_map(|(text, pattern)| format!("({text}) like \"{pattern}\"")),
        1 => term().prop_map(|term| format!("({term}) is User")),
        1 => term().prop_map(|term| format!("({term})")),
    ];
    test.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one}) && ({other})")),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one}) || ({other})")),
            inner.clone().prop_map(|one| format!("!({one})")),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(test, then, other)| format!("if ({test}) then ({then}) else ({other})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_is_answered_directly_cedar_answers_too(text in condition()) {
        if let Some((cedar, Some(direct))) = both(&text) {
            prop_assert_eq!(cedar, Ok(direct), "{}", text);
        }
    }
}

/// Every pair of values under every operator: random conditions may miss one.
#[test]
fn no_two_values_compare_otherwise_than_in_cedar() {
    let mut answered = 0;
    for one in TERMS {
        for other in TERMS {
            for test in ["{1} == {2}", "{1} < {2}", "{1} <= {2}", "{1} in {2}", "({1}).contains({2})"] {
                let text = test.replace("{1}", one).replace("{2}", other);
                if let Some((cedar, Some(direct))) = both(&text) {
                    assert_eq!(cedar, Ok(direct), "{text}");
                    answered += 1;
                }
            }
        }
    }
    assert!(answered > 500, "{answered}");
}

#[test]
fn conditions_that_policies_are_full_of_need_no_evaluator() {
    for (text, holds) in [
        ("context.behavior.known && context.behavior.attempts > 4", true),
        ("context.session.labels.contains(\"saw_untrusted\") && !(resource in Group::\"g1\")", true),
        ("context.request.deep.n == 7 || context.request.absent == 1", true),
        ("context.request has n && context.request.n <= 4", false),
        ("context.request.s like \"x*\"", true),
        ("principal.boss == User::\"u2\" && principal.boss.age >= 6", true),
        ("principal in Group::\"g0\"", true),
        ("if context.task.active then context.counters.calls.count < 3 else true", false),
        ("context.request.texts.contains(context.request.s)", true),
        ("principal is User && resource is User", true),
    ] {
        let (cedar, direct) = both(text).unwrap();
        assert_eq!((cedar, direct), (Ok(holds), Some(holds)), "{text}");
    }
}

#[test]
fn what_would_err_or_needs_more_is_left_to_cedar() {
    for text in [
        "context.request.absent == 1",
        "context.request.n < \"x\"",
        "resource.age == 1",
        "context.request.n + 1 == 6",
        "context.request.ip.isLoopback()",
        "context.request.deep == {b: false, n: 7}",
        "context.behavior.attempts && true",
    ] {
        assert_eq!(both(text).unwrap().1, None, "{text}");
    }
    let deep = format!("{}context.behavior.known{}", "!(".repeat(DEPTH_MAX), ")".repeat(DEPTH_MAX));
    assert_eq!(both(&deep).unwrap().1, None);
}
