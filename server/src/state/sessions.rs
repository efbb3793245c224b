//! Sessions: opened, changed, ended, read.

use std::sync::Arc;

use cardea_core::attempt::Attempt;
use cardea_core::facts::Behavior;
use cardea_core::session::{self, LABELS_MAX, METHODS_MAX, NETWORKS_MAX, Session, Status};
use cardea_core::task::Task;
use cardea_core::time::Now;
use cardea_core::verdict::Decision;
use cardea_policy_store::engine::Uid;
use parking_lot::Mutex;
use smol_str::SmolStr;

use super::{Held, State, TableFull};

/// Longest label, network, method, context class or text of a task, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 256;

/// Why a session could not be opened or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenFault {
    /// A live session has this id.
    #[error("a live session has the id `{0}`")]
    Exists(SmolStr),
    /// A session of this id was ended, for good.
    #[error("session `{0}` was ended; open another id")]
    Ended(SmolStr),
    /// This node does not know it.
    #[error("session `{0}` is not known to this node")]
    Unknown(SmolStr),
    /// It is past its end.
    #[error("session `{0}` has expired; open another")]
    Expired(SmolStr),
    /// A list or a text is beyond its limit.
    #[error(
        "a session has at most {LABELS_MAX} labels, {NETWORKS_MAX} networks and {METHODS_MAX} methods, of {TEXT_BYTES_MAX} bytes each"
    )]
    TooMuch,
    /// The table that would remember its end is full, so its id cannot be told from an ended one.
    #[error("the table of revocations is full; no session can be opened until entries in it expire")]
    RevocationsFull,
}

/// A change of a session, as a caller asks for it; unset parts stay.
#[derive(Clone, Debug, Default)]
pub struct SessionChange {
    /// New end, Unix milliseconds.
    pub expires_ms: Option<i64>,
    /// A new authentication, Unix milliseconds.
    pub authenticated_ms: Option<i64>,
    /// New context class.
    pub acr: Option<SmolStr>,
    /// New methods.
    pub amr: Option<Vec<SmolStr>>,
    /// New assurance level.
    pub aal: Option<u8>,
    /// New posture.
    pub device_compliant: Option<bool>,
    /// More networks.
    pub add_networks: Vec<SmolStr>,
    /// More labels.
    pub add_labels: Vec<SmolStr>,
    /// Fewer labels.
    pub remove_labels: Vec<SmolStr>,
    /// Another task.
    pub task: Option<Arc<Task>>,
}

/// What to end.
#[derive(Clone, Debug)]
pub enum Target {
    /// One session.
    Session(SmolStr),
    /// Every session that the principal opened up to a time, Unix milliseconds.
    Principal(Uid, i64),
}

/// What was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Whether anything changed.
    pub changed: bool,
    /// State version from which no decision allows for it.
    pub version: u64,
    /// Where the principal's cut-off stood before; sessions opened up to there were over already.
    pub before_ms: Option<i64>,
}

impl State {
    /// Opens a session.
    ///
    /// # Errors
    /// When its id is taken or was ended, or a list is too long.
    pub fn open(
        &self,
        session: Session,
        idle_max_s: u64,
        now: Now,
    ) -> Result<(Arc<Session>, u64), OpenFault> {
        within_limits(&session)?;
        if self.revoked.get(session.id.as_str()).is_some() {
            return Err(OpenFault::Ended(session.id));
        }
        if self.forgets_revocations(now) {
            return Err(OpenFault::RevocationsFull);
        }
        let session = Arc::new(session);
        let held = Arc::new(Held {
            session: Mutex::new(Arc::clone(&session)),
            behavior: Mutex::new(Behavior { last_seen_ms: now.wall_ms, ..Behavior::default() }),
        });
        // One look and one insertion under the key's lock, so that two openers of an id cannot both succeed.
        let entry = self.sessions.entry(session.id.clone()).and_compute_with(|found| match found {
            Some(entry) if self.held_status(entry.value(), idle_max_s, now) != Status::Expired => {
                moka::ops::compute::Op::Nop
            }
            _ => moka::ops::compute::Op::Put(Arc::clone(&held)),
        });
        match entry {
            moka::ops::compute::CompResult::Inserted(_) | moka::ops::compute::CompResult::ReplacedWith(_) => {
                // Somebody may have ended the id between the look and the insertion.
                match self.revoked.get(session.id.as_str()) {
                    Some(_) => Err(OpenFault::Ended(session.id.clone())),
                    None => Ok((
                        Arc::clone(&session),
                        self.advance(super::Key::Session(session.id.clone()), "opened"),
                    )),
                }
            }
            moka::ops::compute::CompResult::Unchanged(found) => {
                match self.held_status(found.value(), idle_max_s, now) {
                    Status::Revoked => Err(OpenFault::Ended(session.id.clone())),
                    Status::Live | Status::Expired => Err(OpenFault::Exists(session.id.clone())),
                }
            }
            moka::ops::compute::CompResult::StillNone(_) | moka::ops::compute::CompResult::Removed(_) => {
                Err(OpenFault::Unknown(session.id.clone()))
            }
        }
    }

    /// Changes a session.
    ///
    /// # Errors
    /// When it is not known or was ended, or a list is too long.
    pub fn change(
        &self,
        id: &str,
        change: &SessionChange,
        now: Now,
    ) -> Result<(Arc<Session>, u64), OpenFault> {
        if self.revoked.get(id).is_some() {
            return Err(OpenFault::Ended(id.into()));
        }
        let held = self.sessions.get(id).ok_or_else(|| OpenFault::Unknown(id.into()))?;
        let mut current = held.session.lock();
        if self.is_cut(&current) || current.ended.is_some() {
            return Err(OpenFault::Ended(id.into()));
        }
        if now.wall_ms >= current.expires_ms {
            return Err(OpenFault::Expired(id.into()));
        }
        let mut next = Session::clone(&current);
        change.apply(&mut next, now);
        within_limits(&next)?;
        *current = Arc::new(next);
        let changed = Arc::clone(&current);
        drop(current);
        let version = self.advance(super::Key::Session(id.into()), "updated");
        Ok((changed, version))
    }

    /// Ends sessions for good.
    ///
    /// # Errors
    /// When there is no place to remember it. Sessions that this node knows are ended all the same; those that it does
    /// not know may come back.
    pub fn end(
        &self,
        target: &Target,
        reason: &SmolStr,
        life_ms: i64,
        now: Now,
    ) -> Result<Closed, TableFull> {
        let mut before_ms = None;
        let changed = match target {
            Target::Session(id) => self.end_one(id, reason, life_ms, now)?,
            Target::Principal(principal, until_ms) => {
                let spent = |subject: &super::Subject| subject.is_spent(now, life_ms);
                let raise = |subject: &mut super::Subject| {
                    before_ms = subject.cutoff_ms;
                    let rises = subject.cutoff_ms.is_none_or(|known| known < *until_ms);
                    if rises {
                        subject.cutoff_ms = Some(*until_ms);
                    }
                    rises
                };
                match self.subjects.update(
                    principal.clone(),
                    now.wall_ms,
                    super::Subject::default,
                    spent,
                    raise,
                ) {
                    Ok(changed) => changed,
                    // No place to remember the cut-off: end the sessions that are known, one by one.
                    Err(full) => {
                        for session in self.sessions_of(Some(principal)) {
                            if session.opened_ms <= *until_ms {
                                self.end_one(&session.id, reason, life_ms, now)?;
                            }
                        }
                        return Err(full);
                    }
                }
            }
        };
        let key = match target {
            Target::Session(id) => super::Key::Session(id.clone()),
            Target::Principal(uid, _) => super::Key::Principal(uid.clone()),
        };
        let version = if changed { self.advance(key, "revoked") } else { self.version() };
        Ok(Closed { changed, version, before_ms })
    }

    fn end_one(&self, id: &SmolStr, reason: &SmolStr, life_ms: i64, now: Now) -> Result<bool, TableFull> {
        // Remembered first: between the two steps a decision finds at least one of them.
        let known_until = self.sessions.get(id).map_or(0, |held| held.session.lock().expires_ms);
        let until_ms = now.wall_ms.saturating_add(life_ms).max(known_until);
        let spent = |until: &i64| *until < now.wall_ms;
        let mut is_new = false;
        let remembered = self.revoked.update(
            id.clone(),
            now.wall_ms,
            || {
                is_new = true;
                until_ms
            },
            spent,
            |until| *until = until_ms.max(*until),
        );
        let ended = self.sessions.get(id).is_some_and(|held| {
            let mut current = held.session.lock();
            let mut next = Session::clone(&current);
            let ended = next.end(now.wall_ms, reason.clone());
            *current = Arc::new(next);
            ended
        });
        remembered.map(|()| ended || is_new)
    }

    /// One session and what it did, if this node knows it.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<(Arc<Session>, Behavior)> {
        let held = self.sessions.get(id)?;
        let session = Arc::clone(&held.session.lock());
        let behavior = held.behavior.lock().clone();
        Some((session, behavior))
    }

    /// Every session, of one principal or of all, by id. Walks the whole table: not for the hot path.
    #[must_use]
    pub fn sessions_of(&self, principal: Option<&Uid>) -> Vec<Arc<Session>> {
        let all = self.sessions.iter().map(|(_, held)| Arc::clone(&held.session.lock()));
        let mut found: Vec<_> =
            all.filter(|session| principal.is_none_or(|uid| session.principal == *uid)).collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    /// Where a session stands, its principal's cut-off included.
    #[must_use]
    pub fn status(&self, session: &Session, last_seen_ms: i64, idle_max_s: u64, now: Now) -> Status {
        if self.is_cut(session) || self.revoked.get(session.id.as_str()).is_some() {
            return Status::Revoked;
        }
        session.status(last_seen_ms, idle_max_s, now)
    }

    /// Whether all of its principal's sessions were ended since it was opened.
    fn is_cut(&self, session: &Session) -> bool {
        let cutoff = self.subjects.get(&session.principal).and_then(|subject| subject.cutoff_ms);
        cutoff.is_some_and(|cutoff| session.opened_ms <= cutoff)
    }

    fn held_status(&self, held: &Held, idle_max_s: u64, now: Now) -> Status {
        let last_seen_ms = held.behavior.lock().last_seen_ms;
        let session = Arc::clone(&held.session.lock());
        self.status(&session, last_seen_ms, idle_max_s, now)
    }

    /// Notes an attempt in its session's behaviour, after it was judged.
    pub fn note(&self, attempt: &Attempt, decision: Decision, now: Now) {
        let Some(held) = attempt.session_id.as_ref().and_then(|id| self.sessions.get(id)) else { return };
        let mut behavior = held.behavior.lock();
        behavior.attempts += 1;
        behavior.last_seen_ms = behavior.last_seen_ms.max(now.wall_ms);
        if decision == Decision::Deny {
            behavior.denials += 1;
        } else if decision == Decision::Allow {
            // What was not allowed did not happen, so it is no step that the next action follows.
            behavior.previous_action = SmolStr::new(attempt.action.uid.id());
        }
    }
}

impl SessionChange {
    pub(super) fn apply(&self, session: &mut Session, now: Now) {
        if let Some(expires_ms) = self.expires_ms {
            session.expires_ms = expires_ms;
        }
        // How somebody logged in belongs to when: an older login brings neither.
        if self.authenticated_ms.is_none_or(|at_ms| session.authenticate(at_ms)) {
            if let Some(acr) = &self.acr {
                session.acr = acr.clone();
            }
            if let Some(amr) = &self.amr {
                session.amr = amr.iter().cloned().collect();
            }
        }
        if let Some(aal) = self.aal {
            session.apply(&session::Change::AssuranceLevel(aal), now.wall_ms);
        }
        if let Some(compliant) = self.device_compliant {
            session.apply(&session::Change::DeviceCompliance(compliant), now.wall_ms);
        }
        session.networks.extend(self.add_networks.iter().cloned());
        session.labels.extend(self.add_labels.iter().cloned());
        for label in &self.remove_labels {
            session.labels.remove(label);
        }
        if let Some(task) = &self.task {
            session.task = Some(Arc::clone(task));
        }
        session.refreshed_ms = now.wall_ms;
    }
}

fn within_limits(session: &Session) -> Result<(), OpenFault> {
    let fits = session.labels.len() <= LABELS_MAX
        && session.networks.len() <= NETWORKS_MAX
        && session.amr.len() <= METHODS_MAX;
    let texts = session.labels.iter().chain(&session.networks).chain(&session.amr).chain([&session.acr]);
    let of_task = session.task.iter().flat_map(|task| task.actions.iter().chain([&task.id, &task.purpose]));
    let is_short = |text: &SmolStr| text.len() <= TEXT_BYTES_MAX;
    if fits && texts.chain(of_task).all(is_short) { Ok(()) } else { Err(OpenFault::TooMuch) }
}
