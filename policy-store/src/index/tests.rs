//! The scope index against Cedar's own reading of scopes.

use std::collections::HashSet;

use cedar_policy::{Authorizer, Context, Entities, Entity, EntityUid, PolicySet, Request};
use proptest::prelude::*;

use super::*;

const TYPES: [&str; 3] = ["A", "B", "N::C"];

fn any_uid() -> impl Strategy<Value = String> {
    (0..TYPES.len(), 0..6u8).prop_map(|(of, id)| format!("{}::\"{id}\"", TYPES[of]))
}

fn any_action() -> impl Strategy<Value = String> {
    (0..5u8).prop_map(|id| format!("Action::\"{id}\""))
}

fn any_side(variable: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![
        Just(variable.to_owned()),
        any_uid().prop_map(move |uid| format!("{variable} == {uid}")),
        any_uid().prop_map(move |uid| format!("{variable} in {uid}")),
        (0..TYPES.len()).prop_map(move |of| format!("{variable} is {}", TYPES[of])),
        (0..TYPES.len(), any_uid())
            .prop_map(move |(of, uid)| format!("{variable} is {} in {uid}", TYPES[of])),
    ]
}

fn any_scope() -> impl Strategy<Value = String> {
    let action = prop_oneof![
        Just("action".to_owned()),
        any_action().prop_map(|uid| format!("action == {uid}")),
        any_action().prop_map(|uid| format!("action in {uid}")),
        prop::collection::vec(any_action(), 0..4).prop_map(|uids| format!("action in [{}]", uids.join(", "))),
    ];
    (any_side("principal"), action, any_side("resource"))
        .prop_map(|(principal, action, resource)| format!("permit({principal}, {action}, {resource});"))
}

/// Entities 0 to 4 of each type; a parent always has a lower number, so there is no cycle.
fn any_entities() -> impl Strategy<Value = Entities> {
    let edges = prop::collection::vec((any_uid(), any_uid()), 0..20);
    let action_edges = prop::collection::vec((0..5u8, 0..5u8), 0..5);
    (edges, action_edges).prop_map(|(edges, action_edges)| {
        let number = |uid: &EntityUid| uid.id().unescaped().parse::<u8>().unwrap();
        let mut parents: BTreeMap<EntityUid, HashSet<EntityUid>> = BTreeMap::new();
        let actions =
            action_edges.into_iter().map(|(a, b)| (format!("Action::\"{a}\""), format!("Action::\"{b}\"")));
        for (child, parent) in edges.into_iter().chain(actions) {
            let (child, parent): (EntityUid, EntityUid) = (child.parse().unwrap(), parent.parse().unwrap());
            if number(&parent) < number(&child) && number(&child) < 5 {
                parents.entry(child).or_default().insert(parent);
            }
        }
        let entities = parents
            .into_iter()
            .map(|(uid, parents)| Entity::new(uid, std::collections::HashMap::new(), parents).unwrap());
        Entities::from_entities(entities, None).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn candidates_are_exactly_the_policies_whose_scope_holds(
        scopes in prop::collection::vec(any_scope(), 1..30),
        entities in any_entities(),
        asked in prop::collection::vec((any_uid(), any_action(), any_uid()), 1..10),
    ) {
        let policies: PolicySet = scopes.join("\n").parse().unwrap();
        let mut ordered: Vec<_> = policies.policies().cloned().collect();
        ordered.sort_by_key(|policy| policy.id().to_string().strip_prefix("policy").unwrap().parse::<u32>().unwrap());
        let world = World::new(entities);
        let index = ScopeIndex::new(&ordered, &world);
        for (principal, action, resource) in asked {
            let uids: [EntityUid; 3] =
                [principal.parse().unwrap(), action.parse().unwrap(), resource.parse().unwrap()];
            let found = index.candidates(&Uid::from(&uids[0]), &Uid::from(&uids[1]), &Uid::from(&uids[2]));
            let [principal, action, resource] = uids;
            let request = Request::new(principal, action, resource, Context::empty(), None).unwrap();
            let answer = Authorizer::new().is_authorized(&request, &policies, world.public());
            let mut satisfied: Vec<u32> = answer
                .diagnostics()
                .reason()
                .map(|id| id.to_string().strip_prefix("policy").unwrap().parse().unwrap())
                .collect();
            satisfied.sort_unstable();
            prop_assert_eq!(found.to_vec(), satisfied);
        }
    }
}
