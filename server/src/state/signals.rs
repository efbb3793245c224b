//! Signals: changes of fact from outside.

use std::sync::Arc;

use cardea_core::posture::Posture;
use cardea_core::risk::{Risk, RiskSignal};
use cardea_core::session::{self, Session};
use cardea_core::subject::{Standing, Subject};
use cardea_core::time::Now;
use cardea_policy_store::engine::Uid;
use smol_str::SmolStr;

use super::{Key, OpenFault, State, TableFull, Target, rows};
use crate::ledger::Table;

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
    /// A principal may act, may not, or is gone for good.
    Standing(Uid, Standing),
    /// Something about one session.
    Session(SmolStr, session::Change),
    /// A credential of a principal: every session whose login is older counts as changed.
    Credential(Uid),
    /// Whether a device meets its owner's rules.
    Device(SmolStr, bool),
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
    /// Whether a signal would let somebody do what it could not do before. What closes is taken in whatever happens to the
    /// disk; this is not.
    #[must_use]
    pub fn is_opening(&self, signal: &Signal, now: Now) -> bool {
        match &signal.change {
            Change::Risk(uid, risk) => self.risk(uid).is_some_and(|known| {
                let mut next = Risk::clone(&known);
                next.apply(risk) && next.score(now) < known.score(now)
            }),
            Change::Standing(_, standing) => *standing == Standing::Enabled,
            Change::Session(id, change) => match change {
                session::Change::CredentialChanged => false,
                session::Change::DeviceCompliance(compliant) => *compliant,
                session::Change::AssuranceLevel(aal) => {
                    self.session(id).ok().flatten().is_some_and(|(session, _)| session.aal < *aal)
                }
            },
            Change::Device(_, compliant) => *compliant,
            Change::Revoked(..) | Change::Credential(_) => false,
        }
    }

    /// Takes in a signal; `life_ms` is the longest life of a session, after which its end may be forgotten.
    ///
    /// # Errors
    /// When there is no place for a subject that was not known, or the disk refuses the change of a session.
    pub fn apply(&self, signal: &Signal, life_ms: i64, now: Now) -> Result<(Outcome, u64), OpenFault> {
        let event_ms = signal.event_ms;
        let (changed, key, what) = match &signal.change {
            Change::Risk(uid, risk) => {
                let changed = self.subject(uid, life_ms, now, |known| known.risk(risk))?;
                (changed, Key::Principal(uid.clone()), "risk")
            }
            Change::Standing(uid, standing) => {
                let changed = self.subject(uid, life_ms, now, |known| known.stand(*standing, event_ms))?;
                let what = match standing {
                    Standing::Enabled => "enabled",
                    Standing::Disabled => "disabled",
                    Standing::Purged => "purged",
                };
                (changed, Key::Principal(uid.clone()), what)
            }
            Change::Revoked(target, reason) => {
                let closed = self.end(target, reason, life_ms, now)?;
                return Ok((Outcome::of(closed.changed), closed.version));
            }
            Change::Session(id, session::Change::CredentialChanged) => {
                let Some((session, _)) = self.session(id)? else {
                    return Ok((Outcome::UnknownSubject, self.version()));
                };
                let changed = self.credential(&session.principal, event_ms, life_ms, now)?;
                (changed, Key::Principal(session.principal.clone()), "credential")
            }
            Change::Session(id, change) => {
                let Some(changed) = self.change_session(id, change, event_ms, now)? else {
                    return Ok((Outcome::UnknownSubject, self.version()));
                };
                (changed, Key::Session(id.clone()), "updated")
            }
            Change::Credential(uid) => {
                (self.credential(uid, event_ms, life_ms, now)?, Key::Principal(uid.clone()), "credential")
            }
            Change::Device(id, compliant) => {
                let posture = Posture { compliant: *compliant, event_ms };
                (self.device(id, posture, life_ms, now)?, Key::Device(id.clone()), "posture")
            }
        };
        let version = if changed { self.advance(key, what) } else { self.version() };
        Ok((Outcome::of(changed), version))
    }

    /// Whether a principal must not act.
    #[must_use]
    pub fn is_disabled(&self, uid: &Uid) -> bool {
        self.subjects.get(uid).is_some_and(|subject| subject.is_disabled())
    }

    /// The risk of a principal, if a signal was ever seen.
    #[must_use]
    pub fn risk(&self, of: &Uid) -> Option<Arc<Risk>> {
        self.subjects.get(of)?.risk
    }

    /// Every principal that a signal of risk was ever seen of. Walks the whole table.
    #[must_use]
    pub fn at_risk(&self) -> Vec<Uid> {
        let mut all = Vec::new();
        self.subjects.each(|uid, subject| {
            if subject.risk.is_some() {
                all.push(uid.clone());
            }
        });
        all
    }

    /// Changes what is known of a subject, in memory and on disk.
    pub(super) fn subject(
        &self,
        uid: &Uid,
        life_ms: i64,
        now: Now,
        change: impl FnOnce(&mut Subject) -> bool,
    ) -> Result<bool, TableFull> {
        let kept_ms = self.remembers_ms(life_ms, now);
        let spent = |subject: &Subject| subject.is_spent(now, kept_ms);
        self.subjects.update(uid.clone(), now.wall_ms, Subject::default, spent, |subject| {
            let changed = change(subject);
            if changed {
                self.keep(Table::Subjects, rows::uid_key(uid), rows::subject(subject));
            }
            changed
        })
    }

    fn credential(&self, of: &Uid, event_ms: i64, life_ms: i64, now: Now) -> Result<bool, TableFull> {
        self.subject(of, life_ms, now, |known| known.change_credential(event_ms))
    }

    fn device(&self, id: &SmolStr, posture: Posture, life_ms: i64, now: Now) -> Result<bool, TableFull> {
        let kept_ms = self.remembers_ms(life_ms, now);
        let spent = |known: &Posture| known.compliant && known.event_ms.saturating_add(kept_ms) < now.wall_ms;
        let unheard = || Posture { compliant: true, event_ms: i64::MIN };
        self.devices.update(id.clone(), now.wall_ms, unheard, spent, |known| {
            let changed = known.hear(posture);
            if changed {
                self.keep(Table::Devices, id.as_bytes().to_vec(), rows::posture(*known));
            }
            changed
        })
    }

    /// `None` if the session is not known.
    fn change_session(
        &self,
        id: &str,
        change: &session::Change,
        event_ms: i64,
        now: Now,
    ) -> Result<Option<bool>, OpenFault> {
        let mut changed = false;
        let known = self.revise(id, |current| {
            let mut next = Session::clone(current);
            changed = next.apply(change, event_ms);
            next.refreshed_ms = now.wall_ms;
            Ok(changed.then_some(next))
        })?;
        Ok(known.map(|_| changed))
    }
}
