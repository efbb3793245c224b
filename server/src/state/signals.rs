//! Signals: changes of fact from outside.

use std::sync::Arc;

use cardea_core::risk::{Risk, RiskSignal};
use cardea_core::session::{self, Session};
use cardea_core::time::Now;
use cardea_policy_store::engine::Uid;
use smol_str::SmolStr;

use super::{State, Subject, TableFull, Target};

/// One change of fact.
#[derive(Clone, Debug)]
pub struct Signal {
    /// When it happened, Unix milliseconds.
    pub event_ms: i64,
    /// What changed.
    pub change: Change,
}

/// What a signal changes.
#[derive(Clone, Debug)]
pub enum Change {
    /// Risk of a subject.
    Risk(Uid, RiskSignal),
    /// Sessions are over.
    Revoked(Target, SmolStr),
    /// A principal is disabled (`true`) or enabled again.
    Standing(Uid, bool),
    /// Something about one session.
    Session(SmolStr, session::Change),
    /// A credential of a principal: every session whose login is older counts as changed.
    Credential(Uid),
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The state changed.
    Applied,
    /// Newer state stays.
    Superseded,
    /// The session that it speaks of is not known here.
    UnknownSubject,
}

impl Outcome {
    fn of(changed: bool) -> Self {
        if changed { Self::Applied } else { Self::Superseded }
    }
}

impl State {
    /// Takes in a signal; `life_ms` is the longest life of a session, after which its end may be forgotten.
    ///
    /// # Errors
    /// When there is no place for a subject that was not known.
    pub fn apply(&self, signal: &Signal, life_ms: i64, now: Now) -> Result<(Outcome, u64), TableFull> {
        let outcome = match &signal.change {
            Change::Risk(subject, risk) => Outcome::of(self.subject(subject, life_ms, now, |known| {
                let mut next = known.risk.as_deref().cloned().unwrap_or_else(Risk::default);
                let changed = next.apply(risk);
                if changed {
                    known.risk = Some(Arc::new(next));
                }
                changed
            })?),
            Change::Standing(subject, disabled) => {
                Outcome::of(self.subject(subject, life_ms, now, |known| {
                    // Of two events of the same time the strict one holds.
                    let newer = known.standing.is_none_or(|standing| standing < (signal.event_ms, *disabled));
                    if newer {
                        known.standing = Some((signal.event_ms, *disabled));
                    }
                    newer
                })?)
            }
            Change::Revoked(target, reason) => {
                let closed = self.end(target, reason, life_ms, now)?;
                return Ok((Outcome::of(closed.changed), closed.version));
            }
            Change::Session(id, session::Change::CredentialChanged) => match self.session(id) {
                Some((session, _)) => self.credential(&session.principal, signal.event_ms, life_ms, now)?,
                None => Outcome::UnknownSubject,
            },
            Change::Session(id, change) => match self.change_session(id, change, signal.event_ms, now) {
                Some(changed) => Outcome::of(changed),
                None => Outcome::UnknownSubject,
            },
            Change::Credential(principal) => self.credential(principal, signal.event_ms, life_ms, now)?,
        };
        use super::Key;
        let (key, what) = match &signal.change {
            Change::Risk(uid, _) => (Key::Principal(uid.clone()), "risk"),
            Change::Standing(uid, _) => (Key::Principal(uid.clone()), "standing"),
            Change::Session(id, session::Change::CredentialChanged) => match self.session(id) {
                Some((session, _)) => (Key::Principal(session.principal.clone()), "credential"),
                None => (Key::Session(id.clone()), "credential"),
            },
            Change::Session(id, _) => (Key::Session(id.clone()), "changed"),
            Change::Credential(uid) => (Key::Principal(uid.clone()), "credential"),
            Change::Revoked(..) => return Ok((outcome, self.version())),
        };
        let version = if outcome == Outcome::Applied { self.advance(key, what) } else { self.version() };
        Ok((outcome, version))
    }

    fn subject(
        &self,
        uid: &Uid,
        life_ms: i64,
        now: Now,
        change: impl FnOnce(&mut Subject) -> bool,
    ) -> Result<bool, TableFull> {
        let spent = |subject: &Subject| subject.is_spent(now, life_ms);
        self.subjects.update(uid.clone(), now.wall_ms, Subject::default, spent, change)
    }

    fn credential(&self, of: &Uid, event_ms: i64, life_ms: i64, now: Now) -> Result<Outcome, TableFull> {
        let changed = self.subject(of, life_ms, now, |known| {
            let newer = known.credential_ms.is_none_or(|at| at < event_ms);
            if newer {
                known.credential_ms = Some(event_ms);
            }
            newer
        });
        changed.map(Outcome::of)
    }

    /// `None` if the session is not known.
    fn change_session(&self, id: &str, change: &session::Change, event_ms: i64, now: Now) -> Option<bool> {
        let held = self.sessions.get(id)?;
        let mut current = held.session.lock();
        let mut next = Session::clone(&current);
        let changed = next.apply(change, event_ms);
        if changed {
            next.refreshed_ms = now.wall_ms;
            *current = Arc::new(next);
        }
        Some(changed)
    }
}
