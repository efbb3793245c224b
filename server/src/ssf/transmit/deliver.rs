//! Pushing: which streams are due, and how their events go out.
//!
//! Each stream has at most one task, which sends its events one after the other; a receiver that is slow holds up its own
//! stream and no other. INVARIANT (order): an event is sent only once the one before it has left the outbox.
//! Limits: [`limits::SSF_PUSH_BATCH`] events in one go; waits between tries double up to [`limits::SSF_PUSH_BACKOFF_MAX`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cardea_proto::v1;
use smol_str::SmolStr;
use tokio::sync::Notify;

use super::endpoint::Endpoint;
use super::outbox::{Item, Kind, Signed};
use super::push::Answer;
use super::stream_record;
use super::streams::{Delivery, Done, Row, Secret};
use super::{Transmitter, signing};
use crate::limits;
use crate::remote::backoff::Backoff;
use crate::ssf::event::StreamStatus;
use crate::supervise::TaskSet;

/// What is going on with one stream; nothing of it has to survive.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// A task is sending its events.
    is_busy: bool,
    backoff: Backoff,
    /// Monotonic time before which nothing is sent, in nanoseconds.
    not_before_ns: u64,
    /// Polls that wait.
    pub(super) waiters: usize,
    /// Rings when events come for those who poll.
    pub(super) arrived: Arc<Notify>,
}

#[cfg(test)]
impl Sending {
    pub(super) fn is_sending(&self) -> bool {
        self.is_busy
    }
}

/// What is sent next, and where to.
struct Next {
    item: Item,
    endpoint: Endpoint,
    authorization: Option<Secret>,
}

/// Says that the task of a stream ended, however it ended.
struct Busy<'t> {
    transmitter: &'t Transmitter,
    id: SmolStr,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(sending) = self.transmitter.sending.lock().get_mut(&self.id) {
            sending.is_busy = false;
        }
        self.transmitter.work.notify_one();
    }
}

impl Transmitter {
    /// Starts a task for each stream that has events to push and is not waiting. Returns when the next is due.
    pub(super) fn start_due(self: &Arc<Self>, tasks: &mut TaskSet) -> Option<Duration> {
        let now_ns = self.now().mono_ns;
        let mut next_ns: Option<u64> = None;
        let candidates: Vec<SmolStr> = {
            let streams = self.streams.lock();
            let pushes = streams.all().filter(|stream| {
                stream.status == StreamStatus::Enabled
                    && matches!(stream.wanted.delivery, Delivery::Push { .. })
                    && !stream.outbox.is_empty()
            });
            pushes.map(|stream| stream.id.clone()).collect()
        };
        let mut all = self.sending.lock();
        for id in candidates {
            let sending = all.entry(id.clone()).or_default();
            if sending.is_busy {
                continue;
            }
            if sending.not_before_ns > now_ns {
                next_ns = Some(next_ns.map_or(sending.not_before_ns, |next| next.min(sending.not_before_ns)));
                continue;
            }
            sending.is_busy = true;
            let transmitter = Arc::clone(self);
            tasks.start(async move { transmitter.deliver(id).await });
        }
        next_ns.map(|at| Duration::from_nanos(at.saturating_sub(now_ns)))
    }

    async fn deliver(&self, id: SmolStr) {
        let _busy = Busy { transmitter: self, id: id.clone() };
        for _ in 0..limits::SSF_PUSH_BATCH {
            let next = match self.next(&id) {
                Ok(Some(next)) => next,
                Ok(None) => return,
                Err(why) => return self.wait(&id, &why, None),
            };
            let token = match self.signed(&id, vec![next.item.clone()]).await {
                Ok(mut tokens) => tokens.pop(),
                Err(fault) => return self.wait(&id, &fault.to_string(), None),
            };
            let Some(token) = token else { return };
            let answer = self.pusher.send(&next.endpoint, next.authorization.as_ref(), &token.token).await;
            let metrics = self.metrics();
            match answer {
                Answer::Taken => {
                    metrics.sent.increment(1);
                    self.acknowledged(&id, &next.item.jti);
                }
                Answer::Unusable(why) => {
                    self.acknowledged(&id, &next.item.jti);
                    self.refused(&id, &next.item, &why);
                }
                Answer::Later { why, after } => return self.wait(&id, &why, after),
            }
        }
    }

    /// The first event of a stream. An error says why it cannot be sent now.
    fn next(&self, id: &str) -> Result<Option<Next>, String> {
        let mut streams = self.streams.lock();
        let Some(stream) = streams.by_id(id) else { return Ok(None) };
        let Delivery::Push { endpoint, authorization } = stream.wanted.delivery.clone() else {
            return Ok(None);
        };
        let receiver = self.receivers.named(&stream.receiver);
        let hosts = receiver.map(|receiver| receiver.push_hosts.as_slice()).unwrap_or_default();
        // The configuration may have changed since the stream was made.
        let endpoint = Endpoint::allowed(&endpoint, hosts).map_err(|fault| fault.to_string())?;
        let item = streams.hand_out(id, 1).pop();
        Ok(item.map(|item| Next { item, endpoint, authorization }))
    }

    fn acknowledged(&self, id: &str, jti: &str) {
        let mut streams = self.streams.lock();
        let (_gone, rows) = streams.acknowledge(id, &BTreeSet::from([jti]));
        self.keep(&streams, &rows);
        drop(streams);
        if let Some(sending) = self.sending.lock().get_mut(id) {
            sending.backoff.reset();
        }
    }

    /// Counts and records an event that its receiver cannot use.
    pub(super) fn refused(&self, id: &str, item: &Item, why: &str) {
        self.metrics().dropped.refused.increment(1);
        let receiver =
            self.streams.lock().by_id(id).map_or_else(SmolStr::default, |stream| stream.receiver.clone());
        let what = if item.kind == Kind::Event { "event" } else { "notice" };
        tracing::warn!(stream = %id, %receiver, jti = %item.jti, why, "a receiver cannot use an {what}");
        let reason = format!("`{}`: {why}", item.jti);
        self.note(v1::StreamRecord { events: 1, reason, ..stream_record(id, &receiver, "event_refused") });
    }

    /// Lets a stream wait after a failure.
    fn wait(&self, id: &str, why: &str, after: Option<Duration>) {
        self.metrics().retried.increment(1);
        let now_ns = self.now().mono_ns;
        let mut all = self.sending.lock();
        let sending = all.entry(id.into()).or_default();
        let wait = sending.backoff.next(fastrand::u64(..)).min(limits::SSF_PUSH_BACKOFF_MAX);
        let wait = after.map_or(wait, |after| after.max(wait));
        sending.not_before_ns = now_ns.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        let failures = sending.backoff.failures();
        drop(all);
        // Once loudly; a receiver that is away for a day does not fill the log.
        if failures == 1 {
            tracing::warn!(stream = %id, why, "an event could not be pushed; it is tried again");
        } else {
            tracing::debug!(stream = %id, why, failures, "an event could not be pushed; it is tried again");
        }
    }

    /// Forgets the waiting of a stream, because its receiver changed something.
    pub(super) fn try_again(&self, id: &str) {
        if let Some(sending) = self.sending.lock().get_mut(id) {
            sending.backoff.reset();
            sending.not_before_ns = 0;
        }
        self.work.notify_one();
    }

    /// Rings for those who poll the streams that got something.
    pub(super) fn wake_pollers(&self, done: &Done) {
        let ids: BTreeSet<&SmolStr> = done
            .rows
            .iter()
            .filter_map(|row| match row {
                Row::PutItem(id, _) => Some(id),
                Row::PutStream(_)
                | Row::DeleteStream(_)
                | Row::PutRemoved(..)
                | Row::DeleteRemoved(..)
                | Row::DeleteItem(..) => None,
            })
            .collect();
        let all = self.sending.lock();
        for id in ids {
            if let Some(sending) = all.get(id) {
                sending.arrived.notify_waiters();
            }
        }
    }

    /// The tokens of events, in their order. Signing takes about a millisecond each and is done on a thread that may block.
    pub(super) async fn signed(&self, id: &str, items: Vec<Item>) -> Result<Vec<Signed>, signing::KeyFault> {
        let signer = Arc::clone(&self.signer);
        let current = signer.current().map(|key| key.life.kid.clone());
        let is_signed = |item: &Item| item.signed.as_ref().map(|signed| &signed.kid) == current.as_ref();
        if items.iter().all(is_signed) {
            return Ok(items.into_iter().filter_map(|item| item.signed).collect());
        }
        let work = items.clone();
        let signed = tokio::task::spawn_blocking(move || {
            let sign = |item: Item| match item.signed {
                Some(signed) if Some(&signed.kid) == current.as_ref() => Ok(signed),
                _ => signer.sign(&item.claims),
            };
            work.into_iter().map(sign).collect::<Result<Vec<Signed>, _>>()
        });
        let signed = signed.await.map_err(|_| signing::KeyFault::Sign)??;
        let mut streams = self.streams.lock();
        for (item, signed) in items.iter().zip(&signed) {
            streams.keep_token(id, &item.jti, signed);
        }
        Ok(signed)
    }
}
