//! Learns from the audit of nodes: what allowed attempts of chosen identities did, in sessions in which nothing was wrong.
//!
//! A session is learned as a whole or not at all, and only once everything is read: one attempt in it that was denied, that deviated, or
//! that nobody can say it of (a gap, a signal about it) takes all of it out. What a reviewer approved into the next baseline is taken up
//! by itself. INVARIANT (never from a flagged session): what is not sure to be clean is left out; for want of room too, so that nobody
//! hides a flag behind many sessions. The result is a candidate, which counts for nobody until it is promoted.
//! Limits: [`SESSIONS_MAX`] sessions and [`NAMES_MAX`] names at the same time; [`SPOILT_MAX`] sessions that are left out.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

use cardea_core::behavior::approved::Merge;
use cardea_core::behavior::observe::is_flagged;
use cardea_core::behavior::promoted::{Learned, REVIEWED_MAX, Reviewed};
use cardea_core::behavior::{Approved, Assessment, Flag, Flags, Kept, Observed, Step};
use cardea_proto::v1::{self, record::Entry};

use super::config::Run;
use super::learn::close;
use crate::proving::words::Named;

/// Most sessions that are learned from at the same time.
pub const SESSIONS_MAX: usize = 50_000;
/// Most names of them together.
pub const NAMES_MAX: usize = 4_000_000;
/// Most sessions that are remembered as left out.
pub const SPOILT_MAX: usize = 4_000_000;
/// Sessions that are named among those left out.
const EXAMPLES_MAX: usize = 10;

/// What is learned, and of whom.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Identities, as `Type::"id"`; empty: all that were observed.
    pub identities: BTreeSet<String>,
    /// What one run is.
    pub run: Run,
    /// Only attempts from then on, Unix milliseconds. What was wrong before still takes its session out.
    pub since_ms: Option<i64>,
}

/// Why a session is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// One of its attempts was denied.
    Denied,
    /// One of its attempts deviated.
    Deviated,
    /// One of its attempts names more than a record keeps, or a task that it may not use.
    Unusable,
    /// A signal came about it, or about whoever it is of.
    Signalled,
    /// Records are missing from while it ran.
    Gap,
    /// There was no room for it.
    NoRoom,
}

/// What was left out.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    /// Sessions, by why.
    pub sessions: BTreeMap<Why, u64>,
    /// Attempts of them that were allowed.
    pub attempts: u64,
    /// Some of them: whose, which, why.
    pub examples: Vec<(String, String, Why)>,
}

/// Too much is left out to remember it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// Sessions.
    #[error("more than {SPOILT_MAX} sessions are left out; read fewer records at once")]
    Sessions,
    /// Reviews.
    #[error("more than {REVIEWED_MAX} reviews were approved into a baseline; read fewer records at once")]
    Reviews,
}

/// See the module.
pub struct AuditLearner {
    choice: Choice,
    hasher: RandomState,
    open: BTreeMap<SessionKey, Session>,
    order: VecDeque<SessionKey>,
    names: usize,
    /// Sessions that were begun so far.
    begun: u64,
    spoilt: HashMap<u64, Why>,
    /// Sessions that were begun before this many ran while records are missing.
    gap: u64,
    /// By identity: up to when there were signals about it.
    signalled: BTreeMap<String, Signalled>,
    reviews: BTreeMap<(String, u32), (Reviewed, Approved)>,
    learned: Option<Learned>,
    counted: LeftOut,
}

/// Identity and session; without a session all attempts of an identity are one.
type SessionKey = (String, String);

/// The newest signal about an identity. Looked at when everything is read: one of another node may come before what it is about.
#[derive(Clone, Copy, Default)]
struct Signalled {
    /// Sessions that were begun before this many.
    begun: u64,
    /// Those that began before, Unix milliseconds.
    at_ms: i64,
}

#[derive(Default)]
struct Session {
    /// How many were begun before it.
    number: u64,
    /// Its first attempt, Unix milliseconds.
    first_ms: i64,
    previous: String,
    attempts: u64,
    tasks: BTreeMap<String, Approved>,
    /// Where every attempt is a run: those that ended.
    runs: Vec<(String, Approved)>,
}

impl AuditLearner {
    /// One that has heard nothing.
    #[must_use]
    pub fn new(choice: Choice) -> Self {
        Self {
            choice,
            hasher: RandomState::new(),
            open: BTreeMap::new(),
            order: VecDeque::new(),
            names: 0,
            begun: 0,
            spoilt: HashMap::new(),
            gap: 0,
            signalled: BTreeMap::new(),
            reviews: BTreeMap::new(),
            learned: None,
            counted: LeftOut::default(),
        }
    }

    /// Takes in one record, in the order of its node.
    ///
    /// # Errors
    ///
    /// Too much is left out to go on.
    pub fn note(&mut self, record: &v1::Record) -> Result<(), TooMuch> {
        let at_ms = record.time.as_ref().map_or(0, unix_ms);
        match &record.entry {
            Some(Entry::Decision(decision)) if decision.hold.is_none() => self.decision(decision, at_ms),
            Some(Entry::Signal(signal)) if signal.outcome == "applied" => self.signal(signal, at_ms),
            Some(Entry::Review(review)) => self.review(review, at_ms),
            Some(Entry::Gap(gap)) if gap.lost > 0 => {
                self.gap = self.begun;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The candidate, and what was left out.
    #[must_use]
    pub fn finish(mut self) -> (Kept, LeftOut) {
        let mut kept = Kept::candidate();
        self.spoil_what_ran();
        for key in std::mem::take(&mut self.order) {
            let Some(session) = self.open.remove(&key) else { continue };
            if let Some(why) = self.spoilt.get(&self.key(&key.0, &key.1)).copied() {
                self.leave_out(key, &session, why);
                continue;
            }
            kept.attempts = kept.attempts.saturating_add(session.attempts);
            for (task, done) in session.tasks.into_iter().chain(session.runs) {
                close(&mut kept, &key.0, &task, &done);
            }
        }
        for (_, (reviewed, done)) in std::mem::take(&mut self.reviews) {
            // It adds names, and no run: nothing matures by reviews.
            let tasks = kept.baselines.entry(reviewed.identity.clone()).or_default();
            tasks.entry(reviewed.task.clone()).or_default().merge(&done, Merge::SameTask);
            kept.reviewed.push(reviewed);
        }
        kept.learned = self.learned;
        (kept, self.counted)
    }

    fn decision(&mut self, decision: &v1::DecisionRecord, at_ms: i64) -> Result<(), TooMuch> {
        let identity = entity(decision.principal.as_ref());
        let observed = decision.observed.as_deref();
        let is_observed = observed.is_some_and(|observed| observed.observing);
        let wrong = match (decision.decision(), decision.deviation.as_deref(), observed) {
            (v1::Decision::Deny | v1::Decision::Unspecified, ..) => Some(Why::Denied),
            (_, Some(deviation), _) if deviates(deviation, is_observed) => Some(Why::Deviated),
            (_, _, Some(observed)) if observed.unusable => Some(Why::Unusable),
            _ => None,
        };
        if let Some(why) = wrong {
            self.spoil(&identity, &decision.session_id, why)?;
        }
        let is_chosen = match self.choice.identities.is_empty() {
            true => is_observed,
            false => self.choice.identities.contains(&identity),
        };
        // Only a denial takes a session out by itself: what was stepped up began it all the same.
        if !is_chosen || decision.decision() == v1::Decision::Deny {
            return Ok(());
        }
        let key = (identity, decision.session_id.clone());
        self.begin(&key, at_ms);
        if decision.decision() != v1::Decision::Allow {
            return self.make_room();
        }
        let action = decision.action.as_ref().map(|action| action.id.clone()).unwrap_or_default();
        let is_early = self.choice.since_ms.is_some_and(|since| at_ms < since);
        match observed.filter(|_| !is_early) {
            Some(observed) => self.learn(&key, &action, observed, at_ms),
            None => {
                // Before the first attempt that is learned of a session what comes before is any action that was allowed to it.
                if let Some(session) = self.open.get_mut(&key).filter(|session| session.attempts == 0) {
                    session.previous = action;
                }
                self.make_room()
            }
        }
    }

    /// A session is there from its first attempt on, learned or not: what goes wrong from then on takes it out.
    fn begin(&mut self, key: &SessionKey, at_ms: i64) {
        if let Some(session) = self.open.get_mut(key) {
            session.first_ms = session.first_ms.min(at_ms);
            return;
        }
        let session = Session { number: self.begun, first_ms: at_ms, ..Session::default() };
        self.begun += 1;
        self.open.insert(key.clone(), session);
        self.order.push_back(key.clone());
    }

    fn learn(
        &mut self,
        key: &SessionKey,
        action: &str,
        observed: &v1::ObservedRecord,
        at_ms: i64,
    ) -> Result<(), TooMuch> {
        let Some(session) = self.open.get_mut(key) else { return Ok(()) };
        session.attempts += 1;
        let mut one = Approved::default();
        let done = match self.choice.run {
            Run::Session => session.tasks.entry(observed.task.clone()).or_default(),
            Run::Attempt => &mut one,
        };
        let before = done.entries();
        note(done, action, &session.previous, observed, at_ms);
        self.names += done.entries().saturating_sub(before);
        if self.choice.run == Run::Attempt {
            session.runs.push((observed.task.clone(), one));
        }
        action.clone_into(&mut session.previous);
        let learned = self.learned.get_or_insert(Learned { from_ms: at_ms, until_ms: at_ms });
        learned.from_ms = learned.from_ms.min(at_ms);
        learned.until_ms = learned.until_ms.max(at_ms);
        self.make_room()
    }

    /// Somebody looked at the attempt by itself.
    fn review(&mut self, review: &v1::ReviewRecord, at_ms: i64) -> Result<(), TooMuch> {
        let key = (review.review_id.clone(), review.round);
        let Some(named) = review.into_baseline.as_ref().filter(|_| review.change == "approved") else {
            // An approval that was taken back takes up nothing.
            if matches!(review.change.as_str(), "revoked" | "rejected") {
                self.reviews.remove(&key);
            }
            return Ok(());
        };
        let identity = entity(review.principal.as_ref());
        let is_chosen = self.choice.identities.is_empty() || self.choice.identities.contains(&identity);
        if !is_chosen || self.choice.since_ms.is_some_and(|since| at_ms < since) {
            return Ok(());
        }
        if self.reviews.len() >= REVIEWED_MAX {
            return Err(TooMuch::Reviews);
        }
        let action = review.action.as_ref().map(|action| action.id.clone()).unwrap_or_default();
        let mut done = Approved::default();
        note(&mut done, &action, "", named, at_ms);
        // What came before it, and where it came from, was not asked.
        done.transitions.clear();
        done.networks.clear();
        done.forget_runs();
        let reviewed = Reviewed {
            review: key.0.clone(),
            round: key.1,
            by: entity(review.reviewer.as_ref()),
            identity,
            task: named.task.clone(),
            action,
            at_ms,
        };
        self.reviews.insert(key, (reviewed, done));
        Ok(())
    }

    fn signal(&mut self, signal: &v1::SignalRecord, at_ms: i64) -> Result<(), TooMuch> {
        let subject = entity(signal.subject.as_ref());
        if !signal.session_id.is_empty() {
            return self.spoil(&subject, &signal.session_id, Why::Signalled);
        }
        if self.signalled.len() >= SPOILT_MAX {
            return Err(TooMuch::Sessions);
        }
        if self.choice.identities.is_empty() || self.choice.identities.contains(&subject) {
            let newest = self.signalled.entry(subject).or_default();
            *newest = Signalled { begun: self.begun, at_ms: at_ms.max(newest.at_ms) };
        }
        Ok(())
    }

    /// Sessions in which records are missing, or of whose identity there was a signal after they began.
    fn spoil_what_ran(&mut self) {
        for (key, session) in &self.open {
            let of_identity = self.signalled.get(&key.0);
            let is_signalled = of_identity
                .is_some_and(|newest| session.number < newest.begun || session.first_ms < newest.at_ms);
            let why = match (session.number < self.gap, is_signalled) {
                (_, true) => Why::Signalled,
                (true, false) => Why::Gap,
                (false, false) => continue,
            };
            self.spoilt.entry(self.key(&key.0, &key.1)).or_insert(why);
        }
    }

    fn spoil(&mut self, identity: &str, session: &str, why: Why) -> Result<(), TooMuch> {
        if self.spoilt.len() >= SPOILT_MAX {
            return Err(TooMuch::Sessions);
        }
        let key = self.key(identity, session);
        self.spoilt.entry(key).or_insert(why);
        Ok(())
    }

    /// A session by its id, whoever acted in it: a flag of one is a flag of all. Of two that share a number both are left out.
    fn key(&self, identity: &str, session: &str) -> u64 {
        let of = if session.is_empty() { (identity, "") } else { ("", session) };
        self.hasher.hash_one(of)
    }

    fn make_room(&mut self) -> Result<(), TooMuch> {
        while self.open.len() > SESSIONS_MAX || self.names > NAMES_MAX {
            let Some(key) = self.order.pop_front() else { return Ok(()) };
            let Some(session) = self.open.remove(&key) else { continue };
            let held = session.tasks.values().chain(session.runs.iter().map(|(_, done)| done));
            self.names = self.names.saturating_sub(held.map(Approved::entries).sum());
            self.spoil(&key.0, &key.1, Why::NoRoom)?;
            let why = self.spoilt.get(&self.key(&key.0, &key.1)).copied().unwrap_or(Why::NoRoom);
            self.leave_out(key, &session, why);
        }
        Ok(())
    }

    fn leave_out(&mut self, key: SessionKey, session: &Session, why: Why) {
        if session.attempts == 0 {
            return;
        }
        *self.counted.sessions.entry(why).or_default() += 1;
        self.counted.attempts = self.counted.attempts.saturating_add(session.attempts);
        if self.counted.examples.len() < EXAMPLES_MAX {
            self.counted.examples.push((key.0, key.1, why));
        }
    }
}

impl Why {
    /// In words, after "sessions".
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Denied => "had an attempt that was denied",
            Self::Deviated => "had an attempt that deviates",
            Self::Unusable => "had an attempt that cannot be learned",
            Self::Signalled => "had a signal about them",
            Self::Gap => "ran while records are missing",
            Self::NoRoom => "found no room",
        }
    }
}

/// An entity as files of baselines name it.
pub(super) fn entity(reference: Option<&v1::EntityRef>) -> String {
    let named = |one: &v1::EntityRef| Named { type_name: one.r#type.clone(), id: one.id.clone() }.to_string();
    reference.map(named).unwrap_or_default()
}

/// Unix milliseconds.
pub(super) fn unix_ms(at: &prost_types::Timestamp) -> i64 {
    at.seconds.saturating_mul(1000).saturating_add(i64::from(at.nanos) / 1_000_000)
}

fn note(done: &mut Approved, action: &str, previous: &str, observed: &v1::ObservedRecord, at_ms: i64) {
    let targets: Vec<&str> = observed.targets.iter().map(String::as_str).collect();
    let references: Vec<&str> = observed.references.iter().map(String::as_str).collect();
    let (targets, references) = (targets.as_slice(), references.as_slice());
    let observed =
        Observed { action, targets, references, network: &observed.network, ..Observed::default() };
    done.note(&Step { observed, previous, at_ms });
}

/// What is not known is not `none`.
fn deviates(deviation: &v1::DeviationRecord, is_observed: bool) -> bool {
    use Assessment::{Abuse, Misconfiguration, None, WorkflowChange};
    let known = [None, Misconfiguration, WorkflowChange];
    let assessment = known.into_iter().find(|one| one.name() == deviation.assessment).unwrap_or(Abuse);
    let named =
        deviation.flags.iter().filter_map(|name| Flag::ALL.into_iter().find(|flag| flag.name() == name));
    is_flagged(named.collect::<Flags>(), assessment, is_observed)
}

#[cfg(test)]
mod tests;
