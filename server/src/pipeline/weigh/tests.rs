//! What attempts do to each other beside their answers.

use std::path::PathBuf;

use cardea_core::attempt::{Attempt, Parts, Token};
use cardea_policy_store::load;
use cardea_policy_store::snapshot::Snapshot;

use super::*;
use crate::state::Capacity;

fn snapshot() -> Snapshot {
    let schema = "entity A, T; action call appliesTo { principal: A, resource: T,
      context: { behavior: Cardea::Behavior, token: Cardea::Token } };";
    let policies = "permit(principal, action, resource);
      forbid(principal, action, resource) when { context.behavior.burst };";
    let settings = "name = \"t\"\n[behavior.rules]\nburst_score = 1000.0\n";
    let files: load::Files =
        [("bundle.toml", settings), ("schema.cedarschema", schema), ("policies/p.cedar", policies)]
            .map(|(name, text)| (PathBuf::from(name), text.as_bytes().to_vec()))
            .into();
    load::files(&files).unwrap().snapshot
}

fn state() -> State {
    State::new(Capacity {
        sessions: 10,
        stored_sessions: 10,
        subjects: 10,
        revocations: 10,
        tasks: 10,
        reviews: 10,
        counters: 10,
    })
}

/// An attempt of one service account with a token that ends then, Unix seconds.
fn call(snapshot: &Snapshot, ends_s: i64) -> Attempt {
    let token = Some(Token { expires_ms: Some(ends_s * 1000), ..Token::default() });
    let parts = Parts {
        principal: ("A", "billing"),
        action: ("", "call"),
        resource: ("T", "ledger"),
        token,
        ..Parts::default()
    };
    Attempt::new(snapshot, parts).unwrap()
}

fn decided(state: &State, snapshot: &Snapshot, attempt: &Attempt, second: i64) -> Decision {
    let now = Now { wall_ms: second * 1000, mono_ns: u64::try_from(second).unwrap() * 1_000_000_000 };
    weigh(state, &Question::new(snapshot, attempt), Needs::default(), now).verdict.decision()
}

#[test]
fn attempts_with_somebodys_old_token_make_no_burst_of_his_own() {
    let (state, snapshot) = (state(), snapshot());
    let own = call(&snapshot, i64::MAX / 1000);
    let spent = call(&snapshot, 60);
    for minute in 2..60 {
        assert_eq!(decided(&state, &snapshot, &own, minute * 60), Decision::Allow);
    }
    for _ in 0..500 {
        assert_eq!(decided(&state, &snapshot, &spent, 3_600), Decision::Deny);
    }
    assert_eq!(decided(&state, &snapshot, &own, 3_600), Decision::Allow, "no burst of his");
    let flood = (0..500).any(|_| decided(&state, &snapshot, &own, 3_601) == Decision::Deny);
    assert!(flood, "his own flood is one");
}
