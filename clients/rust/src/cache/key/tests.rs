//! Which attempts have one key, by the bytes, by the hash and by the comparison.

use proptest::prelude::*;

use super::*;
use crate::{attempt, entity, v1};

fn plain() -> Attempt {
    attempt(entity("Agent", "a"), "read", entity("Doc", "d"))
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(text: &str) -> Value {
    value(Kind::String(text.into()))
}

fn with(fields: &[(&str, Value)]) -> Attempt {
    let context = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Attempt { context, ..plain() }
}

fn with_token(change: impl FnOnce(&mut Token)) -> Attempt {
    let mut token = Token::default();
    change(&mut token);
    Attempt { token: Some(token), ..plain() }
}

/// Attempts of which each has another key, each with another answer.
fn different() -> Vec<Attempt> {
    let set = |values: &[Value]| value(Kind::Set(v1::ValueSet { values: values.to_vec() }));
    let record = |name: &str| {
        value(Kind::Record(v1::ValueRecord { fields: [(name.to_owned(), text("a"))].into_iter().collect() }))
    };
    vec![
        plain(),
        attempt(entity("Agent", "b"), "read", entity("Doc", "d")),
        attempt(entity("Agentb", ""), "read", entity("Doc", "d")),
        attempt(entity("Agent", "a"), "write", entity("Doc", "d")),
        attempt(entity("Agent", "a"), "read", entity("Doc", "e")),
        Attempt { principal: None, ..plain() },
        Attempt { session_id: "s".into(), ..plain() },
        Attempt { task_id: "s".into(), ..plain() },
        Attempt { delegation: vec![entity("User", "u")], ..plain() },
        Attempt { delegation: vec![entity("User", "u"), entity("User", "u")], ..plain() },
        with_token(|_| {}),
        with_token(|token| token.issuer = "i".into()),
        with_token(|token| token.acr = "i".into()),
        with_token(|token| token.issued_at = Some(Default::default())),
        with_token(|token| token.expires_at = Some(Default::default())),
        with_token(|token| token.authenticated_at = Some(Default::default())),
        with_token(|token| token.scopes = vec!["i".into()]),
        with_token(|token| token.scopes = vec!["i".into(), String::new()]),
        with_token(|token| token.amr = vec!["i".into()]),
        with_token(|token| token.bound = true),
        with(&[("a", text("b"))]),
        with(&[("a", text("c"))]),
        with(&[("b", text("b"))]),
        with(&[("a", text("b")), ("b", text("b"))]),
        with(&[("a", text("a long text, beyond what is compared at once"))]),
        with(&[("a", text("a long text, beyond what is compared at oncf"))]),
        with(&[("a", Value { kind: None })]),
        with(&[("a", value(Kind::Decimal("b".into())))]),
        with(&[("a", value(Kind::Ip("b".into())))]),
        with(&[("a", value(Kind::Bool(false)))]),
        with(&[("a", value(Kind::Bool(true)))]),
        with(&[("a", value(Kind::Long(1)))]),
        with(&[("a", value(Kind::Long(-1)))]),
        with(&[("a", value(Kind::Entity(entity("b", ""))))]),
        with(&[("a", value(Kind::Datetime(Default::default())))]),
        with(&[("a", value(Kind::Duration(Default::default())))]),
        with(&[("a", set(&[]))]),
        with(&[("a", set(&[text("b")]))]),
        with(&[("a", set(&[set(&[text("b")])]))]),
        with(&[("a", record("b"))]),
        with(&[("a", record("c"))]),
    ]
}

/// The keys under which an answer to the first is found for the second: without the context, and the whole.
fn found(stored: &Attempt, asked: &Attempt) -> [bool; 2] {
    let hashing = ahash::RandomState::with_seeds(1, 2, 3, 4);
    let keys = Keys::new(stored, &hashing);
    let mut lookup = Lookup::new(asked, &hashing);
    let mut is = |on_context| {
        if on_context {
            lookup.count_context();
        }
        let [this, other] = [keys.of(on_context), keys.of(!on_context)];
        assert!(!lookup.is(other.bytes), "one kind of key is never the other");
        let is = lookup.is(this.bytes);
        assert!(!is || lookup.hash() == this.hash, "what is the key is found by its hash");
        is
    };
    [is(false), is(true)]
}

#[test]
fn every_part_that_can_turn_the_answer_makes_another_key() {
    for (place, stored) in different().iter().enumerate() {
        for (other, asked) in different().iter().enumerate() {
            let but_for_context =
                |attempt: &Attempt| Attempt { context: Default::default(), ..attempt.clone() };
            let base = but_for_context(stored) == but_for_context(asked);
            assert_eq!(found(stored, asked), [base, place == other], "{stored:?} {asked:?}");
        }
    }
}

#[test]
fn names_and_demands_of_an_attempt_make_no_other_key() {
    let named = Attempt { id: "7".into(), at_least_version: 9, ..plain() };
    assert_eq!(found(&plain(), &named), [true, true]);
    assert_eq!(found(&plain(), &with(&[("a", text("b"))])), [true, false]);
}

/// What many attempts of one enforcement point differ in: with one hash for all of them they would drive each other out.
#[test]
fn what_tells_most_attempts_apart_is_in_the_hash() {
    let attempts = [
        plain(),
        attempt(entity("Agent", "b"), "read", entity("Doc", "d")),
        attempt(entity("Agent", "a"), "write", entity("Doc", "d")),
        attempt(entity("Agent", "a"), "read", entity("Doc", "e")),
        Attempt { session_id: "s".into(), ..plain() },
        Attempt { task_id: "t".into(), ..plain() },
        Attempt { delegation: vec![entity("User", "u")], ..plain() },
        Attempt { delegation: vec![entity("User", "v")], ..plain() },
        with(&[("a", text("b"))]),
        with(&[("a", text("c"))]),
        with(&[("a", value(Kind::Long(1)))]),
        with(&[("a", value(Kind::Long(2)))]),
    ];
    let hashing = ahash::RandomState::with_seeds(1, 2, 3, 4);
    let hash = |attempt: &Attempt| Keys::new(attempt, &hashing).of(true).hash;
    let hashes: std::collections::HashSet<u64> = attempts.iter().map(hash).collect();
    assert_eq!(hashes.len(), attempts.len());
}

#[test]
fn a_key_that_was_cut_or_has_more_is_another() {
    let hashing = ahash::RandomState::new();
    for attempt in different() {
        let keys = Keys::new(&attempt, &hashing);
        let mut lookup = Lookup::new(&attempt, &hashing);
        lookup.count_context();
        let whole = keys.of(true).bytes;
        assert!((0..whole.len()).all(|length| !lookup.is(&whole[..length])));
        assert!(!lookup.is(&[whole, &[0]].concat()));
        for place in 0..whole.len() {
            let mut changed = whole.to_vec();
            changed[place] ^= 1;
            assert!(!lookup.is(&changed), "byte {place} counts");
        }
    }
}

proptest! {
    #[test]
    fn texts_are_the_same_if_all_their_bytes_are(one in "[ab]{0,40}", other in "[ab]{0,40}", place: usize) {
        let length = one.len().min(other.len());
        let (one, other) = (&one.as_bytes()[..length], &other.as_bytes()[..length]);
        prop_assert_eq!(is_same(one, other), one == other);
        let mut near = one.to_vec();
        prop_assert!(is_same(one, &near));
        if length > 0 {
            near[place % length] ^= 3;
            prop_assert!(!is_same(one, &near));
        }
    }
}
