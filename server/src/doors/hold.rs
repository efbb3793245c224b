//! `DecisionService.Hold`: allows that an enforcement point acts on, and what becomes of them.
//!
//! One task for each stream. It reads a message only while the answers to it have room beside those that wait, so that a
//! caller that does not read holds back itself. Attempts are read here, against the snapshot in force, and judged by the
//! thread of the holds.
//! Limits: [`limits::HOLD_MESSAGE_MAX`] attempts or ids in a message, [`limits::HOLD_NAME_BYTES_MAX`] for a name.
//! Never does: judging, keeping holds.

use std::sync::Arc;

use cardea_core::attempt::NotAnAttempt;
use cardea_core::reason::ReasonCode;
use cardea_proto::v1;
use cardea_proto::v1::hold_request::Part as Asked;
use cardea_proto::v1::hold_response::Part as Said;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};

use super::{native, wire};
use crate::holds::{
    Answer, Batch, Cause, CauseKind, End, Engine, Forget, Holds, Opened, Opening, Registration, ResumeToken,
    Stopping, Waiting,
};
use crate::limits;
use crate::listen::{Peer, Transport};
use crate::pipeline::{Pipeline, Refused};

/// The holds of a node, in the words of this wire.
pub type WireHolds = Holds<v1::Verdict>;

/// Holds in front of this pipeline, and their engine.
#[must_use]
pub fn holds(pipeline: Arc<Pipeline>) -> (WireHolds, Engine<v1::Verdict>) {
    Holds::new(pipeline, wire::verdict)
}

pub(super) type HoldStream = BoxStream<'static, Result<v1::HoldResponse, Status>>;

/// Serves one stream.
pub(super) async fn serve(
    holds: &WireHolds,
    request: Request<Streaming<v1::HoldRequest>>,
) -> Result<Response<HoldStream>, Status> {
    let (identity, peer) = identity(request.extensions().get::<Peer>());
    let mut asked = request.into_inner();
    let first = tokio::time::timeout(limits::HOLD_OPEN_TIMEOUT, asked.message()).await;
    let first = first.map_err(|_late| Status::deadline_exceeded("`open` did not come in time"))??;
    let Some(v1::HoldRequest { part: Some(Asked::Open(open)) }) = first else {
        return Err(Status::invalid_argument("the first message of a Hold stream is `open`"));
    };
    let enforcement_point = open.enforcement_point;
    if enforcement_point.is_empty() || enforcement_point.len() > limits::HOLD_NAME_BYTES_MAX {
        let max = limits::HOLD_NAME_BYTES_MAX;
        return Err(Status::invalid_argument(format!("`enforcement_point` has 1 to {max} bytes")));
    }
    let resume = ResumeToken::parse(&open.resume_token).map(|token| (token, open.from_sequence));
    let opening = Opening {
        enforcement_point: enforcement_point.into(),
        identity: identity.into(),
        peer: peer.into(),
        resume,
    };
    let opened = holds.open(opening).await.map_err(|stopping| unavailable(&stopping))?;
    let opened = opened.map_err(|full| Status::resource_exhausted(full.to_string()))?;
    let first = Said::Opened(opened_message(&opened, loss_max_ms(holds)));
    let mut heartbeat = tokio::time::interval(limits::HOLD_HEARTBEAT / 2);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let conversation = Conversation {
        holds: holds.clone(),
        asked,
        stream: opened.stream,
        outbox: opened.outbox,
        first: Some(first),
        waiting: None,
        heartbeat,
        told_version: opened.state_version,
        is_over: false,
    };
    let told = futures_util::stream::unfold(conversation, |mut conversation| async move {
        let next = conversation.next().await?;
        let next = next.map(|part| v1::HoldResponse { part: Some(part) });
        if next.is_err() {
            conversation.is_over = true;
        }
        Some((next, conversation))
    });
    Ok(Response::new(told.boxed()))
}

/// One stream, as its task sees it.
struct Conversation {
    holds: WireHolds,
    asked: Streaming<v1::HoldRequest>,
    stream: u64,
    outbox: Waiting<v1::Verdict>,
    first: Option<Said>,
    /// Registrations for whose answers there was no room yet.
    waiting: Option<Vec<Registration>>,
    heartbeat: tokio::time::Interval,
    told_version: u64,
    is_over: bool,
}

impl Drop for Conversation {
    /// However the stream ends: unless its caller said that it is done, its holds wait to be resumed.
    fn drop(&mut self) {
        self.outbox.leave(false);
    }
}

impl Conversation {
    /// The next message; `None` at the end.
    async fn next(&mut self) -> Option<Result<Said, Status>> {
        if self.is_over {
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        loop {
            if let Some(said) = self.take() {
                return Some(Ok(said));
            }
            if let Some(end) = self.outbox.ended() {
                return Some(Err(ended(end)));
            }
            if let Some(holds) = self.waiting.take() {
                if self.outbox.expect(holds.len()) {
                    if let Err(stopping) = self.holds.add(self.stream, &self.outbox, holds).await {
                        return Some(Err(unavailable(&stopping)));
                    }
                } else {
                    self.waiting = Some(holds);
                }
            }
            tokio::select! {
                biased;
                () = self.outbox.changed() => {}
                asked = self.asked.message(), if self.waiting.is_none() => match self.hear(asked).await {
                    Ok(true) => {}
                    Ok(false) => {
                        self.outbox.leave(true);
                        return None;
                    }
                    Err(status) => return Some(Err(status)),
                },
                _ = self.heartbeat.tick() => {
                    if let Some(heartbeat) = self.beat() {
                        return Some(Ok(heartbeat));
                    }
                }
            }
        }
    }

    /// Takes what waits to be told.
    fn take(&mut self) -> Option<Said> {
        // Read before the outbox: whatever belongs to versions up to this one is in there.
        let told = self.holds.told();
        let batch = self.outbox.take(limits::HOLD_BATCH_MAX)?;
        self.heartbeat.reset();
        Some(match batch {
            Batch::Forget { why, sequence } => {
                let reason = match why {
                    Forget::SlowReader => v1::hold_forget::Reason::SlowReader,
                    Forget::TooOld => v1::hold_forget::Reason::TooOld,
                };
                Said::Forget(v1::HoldForget {
                    reason: reason.into(),
                    state_version: self.told_version,
                    sequence,
                })
            }
            Batch::Answers { answers, sequence, is_all } => {
                if is_all {
                    self.told_version = self.told_version.max(told);
                }
                let now_ns = self.holds.pipeline().now().mono_ns;
                let metrics = &self.holds.pipeline().metrics().holds;
                let verdict = |(hold_id, answer): (u64, Answer<v1::Verdict>)| {
                    if answer.cause.is_some() {
                        metrics.pushed_after(now_ns.saturating_sub(answer.noticed_ns));
                    }
                    let cause = answer.cause.as_deref().map(cause_message);
                    v1::HoldVerdict { hold_id, verdict: Some(answer.said), cause }
                };
                Said::Verdicts(v1::HoldVerdicts {
                    verdicts: answers.into_iter().map(verdict).collect(),
                    state_version: self.told_version,
                    sequence,
                })
            }
        })
    }

    /// A sign of life, while holds are being judged. It says that nothing else changed, so it waits for what is still to be
    /// told.
    fn beat(&mut self) -> Option<Said> {
        let told = self.holds.told();
        if !self.holds.is_alive() {
            return None;
        }
        let sequence = self.outbox.told()?;
        self.told_version = self.told_version.max(told);
        Some(Said::Heartbeat(v1::HoldHeartbeat { state_version: self.told_version, sequence }))
    }

    /// Does what a message asks; `false` if the caller is done.
    async fn hear(&mut self, asked: Result<Option<v1::HoldRequest>, Status>) -> Result<bool, Status> {
        let Some(message) = asked? else { return Ok(false) };
        match message.part {
            Some(Asked::Add(add)) => {
                let registrations = self.read(&add.holds)?;
                self.waiting = (!registrations.is_empty()).then_some(registrations);
            }
            Some(Asked::Drop(drop)) => {
                at_most(drop.hold_ids.len())?;
                let dropped = self.holds.drop_holds(self.stream, &self.outbox, drop.hold_ids).await;
                dropped.map_err(|stopping| unavailable(&stopping))?;
            }
            Some(Asked::Open(_)) => {
                return Err(Status::invalid_argument(
                    "`open` is the first message of a stream, and no other",
                ));
            }
            None => return Err(Status::invalid_argument("a message says `add` or `drop`")),
        }
        Ok(true)
    }

    fn read(&self, holds: &[v1::HoldAttempt]) -> Result<Vec<Registration>, Status> {
        at_most(holds.len())?;
        if holds.iter().any(|hold| hold.hold_id == 0) {
            return Err(Status::invalid_argument("a `hold_id` is not 0"));
        }
        let snapshot = self.holds.pipeline().policy().snapshot();
        let revision = snapshot.as_ref().map_or(0, |snapshot| snapshot.settings().revision);
        let registration = |hold: &v1::HoldAttempt| {
            let missing = v1::Attempt::default();
            let attempt = hold.attempt.as_ref().unwrap_or(&missing);
            let bytes = u64::try_from(attempt.encoded_len()).unwrap_or(u64::MAX);
            let read = match &snapshot {
                _ if bytes > limits::HOLD_ATTEMPT_BYTES_MAX => {
                    Err(NotAnAttempt { code: ReasonCode::Malformed, message: too_large() })
                }
                Some(snapshot) => native::read(attempt, snapshot),
                None => Err(NotAnAttempt { code: ReasonCode::NoPolicy, message: no_policy() }),
            };
            let read =
                read.map(Box::new).map_err(|fault| Box::new(Refused { fault, seen: native::seen(attempt) }));
            Registration { hold_id: hold.hold_id, attempt: read, revision, bytes }
        };
        Ok(holds.iter().map(registration).collect())
    }
}

fn too_large() -> String {
    let max = limits::HOLD_ATTEMPT_BYTES_MAX;
    format!("an attempt that is held has at most {max} bytes; ask about this one for each use")
}

fn no_policy() -> String {
    "no policy bundle is in force, so nothing can be held; register it again later".to_owned()
}

fn at_most(count: usize) -> Result<(), Status> {
    if count > limits::HOLD_MESSAGE_MAX {
        let max = limits::HOLD_MESSAGE_MAX;
        return Err(Status::invalid_argument(format!("{count} holds in one message; send at most {max}")));
    }
    Ok(())
}

/// What the bundle in force says; without one nothing is acted on.
fn loss_max_ms(holds: &WireHolds) -> u32 {
    holds.pipeline().policy().snapshot().map_or(0, |snapshot| snapshot.settings().lease.stream_loss_max_ms)
}

fn opened_message(opened: &Opened<v1::Verdict>, loss_max_ms: u32) -> v1::HoldOpened {
    let ms = |span: std::time::Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
    v1::HoldOpened {
        resume_token: opened.token.to_string(),
        resumed: opened.resumed,
        state_version: opened.state_version,
        resume_ms: ms(limits::HOLD_RESUME),
        loss_max_ms,
        heartbeat_ms: ms(limits::HOLD_HEARTBEAT),
        sequence: opened.sequence,
    }
}

fn unavailable(stopping: &Stopping) -> Status {
    Status::unavailable(stopping.to_string())
}

fn ended(end: End) -> Status {
    match end {
        End::Resumed => Status::aborted("the stream goes on on another connection"),
        End::Stopping => unavailable(&Stopping),
    }
}

/// What the connection proves, whole, and the same for people. A connection that proves nothing is as good as any other
/// such one: the token alone protects its stream.
fn identity(peer: Option<&Peer>) -> (String, String) {
    match peer.map(Peer::transport) {
        Some(Transport::Tls { certificate, .. }) => {
            // By names and not by the certificate, which is renewed while the process behind it goes on.
            let names = format!("tls {:?} {:?} {:?}", certificate.subject, certificate.uris, certificate.dns);
            let has_names = !(certificate.subject.is_empty()
                && certificate.uris.is_empty()
                && certificate.dns.is_empty());
            let identity = if has_names { names } else { format!("tls {:?}", certificate.der.as_ref()) };
            let spiffe = certificate.uris.iter().find(|uri| uri.starts_with("spiffe://"));
            (identity, spiffe.unwrap_or(&certificate.subject).clone())
        }
        Some(Transport::Unix { uid: Some(uid) }) => (format!("uid {uid}"), format!("uid:{uid}")),
        Some(Transport::Unix { uid: None }) => ("unix".to_owned(), String::new()),
        Some(Transport::Tcp { .. }) => ("tcp".to_owned(), String::new()),
        None => (String::new(), String::new()),
    }
}

/// A cause in the words of the wire.
pub(super) fn cause_message(cause: &Cause) -> v1::HoldCause {
    v1::HoldCause {
        kind: kind(cause.kind).into(),
        name: cause.name.to_string(),
        change: cause.change.to_owned(),
        state_version: cause.state_version,
    }
}

/// A cause for a record.
pub(crate) fn cause_record(cause: &Cause) -> v1::HoldCause {
    v1::HoldCause {
        kind: kind(cause.kind).into(),
        name: cause.name.to_string(),
        change: cause.change.to_owned(),
        state_version: cause.state_version,
    }
}

fn kind(kind: CauseKind) -> v1::hold_cause::Kind {
    match kind {
        CauseKind::Session => v1::hold_cause::Kind::Session,
        CauseKind::Principal => v1::hold_cause::Kind::Principal,
        CauseKind::Device => v1::hold_cause::Kind::Device,
        CauseKind::Tenant => v1::hold_cause::Kind::Tenant,
        CauseKind::Task => v1::hold_cause::Kind::Task,
        CauseKind::Grant => v1::hold_cause::Kind::Grant,
        CauseKind::Bundle => v1::hold_cause::Kind::Bundle,
        CauseKind::Time => v1::hold_cause::Kind::Time,
        CauseKind::Source => v1::hold_cause::Kind::Source,
        CauseKind::Everything => v1::hold_cause::Kind::Everything,
        CauseKind::Audit => v1::hold_cause::Kind::Audit,
    }
}
