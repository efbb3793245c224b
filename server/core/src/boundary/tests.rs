//! Boundaries against brute force, and what a lease is worth, one test each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cardea_policy_store::engine::Uid;
use cardea_policy_store::load;
use cardea_policy_store::snapshot::Snapshot;
use proptest::prelude::*;

use super::*;
use crate::attempt::{Parts, Token};
use crate::decide::{decide, outcomes};
use crate::facts::{Behavior, HopFacts};
use crate::risk::{RiskKind, RiskSignal};
use crate::task::Task;
use crate::verdict::{Decision, Verdict};

const SCHEMA: &str = "entity Agent, Doc;
action read, plain appliesTo { principal: Agent, resource: Doc, context: {
  session: Cardea::Session, risk: Cardea::Risk, behavior: Cardea::Behavior, task: Cardea::Task,
  token: Cardea::Token, signals: Cardea::Signals, request: { n?: Long }, now: datetime } };
";
const SETTINGS: &str = "name = \"t\"
[sessions]
idle_max_s = 180
[facts]
session_max_age_s = 200
[[facts.class]]
actions = [\"read\"]
token_max_age_s = 150
[signals.source.edr]
max_silence_s = 40
[signals.source.idp]
max_silence_s = 90
[lease]
max_ms = 100000
unheld_max_ms = 5000
stream_loss_max_ms = 700
";
/// 1970-01-12T13:46:40Z.
const NOW: Now = Now { mono_ns: 0, wall_ms: 1_000_000_000 };
const HORIZON_S: i64 = 260;

fn at(wall_ms: i64) -> Now {
    Now { wall_ms, ..NOW }
}

fn bundle(settings: &str, policies: &str) -> Snapshot {
    let files: BTreeMap<PathBuf, Vec<u8>> =
        [("bundle.toml", settings), ("schema.cedarschema", SCHEMA), ("policies/p.cedar", policies)]
            .into_iter()
            .map(|(name, text)| (name.into(), text.into()))
            .collect();
    load::files(&files).unwrap().snapshot
}

fn uid(text: &str) -> Uid {
    Uid::from(&text.parse::<cedar_policy::EntityUid>().unwrap())
}

/// What is known, as distances from now in milliseconds.
#[derive(Clone, Debug)]
struct World {
    in_session: bool,
    opened: i64,
    seen: i64,
    authenticated: Option<i64>,
    expires: i64,
    task: Option<(Option<i64>, Option<i64>)>,
    token: Option<(Option<i64>, Option<i64>)>,
    /// Kind, severity, event, half-life in seconds; of each hop.
    risk: [Vec<(usize, u8, i64, u32)>; 2],
    delegated: bool,
    heard: Vec<(&'static str, i64)>,
}

impl World {
    fn attempt(&self, snapshot: &Snapshot) -> Attempt {
        let token = self.token.map(|(issued, expires)| Token {
            issued_ms: issued.map(|at| NOW.wall_ms + at),
            expires_ms: expires.map(|at| NOW.wall_ms + at),
            ..Token::default()
        });
        let chain: &[(&str, &str)] = if self.delegated { &[("Agent", "root")] } else { &[] };
        let parts = Parts {
            principal: ("Agent", "a"),
            action: ("", "read"),
            resource: ("Doc", "d"),
            session_id: if self.in_session { "s" } else { "" },
            delegation: chain,
            token,
            ..Parts::default()
        };
        Attempt::new(snapshot, parts).unwrap()
    }

    fn facts(&self) -> Facts {
        let from_now = |at: i64| NOW.wall_ms + at;
        let session = if self.in_session {
            let expires = from_now(self.expires);
            let mut session =
                Session::open("s".into(), uid("Agent::\"a\""), expires, at(from_now(self.opened)));
            session.authenticated_ms = self.authenticated.map(from_now);
            session.task = self.task.map(|(from, end)| {
                Arc::new(Task {
                    id: "t".into(),
                    purpose: "p".into(),
                    not_before_ms: from.map(from_now),
                    not_after_ms: end.map(from_now),
                    actions: vec!["read".into()],
                    resources: vec![],
                })
            });
            let behavior = Behavior { last_seen_ms: from_now(self.seen), ..Behavior::default() };
            SessionFacts::Known(Arc::new(session), behavior)
        } else {
            SessionFacts::Unknown
        };
        let hops = self.risk.iter().take(1 + usize::from(self.delegated)).map(|signals| {
            let mut risk = Risk::default();
            for (kind, severity, event, half_life_s) in signals {
                risk.apply(&RiskSignal {
                    kind: RiskKind::ALL[*kind],
                    severity: *severity,
                    confidence: 100,
                    event_ms: from_now(*event),
                    half_life_s: *half_life_s,
                });
            }
            HopFacts { disabled: false, risk: (!signals.is_empty()).then(|| Arc::new(risk)) }
        });
        Facts {
            session,
            hops: hops.collect(),
            heard: self.heard.iter().map(|(source, at)| ((*source).into(), from_now(*at))).collect(),
            ..Facts::default()
        }
    }
}

fn any_world() -> impl Strategy<Value = World> {
    let past = || -150_000..=0_i64;
    let future = || 1..=200_000_i64;
    let signals = || prop::collection::vec((0..8usize, 0..=100u8, -100_000..20_000_i64, 10..200u32), 0..3);
    let edge = || prop::option::of(-100_000..200_000_i64);
    (
        (prop::bool::weighted(0.8), past(), past(), prop::option::of(past()), future()),
        prop::option::of((edge(), edge())),
        prop::option::of((prop::option::of(past()), prop::option::of(future()))),
        [signals(), signals()],
        prop::bool::weighted(0.3),
        prop::sample::subsequence(vec!["edr", "idp", "other"], 0..=3),
        [past(), past(), past()],
    )
        .prop_map(|(session, task, token, risk, delegated, sources, heard)| World {
            in_session: session.0,
            opened: session.1,
            seen: session.2,
            authenticated: session.3,
            expires: session.4,
            task,
            token,
            risk,
            delegated,
            heard: sources.into_iter().zip(heard).collect(),
        })
}

/// A comparison whose truth changes only where a threshold is crossed.
fn any_atom() -> impl Strategy<Value = String> {
    let number = prop::sample::select(vec![
        "session.age_s",
        "session.idle_s",
        "session.auth_age_s",
        "risk.score",
        "risk.age_s",
        "task.remaining_s",
        "token.age_s",
        "token.expires_in_s",
    ]);
    let op = || prop::sample::select(vec!["<", "<=", "==", "!=", ">", ">="]);
    let seconds = || -1..160i64;
    prop_oneof![
        6 => (number, op(), seconds(), any::<bool>()).prop_map(|(fact, op, number, left)| match left {
            true => format!("context.{fact} {op} {number}"),
            false => format!("{number} {op} context.{fact}"),
        }),
        1 => prop::sample::select(vec!["low", "medium", "high"])
            .prop_map(|level| format!("context.risk.level == \"{level}\"")),
        1 => (0..8usize).prop_map(|kind| format!("context.risk.reasons.contains(\"{}\")", RiskKind::ALL[kind].name())),
        1 => prop::sample::select(vec![
            "[\"medium\", \"high\"].contains(context.risk.level)",
            "context.risk.reasons.containsAny([\"operator\", \"vendor_score\"])",
            "[\"operator\"].containsAny(context.risk.reasons)",
            "context.risk.reasons.isEmpty()",
            "context.task.active",
            "context.signals.silent.isEmpty()",
            "context.signals.silent.contains(\"edr\")",
            "context.session.known",
        ]).prop_map(str::to_owned),
        1 => (op(), -50..200i64).prop_map(|(op, ahead)| format!(
            "context.now {op} datetime(\"1970-01-12T13:46:40Z\").offset(duration(\"{ahead}s\"))"
        )),
        1 => (op(), -50..200i64, -30..30i64).prop_map(|(op, ahead, shift)| format!(
            "context.now.offset(duration(\"{shift}h\")).toTime() {op} duration(\"{}s\")",
            // 13:46:40 is 49,600 s after midnight.
            (49_600 + ahead + shift * 3600).rem_euclid(86_400)
        )),
        1 => (op(), seconds()).prop_map(|(op, seconds)| format!(
            "context.now.durationSince(datetime(\"1970-01-12T13:46:00Z\")) {op} duration(\"{seconds}s\")"
        )),
        1 => (op(), seconds(), 12..14i64).prop_map(|(op, seconds, day)| format!(
            // Midnight, so many seconds ahead.
            "context.now.offset(duration(\"{}s\")).toDate() {op} datetime(\"1970-01-{day}\")", 36_800 - seconds
        )),
    ]
}

/// Something of which cannot be foreseen when it changes.
fn any_riddle() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "context.session.age_s + 5 < context.session.auth_age_s * 2",
        "context.session.age_s < context.risk.age_s",
        "context.now.toTime() == context.now.toTime()",
        "context.session.age_s == context.session.idle_s",
        "[3, 4].contains(context.risk.score)",
        "context.token == context.token",
        "(if context.session.known then context.session.age_s else 0) < 60",
        "context.now < context.now.offset(duration(\"1s\"))",
    ])
    .prop_map(str::to_owned)
}

/// A condition and its atoms.
fn any_condition(
    atom: impl Strategy<Value = String> + 'static,
) -> impl Strategy<Value = (String, Vec<String>)> {
    let leaf = atom.prop_map(|atom| (format!("({atom})"), vec![atom]));
    leaf.prop_recursive(3, 6, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone(), any::<bool>()).prop_map(|((a, mut of_a), (b, of_b), and)| {
                of_a.extend(of_b);
                (format!("({a} {} {b})", if and { "&&" } else { "||" }), of_a)
            }),
            inner.clone().prop_map(|(a, of_a)| (format!("(!{a})"), of_a)),
            (inner.clone(), inner.clone(), inner).prop_map(|((a, mut of_a), (b, of_b), (c, of_c))| {
                of_a.extend(of_b);
                of_a.extend(of_c);
                (format!("(if {a} then {b} else {c})"), of_a)
            }),
        ]
    })
}

type Conditions = Vec<(bool, (String, Vec<String>))>;

fn any_conditions() -> impl Strategy<Value = Conditions> {
    prop::collection::vec((any::<bool>(), any_condition(any_atom())), 1..4)
}

fn policies(conditions: &Conditions) -> String {
    let policy = |(forbids, (condition, _)): &(bool, (String, Vec<String>))| {
        let effect = if *forbids { "forbid" } else { "permit" };
        format!("{effect}(principal, action, resource) when {{ {condition} }};\n")
    };
    conditions.iter().map(policy).collect::<String>() + "permit(principal, action, resource);"
}

/// A policy for each atom, and for each thing that an atom sees only as a part of something larger.
fn each_for_itself(conditions: &Conditions) -> String {
    let mut atoms: Vec<String> = conditions.iter().flat_map(|(_, (_, atoms))| atoms).cloned().collect();
    let named = atoms.concat();
    let kinds = RiskKind::ALL.map(|kind| format!("context.risk.reasons.contains(\"{}\")", kind.name()));
    atoms.extend(kinds.into_iter().filter(|_| named.contains("reasons")));
    let levels = ["low", "high"].map(|level| format!("context.risk.level == \"{level}\""));
    atoms.extend(levels.into_iter().filter(|_| named.contains("level")));
    let sources = ["edr", "idp"].map(|source| format!("context.signals.silent.contains(\"{source}\")"));
    atoms.extend(sources.into_iter().filter(|_| named.contains("silent")));
    let of_day = atoms
        .iter()
        .filter_map(|atom| Some(format!("{}toTime() < duration(\"12h\")", atom.split_once("toTime()")?.0)));
    atoms.extend(of_day.collect::<Vec<_>>());
    atoms.iter().map(|atom| format!("permit(principal, action, resource) when {{ {atom} }};\n")).collect()
}

/// What of a verdict must not change unforeseen: all but the values that it quotes, and which of several things
/// disqualified.
fn kernel(verdict: &Verdict) -> impl PartialEq + std::fmt::Debug {
    let reasons = if verdict.policy_was_asked() { verdict.reasons() } else { &[] };
    (verdict.decision(), reasons.to_vec(), verdict.determining().to_vec(), verdict.hops().to_vec())
}

fn instants(from_ms: i64, end_ms: i64) -> impl Iterator<Item = i64> {
    let step = usize::try_from(((end_ms - from_ms) / 40).clamp(1, 1000)).unwrap();
    (from_ms..end_ms).step_by(step).chain((end_ms - 3).max(from_ms)..end_ms)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn no_verdict_changes_before_its_boundary_and_something_does_there(
        conditions in any_conditions(), world in any_world()
    ) {
        let snapshot = bundle(SETTINGS, &policies(&conditions));
        let atoms = bundle(SETTINGS, &each_for_itself(&conditions));
        let (attempt, of_atoms) = (world.attempt(&snapshot), world.attempt(&atoms));
        let (question, atoms) = (Question::new(&snapshot, &attempt), Question::new(&atoms, &of_atoms));
        let facts = world.facts();
        let end_ms = NOW.wall_ms + HORIZON_S * 1000;
        let mut from_ms = NOW.wall_ms;
        while from_ms < end_ms {
            let verdict = decide(&question, &facts, at(from_ms));
            let Boundary { at_ms, polled } = next_change(&question, &facts, at(from_ms));
            prop_assert!(!polled, "nothing here is opaque");
            let until_ms = at_ms.unwrap_or(end_ms).min(end_ms);
            prop_assert!(until_ms > from_ms);
            for instant in instants(from_ms, until_ms) {
                let then = decide(&question, &facts, at(instant));
                prop_assert_eq!(
                    kernel(&then), kernel(&verdict), "{} ms after {}, before {:?}", instant - from_ms, from_ms, at_ms
                );
            }
            if at_ms == Some(until_ms) {
                let before = outcomes(&atoms, &facts, at(until_ms - 1));
                prop_assert_ne!(before, outcomes(&atoms, &facts, at(until_ms)), "nothing happens at {}", until_ms);
            }
            from_ms = until_ms;
        }
    }

    #[test]
    fn what_cannot_be_foreseen_is_polled_and_has_no_lease(
        riddle in any_riddle(), conditions in any_conditions(), world in any_world()
    ) {
        let mut conditions = conditions;
        conditions.push((false, (riddle, vec![])));
        let snapshot = bundle(SETTINGS, &policies(&conditions));
        let attempt = world.attempt(&snapshot);
        let (question, facts) = (Question::new(&snapshot, &attempt), world.facts());
        let boundary = next_change(&question, &facts, NOW);
        let verdict = decide(&question, &facts, NOW);
        if boundary.polled {
            prop_assert!(boundary.at_ms.is_some_and(|at| at <= NOW.wall_ms + POLL_MS));
            prop_assert_eq!(verdict.lease().held_lease_ms, 0);
        } else {
            // Then nothing that the riddle reads moves.
            for instant in instants(NOW.wall_ms, boundary.at_ms.unwrap_or(NOW.wall_ms + 100_000)) {
                let then = decide(&question, &facts, at(instant));
                prop_assert_eq!(kernel(&then), kernel(&verdict));
            }
        }
    }

    /// Whoever asks again within the lease, as a cache does not, would get the same answer.
    #[test]
    fn a_lease_ends_before_the_answer_does(conditions in any_conditions(), world in any_world()) {
        let snapshot = bundle(SETTINGS, &policies(&conditions));
        let attempt = world.attempt(&snapshot);
        let (question, mut facts) = (Question::new(&snapshot, &attempt), world.facts());
        let verdict = decide(&question, &facts, NOW);
        let lease = verdict.lease();
        prop_assert!(lease.lease_ms <= lease.held_lease_ms && lease.held_lease_ms <= 100_000);
        prop_assert!(verdict.decision() == Decision::Allow || lease == Lease::default());
        if let SessionFacts::Known(_, behavior) = &mut facts.session {
            behavior.last_seen_ms = NOW.wall_ms;
        }
        if lease.held_lease_ms > 0 {
            for instant in instants(NOW.wall_ms, NOW.wall_ms + i64::from(lease.held_lease_ms)) {
                let then = decide(&question, &facts, at(instant));
                prop_assert_eq!(kernel(&then), kernel(&verdict), "{} ms", instant - NOW.wall_ms);
            }
        }
    }
}

fn quiet() -> World {
    World {
        in_session: false,
        opened: 0,
        seen: 0,
        authenticated: None,
        expires: 1_000_000,
        task: None,
        token: None,
        risk: [vec![], vec![]],
        delegated: false,
        heard: vec![],
    }
}

fn lease_of(policies: &str, world: &World) -> Lease {
    let snapshot = bundle(SETTINGS, policies);
    let attempt = world.attempt(&snapshot);
    let verdict = decide(&Question::new(&snapshot, &attempt), &world.facts(), NOW);
    assert_eq!(verdict.decision(), Decision::Allow, "{:?}", verdict.reasons());
    verdict.lease()
}

const PERMIT: &str = "permit(principal, action, resource);";

#[test]
fn an_allow_that_nothing_can_change_has_the_longest_lease() {
    let lease = lease_of(PERMIT, &quiet());
    let whole =
        Lease { lease_ms: 100_000, held_lease_ms: 100_000, stream_loss_max_ms: 700, ..Lease::default() };
    assert_eq!(lease, whole);
}

#[test]
fn what_can_be_told_shortens_the_lease_without_a_stream_only() {
    let risky = format!("{PERMIT} forbid(principal, action, resource) when {{ context.risk.score > 50 }};");
    let lease = lease_of(&risky, &quiet());
    assert_eq!((lease.lease_ms, lease.held_lease_ms), (5000, 100_000));
    let in_session = lease_of(PERMIT, &World { in_session: true, ..quiet() });
    // Half of the idle limit, so that whoever goes on keeps the session awake.
    assert_eq!((in_session.lease_ms, in_session.held_lease_ms), (5000, 90_000));
    assert!(in_session.on_session && !in_session.on_token && !in_session.on_context);
}

#[test]
fn a_lease_says_what_it_rests_on() {
    let token = World { token: Some((Some(-1000), Some(30_000))), ..quiet() };
    let lease = lease_of(PERMIT, &token);
    assert!(lease.on_token && !lease.on_session);
    assert_eq!((lease.lease_ms, lease.held_lease_ms), (30_000, 30_000), "the token's end");
    let reads = format!("{PERMIT} forbid(principal, action, resource) when {{ context.request has n }};");
    assert!(lease_of(&reads, &quiet()).on_context);
}

#[test]
fn nothing_is_leased_where_some_policy_asks_what_the_session_did() {
    let elsewhere = format!(
        "{PERMIT} forbid(principal, action == Action::\"plain\", resource) when {{ context.behavior.attempts > 3 }};"
    );
    let in_session = World { in_session: true, ..quiet() };
    assert_eq!(lease_of(&elsewhere, &in_session).held_lease_ms, 0);
    assert_eq!(lease_of(&elsewhere, &quiet()).held_lease_ms, 100_000, "no session, nothing to see");
    let here =
        format!("{PERMIT} forbid(principal, action, resource) when {{ context.behavior.attempts > 3 }};");
    assert_eq!(lease_of(&here, &quiet()).held_lease_ms, 0);
}

#[test]
fn an_attempt_that_ends_the_idling_which_policy_asks_for_is_not_leased() {
    let idle = "permit(principal, action, resource) when { context.session.idle_s >= 20 };";
    let world = World { in_session: true, opened: -50_000, seen: -30_000, ..quiet() };
    assert_eq!(lease_of(idle, &world).held_lease_ms, 0);
    let awake = "permit(principal, action, resource) when { context.session.idle_s < 40 };";
    assert_eq!(lease_of(awake, &world).held_lease_ms, 20_000);
}

#[test]
fn nothing_is_leased_unless_the_bundle_says_so() {
    let snapshot = bundle("name = \"t\"", PERMIT);
    let attempt = quiet().attempt(&snapshot);
    let lease = decide(&Question::new(&snapshot, &attempt), &Facts::default(), NOW).lease();
    assert_eq!(lease, Lease::default());
}

#[test]
fn a_disqualified_attempt_stays_so() {
    let snapshot = bundle(SETTINGS, PERMIT);
    let world = World { token: Some((Some(-1), Some(0))), in_session: true, ..quiet() };
    let attempt = world.attempt(&snapshot);
    let question = Question::new(&snapshot, &attempt);
    assert_eq!(next_change(&question, &world.facts(), NOW), Boundary::default());
}

#[test]
fn what_a_grant_for_one_attempt_opened_is_not_leased() {
    let granted = "permit(principal, action, resource) when { context.session.grants.contains(\"look\") };";
    let world = World { in_session: true, ..quiet() };
    let snapshot = bundle(SETTINGS, granted);
    let attempt = world.attempt(&snapshot);
    for (once, held_lease_ms) in [(false, 90_000), (true, 0)] {
        let review = crate::ask::AskDigest(cardea_policy_store::digest::Digest::of(b"r"));
        let (ends_ms, requirement) = (NOW.wall_ms + 1_000_000, "look".into());
        let grant = crate::grant::Grant { review, requirement, ends_ms, session_id: None, once };
        let facts = Facts { grants: vec![grant], ..world.facts() };
        let verdict = decide(&Question::new(&snapshot, &attempt), &facts, NOW);
        assert_eq!(verdict.decision(), Decision::Allow);
        assert_eq!(verdict.lease().held_lease_ms, held_lease_ms);
    }
}
