//! Standard signals out: a transmitter of the Shared Signals Framework 1.0 that tells what this node concludes.
//!
//! ```text
//! Transmitter::conclude -> bounded queue -> an event for each stream -> outbox -> push (RFC 8935), or poll (RFC 8936)
//!                                                                   \-> ledger
//! ```
//!
//! `streams.rs` and `outbox.rs` are the state, plain data; `store.rs` keeps it. `handle.rs` answers receivers (`request.rs`
//! reads them, `receivers.rs` knows them), `poll.rs` and `deliver.rs` get events to them, `signing.rs` has the keys.
//!
//! INVARIANT (nobody waits for a signal): [`Transmitter::conclude`] takes no lock that is held across I/O and never waits; a
//! full queue is counted, recorded, and told to every receiver. INVARIANT (told until it is heard): an event stays until its
//! receiver has it or a bound of its stream is reached, across restarts; what is dropped is counted, recorded, and told.
//! INVARIANT (no echo): an event is not sent to whoever caused it.
//! What a kill can lose is what was concluded in the last commit of the ledger, some milliseconds.
//! Limits: `SSF_*` in `limits.rs`.
//! Never does: deciding anything, believing anything a receiver says about a subject.

mod claims;
pub mod conclusion;
mod deliver;
mod endpoint;
mod handle;
pub mod options;
mod outbox;
mod poll;
mod push;
mod receivers;
mod request;
mod signing;
mod store;
mod streams;
mod subject;
mod urls;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cardea_core::time::Now;
use cardea_proto::v1::{self, record::Entry};
use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::sync::Notify;

use self::claims::Maker;
use self::conclusion::Conclusion;
use self::deliver::Sending;
pub use self::endpoint::PushHost;
pub use self::options::{Options, Receiver, Scopes};
use self::outbox::Bounds;
pub use self::push::ClientFault;
use self::push::Pusher;
use self::receivers::Receivers;
pub use self::receivers::TokenFault;
pub use self::signing::KeyFault;
use self::signing::{Signer, Step};
use self::store::Store;
use self::streams::{Done, Stream, Streams};
pub use self::subject::{TEMPLATE_DEFAULT, Template};
pub use self::urls::Urls;
use crate::audit::Audit;
use crate::clock::Clock;
use crate::ledger::{Ledger, LedgerFault};
use crate::limits;
use crate::metrics::{Metrics, TransmitMetrics};
use crate::shutdown::{Phase, Shutdown};
use crate::supervise::Supervisor;

/// Why the transmitter cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// Tokens of a receiver.
    #[error(transparent)]
    Tokens(#[from] TokenFault),
    /// Signing keys.
    #[error(transparent)]
    Keys(#[from] KeyFault),
    /// What was kept.
    #[error(transparent)]
    Store(#[from] LedgerFault),
    /// The client that pushes.
    #[error(transparent)]
    Client(#[from] ClientFault),
}

/// See the module.
pub struct Transmitter {
    options: Options,
    receivers: Receivers,
    streams: Mutex<Streams>,
    sending: Mutex<BTreeMap<SmolStr, Sending>>,
    store: Store,
    signer: Arc<Signer>,
    pusher: Pusher,
    /// Conclusions, each with when it came in, Unix milliseconds.
    intake: ArrayQueue<(Conclusion, i64)>,
    lost: AtomicU64,
    work: Notify,
    around: Around,
}

/// What the transmitter works with.
#[derive(Clone, Debug)]
pub struct Around {
    /// Where streams, events and the lives of keys are kept.
    pub ledger: Ledger,
    /// Directory of the private keys.
    pub keys_dir: PathBuf,
    /// Where changes are recorded.
    pub audit: Arc<Audit>,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
    /// Where it reads the time.
    pub clock: Clock,
    /// Ends it.
    pub shutdown: Shutdown,
}

impl std::fmt::Debug for Transmitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transmitter").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Transmitter {
    /// Takes back what the ledger has, and makes the first key. Blocks, for seconds where a key must be made.
    ///
    /// # Errors
    /// See [`OpenFault`].
    pub fn open(options: Options, around: Around) -> Result<Self, OpenFault> {
        let receivers = Receivers::open(&options.receivers)?;
        let bounds = Bounds {
            items: options.outbox_max,
            bytes: limits::SSF_OUTBOX_BYTES_MAX,
            age_ms: i64::try_from(limits::SSF_EVENT_AGE_MAX.as_millis()).unwrap_or(i64::MAX),
        };
        let interval_ms =
            i64::try_from(options.min_verification_interval_s).unwrap_or(i64::MAX / 1000) * 1000;
        let mut streams = Streams::new(bounds, interval_ms);
        let store = Store::new(around.ledger.clone());
        store.load(&mut streams)?;
        let (signer, gone) = Signer::open(&around.keys_dir, store.keys()?)?;
        let pusher = Pusher::new(options.ca.as_deref())?;
        let transmitter = Self {
            receivers,
            streams: Mutex::new(streams),
            sending: Mutex::default(),
            store,
            signer: Arc::new(signer),
            pusher,
            intake: ArrayQueue::new(limits::SSF_CONCLUSIONS_MAX),
            lost: AtomicU64::new(0),
            work: Notify::new(),
            around,
            options,
        };
        for life in gone {
            tracing::error!(kid = %life.kid, "the file of a signing key is gone: what it signed cannot be verified any more");
            transmitter.note(stream_record(&life.kid, "", "key_lost"));
            transmitter.store.write_keys(&[], &[life.kid])?;
        }
        while let Some(step) = transmitter.key_step() {
            transmitter.look_after_keys(&step)?;
        }
        for stream in transmitter.streams.lock().all() {
            if transmitter.receivers.named(&stream.receiver).is_none() {
                tracing::warn!(stream = %stream.id, receiver = %stream.receiver, "a stream of nobody: its receiver is not configured any more");
            }
        }
        Ok(transmitter)
    }

    /// Takes a conclusion in. It never waits: where too many wait already, it is counted, and every receiver will be told that
    /// something is missing.
    pub fn conclude(&self, conclusion: Conclusion, now: Now) {
        if self.intake.push((conclusion, now.wall_ms)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.metrics().conclusions_lost.increment(1);
        }
        self.work.notify_one();
    }

    /// Turns conclusions into events, pushes them and looks after the rest, until the process drains.
    ///
    /// # Errors
    /// None.
    pub async fn run(self: Arc<Self>, supervisor: Supervisor) -> Result<(), Infallible> {
        let (events, _) = tokio::join!(Arc::clone(&self).run_events(supervisor), self.run_keys());
        Ok(events)
    }

    /// Turns what was concluded after [`Self::run`] ended into events; the next start delivers them.
    pub fn keep_rest(&self) {
        self.publish_all();
    }

    async fn run_events(self: Arc<Self>, supervisor: Supervisor) {
        let mut tasks = supervisor.tasks();
        let mut upkeep = tokio::time::interval(limits::SSF_UPKEEP_INTERVAL);
        upkeep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.around.shutdown.phase() == Phase::Running {
            while self.publish_some() {
                // Others run on this thread, too.
                tokio::task::yield_now().await;
            }
            let due = self.start_due(&mut tasks);
            tokio::select! {
                () = self.work.notified() => {}
                () = tasks.join_next(), if !tasks.is_empty() => {}
                () = tokio::time::sleep(due.unwrap_or(limits::SSF_UPKEEP_INTERVAL)) => {}
                _ = upkeep.tick() => self.upkeep(),
                () = self.around.shutdown.draining() => {}
            }
        }
        tasks.abort_all().await;
    }

    async fn run_keys(&self) {
        while self.around.shutdown.phase() == Phase::Running {
            if let Some(step) = self.key_step()
                && let Err(fault) = self.key_step_aside(step).await
            {
                tracing::error!(%fault, "the signing keys could not be looked after; the last one goes on signing");
            }
            tokio::select! {
                () = tokio::time::sleep(limits::SSF_UPKEEP_INTERVAL) => {}
                () = self.around.shutdown.draining() => {}
            }
        }
    }

    fn key_step(&self) -> Option<Step> {
        let days = i64::try_from(self.options.key_days).unwrap_or(i64::MAX);
        signing::due(&self.signer.lives(), days.saturating_mul(86_400_000), self.now().wall_ms)
    }

    /// One step; making a key takes long and is done on a thread that may block.
    async fn key_step_aside(&self, step: Step) -> Result<(), OpenFault> {
        if step != Step::Make {
            return self.look_after_keys(&step);
        }
        let (signer, now_ms) = (Arc::clone(&self.signer), self.now().wall_ms);
        let made = tokio::task::spawn_blocking(move || signer.make(now_ms)).await;
        let key = made.unwrap_or_else(|error| Err(KeyFault::Make(error.to_string())))?;
        self.publish_key(key)
    }

    fn look_after_keys(&self, step: &Step) -> Result<(), OpenFault> {
        let now_ms = self.now().wall_ms;
        match step {
            Step::Make => self.publish_key(self.signer.make(now_ms)?)?,
            Step::Promote => {
                let changed = self.signer.promote(now_ms);
                self.store.write_keys(&changed, &[])?;
                for life in changed.iter().filter(|life| life.ended_ms.is_none()) {
                    self.note(stream_record(&life.kid, "", "key_signs"));
                }
            }
            Step::Forget(kid) => {
                self.store.write_keys(&[], std::slice::from_ref(kid))?;
                self.signer.forget(kid);
                self.note(stream_record(kid, "", "key_forgotten"));
            }
        }
        Ok(())
    }

    /// The file is there; then the row; then it is published.
    fn publish_key(&self, key: signing::Key) -> Result<(), OpenFault> {
        let life = key.life.clone();
        self.store.write_keys(std::slice::from_ref(&life), &[])?;
        self.signer.publish(key);
        self.note(stream_record(&life.kid, "", "key_made"));
        Ok(())
    }

    /// Turns what was concluded into events.
    fn publish_all(&self) {
        while self.publish_some() {}
    }

    /// Turns some of what was concluded into events. Returns whether there was anything.
    fn publish_some(&self) -> bool {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let batch: Vec<(Conclusion, i64)> =
            std::iter::from_fn(|| self.intake.pop()).take(limits::SSF_CONCLUSIONS_AT_ONCE).collect();
        if batch.is_empty() && lost == 0 {
            return false;
        }
        let done = self.publish(&batch, lost);
        self.account(&done);
        self.wake_pollers(&done);
        if lost > 0 {
            tracing::warn!(
                lost,
                "conclusions were lost before they became events: too much happened at once"
            );
            self.note(v1::StreamRecord { events: lost, ..stream_record("", "", "conclusions_lost") });
        }
        true
    }

    fn publish(&self, batch: &[(Conclusion, i64)], lost: u64) -> Done {
        let now_ms = self.now().wall_ms;
        let maker = Maker { issuer: self.options.urls.issuer(), now_ms };
        let audience = |stream: &Stream| self.audience(stream);
        let mut notice = |stream: &Stream, lost| maker.notice(&audience(stream), stream, lost);
        let mut streams = self.streams.lock();
        let ids: Vec<SmolStr> = streams.all().map(|stream| stream.id.clone()).collect();
        let mut done = Done::default();
        if lost > 0 {
            for id in &ids {
                let Some(stream) = streams.by_id(id) else { continue };
                let told = maker.conclusions_lost(&audience(stream), stream, lost);
                done.join(streams.tell(id, told, now_ms, &mut notice));
            }
        }
        for (conclusion, came_ms) in batch {
            let maker = Maker { now_ms: *came_ms, ..maker };
            let Some(subject) = self.options.subject.subject(&conclusion.about, maker.issuer) else {
                self.metrics().dropped.no_subject.increment(1);
                continue;
            };
            let (kind, payload) = (conclusion.what.event_type(), conclusion::payload(conclusion));
            let txn = conclusion.cause.as_ref().and_then(|cause| cause.txn.clone());
            let txn = txn.unwrap_or_else(claims::unique);
            for id in &ids {
                if !streams.by_id(id).is_some_and(|stream| self.wants(stream, conclusion)) {
                    continue;
                }
                let make = |stream: &Stream| maker.event(&audience(stream), &txn, &subject, kind, &payload);
                done.join(streams.publish(id, &subject, make, now_ms, &mut notice));
            }
        }
        self.keep(&streams, &done.rows);
        done
    }

    /// Upholds INVARIANT (no echo).
    fn wants(&self, stream: &Stream, conclusion: &Conclusion) -> bool {
        let Some(receiver) = self.receivers.named(&stream.receiver) else { return false };
        let is_echo = conclusion.cause.as_ref().is_some_and(|cause| {
            cause.from == receiver.audience
                || cause.from == receiver.name
                || receiver.transmits_as.as_ref().is_some_and(|issuer| *issuer == cause.from)
        });
        !is_echo && stream.wanted.has(conclusion.what.event_type())
    }

    fn audience(&self, stream: &Stream) -> String {
        self.receivers.named(&stream.receiver).map_or_else(String::new, |receiver| receiver.audience.clone())
    }

    /// Hands rows to the ledger without waiting for them. Where it takes no more, or half of what it takes waits already (the
    /// rest is for the state), events go on being delivered from memory.
    fn keep(&self, streams: &Streams, rows: &[streams::Row]) {
        if rows.is_empty() {
            return;
        }
        let written = if self.store.has_room() {
            self.store.write(streams, rows).map(drop)
        } else {
            Err(LedgerFault::Full { why: self.around.ledger.fault() })
        };
        if let Err(fault) = written {
            self.metrics().unstored.increment(rows.len() as u64);
            tracing::error!(%fault, rows = rows.len(), "changes of outgoing signals are not kept: a restart would lose them");
        }
    }

    /// Counts and records what was dropped.
    fn account(&self, done: &Done) {
        for (id, dropped) in &done.dropped {
            self.metrics().dropped.bounds.increment(*dropped);
            let receiver =
                self.streams.lock().by_id(id).map_or_else(SmolStr::default, |stream| stream.receiver.clone());
            tracing::warn!(stream = %id, %receiver, dropped, "events were dropped: their receiver did not take them in time");
            let record = stream_record(id, &receiver, "events_dropped");
            self.note(v1::StreamRecord { events: *dropped, ..record });
        }
    }

    fn upkeep(&self) {
        // Files are small and local, and read rarely; tokens that are gone must stop to count soon.
        for fault in self.receivers.refresh() {
            tracing::warn!(%fault, "nobody counts as this receiver while its tokens cannot be read");
        }
        let now_ms = self.now().wall_ms;
        let maker = Maker { issuer: self.options.urls.issuer(), now_ms };
        let mut notice = |stream: &Stream, lost| maker.notice(&self.audience(stream), stream, lost);
        let done = {
            let mut streams = self.streams.lock();
            let done = streams.expire(now_ms, &mut notice);
            self.keep(&streams, &done.rows);
            self.metrics().gauge(
                streams.all().count(),
                streams.all().map(|stream| stream.outbox.len()).sum(),
                streams
                    .all()
                    .filter_map(|stream| stream.outbox.oldest_ms())
                    .min()
                    .map_or(0, |since| now_ms - since),
            );
            let mut sending = self.sending.lock();
            sending.retain(|id, _| streams.by_id(id).is_some());
            done
        };
        self.account(&done);
    }

    fn now(&self) -> Now {
        self.around.clock.now()
    }

    fn metrics(&self) -> &TransmitMetrics {
        &self.around.metrics.transmit
    }

    fn note(&self, record: v1::StreamRecord) {
        let time_ms = u64::try_from(self.now().wall_ms).unwrap_or(0);
        if !self.around.audit.record(time_ms, Entry::Stream(record)) {
            self.around.metrics.audit_gaps.increment(1);
        }
    }
}

/// The record of a change of a stream, or of a key by its id.
fn stream_record(stream_id: &str, receiver: &str, change: &str) -> v1::StreamRecord {
    v1::StreamRecord {
        stream_id: stream_id.to_owned(),
        receiver: receiver.to_owned(),
        change: change.to_owned(),
        ..v1::StreamRecord::default()
    }
}

#[cfg(test)]
mod tests;
