//! Carries out what policies ask for beside their answer: sessions that are ended, risk that is raised, holds that are judged again.
//!
//! Done once the decision is recorded and before its answer leaves, so that whoever hears the answer finds it done. Nothing waits for the
//! disk. Only for attempts that are made: a hold that is judged again, a shadow or a replay has nothing carried out. An attempt reaches
//! its own session and its own principal, and no other: an attempt in somebody else's session is disqualified before policy is asked. One
//! that is not known is ended by nobody: it may be somebody else's tomorrow, and ends of invented names would fill the table of ends.
//!
//! Bounded: a session is ended once, risk that stands as high and as new is not raised again, and holds are sent for at most every
//! [`limits::NOTICES_INTERVAL`]: whoever repeats an attempt must not keep the thread of the holds busy.

use std::sync::atomic::{AtomicU64, Ordering};

use cardea_core::attempt::Attempt;
use cardea_core::risk::{RiskKind, RiskSignal};
use cardea_core::time::Now;
use cardea_core::verdict::Verdict;
use cardea_policy_store::engine::Uid;
use cardea_policy_store::responses::{Emit, RaiseRisk, Response};
use cardea_policy_store::snapshot::Snapshot;
use cardea_proto::v1::{self, record::Entry};
use smol_str::{SmolStr, format_smolstr};

use super::{Pipeline, entity};
use crate::concluding::Why;
use crate::limits;
use crate::ssf::transmit::conclusion::Initiator;
use crate::state::{Change, Key, Outcome, Signal, Target, life_ms};

/// Who is named as the source of what policies saw.
const SOURCE: &str = "policy";
/// How old risk may be that is not raised again, as a part of its half-life: by then it has lost four of a hundred.
const SIXTEENTH: i64 = 16;

/// What is to be done for one attempt.
pub(super) struct Orders {
    principal: Uid,
    session_id: Option<SmolStr>,
    life_ms: i64,
    half_life_s: u64,
    /// Each with the policy that asks for it.
    responses: Vec<(Response, SmolStr)>,
}

impl Orders {
    /// What a verdict asks for; `None`: nothing.
    pub(super) fn of(snapshot: &Snapshot, attempt: &Attempt, verdict: &Verdict) -> Option<Self> {
        let consequences = verdict.consequences().filter(|found| !found.responses.is_empty())?;
        let order = |(at, policy): &(u16, u32)| {
            let (_, response) = snapshot.declared().response(*at)?;
            Some((response.clone(), snapshot.policy(*policy)?.id.clone()))
        };
        Some(Self {
            principal: attempt.principal.clone(),
            session_id: attempt.session_id.clone(),
            life_ms: life_ms(snapshot.settings()),
            half_life_s: snapshot.settings().risk.half_life_s,
            responses: consequences.responses.iter().filter_map(order).collect(),
        })
    }
}

/// Lets through one in [`limits::NOTICES_INTERVAL`].
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Monotonic, in nanoseconds.
    next_ns: AtomicU64,
}

impl Pace {
    /// Whether this one may pass.
    fn lets_through(&self, now: Now) -> bool {
        let next_ns = self.next_ns.load(Ordering::Relaxed);
        let interval_ns = u64::try_from(limits::NOTICES_INTERVAL.as_nanos()).unwrap_or(u64::MAX);
        let after_ns = now.mono_ns.saturating_add(interval_ns);
        now.mono_ns >= next_ns
            && self.next_ns.compare_exchange(next_ns, after_ns, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Pipeline {
    /// Does what was ordered. What the state does not take is logged and counted: it is full, and says so to attempts as well.
    #[cold]
    pub(super) fn carry_out(&self, orders: &Orders, now: Now) {
        for (response, policy) in &orders.responses {
            let why =
                Why { reason: format_smolstr!("policy {policy}"), initiator: Initiator::Policy, cause: None };
            if response.revoke_session
                && let Some(id) = &orders.session_id
            {
                self.revoke(id, orders, &why, now);
            }
            if let Some(risk) = &response.raise_risk {
                self.raise(risk, response.emit, orders, &why, now);
            }
            if response.notify_holds && self.notices.lets_through(now) {
                let key = match &orders.session_id {
                    Some(id) => Key::Session(id.clone()),
                    None => Key::Principal(orders.principal.clone()),
                };
                self.state.touch(key);
            }
        }
    }

    fn revoke(&self, id: &SmolStr, orders: &Orders, why: &Why, now: Now) {
        if !matches!(self.state.session(id), Ok(Some(_))) {
            return;
        }
        let _recorded_first = self.state.feed().keep_back();
        match self.end(&Target::Session(id.clone()), why, orders.life_ms, now) {
            Ok(closed) if closed.changed => {
                let record = v1::SessionRecord {
                    session_id: id.to_string(),
                    principal: Some(entity(&orders.principal)),
                    change: "ended".to_owned(),
                    state_version: closed.version,
                    reason: why.reason.to_string(),
                };
                self.record(Entry::Session(record), now);
            }
            Ok(_) => {}
            Err(full) => self.not_carried_out(&full.to_string(), why),
        }
    }

    fn raise(&self, risk: &RaiseRisk, emit: Option<Emit>, orders: &Orders, why: &Why, now: Now) {
        let kind = RiskKind::ALL.into_iter().find(|kind| kind.name() == risk.kind);
        let Some(kind) = kind else { return };
        let signal = RiskSignal {
            kind,
            severity: risk.score,
            confidence: 100,
            event_ms: now.wall_ms,
            half_life_s: risk.half_life_s(orders.half_life_s),
        };
        if self.stands(&signal, &orders.principal, now) {
            return;
        }
        let before = self.level_of(&orders.principal, now);
        let change = Change::Risk(orders.principal.clone(), signal);
        let _recorded_first = self.state.feed().keep_back();
        match self.apply(&Signal { event_ms: now.wall_ms, change }, why, orders.life_ms, now) {
            Ok((outcome, version)) => {
                let record = v1::SignalRecord {
                    subject: Some(entity(&orders.principal)),
                    kind: format!("risk/{}", risk.kind),
                    source: SOURCE.to_owned(),
                    outcome: match outcome {
                        Outcome::Applied => "applied",
                        Outcome::Superseded => "superseded",
                        Outcome::UnknownSubject => "unknown_subject",
                    }
                    .to_owned(),
                    state_version: version,
                    reason: why.reason.to_string(),
                    session_id: orders.session_id.as_ref().map(SmolStr::to_string).unwrap_or_default(),
                    txn: String::new(),
                    token_id: String::new(),
                };
                self.record(Entry::Signal(record), now);
                if emit == Some(Emit::RiskLevelChange) && outcome == Outcome::Applied {
                    self.repeat_risk(&orders.principal, before, why, now);
                }
            }
            Err(fault) => self.not_carried_out(&fault.to_string(), why),
        }
    }

    /// Whether the principal's risk of this kind is as high and hardly older.
    fn stands(&self, signal: &RiskSignal, principal: &Uid, now: Now) -> bool {
        let Some(known) = self.state.risk(principal) else { return false };
        let weight = u16::from(signal.severity) * u16::from(signal.confidence);
        let recent_ms = now.wall_ms.saturating_sub(i64::from(signal.half_life_s) * 1000 / SIXTEENTH);
        known
            .slots()
            .any(|(kind, slot)| kind == signal.kind && slot.weight >= weight && slot.event_ms >= recent_ms)
    }

    fn not_carried_out(&self, fault: &str, why: &Why) {
        self.metrics.responses_failed.increment(1);
        tracing::error!(reason = %why.reason, %fault, "a response was not carried out: make room in the state");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_attempts_sends_for_the_holds_at_a_pace() {
        let pace = Pace::default();
        let second = (0..1_000_000).step_by(10).map(|us| Now { mono_ns: us * 1_000, wall_ms: 0 });
        assert_eq!(second.filter(|now| pace.lets_through(*now)).count(), 100);
    }
}
