//! From the bytes of a token to a durable change of state: the one way in, for pushed and for fetched tokens.
//!
//! INVARIANT (durable first): [`Intake::take`] answers only when what the token changed, and that it was seen, survive the
//! end of the process. INVARIANT (once): looking whether a token was seen, applying it and noting it happen under one lock.
//! A token that is refused leaves no trace in the state.
//! Never does: speaking a transport.

use std::sync::Arc;
use std::time::Duration;

use cardea_core::time::Now;
use cardea_proto::v1::{self, record::Entry};
use parking_lot::Mutex;
use smol_str::SmolStr;

use super::super::event::{Event, StreamStatus};
use super::super::keys::Keys;
use super::super::set::{Expected, Refusal, Set, Told, Unverified};
use super::client::Client;
use super::options::Receiver;
use super::plan::{self, Manner, Plan};
use super::seen::{Seen, TokenName};
use super::stream::Stream;
use super::{apply, subjects::Whom};
use crate::concluding::Why;
use crate::ledger::LedgerFault;
use crate::metrics::ReceiverMetrics;
use crate::pipeline::{Pipeline, Seen as Shown, entity};
use crate::state::{Outcome, Signal, life_ms};

/// See the module.
#[derive(Debug)]
pub(crate) struct Intake {
    pipeline: Arc<Pipeline>,
    seen: Mutex<Seen>,
}

/// One transmitter at work.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) options: Receiver,
    pub(crate) client: Arc<Client>,
    pub(crate) keys: Keys,
    pub(crate) stream: Stream,
    pub(crate) metrics: ReceiverMetrics,
}

/// Why a token was not taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// It is wrong, and stays so.
    Refused(Refusal),
    /// It may be right; it can be sent again.
    Later(String),
}

impl Receiving {
    /// Shows in the metrics whether the stream is enabled.
    pub(crate) fn show_status(&self) {
        if let Some(status) = self.stream.status() {
            self.metrics.stream_enabled.set(if status == StreamStatus::Enabled { 1.0 } else { 0.0 });
        }
    }
}

impl From<Refusal> for NotTaken {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<LedgerFault> for NotTaken {
    fn from(fault: LedgerFault) -> Self {
        Self::Later(fault.to_string())
    }
}

/// A token that is believed, with what it leads to.
struct Prepared {
    outcome: &'static str,
    signals: Vec<Signal>,
    whom: Whom,
    kind: SmolStr,
    reason: SmolStr,
}

impl Intake {
    /// What was seen before is read from the ledger of the state.
    pub(crate) fn new(pipeline: Arc<Pipeline>) -> Result<Self, LedgerFault> {
        let seen = Mutex::new(Seen::load(pipeline.state().ledger())?);
        Ok(Self { pipeline, seen })
    }

    /// Takes in one token.
    pub(crate) async fn take(&self, from: &Receiving, token: &[u8]) -> Result<(), NotTaken> {
        from.metrics.received.increment(1);
        let taken = self.try_take(from, token).await;
        match &taken {
            Ok(()) => {}
            Err(NotTaken::Refused(refusal)) => {
                from.metrics.refused(refusal.code).increment(1);
                tracing::warn!(receiver = %from.options.name, code = refusal.code.word(), why = %refusal, "token refused");
            }
            Err(NotTaken::Later(why)) => {
                from.metrics.later.increment(1);
                tracing::warn!(receiver = %from.options.name, %why, "token not taken in now");
            }
        }
        taken
    }

    async fn try_take(&self, from: &Receiving, token: &[u8]) -> Result<(), NotTaken> {
        let options = &from.options;
        let unverified = Unverified::read(token)?;
        // Before the keys: nothing is looked up for a stranger.
        unverified.check_issuer(options.issuer.text())?;
        let keys =
            from.keys.for_token(&unverified).await.map_err(|fault| NotTaken::Later(fault.to_string()))?;
        let now = self.pipeline.now();
        let expected = Expected {
            issuer: options.issuer.text(),
            audience: &options.audience,
            oldest_iat_ms: now.wall_ms.saturating_sub(max_age_ms(options)),
        };
        let set = unverified.verify(&keys, &expected, now.wall_ms)?;
        self.accept(from, &set, now).await
    }

    async fn accept(&self, from: &Receiving, set: &Set, now: Now) -> Result<(), NotTaken> {
        let name = TokenName::of(&from.options.name, &set.jti);
        let is_new = if self.seen.lock().has(name) {
            false
        } else {
            let prepared = self.prepare(from, set, now).await?;
            self.apply_once(from, set, name, &prepared, now)?
        };
        if !is_new {
            from.metrics.duplicates.increment(1);
        }
        let Err(fault) = self.pipeline.state().durable().await else { return Ok(()) };
        self.seen.lock().forget(name);
        Err(fault.into())
    }

    async fn prepare(&self, from: &Receiving, set: &Set, now: Now) -> Result<Prepared, NotTaken> {
        let event = match &set.told {
            Told::Event(event) => event,
            Told::Unknown(uri) => {
                return Ok(Prepared {
                    outcome: "unknown_event",
                    signals: Vec::new(),
                    whom: Whom::default(),
                    kind: Shown::text(uri),
                    reason: SmolStr::default(),
                });
            }
        };
        let kind = plan::kind(event.kind());
        if event.kind().is_of_stream() {
            let nobody = Whom::default();
            return Ok(Prepared {
                outcome: "recorded",
                signals: Vec::new(),
                whom: nobody,
                kind,
                reason: "".into(),
            });
        }
        let Some(snapshot) = self.pipeline.policy().snapshot() else {
            return Err(NotTaken::Later("no policy bundle is in force, so types are not known".to_owned()));
        };
        let whom = Whom::of(&set.subject, &from.options.rules, &snapshot);
        // A stream that somebody else keeps tells nothing; what the keys were found by does.
        let (of_stream, of_keys) = (from.stream.critical(), from.keys.critical());
        let critical = from.options.critical.iter().chain(&of_stream).chain(&of_keys);
        let manner = Manner { risk: from.options.risk, claims_change: from.options.claims_change };
        let reason = reason(event);
        let (outcome, signals) = match Plan::of(
            event,
            set.event_ms.min(now.wall_ms),
            &whom,
            critical,
            &manner,
        ) {
            Plan::Record => ("recorded", Vec::new()),
            Plan::Unmapped => {
                tracing::warn!(
                    receiver = %from.options.name,
                    %kind,
                    format = set.subject.format(),
                    "a signal changed nothing: no rule `[[ssf.receiver.NAME.subject]]` gives its subject a name here, or \
                     the entity type that it names is not in the schema of the bundle in force"
                );
                ("unmapped", Vec::new())
            }
            Plan::Critical(_) => ("critical_member", Vec::new()),
            Plan::Change(effects) => {
                let state = self.pipeline.state();
                let when = apply::When::of(set.event_ms, now.wall_ms);
                let signals = apply::signals(state, effects, when, &reason).await?;
                (if signals.is_empty() { "unknown_subject" } else { "superseded" }, signals)
            }
        };
        Ok(Prepared { outcome, signals, whom, kind, reason })
    }

    /// Applies a token unless another that is the same came first; says whether it was new.
    fn apply_once(
        &self,
        from: &Receiving,
        set: &Set,
        name: TokenName,
        prepared: &Prepared,
        now: Now,
    ) -> Result<bool, NotTaken> {
        let mut seen = self.seen.lock();
        if seen.has(name) {
            return Ok(false);
        }
        if let Told::Event(event) = &set.told
            && event.kind().is_of_stream()
        {
            from.stream.hear(&event.what, &set.subject)?;
            from.show_status();
        }
        // The record of the signal stands before those of what it takes back.
        let _recorded_first = self.pipeline.state().feed().keep_back();
        let why = Why::signal(Shown::text(&set.issuer), set.txn.clone(), prepared.reason.clone());
        let (outcome, version) = self.apply(prepared, &why, now)?;
        let until_ms = set
            .iat_ms
            .saturating_add(max_age_ms(&from.options))
            .saturating_add(super::super::set::SKEW_MAX_MS);
        seen.add(name, until_ms, now.wall_ms)?;
        from.metrics.seen.set(count(seen.len()));
        drop(seen);
        from.metrics.taken(outcome).increment(1);
        from.metrics.event_age.set(seconds(now.wall_ms.saturating_sub(set.event_ms)));
        from.metrics.last_taken.set(seconds(now.wall_ms));
        let record = v1::SignalRecord {
            subject: prepared.whom.principal().map(entity),
            kind: prepared.kind.to_string(),
            source: Shown::text(&set.issuer).into(),
            outcome: outcome.to_owned(),
            state_version: version,
            reason: prepared.reason.to_string(),
            session_id: prepared.whom.session().map(SmolStr::to_string).unwrap_or_default(),
            txn: set.txn.as_ref().map(SmolStr::to_string).unwrap_or_default(),
            token_id: set.jti.to_string(),
        };
        self.pipeline.record(Entry::Signal(record), now);
        Ok(true)
    }

    fn apply(&self, prepared: &Prepared, why: &Why, now: Now) -> Result<(&'static str, u64), NotTaken> {
        let state = self.pipeline.state();
        let mut result = (prepared.outcome, state.version());
        let Some(snapshot) = self.pipeline.policy().snapshot() else { return Ok(result) };
        let life_ms = life_ms(snapshot.settings());
        let source = why.cause.as_ref().map_or("", |cause| cause.from.as_str());
        state.hear(source, snapshot.settings(), now);
        // While nothing can be kept, doors are closed all the same, and none is opened.
        if let Some(why) = state.fault()
            && prepared.signals.iter().any(|signal| state.is_opening(signal, now))
        {
            return Err(NotTaken::Later(format!("the state cannot be written to disk: {why}")));
        }
        for signal in &prepared.signals {
            let (outcome, version) = self
                .pipeline
                .apply(signal, why, life_ms, now)
                .map_err(|full| NotTaken::Later(full.to_string()))?;
            result.1 = result.1.max(version);
            match outcome {
                Outcome::Applied => result.0 = "applied",
                Outcome::UnknownSubject if result.0 != "applied" => result.0 = "unknown_subject",
                Outcome::Superseded | Outcome::UnknownSubject => {}
            }
        }
        Ok(result)
    }
}

/// Why, in the words of the transmitter: in English if it has them.
fn reason(event: &Event) -> SmolStr {
    let reasons = &event.common.reason_admin;
    let words = reasons.get("en").or_else(|| reasons.values().next());
    words.map(|words| Shown::text(words)).unwrap_or_default()
}

fn max_age_ms(options: &Receiver) -> i64 {
    let age = Duration::from_secs(options.max_age_h.saturating_mul(3600));
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests;
