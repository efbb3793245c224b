//! Keeps the Hold stream of a [`CachedClient`](super::CachedClient): registers the allows that are kept, and drops what the
//! stream takes back.
//!
//! An allow is covered by the stream from the first answer to its hold on, because whatever changed before is in that answer.
//! The stream counts as there for three heartbeats after the last thing that was heard, whether or not this task runs, and
//! again only after the service said that everything was told. Limits: [`WANTED_MAX`] registrations wait; those beyond
//! are not held, and their allows live for the lease that needs no stream.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::holds::{Holds, Wanted};
use super::table::{Asked, Held, Kept};
use super::{MS_NS, Shared};
use crate::Client;
use crate::hold::{HoldReceiver, HoldSender};
use crate::v1::hold_request::Part as Request;
use crate::v1::hold_response::Part;
use crate::v1::{Decision, HoldAdd, HoldAttempt, HoldDrop, HoldOpen, HoldOpened, HoldVerdict};

/// Most registrations that wait for the stream, and that go into one message: what the service takes in one.
pub(super) const WANTED_MAX: usize = 1024;
/// First wait before a lost stream is opened again; doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(50);
/// Longest wait before a lost stream is opened again.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long a hold waits for its first answer before it is given up.
const ANSWER_WAIT_NS: u64 = 5_000 * MS_NS;
/// How often holds that are over are looked for.
const SWEEP: Duration = Duration::from_millis(500);
/// A stream is lost that was silent for so many heartbeats.
const HEARTBEATS_MISSED: u64 = 3;

/// The task that keeps the stream; see [`CachedClient::holding`](super::CachedClient::holding).
#[derive(Debug)]
#[must_use = "nothing is held unless it runs"]
pub struct Holding {
    client: Client,
    shared: Arc<Shared>,
    enforcement_point: String,
    wanted: mpsc::Receiver<Wanted>,
    state: State,
}

/// What is known of the stream, open or lost.
#[derive(Debug)]
struct State {
    holds: Holds,
    /// Of the stream that was open last.
    resume_token: String,
    sequence: u64,
    /// Its number; see [`super::table::Link`].
    stream: u64,
    /// How long it counts as there after something was heard.
    patience_ns: u64,
    heard_ns: u64,
    /// It was resumed, and not everything was told yet.
    catches_up: bool,
    adds: Vec<HoldAttempt>,
    drops: Vec<u64>,
}

impl Holding {
    pub(super) fn new(
        client: Client,
        shared: Arc<Shared>,
        enforcement_point: String,
        wanted: mpsc::Receiver<Wanted>,
        allows_max: usize,
    ) -> Self {
        Self { client, shared, enforcement_point, wanted, state: State::new(allows_max) }
    }

    /// Keeps the stream open, and opens it again when it is lost, until the last clone of the cached client is dropped.
    pub async fn run(mut self) {
        let mut wait = RETRY_MIN;
        loop {
            let open = HoldOpen {
                enforcement_point: self.enforcement_point.clone(),
                resume_token: self.state.resume_token.clone(),
                from_sequence: self.state.sequence,
            };
            let heard_before_ns = self.state.heard_ns;
            if let Ok(stream) = self.client.hold(open).await {
                let (sender, receiver) = stream.split();
                match self.listen(&sender, receiver).await {
                    Ended::Unused => return,
                    Ended::Lost => self.shared.link.lost(self.state.heard_ns),
                }
            }
            wait = if self.state.heard_ns > heard_before_ns { RETRY_MIN } else { (wait * 2).min(RETRY_MAX) };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.unwanted() => return,
            }
        }
    }

    /// What is wanted while there is no stream is not held; comes back when nobody wants anything any more.
    async fn unwanted(&mut self) {
        while self.wanted.recv().await.is_some() {}
    }

    async fn listen(&mut self, sender: &HoldSender, mut receiver: HoldReceiver) -> Ended {
        let Self { shared, wanted, state, .. } = self;
        state.adds.clear();
        state.drops.clear();
        let mut sweep = tokio::time::interval(SWEEP);
        let mut heard = tokio::time::Instant::now();
        loop {
            // The service says in its first message how often it speaks.
            let patience = match state.patience_ns {
                0 => RETRY_MAX,
                patience_ns => Duration::from_nanos(patience_ns),
            };
            tokio::select! {
                biased;
                told = receiver.receive() => match told {
                    Ok(Some(part)) => {
                        state.hear(shared, part, shared.clock.now_ns());
                        heard = tokio::time::Instant::now();
                    }
                    Ok(None) | Err(_) => return Ended::Lost,
                },
                () = tokio::time::sleep_until(heard + patience) => return Ended::Lost,
                place = sender.place(), if state.has_to_say() => match place {
                    Ok(place) => place.fill(state.next()),
                    Err(_) => return Ended::Lost,
                },
                one = wanted.recv(), if state.adds.len() < WANTED_MAX => match one {
                    Some(one) => state.register(one, shared.clock.now_ns()),
                    None => return Ended::Unused,
                },
                _ = sweep.tick() => state.give_up(shared.clock.now_ns()),
            }
        }
    }
}

enum Ended {
    Lost,
    /// Nobody asks any more.
    Unused,
}

impl State {
    fn new(holds_max: usize) -> Self {
        Self {
            holds: Holds::new(holds_max),
            resume_token: String::new(),
            sequence: 0,
            stream: 0,
            patience_ns: 0,
            heard_ns: 0,
            catches_up: false,
            adds: Vec::new(),
            drops: Vec::new(),
        }
    }

    fn hear(&mut self, shared: &Shared, part: Part, now_ns: u64) {
        self.heard_ns = now_ns;
        match part {
            Part::Opened(opened) => return self.opened(shared, opened, now_ns),
            Part::Verdicts(told) => {
                self.sequence = self.sequence.max(told.sequence);
                told.verdicts.into_iter().for_each(|told| self.answered(shared, told, now_ns));
            }
            Part::Forget(told) => {
                self.sequence = self.sequence.max(told.sequence);
                shared.table.forget_all();
                self.holds.clear();
                self.adds.clear();
            }
            Part::Heartbeat(told) => {
                self.sequence = self.sequence.max(told.sequence);
                self.catches_up = false;
            }
        }
        if !self.catches_up {
            shared.link.heard(now_ns.saturating_add(self.patience_ns));
        }
    }

    fn opened(&mut self, shared: &Shared, opened: HoldOpened, now_ns: u64) {
        self.resume_token = opened.resume_token;
        self.patience_ns = u64::from(opened.heartbeat_ms).saturating_mul(HEARTBEATS_MISSED * MS_NS);
        self.catches_up = opened.resumed;
        if opened.resumed {
            self.holds.forget_unanswered();
            return;
        }
        self.sequence = opened.sequence;
        self.holds.clear();
        self.stream = shared.link.opened(now_ns.saturating_add(self.patience_ns));
    }

    fn answered(&mut self, shared: &Shared, told: HoldVerdict, now_ns: u64) {
        let Some(hold) = self.holds.get(told.hold_id) else { return self.drops.push(told.hold_id) };
        let table = &shared.table;
        hold.keys.both().into_iter().for_each(|key| table.remove(key));
        let allow = told.verdict.filter(|verdict| verdict.decision() == Decision::Allow);
        let Some((verdict, lease)) = allow.and_then(|verdict| verdict.lease.map(|lease| (verdict, lease)))
        else {
            return self.drop_hold(told.hold_id);
        };
        // The attempt was sent once. How long ago an answer was given that is told later, nobody knows here.
        let sent_ns = hold.sent_ns;
        let after = |ms: u32| sent_ns.saturating_add(u64::from(ms) * MS_NS);
        let until_ns = after(lease.held_lease_ms);
        let held =
            Held { stream: self.stream, until_ns, loss_max_ns: u64::from(lease.stream_loss_max_ms) * MS_NS };
        let kept = Kept { verdict: Arc::new(verdict), until_ns: after(lease.lease_ms), held: Some(held) };
        if lease.held_lease_ms == 0 {
            return self.drop_hold(told.hold_id);
        }
        let key = hold.keys.of(lease.on_context);
        table.store(key, kept, Asked { generation: hold.generation, ..table.asked(key) }, now_ns);
        self.holds.answered(told.hold_id, until_ns);
    }

    fn drop_hold(&mut self, id: u64) {
        self.holds.remove(id);
        self.drops.push(id);
    }

    fn register(&mut self, wanted: Wanted, now_ns: u64) {
        let until_ns = now_ns.saturating_add(ANSWER_WAIT_NS);
        if let Some((hold_id, before)) = self.holds.add(&wanted, now_ns, until_ns) {
            self.drops.extend(before);
            self.adds.push(HoldAttempt { hold_id, attempt: Some(wanted.attempt) });
        }
    }

    fn give_up(&mut self, now_ns: u64) {
        let over = self.holds.over(now_ns, WANTED_MAX);
        self.drops.extend(over);
    }

    fn has_to_say(&self) -> bool {
        !self.adds.is_empty() || !self.drops.is_empty()
    }

    /// The next message. Drops first: they make room.
    fn next(&mut self) -> Request {
        if self.drops.is_empty() {
            return Request::Add(HoldAdd { holds: std::mem::take(&mut self.adds) });
        }
        let rest = self.drops.split_off(self.drops.len().min(WANTED_MAX));
        Request::Drop(HoldDrop { hold_ids: std::mem::replace(&mut self.drops, rest) })
    }
}

#[cfg(test)]
mod tests;
