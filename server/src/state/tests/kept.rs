//! The state over a ledger: what is evicted from memory, what survives a restart.

use std::path::Path;
use std::thread::JoinHandle;

use super::*;
use crate::ledger::{self, Ledger};

/// A state whose ledger writes on a thread of its own.
pub(super) struct Node {
    pub(super) state: State,
    ledger: Ledger,
    writing: JoinHandle<Result<(), LedgerFault>>,
}

impl Node {
    /// `sessions` is how many stay in memory.
    pub(super) fn start(dir: &Path, sessions: u64) -> Self {
        let (ledger, writer) = Ledger::open(dir).unwrap();
        let capacity = Capacity {
            sessions,
            stored_sessions: 1000,
            subjects: 1000,
            revocations: 1000,
            tasks: 10,
            reviews: 10,
            counters: 1000,
        };
        let state = State::restore(capacity, ledger.clone()).unwrap();
        Self { state, ledger, writing: thread::spawn(move || writer.run()) }
    }

    pub(super) fn settle(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.state.durable()).unwrap();
    }

    pub(super) fn stop(self) {
        self.ledger.close();
        self.writing.join().unwrap().unwrap();
    }
}

fn behind(state: &State) {
    state.refused.fetch_add(1, Ordering::SeqCst);
}

pub(super) fn evict_all(state: &State) {
    state.sessions.invalidate_all();
    state.sessions.run_pending_tasks();
    assert_eq!(state.sessions.entry_count(), 0);
}

#[test]
fn a_session_that_was_evicted_is_read_from_disk_with_all_that_is_known_of_it() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let node = Node::start(dir.path(), 100);
    let mut session = Session::open("s".into(), agent(&snapshot, "a\0b\"\u{1F980}"), LIFE_MS, at(0));
    session.authenticate(0);
    session.acr = "gold".into();
    session.amr = ["pwd".into(), "hwk".into()].into();
    session.networks = ["10.0.0.0/8".into()].into();
    session.labels = ["x".into()].into();
    session.device_id = Some("laptop".into());
    session.tenant = Some("acme".into());
    session.apply(&SessionEvent::DeviceCompliance(true), 1);
    session.task = Some(Arc::new(cardea_core::task::Task {
        id: "t".into(),
        purpose: "p".into(),
        not_before_ms: Some(1),
        not_after_ms: None,
        actions: vec!["read".into()],
        resources: vec![cardea_core::task::ResourcePattern::parse("Doc::\"d*\"").unwrap()],
    }));
    node.state.open(session.clone(), 0, at(0)).unwrap();
    evict_all(&node.state);
    assert_eq!(*known(&node.state, "s").0, session);
    node.settle();
    evict_all(&node.state);
    assert_eq!(*known(&node.state, "s").0, session);
    node.stop();
    let node = Node::start(dir.path(), 100);
    assert_eq!(*known(&node.state, "s").0, session);
    assert_eq!(node.state.usage().stored_sessions, 1);
    node.stop();
}

#[test]
fn what_a_session_did_is_kept_when_it_is_evicted_and_when_the_process_ends() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let node = Node::start(dir.path(), 1);
    open(&node.state, &snapshot, "s", at(0));
    node.state.note(&attempt(&snapshot, "a", "s", None), Decision::Deny, None, at(7));
    for other in 0..100 {
        open(&node.state, &snapshot, &format!("other{other}"), at(1));
    }
    node.state.sessions.run_pending_tasks();
    assert!(node.state.sessions.get("s").is_none());
    let behavior = known(&node.state, "s").1;
    assert_eq!((behavior.attempts, behavior.denials, behavior.last_seen_ms), (1, 1, 7));
    node.state.note(&attempt(&snapshot, "a", "s", None), Decision::Allow, None, at(9));
    node.state.snapshot();
    node.stop();
    let node = Node::start(dir.path(), 1);
    assert_eq!(known(&node.state, "s").1.previous_action, "read");
    node.stop();
}

/// A store that the first version wrote.
#[test]
fn what_an_earlier_format_held_is_known_after_the_upgrade() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let packed = include_bytes!("data/format-1.redb.zst");
    let bytes = zstd::stream::decode_all(packed.as_slice()).unwrap();
    std::fs::write(dir.path().join("state.redb"), bytes).unwrap();
    let node = Node::start(dir.path(), 10);
    let live = known(&node.state, "live").0;
    assert_eq!((live.device_id.as_deref(), live.tenant.as_deref()), (Some("laptop"), Some("acme")));
    assert_eq!((&*live.principal.id().to_owned(), live.labels.contains("a")), ("sync", true));
    assert!(live.parent.is_none() && live.task_id.is_none() && live.ended.is_none());
    assert_eq!(known(&node.state, "ended").0.ended.as_ref().unwrap().reason, "done");
    let now = at(live.opened_ms + 60_000);
    let ask = |who: &str| code(&judge(&node.state, &snapshot, &attempt(&snapshot, who, "", None), now));
    assert_eq!([ask("rogue"), ask("gone")], [Some(ReasonCode::PrincipalDisabled); 2]);
    assert!(node.state.risk(&agent(&snapshot, "sync")).unwrap().score(now) >= 59);
    assert_eq!((node.state.usage().devices, node.state.usage().tenants), (1, 1));
    assert!(node.state.version() >= 8);
    node.stop();
}

#[test]
fn versions_rise_across_restarts() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let mut last = 0;
    for round in 0..3 {
        let node = Node::start(dir.path(), 10);
        assert!(node.state.version() >= last, "round {round}");
        open(&node.state, &snapshot, &format!("s{round}"), at(0));
        let version = node.state.version();
        assert!(version > last);
        last = version;
        node.settle();
        node.stop();
    }
}

#[test]
fn nothing_is_durable_while_the_ledger_takes_no_rows() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let node = Node::start(dir.path(), 10);
    open(&node.state, &snapshot, "s", at(0));
    node.settle();
    node.ledger.close();
    let again = Session::open("t".into(), agent(&snapshot, "a"), LIFE_MS, at(1));
    assert_eq!(node.state.open(again, 0, at(1)).unwrap_err(), OpenFault::Disk(LedgerFault::Closed));
    assert!(node.state.session("t").unwrap().is_none(), "what cannot be kept is not opened");
    node.state.end(&Target::Session("s".into()), &SmolStr::default(), LIFE_MS, at(2)).unwrap();
    let attempt = attempt(&snapshot, "a", "s", None);
    assert_eq!(code(&judge(&node.state, &snapshot, &attempt, at(3))), Some(ReasonCode::SessionRevoked));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(node.state.durable()).is_err(), "what ends is in force, and not acknowledged");
    node.stop();
}

#[test]
fn nothing_is_durable_until_all_that_the_ledger_refused_was_written() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let node = Node::start(dir.path(), 10);
    let state = &node.state;
    let (uid, other) = (agent(&snapshot, "a"), agent(&snapshot, "b"));
    state.end(&Target::Principal(uid, 1), &SmolStr::default(), LIFE_MS, at(1)).unwrap();
    // As if the ledger had not taken that.
    behind(state);
    let (entered, is_inside) = std::sync::mpsc::sync_channel(1);
    let (release, is_released) = std::sync::mpsc::sync_channel::<()>(1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let durable = || runtime.block_on(state.durable());
    thread::scope(|scope| {
        // Catching up does not get past what somebody else changes just now.
        let changing = scope.spawn(|| {
            state.subjects.update(
                other,
                1,
                Subject::default,
                |_| false,
                move |_| {
                    entered.send(()).unwrap();
                    is_released.recv().unwrap();
                },
            )
        });
        is_inside.recv().unwrap();
        let catching_up = scope.spawn(|| state.snapshot());
        for _ in 0..20 {
            let told = durable();
            if told.is_ok() {
                release.send(()).unwrap();
                panic!("acknowledged, and not written");
            }
            thread::sleep(std::time::Duration::from_millis(5));
        }
        release.send(()).unwrap();
        changing.join().unwrap().unwrap();
        catching_up.join().unwrap();
    });
    assert_eq!(durable(), Ok(()));
    node.stop();
}

#[test]
fn a_bundle_with_a_shorter_life_brings_back_no_session_that_was_ended() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let node = Node::start(dir.path(), 10);
    for (id, owner) in [("one", "a"), ("two", "b"), ("three", "c")] {
        let mut session = Session::open(id.into(), agent(&snapshot, owner), LIFE_MS, at(0));
        session.tenant = (id == "two").then(|| "acme".into());
        node.state.open(session, 0, at(0)).unwrap();
    }
    let shorter_ms = LIFE_MS / 100;
    let apply = |change: Change| {
        node.state.apply(&Signal { event_ms: 1, change }, shorter_ms, at(1)).unwrap();
    };
    apply(Change::Revoked(Target::Principal(agent(&snapshot, "a"), 1), "bye".into()));
    apply(Change::Revoked(Target::Tenant("acme".into(), 1), "bye".into()));
    apply(Change::Credential(agent(&snapshot, "c")));
    let late = at(LIFE_MS / 2);
    let stands = |node: &Node| {
        node.state.sweep("", shorter_ms, late).unwrap();
        for (id, owner) in [("one", "a"), ("two", "b")] {
            let verdict = judge(&node.state, &snapshot, &attempt(&snapshot, owner, id, None), late);
            assert_eq!(code(&verdict), Some(ReasonCode::SessionRevoked), "{id}");
        }
        assert!(says_changed(&node.state, &snapshot, &attempt(&snapshot, "c", "three", None)));
    };
    stands(&node);
    node.settle();
    node.stop();
    let node = Node::start(dir.path(), 10);
    stands(&node);
    node.stop();
}

#[test]
fn a_bundle_with_a_longer_life_brings_back_no_session_that_was_ended() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let node = Node::start(dir.path(), 10);
    let shorter_ms = LIFE_MS / 100;
    node.state.end(&Target::Session("s".into()), &SmolStr::default(), shorter_ms, at(1)).unwrap();
    node.state.sweep("", shorter_ms, at(LIFE_MS / 2)).unwrap();
    assert_eq!(node.state.usage().revocations, 0);
    let asked = |node: &Node, issued_ms: i64, id: &str| {
        let token = Token { issued_ms: Some(issued_ms), ..Token::default() };
        let attempt = attempt(&snapshot, "a", id, Some(token));
        judge(&node.state, &snapshot, &attempt, at(LIFE_MS / 2 + 1)).decision()
    };
    // This bundle's life is a day.
    assert_eq!(asked(&node, 0, "s"), Decision::Deny, "its end may be forgotten");
    assert_eq!(asked(&node, LIFE_MS / 2, "t"), Decision::Allow);
    node.settle();
    node.stop();
    let node = Node::start(dir.path(), 10);
    assert_eq!(asked(&node, 0, "s"), Decision::Deny);
    node.stop();
}

#[test]
fn the_posture_of_a_device_reaches_its_sessions_and_the_newest_report_counts() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let node = Node::start(dir.path(), 10);
    let mut session = Session::open("s".into(), agent(&snapshot, "a"), LIFE_MS, at(0));
    session.device_id = Some("laptop".into());
    session.apply(&SessionEvent::DeviceCompliance(true), 5);
    node.state.open(session, 0, at(5)).unwrap();
    let compliant = |node: &Node| {
        let attempt = attempt(&snapshot, "a", "s", None);
        let facts = node.state.gather(&Question::new(&snapshot, &attempt), Needs::default(), at(9)).0;
        let SessionFacts::Known(session, _) = facts.session else { panic!("the session is known") };
        session.device_compliant
    };
    let report = |compliant: bool, event_ms: i64| {
        let change = Change::Device("laptop".into(), compliant);
        node.state.apply(&Signal { event_ms, change }, LIFE_MS, at(9)).unwrap().0
    };
    assert_eq!(compliant(&node), Some(true));
    assert_eq!(report(false, 4), Outcome::Applied);
    assert_eq!(compliant(&node), Some(true), "an older report changes nothing");
    assert_eq!(report(false, 6), Outcome::Applied);
    assert_eq!(compliant(&node), Some(false));
    assert_eq!(report(true, 6), Outcome::Superseded);
    node.settle();
    node.stop();
    let node = Node::start(dir.path(), 10);
    assert_eq!(compliant(&node), Some(false));
    node.stop();
}

#[test]
fn ending_a_tenants_sessions_ends_those_that_were_open() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let node = Node::start(dir.path(), 10);
    let open_in = |id: &str, now: Now| {
        let mut session = Session::open(id.into(), agent(&snapshot, "a"), LIFE_MS, now);
        session.tenant = Some("acme".into());
        node.state.open(session, 0, now).unwrap();
    };
    open_in("old", at(1));
    node.state.end(&Target::Tenant("acme".into(), 5), &SmolStr::default(), LIFE_MS, at(5)).unwrap();
    open_in("new", at(6));
    let asks = |state: &State, id: &str| judge(state, &snapshot, &attempt(&snapshot, "a", id, None), at(7));
    assert_eq!(code(&asks(&node.state, "old")), Some(ReasonCode::SessionRevoked));
    assert_eq!(asks(&node.state, "new").decision(), Decision::Allow);
    node.settle();
    node.stop();
    let node = Node::start(dir.path(), 10);
    assert_eq!(code(&asks(&node.state, "old")), Some(ReasonCode::SessionRevoked));
    assert_eq!(asks(&node.state, "new").decision(), Decision::Allow);
    node.stop();
}

#[test]
fn sessions_that_are_long_over_are_dropped_from_disk_and_no_others() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let node = Node::start(dir.path(), 2);
    for id in 0..20 {
        let end = if id % 2 == 0 { 10 } else { 10 * LIFE_MS };
        let session = Session::open(format!("s{id:02}").into(), agent(&snapshot, "a"), end, at(0));
        node.state.open(session, 0, at(0)).unwrap();
    }
    node.settle();
    assert_eq!(node.state.sweep("", LIFE_MS, at(10 + LIFE_MS)).unwrap(), None);
    assert_eq!(node.state.usage().stored_sessions, 20, "one life of remembrance is not over");
    assert_eq!(node.state.sweep("", LIFE_MS, at(11 + LIFE_MS)).unwrap(), None);
    node.settle();
    let left: Vec<_> =
        node.state.page(None, "", 100).unwrap().iter().map(|session| session.id.clone()).collect();
    assert_eq!(left.len(), 10);
    assert!(left.contains(&"s01".into()) && !left.contains(&"s02".into()));
    assert_eq!(node.ledger.len(ledger::Table::Sessions).unwrap(), 10);
    assert_eq!(node.state.usage().stored_sessions, 10);
    node.stop();
}

#[test]
fn as_many_sessions_are_kept_as_may_be() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let (ledger, _writer) = Ledger::open(dir.path()).unwrap();
    let capacity = Capacity {
        sessions: 10,
        stored_sessions: 2,
        subjects: 10,
        revocations: 10,
        tasks: 10,
        reviews: 10,
        counters: 1,
    };
    let state = State::restore(capacity, ledger).unwrap();
    open(&state, &snapshot, "one", at(0));
    open(&state, &snapshot, "two", at(0));
    let third = Session::open("three".into(), agent(&snapshot, "a"), LIFE_MS, at(0));
    assert_eq!(state.open(third, 0, at(0)).unwrap_err(), OpenFault::SessionsFull(2));
}

#[test]
fn pages_hold_what_is_on_disk_by_id() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let node = Node::start(dir.path(), 2);
    for id in ["c", "a", "b", "d"] {
        open(&node.state, &snapshot, id, at(0));
    }
    node.settle();
    let ids = |after: &str, size| -> Vec<_> {
        node.state.page(None, after, size).unwrap().iter().map(|session| session.id.to_string()).collect()
    };
    assert_eq!(ids("", 3), ["a", "b", "c"]);
    assert_eq!(ids("c", 3), ["d"]);
    assert!(node.state.page(Some(&agent(&snapshot, "x")), "", 9).unwrap().is_empty());
    node.stop();
}

#[test]
fn followers_hear_of_each_change_with_the_version_that_shows_it() {
    let (state, snapshot) = (roomy(), snapshot());
    let follower = state.feed().follow(Box::new(|| {}));
    open(&state, &snapshot, "s", at(0));
    risk(&state, agent(&snapshot, "a"), 90, at(1)).unwrap();
    risk(&state, agent(&snapshot, "a"), 90, at(1)).unwrap();
    state.end(&Target::Session("s".into()), &SmolStr::default(), LIFE_MS, at(2)).unwrap();
    let heard: Vec<_> = std::iter::from_fn(|| follower.next())
        .map(|change| (change.version, change.key, change.what))
        .collect();
    assert_eq!(
        heard,
        [
            (1, Key::Session("s".into()), "opened"),
            (2, Key::Principal(agent(&snapshot, "a")), "risk"),
            (3, Key::Session("s".into()), "revoked"),
        ]
    );
}

#[derive(Clone, Debug)]
enum KeptStep {
    Plain(Step),
    Evict,
    Restart,
}

fn any_kept_step() -> impl Strategy<Value = KeptStep> {
    prop_oneof![
        6 => any_step().prop_map(KeptStep::Plain),
        1 => Just(KeptStep::Evict),
        1 => Just(KeptStep::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// The model knows neither eviction nor restarts.
    #[test]
    fn eviction_and_restarts_change_no_decision(steps in prop::collection::vec(any_kept_step(), 0..30)) {
        let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
        let mut node = Node::start(dir.path(), 1);
        let mut model = Model::default();
        let mut now = 0;
        for step in steps {
            now += 1;
            match step {
                KeptStep::Evict => evict_all(&node.state),
                KeptStep::Restart => {
                    node.stop();
                    node = Node::start(dir.path(), 1);
                }
                KeptStep::Plain(step) => take(&node.state, &snapshot, &mut model, step, &mut now)?,
            }
        }
        node.stop();
    }
}
