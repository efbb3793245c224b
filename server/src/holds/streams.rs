//! The streams of enforcement points: opened, lost, resumed, ended, listed.
//!
//! While a stream is lost nothing waits for it: its holds go on being judged, and whoever resumes it is told the newest
//! answer of each hold that changed after what it heard.

use std::collections::BTreeMap;
use std::sync::Arc;

use cardea_core::time::Now;
use smol_str::SmolStr;

use super::engine::{Backlog, Engine, nanos};
use super::judging::Why;
use super::outbox::{End, Forget, Left, Outbox};
use super::token::ResumeToken;
use super::{Cause, CauseKind, HoldView, Listing, Opened, Opening, StreamView, TooManyStreams, Waiting};
use crate::limits;

/// One stream.
#[derive(Debug)]
pub(super) struct Stream<S> {
    pub(super) enforcement_point: SmolStr,
    identity: SmolStr,
    peer: SmolStr,
    token: ResumeToken,
    opened_ms: i64,
    /// `None` while it is lost.
    pub(super) outbox: Option<Waiting<S>>,
    /// How many connections carried it before this one.
    pub(super) carried: u64,
    /// Since when it is lost, monotonic nanoseconds.
    lost_ns: u64,
    /// The number of the newest answer.
    pub(super) sequence: u64,
    /// The number of the newest answer when it was last told to forget: whoever heard less did not hear that.
    forgotten: u64,
    /// How many were told something else than allow.
    pub(super) not_allowed: usize,
    /// By the caller's own name: the place in the book.
    pub(super) holds: BTreeMap<u64, u32>,
}

impl<S> Stream<S> {
    /// Whether this connection carries it, and not one that took its place.
    pub(super) fn is_carried_by(&self, outbox: &Waiting<S>) -> bool {
        self.outbox.as_ref().is_some_and(|carries| Arc::ptr_eq(carries, outbox))
    }
}

impl<S> Engine<S> {
    /// Opens a stream, or resumes it if the caller has the right to. A caller that has not gets a new one: it learns
    /// nothing about streams of others.
    pub(super) fn open(&mut self, opening: Opening, now: Now) -> Result<Opened<S>, TooManyStreams> {
        if let Some(opened) = self.resume(&opening, now) {
            return Ok(opened);
        }
        if self.streams.len() >= limits::HOLD_STREAMS_MAX && !self.end_longest_lost() {
            return Err(TooManyStreams);
        }
        self.streams_opened += 1;
        let id = self.streams_opened;
        // Without randomness nobody can be given a right that others cannot guess.
        let token = ResumeToken::fresh(id).ok_or(TooManyStreams)?;
        let outbox = Arc::new(Outbox::new(limits::HOLD_OUTBOX_MAX, 0));
        let stream = Stream {
            enforcement_point: opening.enforcement_point,
            identity: opening.identity,
            peer: opening.peer,
            token,
            opened_ms: now.wall_ms,
            outbox: Some(Arc::clone(&outbox)),
            carried: 0,
            lost_ns: 0,
            sequence: 0,
            forgotten: 0,
            not_allowed: 0,
            holds: BTreeMap::new(),
        };
        self.streams.insert(id, stream);
        Ok(Opened { stream: id, token, resumed: false, sequence: 0, state_version: self.told(), outbox })
    }

    fn resume(&mut self, opening: &Opening, now: Now) -> Option<Opened<S>> {
        let (asked, from) = opening.resume.as_ref()?;
        let (id, from) = (asked.stream, *from);
        let stream = self.streams.get_mut(&id)?;
        if !stream.token.is(asked) || stream.identity != opening.identity {
            return None;
        }
        let token = stream.token;
        stream.enforcement_point = opening.enforcement_point.clone();
        if let Some(before) = stream.outbox.take() {
            before.end(End::Resumed);
        }
        // What is left to tell the connection before, it is not told any more.
        self.backlog.retain(|work| work.missed_by.is_none_or(|(missed_by, _)| missed_by != id));
        let is_newer = |place: &u32| {
            let told = self.book.get(*place).and_then(|hold| hold.told.as_ref());
            told.is_none_or(|told| told.sequence > from)
        };
        let missed: Vec<u32> = stream.holds.values().copied().filter(is_newer).collect();
        // A forget may have been lost on the way, as any answer; who did not hear of it is told again.
        let is_known = (stream.forgotten..=stream.sequence).contains(&from);
        let goes_on = is_known && missed.len() <= limits::HOLD_OUTBOX_MAX / 2;
        let told = if goes_on { from } else { stream.sequence };
        let outbox = Arc::new(Outbox::new(limits::HOLD_OUTBOX_MAX, told));
        stream.outbox = Some(Arc::clone(&outbox));
        stream.carried += 1;
        let carried = stream.carried;
        if !goes_on {
            outbox.forget(Forget::TooOld);
            self.forget(id, Forget::TooOld);
        } else if !missed.is_empty() {
            outbox.set_catching_up(Some(from));
            let cause = Cause {
                kind: CauseKind::Everything,
                name: SmolStr::default(),
                change: "resumed",
                state_version: self.told(),
            };
            let why = Why::new(cause, now);
            let missed_by = Some((id, carried));
            let places = missed.into_iter();
            self.backlog.push_back(Backlog { why, of: None, is_begun: false, places, missed_by });
        }
        Some(Opened { stream: id, token, resumed: true, sequence: from, state_version: 0, outbox })
    }

    /// A resumed stream was told all that it missed.
    pub(super) fn caught_up(&mut self, (stream, carried): (u64, u64)) {
        let stream = self.streams.get(&stream).filter(|stream| stream.carried == carried);
        if let Some(outbox) = stream.and_then(|stream| stream.outbox.as_ref()) {
            outbox.set_catching_up(None);
        }
    }

    /// Ends holds that their caller is done with.
    pub(super) fn drop_holds(&mut self, stream: u64, outbox: &Waiting<S>, hold_ids: &[u64]) {
        for hold_id in hold_ids {
            let known = self.streams.get_mut(&stream).filter(|known| known.is_carried_by(outbox));
            if let Some(place) = known.and_then(|known| known.holds.remove(hold_id)) {
                outbox.remove(*hold_id);
                self.end_hold(place);
            }
        }
    }

    /// Ends every hold of a stream, which goes on without them. Its outbox says so already.
    pub(super) fn forget(&mut self, stream: u64, why: Forget) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            // Ended at once, not later: what is registered after it must not be taken for what was before.
            let gone = std::mem::take(&mut stream.holds);
            stream.not_allowed = 0;
            stream.forgotten = stream.sequence;
            self.dying.extend(gone.values());
            for place in gone.values() {
                if let Some(hold) = self.book.get_mut(*place) {
                    hold.stream = 0;
                }
            }
        }
        let forgets = &self.pipeline.metrics().holds.forgets;
        match why {
            Forget::SlowReader => forgets.slow_reader.increment(1),
            Forget::TooOld => forgets.too_old.increment(1),
        }
    }

    /// Looks for connections that left and for lost streams that nobody came back to.
    pub(super) fn look_for_lost(&mut self, now: Now) {
        let mut over = Vec::new();
        for (id, stream) in &mut self.streams {
            // Nobody else has it: its caller was gone before it could be given the stream.
            let is_dropped = |outbox: &Waiting<S>| (Arc::strong_count(outbox) == 1).then_some(Left::Lost);
            match stream.outbox.as_ref().map(|outbox| outbox.left().or_else(|| is_dropped(outbox))) {
                Some(None) => {}
                Some(Some(Left::Done)) => over.push(*id),
                Some(Some(Left::Lost)) => {
                    stream.outbox = None;
                    stream.lost_ns = now.mono_ns;
                    if stream.holds.is_empty() {
                        over.push(*id);
                    }
                }
                None if now.mono_ns.saturating_sub(stream.lost_ns) >= nanos(limits::HOLD_RESUME) => {
                    over.push(*id)
                }
                None => {}
            }
        }
        over.into_iter().for_each(|id| self.end_stream(id));
    }

    fn end_stream(&mut self, id: u64) {
        if let Some(stream) = self.streams.remove(&id) {
            self.dying.extend(stream.holds.values());
        }
    }

    fn end_longest_lost(&mut self) -> bool {
        let lost = self.streams.iter().filter(|(_, stream)| stream.outbox.is_none());
        let Some(id) = lost.min_by_key(|(_, stream)| stream.lost_ns).map(|(id, _)| *id) else { return false };
        self.end_stream(id);
        true
    }

    /// Tells every stream that no more comes.
    pub(super) fn stop(&mut self) {
        for outbox in self.streams.values().filter_map(|stream| stream.outbox.as_ref()) {
            outbox.end(End::Stopping);
        }
    }

    /// The streams, for people.
    pub(super) fn list(&self, listing: Listing) -> Vec<StreamView> {
        let Listing { stream: only, after_hold, holds_max } = listing;
        let chosen = self.streams.iter().filter(|(id, _)| only.is_none_or(|only| only == **id));
        chosen
            .map(|(id, stream)| {
                let mut rest = stream.holds.range(after_hold.saturating_add(1)..);
                let held = if only.is_some() {
                    rest.by_ref().take(holds_max).filter_map(|(_, place)| self.view(*place)).collect()
                } else {
                    Vec::new()
                };
                StreamView {
                    stream: *id,
                    enforcement_point: stream.enforcement_point.clone(),
                    peer: stream.peer.clone(),
                    connected: stream.outbox.is_some(),
                    opened_ms: stream.opened_ms,
                    holds: stream.holds.len(),
                    not_allowed: stream.not_allowed,
                    waiting: stream.outbox.as_ref().map_or(0, |outbox| outbox.len()),
                    held,
                    more: only.is_some() && rest.next().is_some(),
                }
            })
            .collect()
    }

    fn view(&self, place: u32) -> Option<HoldView> {
        let hold = self.book.get(place)?;
        let told = hold.told.as_ref()?;
        Some(HoldView {
            hold_id: hold.hold_id,
            attempt: hold.attempt.as_ref().clone(),
            decision: told.decision,
            cause: told.cause.clone(),
        })
    }

    fn told(&self) -> u64 {
        self.shared.told.load(std::sync::atomic::Ordering::Acquire)
    }
}
