//! One event to one receiver, by RFC 8935.
//!
//! Limits: [`limits::SSF_PUSH_TIMEOUT`] for the head of the answer, [`limits::SSF_PUSH_BODY_TIMEOUT`] and
//! [`limits::SSF_PUSH_ANSWER_BYTES_MAX`] for the body of a refusal; no other body is read.
//! Never does: following a redirect, using a proxy of the environment, sending to a host that is not named for the receiver.

use std::path::Path;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use tokio::time::timeout;

use super::endpoint::Endpoint;
use super::request::tidy;
use super::streams::Secret;
use crate::limits;

/// How a receiver took an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has it.
    Taken,
    /// It has it and can make nothing of it; sending it again would change nothing.
    Unusable(String),
    /// It does not have it; another time it may.
    Later {
        /// What happened, in words.
        why: String,
        /// When it wants to be asked again.
        after: Option<Duration>,
    },
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
#[error("events cannot be pushed: {0}")]
pub struct ClientFault(String);

/// See the module.
pub(super) struct Pusher(Client);

impl Pusher {
    /// A client that also trusts the authorities in `ca`.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, ClientFault> {
        // reqwest takes the provider of the process; there is one already where anything else used TLS.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fault = |what: String| ClientFault(what);
        let mut builder = Client::builder()
            .user_agent(concat!("cardea/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits::SSF_PUSH_CONNECT_TIMEOUT)
            .redirect(Policy::none())
            .referer(false)
            .no_proxy();
        if let Some(path) = ca {
            let shown = path.display();
            let file = std::fs::File::open(path).map_err(|error| fault(format!("`{shown}`: {error}")))?;
            let mut pem = Vec::new();
            std::io::Read::read_to_end(&mut std::io::Read::take(file, limits::TLS_FILE_BYTES_MAX), &mut pem)
                .map_err(|error| fault(format!("`{shown}`: {error}")))?;
            let authorities: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
                .collect::<Result<_, _>>()
                .map_err(|_| fault(format!("`{shown}` holds no certificates in PEM form")))?;
            if authorities.is_empty() {
                return Err(fault(format!("`{shown}` holds no certificate")));
            }
            for authority in authorities {
                let authority =
                    Certificate::from_der(&authority).map_err(|error| fault(error.to_string()))?;
                builder = builder.tls_certs_merge([authority]);
            }
        }
        builder.build().map(Self).map_err(|error| fault(error.to_string()))
    }

    /// Sends one token.
    pub(super) async fn send(
        &self,
        endpoint: &Endpoint,
        authorization: Option<&Secret>,
        token: &str,
    ) -> Answer {
        let mut request = self
            .0
            .post(endpoint.url().clone())
            .header(CONTENT_TYPE, "application/secevent+jwt")
            .header(ACCEPT, "application/json")
            .body(token.to_owned());
        if let Some(secret) = authorization {
            let Ok(mut value) = HeaderValue::from_str(&secret.0) else {
                return later("the authorization header cannot be sent", None);
            };
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        match timeout(limits::SSF_PUSH_TIMEOUT, request.send()).await {
            Ok(Ok(response)) => judge(response).await,
            Ok(Err(error)) => later(&said(&error), None),
            Err(_) => later("no answer in time", None),
        }
    }
}

async fn judge(response: Response) -> Answer {
    let status = response.status();
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let after = after.map(Duration::from_secs).map(|after| after.min(limits::SSF_PUSH_BACKOFF_MAX));
    match status {
        // Any page of the web answers 200; only 202 says that the event is kept.
        StatusCode::ACCEPTED => Answer::Taken,
        StatusCode::BAD_REQUEST => refusal(response).await,
        status => later(&format!("the answer is {status}, and not 202"), after),
    }
}

/// What a refusal of RFC 8935 means. Only what is wrong with this very event makes it useless to send it again; what is
/// wrong with keys, names or rights is put right by people, and the event waits for them.
async fn refusal(response: Response) -> Answer {
    let body = timeout(limits::SSF_PUSH_BODY_TIMEOUT, bounded(response)).await.ok().flatten();
    let body: Option<Value> = body.and_then(|body| serde_json::from_slice(&body).ok());
    let text = |name: &str| body.as_ref().and_then(|body| body.get(name)?.as_str()).map(tidy);
    let Some(code) = text("err") else { return later("refused without a reason", None) };
    let words = text("description").unwrap_or_default();
    let why = tidy(&format!("{code}: {words}"));
    match code.as_str() {
        "invalid_request" | "invalid_state" => Answer::Unusable(why),
        _ => later(&why, None),
    }
}

/// The body, if it is short enough.
async fn bounded(mut response: Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > limits::SSF_PUSH_ANSWER_BYTES_MAX {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body)
}

fn later(why: &str, after: Option<Duration>) -> Answer {
    Answer::Later { why: tidy(why), after }
}

/// The innermost reason, without the address: it may hold a secret of the receiver.
fn said(error: &reqwest::Error) -> String {
    let mut innermost = None;
    let mut source = std::error::Error::source(error);
    while let Some(deeper) = source {
        innermost = Some(deeper.to_string());
        source = deeper.source();
    }
    innermost.unwrap_or_else(|| "the request failed".to_owned())
}
