//! Plays scenarios: the state, the facts and the `decide` of the service, with a clock that the scenario moves.
//!
//! INVARIANT (same parts): sessions, signals and attempts are read by the services' own readers and judged by
//! `pipeline::weigh`; nothing here knows what they mean. Each step takes [`STEP_MS`], as nothing happens at once.
//! Limits: [`SESSIONS_MAX`]. Never does: reading a clock, I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use cardea_core::ask::{self, Ask};
use cardea_core::decide::{Question, outcomes};
use cardea_core::review::{Approval, Opening};
use cardea_core::task::life::{Change, Step::Ended as Ends};
use cardea_policy_store::engine::Uid;
use cardea_policy_store::fault::{Fault, Faults};
use cardea_policy_store::fragment::Needs;
use cardea_policy_store::load::{self, Files};
use cardea_policy_store::snapshot::Snapshot;
use serde_json::Value;
use smol_str::SmolStr;

use super::approved::AttemptApproved;
use super::attempt::{AttemptTold, TIMES_MAX};
use super::case::{self, Case, Got};
use super::coverage::Coverage;
use super::scenario::{Place, STEPS_MAX, Scenario, SettleTold, Source, Step};
use super::told::{Ending, SessionTold};
use super::words::Named;
use crate::clock::Clock;
use crate::doors::told;
use crate::pipeline::{Weighed, weigh};
use crate::state::{Capacity, Outcome, Reservation, State, Target, life_ms};

/// How long a step takes, in milliseconds.
pub const STEP_MS: u64 = 1;
/// Sessions, subjects and revocations of one scenario: one for each of the most steps.
pub const SESSIONS_MAX: usize = STEPS_MAX;

/// An empty state for one scenario.
pub(super) fn empty_state() -> State {
    let sessions = u64::try_from(SESSIONS_MAX).unwrap_or(u64::MAX);
    State::new(Capacity {
        sessions,
        stored_sessions: sessions,
        subjects: SESSIONS_MAX,
        revocations: SESSIONS_MAX,
        tasks: SESSIONS_MAX,
        reviews: SESSIONS_MAX,
        // With room for skew: no scenario must see a full table.
        counters: SESSIONS_MAX * 16,
    })
}

/// The bundle with the scenario's own entities, where it has some.
///
/// # Errors
/// Entities that the schema does not allow, placed at the scenario.
pub(super) fn with_entities(
    files: &Files,
    scenario: &Scenario,
    source: &Source<'_>,
) -> Result<Option<Snapshot>, Fault> {
    if scenario.entities.is_empty() {
        return Ok(None);
    }
    let name = Path::new("entities.json");
    let of_bundle =
        files.get(name).map_or(Ok(Vec::new()), |bytes| serde_json::from_slice::<Vec<Value>>(bytes));
    let Ok(of_bundle) = of_bundle else {
        return Err(source.fault(scenario.place, "the entities of the bundle are no list"));
    };
    let mut all: Vec<Value> = Vec::new();
    let mut places: BTreeMap<(String, String), usize> = BTreeMap::new();
    for entity in of_bundle.into_iter().chain(scenario.entities.iter().cloned()) {
        let Some(key) = uid(&entity) else {
            let fault = source.fault(scenario.place, "an entity has no `uid`");
            return Err(fault.help("write `uid: {type: T, id: x}`, `attrs` and `parents`"));
        };
        let complete = complete(entity);
        match places.get(&key).and_then(|at| all.get_mut(*at)) {
            Some(known) => *known = complete,
            None => {
                places.insert(key, all.len());
                all.push(complete);
            }
        }
    }
    let mut files = files.clone();
    files.insert(name.to_owned(), Value::Array(all).to_string().into_bytes());
    load::files(&files).map(|loaded| Some(loaded.snapshot)).map_err(|faults: Faults| {
        let text = faults.list().iter().map(|fault| fault.message.clone()).collect::<Vec<_>>().join("; ");
        let fault =
            source.fault(scenario.place, format!("the scenario's entities do not fit the bundle: {text}"));
        fault.help("entities must follow the schema; see Cedar's entity JSON")
    })
}

/// Type and id, in either form that Cedar's entity JSON knows.
fn uid(entity: &Value) -> Option<(String, String)> {
    let uid = entity.get("uid")?;
    let uid = uid.get("__entity").unwrap_or(uid);
    Some((uid.get("type")?.as_str()?.to_owned(), uid.get("id")?.as_str()?.to_owned()))
}

/// `attrs` and `parents` may be left out where they are empty.
fn complete(mut entity: Value) -> Value {
    if let Some(fields) = entity.as_object_mut() {
        fields.entry("attrs").or_insert_with(|| Value::Object(serde_json::Map::new()));
        fields.entry("parents").or_insert_with(|| Value::Array(Vec::new()));
    }
    entity
}

/// Plays a scenario to its end, or to the first step that cannot be done.
pub(super) fn play(
    scenario: &Scenario,
    source: &Source<'_>,
    snapshot: &Snapshot,
    coverage: &mut Coverage,
) -> (Vec<Case>, Option<Fault>) {
    let mut player = Player {
        snapshot,
        state: empty_state(),
        clock: Clock::standing_at(scenario.start_ms),
        opened: BTreeSet::new(),
        reservation: None,
        coverage,
    };
    player.state.counters().install(snapshot, player.clock.now());
    let mut cases = Vec::new();
    for (place, step) in &scenario.steps {
        match player.step(step, *place) {
            Ok(Some(case)) => cases.push(case),
            Ok(None) => {}
            Err(Undone { message, help }) => return (cases, Some(source.fault(*place, message).help(help))),
        }
    }
    (cases, None)
}

/// Why a step could not be done, and what to do.
struct Undone {
    message: String,
    help: &'static str,
}

fn undone(message: impl Into<String>, help: &'static str) -> Undone {
    Undone { message: message.into(), help }
}

const ASK_THE_SCHEMA: &str = "correct the step: types, actions and fields are those of schema.cedarschema";

/// Somebody who approves, whatever his type.
fn approver(named: &Named) -> cardea_core::named::Named {
    cardea_core::named::Named { type_name: named.type_name.as_str().into(), id: named.id.as_str().into() }
}

struct Player<'p> {
    snapshot: &'p Snapshot,
    state: State,
    clock: Clock,
    /// Ids of the sessions that steps have opened.
    opened: BTreeSet<SmolStr>,
    /// Of the last allow that waits to be settled.
    reservation: Option<Reservation>,
    coverage: &'p mut Coverage,
}

impl Player<'_> {
    fn step(&mut self, step: &Step, place: Place) -> Result<Option<Case>, Undone> {
        self.clock.advance(Duration::from_millis(STEP_MS));
        match step {
            Step::Advance(span) => {
                self.clock.advance(Duration::from_millis(span.ms.unsigned_abs()));
                Ok(None)
            }
            Step::Session(session) => self.open(session).map(|()| None),
            Step::UpdateSession(update) => {
                let now = self.clock.now();
                let changed = told::change(&update.message(now.wall_ms), self.life_ms(), now);
                let changed = changed.map_err(|status| undone(status.message(), "correct the step"))?;
                let done = self.state.change(&update.id, &changed, now);
                done.map(|_| None)
                    .map_err(|fault| undone(fault.to_string(), "open the session in an earlier step"))
            }
            Step::EndSession(ending) => self.end(ending).map(|()| None),
            Step::Signal(signal) => {
                let now = self.clock.now();
                let message =
                    signal.message(now.wall_ms).map_err(|fault| undone(fault, "tell one change"))?;
                let read = told::signal(&message, self.snapshot, now);
                let read = read.map_err(|status| undone(status.message(), ASK_THE_SCHEMA))?;
                self.state.hear(&message.source, self.snapshot.settings(), now);
                match self.state.apply(&read, self.life_ms(), now) {
                    Ok((Outcome::Applied, _)) => Ok(None),
                    Ok((Outcome::Superseded, _)) => Err(undone(
                        "the signal changes nothing: newer knowledge stays",
                        "give it a later time, or leave it out",
                    )),
                    Ok((Outcome::UnknownSubject, _)) => Err(undone(
                        "the signal is about a session that is not open",
                        "open the session in an earlier step",
                    )),
                    Err(_full) => Err(undone("the scenario knows too many subjects", "split it")),
                }
            }
            Step::Heard(source) => {
                self.state.hear(source, self.snapshot.settings(), self.clock.now());
                Ok(None)
            }
            Step::ApproveTask(approved) => {
                let now = self.clock.now();
                let approval = told::task(&approved.message(now.wall_ms), self.snapshot, now);
                let approval = approval.map_err(|status| undone(status.message(), ASK_THE_SCHEMA))?;
                let done = self.state.approve_task(approval, now);
                done.map(|_| None).map_err(|fault| undone(fault.to_string(), "correct the task"))
            }
            Step::EndTask(ended) => {
                let now = self.clock.now();
                let by = approver(&ended.by);
                let change = Change { at_ms: now.wall_ms, step: Ends, by, reason: SmolStr::default() };
                let done = self.state.change_task(&ended.id, change, now);
                done.map(|_| None)
                    .map_err(|fault| undone(fault.to_string(), "approve the task in an earlier step"))
            }
            Step::Approve(approved) => self.approve(approved).map(|()| None),
            Step::Attempt(attempt) => self.attempt(attempt, place).map(Some),
            Step::Settle(told) => {
                let reservation = self.reservation.as_ref().ok_or_else(|| {
                    undone(
                        "no allow waits to be settled",
                        "make an attempt that a counter with `on = \"commit\"` counts",
                    )
                })?;
                let is_done = *told == SettleTold::Committed;
                let settled = self.state.counters().settle(&reservation.token, is_done, self.clock.now());
                settled.map(|()| None).map_err(|fault| undone(fault.to_string(), "settle within `reserve_s`"))
            }
            Step::Attempts(_) => Err(undone("a table was not taken apart; this is a bug", "report it")),
        }
    }

    /// Opens the review that the attempt would open, and approves it.
    fn approve(&self, approved: &AttemptApproved) -> Result<(), Undone> {
        let now = self.clock.now();
        let message = approved.attempt().message(self.snapshot, now.wall_ms);
        let message = message.map_err(|fault| undone(fault, ASK_THE_SCHEMA))?;
        let attempt = told::attempt(&message, self.snapshot);
        let attempt = attempt.map_err(|fault| undone(fault.message, ASK_THE_SCHEMA))?;
        if ask::digest(&attempt).is_none() {
            return Err(undone("the request is too large to be reviewed", "make it smaller"));
        }
        let ask = Ask::of(&attempt, &approved.requirement.as_str().into());
        let session_id = attempt.session_id;
        let opening = Opening { at_ms: now.wall_ms, decision_id: SmolStr::default(), session_id };
        let opened = self.state.open_review(&ask, opening, now);
        opened.map_err(|fault| undone(fault.to_string(), "split the scenario"))?;
        let review = ask.digest();
        let round = self.state.review(&review).map_or(0, |known| known.review.round());
        let approval = |_: &_, grant_s: u64| {
            let longest_ms = i64::try_from(grant_s).unwrap_or(i64::MAX).saturating_mul(1000);
            let life_ms = approved.ends_in.map_or(longest_ms, |span| span.ms);
            Ok(Approval {
                at_ms: now.wall_ms,
                ends_ms: now.wall_ms.saturating_add(life_ms),
                session_id: None,
                by: approver(&approved.by),
                reason: SmolStr::default(),
            })
        };
        let settled = self.state.approve_review(&review, round, approval, self.snapshot.settings(), now);
        settled.map(|_| ()).map_err(|fault| {
            undone(fault.to_string(), "name a requirement of the bundle, one of its reviewers, and a fit end")
        })
    }

    fn life_ms(&self) -> i64 {
        life_ms(self.snapshot.settings())
    }

    fn open(&mut self, session: &SessionTold) -> Result<(), Undone> {
        let (Some(id), Some(principal)) = (&session.id, &session.principal) else {
            return Err(undone("a session needs `id` and `principal`", "say which session opens, and whose"));
        };
        let now = self.clock.now();
        let message = session.message(id, principal.reference(), now.wall_ms);
        let read = told::session(&message, self.snapshot, now);
        let read = read.map_err(|status| undone(status.message(), ASK_THE_SCHEMA))?;
        let idle_max_s = self.snapshot.settings().sessions.idle_max_s;
        let read = told::bound(read, &message, &self.state, idle_max_s, now);
        let read =
            read.map_err(|status| undone(status.message(), "approve the task, or open the parent, first"))?;
        let opened = self.state.open(read, idle_max_s, now);
        opened.map_err(|fault| {
            undone(fault.to_string(), "give each session of the scenario an id of its own")
        })?;
        self.opened.insert(id.as_str().into());
        Ok(())
    }

    fn end(&mut self, ending: &Ending) -> Result<(), Undone> {
        let now = self.clock.now();
        let target = match (&ending.id, &ending.principal) {
            (Some(id), None) if self.knows(id) => Target::Session(id.as_str().into()),
            (Some(id), None) => {
                return Err(undone(format!("session `{id}` was never opened"), "open it in an earlier step"));
            }
            (None, Some(principal)) => Target::Principal(self.uid(principal)?, now.wall_ms),
            _ => return Err(undone("name what ends: `id` or `principal`", "give one of the two")),
        };
        let reason = ending.reason.as_str().into();
        let closed = self.state.end(&target, &reason, self.life_ms(), now);
        closed.map(|_| ()).map_err(|_full| undone("the scenario ends too many sessions", "split it"))
    }

    fn uid(&self, named: &Named) -> Result<Uid, Undone> {
        match self.snapshot.type_name(&named.type_name) {
            Some(name) => Ok(Uid::new(name, &named.id)),
            None => {
                Err(undone(format!("`{named}` has a type that the schema does not have"), ASK_THE_SCHEMA))
            }
        }
    }

    fn knows(&self, session: &str) -> bool {
        self.opened.contains(session) || self.state.session(session).is_ok_and(|found| found.is_some())
    }

    fn attempt(&mut self, told: &AttemptTold, place: Place) -> Result<Case, Undone> {
        let opens_itself = self.snapshot.settings().sessions.open_from_token && told.token.is_some();
        if let Some(id) = told.session.as_ref().filter(|id| !opens_itself && !self.knows(id)) {
            return Err(undone(
                format!("session `{id}` was never opened"),
                "open it in an earlier step, or leave `session` out for an attempt without one",
            ));
        }
        let times = told.times.unwrap_or(1);
        if !(1..=TIMES_MAX).contains(&times) {
            return Err(undone(format!("`times` is 1 to {TIMES_MAX}"), "make it smaller"));
        }
        let mut case = self.once(told, place)?;
        for _ in 1..times {
            if !case.passed {
                break;
            }
            case = self.once(told, place)?;
        }
        Ok(case)
    }

    fn once(&mut self, told: &AttemptTold, place: Place) -> Result<Case, Undone> {
        self.clock.advance(Duration::from_millis(STEP_MS));
        let now = self.clock.now();
        let message = told.message(self.snapshot, now.wall_ms);
        let message = message.map_err(|fault| undone(fault, ASK_THE_SCHEMA))?;
        let attempt = told::attempt(&message, self.snapshot);
        let attempt = attempt.map_err(|fault| undone(fault.message, ASK_THE_SCHEMA))?;
        let question = Question::new(self.snapshot, &attempt);
        let Weighed { verdict, facts, reservation, .. } =
            weigh(&self.state, &question, Needs::default(), now);
        self.reservation = reservation.or_else(|| self.reservation.take());
        let said = outcomes(&question, &facts, now);
        self.coverage.see(&said);
        let got = Got::of(&verdict, self.snapshot);
        let differences = case::differences(told, &got);
        let advice = match differences.is_empty() {
            true => String::new(),
            false => case::advice(told, &got, &said, self.snapshot),
        };
        Ok(Case {
            name: told.title(),
            line: place.line,
            column: place.column,
            passed: differences.is_empty(),
            expected: told.expect,
            got,
            differences,
            advice,
        })
    }
}
