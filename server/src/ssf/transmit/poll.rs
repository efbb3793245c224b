//! Polls, by RFC 8936: acknowledge first, then answer with what waits, or wait for it.
//!
//! Limits: [`limits::SSF_POLL_EVENTS_MAX`] events, [`limits::SSF_POLL_WAIT`], [`limits::SSF_POLL_WAITERS_MAX`] polls of one
//! stream that wait.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use smol_str::SmolStr;
use tokio::sync::Notify;

use super::Transmitter;
use super::handle::Refusal;
use super::options::Receiver;
use super::outbox::{Item, Signed};
use super::request::PollRequest;
use super::streams::Delivery;
use crate::limits;

/// A poll that waits; it counts until it is dropped, also where its caller went away.
struct Waiter<'t> {
    transmitter: &'t Transmitter,
    id: SmolStr,
    arrived: Arc<Notify>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(sending) = self.transmitter.sending.lock().get_mut(&self.id) {
            sending.waiters = sending.waiters.saturating_sub(1);
        }
    }
}

impl Transmitter {
    pub(super) async fn poll(
        &self,
        receiver: &Receiver,
        id: &str,
        request: PollRequest,
    ) -> Result<Value, Refusal> {
        if self.streams.lock().get(&receiver.name, id)?.wanted.delivery != Delivery::Poll {
            return Err(Refusal::invalid(
                "the events of this stream are pushed; set its `delivery` to poll first",
            ));
        }
        self.take_acknowledgements(id, &request);
        if request.most == 0 {
            let more = self.streams.lock().by_id(id).is_some_and(|stream| !stream.outbox.is_empty());
            return Ok(json!({ "sets": {}, "moreAvailable": more }));
        }
        let (mut items, mut more) = self.waiting(id, request.most);
        if items.is_empty() && !request.at_once {
            (items, more) = self.wait_for_events(id, request.most).await?;
        }
        let tokens = self
            .signed(id, items.clone())
            .await
            .map_err(|_| Refusal::unavailable("no event can be signed now"))?;
        self.metrics().sent.increment(tokens.len() as u64);
        let named = |(item, signed): (Item, Signed)| (item.jti.to_string(), json!(&*signed.token));
        let sets: Map<String, Value> = items.into_iter().zip(tokens).map(named).collect();
        Ok(json!({ "sets": sets, "moreAvailable": more }))
    }

    fn take_acknowledgements(&self, id: &str, request: &PollRequest) {
        let known = request.acknowledged.iter().chain(request.refused.iter().map(|(jti, _)| jti));
        let known: BTreeSet<&str> = known.map(String::as_str).collect();
        if known.is_empty() {
            return;
        }
        let mut streams = self.streams.lock();
        let (gone, rows) = streams.acknowledge(id, &known);
        self.keep(&streams, &rows);
        drop(streams);
        for (jti, why) in &request.refused {
            // Only what was there: what a receiver makes up must not fill the audit.
            if let Some(item) = gone.iter().find(|item| item.jti == jti.as_str()) {
                self.refused(id, item, why);
            }
        }
    }

    /// What waits, and whether there is more.
    fn waiting(&self, id: &str, most: usize) -> (Vec<Item>, bool) {
        let mut streams = self.streams.lock();
        let items = streams.hand_out(id, most);
        let all = streams.by_id(id).map_or(0, |stream| stream.outbox.len());
        let more = !items.is_empty() && all > items.len();
        (items, more)
    }

    async fn wait_for_events(&self, id: &str, most: usize) -> Result<(Vec<Item>, bool), Refusal> {
        let waiter = self.waiter(id)?;
        let end = tokio::time::sleep(limits::SSF_POLL_HOLD);
        tokio::pin!(end);
        loop {
            let arrived = waiter.arrived.notified();
            tokio::pin!(arrived);
            // Rings that come between the look and the wait count.
            arrived.as_mut().enable();
            let found = self.waiting(id, most);
            if !found.0.is_empty() || self.streams.lock().by_id(id).is_none() {
                return Ok(found);
            }
            tokio::select! {
                () = arrived => {}
                () = &mut end => return Ok(found),
                () = self.around.shutdown.draining() => return Ok(found),
            }
        }
    }

    fn waiter(&self, id: &str) -> Result<Waiter<'_>, Refusal> {
        let mut all = self.sending.lock();
        let sending = all.entry(id.into()).or_default();
        if sending.waiters >= limits::SSF_POLL_WAITERS_MAX {
            return Err(Refusal::too_many("too many polls of this stream wait already; end one first", 1));
        }
        sending.waiters += 1;
        let arrived = Arc::clone(&sending.arrived);
        Ok(Waiter { transmitter: self, id: id.into(), arrived })
    }
}
