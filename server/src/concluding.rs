//! What a change of state means to those who listen to this node's signals: sessions that were ended here, and levels of risk
//! and assurance that changed.
//!
//! Whoever changes the state does it through the pipeline ([`Pipeline::apply`], [`Pipeline::end`], [`Pipeline::change`]),
//! which tells the transmitter what came of it. A level of risk that was told and falls as its signals fade is told again.
//! Limits: [`limits::CONCLUDED_RISKS_MAX`] principals whose risk is watched as it fades.
//! Never does: waiting, deciding, telling what changed nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use cardea_core::facts;
use cardea_core::session::{self, Session};
use cardea_core::time::Now;
use cardea_policy_store::engine::Uid;
use parking_lot::Mutex;
use smol_str::SmolStr;

use crate::limits;
use crate::pipeline::Pipeline;
use crate::shutdown::{Phase, Shutdown};
use crate::ssf::transmit::Transmitter;
use crate::ssf::transmit::conclusion::{About, Cause, Conclusion, Initiator, RiskLevel, What};
use crate::state::{Change, Closed, OpenFault, Outcome, SessionChange, Signal, TableFull, Target};

/// Why something changes, for those who are told.
#[derive(Clone, Debug)]
pub struct Why {
    /// In words.
    pub reason: SmolStr,
    /// Who started it.
    pub initiator: Initiator,
    /// The signal that led to it.
    pub cause: Option<Cause>,
}

impl Why {
    /// Somebody who operates a service said so.
    #[must_use]
    pub fn operator(reason: SmolStr) -> Self {
        Self { reason, initiator: Initiator::Admin, cause: None }
    }

    /// A signal from `source` said so.
    #[must_use]
    pub fn signal(source: SmolStr, txn: Option<SmolStr>, reason: SmolStr) -> Self {
        let cause = Some(Cause { from: source, txn });
        Self { reason, initiator: Initiator::System, cause }
    }
}

/// The transmitter, and the levels of risk that it was told.
#[derive(Debug)]
pub struct Concluding {
    transmitter: Arc<Transmitter>,
    /// Principals whose last told level is above low.
    levels: Mutex<BTreeMap<Uid, RiskLevel>>,
}

impl Concluding {
    /// Tells this transmitter. The levels at which risk stands now were told before: by the process that this one follows.
    #[must_use]
    pub fn new(transmitter: Arc<Transmitter>, pipeline: &Pipeline) -> Self {
        let now = pipeline.now();
        let standing = pipeline.state().at_risk().into_iter().map(|uid| (pipeline.level_of(&uid, now), uid));
        let above_low = standing.filter(|(level, _)| *level != RiskLevel::Low);
        let levels = above_low.map(|(level, uid)| (uid, level)).take(limits::CONCLUDED_RISKS_MAX).collect();
        Self { transmitter, levels: Mutex::new(levels) }
    }

    fn tell(&self, about: About, what: What, why: &Why, now: Now) {
        let (initiator, cause) = (why.initiator, why.cause.clone());
        self.transmitter.conclude(Conclusion { about, what, initiator, at_ms: now.wall_ms, cause }, now);
    }

    fn ended(&self, target: &Target, owner: Option<Uid>, why: &Why, now: Now) {
        let about = match target {
            Target::Session(id) => About { principal: owner, session: Some(id.clone()) },
            Target::Principal(uid, _) => About { principal: Some(uid.clone()), session: None },
            // There is no subject for all of a tenant that every receiver would understand.
            Target::Tenant(..) => return,
        };
        self.tell(about, What::SessionRevoked { reason: why.reason.clone() }, why, now);
    }

    /// Tells the level of a principal's risk, if it is another than was told last.
    fn risk(&self, of: &Uid, current: RiskLevel, why: &Why, now: Now) {
        let previous = {
            let mut levels = self.levels.lock();
            let previous = levels.get(of).copied().unwrap_or(RiskLevel::Low);
            if current == RiskLevel::Low {
                levels.remove(of);
            } else if levels.len() < limits::CONCLUDED_RISKS_MAX || levels.contains_key(of) {
                levels.insert(of.clone(), current);
            }
            previous
        };
        if previous == current {
            return;
        }
        let what = What::RiskLevel { previous: Some(previous), current, reason: why.reason.clone() };
        self.tell(About { principal: Some(of.clone()), session: None }, what, why, now);
    }

    /// Tells the level of a principal's risk once more.
    fn risk_again(&self, of: &Uid, current: RiskLevel, why: &Why, now: Now) {
        let what = What::RiskLevel { previous: Some(current), current, reason: why.reason.clone() };
        self.tell(About { principal: Some(of.clone()), session: None }, what, why, now);
    }

    fn assurance(&self, before: &Session, current: u8, why: &Why, now: Now) {
        if before.aal == current {
            return;
        }
        let about = About { principal: Some(before.principal.clone()), session: Some(before.id.clone()) };
        let what = What::AssuranceLevel { previous: Some(before.aal), current };
        self.tell(about, what, why, now);
    }
}

impl Pipeline {
    /// Takes in a signal, and tells those who listen what came of it.
    ///
    /// # Errors
    /// When the state does not take it.
    pub fn apply(
        &self,
        signal: &Signal,
        why: &Why,
        life_ms: i64,
        now: Now,
    ) -> Result<(Outcome, u64), OpenFault> {
        let before = match &signal.change {
            Change::Revoked(Target::Session(id), _)
            | Change::Session(id, session::Change::AssuranceLevel(_)) => self.known(id),
            Change::Revoked(..)
            | Change::Session(..)
            | Change::Risk(..)
            | Change::Standing(..)
            | Change::Credential(_)
            | Change::Device(..) => None,
        };
        let (outcome, version) = self.state().apply(signal, life_ms, now)?;
        if let Some(concluding) = self.concluding().filter(|_| outcome == Outcome::Applied) {
            match (&signal.change, before) {
                (Change::Revoked(target, _), before) => {
                    let owner = before.map(|session| session.principal.clone());
                    concluding.ended(target, owner, why, now);
                }
                (Change::Session(_, session::Change::AssuranceLevel(level)), Some(before)) => {
                    concluding.assurance(&before, *level, why, now);
                }
                (Change::Risk(uid, _), _) => {
                    concluding.risk(uid, self.level_of(uid, now), why, now);
                }
                _ => {}
            }
        }
        Ok((outcome, version))
    }

    /// Ends sessions for good, and tells those who listen.
    ///
    /// # Errors
    /// When there is no place to remember it.
    pub fn end(&self, target: &Target, why: &Why, life_ms: i64, now: Now) -> Result<Closed, TableFull> {
        let owner = match target {
            Target::Session(id) => self.known(id).map(|session| session.principal.clone()),
            Target::Principal(..) | Target::Tenant(..) => None,
        };
        let closed = self.state().end(target, &why.reason, life_ms, now)?;
        if let Some(concluding) = self.concluding().filter(|_| closed.changed) {
            concluding.ended(target, owner, why, now);
        }
        Ok(closed)
    }

    /// Changes a session, and tells those who listen.
    ///
    /// # Errors
    /// When it is not known or was ended, a list is too long, or the disk refuses.
    pub fn change(
        &self,
        id: &str,
        change: &SessionChange,
        now: Now,
    ) -> Result<(Arc<Session>, u64), OpenFault> {
        let before = change.aal.and_then(|_| self.known(id));
        let (session, version) = self.state().change(id, change, now)?;
        if let Some((concluding, before)) = self.concluding().zip(before) {
            concluding.assurance(&before, session.aal, &Why::operator(SmolStr::default()), now);
        }
        Ok((session, version))
    }

    /// Tells levels of risk that fell as their signals faded, until the process drains.
    ///
    /// # Errors
    /// None.
    pub async fn watch_fading(self: Arc<Self>, shutdown: Shutdown) -> Result<(), Infallible> {
        while shutdown.phase() == Phase::Running {
            tokio::select! {
                () = tokio::time::sleep(limits::CONCLUDED_RISKS_INTERVAL) => self.tell_faded(),
                () = shutdown.draining() => {}
            }
        }
        Ok(())
    }

    fn tell_faded(&self) {
        let Some(concluding) = self.concluding() else { return };
        let watched: Vec<(Uid, RiskLevel)> =
            concluding.levels.lock().iter().map(|(uid, level)| (uid.clone(), *level)).collect();
        let why = Why {
            reason: SmolStr::new_static("what was seen has faded"),
            initiator: Initiator::Policy,
            cause: None,
        };
        let now = self.now();
        for (uid, told) in watched {
            let current = self.level_of(&uid, now);
            if current != told {
                concluding.risk(&uid, current, &why, now);
            }
        }
    }

    /// Tells those who listen the level of a principal's risk, also where they were told the same before.
    pub(crate) fn repeat_risk(&self, of: &Uid, before: RiskLevel, why: &Why, now: Now) {
        let current = self.level_of(of, now);
        // A change was told by itself.
        if let Some(concluding) = self.concluding().filter(|_| before == current) {
            concluding.risk_again(of, current, why, now);
        }
    }

    fn known(&self, id: &str) -> Option<Arc<Session>> {
        // Read only for those who listen.
        self.concluding()?;
        self.state().session(id).ok().flatten().map(|(session, _)| session)
    }

    pub(crate) fn level_of(&self, of: &Uid, now: Now) -> RiskLevel {
        let Some(snapshot) = self.policy().snapshot() else { return RiskLevel::Low };
        let risk = self.state().risk(of);
        match facts::level(risk.as_deref(), &snapshot.settings().risk, now) {
            "high" => RiskLevel::High,
            "medium" => RiskLevel::Medium,
            _ => RiskLevel::Low,
        }
    }
}
