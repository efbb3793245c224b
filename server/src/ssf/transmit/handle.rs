//! The answers to receivers: routing, rights, and the management of streams.
//!
//! A change is answered once it is durable; where the disk refuses, the answer is 503 and the change is in force but may not
//! survive a restart, so the receiver asks again. Every answer but the public documents says `Cache-Control: no-store`.
//! Limits: [`limits::SSF_REQUEST_BYTES_MAX`]. Never does: telling one receiver anything of another's streams, or reading a
//! body before it knows who asks.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::claims::{Maker, unique};
use super::options::Receiver;
use super::receivers::Unknown;
use super::request::{self, Wanted};
use super::stream_record;
use super::streams::{Refused, Row, Stream, Streams};
use super::urls::Route;
use super::{Done, Transmitter};
use crate::ledger::{LedgerFault, Ticket};
use crate::limits;
use crate::ssf::http::{self as port, Answer, Answering, BodyFault, Part};
use cardea_proto::v1;

/// Why a request is not done, as its sender sees it.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    why: String,
    retry_s: Option<u64>,
}

impl Refusal {
    fn of(status: StatusCode, code: &'static str, why: impl Into<String>) -> Self {
        Self { status, code, why: why.into(), retry_s: None }
    }

    /// 400.
    pub(super) fn invalid(why: impl Into<String>) -> Self {
        Self::of(StatusCode::BAD_REQUEST, "invalid_request", why)
    }

    /// 429.
    pub(super) fn too_many(why: impl Into<String>, retry_s: u64) -> Self {
        let refusal = Self::of(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", why);
        Self { retry_s: Some(retry_s), ..refusal }
    }

    /// 503.
    pub(super) fn unavailable(why: impl Into<String>) -> Self {
        Self::of(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why)
    }

    fn answer(self) -> Answer {
        let mut answer = port::json(self.status, &json!({ "err": self.code, "description": self.why }));
        let headers = answer.headers_mut();
        if let Some(seconds) = self.retry_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = if self.code == "invalid_token" {
                HeaderValue::from_static("Bearer error=\"invalid_token\"")
            } else {
                HeaderValue::from_static("Bearer")
            };
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if self.code == "insufficient_scope" {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"insufficient_scope\""));
        }
        answer
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let why = refused.to_string();
        match refused {
            Refused::NotFound => Self::of(StatusCode::NOT_FOUND, "not_found", why),
            Refused::TooManyStreams => Self::of(StatusCode::CONFLICT, "conflict", why),
            Refused::TooManySubjects => Self::too_many(why, 3600),
            Refused::TooSoon { retry_s } => Self::too_many(why, retry_s),
            Refused::Disabled => Self::invalid(why),
        }
    }
}

impl From<BodyFault> for Refusal {
    fn from(fault: BodyFault) -> Self {
        let status = match fault {
            BodyFault::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BodyFault::Broken => StatusCode::BAD_REQUEST,
        };
        Self::of(status, "invalid_request", fault.to_string())
    }
}

impl From<request::Fault> for Refusal {
    fn from(why: request::Fault) -> Self {
        Self::invalid(why)
    }
}

/// A change that is to be durable before it is answered.
type Changed = Result<Ticket, LedgerFault>;

impl Transmitter {
    /// Answers one request. `body` reads it whole and bounded; it is not asked before it is known who asks.
    pub(super) async fn handle(
        &self,
        parts: &Parts,
        body: impl Future<Output = Result<Bytes, BodyFault>>,
    ) -> Answer {
        match self.route(parts, body).await {
            Ok(answer) => answer,
            Err(refusal) => refusal.answer(),
        }
    }

    async fn route(
        &self,
        parts: &Parts,
        body: impl Future<Output = Result<Bytes, BodyFault>>,
    ) -> Result<Answer, Refusal> {
        let not_here = || Refusal::of(StatusCode::NOT_FOUND, "not_found", "there is nothing at this address");
        let route = self.options.urls.route(parts.uri.path()).ok_or_else(not_here)?;
        if !route.methods().contains(&parts.method) {
            let refusal = Refusal::of(
                StatusCode::METHOD_NOT_ALLOWED,
                "invalid_request",
                "this address does not take that method",
            );
            let mut answer = refusal.answer();
            let names: Vec<&str> = route.methods().iter().map(Method::as_str).collect();
            if let Ok(allowed) = HeaderValue::from_str(&names.join(", ")) {
                answer.headers_mut().insert(ALLOW, allowed);
            }
            return Ok(answer);
        }
        match route {
            Route::Metadata => return Ok(public(&self.options.urls.metadata())),
            Route::Jwks => return Ok(public(&self.signer.jwks())),
            Route::Streams
            | Route::Status
            | Route::AddSubject
            | Route::RemoveSubject
            | Route::Verify
            | Route::Poll(_) => {}
        }
        let receiver = self.receivers.who(&parts.headers).map_err(|unknown| {
            let (code, why) = match unknown {
                Unknown::NoToken => ("authentication_failed", "send a token as `Authorization: Bearer …`"),
                Unknown::WrongToken => ("invalid_token", "the token does not count"),
            };
            Refusal::of(StatusCode::UNAUTHORIZED, code, why)
        })?;
        let reads = parts.method == Method::GET;
        if !(if reads { receiver.scopes.read } else { receiver.scopes.manage }) {
            let scope = if reads { "ssf.read" } else { "ssf.manage" };
            let why = format!("the token does not have the scope `{scope}`");
            return Err(Refusal::of(StatusCode::FORBIDDEN, "insufficient_scope", why));
        }
        if reads || parts.method == Method::DELETE {
            return self.without_body(route, parts, receiver).await;
        }
        if !port::is_of_type(&parts.headers, "application/json") {
            return Err(Refusal::invalid("send JSON, with `Content-Type: application/json`"));
        }
        let body = body.await?;
        self.with_body(route, &parts.method, &body, receiver).await
    }

    async fn without_body(
        &self,
        route: Route<'_>,
        parts: &Parts,
        receiver: &Receiver,
    ) -> Result<Answer, Refusal> {
        let id = stream_of_query(parts.uri.query())?;
        let needed = || Refusal::invalid("`stream_id` is missing in the query: add `?stream_id=` and the id");
        if parts.method == Method::DELETE {
            self.delete(receiver, id.ok_or_else(needed)?).await?;
            return Ok(empty(StatusCode::NO_CONTENT));
        }
        let streams = self.streams.lock();
        let found = match (route, id) {
            (Route::Status, id) => {
                request::described_status(streams.get(&receiver.name, id.ok_or_else(needed)?)?)
            }
            (_, Some(id)) => self.described(streams.get(&receiver.name, id)?, receiver),
            (_, None) => streams.of(&receiver.name).map(|stream| self.described(stream, receiver)).collect(),
        };
        Ok(port::json(StatusCode::OK, &found))
    }

    async fn with_body(
        &self,
        route: Route<'_>,
        method: &Method,
        body: &[u8],
        receiver: &Receiver,
    ) -> Result<Answer, Refusal> {
        let object = request::object(body)?;
        match route {
            Route::Poll(id) => {
                let answer = self.poll(receiver, id, request::poll(&object)?).await?;
                Ok(port::json(StatusCode::OK, &answer))
            }
            Route::Streams if *method == Method::POST => {
                Ok(port::json(StatusCode::CREATED, &self.create(receiver, &object).await?))
            }
            Route::Streams => {
                let replace = *method == Method::PUT;
                Ok(port::json(StatusCode::OK, &self.set(receiver, &object, replace).await?))
            }
            Route::Status => Ok(port::json(StatusCode::OK, &self.set_status(receiver, &object).await?)),
            Route::AddSubject => {
                self.set_subject(receiver, &object, true).await?;
                Ok(empty(StatusCode::OK))
            }
            Route::RemoveSubject => {
                self.set_subject(receiver, &object, false).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            Route::Verify => {
                self.verify(receiver, &object).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            Route::Metadata | Route::Jwks => Err(Refusal::invalid("this address takes no body")),
        }
    }

    async fn create(&self, receiver: &Receiver, object: &Map<String, Value>) -> Result<Value, Refusal> {
        if object.contains_key("stream_id") {
            return Err(Refusal::invalid("`stream_id` is given by the transmitter: leave it out"));
        }
        let wanted = request::wanted(object, Wanted::default(), receiver, None)?;
        let id = unique();
        let (changed, described) = {
            let mut streams = self.streams.lock();
            let rows = streams.create(&receiver.name, id.clone(), wanted)?;
            let described = self.described(streams.get(&receiver.name, &id)?, receiver);
            if let Err(fault) = request::supplied_matches(object, &described) {
                streams.delete(&receiver.name, &id)?;
                return Err(fault.into());
            }
            let changed = self.store.write(&streams, &rows);
            if changed.is_err() {
                // Nobody would know of it.
                streams.delete(&receiver.name, &id)?;
            }
            (changed, described)
        };
        self.settle(changed).await?;
        self.note(stream_record(&id, &receiver.name, "created"));
        Ok(described)
    }

    async fn set(
        &self,
        receiver: &Receiver,
        object: &Map<String, Value>,
        replace: bool,
    ) -> Result<Value, Refusal> {
        let id = request::stream_id(object)?;
        let (changed, described) = {
            let mut streams = self.streams.lock();
            let before = streams.get(&receiver.name, id)?;
            request::supplied_matches(object, &self.described(before, receiver))?;
            let base = if replace { Wanted::default() } else { before.wanted.clone() };
            let wanted = request::wanted(object, base, receiver, Some(&self.options.urls.poll(id)))?;
            let rows = streams.set(&receiver.name, id, wanted)?;
            let described = self.described(streams.get(&receiver.name, id)?, receiver);
            (self.store.write(&streams, &rows), described)
        };
        self.try_again(id);
        self.settle(changed).await?;
        let change = if replace { "replaced" } else { "updated" };
        self.note(stream_record(id, &receiver.name, change));
        Ok(described)
    }

    async fn delete(&self, receiver: &Receiver, id: &str) -> Result<(), Refusal> {
        let changed = {
            let mut streams = self.streams.lock();
            let before = streams.get(&receiver.name, id)?.clone();
            let rows = streams.delete(&receiver.name, id)?;
            let changed = self.store.write(&streams, &rows);
            if changed.is_err() {
                // Asked again, it must not be said to be gone while the next start would find it.
                streams.restore(before);
            }
            changed
        };
        if let Some(sending) = self.sending.lock().remove(id) {
            sending.arrived.notify_waiters();
        }
        self.settle(changed).await?;
        self.note(stream_record(id, &receiver.name, "deleted"));
        Ok(())
    }

    async fn set_status(&self, receiver: &Receiver, object: &Map<String, Value>) -> Result<Value, Refusal> {
        let id = request::stream_id(object)?;
        let (status, reason) = request::status(object)?;
        let record = v1::StreamRecord {
            reason: reason.clone().unwrap_or_default(),
            ..stream_record(id, &receiver.name, status.word())
        };
        let (changed, described) = {
            let mut streams = self.streams.lock();
            let rows = streams.set_status(&receiver.name, id, status, reason)?;
            let described = request::described_status(streams.get(&receiver.name, id)?);
            (self.store.write(&streams, &rows), described)
        };
        self.try_again(id);
        self.wake_stream(id);
        self.settle(changed).await?;
        self.note(record);
        Ok(described)
    }

    async fn set_subject(
        &self,
        receiver: &Receiver,
        object: &Map<String, Value>,
        is_in: bool,
    ) -> Result<(), Refusal> {
        let id = request::stream_id(object)?;
        let subject = request::subject(object)?;
        let changed = self.change(|streams| {
            if is_in {
                streams.take_in(&receiver.name, id, subject)
            } else {
                streams.leave_out(&receiver.name, id, subject)
            }
        })?;
        self.settle(changed).await?;
        let change = if is_in { "subject_added" } else { "subject_removed" };
        self.note(stream_record(id, &receiver.name, change));
        Ok(())
    }

    async fn verify(&self, receiver: &Receiver, object: &Map<String, Value>) -> Result<(), Refusal> {
        let id = request::stream_id(object)?;
        let state = request::text(object, "state")?;
        let now_ms = self.now().wall_ms;
        let maker = Maker { issuer: self.options.urls.issuer(), now_ms };
        let claims = maker.verification(&receiver.audience, id, state);
        let mut notice = |stream: &Stream, lost| maker.notice(&receiver.audience, stream, lost);
        let (changed, done): (Changed, Done) = {
            let mut streams = self.streams.lock();
            let done = streams.verify(&receiver.name, id, claims, now_ms, &mut notice)?;
            (self.store.write(&streams, &done.rows), done)
        };
        self.account(&done);
        self.wake_pollers(&done);
        self.try_again(id);
        self.settle(changed).await
    }

    /// Makes a change, and hands it to the ledger under the same lock.
    fn change(
        &self,
        change: impl FnOnce(&mut Streams) -> Result<Vec<Row>, Refused>,
    ) -> Result<Changed, Refusal> {
        let mut streams = self.streams.lock();
        let rows = change(&mut streams)?;
        Ok(self.store.write(&streams, &rows))
    }

    async fn settle(&self, changed: Changed) -> Result<(), Refusal> {
        let durable = match changed {
            Ok(ticket) => self.store.durable(ticket).await,
            Err(fault) => Err(fault),
        };
        durable.map_err(|fault| {
            tracing::error!(%fault, "a change of a stream is not durable");
            Refusal::unavailable("the change could not be stored; ask again")
        })
    }

    fn wake_stream(&self, id: &str) {
        if let Some(sending) = self.sending.lock().get(id) {
            sending.arrived.notify_waiters();
        }
    }

    fn described(&self, stream: &Stream, receiver: &Receiver) -> Value {
        let interval_s = self.options.min_verification_interval_s;
        let with_secret = receiver.scopes.manage;
        request::described(stream, receiver, &self.options.urls, interval_s, with_secret)
    }
}

impl Part for Arc<Transmitter> {
    fn owns(&self, path: &str) -> bool {
        self.options.urls.owns(path)
    }

    fn answer(&self, head: Parts, body: Incoming) -> Answering<'_> {
        Box::pin(async move { self.handle(&head, port::read(body, limits::SSF_REQUEST_BYTES_MAX)).await })
    }
}

/// The stream that a query names.
fn stream_of_query(query: Option<&str>) -> Result<Option<&str>, Refusal> {
    let mut named = query.unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("stream_id="));
    match (named.next(), named.next()) {
        (id, None) => Ok(id),
        (_, Some(_)) => Err(Refusal::invalid("`stream_id` stands twice in the query")),
    }
}

/// A document for everybody. Receivers may keep it for a while: keys are published a day before they sign.
fn public(document: &Value) -> Answer {
    let mut answer = port::json(StatusCode::OK, document);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
