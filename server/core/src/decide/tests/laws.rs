//! Laws that hold for all policies: more forbids, and errors, never open a door.

use cedar_policy::Entities;
use proptest::prelude::*;

use super::against_cedar::{any_policy, any_question, ask, compiled};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn adding_a_forbid_never_opens(
        policies in prop::collection::vec(any_policy(), 0..8),
        more in any_policy(),
        question in any_question(),
    ) {
        let before = ask(&compiled(&policies, &Entities::empty(), false), &question);
        let mut stricter = policies;
        stricter.push(more.replacen("permit", "forbid", 1));
        let after = ask(&compiled(&stricter, &Entities::empty(), false), &question);
        prop_assert!(after.decision() >= before.decision());
    }

    #[test]
    fn an_error_never_opens(
        policies in prop::collection::vec(any_policy(), 0..8),
        question in any_question(),
        at in any::<prop::sample::Index>(),
    ) {
        // A policy that errors where it was satisfied before: a forbid still denies, a permit counts no more.
        if !policies.is_empty() {
            let before = ask(&compiled(&policies, &Entities::empty(), false), &question);
            let mut broken = policies.clone();
            let place = at.index(policies.len());
            broken[place] = format!("{} when {{ principal.no_such_attribute }};", broken[place].trim_end_matches(';'));
            let after = ask(&compiled(&broken, &Entities::empty(), false), &question);
            prop_assert!(after.decision() >= before.decision());
        }
    }

    #[test]
    fn deny_on_error_is_never_more_open_than_cedars_rule(
        policies in prop::collection::vec(any_policy(), 0..8),
        question in any_question(),
    ) {
        let cedar = ask(&compiled(&policies, &Entities::empty(), true), &question);
        let ours = ask(&compiled(&policies, &Entities::empty(), false), &question);
        prop_assert!(ours.decision() >= cedar.decision());
    }
}
