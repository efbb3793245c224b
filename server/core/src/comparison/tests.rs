//! Attempts compared in a decision: what policies read of it, what it says, and what it leaves alone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cardea_behavior::{Approved, Kept, Step};
use cardea_policy_store::engine::{Record, Uid, Value};
use cardea_policy_store::fragment::Fact;
use cardea_policy_store::load;
use cardea_policy_store::snapshot::Snapshot;

use super::*;
use crate::attempt::{Parts, Token};
use crate::boundary::next_change;
use crate::decide::{decide, outcomes};
use crate::facts::{Behavior, Reading, Told};
use crate::session::Session;
use crate::verdict::FactValue;

const NOW: Now = Now { mono_ns: 0, wall_ms: 1_000_000_000 };

const SETTINGS: &str = "name = \"t\"\n[lease]\nmax_ms = 1000\nunheld_max_ms = 1000\n[behavior]\nreferences = [\"links\"]\nnetwork = \"from\"\nlists = [\"to\"]
[behavior.targets]\nsend = [\"to\"]\n[behavior.classes]\negress = [\"send\"]\nread = [\"read\"]";

const SCHEMA: &str = "entity Agent, Box;
action read, send, drop appliesTo { principal: Agent, resource: Box, context: {
  behavior: Cardea::Behavior, session: Cardea::Session,
  request: { to?: String, links?: Set<String>, from?: String } } };";

/// Nine times in task `month`: read box `in`, then send to ann and to bob.
fn baselines() -> Vec<u8> {
    let mut approved = Approved::default();
    for run in 0..9 {
        let read = Observed { action: "read", targets: &["in"], ..Observed::default() };
        let send = Observed {
            action: "send",
            targets: &["ann", "bob"],
            references: &["blue.io"],
            network: "home",
            ..Observed::default()
        };
        approved.learn([
            Step { observed: read, previous: "", at_ms: run },
            Step { observed: send, previous: "read", at_ms: run },
        ]);
    }
    let mut kept = Kept::new("ann");
    let tasks = [("month".to_owned(), approved)].into();
    kept.baselines.insert("Agent::\"a\"".to_owned(), tasks);
    kept.bytes().unwrap()
}

fn snapshot(policies: &str) -> Snapshot {
    let files: BTreeMap<PathBuf, Vec<u8>> = [
        ("bundle.toml", SETTINGS.as_bytes().to_vec()),
        ("schema.cedarschema", SCHEMA.as_bytes().to_vec()),
        ("policies/p.cedar", policies.as_bytes().to_vec()),
        ("baselines.json", baselines()),
    ]
    .into_iter()
    .map(|(name, bytes)| (name.into(), bytes))
    .collect();
    load::files(&files).unwrap().snapshot
}

/// Everything is permitted but abuse.
fn watched() -> Snapshot {
    snapshot(
        "@id(\"p\") permit(principal, action, resource);
         @id(\"f\") forbid(principal, action, resource) when { context.behavior.assessment == \"abuse\" };",
    )
}

struct Asked<'a> {
    principal: &'a str,
    action: &'a str,
    to: &'a str,
    links: &'a [&'a str],
    from: &'a str,
}

const READ: Asked<'static> = Asked { principal: "a", action: "read", to: "", links: &[], from: "" };

fn send(to: &str) -> Asked<'_> {
    Asked { action: "send", to, ..READ }
}

fn attempt(snapshot: &Snapshot, asked: &Asked<'_>) -> Attempt {
    let texts = [("to", asked.to), ("from", asked.from)].into_iter().filter(|(_, text)| !text.is_empty());
    let links = Value::strings(asked.links.iter().copied());
    let request: Record =
        texts.map(|(name, text)| (name, Value::from(text))).chain([("links", links)]).collect();
    let parts = Parts {
        principal: ("Agent", asked.principal),
        action: ("", asked.action),
        resource: ("Box", "in"),
        request,
        ..Parts::default()
    };
    Attempt::new(snapshot, parts).unwrap()
}

fn task(actions: &[&str], not_after_ms: Option<i64>) -> Arc<Task> {
    Arc::new(Task {
        id: "month".into(),
        purpose: "Tell Carla.".into(),
        not_before_ms: None,
        not_after_ms,
        actions: actions.iter().copied().map(SmolStr::new).collect(),
        resources: vec![],
    })
}

fn in_task(task: Arc<Task>) -> Facts {
    let owner: cedar_policy::EntityUid = "Agent::\"a\"".parse().unwrap();
    let mut session = Session::open("s".into(), Uid::from(&owner), NOW.wall_ms + 60_000, NOW);
    session.task = Some(task);
    let behavior = Behavior { last_seen_ms: NOW.wall_ms, ..Behavior::default() };
    Facts { session: SessionFacts::Known(Arc::new(session), behavior), ..Facts::default() }
}

fn monthly() -> Facts {
    in_task(task(&["read", "send", "drop"], None))
}

fn judge(snapshot: &Snapshot, asked: &Asked<'_>, facts: &Facts) -> Verdict {
    let attempt = attempt(snapshot, asked);
    decide(&Question::new(snapshot, &attempt), facts, NOW)
}

fn flags(verdict: &Verdict) -> Vec<&'static str> {
    verdict.deviated().unwrap().deviation.flags.iter().map(Flag::name).collect()
}

/// What a policy would read.
fn read(snapshot: &Snapshot, asked: &Asked<'_>, facts: &Facts, fact: Fact) -> FactValue {
    let attempt = attempt(snapshot, asked);
    let question = Question::new(snapshot, &attempt);
    let compared = Compared::of(&question, facts, NOW);
    let comparison = compared.as_ref().map(|compared| &compared.comparison);
    facts.value(
        fact,
        &Reading { attempt: &attempt, settings: snapshot.settings(), comparison, hop: 0, now: NOW },
    )
}

#[test]
fn what_was_approved_is_allowed_and_a_stranger_is_not_with_the_missing_entry() {
    let snapshot = watched();
    let known = judge(&snapshot, &Asked { links: &["https://blue.io/"], ..send("ann, bob") }, &monthly());
    assert_eq!(known.decision(), Decision::Allow);
    assert_eq!(flags(&known), ["new_transition"], "nothing was read before");
    assert_eq!(known.deviated().unwrap().told, None, "nothing must be said of it");
    let new = judge(&snapshot, &send("ann, mallory"), &monthly());
    assert_eq!(new.decision(), Decision::Deny);
    let evidence = &new.evidence()[0];
    assert_eq!(
        (evidence.fact, &evidence.value),
        (Fact::BehaviorAssessment, &FactValue::Text("abuse".into()))
    );
    let expected = "send → mallory was never a target in task month, nor for the identity in any task; seen targets: ann, bob";
    assert!(evidence.why.starts_with(expected), "{}", evidence.why);
    let told = new.deviated().unwrap().told.clone().unwrap();
    assert_eq!(told.baseline, "1 (approved by ann)");
    assert_eq!(told.evidence.join("; "), evidence.why);
    // The task's own words name her.
    assert_eq!(judge(&snapshot, &send("Carla"), &monthly()).decision(), Decision::Allow);
}

#[test]
fn every_fact_says_what_the_comparison_came_to() {
    let snapshot = snapshot("permit(principal, action, resource) when { context.behavior.mature };");
    let (bool, text) = (FactValue::Bool, |text: &str| FactValue::Text(text.into()));
    let known = Asked { from: "home", ..READ };
    let new = Asked { links: &["evil.io"], from: "away", ..send("mallory") };
    let mut token_free = monthly();
    let mut session = SessionBehavior::default();
    let deviation = judge(&snapshot, &new, &token_free).deviated().unwrap().deviation;
    session.note(&judge(&snapshot, &known, &token_free).deviated().unwrap().deviation, true, NOW.wall_ms);
    session.note(&deviation, false, NOW.wall_ms);
    token_free.monitored = Some(session);
    for (fact, of_known, of_new) in [
        (Fact::BehaviorBaseline, bool(true), bool(true)),
        (Fact::BehaviorMature, bool(true), bool(true)),
        (Fact::BehaviorNewAction, bool(false), bool(false)),
        (Fact::BehaviorNewTarget, bool(false), bool(true)),
        (Fact::BehaviorNewReference, bool(false), bool(true)),
        (Fact::BehaviorUnexpected, bool(false), bool(true)),
        (Fact::BehaviorSecondNetwork, bool(false), bool(true)),
        (Fact::BehaviorOutOfScope, bool(false), bool(false)),
        (Fact::BehaviorFreshToken, bool(false), bool(false)),
        (Fact::BehaviorBurst, bool(false), bool(false)),
        (Fact::BehaviorAssessment, text("none"), text("abuse")),
        (Fact::BehaviorDeviations, FactValue::Long(1), FactValue::Long(1)),
        (Fact::BehaviorRisk, FactValue::Long(50), FactValue::Long(50)),
    ] {
        let got = (read(&snapshot, &known, &token_free, fact), read(&snapshot, &new, &token_free, fact));
        assert_eq!(got, (of_known, of_new), "{fact:?}");
    }
    let FactValue::Long(confidence) = read(&snapshot, &new, &token_free, Fact::BehaviorConfidence) else {
        panic!("not a number")
    };
    assert!((70..=100).contains(&confidence), "{confidence}");
    let fresh = Facts::default();
    assert_eq!(read(&snapshot, &known, &fresh, Fact::BehaviorNewTransition), bool(false));
    assert_eq!(read(&snapshot, &send("ann"), &fresh, Fact::BehaviorNewTransition), bool(true));
}

#[test]
fn nobody_and_nothing_known_is_new_in_everything() {
    let snapshot = watched();
    let (asked, facts) = (Asked { principal: "b", ..send("ann") }, Facts::default());
    let new = ["unknown", "immature", "new_action", "new_action_for_identity", "new_target"];
    assert_eq!(flags(&judge(&snapshot, &asked, &facts))[..5], new);
    assert_eq!(read(&snapshot, &asked, &facts, Fact::BehaviorBaseline), FactValue::Bool(false));
    // The same where nothing was compared.
    let attempt = attempt(&snapshot, &READ);
    let reading =
        Reading { attempt: &attempt, settings: snapshot.settings(), comparison: None, hop: 0, now: NOW };
    assert_eq!(Facts::default().value(Fact::BehaviorNewAction, &reading), FactValue::Bool(true));
    assert_eq!(Facts::default().value(Fact::BehaviorAssessment, &reading), FactValue::Text("abuse".into()));
}

#[test]
fn what_no_candidate_reads_is_not_compared() {
    let snapshot = snapshot(
        "permit(principal, action, resource) when { context.behavior.attempts < 9 };
         forbid(principal, action == Action::\"drop\", resource) when { context.behavior.unexpected };",
    );
    assert_eq!(judge(&snapshot, &send("mallory"), &monthly()).deviated(), None);
    let drop = Asked { action: "drop", ..READ };
    assert!(judge(&snapshot, &drop, &monthly()).deviated().is_some());
}

#[test]
fn a_thousand_repetitions_make_nothing_habitual() {
    let snapshot = watched();
    let mut facts = monthly();
    for _ in 0..1000 {
        let verdict = judge(&snapshot, &send("mallory"), &facts);
        assert_eq!(verdict.decision(), Decision::Deny);
        let mut session = facts.monitored.unwrap_or_default();
        session.note(&verdict.deviated().unwrap().deviation, true, NOW.wall_ms);
        facts.monitored = Some(session);
    }
    assert_eq!(read(&snapshot, &READ, &facts, Fact::BehaviorDeviations), FactValue::Long(1000));
    assert_eq!(read(&snapshot, &READ, &facts, Fact::BehaviorRisk), FactValue::Long(1000));
}

#[test]
fn only_what_policy_denies_by_itself_is_judged_as_denied() {
    let token = Token { issued_ms: Some(NOW.wall_ms - 1000), ..Token::default() };
    let judged = |policies: &str| {
        let snapshot = snapshot(policies);
        let mut attempt = attempt(&snapshot, &Asked { action: "drop", ..READ });
        attempt.token = Some(Arc::new(token.clone()));
        let verdict = decide(&Question::new(&snapshot, &attempt), &Facts::default(), NOW);
        let deviated = verdict.deviated().unwrap().clone();
        (verdict.decision(), deviated.deviation.assessment, deviated.deviation.flags.has(Flag::Denied))
    };
    // A fresh token that tries what its owner never did.
    let own = "permit(principal, action == Action::\"read\", resource);
               forbid(principal, action, resource) when { context.behavior.second_network };";
    assert_eq!(judged(own), (Decision::Deny, Assessment::Abuse, true));
    let forbidden =
        format!("permit(principal, action, resource); {own} forbid(principal, action, resource);");
    assert_eq!(judged(&forbidden), (Decision::Deny, Assessment::Abuse, true));
    let by_comparing = "permit(principal, action, resource); forbid(principal, action, resource) when { context.behavior.new_action };";
    assert_eq!(judged(by_comparing), (Decision::Deny, Assessment::WorkflowChange, false));
    let unpermitted = "permit(principal, action, resource) when { context.behavior.assessment == \"none\" };";
    assert_eq!(judged(unpermitted), (Decision::Deny, Assessment::WorkflowChange, false));
}

#[test]
fn scope_and_window_are_the_tasks() {
    let snapshot = watched();
    let out =
        |facts: &Facts| read(&snapshot, &Asked { action: "drop", ..READ }, facts, Fact::BehaviorOutOfScope);
    assert_eq!(out(&monthly()), FactValue::Bool(false));
    assert_eq!(out(&in_task(task(&["send"], None))), FactValue::Bool(true));
    assert_eq!(out(&in_task(task(&["drop"], Some(NOW.wall_ms)))), FactValue::Bool(true));
    assert_eq!(out(&Facts::default()), FactValue::Bool(false), "no task");
    // It is named and not known: it was declared for nothing, and no baseline speaks for it.
    let unknown = Facts { task: TaskFacts::Unknown, ..monthly() };
    assert_eq!(out(&unknown), FactValue::Bool(true));
    assert!(flags(&judge(&snapshot, &send("ann"), &unknown)).contains(&"immature"));
}

#[test]
fn what_is_told_is_not_compared() {
    let snapshot = watched();
    let mut told = Told::default();
    told.tell(Fact::BehaviorAssessment, 0, FactValue::Text("none".into()));
    let facts = Facts { session: SessionFacts::Told(Arc::new(told)), ..Facts::default() };
    let verdict = judge(&snapshot, &send("mallory"), &facts);
    assert_eq!((verdict.decision(), verdict.deviated()), (Decision::Allow, None));
}

#[test]
fn an_answer_that_compares_is_never_reused_and_is_looked_at_again() {
    let snapshot = watched();
    let attempt = attempt(&snapshot, &READ);
    let question = Question::new(&snapshot, &attempt);
    for facts in [Facts::default(), monthly()] {
        let verdict = decide(&question, &facts, NOW);
        assert_eq!((verdict.decision(), verdict.lease().held_lease_ms), (Decision::Allow, 0));
        assert!(next_change(&question, &facts, NOW).polled);
        assert_eq!(outcomes(&question, &facts, NOW), [[(0, Ok(true)), (1, Ok(false))]]);
    }
}

#[test]
fn a_session_that_was_not_compared_before_goes_on_from_its_last_action() {
    let snapshot = watched();
    let mut facts = monthly();
    assert!(flags(&judge(&snapshot, &send("ann"), &facts)).contains(&"new_transition"));
    if let SessionFacts::Known(_, behavior) = &mut facts.session {
        behavior.previous_action = "read".into();
    }
    assert_eq!(flags(&judge(&snapshot, &send("ann"), &facts)), [""; 0]);
}

#[test]
fn a_reference_is_found_however_deep_it_lies() {
    let settings = format!("{SETTINGS}\n").replace("[behavior]", "[behavior]\nsearch = [\"*\"]");
    let schema = "entity Agent, Box; action send appliesTo { principal: Agent, resource: Box, context: {
      behavior: Cardea::Behavior, request: { mail?: { body: String, parts: Set<{ text: String }> } } } };";
    let policies = "permit(principal, action, resource) when { !context.behavior.new_reference };";
    let files: BTreeMap<PathBuf, Vec<u8>> = [
        (
            "bundle.toml",
            settings.replace("send = [\"to\"]", "").replace("read = [\"read\"]", "").into_bytes(),
        ),
        ("schema.cedarschema", schema.as_bytes().to_vec()),
        ("policies/p.cedar", policies.as_bytes().to_vec()),
    ]
    .map(|(name, bytes)| (name.into(), bytes))
    .into();
    let snapshot = load::files(&files).unwrap().snapshot;
    for (body, part) in [("see http://evil.example", "hello"), ("hello", "mail x@evil.example")] {
        let text: Record = [("text", Value::from(part))].into_iter().collect();
        let texts = Value::set(vec![Value::from(text)]);
        let mail: Record = [("body", Value::from(body)), ("parts", texts)].into_iter().collect();
        let parts = Parts {
            principal: ("Agent", "a"),
            action: ("", "send"),
            resource: ("Box", "in"),
            request: [("mail", Value::from(mail))].into_iter().collect(),
            ..Parts::default()
        };
        let attempt = Attempt::new(&snapshot, parts).unwrap();
        let question = Question::new(&snapshot, &attempt);
        let facts = Facts::default();
        let compared = Compared::of(&question, &facts, NOW).unwrap();
        assert_eq!(compared.references.len(), 1, "{body}, {part}");
    }
}
