//! The engine on a real state, a real audit and a clock that the test moves; rounds are driven by hand.

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use cardea_core::attempt::{Parts, Token};
use cardea_core::reason::ReasonCode;
use cardea_core::risk::{RiskKind, RiskSignal};
use cardea_core::session::Session;
use cardea_core::subject::Standing;
use cardea_core::task::Task;
use cardea_policy_store::engine::Uid;
use cardea_policy_store::load;
use cardea_policy_store::pack;
use cardea_policy_store::snapshot::Snapshot;
use cardea_policy_store::store::PolicyStore;
use tempfile::TempDir;

use super::*;
use crate::audit::{Audit, AuditConfig, WhenFull};
use crate::clock::Clock;
use crate::config::WhenStale;
use crate::metrics::Metrics;
use crate::pipeline;
use crate::state::{Capacity, Change, SessionChange, Signal, State, Target};

const START_MS: i64 = 1_764_000_000_000;
const LIFE_MS: i64 = 1_000_000;
const SCHEMA: &str = "
entity Agent, Doc;
type Facts = { session: Cardea::Session, risk: Cardea::Risk, task: Cardea::Task, request: { amount?: Long } };
action read, list, work appliesTo { principal: Agent, resource: Doc, context: Facts };
";
const POLICIES: &str = r#"
permit(principal, action, resource) when { context.session.known };
forbid(principal, action == Action::"read", resource) when { context.risk.score > 50 };
forbid(principal, action == Action::"work", resource) unless { context.task.active };
"#;

/// What an enforcement point is told here.
type Said = (Decision, Option<ReasonCode>);

fn say(judgement: &Judgement<'_>, _attempt_id: &str) -> Said {
    let verdict = judgement.verdict;
    (verdict.decision(), verdict.reasons().first().map(|reason| reason.code))
}

struct Node {
    clock: Clock,
    pipeline: Arc<Pipeline>,
    holds: Holds<Said>,
    engine: Engine<Said>,
    _audit: TempDir,
}

fn snapshot(revision: u64, policies: &str) -> Arc<Snapshot> {
    let files: BTreeMap<PathBuf, Vec<u8>> = [
        ("bundle.toml", "name = \"t\"\n[sessions]\nidle_max_s = 0"),
        ("schema.cedarschema", SCHEMA),
        ("policies/p.cedar", policies),
    ]
    .into_iter()
    .map(|(name, text)| (name.into(), text.into()))
    .collect();
    let manifest = pack::manifest_for("t", revision, &files);
    Arc::new(load::files(&files).unwrap().snapshot.identified(&manifest, load::digest(&files)))
}

impl Node {
    fn new() -> Self {
        Self::with_audit(1000, WhenFull::CountGap)
    }

    fn with_audit(queue_max: usize, when_full: WhenFull) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = AuditConfig {
            queue_max,
            when_full,
            segment_bytes_max: 1 << 20,
            flush_interval: Duration::from_millis(1),
            sync_interval: Duration::ZERO,
            key_file: dir.path().join("key"),
            ..AuditConfig::in_dir(dir.path())
        };
        let audit = Arc::new(Audit::open(&config, Box::new(|| 0)).unwrap());
        let metrics = Arc::new(Metrics::new(pipeline::labels(1)));
        let clock = Clock::standing_at(START_MS);
        let state = Arc::new(State::new(Capacity {
            sessions: 100_000,
            stored_sessions: 100_000,
            subjects: 100_000,
            tasks: 100,
            reviews: 100,
            counters: 1000,
            revocations: 100_000,
        }));
        let policy = Arc::new(PolicyStore::default());
        policy.activate(snapshot(1, POLICIES)).unwrap();
        let pipeline =
            Arc::new(Pipeline::new(policy, state, audit, metrics, clock.clone(), WhenStale::Serve));
        let (holds, engine) = Holds::new(Arc::clone(&pipeline), say);
        Self { clock, pipeline, holds, engine, _audit: dir }
    }

    fn agent(&self, id: &str) -> Uid {
        Uid::new(self.pipeline.policy().snapshot().unwrap().type_name("Agent").unwrap(), id)
    }

    fn session(&self, id: &str, agent: &str) {
        let session = Session::open(id.into(), self.agent(agent), START_MS + LIFE_MS, self.clock.now());
        self.pipeline.state().open(session, 0, self.clock.now()).unwrap();
    }

    fn apply(&self, change: Change) {
        self.clock.advance(Duration::from_millis(1));
        let now = self.clock.now();
        self.pipeline.state().apply(&Signal { event_ms: now.wall_ms, change }, LIFE_MS, now).unwrap();
    }

    fn risk(&self, agent: &str, severity: u8) {
        let event_ms = self.clock.now().wall_ms + 1;
        let signal =
            RiskSignal { kind: RiskKind::Operator, severity, confidence: 100, event_ms, half_life_s: 600 };
        self.apply(Change::Risk(self.agent(agent), signal));
    }

    fn end(&self, session: &str) {
        let now = self.clock.now();
        self.pipeline.state().end(&Target::Session(session.into()), &"bye".into(), LIFE_MS, now).unwrap();
    }

    fn opening(resume: Option<(ResumeToken, u64)>) -> Opening {
        Opening { enforcement_point: "gate".into(), identity: "uid 7".into(), peer: "uid:7".into(), resume }
    }

    fn open(&mut self) -> Opened<Said> {
        let now = self.clock.now();
        self.engine.open(Self::opening(None), now).unwrap()
    }

    fn resume(&mut self, token: ResumeToken, from: u64) -> Opened<Said> {
        let now = self.clock.now();
        self.engine.open(Self::opening(Some((token, from))), now).unwrap()
    }

    fn attempt(&self, parts: Parts<'_>) -> Box<Attempt> {
        Box::new(Attempt::new(&self.pipeline.policy().snapshot().unwrap(), parts).unwrap())
    }

    fn read_by<'a>(agent: &'a str, action: &'a str, session_id: &'a str) -> Parts<'a> {
        Parts {
            principal: ("Agent", agent),
            action: ("", action),
            resource: ("Doc", "d"),
            session_id,
            ..Parts::default()
        }
    }

    fn add(&mut self, to: &Opened<Said>, hold_id: u64, parts: Parts<'_>) {
        let revision = self.pipeline.policy().snapshot().unwrap().settings().revision;
        let registration = Registration { hold_id, attempt: Ok(self.attempt(parts)), revision, bytes: 300 };
        let now = self.clock.now();
        self.engine.register(to.stream, &to.outbox, registration, now);
    }

    /// Rounds until nothing is left to do at once.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            if self.engine.round().is_some() {
                return;
            }
        }
        panic!("the engine never rests");
    }

    fn swap(&mut self, revision: u64, policies: &str) {
        self.pipeline.policy().activate(snapshot(revision, policies)).unwrap();
        // The sweep may rest in between; the clock of the test has to move for it to go on.
        self.settle();
        for _ in 0..100 {
            self.clock.advance(Duration::from_millis(20));
            self.settle();
        }
    }

    fn judged(&self, cause: CauseKind) -> u64 {
        let line = format!("cardea_hold_judged_again_total{{cause=\"{}\"}} ", cause.name());
        let text = self.pipeline.metrics().render();
        text.lines().find_map(|found| found.strip_prefix(&line)).unwrap().parse().unwrap()
    }

    fn judged_at_all(&self) -> u64 {
        CauseKind::ALL.into_iter().map(|cause| self.judged(cause)).sum()
    }
}

/// All that waits, as hold id and answer.
fn told(opened: &Opened<Said>) -> Vec<(u64, Said)> {
    let mut all = Vec::new();
    while let Some(batch) = opened.outbox.take(1000) {
        match batch {
            Batch::Answers { answers, .. } => {
                all.extend(answers.into_iter().map(|(hold, answer)| (hold, answer.said)));
            }
            Batch::Forget { why, .. } => panic!("forget: {why:?}"),
        }
    }
    all
}

fn causes(opened: &Opened<Said>) -> Vec<(u64, Decision, Option<Cause>)> {
    match opened.outbox.take(1000) {
        Some(Batch::Answers { answers, .. }) => answers
            .into_iter()
            .map(|(hold, answer)| (hold, answer.said.0, answer.cause.as_deref().cloned()))
            .collect(),
        other => panic!("{other:?}"),
    }
}

const ALLOW: Said = (Decision::Allow, None);

#[test]
fn a_hold_is_answered_and_an_ended_session_takes_it_back() {
    let mut node = Node::new();
    node.session("s", "a");
    let gate = node.open();
    node.add(&gate, 7, Node::read_by("a", "list", "s"));
    assert_eq!(told(&gate), [(7, ALLOW)]);
    node.end("s");
    node.settle();
    let [(7, Decision::Deny, Some(cause))] = &causes(&gate)[..] else { panic!("not one deny") };
    assert_eq!((cause.kind, cause.name.as_str(), cause.change), (CauseKind::Session, "s", "revoked"));
    assert_eq!(cause.state_version, node.pipeline.state().version());
    assert_eq!(node.holds.told(), cause.state_version);
}

#[test]
fn a_risk_signal_judges_only_holds_that_read_risk() {
    let mut node = Node::new();
    node.session("s", "a");
    let gate = node.open();
    node.add(&gate, 1, Node::read_by("a", "read", "s"));
    node.add(&gate, 2, Node::read_by("a", "list", "s"));
    node.settle();
    told(&gate);
    node.risk("a", 90);
    node.settle();
    assert_eq!(told(&gate), [(1, (Decision::Deny, Some(ReasonCode::Forbidden)))]);
    assert_eq!(node.judged(CauseKind::Principal), 1);
}

#[test]
fn whoever_is_disabled_anywhere_in_the_chain_takes_the_hold_along() {
    let mut node = Node::new();
    node.session("s", "a");
    let gate = node.open();
    let parts = Parts { delegation: &[("Agent", "root")], ..Node::read_by("a", "list", "s") };
    node.add(&gate, 1, parts);
    told(&gate);
    node.apply(Change::Standing(node.agent("root"), Standing::Disabled));
    node.settle();
    assert_eq!(told(&gate), [(1, (Decision::Deny, Some(ReasonCode::PrincipalDisabled)))]);
}

#[test]
fn whoever_is_enabled_again_above_the_session_gives_the_hold_back() {
    let mut node = Node::new();
    node.session("root", "boss");
    let now = node.clock.now();
    let (parent, _) = node.pipeline.state().parent("root", 0, now).unwrap();
    let mut leaf = Session::open("leaf".into(), node.agent("a"), START_MS + LIFE_MS, now);
    leaf.parent = Some(parent);
    node.pipeline.state().open(leaf, 0, now).unwrap();
    let gate = node.open();
    node.add(&gate, 1, Node::read_by("a", "list", "leaf"));
    node.settle();
    assert_eq!(told(&gate), [(1, ALLOW)]);
    node.apply(Change::Standing(node.agent("boss"), Standing::Disabled));
    node.settle();
    assert_eq!(told(&gate), [(1, (Decision::Deny, Some(ReasonCode::SessionRevoked)))]);
    node.apply(Change::Standing(node.agent("boss"), Standing::Enabled));
    node.settle();
    assert_eq!(told(&gate), [(1, ALLOW)]);
}

#[test]
fn a_posture_reaches_holds_that_read_it_and_the_cut_off_of_a_tenant_all_of_its_holds() {
    let mut node = Node::new();
    let now = node.clock.now();
    let mut session = Session::open("s".into(), node.agent("a"), START_MS + LIFE_MS, now);
    (session.device_id, session.tenant) = (Some("laptop".into()), Some("acme".into()));
    node.pipeline.state().open(session, 0, now).unwrap();
    node.swap(
        2,
        "permit(principal, action, resource) when { context.session.known };
         forbid(principal, action == Action::\"read\", resource) unless { context.session.device_compliant };",
    );
    let gate = node.open();
    node.add(&gate, 1, Node::read_by("a", "read", "s"));
    node.add(&gate, 2, Node::read_by("a", "list", "s"));
    assert_eq!(told(&gate), [(1, (Decision::Deny, Some(ReasonCode::Forbidden))), (2, ALLOW)]);
    node.apply(Change::Device("laptop".into(), true));
    node.settle();
    assert_eq!(told(&gate), [(1, ALLOW)]);
    assert_eq!(node.judged(CauseKind::Device), 1);
    let until_ms = node.clock.now().wall_ms;
    node.apply(Change::Revoked(Target::Tenant("acme".into(), until_ms), "bye".into()));
    node.settle();
    let revoked = (Decision::Deny, Some(ReasonCode::SessionRevoked));
    assert_eq!(told(&gate), [(1, revoked), (2, revoked)]);
    assert_eq!(node.judged(CauseKind::Tenant), 2);
}

#[test]
fn time_ends_a_token_and_a_task_at_their_own_millisecond() {
    let mut node = Node::new();
    let task = Task {
        id: "t".into(),
        purpose: String::new().into(),
        not_before_ms: None,
        not_after_ms: Some(START_MS + 5000),
        actions: vec!["work".into()],
        resources: Vec::new(),
    };
    node.session("s", "a");
    let change = SessionChange { task: Some(Arc::new(task)), ..SessionChange::default() };
    node.pipeline.state().change("s", &change, node.clock.now()).unwrap();
    let gate = node.open();
    let token = Token { expires_ms: Some(START_MS + 3000), ..Token::default() };
    node.add(&gate, 1, Parts { token: Some(token), ..Node::read_by("a", "list", "s") });
    node.add(&gate, 2, Node::read_by("a", "work", "s"));
    assert_eq!(told(&gate), [(1, ALLOW), (2, ALLOW)]);
    let mut heard = BTreeMap::new();
    for ms in 1..=6000 {
        node.clock.advance(Duration::from_millis(1));
        node.settle();
        heard.extend(told(&gate).into_iter().map(|(hold, said)| (hold, (ms, said))));
    }
    assert_eq!(heard[&1], (3000, (Decision::Deny, Some(ReasonCode::TokenExpired))));
    assert_eq!(heard[&2], (5000, (Decision::Deny, Some(ReasonCode::Forbidden))));
}

#[test]
fn a_clock_that_is_set_back_neither_spins_nor_misses_an_end() {
    let mut node = Node::new();
    node.session("s", "a");
    let gate = node.open();
    let token = Token { expires_ms: Some(START_MS + 3000), ..Token::default() };
    node.add(&gate, 1, Parts { token: Some(token), ..Node::read_by("a", "list", "s") });
    node.clock.set_wall_ms(START_MS - 3_600_000);
    node.settle();
    assert!(node.judged(CauseKind::Time) < 3);
    told(&gate);
    node.clock.set_wall_ms(START_MS + 3000);
    node.settle();
    assert_eq!(told(&gate), [(1, (Decision::Deny, Some(ReasonCode::TokenExpired)))]);
}

#[test]
fn a_hold_keeps_no_session_awake_and_counts_against_nobody() {
    let mut node = Node::new();
    node.session("s", "a");
    let before = node.pipeline.state().session("s").unwrap().unwrap().1;
    let gate = node.open();
    node.clock.advance(Duration::from_secs(5));
    node.add(&gate, 1, Node::read_by("a", "read", "s"));
    node.risk("a", 90);
    node.settle();
    assert_eq!(node.pipeline.state().session("s").unwrap().unwrap().1, before);
}

#[test]
fn a_new_bundle_judges_every_hold_and_what_it_cannot_read_is_denied_until_one_can() {
    let mut node = Node::new();
    let gate = node.open();
    for at in 0..1000 {
        let session = format!("s{at}");
        node.session(&session, "a");
        node.add(&gate, at + 1, Node::read_by("a", "list", &session));
    }
    node.settle();
    assert_eq!(told(&gate).len(), 1000);
    node.swap(2, "permit(principal, action, resource) when { context.session.known };\n@obligation(\"x\")\nforbid(principal, action == Action::\"list\", resource);");
    assert_eq!(node.judged(CauseKind::Bundle), 1000);
    let answers = told(&gate);
    assert_eq!(answers.len(), 1000);
    assert!(answers.iter().all(|(_, said)| said.0 == Decision::Deny));
    node.swap(3, POLICIES);
    assert_eq!(told(&gate).len(), 1000);
    node.swap(4, POLICIES);
    assert_eq!(told(&gate), [], "the same answer from a newer bundle is the same answer");
}

#[test]
fn signals_go_before_the_sweep_of_a_new_bundle() {
    let mut node = Node::new();
    let gate = node.open();
    for at in 0..2000 {
        node.session(&format!("s{at}"), "a");
        node.add(&gate, at + 1, Node::read_by("a", "list", &format!("s{at}")));
    }
    node.settle();
    told(&gate);
    node.pipeline.policy().activate(snapshot(2, POLICIES)).unwrap();
    node.engine.round();
    node.end("s1999");
    node.engine.round();
    assert_eq!(told(&gate), [(2000, (Decision::Deny, Some(ReasonCode::SessionRevoked)))]);
    assert!(node.judged(CauseKind::Bundle) < 1000, "the sweep is not over");
}

#[test]
fn a_slow_reader_is_told_to_forget_and_nothing_of_it_is_held_any_more() {
    let mut node = Node::new();
    let gate = node.open();
    let many = limits::HOLD_OUTBOX_MAX + 1;
    for at in 0..many {
        let session = format!("s{at}");
        node.session(&session, "a");
        node.add(&gate, at as u64 + 1, Node::read_by("a", "list", &session));
        if at % 1000 == 0 {
            told(&gate);
        }
    }
    told(&gate);
    let now = node.clock.now();
    let until = node.clock.now().wall_ms;
    node.pipeline.state().end(&Target::Principal(node.agent("a"), until), &"x".into(), LIFE_MS, now).unwrap();
    node.settle();
    let Some(Batch::Forget { why: Forget::SlowReader, .. }) = gate.outbox.take(9) else {
        panic!("no forget")
    };
    assert_eq!(gate.outbox.take(9), None, "a deny is not told of a hold that does not count");
    assert_eq!(node.engine.book.len(), 0);
    node.clock.advance(Duration::from_millis(5));
    node.session("new", "a");
    node.add(&gate, 1, Node::read_by("a", "list", "new"));
    assert_eq!(told(&gate), [(1, ALLOW)], "it may register again");
}

#[test]
fn a_resumed_stream_is_told_what_it_missed_and_nothing_else() {
    let mut node = Node::new();
    let gate = node.open();
    for at in 1..=100 {
        node.session(&format!("s{at}"), "a");
        node.add(&gate, at, Node::read_by("a", "list", &format!("s{at}")));
    }
    let Some(Batch::Answers { sequence, is_all: true, .. }) = gate.outbox.take(1000) else {
        panic!("not all")
    };
    node.end("s1");
    node.settle();
    // Told, and lost on the way.
    assert!(gate.outbox.take(1000).is_some());
    gate.outbox.leave(false);
    node.clock.advance(limits::HOLD_ROUND);
    node.settle();
    node.end("s2");
    node.settle();
    let again = node.resume(gate.token, sequence);
    assert!(again.resumed);
    assert_eq!(again.outbox.told(), None, "no heartbeat says that nothing changed");
    node.end("s3");
    node.settle();
    let mut answers = told(&again);
    answers.sort_unstable_by_key(|(hold, _)| *hold);
    let deny = (Decision::Deny, Some(ReasonCode::SessionRevoked));
    assert_eq!(answers, [(1, deny), (2, deny), (3, deny)]);
    assert!(again.outbox.told().is_some(), "it caught up");
    node.clock.advance(limits::HOLD_RESUME * 2);
    node.settle();
    assert_eq!(node.engine.book.len(), 100, "a stream that is carried does not end");
}

#[test]
fn a_connection_that_comes_back_before_its_loss_is_noticed_takes_the_stream_over() {
    let mut node = Node::new();
    node.session("s", "a");
    let gate = node.open();
    node.add(&gate, 1, Node::read_by("a", "list", "s"));
    let again = node.resume(gate.token, 0);
    assert_eq!(gate.outbox.ended(), Some(End::Resumed));
    node.settle();
    assert_eq!(told(&again), [(1, ALLOW)]);
    node.add(&gate, 2, Node::read_by("a", "list", "s"));
    assert_eq!(node.engine.book.len(), 1, "the old connection has no say any more");
    gate.outbox.leave(false);
    node.clock.advance(limits::HOLD_RESUME * 2);
    node.settle();
    assert_eq!(node.engine.book.len(), 1);
}

#[test]
fn nobody_else_resumes_a_stream_and_learns_whether_there_is_one() {
    let mut node = Node::new();
    node.session("s", "a");
    let gate = node.open();
    node.add(&gate, 1, Node::read_by("a", "list", "s"));
    let now = node.clock.now();
    let stolen = Opening { identity: "uid 8".into(), ..Node::opening(Some((gate.token, 0))) };
    let thief = node.engine.open(stolen, now).unwrap();
    let guessed = ResumeToken::parse(&format!("{:016x}-{:032x}", gate.stream, 1)).unwrap();
    let guesser = node.resume(guessed, 0);
    for stranger in [&thief, &guesser] {
        assert!(!stranger.resumed && stranger.stream != gate.stream);
        assert!(stranger.outbox.is_empty());
    }
    assert_eq!(gate.outbox.ended(), None);
}

#[test]
fn what_cannot_be_told_again_is_forgotten() {
    let mut node = Node::new();
    node.session("s", "a");
    let gate = node.open();
    node.add(&gate, 1, Node::read_by("a", "list", "s"));
    let again = node.resume(gate.token, 999);
    let Some(Batch::Forget { why: Forget::TooOld, .. }) = again.outbox.take(9) else { panic!("no forget") };
    node.settle();
    assert_eq!((node.engine.book.len(), again.outbox.take(9)), (0, None));
}

#[test]
fn a_forget_that_was_lost_on_the_way_is_told_again() {
    for registers_again in [false, true] {
        let mut node = Node::new();
        node.session("s", "a");
        let gate = node.open();
        node.add(&gate, 1, Node::read_by("a", "list", "s"));
        let Some(Batch::Answers { sequence, .. }) = gate.outbox.take(9) else { panic!("no answer") };
        for hold_id in 2..=limits::HOLD_OUTBOX_MAX as u64 + 2 {
            node.add(&gate, hold_id, Node::read_by("a", "list", "s"));
        }
        let Some(Batch::Forget { sequence: forgotten, .. }) = gate.outbox.take(9) else {
            panic!("no forget")
        };
        if registers_again {
            node.add(&gate, 2, Node::read_by("a", "list", "s"));
        }
        // The connection breaks before any of this is heard.
        let again = node.resume(gate.token, sequence);
        assert!(again.resumed);
        let Some(Batch::Forget { sequence: heard, .. }) = again.outbox.take(9) else { panic!("no forget") };
        assert!(heard >= forgotten);
        // Whoever heard of it is not told again.
        node.add(&again, 3, Node::read_by("a", "list", "s"));
        let last = node.resume(gate.token, heard);
        node.settle();
        assert_eq!(told(&last), [(3, ALLOW)]);
    }
}

#[test]
fn a_stream_that_is_resumed_again_and_again_leaves_no_work_behind() {
    let mut node = Node::new();
    node.session("s", "a");
    let gate = node.open();
    for hold_id in 1..=1000 {
        node.add(&gate, hold_id, Node::read_by("a", "list", "s"));
    }
    for _ in 0..100 {
        node.resume(gate.token, 0);
        assert!(node.engine.backlog.len() <= 1, "{}", node.engine.backlog.len());
    }
    let last = node.resume(gate.token, 0);
    node.settle();
    assert_eq!(told(&last).len(), 1000);
}

#[test]
fn a_stream_whose_caller_left_before_it_was_told_of_it_is_lost() {
    let mut node = Node::new();
    drop(node.open());
    node.clock.advance(limits::HOLD_ROUND);
    node.settle();
    assert_eq!(node.engine.streams.len(), 0);
}

#[test]
fn an_allow_that_comes_to_rest_on_the_context_is_told_anew() {
    let mut node = Node::new();
    node.session("s", "a");
    let gate = node.open();
    node.add(&gate, 1, Node::read_by("a", "list", "s"));
    assert_eq!(told(&gate), [(1, ALLOW)]);
    // The same answer for this attempt, and another one for others that would reuse it.
    node.swap(2, &format!("{POLICIES} forbid(principal, action, resource) when {{ context.request has amount && context.request.amount > 5 }};"));
    assert_eq!(told(&gate), [(1, ALLOW)]);
}

#[test]
fn a_lost_stream_is_kept_for_a_while_and_one_whose_caller_is_done_is_not() {
    let mut node = Node::new();
    node.session("s", "a");
    let (lost, done) = (node.open(), node.open());
    node.add(&lost, 1, Node::read_by("a", "list", "s"));
    node.add(&done, 1, Node::read_by("a", "list", "s"));
    lost.outbox.leave(false);
    done.outbox.leave(true);
    node.clock.advance(limits::HOLD_ROUND);
    node.settle();
    assert_eq!((node.engine.book.len(), node.engine.streams.len()), (1, 1));
    node.clock.advance(limits::HOLD_RESUME - Duration::from_millis(1));
    node.settle();
    assert_eq!(node.engine.book.len(), 1);
    node.clock.advance(limits::HOLD_ROUND);
    node.settle();
    assert_eq!((node.engine.book.len(), node.engine.streams.len(), node.engine.index.keys()), (0, 0, 0));
    assert_eq!((node.engine.wheel.len(), node.engine.bytes, node.engine.polled), (0, 0, 0));
}

#[test]
fn a_burst_of_changes_comes_to_few_judgements_and_one_answer() {
    let mut node = Node::new();
    node.session("s", "a");
    let gate = node.open();
    node.add(&gate, 1, Node::read_by("a", "read", "s"));
    told(&gate);
    for round in 0..10_000 {
        node.risk("a", if round % 2 == 0 { 90 } else { 0 });
    }
    node.risk("a", 90);
    node.settle();
    assert_eq!(told(&gate), [(1, (Decision::Deny, Some(ReasonCode::Forbidden)))]);
    assert!(node.judged(CauseKind::Principal) <= 100, "{}", node.judged(CauseKind::Principal));
    assert_eq!(node.holds.told(), node.pipeline.state().version());
}

#[test]
fn a_feed_that_overflowed_judges_every_hold() {
    let mut node = Node::new();
    let gate = node.open();
    for id in ["s", "t"] {
        node.session(id, "a");
    }
    node.add(&gate, 1, Node::read_by("a", "list", "s"));
    node.add(&gate, 2, Node::read_by("a", "list", "t"));
    node.settle();
    told(&gate);
    for _ in 0..limits::FEED_QUEUE {
        let change = SessionChange::default();
        node.pipeline.state().change("t", &change, node.clock.now()).unwrap();
    }
    node.end("s");
    node.settle();
    assert_eq!(told(&gate), [(1, (Decision::Deny, Some(ReasonCode::SessionRevoked)))]);
    assert_eq!(
        node.judged(CauseKind::Everything),
        1,
        "the other one was judged for its own change meanwhile"
    );
    assert_eq!(node.holds.told(), node.pipeline.state().version());
}

#[test]
fn a_change_with_many_dependents_is_worked_off_in_parts_and_told_only_then() {
    let mut node = Node::new();
    let gate = node.open();
    node.session("s", "a");
    for at in 1..=1000 {
        node.add(&gate, at, Node::read_by("a", "list", "s"));
    }
    node.settle();
    told(&gate);
    let before = node.holds.told();
    node.end("s");
    assert!(node.engine.round().is_none());
    assert_eq!(node.holds.told(), before, "not all were judged yet");
    node.settle();
    assert_eq!(told(&gate).len(), 1000);
    assert_eq!(node.holds.told(), before + 1);
}

#[test]
fn however_often_much_depended_on_things_change_little_waits_and_nothing_is_missed() {
    let mut node = Node::new();
    let gate = node.open();
    let keys = limits::HOLD_BACKLOG_MAX as u64 + 10;
    let mut hold_id = 0;
    for key in 0..keys {
        node.session(&format!("s{key}"), &format!("a{key}"));
        for _ in 0..=limits::HOLD_CHUNK {
            hold_id += 1;
            node.add(&gate, hold_id, Node::read_by(&format!("a{key}"), "read", &format!("s{key}")));
        }
        node.settle();
        told(&gate);
    }
    for severity in [90, 0, 90, 0, 90] {
        (0..keys).for_each(|key| node.risk(&format!("a{key}"), severity));
        node.engine.round();
        assert!(node.engine.backlog.len() <= limits::HOLD_BACKLOG_MAX + 1, "{}", node.engine.backlog.len());
    }
    let mut denied = BTreeSet::new();
    while node.engine.round().is_none() {
        denied.extend(
            told(&gate).into_iter().filter(|(_, said)| said.0 == Decision::Deny).map(|(hold, _)| hold),
        );
    }
    denied.extend(told(&gate).into_iter().map(|(hold, _)| hold));
    assert_eq!(denied.len() as u64, hold_id);
    assert_eq!(node.holds.told(), node.pipeline.state().version());
}

#[test]
fn without_a_place_in_the_audit_the_push_is_a_deny_and_the_truth_follows() {
    let mut node = Node::with_audit(1, WhenFull::Deny);
    node.session("s", "a");
    let gate = node.open();
    let pipeline = Arc::clone(&node.pipeline);
    {
        let _taken = loop {
            match pipeline.audit().reserve() {
                Ok(place) => break place,
                Err(_full) => std::thread::yield_now(),
            }
        };
        node.add(&gate, 1, Node::read_by("a", "list", "s"));
        assert_eq!(told(&gate), [(1, (Decision::Deny, Some(ReasonCode::AuditFull)))]);
    }
    // The place that was given back is free once the writer has passed it.
    for _ in 0..1000 {
        std::thread::sleep(Duration::from_millis(2));
        node.clock.advance(Duration::from_secs(1));
        node.settle();
        if let [(1, said)] = told(&gate)[..] {
            assert_eq!(said, ALLOW);
            return;
        }
    }
    panic!("the allow was never told");
}

#[test]
fn an_attempt_that_cannot_be_read_is_denied_and_not_held() {
    let mut node = Node::new();
    let gate = node.open();
    let fault = cardea_core::attempt::NotAnAttempt { code: ReasonCode::Malformed, message: "bad".into() };
    let refused = Box::new(Refused { fault, seen: pipeline::Seen::default() });
    let registration = Registration { hold_id: 5, attempt: Err(refused), revision: 1, bytes: 300 };
    let now = node.clock.now();
    node.engine.register(gate.stream, &gate.outbox, registration, now);
    assert_eq!(told(&gate), [(5, (Decision::Deny, Some(ReasonCode::Malformed)))]);
    assert_eq!(node.engine.book.len(), 0);
}

#[test]
fn a_version_that_is_not_reached_yet_is_waited_for() {
    let mut node = Node::new();
    node.session("s", "a");
    let gate = node.open();
    let ahead = node.pipeline.state().version() + 1;
    node.add(&gate, 1, Parts { at_least_version: ahead, ..Node::read_by("a", "list", "s") });
    assert_eq!(told(&gate), [(1, (Decision::Deny, Some(ReasonCode::StateTooOld)))]);
    node.session("other", "b");
    node.clock.advance(limits::HOLD_POLL);
    node.settle();
    assert_eq!(told(&gate), [(1, ALLOW)]);
}
