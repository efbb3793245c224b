//! Tasks, reviews, grants and session trees: what they hold, refuse and keep.

use cardea_core::ask::Ask;
use cardea_core::boundary::next_change;
use cardea_core::named::Named;
use cardea_core::review::{self, Opening, Rejection, ReviewFault};
use cardea_core::task::Task;
use cardea_core::task::life::{Approval, Change as TaskChange, LIFE_MAX_MS, Step};
use cardea_policy_store::settings::{Requirement, Settings};

use super::kept::Node;
use super::*;
use crate::limits;

fn reviewer() -> Named {
    Named { type_name: "Team".into(), id: "duty".into() }
}

fn settings() -> Settings {
    let mut settings = Settings::named("t");
    let reviewers = vec![reviewer().to_string().into()];
    settings.step_up.insert("look".into(), Requirement::Approval { reviewers, grant_s: 60 });
    settings
}

fn asked(snapshot: &Snapshot, principal: &str, session: &str) -> (Attempt, Ask) {
    let attempt = attempt(snapshot, principal, session, None);
    let ask = Ask::of(&attempt, &"look".into());
    (attempt, ask)
}

fn opening(at_ms: i64) -> Opening {
    Opening { at_ms, decision_id: "d".into(), session_id: None }
}

fn approve(state: &State, ask: &Ask, now: Now) -> Result<Settled, NotDecided> {
    let approval = |_: &_, grant_s: u64| {
        Ok(review::Approval {
            at_ms: now.wall_ms,
            ends_ms: now.wall_ms + i64::try_from(grant_s).unwrap() * 1000,
            session_id: None,
            by: reviewer(),
            reason: SmolStr::default(),
        })
    };
    let round = state.review(&ask.digest()).map_or(1, |known| known.review.round());
    state.approve_review(&ask.digest(), round, approval, &settings(), now)
}

fn requirements(state: &State, attempt: &Attempt, now: Now) -> Vec<SmolStr> {
    let counts = state.grants_for(attempt);
    let counts = counts.iter().filter(|grant| grant.counts(attempt.session_id.as_ref(), now));
    counts.map(|grant| grant.requirement.clone()).collect()
}

fn task(snapshot: &Snapshot, id: &str, ends_ms: i64) -> Approval {
    Approval {
        task: Task {
            id: id.into(),
            purpose: "p".into(),
            not_before_ms: None,
            not_after_ms: Some(ends_ms),
            actions: vec!["read".into()],
            resources: vec![],
        },
        agent: agent(snapshot, "a"),
        on_behalf_of: None,
        approved_by: reviewer(),
        approved_ms: 0,
        latest_end_ms: ends_ms,
    }
}

#[test]
fn the_same_ask_counts_and_opens_nothing() {
    let (state, snapshot) = (roomy(), snapshot());
    let (_, ask) = asked(&snapshot, "a", "s");
    assert!(!state.ask_again(&ask.digest(), at(0)));
    assert!(state.open_review(&ask, opening(0), at(0)).unwrap().is_some());
    for turn in 1..10 {
        assert!(state.open_review(&ask, opening(turn), at(turn)).unwrap().is_none());
    }
    let known = state.review(&ask.digest()).unwrap();
    assert_eq!((known.asked, known.asked_ms, known.review.round()), (10, 9, 1));
    assert_eq!(known.review.opened().unwrap().at_ms, 0);
    // After its time the next round opens, and the counter begins anew.
    let later = review::WAIT_MS;
    let next = state.open_review(&ask, opening(later), at(later)).unwrap().unwrap();
    assert_eq!((next.asked, next.review.round()), (1, 2));
    assert_eq!(state.usage().reviews, 1);
}

#[test]
fn a_grant_is_for_its_attempt_alone_and_until_its_end() {
    let (state, snapshot) = (roomy(), snapshot());
    let (attempt, ask) = asked(&snapshot, "a", "s");
    let before = state.version();
    state.open_review(&ask, opening(0), at(0)).unwrap();
    assert_eq!(state.version(), before, "an opening changes no fact");
    let follower = state.feed().follow(Box::new(|| {}));
    let settled = approve(&state, &ask, at(1)).unwrap();
    assert!(settled.changed && settled.version > before);
    let told = follower.next().unwrap();
    assert_eq!((told.key, told.version), (Key::Grants(agent(&snapshot, "a")), settled.version));
    assert_eq!(requirements(&state, &attempt, at(60_000)), ["look"]);
    assert!(requirements(&state, &attempt, at(60_001)).is_empty());
    assert!(requirements(&state, &asked(&snapshot, "b", "s").0, at(2)).is_empty());
    // Repeated: nothing new, and nothing is told.
    assert!(!approve(&state, &ask, at(2)).unwrap().changed);
    let no = Rejection { until_ms: 10, at_ms: 3, by: reviewer(), reason: SmolStr::default() };
    assert!(state.reject_review(&ask.digest(), 1, no, &settings(), at(3)).unwrap().changed);
    assert!(requirements(&state, &attempt, at(4)).is_empty());
    assert_eq!(follower.next().unwrap().what, "rejected");
    assert!(follower.next().is_none());
}

#[test]
fn only_a_reviewer_of_the_bundle_in_force_decides() {
    let (state, snapshot) = (roomy(), snapshot());
    let (_, ask) = asked(&snapshot, "a", "s");
    assert_eq!(approve(&state, &ask, at(0)).unwrap_err(), NotDecided::Unknown);
    state.open_review(&ask, opening(0), at(0)).unwrap();
    let no = |by: Named| Rejection { until_ms: 10, at_ms: 1, by, reason: SmolStr::default() };
    let decide = |by: Named, settings: &Settings| {
        state.reject_review(&ask.digest(), 1, no(by), settings, at(1)).unwrap_err()
    };
    let other = Named { id: "other".into(), ..reviewer() };
    assert_eq!(decide(other.clone(), &settings()), NotDecided::NotReviewer(other.to_string(), "look".into()));
    assert_eq!(decide(reviewer(), &Settings::named("t")), NotDecided::NoRequirement("look".into()));
    let own = Named::from(&agent(&snapshot, "a"));
    let mut careless = settings();
    let reviewers = vec![own.to_string().into()];
    careless.step_up.insert("look".into(), Requirement::Approval { reviewers, grant_s: 60 });
    assert_eq!(decide(own.clone(), &careless), NotDecided::Fault(ReviewFault::OwnAttempt(own)));
}

#[test]
fn a_full_table_takes_no_more_and_makes_room_for_what_is_over() {
    let capacity = Capacity {
        sessions: 1,
        stored_sessions: 1,
        subjects: 1,
        revocations: 1,
        tasks: 2,
        reviews: 3,
        counters: 1,
    };
    let (state, snapshot) = (State::new(capacity), snapshot());
    let asks: Vec<Ask> = ["a", "b", "c", "d"].into_iter().map(|name| asked(&snapshot, name, "s").1).collect();
    for ask in &asks[..3] {
        state.open_review(ask, opening(0), at(0)).unwrap();
    }
    assert_eq!(state.open_review(&asks[3], opening(1), at(1)).unwrap_err(), NotOpened::Full);
    let later = review::WAIT_MS + 3_600_000;
    assert_eq!(state.open_review(&asks[3], opening(0), at(later - 1)).unwrap_err(), NotOpened::Full);
    let again = state.open_review(&asks[3], opening(0), at(later)).unwrap_err();
    assert_eq!(
        again,
        NotOpened::Full,
        "the search for room walks the table, so it is not made at each attempt"
    );
    let later = later + 1000;
    state.open_review(&asks[3], opening(later), at(later)).unwrap();
    assert_eq!(state.usage().reviews, 1);

    state.approve_task(task(&snapshot, "1", 10), at(0)).unwrap();
    state.approve_task(task(&snapshot, "2", 10), at(0)).unwrap();
    assert_eq!(state.approve_task(task(&snapshot, "3", 10), at(0)).unwrap_err(), TaskRefusal::Full);
    // Changes of what is there need no place.
    let end = TaskChange { at_ms: 1, step: Step::Ended, by: reviewer(), reason: SmolStr::default() };
    assert!(state.change_task("1", end, at(1)).unwrap().changed);
    let later = LIFE_MAX_MS + 20;
    let late = Approval { approved_ms: later, ..task(&snapshot, "3", later + 10) };
    state.approve_task(late, at(later)).unwrap();
    assert!(state.task("1").is_none() && state.task("3").is_some());
}

#[test]
fn one_principal_cannot_crowd_out_the_others() {
    let mut capacity = Capacity {
        sessions: 1,
        stored_sessions: 1,
        subjects: 1,
        revocations: 1,
        tasks: 2,
        reviews: 0,
        counters: 1,
    };
    capacity.reviews = limits::REVIEWS_OF_ONE_MAX + 10;
    let (state, snapshot) = (State::new(capacity), snapshot());
    let (_, first) = asked(&snapshot, "greedy", "s");
    for number in 0..limits::REVIEWS_OF_ONE_MAX {
        let ask = Ask { requirement: format!("r{number}").into(), ..first.clone() };
        state.open_review(&ask, opening(0), at(0)).unwrap();
    }
    assert_eq!(state.open_review(&first, opening(0), at(0)).unwrap_err(), NotOpened::TooMany);
    let (_, other) = asked(&snapshot, "modest", "s");
    assert!(state.open_review(&other, opening(0), at(0)).unwrap().is_some());
}

#[test]
fn a_clock_that_was_set_back_loses_no_approval() {
    let (state, snapshot) = (roomy(), snapshot());
    let (attempt, ask) = asked(&snapshot, "a", "s");
    state.open_review(&ask, opening(5_000), at(5_000)).unwrap();
    approve(&state, &ask, at(2_000)).unwrap();
    assert_eq!(requirements(&state, &attempt, at(2_000)), ["look"]);
    assert!(requirements(&state, &attempt, at(62_000)).is_empty());
}

#[test]
fn an_expired_round_is_told_once() {
    let (state, snapshot) = (roomy(), snapshot());
    let (_, ask) = asked(&snapshot, "a", "s");
    state.open_review(&ask, opening(0), at(0)).unwrap();
    assert!(state.expired_reviews(at(review::WAIT_MS - 1)).is_empty());
    assert_eq!(state.expired_reviews(at(review::WAIT_MS)).len(), 1);
    assert!(state.expired_reviews(at(review::WAIT_MS + 1)).is_empty());
    assert!(matches!(
        approve(&state, &ask, at(review::WAIT_MS)),
        Err(NotDecided::Fault(ReviewFault::NotPending))
    ));
}

#[test]
fn tasks_reviews_and_grants_are_there_after_a_restart() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let (attempt, granted) = asked(&snapshot, "a", "s");
    let (_, expired) = asked(&snapshot, "b", "s");
    let node = Node::start(dir.path(), 10);
    node.state.open_review(&granted, opening(review::WAIT_MS), at(review::WAIT_MS)).unwrap();
    approve(&node.state, &granted, at(review::WAIT_MS)).unwrap();
    node.state.open_review(&expired, opening(0), at(0)).unwrap();
    assert_eq!(node.state.expired_reviews(at(review::WAIT_MS)).len(), 1);
    let life = node.state.approve_task(task(&snapshot, "t", 10), at(0)).unwrap().life;
    node.settle();
    node.stop();
    let node = Node::start(dir.path(), 10);
    assert_eq!(requirements(&node.state, &attempt, at(review::WAIT_MS + 1)), ["look"]);
    assert!(node.state.expired_reviews(at(review::WAIT_MS)).is_empty(), "it was told before");
    assert_eq!(node.state.task("t").unwrap(), life);
    assert_eq!(node.state.usage().reviews, 2);
    node.stop();
}

#[test]
fn a_session_falls_with_any_session_or_principal_above_it() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let node = Node::start(dir.path(), 10);
    let state = &node.state;
    let under = |id: &str, owner: &str, parent: Option<&str>, now: Now| {
        let mut session = Session::open(id.into(), agent(&snapshot, owner), LIFE_MS, now);
        session.parent = parent.map(|id| state.parent(id, 0, now).unwrap().0);
        state.open(session, 0, now).unwrap();
    };
    let stands = |id: &str, owner: &str, now: Now| {
        code(&judge(state, &snapshot, &attempt(&snapshot, owner, id, None), now))
            != Some(ReasonCode::SessionRevoked)
    };
    under("root", "boss", None, at(0));
    under("leaf", "a", Some("root"), at(1));
    assert!(stands("leaf", "a", at(2)));
    // Disabled for a while: what runs in its name waits, and goes on.
    let standing = |principal: &str, disabled: bool, now: Now| {
        let standing = match disabled {
            true => Standing::Disabled,
            false => Standing::Enabled,
        };
        let change = Change::Standing(agent(&snapshot, principal), standing);
        state.apply(&Signal { event_ms: now.wall_ms, change }, LIFE_MS, now).unwrap();
    };
    standing("boss", true, at(3));
    assert!(!stands("leaf", "a", at(4)));
    standing("boss", false, at(5));
    assert!(stands("leaf", "a", at(6)));
    // What was evicted from memory is read again.
    kept::evict_all(state);
    assert!(stands("leaf", "a", at(7)));
    // All of the boss's sessions end: so do those below.
    state.end(&Target::Principal(agent(&snapshot, "boss"), 8), &SmolStr::default(), LIFE_MS, at(8)).unwrap();
    assert!(!stands("leaf", "a", at(9)));
    assert!(matches!(state.change("leaf", &SessionChange::default(), at(9)), Err(OpenFault::Ended(_))));
    under("root-2", "boss", None, at(10));
    assert!(!stands("leaf", "a", at(11)), "another session of the boss revives nothing");
    node.stop();
}

#[test]
fn a_session_ends_with_the_first_above_it_wherever_their_ends_are_moved() {
    let (dir, snapshot) = (tempfile::tempdir().unwrap(), snapshot());
    let node = Node::start(dir.path(), 10);
    let state = &node.state;
    let under = |id: &str, parent: Option<&str>, expires_ms: i64| {
        let mut session = Session::open(id.into(), agent(&snapshot, "a"), expires_ms, at(0));
        session.parent = parent.map(|id| state.parent(id, 0, at(0)).unwrap().0);
        state.open(session, 0, at(0)).unwrap();
    };
    let moved = |id: &str, expires_ms: i64| {
        let change = SessionChange { expires_ms: Some(expires_ms), ..SessionChange::default() };
        state.change(id, &change, at(1)).unwrap();
    };
    let asked = attempt(&snapshot, "a", "leaf", None);
    let ends = || {
        let question = Question::new(&snapshot, &asked);
        let facts = state.gather(&question, Needs::default(), at(2)).0;
        let known = facts.session.session().unwrap().expires_ms;
        assert_eq!(state.informed(&self::known(state, "leaf").0, at(2)).expires_ms, known);
        assert_eq!(next_change(&question, &facts, at(2)).at_ms, Some(known));
        known
    };
    under("root", None, 1000);
    under("middle", Some("root"), 900);
    under("leaf", Some("middle"), 800);
    assert_eq!(ends(), 800);
    moved("leaf", 5000);
    assert_eq!(ends(), 900, "its own end was moved beyond its parent's");
    moved("middle", 5000);
    assert_eq!(ends(), 1000, "and its parent's beyond the root's");
    moved("root", 500);
    assert_eq!(ends(), 500, "the root's came nearer");
    assert_eq!(judge(state, &snapshot, &asked, at(499)).decision(), Decision::Allow);
    assert_eq!(judge(state, &snapshot, &asked, at(500)).decision(), Decision::Deny);
    node.stop();
}
