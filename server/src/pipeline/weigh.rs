//! What an attempt comes to: the one way from facts to a verdict and to what the state keeps of it, for callers and for scenarios.

use cardea_core::decide::{Question, decide};
use cardea_core::facts::Facts;
use cardea_core::reason::ReasonCode;
use cardea_core::time::Now;
use cardea_core::verdict::{Decision, Verdict};
use cardea_policy_store::fragment::{Fact, Needs};

use crate::state::{Counting, Known, Learned, Reservation, State};

/// An attempt's verdict and what led to it.
pub(crate) struct Weighed {
    pub(crate) verdict: Verdict,
    pub(crate) facts: Facts,
    /// What the state learned from the attempt's token.
    pub(crate) learned: Option<Learned>,
    /// Reviews whose grants the attempt used up.
    pub(crate) used: Vec<Known>,
    /// What an allow that counts unless it is given back can be settled with.
    pub(crate) reservation: Option<Reservation>,
}

/// Gathers, decides and notes one attempt in its session's behaviour.
#[inline]
pub(crate) fn weigh(state: &State, question: &Question<'_>, also: Needs, now: Now) -> Weighed {
    let weighed = consider(state, question, also, Counting::Made, now);
    // What was disqualified neither keeps a session awake nor counts against its owner.
    if weighed.verdict.policy_was_asked() {
        let deviation = weighed.verdict.deviated().map(|deviated| &deviated.deviation);
        state.note(question.attempt(), weighed.verdict.decision(), deviation, now);
    }
    weighed
}

/// As [`weigh`], for an attempt that is not made now: somebody only wants to know what it would come to. A grant that opens one
/// attempt only is for one that is made.
#[inline]
pub(crate) fn weigh_unnoted(state: &State, question: &Question<'_>, also: Needs, now: Now) -> Weighed {
    consider(state, question, also, Counting::Again, now)
}

#[inline]
fn consider(state: &State, question: &Question<'_>, also: Needs, counting: Counting, now: Now) -> Weighed {
    let (mut facts, learned) = state.gather(question, also, now);
    let taken = state.counters().count(question, also, &mut facts, counting, now);
    match counting {
        Counting::Made => facts.burst_score = state.burst_score(question, &facts, now),
        Counting::Again => facts.grants.retain(|grant| !grant.once),
    }
    let verdict = decide(question, &facts, now);
    let mut weighed = Weighed { verdict, facts, learned, used: Vec::new(), reservation: None };
    if weighed.facts.grants.iter().any(|grant| grant.once) {
        use_up(state, question, &mut weighed, now);
    }
    let has_labels = |verdict: &Verdict| verdict.consequences().is_some_and(|found| !found.labels.is_empty());
    if counting == Counting::Made && has_labels(&weighed.verdict) {
        put_labels(state, question, &mut weighed, now);
    }
    weighed.reservation = state.counters().conclude(taken, weighed.verdict.decision(), now);
    weighed
}

/// An allow uses up the grants that open one attempt only; where another attempt did so first, they open nothing.
#[cold]
fn use_up(state: &State, question: &Question<'_>, weighed: &mut Weighed, now: Now) {
    let reads = question.needs().reads(Fact::SessionGrants);
    if weighed.verdict.decision() != Decision::Allow || !reads {
        return;
    }
    match state.use_once(question.attempt(), &weighed.facts.grants, now) {
        Some(used) => weighed.used = used,
        None => {
            weighed.facts.grants.retain(|grant| !grant.once);
            weighed.verdict = decide(question, &weighed.facts, now);
        }
    }
}

/// An allow puts its labels on the session before anybody can act on it; where they cannot be put on, it is none.
#[cold]
fn put_labels(state: &State, question: &Question<'_>, weighed: &mut Weighed, now: Now) {
    let (Some(id), Some(consequences)) = (&question.attempt().session_id, weighed.verdict.consequences())
    else {
        return;
    };
    let declared = question.snapshot().declared();
    let labels: Vec<_> = consequences.labels.iter().filter_map(|at| declared.label(*at)).collect();
    if let Err(fault) = state.label(id, &labels, now) {
        weighed.verdict =
            Verdict::deny_because(ReasonCode::StateFull, format!("no label can be put on it: {fault}"));
    }
}

#[cfg(test)]
mod tests;
