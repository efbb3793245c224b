//! The shadow beside a real pipeline: the same question, the same facts, and nothing that a caller could notice.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use cardea_core::attempt::{Attempt, NotAnAttempt, Parts};
use cardea_core::decide::{Question, decide};
use cardea_core::reason::ReasonCode;
use cardea_core::risk::{RiskKind, RiskSignal};
use cardea_core::session::Session;
use cardea_core::verdict::{Decision, Verdict};
use cardea_policy_store::engine::{Record, Uid};
use cardea_policy_store::fragment::Needs;
use cardea_policy_store::load;
use cardea_policy_store::store::PolicyStore;
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::audit::{Audit, AuditConfig};
use crate::clock::Clock;
use crate::config::WhenStale;
use crate::pipeline::{self, Door, Refused, Seen};
use crate::state::{Capacity, Change, Signal, State};

const START_MS: i64 = 1_790_000_000_000;

/// Policies that a bundle may have, each of which reads something else.
const MENU: [&str; 9] = [
    r#"@id("known") permit(principal, action, resource) when { context.session.known };"#,
    r#"@id("readers") permit(principal, action == Action::"read", resource);"#,
    r#"@id("marked") @obligation("mark") permit(principal == User::"a", action, resource);"#,
    r#"@id("risky") @reason("too risky") forbid(principal, action, resource) when { context.risk.score > 40 };"#,
    r#"@id("level") forbid(principal, action, resource) when { context.risk.level == "medium" };"#,
    r#"@id("fresh") @step_up("login") forbid(principal, action, resource) when { context.session.auth_age_s > 100 };"#,
    r#"@id("often") forbid(principal, action, resource) when { context.behavior.attempts > 2 };"#,
    r#"@id("many") forbid(principal, action == Action::"read", resource) when { context.request has rows && context.request.rows > 5 };"#,
    r#"@id("fails") forbid(principal, action, resource) when { context.session.age_s + 9223372036854775807 > 0 };"#,
];

/// Policies that only the candidate's schema allows.
const CANDIDATE_MENU: [&str; 1] = [
    r#"@id("note") forbid(principal, action == Action::"read", resource) when { context.request has note && context.request.note == "x" };"#,
];

const SCHEMA: &str = "
entity User; entity Doc;
action read, write appliesTo { principal: User, resource: Doc, context: {
  session: Cardea::Session, risk: Cardea::Risk, behavior: Cardea::Behavior, request: { rows?: Long } } };
";

/// Another field, and no `write`.
const CANDIDATE_SCHEMA: &str = "
entity User; entity Doc;
action read appliesTo { principal: User, resource: Doc, context: {
  session: Cardea::Session, risk: Cardea::Risk, behavior: Cardea::Behavior,
  request: { rows?: Long, note?: String } } };
";

const SETTINGS: &str =
    "name = \"t\"\nrevision = 7\n[step_up.login]\nkind = \"authentication\"\nmax_age_s = 100\n";

fn chosen<'m>(menu: &'m [&'m str], picks: u16) -> impl Iterator<Item = &'m str> {
    menu.iter().enumerate().filter(move |(at, _)| picks & (1 << at) != 0).map(|(_, policy)| *policy)
}

fn files(schema: &str, policies: impl Iterator<Item = &'static str>) -> BTreeMap<PathBuf, Vec<u8>> {
    let policies: Vec<&str> = policies.collect();
    [("bundle.toml", SETTINGS), ("schema.cedarschema", schema), ("policies/p.cedar", &policies.join("\n"))]
        .into_iter()
        .map(|(name, text)| (PathBuf::from(name), text.as_bytes().to_vec()))
        .collect()
}

fn candidate(schema: &str, policies: impl Iterator<Item = &'static str>) -> Arc<Snapshot> {
    Arc::new(load::files(&files(schema, policies)).unwrap().snapshot)
}

/// A pipeline on a bundle, with a clock that stands still.
struct Node {
    pipeline: Pipeline,
    clock: Clock,
    _dir: TempDir,
}

impl Node {
    fn serving(policies: impl Iterator<Item = &'static str>) -> Self {
        Self::with_audit_places(policies, 65_536)
    }

    fn with_audit_places(policies: impl Iterator<Item = &'static str>, queue_max: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("bundle");
        fs::create_dir_all(bundle.join("policies")).unwrap();
        for (name, bytes) in files(SCHEMA, policies) {
            fs::write(bundle.join(name), bytes).unwrap();
        }
        let policy = Arc::new(PolicyStore::default());
        policy.activate(Arc::new(load::directory(&bundle).unwrap().snapshot)).unwrap();
        let clock = Clock::standing_at(START_MS);
        let config = AuditConfig { queue_max, ..AuditConfig::in_dir(dir.path().join("audit")) };
        let audit = Arc::new(Audit::open(&config, Box::new(|| 0)).unwrap());
        let metrics = Arc::new(Metrics::new(pipeline::labels(1)));
        let capacity = Capacity {
            sessions: 100,
            stored_sessions: 100,
            subjects: 100,
            revocations: 100,
            tasks: 10,
            reviews: 10,
            counters: 1000,
        };
        let state = Arc::new(State::new(capacity));
        Self {
            pipeline: Pipeline::new(policy, state, audit, metrics, clock.clone(), WhenStale::Serve),
            clock,
            _dir: dir,
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.pipeline.policy().snapshot().unwrap()
    }

    fn shadow(&self) -> &Shadow {
        self.pipeline.shadow()
    }

    /// Evaluates every attempt beside `candidate`.
    fn start(&self, candidate: &Arc<Snapshot>) -> Arc<Run> {
        self.shadow().start(whole(candidate), false).unwrap().0
    }

    fn judge(&self, asked: &Asking) -> (Verdict, Option<u8>) {
        let judged = self.pipeline.judge(
            Door::Grpc,
            |snapshot| {
                asked.attempt(snapshot).map_err(|fault| Box::new(Refused { fault, seen: Seen::default() }))
            },
            |judgement| (judgement.verdict.clone(), judgement.risk),
        );
        let released = self.pipeline.release(judged, |_| unreachable!("nothing is durable here"));
        futures_util::FutureExt::now_or_never(released).unwrap()
    }

    fn drain(&self, run: &Arc<Run>) {
        self.shadow().round(run, &self.pipeline);
    }

    fn learn(&self, event: &Event) {
        let now = self.clock.now();
        let uid = |id: &str| Uid::new(self.snapshot().type_name("User").unwrap(), id);
        match event {
            Event::Session { owner, login_s } => {
                let expires_ms = now.wall_ms + 10_000_000;
                let mut session = Session::open("s".into(), uid(owner), expires_ms, now);
                session.authenticated_ms = login_s.map(|age_s| now.wall_ms - age_s * 1000);
                let _taken = self.pipeline.state().open(session, 0, now);
            }
            Event::Risk { of, severity } => {
                let kind = RiskKind::Operator;
                let (severity, event_ms) = (*severity, now.wall_ms);
                let signal = RiskSignal { kind, severity, confidence: 100, event_ms, half_life_s: 600 };
                let change = Change::Risk(uid(of), signal);
                self.pipeline.state().apply(&Signal { event_ms, change }, 1_000_000, now).unwrap();
            }
            Event::Pass { seconds } => {
                self.clock.advance(Duration::from_secs(*seconds));
            }
        }
    }
}

fn whole(candidate: &Arc<Snapshot>) -> Candidate {
    Candidate {
        snapshot: Arc::clone(candidate),
        source: Source::Digest(candidate.digest().clone()),
        sample_per_10000: SAMPLE_WHOLE,
        asked: Asked::default(),
        started_ms: START_MS,
    }
}

#[derive(Clone, Debug)]
struct Asking {
    principal: &'static str,
    action: &'static str,
    rows: Option<i64>,
    note: Option<&'static str>,
    session: &'static str,
}

impl Asking {
    fn attempt(&self, snapshot: &Snapshot) -> Result<Attempt, NotAnAttempt> {
        let rows = self.rows.map(|rows| ("rows", rows.into()));
        let note = self.note.map(|note| ("note", note.into()));
        let request: Record = rows.into_iter().chain(note).collect();
        let parts = Parts {
            principal: ("User", self.principal),
            action: ("", self.action),
            resource: ("Doc", "d"),
            request,
            session_id: self.session,
            ..Parts::default()
        };
        Attempt::new(snapshot, parts)
    }
}

fn read() -> Asking {
    Asking { principal: "a", action: "read", rows: None, note: None, session: "" }
}

#[derive(Clone, Debug)]
enum Event {
    Session { owner: &'static str, login_s: Option<i64> },
    Risk { of: &'static str, severity: u8 },
    Pass { seconds: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    let user = || prop_oneof![Just("a"), Just("b")];
    prop_oneof![
        (user(), proptest::option::of(0_i64..300))
            .prop_map(|(owner, login_s)| Event::Session { owner, login_s }),
        (user(), 0_u8..=100).prop_map(|(of, severity)| Event::Risk { of, severity }),
        (0_u64..200).prop_map(|seconds| Event::Pass { seconds }),
    ]
}

fn asking() -> impl Strategy<Value = Asking> {
    (
        prop_oneof![Just("a"), Just("b")],
        prop_oneof![3 => Just("read"), 1 => Just("write")],
        proptest::option::of(0_i64..10),
        proptest::option::of(prop_oneof![Just("x"), Just("y")]),
        prop_oneof![Just(""), Just("s")],
    )
        .prop_map(|(principal, action, rows, note, session)| Asking {
            principal,
            action,
            rows,
            note,
            session,
        })
}

/// What a door would have got from the candidate at this instant, were it in force.
fn reference(node: &Node, candidate: &Snapshot, asked: &Asking) -> Verdict {
    match asked.attempt(candidate) {
        Err(refused) => Verdict::deny_because(refused.code, refused.message),
        Ok(attempt) => {
            let (question, now) = (Question::new(candidate, &attempt), node.clock.now());
            let (facts, _) = node.pipeline.state().gather(&question, Needs::default(), now);
            decide(&question, &facts, now)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_candidate_is_asked_as_if_it_were_in_force_and_nobody_else_notices(
        picks in any::<u16>(),
        candidate_picks in any::<u16>(),
        note in 0_u16..2,
        steps in vec((vec(event(), 0..3), asking()), 1..12),
    ) {
        let node = Node::serving(chosen(&MENU, picks));
        let without = Node::serving(chosen(&MENU, picks));
        let policies = chosen(&MENU, candidate_picks).chain(chosen(&CANDIDATE_MENU, note));
        let candidate = candidate(CANDIDATE_SCHEMA, policies);
        node.start(&candidate);
        for (events, asked) in &steps {
            for event in events {
                node.learn(event);
                without.learn(event);
            }
            let expected = reference(&node, &candidate, asked);
            prop_assert_eq!(node.judge(asked), without.judge(asked), "the caller noticed");
            let sample = node.shadow().waiting.pop().expect("each attempt that was read is sampled");
            prop_assert_eq!(sample.judge(&candidate), expected);
        }
        prop_assert_eq!(node.pipeline.state().version(), without.pipeline.state().version());
    }

    #[test]
    fn every_attempt_is_counted_once(steps in vec(asking(), 1..40), candidate_picks in any::<u16>()) {
        let node = Node::serving(chosen(&MENU, 0b11));
        let run = node.start(&candidate(SCHEMA, chosen(&MENU, candidate_picks)));
        for asked in &steps {
            node.judge(asked);
        }
        node.drain(&run);
        let tally = run.tally();
        prop_assert_eq!(tally.evaluated, steps.len() as u64);
        prop_assert_eq!(tally.same + tally.steps.values().sum::<u64>(), tally.evaluated);
        let grouped: u64 = tally.groups.values().map(|group| group.count).sum();
        prop_assert_eq!(grouped + tally.ungrouped, tally.evaluated - tally.same);
        prop_assert!(tally.groups.values().all(|group| group.recorded <= RECORDS_PER_GROUP));
    }
}

#[test]
fn nothing_is_sampled_while_it_is_off() {
    let node = Node::serving(chosen(&MENU, 0b10));
    node.judge(&read());
    assert_eq!(node.shadow().waiting(), 0);
    let run = node.start(&candidate(SCHEMA, std::iter::empty()));
    node.judge(&read());
    assert_eq!(node.shadow().waiting(), 1);
    assert!(node.shadow().stop(Some(&run)).is_some());
    node.judge(&read());
    assert_eq!(node.shadow().waiting(), 1, "picked after the end");
}

#[test]
fn a_share_of_the_attempts_is_sampled() {
    let node = Node::serving(chosen(&MENU, 0b10));
    let candidate = Candidate { sample_per_10000: 1_000, ..whole(&node.snapshot()) };
    node.shadow().start(candidate, false).unwrap();
    for _ in 0..2_000 {
        node.judge(&read());
    }
    // 200 are expected; ten standard deviations are 134.
    assert!((66..334).contains(&node.shadow().waiting()), "{}", node.shadow().waiting());
}

#[test]
fn a_second_start_is_refused_unless_it_replaces() {
    let node = Node::serving(chosen(&MENU, 0b10));
    let first = node.start(&node.snapshot());
    node.judge(&read());
    assert!(node.shadow().start(whole(&node.snapshot()), false).is_none());
    let (second, before) = node.shadow().start(whole(&node.snapshot()), true).unwrap();
    assert!(before.is_some_and(|before| Arc::ptr_eq(&before, &first)));
    assert_eq!(node.shadow().waiting(), 0, "what was picked for the first is not the second's");
    assert!(node.shadow().stop(Some(&first)).is_none(), "the first cannot end the second");
    assert!(node.shadow().stop(Some(&second)).is_some());
}

#[test]
fn a_full_queue_is_counted_and_nobody_waits() {
    let node = Node::serving(chosen(&MENU, 0b10));
    let run = node.start(&node.snapshot());
    for _ in 0..limits::SHADOW_SAMPLES_MAX + 3 {
        assert_eq!(node.judge(&read()).0.decision(), Decision::Allow);
    }
    assert_eq!(run.skipped(), 3);
    node.drain(&run);
    let tally = run.tally();
    assert_eq!((tally.evaluated, tally.same), (limits::SHADOW_SAMPLES_MAX as u64, tally.evaluated));
    let page = node.pipeline.metrics().render();
    assert!(page.contains("cardea_shadow_skipped_total 3"), "{page}");
    assert!(page.contains("cardea_shadow_revision 7"), "{page}");
}

#[test]
fn what_the_bundle_in_force_cannot_read_is_counted_apart() {
    let node = Node::serving(chosen(&MENU, 0b10));
    let run = node.start(&node.snapshot());
    node.judge(&Asking { action: "fly", ..read() });
    node.drain(&run);
    assert_eq!((run.unread(), run.tally().evaluated), (1, 0));
}

#[test]
fn an_attempt_that_the_candidates_schema_lacks_is_a_tightened_deny() {
    let permitting = Node::serving(std::iter::once("permit(principal, action, resource);"));
    let run = permitting.start(&candidate(CANDIDATE_SCHEMA, chosen(&MENU, 0b10)));
    permitting.judge(&Asking { action: "write", ..read() });
    permitting.drain(&run);
    let tally = run.tally();
    let (key, group) = tally.groups.first_key_value().unwrap();
    assert_eq!((key.step.effect, key.step.in_force), (Effect::Tightened, Decision::Allow));
    assert_eq!(key.action.1, "write");
    assert!(group.candidate_reasons.contains(&ReasonCode::UnknownType), "{group:?}");
}

#[test]
fn a_group_records_its_first_differences_and_counts_the_others() {
    let node = Node::serving(std::iter::empty());
    let run = node.start(&candidate(SCHEMA, chosen(&MENU, 0b10)));
    for _ in 0..RECORDS_PER_GROUP + 5 {
        node.judge(&read());
    }
    node.drain(&run);
    let tally = run.tally();
    let (key, group) = tally.groups.first_key_value().unwrap();
    assert_eq!((key.step.effect, key.step.in_force), (Effect::Widened, Decision::Deny));
    assert_eq!(key.candidate_policies, ["readers"]);
    assert_eq!((group.count, group.recorded), (RECORDS_PER_GROUP + 5, RECORDS_PER_GROUP));
    assert_eq!(tally.recorded, RECORDS_PER_GROUP);
    let page = node.pipeline.metrics().render();
    let line = r#"cardea_shadow_differences_total{effect="widened",in_force="deny",candidate="allow"} 15"#;
    assert!(page.contains(line), "{page}");
}

#[test]
fn a_shadow_leaves_half_of_the_audits_places_to_decisions() {
    let node = Node::with_audit_places(std::iter::empty(), 2);
    let run = node.start(&candidate(SCHEMA, chosen(&MENU, 0b10)));
    node.judge(&read());
    let held = node.pipeline.audit().reserve();
    node.drain(&run);
    assert!(held.is_ok());
    let tally = run.tally();
    assert_eq!((tally.evaluated, tally.recorded), (1, 0));
    assert_eq!(tally.groups.len(), 1, "it is counted all the same");
    assert_eq!(node.pipeline.audit().stats().lost, 0);
}

#[test]
fn other_obligations_are_a_change_and_another_policy_alone_is_none() {
    let node = Node::serving(chosen(&MENU, 0b10));
    let run = node.start(&candidate(SCHEMA, chosen(&MENU, 0b100)));
    node.judge(&read());
    node.drain(&run);
    let steps = run.tally().steps;
    let effects: Vec<Effect> = steps.keys().map(|step| step.effect).collect();
    assert_eq!(effects, [Effect::Changed]);

    let renamed = r#"@id("others") permit(principal, action, resource);"#;
    let (run, _) = node.shadow().start(whole(&candidate(SCHEMA, std::iter::once(renamed))), true).unwrap();
    node.judge(&read());
    node.drain(&run);
    assert_eq!(run.tally().same, 1);
}

#[test]
fn groups_are_bounded_and_the_most_permissive_come_first() {
    let mut tally = Tally::default();
    let node = Node::serving(std::iter::empty());
    let candidate = candidate(SCHEMA, chosen(&MENU, 0b10));
    node.start(&candidate);
    node.judge(&read());
    let mut sample = node.shadow().waiting.pop().unwrap();
    let answer = Answer::from(&sample.judge(&candidate));
    for number in 0..GROUPS_MAX + 2 {
        let named = Uid::new(&sample.attempt.action.uid.type_name(), &number.to_string());
        sample.attempt.action = Arc::new(cardea_policy_store::snapshot::Action::undeclared(named));
        let effect = if number % 2 == 0 { Effect::Tightened } else { Effect::Widened };
        let step = Step { effect, candidate: Decision::Allow, in_force: Decision::Deny };
        tally.count(&sample, &candidate, &answer, Some(step), false);
    }
    assert_eq!((tally.groups.len(), tally.ungrouped), (GROUPS_MAX, 2));
    let top = tally.top(3);
    assert!(top.iter().all(|(key, _)| key.step.effect == Effect::Widened), "{top:?}");
}

#[test]
fn the_thread_evaluates_while_a_shadow_is_on_and_ends_with_the_process() {
    let node = Node::serving(chosen(&MENU, 0b10));
    let shutdown = Shutdown::new();
    let run = thread::scope(|scope| {
        scope.spawn(|| node.shadow().run(&node.pipeline, &shutdown));
        let run = node.start(&node.snapshot());
        node.judge(&read());
        // Bounded by the harness: the thread looks every few milliseconds.
        while run.tally().evaluated == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        shutdown.drain();
        run
    });
    assert_eq!(run.tally().same, 1);
}
