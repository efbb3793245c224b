//! How often `decide` allocates: a count, so it does not depend on the machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cardea_core::attempt::{Attempt, Parts};
use cardea_core::decide::{Question, decide};
use cardea_core::facts::{Behavior, Facts, HopFacts, SessionFacts};
use cardea_core::risk::{Risk, RiskKind, RiskSignal};
use cardea_core::session::Session;
use cardea_core::time::Now;
use cardea_core::verdict::Decision;
use cardea_policy_store::engine::{Record, Value};
use cardea_policy_store::load;

const NOW: Now = Now { mono_ns: 0, wall_ms: 1_000_000 };

/// The context is one record: its map and its node. The verdict owns its evidence. All else is Cedar's evaluator.
const OF_OURS: u64 = 4;

const BASELINES: &str = r#"{"format":"cardea-baselines/1","version":1,"approved_by":"ann","attempts":1,"baselines":
  {"Agent::\"a\"":{"month":{"runs":9,"actions":{"read":{"seen":[9,1,0],"targets":{"d":[9,1,0]}}}}}}}"#;

fn allocations(policies: &str) -> u64 {
    let files: BTreeMap<PathBuf, Vec<u8>> = [
        ("bundle.toml", "name = \"t\"\n[lease]\nmax_ms = 60000\nunheld_max_ms = 1000"),
        (
            "schema.cedarschema",
            "entity Agent, Doc; action read appliesTo { principal: Agent, resource: Doc,
             context: { session: Cardea::Session, risk: Cardea::Risk, behavior: Cardea::Behavior,
             request: { rows: Long } } };",
        ),
        ("policies/p.cedar", policies),
        ("baselines.json", BASELINES),
    ]
    .into_iter()
    .map(|(name, text)| (name.into(), text.into()))
    .collect();
    let snapshot = load::files(&files).unwrap().snapshot;
    let parts = Parts {
        principal: ("Agent", "a"),
        action: ("", "read"),
        resource: ("Doc", "d"),
        request: Record::from_iter([("rows", Value::from(5))]),
        ..Parts::default()
    };
    let attempt = Attempt::new(&snapshot, parts).unwrap();
    let session = Session::open("s".into(), attempt.principal.clone(), NOW.wall_ms + 1000, NOW);
    let mut risk = Risk::default();
    let kind = RiskKind::Operator;
    risk.apply(&RiskSignal { kind, severity: 10, confidence: 100, event_ms: 0, half_life_s: 60 });
    let facts = Facts {
        session: SessionFacts::Known(Arc::new(session), Behavior::default()),
        hops: [HopFacts { disabled: false, risk: Some(Arc::new(risk)) }].into_iter().collect(),
        state_version: 1,
        ..Facts::default()
    };
    let judge = || decide(&Question::new(&snapshot, &attempt), &facts, NOW);
    assert_eq!(judge().decision(), Decision::Allow);
    allocation_counter::measure(|| drop(judge())).count_total
}

#[test]
fn an_allow_without_facts_allocates_only_its_empty_context() {
    assert!(allocations("permit(principal, action, resource);") <= 1);
}

#[test]
fn an_allow_that_rests_on_facts_allocates_its_context_and_its_evidence() {
    let count = allocations(
        "permit(principal, action, resource) when { context.request.rows < 10 };
         forbid(principal, action, resource) when { context.risk.score > 70 };
         forbid(principal, action, resource) when { context.session.age_s > 3600 || !context.session.known };",
    );
    assert!(count <= OF_OURS, "{count} allocations");
}

#[test]
fn comparing_with_what_was_approved_allocates_nothing_more() {
    // In the first the forbid compares; in the second it reads as many facts and compares nothing.
    let with = |condition: &str| {
        allocations(&format!(
            "permit(principal, action, resource); forbid(principal, action, resource) when {{ {condition} }};"
        ))
    };
    let compared = with("context.behavior.second_network || context.behavior.risk > 90");
    let uncompared = with("!context.session.known || context.risk.score > 90");
    assert_eq!(compared, uncompared);
}
