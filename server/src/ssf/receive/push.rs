//! Tokens that transmitters push (RFC 8935): `POST /ssf/push/NAME`.
//!
//! 202 without a body once the token is durable, for one that was seen before too; 400 with a code in JSON for what is wrong;
//! 503 for what may be right later. Limits: [`set::SET_BYTES_MAX`](super::super::set::SET_BYTES_MAX) for a body.
//! Never does: reading the body of a caller that the receiver's file does not let in.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LANGUAGE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;
use smol_str::SmolStr;

use super::super::guard::Guard;
use super::super::http::{self as port, Answer, Answering, Part};
use super::super::set::{ErrorCode, Refusal, SET_BYTES_MAX};
use super::intake::{Intake, NotTaken, Receiving};
use crate::limits;

const PATH: &str = "/ssf/push/";
const TYPE: &str = "application/secevent+jwt";

/// See the module.
#[derive(Debug)]
pub(crate) struct Push {
    intake: Arc<Intake>,
    receivers: BTreeMap<SmolStr, (Arc<Receiving>, Option<Guard>)>,
}

impl Push {
    pub(crate) fn new(
        intake: Arc<Intake>,
        receivers: impl IntoIterator<Item = (Arc<Receiving>, Option<Guard>)>,
    ) -> Self {
        let receivers = receivers.into_iter().map(|one| (one.0.options.name.clone(), one)).collect();
        Self { intake, receivers }
    }

    async fn take(&self, head: Parts, body: Incoming) -> Answer {
        let name = head.uri.path().strip_prefix(PATH).unwrap_or_default();
        let Some((receiving, guard)) = self.receivers.get(name) else {
            return port::plain(StatusCode::NOT_FOUND, "no transmitter of this name pushes here\n");
        };
        if head.method != Method::POST {
            return port::not_offered(&Method::POST);
        }
        match self.try_take(receiving, guard.as_ref(), &head, body).await {
            Ok(()) => {
                let mut answer = Response::new(Full::new(Bytes::new()));
                *answer.status_mut() = StatusCode::ACCEPTED;
                answer
            }
            Err(NotTaken::Refused(refusal)) => refused(&refusal),
            Err(NotTaken::Later(why)) => {
                let mut answer = port::plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
                answer.headers_mut().insert(RETRY_AFTER, limits::SSF_RETRY_AFTER_S.into());
                answer
            }
        }
    }

    async fn try_take(
        &self,
        receiving: &Receiving,
        guard: Option<&Guard>,
        head: &Parts,
        body: Incoming,
    ) -> Result<(), NotTaken> {
        let refuse = |code, why: &str| {
            receiving.metrics.refused(code).increment(1);
            Err(NotTaken::Refused(Refusal::new(code, why)))
        };
        if let Some(guard) = guard {
            let shown = port::authorization(&head.headers).unwrap_or_default();
            if !guard.lets_in(shown) {
                let why = "`Authorization` is not the one that was agreed on for this stream";
                return refuse(ErrorCode::AuthenticationFailed, why);
            }
        }
        if !port::is_of_type(&head.headers, TYPE) {
            return refuse(ErrorCode::InvalidRequest, "`Content-Type` must be application/secevent+jwt");
        }
        match port::read(body, SET_BYTES_MAX).await {
            Ok(token) => self.intake.take(receiving, &token).await,
            Err(fault) => refuse(ErrorCode::InvalidRequest, &fault.to_string()),
        }
    }
}

impl Part for Push {
    fn owns(&self, path: &str) -> bool {
        path.starts_with(PATH)
    }

    fn answer(&self, head: Parts, body: Incoming) -> Answering<'_> {
        Box::pin(self.take(head, body))
    }
}

fn refused(refusal: &Refusal) -> Answer {
    let body = json!({"err": refusal.code.word(), "description": refusal.why});
    let mut answer = port::json(StatusCode::BAD_REQUEST, &body);
    answer.headers_mut().insert(CONTENT_LANGUAGE, HeaderValue::from_static("en"));
    answer
}
