//! Judging one hold: as it is registered, and again.

use std::sync::Arc;

use cardea_core::attempt::{Attempt, NotAnAttempt};
use cardea_core::facts::SessionFacts;
use cardea_core::reason::ReasonCode;
use cardea_core::time::Now;
use cardea_core::verdict::Decision;
use cardea_policy_store::fragment::{Fact, Group, Needs};
use cardea_policy_store::snapshot::Snapshot;

use super::book::{Hold, Told};
use super::engine::Engine;
use super::fingerprint::fingerprint;
use super::index::{Aspects, Dependencies};
use super::outbox::{Forget, Pushed};
use super::{Answer, Cause, CauseKind, Registration, Waiting};
use crate::limits;
use crate::pipeline::{Reconsidered, Seen, Telling};
use crate::state::{Key, State};
use cardea_proto::v1;

/// Why holds are judged again, and since when this node knows it.
#[derive(Clone, Debug)]
pub(super) struct Why {
    cause: Arc<Cause>,
    noticed_ns: u64,
}

impl Why {
    pub(super) fn new(cause: Cause, now: Now) -> Self {
        Self { cause: Arc::new(cause), noticed_ns: now.mono_ns }
    }
}

/// An answer before it is told.
struct Given {
    attempt: Option<Attempt>,
    seen: Seen,
    came_to: Reconsidered,
    cause: Option<Arc<Cause>>,
    before: Option<Decision>,
    noticed_ns: u64,
    began: Now,
}

impl<S> Engine<S> {
    /// Takes an attempt in and answers it. One that cannot be read, or has no place, is denied and not held.
    pub(super) fn register(
        &mut self,
        stream: u64,
        outbox: &Waiting<S>,
        registration: Registration,
        noticed: Now,
    ) {
        let Registration { hold_id, attempt, revision, bytes } = registration;
        outbox.came(1);
        let Some(known) = self.streams.get_mut(&stream).filter(|known| known.is_carried_by(outbox)) else {
            return;
        };
        // An answer to what it replaces must not follow.
        let replaced = known.holds.remove(&hold_id);
        let is_full = known.holds.len() >= limits::HOLDS_PER_STREAM_MAX;
        if let Some(place) = replaced {
            self.end_hold(place);
        }
        let began = self.pipeline.now();
        let refused = match attempt {
            Ok(_)
                if is_full
                    || self.book.len() >= limits::HOLDS_MAX
                    || self.bytes.saturating_add(bytes) > limits::HOLDS_BYTES_MAX =>
            {
                self.pipeline.metrics().holds.refused.increment(1);
                let message = "this node holds as many attempts as it takes; drop some, or ask for each use";
                (NotAnAttempt { code: ReasonCode::StateFull, message: message.to_owned() }, Seen::default())
            }
            Ok(attempt) => {
                let hold = Hold {
                    stream,
                    hold_id,
                    attempt,
                    revision,
                    bytes,
                    epoch: self.epoch,
                    told: None,
                    is_polled: false,
                };
                let place = self.book.insert(hold);
                self.bytes += bytes;
                if let Some(known) = self.streams.get_mut(&stream) {
                    known.holds.insert(hold_id, place);
                }
                let Some(came_to) = self.reconsider(place, began) else { return };
                self.tell(place, came_to, None, noticed.mono_ns, began);
                return;
            }
            Err(refused) => (refused.fault, refused.seen),
        };
        let (fault, seen) = refused;
        let came_to = self.pipeline.reconsider(self.snapshot.as_deref(), Err(&fault), began);
        let given = Given {
            attempt: None,
            seen,
            came_to,
            cause: None,
            before: None,
            noticed_ns: noticed.mono_ns,
            began,
        };
        self.give(stream, hold_id, given);
    }

    /// Judges a hold again and tells what changed.
    pub(super) fn judge(&mut self, place: u32, why: &Why) {
        let began = self.pipeline.now();
        let Some(came_to) = self.reconsider(place, began) else { return };
        let metrics = &self.pipeline.metrics().holds;
        if let Some(counter) = metrics.judged.get(&why.cause.kind) {
            counter.increment(1);
        }
        let Some(hold) = self.book.get(place) else { return };
        let told = hold.told.as_ref();
        let newest = fingerprint(&came_to.verdict, self.snapshot.as_deref(), &self.keys);
        if told.is_some_and(|told| told.fingerprint == Some(newest)) {
            metrics.unchanged.increment(1);
            return;
        }
        // What was denied for want of a place in the audit is told when there is one, whatever it comes to.
        let waited = told.is_some_and(|told| told.fingerprint.is_none());
        let cause = if waited {
            Arc::new(Cause { kind: CauseKind::Audit, change: "room", ..Cause::clone(&why.cause) })
        } else {
            Arc::clone(&why.cause)
        };
        self.tell(place, came_to, Some(cause), why.noticed_ns, began);
    }

    /// Tells a hold of a resumed stream what it may have missed.
    pub(super) fn tell_again(&mut self, place: u32, (stream, carried): (u64, u64), why: &Why) {
        let began = self.pipeline.now();
        let is_its = self.book.get(place).is_some_and(|hold| hold.stream == stream);
        if !is_its || self.streams.get(&stream).is_none_or(|stream| stream.carried != carried) {
            return;
        }
        let Some(came_to) = self.reconsider(place, began) else { return };
        let cause = self.book.get(place).and_then(|hold| hold.told.as_ref()?.cause.clone());
        self.tell(place, came_to, cause, why.noticed_ns, began);
    }

    /// What the attempt of a hold comes to now; what it depends on and when to look again follow from it.
    fn reconsider(&mut self, place: u32, now: Now) -> Option<Reconsidered> {
        let snapshot = self.snapshot.clone();
        let hold = self.book.get_mut(place)?;
        if !self.streams.contains_key(&hold.stream) {
            return None;
        }
        let mut fault = None;
        if let Some(snapshot) =
            snapshot.as_deref().filter(|snapshot| snapshot.settings().revision != hold.revision)
        {
            match hold.attempt.for_snapshot(snapshot) {
                Ok(attempt) => {
                    *hold.attempt = attempt;
                    hold.revision = snapshot.settings().revision;
                }
                // The next bundle may be able to read it again.
                Err(no_attempt) => fault = Some(no_attempt),
            }
        }
        hold.epoch = self.epoch;
        let attempt = fault.as_ref().map_or(Ok(&*hold.attempt), Err);
        let came_to = self.pipeline.reconsider(snapshot.as_deref(), attempt, now);
        let state = self.pipeline.state();
        self.index.set(place, depends_on(&hold.attempt, &came_to, snapshot.as_deref(), state));
        let is_polled = came_to.boundary.polled;
        self.polled = (self.polled + u64::from(is_polled)) - u64::from(hold.is_polled);
        hold.is_polled = is_polled;
        self.set_timer(place, &came_to, now);
        Some(came_to)
    }

    fn set_timer(&mut self, place: u32, came_to: &Reconsidered, now: Now) {
        let poll_ms = i64::try_from(limits::HOLD_POLL.as_millis()).unwrap_or(i64::MAX);
        let boundary = came_to.boundary;
        let waits = came_to.verdict.reasons().first().is_some_and(|reason| passes_unheard(reason.code));
        let mut at_ms = boundary.at_ms;
        if boundary.polled || waits {
            let spread_ms = self.polled.saturating_mul(1000) / limits::HOLD_POLLS_PER_SECOND;
            let wait_ms = poll_ms.max(i64::try_from(spread_ms).unwrap_or(i64::MAX));
            let poll_at_ms = now.wall_ms.saturating_add(wait_ms);
            // The boundary of what is polled is the next look itself, unless something is known to be sooner.
            let sooner_ms = at_ms.filter(|at| *at < now.wall_ms.saturating_add(poll_ms));
            at_ms = Some(sooner_ms.unwrap_or(poll_at_ms));
        }
        match at_ms {
            Some(at_ms) => self.wheel.set(place, at_ms.max(now.wall_ms.saturating_add(1))),
            None => self.wheel.cancel(place),
        }
    }

    /// Tells an answer to the hold at a place.
    fn tell(
        &mut self,
        place: u32,
        came_to: Reconsidered,
        cause: Option<Arc<Cause>>,
        noticed_ns: u64,
        began: Now,
    ) {
        let Some(hold) = self.book.get(place) else { return };
        let (stream, hold_id) = (hold.stream, hold.hold_id);
        let newest = fingerprint(&came_to.verdict, self.snapshot.as_deref(), &self.keys);
        if self.streams.get(&stream).is_some_and(|stream| stream.outbox.is_none()) {
            // Nobody is told while the stream is lost; who resumes it is told all that changed.
            let last_told = hold.told.as_ref().and_then(|told| told.last_told);
            let Some(lost) = self.streams.get_mut(&stream) else { return };
            lost.sequence += 1;
            let sequence = lost.sequence;
            let decision = came_to.verdict.decision();
            let told = Told { decision, fingerprint: Some(newest), sequence, cause, last_told };
            self.set_told(place, stream, told);
            return;
        }
        let given = Given {
            attempt: Some(Attempt::clone(&hold.attempt)),
            seen: Seen::default(),
            came_to,
            cause: cause.clone(),
            before: hold.told.as_ref().and_then(|told| told.last_told),
            noticed_ns,
            began,
        };
        let Some((decision, is_recorded)) = self.give(stream, hold_id, given) else { return };
        if !is_recorded {
            self.wheel.set(place, began.wall_ms.saturating_add(1000));
        }
        let fingerprint = is_recorded.then_some(newest);
        let sequence = self.streams.get(&stream).map_or(0, |stream| stream.sequence);
        let told = Told { decision, fingerprint, sequence, cause, last_told: Some(decision) };
        self.set_told(place, stream, told);
    }

    fn set_told(&mut self, place: u32, stream: u64, told: Told) {
        let Some(hold) = self.book.get_mut(place) else { return };
        let after = told.decision;
        let before = hold.told.replace(told).map(|told| told.decision);
        self.count_answer(stream, before, Some(after));
    }

    /// Puts an answer into the stream's outbox, with its record. The decision, and whether it has a record; `None` if
    /// nothing of the stream counts any more.
    fn give(&mut self, stream: u64, hold_id: u64, given: Given) -> Option<(Decision, bool)> {
        let known = self.streams.get_mut(&stream)?;
        let outbox = known.outbox.clone()?;
        let Given { attempt, seen, came_to, cause, before, noticed_ns, began } = given;
        let attempt_id =
            attempt.as_ref().map_or_else(|| seen.attempt_id.clone(), |attempt| attempt.id.clone());
        let hold = v1::HoldRecord {
            enforcement_point: known.enforcement_point.to_string(),
            hold_id,
            cause: cause.as_deref().map(crate::doors::hold_cause_record),
            before: before.map(crate::doors::decision).unwrap_or_default().into(),
        };
        let Reconsidered { verdict, basis, .. } = came_to;
        let snapshot = self.snapshot.clone();
        let telling = Telling { attempt, seen, snapshot, verdict, basis, hold, began };
        let say = self.say;
        let told = self.pipeline.tell(telling, |judgement| say(judgement, &attempt_id));
        known.sequence += 1;
        let answer = Answer { said: told.said, cause, noticed_ns };
        let pushed = outbox.push(hold_id, known.sequence, answer);
        let metrics = &self.pipeline.metrics().holds;
        match told.decision {
            Decision::Allow => metrics.pushed.allow.increment(1),
            Decision::StepUp => metrics.pushed.step_up.increment(1),
            Decision::Deny => metrics.pushed.deny.increment(1),
        }
        match pushed {
            Pushed::Waits => {}
            Pushed::Coalesced => metrics.coalesced.increment(1),
            Pushed::Overflowed => {
                self.forget(stream, Forget::SlowReader);
                return None;
            }
        }
        Some((told.decision, told.is_recorded))
    }
}

/// Whether a reason to deny goes away without anything being told that this hold depends on: a version is reached by any
/// change, a table gets room, a disk can be read again.
fn passes_unheard(code: ReasonCode) -> bool {
    matches!(code, ReasonCode::StateTooOld | ReasonCode::StateFull | ReasonCode::StateUnreadable)
}

/// What an attempt depends on: what can end it whatever policy says, and what its candidates read.
fn depends_on(
    attempt: &Attempt,
    came_to: &Reconsidered,
    snapshot: Option<&Snapshot>,
    state: &State,
) -> Dependencies {
    let needs: Needs = came_to.needs;
    let of_hop = Aspects::ALWAYS.and(Aspects::RISK.when(needs.reads_any(Group::Risk)));
    let mut on: Dependencies = attempt.hops().map(|hop| (Key::Principal(hop.clone()), of_hop)).collect();
    if needs.reads_any(Group::Session) {
        on.push((Key::Grants(attempt.principal.clone()), Aspects::ALWAYS));
    }
    on.extend(attempt.session_id.iter().map(|id| (Key::Session(id.clone()), Aspects::ALWAYS)));
    let session = match &came_to.facts.session {
        SessionFacts::Known(session, _) => Some(Arc::clone(session)),
        // Ended by somebody above it that can be enabled again, as long as it is not itself gone.
        SessionFacts::Revoked => {
            let id = attempt.session_id.as_ref();
            id.and_then(|id| state.session(id).ok().flatten()).map(|(session, _)| session)
        }
        SessionFacts::Unknown
        | SessionFacts::Untellable
        | SessionFacts::Unreadable
        | SessionFacts::Told(_) => None,
    };
    if let Some(session) = session {
        let of_owner =
            Aspects::ALWAYS.and(Aspects::CREDENTIAL.when(needs.reads(Fact::SessionCredentialChanged)));
        on.push((Key::Principal(session.principal.clone()), of_owner));
        on.extend(session.tenant.iter().map(|name| (Key::Tenant(name.clone()), Aspects::ALWAYS)));
        if let Some(device) = session.device_id.as_ref().filter(|_| needs.reads(Fact::SessionDeviceCompliant))
        {
            on.push((Key::Device(device.clone()), Aspects::ALWAYS));
        }
        let task_id = session.task_id.iter().filter(|_| needs.reads_any(Group::Task));
        on.extend(task_id.map(|id| (Key::Task(id.clone()), Aspects::ALWAYS)));
        for above in state.ancestors(&session) {
            on.push((Key::Session(above.id.clone()), Aspects::ALWAYS));
            on.push((Key::Principal(above.principal.clone()), Aspects::ALWAYS));
            on.extend(above.tenant.iter().map(|name| (Key::Tenant(name.clone()), Aspects::ALWAYS)));
        }
    }
    let task_id = attempt.task_id.iter().filter(|_| needs.reads_any(Group::Task));
    on.extend(task_id.map(|id| (Key::Task(id.clone()), Aspects::ALWAYS)));
    if needs.reads_any(Group::Signals) {
        let sources = snapshot.into_iter().flat_map(|snapshot| snapshot.settings().signals.source.keys());
        on.extend(sources.map(|name| (Key::Source(name.as_str().into()), Aspects::ALWAYS)));
    }
    on
}
