//! The pipeline as holds use it: an attempt that is not made again, only judged again.
//!
//! The same gathering and the same decision as for any attempt. It is not noted: a hold keeps no session awake and counts
//! against nobody. Only what is told gets a record, by door `hold`.

use std::sync::Arc;

use cardea_core::attempt::{Attempt, NotAnAttempt};
use cardea_core::boundary::{Boundary, next_change};
use cardea_core::decide::Question;
use cardea_core::facts::Facts;
use cardea_core::reason::ReasonCode;
use cardea_core::time::Now;
use cardea_core::verdict::{Decision, Verdict};
use cardea_policy_store::fragment::{Fact, Group, Needs};
use cardea_policy_store::snapshot::Snapshot;

use super::{Basis, Door, Given, Judged, Judgement, Pipeline, Seen, decision_id, weigh_unnoted};
use cardea_proto::v1;

/// What an attempt comes to at this instant.
#[derive(Debug)]
pub(crate) struct Reconsidered {
    /// The answer.
    pub(crate) verdict: Verdict,
    /// What it rests on.
    pub(crate) basis: Basis,
    /// What was known; nothing if policy could not be asked.
    pub(crate) facts: Facts,
    /// What the candidates read.
    pub(crate) needs: Needs,
    /// When it may come to something else by time alone.
    pub(crate) boundary: Boundary,
}

/// An answer for the enforcement point that holds the attempt.
#[derive(Debug)]
pub(crate) struct Telling {
    /// What was judged; `None` if it could not be read.
    pub(crate) attempt: Option<Attempt>,
    /// What was seen of an attempt that could not be read.
    pub(crate) seen: Seen,
    /// The snapshot that judged.
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    /// The answer.
    pub(crate) verdict: Verdict,
    /// What it rests on.
    pub(crate) basis: Basis,
    /// For the record.
    pub(crate) hold: v1::HoldRecord,
    /// When judging it began.
    pub(crate) began: Now,
}

/// What was told.
#[derive(Debug)]
pub(crate) struct Told<R> {
    /// In the door's words.
    pub(crate) said: R,
    /// The answer.
    pub(crate) decision: Decision,
    /// False: there was no place for its record, and it became a deny.
    pub(crate) is_recorded: bool,
}

impl Pipeline {
    /// Judges an attempt as it stands now. `attempt` is one for `snapshot`, or why there is none.
    pub(crate) fn reconsider(
        &self,
        snapshot: Option<&Snapshot>,
        attempt: Result<&Attempt, &NotAnAttempt>,
        now: Now,
    ) -> Reconsidered {
        let unasked = |verdict: Verdict| Reconsidered {
            verdict,
            basis: self.no_facts(),
            facts: Facts::default(),
            needs: Needs::default(),
            boundary: Boundary::default(),
        };
        let Some(snapshot) = snapshot else { return unasked(Verdict::deny(ReasonCode::NoPolicy)) };
        if self.is_too_stale(snapshot, now) {
            return unasked(Verdict::deny(ReasonCode::PolicyStale));
        }
        let attempt = match attempt {
            Ok(attempt) => attempt,
            Err(fault) => return unasked(Verdict::deny_because(fault.code, fault.message.clone())),
        };
        let question = Question::new(snapshot, attempt);
        let weighed = weigh_unnoted(&self.state, &question, Needs::default(), now);
        let (verdict, basis, facts) = self.based(&question, weighed, now);
        let Boundary { at_ms, polled } = next_change(&question, &facts, now);
        // What the session's attempts do to its behaviour is told to nobody: it is looked at again and again.
        let needs = question.needs();
        let moves = needs.reads_any(Group::Behavior) || needs.reads(Fact::SessionIdle);
        let boundary = Boundary { at_ms, polled: polled || moves };
        Reconsidered { verdict, basis, facts, needs, boundary }
    }

    /// Gives an answer out to whoever holds the attempt, with its record. Without a place for the record it follows
    /// `audit.when_full`, as any verdict does.
    pub(crate) fn tell<R>(&self, telling: Telling, answer: impl FnOnce(&Judgement<'_>) -> R) -> Told<R> {
        let Telling { attempt, seen, snapshot, verdict, basis, hold, began } = telling;
        let Ok(place) = self.audit.admit() else {
            self.metrics.audit_refusals.increment(1);
            let said = self.unrecorded(Door::Hold, began, answer);
            return Told { said, decision: Decision::Deny, is_recorded: false };
        };
        let decision = verdict.decision();
        let elapsed_ns = self.clock.mono_ns().saturating_sub(began.mono_ns);
        let given = Given {
            id: decision_id(began),
            door: Door::Hold,
            snapshot,
            attempt,
            seen,
            verdict,
            basis,
            elapsed_ns,
            hold: Some(Box::new(hold)),
        };
        // What is pushed does not wait: most of it takes an allow back, and the sooner the better.
        let Judged { said, .. } = self.give_out(place, given, began, answer);
        Told { said, decision, is_recorded: true }
    }
}
