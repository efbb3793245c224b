//! The one thread that owns all holds, and the order in which it works.
//!
//! A round: changes of fact, time, a part of what a change with many dependents left to do, a part of what streams ask,
//! a part of the sweep through all holds that a new bundle needs. Each part is at most [`limits::HOLD_CHUNK`] holds, so
//! that the next change waits for at most five of them.
//! INVARIANT (told up to here): `told` rises to a state version only when every change up to it was taken from the feed
//! and every hold that it could reach was judged and put into its outbox.
//! Never does: awaiting, holding a lock over a judgement.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use ahash::{AHashMap, RandomState};
use cardea_core::time::Now;
use cardea_core::verdict::Decision;
use cardea_policy_store::snapshot::Snapshot;
use smol_str::{SmolStr, ToSmolStr as _};
use tokio::sync::mpsc;

use super::book::Book;
use super::index::{Aspects, Index};
use super::judging::Why;
use super::order::Order;
use super::streams::Stream;
use super::sweep::Sweep;
use super::wheel::Wheel;
use super::{Cause, CauseKind, Registration, Request, Say, Shared, Waiting};
use crate::limits;
use crate::pipeline::Pipeline;
use crate::shutdown::{Phase, Shutdown};
use crate::state::{Follower, Key, Touched};

/// How far the wall clock may lie behind the wheel before it counts as set back, in milliseconds.
const SET_BACK_MS: i64 = 1000;

/// See the module.
pub struct Engine<S> {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) say: Say<S>,
    pub(super) shared: Arc<Shared>,
    pub(super) keys: RandomState,
    requests: mpsc::Receiver<Request<S>>,
    changes: Arc<Follower>,
    /// Up to which version changes were taken from the feed.
    heard: Order,
    pub(super) streams: BTreeMap<u64, Stream<S>>,
    pub(super) streams_opened: u64,
    pub(super) book: Book,
    pub(super) index: Index,
    pub(super) wheel: Wheel,
    pub(super) polled: u64,
    /// What the held attempts take on the wire.
    pub(super) bytes: u64,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// Rises with each sweep: a hold that was judged since it began need not be judged in it.
    pub(super) epoch: u64,
    pub(super) sweep: Option<Sweep>,
    pub(super) backlog: VecDeque<Backlog>,
    adding: Option<Adding<S>>,
    /// Places of holds whose stream is gone.
    pub(super) dying: VecDeque<u32>,
    found: Vec<u32>,
    rounded: Now,
}

/// What one change with many dependents left to do.
pub(super) struct Backlog {
    pub(super) why: Why,
    /// What changed; `None` for what a resumed stream missed.
    pub(super) of: Option<(Key, u8)>,
    pub(super) is_begun: bool,
    pub(super) places: std::vec::IntoIter<u32>,
    /// They are told again to this stream, which missed them, on this one of its connections.
    pub(super) missed_by: Option<(u64, u64)>,
}

struct Adding<S> {
    stream: u64,
    outbox: Waiting<S>,
    holds: std::vec::IntoIter<Registration>,
}

impl<S> std::fmt::Debug for Engine<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("holds", &self.book.len()).finish_non_exhaustive()
    }
}

impl<S> Engine<S> {
    pub(super) fn new(
        pipeline: Arc<Pipeline>,
        say: Say<S>,
        requests: mpsc::Receiver<Request<S>>,
        shared: Arc<Shared>,
    ) -> Self {
        let now = pipeline.now();
        let bell = Arc::clone(pipeline.bell());
        let changes = pipeline.state().feed().follow(Box::new(move || bell.ring()));
        // Nothing is held yet, so that what came before it followed reaches nobody.
        let version = pipeline.state().version();
        shared.told.store(version, Ordering::Release);
        shared.pulse_ns.store(now.mono_ns, Ordering::Release);
        Self {
            say,
            shared,
            keys: RandomState::new(),
            requests,
            changes,
            heard: Order::new(version),
            streams: BTreeMap::new(),
            streams_opened: 0,
            book: Book::default(),
            index: Index::default(),
            wheel: Wheel::new(now.wall_ms),
            polled: 0,
            bytes: 0,
            snapshot: pipeline.policy().snapshot(),
            epoch: 0,
            sweep: None,
            backlog: VecDeque::new(),
            adding: None,
            dying: VecDeque::new(),
            found: Vec::new(),
            rounded: now,
            pipeline,
        }
    }

    /// Watches until the process stops.
    ///
    /// # Errors
    /// Never.
    pub fn run(mut self, shutdown: &Shutdown) -> Result<(), Infallible> {
        self.pipeline.bell().answer();
        while shutdown.phase() == Phase::Running {
            match self.round() {
                // Whoever decides on this core goes first.
                None => thread::yield_now(),
                Some(rest) => thread::park_timeout(rest),
            }
        }
        self.stop();
        Ok(())
    }

    /// One round of work; `None` if there is more to do at once, else how long to rest unless woken.
    pub(super) fn round(&mut self) -> Option<Duration> {
        let now = self.pipeline.now();
        self.shared.pulse_ns.store(now.mono_ns, Ordering::Release);
        let is_drained = self.take_changes(now);
        self.look_at_bundle(now);
        self.time(now);
        self.work_off();
        if self.backlog.is_empty() && !self.sweep.as_ref().is_some_and(|sweep| sweep.is_of_state) {
            self.shared.told.store(self.heard.through(), Ordering::Release);
        }
        let has_more = self.asked(now);
        self.bury();
        self.sweep_on();
        if now.since_ns(self.rounded) >= nanos(limits::HOLD_ROUND) {
            self.rounded = now;
            self.look_around(now);
        }
        let is_busy = !is_drained || has_more || !self.backlog.is_empty() || !self.dying.is_empty();
        if is_busy { None } else { self.rest() }
    }

    fn rest(&self) -> Option<Duration> {
        let now = self.pipeline.now();
        let until_sweep = self.sweep.as_ref().map(|sweep| sweep.rest_until_ns.saturating_sub(now.mono_ns));
        let timer_ms = self.wheel.next_ms().map(|at_ms| at_ms.saturating_sub(now.wall_ms).max(0));
        let until_timer = timer_ms.map(|ms| u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000));
        let waits = [Some(nanos(limits::HOLD_ROUND)), until_sweep, until_timer];
        let rest = waits.into_iter().flatten().min().filter(|ns| *ns > 0)?;
        Some(Duration::from_nanos(rest))
    }

    /// Judges what changes of fact reach. Whether the feed was empty at the end.
    fn take_changes(&mut self, now: Now) -> bool {
        if self.changes.missed() {
            let version = self.pipeline.state().version();
            self.heard.skip_to(version);
            self.begin_sweep(everything(version), now, true);
        }
        let mut taken: Vec<(Touched, Aspects)> = Vec::new();
        while taken.len() < limits::HOLD_CHUNK
            && let Some(touched) = self.changes.next()
        {
            self.heard.hear(touched.version);
            let aspect = aspect_of(&touched);
            taken.push((touched, aspect));
        }
        let is_drained = taken.len() < limits::HOLD_CHUNK;
        // Of changes of the same thing in one round the last one stands for all.
        let mut last: AHashMap<(&Key, u8), usize> = AHashMap::new();
        for (at, (touched, aspect)) in taken.iter().enumerate() {
            last.insert((&touched.key, aspect.bits()), at);
        }
        for (at, (touched, aspect)) in taken.iter().enumerate() {
            if last.get(&(&touched.key, aspect.bits())) == Some(&at) {
                self.change(touched, *aspect, now);
            }
        }
        is_drained
    }

    fn change(&mut self, touched: &Touched, aspect: Aspects, now: Now) {
        let cause = cause_of(touched);
        let mut found = std::mem::take(&mut self.found);
        self.index.dependents(&touched.key, aspect, |place| found.push(place));
        let why = Why::new(cause, now);
        if found.len() <= limits::HOLD_CHUNK {
            for place in found.drain(..) {
                self.judge(place, &why);
            }
            self.found = found;
        } else {
            self.put_off((touched.key.clone(), aspect.bits()), why, found, now);
        }
    }

    /// Leaves many holds for later. Of changes of the same thing that are not begun yet the last one stands for all; with too
    /// many different ones every hold is judged again.
    fn put_off(&mut self, of: (Key, u8), why: Why, places: Vec<u32>, now: Now) {
        let places = places.into_iter();
        let same = |work: &&mut Backlog| !work.is_begun && work.of.as_ref() == Some(&of);
        if let Some(work) = self.backlog.iter_mut().find(same) {
            (work.why, work.places) = (why, places);
            return;
        }
        if self.backlog.iter().filter(|work| work.of.is_some()).count() >= limits::HOLD_BACKLOG_MAX {
            self.backlog.retain(|work| work.of.is_none());
            self.begin_sweep(everything(self.pipeline.state().version()), now, true);
            return;
        }
        self.backlog.push_back(Backlog { why, of: Some(of), is_begun: false, places, missed_by: None });
    }

    fn look_at_bundle(&mut self, now: Now) {
        let current = self.pipeline.policy().snapshot();
        let revision =
            |snapshot: Option<&Arc<Snapshot>>| snapshot.map(|snapshot| snapshot.settings().revision);
        let in_force = revision(current.as_ref());
        if in_force != revision(self.snapshot.as_ref()) {
            self.snapshot = current;
            let cause = Cause {
                kind: CauseKind::Bundle,
                name: in_force.map(|revision| revision.to_smolstr()).unwrap_or_default(),
                change: "activated",
                state_version: self.pipeline.state().version(),
            };
            let is_of_state = self.sweep.as_ref().is_some_and(|sweep| sweep.is_of_state);
            self.begin_sweep(cause, now, is_of_state);
        }
    }

    /// Judges holds whose time has come.
    fn time(&mut self, now: Now) {
        if now.wall_ms.saturating_add(SET_BACK_MS) < self.wheel.now_ms() {
            self.wheel.rewind(now.wall_ms);
        }
        let mut due = std::mem::take(&mut self.found);
        self.wheel.advance(now.wall_ms, limits::HOLD_CHUNK, &mut due);
        if !due.is_empty() {
            let why = Why::new(
                Cause {
                    kind: CauseKind::Time,
                    name: SmolStr::default(),
                    change: "passed",
                    state_version: self.pipeline.state().version(),
                },
                now,
            );
            for place in due.drain(..) {
                self.judge(place, &why);
            }
        }
        self.found = due;
    }

    /// A part of what changes with many dependents left to do.
    fn work_off(&mut self) {
        let Some(mut work) = self.backlog.pop_front() else { return };
        work.is_begun = true;
        for place in work.places.by_ref().take(limits::HOLD_CHUNK) {
            match work.missed_by {
                None => self.judge(place, &work.why),
                Some(stream) => self.tell_again(place, stream, &work.why),
            }
        }
        if work.places.len() > 0 {
            self.backlog.push_front(work);
        } else if let Some(stream) = work.missed_by {
            self.caught_up(stream);
        }
    }

    /// One thing that a stream asks, or a part of it. Whether there may be more.
    fn asked(&mut self, now: Now) -> bool {
        if let Some(mut adding) = self.adding.take() {
            for registration in adding.holds.by_ref().take(limits::HOLD_CHUNK) {
                self.register(adding.stream, &adding.outbox, registration, now);
            }
            let has_more = adding.holds.len() > 0;
            self.adding = has_more.then_some(adding);
            return true;
        }
        match self.requests.try_recv() {
            Ok(Request::Add { stream, outbox, holds }) => {
                self.adding = Some(Adding { stream, outbox, holds: holds.into_iter() });
            }
            Ok(Request::Drop { stream, outbox, hold_ids }) => self.drop_holds(stream, &outbox, &hold_ids),
            Ok(Request::Open { opening, reply }) => {
                let opened = self.open(opening, now);
                // Whoever asked is gone: its connection broke meanwhile.
                if let Err(Ok(opened)) = reply.send(opened) {
                    opened.outbox.leave(false);
                }
            }
            Ok(Request::List { listing, reply }) => {
                let _nobody_waits = reply.send(self.list(listing));
            }
            Err(_empty_or_stopping) => return false,
        }
        true
    }

    /// A part of the holds whose stream is gone.
    fn bury(&mut self) {
        for _ in 0..limits::HOLD_CHUNK {
            let Some(place) = self.dying.pop_front() else { return };
            self.end_hold(place);
        }
    }

    /// Ends one hold.
    pub(super) fn end_hold(&mut self, place: u32) {
        if let Some(hold) = self.book.remove(place) {
            self.index.remove(place);
            self.wheel.cancel(place);
            self.polled -= u64::from(hold.is_polled);
            self.bytes -= hold.bytes;
            self.count_answer(hold.stream, hold.told.map(|told| told.decision), None);
        }
    }

    /// Keeps the count of what a stream was told that is not an allow.
    pub(super) fn count_answer(&mut self, stream: u64, before: Option<Decision>, after: Option<Decision>) {
        let is_other =
            |decision: Option<Decision>| usize::from(decision.is_some_and(|told| told != Decision::Allow));
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.not_allowed = (stream.not_allowed + is_other(after)) - is_other(before);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
    fn look_around(&mut self, now: Now) {
        self.look_for_lost(now);
        let metrics = &self.pipeline.metrics().holds;
        metrics.holds.set(self.book.len() as f64);
        metrics.bytes.set(self.bytes as f64);
        metrics.polled.set(self.polled as f64);
        metrics.timers.set(self.wheel.len() as f64);
        metrics.keys.set(self.index.keys() as f64);
        let lost = self.streams.values().filter(|stream| stream.outbox.is_none()).count();
        metrics.streams.set((self.streams.len() - lost) as f64);
        metrics.streams_lost.set(lost as f64);
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn everything(state_version: u64) -> Cause {
    Cause { kind: CauseKind::Everything, name: SmolStr::default(), change: "overflowed", state_version }
}

/// Which side of its key a change is about.
fn aspect_of(touched: &Touched) -> Aspects {
    match (&touched.key, touched.what) {
        (Key::Principal(_), "risk") => Aspects::RISK,
        (Key::Principal(_), "credential") => Aspects::CREDENTIAL,
        _ => Aspects::ALWAYS,
    }
}

fn cause_of(touched: &Touched) -> Cause {
    let (kind, name) = match &touched.key {
        Key::Session(id) => (CauseKind::Session, id.clone()),
        Key::Principal(uid) => (CauseKind::Principal, uid.to_smolstr()),
        Key::Device(id) => (CauseKind::Device, id.clone()),
        Key::Tenant(id) => (CauseKind::Tenant, id.clone()),
        Key::Task(id) => (CauseKind::Task, id.clone()),
        Key::Grants(uid) => (CauseKind::Grant, uid.to_smolstr()),
        Key::Source(name) => (CauseKind::Source, name.clone()),
    };
    Cause { kind, name, change: touched.what, state_version: touched.version }
}
