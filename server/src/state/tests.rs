//! The state as its services change it and decisions read it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::thread;

use cardea_core::attempt::{Attempt, Parts, Token};
use cardea_core::decide::{Question, decide};
use cardea_core::reason::ReasonCode;
use cardea_core::risk::{RiskKind, RiskSignal};
use cardea_core::session::{Change as SessionEvent, Status};
use cardea_core::subject::Standing;
use cardea_core::verdict::{Decision, Verdict};
use cardea_policy_store::fragment::Needs;
use cardea_policy_store::load;
use cardea_policy_store::snapshot::Snapshot;
use proptest::prelude::*;

use super::*;
use cardea_core::behavior::Deviation;
use cardea_core::facts::SessionFacts;

mod kept;
mod work;

const LIFE_MS: i64 = 1_000_000;

fn snapshot() -> Snapshot {
    let files: BTreeMap<PathBuf, Vec<u8>> = [
        ("bundle.toml", "name = \"t\"\n[sessions]\nopen_from_token = true"),
        (
            "schema.cedarschema",
            "entity Agent, Doc; action read appliesTo { principal: Agent, resource: Doc,
             context: { session: Cardea::Session, risk: Cardea::Risk } };",
        ),
        (
            "policies/p.cedar",
            "permit(principal, action, resource) when { context.session.known };
             forbid(principal, action, resource) when { context.risk.score > 50 };",
        ),
    ]
    .into_iter()
    .map(|(name, text)| (name.into(), text.into()))
    .collect();
    load::files(&files).unwrap().snapshot
}

fn state(capacity: Capacity) -> State {
    State::new(capacity)
}

fn roomy() -> State {
    state(Capacity {
        sessions: 1000,
        stored_sessions: 1000,
        subjects: 1000,
        revocations: 1000,
        tasks: 10,
        reviews: 10,
        counters: 1000,
    })
}

fn at(wall_ms: i64) -> Now {
    Now { mono_ns: 0, wall_ms }
}

fn agent(snapshot: &Snapshot, id: &str) -> Uid {
    Uid::new(snapshot.type_name("Agent").unwrap(), id)
}

fn attempt(snapshot: &Snapshot, agent: &str, session_id: &str, token: Option<Token>) -> Attempt {
    let parts = Parts {
        principal: ("Agent", agent),
        action: ("", "read"),
        resource: ("Doc", "d"),
        session_id,
        token,
        ..Parts::default()
    };
    Attempt::new(snapshot, parts).unwrap()
}

fn judge(state: &State, snapshot: &Snapshot, attempt: &Attempt, now: Now) -> Verdict {
    let question = Question::new(snapshot, attempt);
    let (facts, _) = state.gather(&question, Needs::default(), now);
    decide(&question, &facts, now)
}

fn code(verdict: &Verdict) -> Option<ReasonCode> {
    verdict.reasons().first().map(|reason| reason.code)
}

fn open(state: &State, snapshot: &Snapshot, id: &str, now: Now) {
    let session = Session::open(id.into(), agent(snapshot, "a"), now.wall_ms + LIFE_MS, now);
    state.open(session, 0, now).unwrap();
}

fn risk(state: &State, of: Uid, severity: u8, now: Now) -> Result<(Outcome, u64), OpenFault> {
    let kind = RiskKind::Operator;
    let signal = RiskSignal { kind, severity, confidence: 100, event_ms: now.wall_ms, half_life_s: 600 };
    state.apply(&Signal { event_ms: now.wall_ms, change: Change::Risk(of, signal) }, LIFE_MS, now)
}

fn known(state: &State, id: &str) -> (Arc<Session>, Behavior) {
    state.session(id).unwrap().unwrap()
}

fn says_changed(state: &State, snapshot: &Snapshot, attempt: &Attempt) -> bool {
    let facts = state.gather(&Question::new(snapshot, attempt), Needs::default(), at(6)).0;
    let SessionFacts::Known(session, _) = facts.session else { panic!("the session is known") };
    session.credential_changed
}

#[test]
fn the_very_next_decision_sees_a_change() {
    let (state, snapshot) = (roomy(), snapshot());
    let attempt = attempt(&snapshot, "a", "s", None);
    assert_eq!(judge(&state, &snapshot, &attempt, at(0)).decision(), Decision::Deny);
    open(&state, &snapshot, "s", at(0));
    assert_eq!(judge(&state, &snapshot, &attempt, at(1)).decision(), Decision::Allow);
    risk(&state, agent(&snapshot, "a"), 90, at(2)).unwrap();
    assert_eq!(code(&judge(&state, &snapshot, &attempt, at(2))), Some(ReasonCode::Forbidden));
    risk(&state, agent(&snapshot, "a"), 0, at(3)).unwrap();
    assert_eq!(judge(&state, &snapshot, &attempt, at(3)).decision(), Decision::Allow);
    state.end(&Target::Session("s".into()), &"bye".into(), LIFE_MS, at(4)).unwrap();
    assert_eq!(code(&judge(&state, &snapshot, &attempt, at(4))), Some(ReasonCode::SessionRevoked));
}

#[test]
fn an_ended_session_cannot_be_opened_again_not_even_by_its_token() {
    let (state, snapshot) = (roomy(), snapshot());
    let token = Token { issued_ms: Some(0), ..Token::default() };
    let attempt = attempt(&snapshot, "a", "s", Some(token));
    assert_eq!(judge(&state, &snapshot, &attempt, at(0)).decision(), Decision::Allow, "first sight opens it");
    state.end(&Target::Session("s".into()), &SmolStr::default(), LIFE_MS, at(1)).unwrap();
    state.sessions.invalidate("s");
    state.sessions.run_pending_tasks();
    assert_eq!(code(&judge(&state, &snapshot, &attempt, at(2))), Some(ReasonCode::SessionRevoked));
    let again = Session::open("s".into(), agent(&snapshot, "a"), LIFE_MS, at(2));
    assert_eq!(state.open(again, 0, at(2)).unwrap_err(), OpenFault::Ended("s".into()));
}

#[test]
fn ending_a_principals_sessions_covers_those_that_this_node_never_saw() {
    let (state, snapshot) = (roomy(), snapshot());
    open(&state, &snapshot, "seen", at(10));
    state.end(&Target::Principal(agent(&snapshot, "a"), 20), &SmolStr::default(), LIFE_MS, at(20)).unwrap();
    let seen = attempt(&snapshot, "a", "seen", None);
    assert_eq!(code(&judge(&state, &snapshot, &seen, at(21))), Some(ReasonCode::SessionRevoked));
    let old_token = Token { issued_ms: Some(15), ..Token::default() };
    let unseen = attempt(&snapshot, "a", "unseen", Some(old_token));
    assert_eq!(code(&judge(&state, &snapshot, &unseen, at(21))), Some(ReasonCode::SessionRevoked));
    let new_token = Token { issued_ms: Some(25), ..Token::default() };
    let fresh = attempt(&snapshot, "a", "fresh", Some(new_token));
    assert_eq!(judge(&state, &snapshot, &fresh, at(26)).decision(), Decision::Allow);
    assert_eq!(judge(&state, &snapshot, &fresh, at(27)).decision(), Decision::Allow);
}

#[test]
fn a_newer_login_in_the_token_refreshes_the_session() {
    let (state, snapshot) = (roomy(), snapshot());
    let token = |auth: i64| {
        Some(Token {
            authenticated_ms: Some(auth),
            acr: "gold".into(),
            issued_ms: Some(0),
            ..Token::default()
        })
    };
    judge(&state, &snapshot, &attempt(&snapshot, "a", "s", token(5)), at(10));
    assert_eq!(known(&state, "s").0.authenticated_ms, Some(5));
    judge(&state, &snapshot, &attempt(&snapshot, "a", "s", token(8)), at(11));
    assert_eq!(known(&state, "s").0.authenticated_ms, Some(8));
    judge(&state, &snapshot, &attempt(&snapshot, "a", "s", token(3)), at(12));
    assert_eq!(known(&state, "s").0.authenticated_ms, Some(8), "an older token changes nothing");
    judge(&state, &snapshot, &attempt(&snapshot, "a", "s", token(999_999)), at(13));
    assert_eq!(known(&state, "s").0.authenticated_ms, Some(8), "a login cannot lie in the future");
}

#[test]
fn what_lets_somebody_do_more_than_before_is_opening() {
    let (state, snapshot) = (roomy(), snapshot());
    open(&state, &snapshot, "s", at(0));
    let uid = agent(&snapshot, "a");
    let is_opening = |event_ms, change| state.is_opening(&Signal { event_ms, change }, at(10));
    let risk_of = |severity, event_ms| {
        let kind = RiskKind::Operator;
        Change::Risk(uid.clone(), RiskSignal { kind, severity, confidence: 100, event_ms, half_life_s: 600 })
    };
    assert!(!is_opening(1, risk_of(0, 1)), "there is nothing to lower");
    risk(&state, uid.clone(), 60, at(5)).unwrap();
    assert!(is_opening(6, risk_of(0, 6)) && is_opening(6, risk_of(59, 6)));
    assert!(!is_opening(6, risk_of(90, 6)));
    assert!(!is_opening(4, risk_of(0, 4)), "older than what is known");
    assert!(is_opening(6, Change::Standing(uid.clone(), Standing::Enabled)));
    assert!(!is_opening(6, Change::Standing(uid, Standing::Disabled)));
    assert!(
        is_opening(6, Change::Device("d".into(), true)) && !is_opening(6, Change::Device("d".into(), false))
    );
    let of_session = |change| is_opening(6, Change::Session("s".into(), change));
    assert!(of_session(SessionEvent::AssuranceLevel(2)) && !of_session(SessionEvent::AssuranceLevel(0)));
    assert!(of_session(SessionEvent::DeviceCompliance(true)));
    assert!(!of_session(SessionEvent::CredentialChanged));
}

#[test]
fn a_full_table_refuses_new_knowledge_and_keeps_the_old() {
    let (state, snapshot) = (
        state(Capacity {
            sessions: 10,
            stored_sessions: 1000,
            subjects: 1,
            revocations: 1,
            tasks: 10,
            reviews: 10,
            counters: 1000,
        }),
        snapshot(),
    );
    risk(&state, agent(&snapshot, "a"), 90, at(0)).unwrap();
    assert_eq!(risk(&state, agent(&snapshot, "b"), 90, at(1)), Err(OpenFault::TableFull(TableFull)));
    open(&state, &snapshot, "s", at(1));
    assert_eq!(
        code(&judge(&state, &snapshot, &attempt(&snapshot, "a", "s", None), at(2))),
        Some(ReasonCode::Forbidden)
    );
    // Ten thousand half-lives later nothing is left of the first signal, and it may go.
    assert!(risk(&state, agent(&snapshot, "b"), 90, at(6_000_000_000)).is_ok());
}

#[test]
fn with_no_room_to_remember_revocations_unknown_sessions_are_denied() {
    let (state, snapshot) = (
        state(Capacity {
            sessions: 10,
            stored_sessions: 1000,
            subjects: 10,
            revocations: 1,
            tasks: 10,
            reviews: 10,
            counters: 1000,
        }),
        snapshot(),
    );
    open(&state, &snapshot, "known", at(0));
    state.end(&Target::Session("gone".into()), &SmolStr::default(), LIFE_MS, at(1)).unwrap();
    let token = Some(Token { issued_ms: Some(0), ..Token::default() });
    let unknown = attempt(&snapshot, "a", "unknown", token);
    assert_eq!(code(&judge(&state, &snapshot, &unknown, at(2))), Some(ReasonCode::StateFull));
    let known = attempt(&snapshot, "a", "known", None);
    assert_eq!(judge(&state, &snapshot, &known, at(2)).decision(), Decision::Allow);
    let full = state.end(&Target::Session("known".into()), &SmolStr::default(), LIFE_MS, at(3));
    assert_eq!(full, Err(TableFull), "what could be forgotten is not acknowledged");
    assert_eq!(code(&judge(&state, &snapshot, &known, at(3))), Some(ReasonCode::SessionRevoked));
}

#[test]
fn a_disabled_principal_is_denied_until_a_newer_event_enables_it() {
    let (state, snapshot) = (roomy(), snapshot());
    open(&state, &snapshot, "s", at(0));
    let attempt = attempt(&snapshot, "a", "s", None);
    let standing = |event_ms: i64, disabled: bool| {
        let standing = if disabled { Standing::Disabled } else { Standing::Enabled };
        let change = Change::Standing(agent(&snapshot, "a"), standing);
        state.apply(&Signal { event_ms, change }, LIFE_MS, at(event_ms)).unwrap().0
    };
    assert_eq!(standing(10, true), Outcome::Applied);
    assert_eq!(code(&judge(&state, &snapshot, &attempt, at(11))), Some(ReasonCode::PrincipalDisabled));
    assert_eq!(standing(5, false), Outcome::Superseded, "an older event changes nothing");
    assert_eq!(standing(10, false), Outcome::Superseded, "of two of the same time the strict one holds");
    assert_eq!(standing(12, false), Outcome::Applied);
    assert_eq!(judge(&state, &snapshot, &attempt, at(13)).decision(), Decision::Allow);
}

#[test]
fn signals_about_a_session_reach_it_and_a_credential_reaches_all_of_its_principals() {
    let (state, snapshot) = (roomy(), snapshot());
    for id in ["one", "two"] {
        let mut session = Session::open(id.into(), agent(&snapshot, "a"), LIFE_MS, at(0));
        session.authenticate(0);
        state.open(session, 0, at(0)).unwrap();
    }
    let apply = |change: Change| state.apply(&Signal { event_ms: 5, change }, LIFE_MS, at(5)).unwrap().0;
    assert_eq!(apply(Change::Session("one".into(), SessionEvent::AssuranceLevel(2))), Outcome::Applied);
    assert_eq!(
        apply(Change::Session("none".into(), SessionEvent::AssuranceLevel(2))),
        Outcome::UnknownSubject
    );
    assert_eq!((known(&state, "one").0.aal, known(&state, "two").0.aal), (2, 0));
    assert_eq!(apply(Change::Session("one".into(), SessionEvent::CredentialChanged)), Outcome::Applied);
    assert_eq!(apply(Change::Credential(agent(&snapshot, "a"))), Outcome::Superseded);
    let changed = |id: &str| {
        let attempt = attempt(&snapshot, "a", id, None);
        says_changed(&state, &snapshot, &attempt)
    };
    assert!(changed("one") && changed("two"));
    let login = SessionChange { authenticated_ms: Some(6), ..SessionChange::default() };
    state.change("one", &login, at(6)).unwrap();
    assert!(!changed("one") && changed("two"));
}

#[test]
fn a_changed_credential_outlives_the_eviction_of_the_session() {
    let (state, snapshot) = (roomy(), snapshot());
    let token = Token { issued_ms: Some(0), authenticated_ms: Some(0), ..Token::default() };
    let attempt = attempt(&snapshot, "a", "s", Some(token));
    let undated_login = Token { issued_ms: Some(0), ..Token::default() };
    let undated_login = self::attempt(&snapshot, "a", "t", Some(undated_login));
    judge(&state, &snapshot, &attempt, at(1));
    judge(&state, &snapshot, &undated_login, at(1));
    let change = Change::Credential(agent(&snapshot, "a"));
    state.apply(&Signal { event_ms: 5, change }, LIFE_MS, at(5)).unwrap();
    state.sessions.invalidate("s");
    state.sessions.run_pending_tasks();
    state.sessions.invalidate("t");
    assert!(says_changed(&state, &snapshot, &attempt));
    assert!(says_changed(&state, &snapshot, &undated_login));
    open(&state, &snapshot, "new", at(6));
    assert!(!says_changed(&state, &snapshot, &self::attempt(&snapshot, "a", "new", None)));
}

#[test]
fn what_is_disqualified_teaches_nothing() {
    let (state, snapshot) = (roomy(), snapshot());
    open(&state, &snapshot, "s", at(0));
    let token = |auth: i64, expires: i64| {
        Some(Token {
            issued_ms: Some(0),
            authenticated_ms: Some(auth),
            expires_ms: Some(expires),
            acr: "gold".into(),
            ..Token::default()
        })
    };
    let stranger = attempt(&snapshot, "b", "s", token(5, 1000));
    assert_eq!(code(&judge(&state, &snapshot, &stranger, at(10))), Some(ReasonCode::SessionMismatch));
    let expired = attempt(&snapshot, "a", "s", token(5, 10));
    assert_eq!(code(&judge(&state, &snapshot, &expired, at(10))), Some(ReasonCode::TokenExpired));
    assert_eq!(known(&state, "s").0.authenticated_ms, None);
    let never_opened = attempt(&snapshot, "a", "fresh", token(5, 10));
    judge(&state, &snapshot, &never_opened, at(10));
    assert!(state.session("fresh").unwrap().is_none());
    let too_old = attempt(&snapshot, "a", "late", token(5, i64::MAX));
    judge(&state, &snapshot, &too_old, at(LIFE_MS * 100_000));
    assert!(state.session("late").unwrap().is_none(), "an end of it could have been forgotten");
}

#[test]
fn ending_a_root_ends_what_runs_below_it() {
    let (state, snapshot) = (roomy(), snapshot());
    open(&state, &snapshot, "s", at(0));
    let parts = Parts {
        principal: ("Agent", "a"),
        action: ("", "read"),
        resource: ("Doc", "d"),
        session_id: "s",
        delegation: &[("Agent", "root"), ("Agent", "middle")],
        ..Parts::default()
    };
    let attempt = Attempt::new(&snapshot, parts).unwrap();
    assert_eq!(judge(&state, &snapshot, &attempt, at(1)).decision(), Decision::Allow);
    state
        .end(&Target::Principal(agent(&snapshot, "middle"), 2), &SmolStr::default(), LIFE_MS, at(2))
        .unwrap();
    assert_eq!(code(&judge(&state, &snapshot, &attempt, at(3))), Some(ReasonCode::SessionRevoked));
}

#[test]
fn an_evicted_session_of_somebody_whose_sessions_were_ended_stays_ended() {
    let (state, snapshot) = (roomy(), snapshot());
    open(&state, &snapshot, "s", at(0));
    state.end(&Target::Principal(agent(&snapshot, "a"), 5), &SmolStr::default(), LIFE_MS, at(5)).unwrap();
    state.sessions.invalidate("s");
    state.sessions.run_pending_tasks();
    let attempt = attempt(&snapshot, "a", "s", None);
    assert_eq!(code(&judge(&state, &snapshot, &attempt, at(6))), Some(ReasonCode::SessionRevoked));
}

#[test]
fn a_change_needs_a_live_session() {
    let (state, snapshot) = (roomy(), snapshot());
    open(&state, &snapshot, "s", at(0));
    let later = SessionChange { expires_ms: Some(i64::MAX), ..SessionChange::default() };
    assert_eq!(state.change("s", &later, at(LIFE_MS)).unwrap_err(), OpenFault::Expired("s".into()));
    open(&state, &snapshot, "t", at(0));
    state.end(&Target::Principal(agent(&snapshot, "a"), 5), &SmolStr::default(), LIFE_MS, at(5)).unwrap();
    assert_eq!(state.change("t", &later, at(6)).unwrap_err(), OpenFault::Ended("t".into()));
}

#[test]
fn however_an_opener_races_an_ender_the_end_wins() {
    let (state, snapshot) = (roomy(), snapshot());
    for round in 0..200 {
        let id = format!("s{round}");
        thread::scope(|scope| {
            scope.spawn(|| {
                let session = Session::open(id.as_str().into(), agent(&snapshot, "a"), LIFE_MS, at(0));
                let _either = state.open(session, 0, at(0));
            });
            scope.spawn(|| {
                state.end(&Target::Session(id.as_str().into()), &SmolStr::default(), LIFE_MS, at(1)).unwrap();
            });
        });
        let attempt = attempt(&snapshot, "a", &id, None);
        assert_eq!(code(&judge(&state, &snapshot, &attempt, at(2))), Some(ReasonCode::SessionRevoked));
    }
}

#[test]
fn an_attempt_that_loses_the_race_to_open_its_session_sees_all_that_is_known_of_it() {
    let (state, snapshot) = (roomy(), snapshot());
    let change = Change::Device("laptop".into(), false);
    state.apply(&Signal { event_ms: 1, change }, LIFE_MS, at(1)).unwrap();
    let barrier = std::sync::Barrier::new(2);
    for round in 0..2000 {
        let id = format!("s{round}");
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut session = Session::open(id.as_str().into(), agent(&snapshot, "a"), LIFE_MS, at(2));
                session.device_id = Some("laptop".into());
                barrier.wait();
                let _who_is_first = state.open(session, 0, at(2));
            });
            let token = Token { issued_ms: Some(2), ..Token::default() };
            let attempt = attempt(&snapshot, "a", &id, Some(token));
            let question = Question::new(&snapshot, &attempt);
            barrier.wait();
            let facts = state.gather(&question, Needs::default(), at(2)).0;
            if let SessionFacts::Known(session, _) = facts.session
                && session.device_id.is_some()
            {
                assert_eq!(session.device_compliant, Some(false), "round {round}");
            }
        });
    }
}

#[test]
fn what_a_session_did_is_counted_and_only_allowed_actions_are_steps() {
    let (state, snapshot) = (roomy(), snapshot());
    open(&state, &snapshot, "s", at(0));
    let attempt = attempt(&snapshot, "a", "s", None);
    state.note(&attempt, Decision::Deny, None, at(1));
    assert_eq!(known(&state, "s").1.previous_action, "");
    state.note(&attempt, Decision::Allow, None, at(2));
    let behavior = known(&state, "s").1;
    assert_eq!((behavior.attempts, behavior.denials, behavior.last_seen_ms), (2, 1, 2));
    assert_eq!(behavior.previous_action, "read");
}

#[test]
fn what_a_session_did_is_compared_only_for_those_who_read_it() {
    let (state, snapshot) = (roomy(), snapshot());
    open(&state, &snapshot, "s", at(0));
    let attempt = attempt(&snapshot, "a", "s", None);
    let question = Question::new(&snapshot, &attempt);
    let monitored = |also| state.gather(&question, also, at(3)).0.monitored;
    state.note(&attempt, Decision::Allow, None, at(1));
    assert_eq!(monitored(Needs::every()), None, "nothing was compared");
    state.note(&attempt, Decision::Allow, Some(&Deviation::default()), at(2));
    assert_eq!(monitored(Needs::every()).map(|of| of.attempts()), Some(1));
    assert_eq!(monitored(Needs::default()), None, "no candidate reads it");
    assert!(size_of::<Noted>() <= size_of::<Behavior>() + 2 * size_of::<u64>());
}

#[test]
fn of_many_openers_of_one_id_exactly_one_succeeds() {
    let (state, snapshot) = (roomy(), snapshot());
    let opened: usize = thread::scope(|scope| {
        let openers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let session = Session::open("s".into(), agent(&snapshot, "a"), LIFE_MS, at(0));
                    usize::from(state.open(session, 0, at(0)).is_ok())
                })
            })
            .collect();
        openers.into_iter().map(|opener| opener.join().unwrap()).sum()
    });
    assert_eq!(opened, 1);
}

#[test]
fn after_an_acknowledged_end_no_decision_allows() {
    let (state, snapshot) = (roomy(), snapshot());
    for round in 0..200 {
        let id = format!("s{round}");
        open(&state, &snapshot, &id, at(0));
        let attempt = attempt(&snapshot, "a", &id, None);
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                state.end(&Target::Session(id.as_str().into()), &SmolStr::default(), LIFE_MS, at(1)).unwrap();
                ended.store(true, Ordering::SeqCst);
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let was_ended = ended.load(Ordering::SeqCst);
                        let allowed = judge(&state, &snapshot, &attempt, at(1)).decision() == Decision::Allow;
                        assert!(!(was_ended && allowed), "allowed after the end was acknowledged");
                        if was_ended {
                            break;
                        }
                    }
                });
            }
        });
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Open(u8, u8),
    End(u8),
    EndAll(u8),
    Disable(u8, bool),
    Ask(u8, u8),
    Wait,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3u8, 0..3u8).prop_map(|(session, owner)| Step::Open(session, owner)),
        (0..3u8).prop_map(Step::End),
        (0..3u8).prop_map(Step::EndAll),
        (0..3u8, any::<bool>()).prop_map(|(owner, to)| Step::Disable(owner, to)),
        (0..3u8, 0..3u8).prop_map(|(session, owner)| Step::Ask(session, owner)),
        Just(Step::Wait),
    ]
}

/// The model: plain maps and no cleverness.
#[derive(Default)]
struct Model {
    owner: BTreeMap<u8, (u8, i64)>,
    ended: std::collections::BTreeSet<u8>,
    cutoff: BTreeMap<u8, i64>,
    disabled: BTreeMap<u8, bool>,
}

impl Model {
    fn allows(&self, session: u8, asker: u8) -> bool {
        let Some((owner, opened)) = self.owner.get(&session) else { return false };
        !self.ended.contains(&session)
            && self.cutoff.get(owner).is_none_or(|cutoff| opened > cutoff)
            && self.disabled.get(&asker) != Some(&true)
            && *owner == asker
    }
}

proptest! {
    #[test]
    fn the_state_agrees_with_a_simple_model(steps in prop::collection::vec(any_step(), 0..40)) {
        let (state, snapshot) = (roomy(), snapshot());
        let mut model = Model::default();
        let mut now = 0;
        for step in steps {
            now += 1;
            take(&state, &snapshot, &mut model, step, &mut now)?;
        }
    }
}

/// One step, of the state and of the model.
fn take(
    state: &State,
    snapshot: &Snapshot,
    model: &mut Model,
    step: Step,
    now: &mut i64,
) -> Result<(), TestCaseError> {
    match step {
        Step::Open(id, owner) => {
            let uid = agent(snapshot, &owner.to_string());
            let session = Session::open(id.to_string().into(), uid, *now + LIFE_MS, at(*now));
            let is_new = !model.owner.contains_key(&id) && !model.ended.contains(&id);
            let opened = state.open(session, 0, at(*now)).is_ok();
            prop_assert_eq!(opened, is_new);
            if is_new {
                model.owner.insert(id, (owner, *now));
            }
        }
        Step::End(id) => {
            let target = Target::Session(id.to_string().into());
            state.end(&target, &SmolStr::default(), LIFE_MS, at(*now)).unwrap();
            model.ended.insert(id);
        }
        Step::EndAll(owner) => {
            let target = Target::Principal(agent(snapshot, &owner.to_string()), *now);
            state.end(&target, &SmolStr::default(), LIFE_MS, at(*now)).unwrap();
            model.cutoff.insert(owner, *now);
        }
        Step::Disable(owner, to) => {
            let standing = if to { Standing::Disabled } else { Standing::Enabled };
            let change = Change::Standing(agent(snapshot, &owner.to_string()), standing);
            state.apply(&Signal { event_ms: *now, change }, LIFE_MS, at(*now)).unwrap();
            model.disabled.insert(owner, to);
        }
        Step::Ask(session, asker) => {
            let attempt = attempt(snapshot, &asker.to_string(), &session.to_string(), None);
            let verdict = judge(state, snapshot, &attempt, at(*now));
            prop_assert_eq!(verdict.decision() == Decision::Allow, model.allows(session, asker));
        }
        Step::Wait => *now += 10,
    }
    Ok(())
}

#[test]
fn an_expired_id_may_be_opened_anew() {
    let (state, snapshot) = (roomy(), snapshot());
    let session = |now: Now| Session::open("s".into(), agent(&snapshot, "a"), now.wall_ms + 10, now);
    state.open(session(at(0)), 0, at(0)).unwrap();
    assert_eq!(state.open(session(at(5)), 0, at(5)).unwrap_err(), OpenFault::Exists("s".into()));
    assert!(state.open(session(at(10)), 0, at(10)).is_ok());
    let (session, behavior) = known(&state, "s");
    assert_eq!(state.status(&session, behavior.last_seen_ms, 0, at(11)), Status::Live);
}
