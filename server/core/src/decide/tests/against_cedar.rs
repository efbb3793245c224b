//! `decide` against `cedar_policy::Authorizer`: same policies, entities and requests, same answers.

use cardea_policy_store::settings::Settings;
use cardea_policy_store::snapshot::Parts as SnapshotParts;
use cedar_policy::{Authorizer, Context, Entities, EntityUid, PolicyId, PolicySet, Request};
use proptest::prelude::*;

use super::*;

fn any_uid() -> impl Strategy<Value = String> {
    (prop_oneof![Just("A"), Just("B")], 0..4u8).prop_map(|(of, id)| format!("{of}::\"{id}\""))
}

fn any_entity() -> impl Strategy<Value = serde_json::Value> {
    let attrs = (any::<Option<bool>>(), prop::option::of(-2..3i64), prop::option::of(0..4u8));
    let parents = prop::collection::vec((prop_oneof![Just("A"), Just("B")], 0..4u8), 0..3);
    (prop_oneof![Just("A"), Just("B")], 1..4u8, attrs, parents).prop_map(|(of, id, attrs, parents)| {
        let mut fields = serde_json::Map::new();
        attrs.0.map(|flag| fields.insert("flag".into(), flag.into()));
        attrs.1.map(|n| fields.insert("n".into(), n.into()));
        attrs.2.map(|id| {
            fields
                .insert("owner".into(), serde_json::json!({"__entity": {"type": "A", "id": id.to_string()}}))
        });
        let parents: Vec<_> = parents
            .into_iter()
            .filter(|(_, parent)| *parent < id)
            .map(|(of, id)| serde_json::json!({"type": of, "id": id.to_string()}))
            .collect();
        serde_json::json!({"uid": {"type": of, "id": id.to_string()}, "attrs": fields, "parents": parents})
    })
}

fn any_entities() -> impl Strategy<Value = Entities> {
    prop::collection::vec(any_entity(), 0..8).prop_map(|mut entities| {
        entities.sort_by_key(|entity| entity["uid"].to_string());
        entities.dedup_by_key(|entity| entity["uid"].to_string());
        Entities::from_json_value(entities.into(), None).unwrap()
    })
}

/// Conditions that read what may be missing, overflow, and mix up types: errors are part of the game.
fn any_condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("true".to_owned()),
        Just("context.flag".to_owned()),
        Just("context has flag && context.flag".to_owned()),
        Just("principal.flag".to_owned()),
        Just("resource has n && resource.n < context.n".to_owned()),
        Just("resource.owner == principal".to_owned()),
        Just("context.n + 9223372036854775807 > 0".to_owned()),
        Just("context.nested.deep == \"x\"".to_owned()),
        Just("context has nested.deep".to_owned()),
        Just("context.tags.contains(\"a\")".to_owned()),
        Just("context == {}".to_owned()),
        Just("context.text like \"a*\"".to_owned()),
        Just("ip(context.text).isLoopback()".to_owned()),
        Just("[1, context.n].containsAny([context.n])".to_owned()),
        any_uid().prop_map(|uid| format!("principal in {uid}")),
        any_uid().prop_map(|uid| format!("resource in [{uid}, principal]")),
        Just("principal is A".to_owned()),
        Just("context.n".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) || ({b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("if {a} then {b} else {c}")),
        ]
    })
}

fn any_side(variable: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(variable.to_owned()),
        1 => any_uid().prop_map(move |uid| format!("{variable} == {uid}")),
        1 => any_uid().prop_map(move |uid| format!("{variable} in {uid}")),
        1 => Just(format!("{variable} is A")),
        1 => any_uid().prop_map(move |uid| format!("{variable} is B in {uid}")),
    ]
}

pub(super) fn any_policy() -> impl Strategy<Value = String> {
    let action = prop_oneof![
        Just("action".to_owned()),
        (0..2u8).prop_map(|id| format!("action == Action::\"{id}\"")),
        Just("action in [Action::\"0\", Action::\"1\"]".to_owned()),
    ];
    let clause = (any::<bool>(), any_condition())
        .prop_map(|(when, condition)| format!("{} {{ {condition} }}", if when { "when" } else { "unless" }));
    (any::<bool>(), any_side("principal"), action, any_side("resource"), prop::collection::vec(clause, 0..3))
        .prop_map(|(permit, principal, action, resource, clauses)| {
            let effect = if permit { "permit" } else { "forbid" };
            format!("{effect}({principal}, {action}, {resource}) {};", clauses.join(" "))
        })
}

fn any_context() -> impl Strategy<Value = serde_json::Value> {
    let flag = prop::option::of(any::<bool>());
    let n = prop::option::of(prop_oneof![-2..3i64, Just(i64::MAX)]);
    let text = prop::option::of(prop_oneof![Just("abc"), Just("127.0.0.1")]);
    (flag, n, text, any::<bool>(), any::<bool>()).prop_map(|(flag, n, text, nested, tags)| {
        let mut fields = serde_json::Map::new();
        flag.map(|flag| fields.insert("flag".into(), flag.into()));
        n.map(|n| fields.insert("n".into(), n.into()));
        text.map(|text| fields.insert("text".into(), text.into()));
        if nested {
            fields.insert("nested".into(), serde_json::json!({"deep": "x"}));
        }
        if tags {
            fields.insert("tags".into(), serde_json::json!(["a", "b"]));
        }
        fields.into()
    })
}

pub(super) type Asked = (String, u8, String, serde_json::Value);

pub(super) fn any_question() -> impl Strategy<Value = Asked> {
    (any_uid(), 0..3u8, any_uid(), any_context())
}

/// A policy set as Cedar reads it, with its policies in the order in which they are written.
pub(super) fn written(policies: &[String]) -> (PolicySet, Vec<(SmolStr, cedar_policy::Policy)>) {
    let set: PolicySet = policies.join("\n").parse().unwrap();
    let ordered = (0..policies.len())
        .map(|number| {
            let id = format!("policy{number}");
            let policy = set.policy(&PolicyId::new(&id)).unwrap().clone();
            (SmolStr::from(id), policy)
        })
        .collect();
    (set, ordered)
}

pub(super) fn compiled(policies: &[String], entities: &Entities, skip: bool) -> Snapshot {
    let settings: Settings =
        toml::from_str(if skip { "name = \"t\"\non_policy_error = \"skip\"" } else { "name = \"t\"" })
            .unwrap();
    Snapshot::given(SnapshotParts {
        baselines: None,
        settings,
        digest: SmolStr::default(),
        policies: written(policies).1,
        schema: None,
        entities: entities.clone(),
        routes: None,
    })
    .unwrap()
}

pub(super) fn ask(snapshot: &Snapshot, (principal, action, resource, context): &Asked) -> Verdict {
    let context = Context::from_json_value(context.clone(), None).unwrap();
    let attempt = Attempt::given(
        uid(principal),
        uid(&format!("Action::\"{action}\"")),
        uid(resource),
        Record::from_context(&context).unwrap(),
    );
    judge(snapshot, &attempt, &Facts::default())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_answer_is_cedars(
        policies in prop::collection::vec(any_policy(), 0..12),
        entities in any_entities(),
        questions in prop::collection::vec(any_question(), 1..6),
    ) {
        let snapshot = compiled(&policies, &entities, true);
        let (set, _) = written(&policies);
        for question in &questions {
            let verdict = ask(&snapshot, question);
            let (principal, action, resource, context) = question;
            let request = Request::new(
                principal.parse::<EntityUid>().unwrap(),
                format!("Action::\"{action}\"").parse().unwrap(),
                resource.parse().unwrap(),
                Context::from_json_value(context.clone(), None).unwrap(),
                None,
            )
            .unwrap();
            let cedar = Authorizer::new().is_authorized(&request, &set, &entities);
            prop_assert_eq!(verdict.decision() == Decision::Allow, cedar.decision() == cedar_policy::Decision::Allow);
            let ids = |indices: Vec<PolicyIndex>| {
                let mut ids: Vec<String> =
                    indices.into_iter().map(|at| snapshot.policy(at).unwrap().id.to_string()).collect();
                ids.sort();
                ids
            };
            let mut reason: Vec<String> = cedar.diagnostics().reason().map(ToString::to_string).collect();
            reason.sort();
            prop_assert_eq!(ids(verdict.determining().to_vec()), reason);
            let mut errors: Vec<String> = cedar
                .diagnostics()
                .errors()
                .map(|error| match error { cedar_policy::AuthorizationError::PolicyEvaluationError(error) => error.policy_id().to_string() })
                .collect();
            errors.sort();
            prop_assert_eq!(ids(verdict.errors().iter().map(|(at, _)| *at).collect()), errors);
        }
    }
}
