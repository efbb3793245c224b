//! Batches by HTTP: newline-delimited JSON, or a JSON array of CloudEvents.
//!
//! Any answer 2xx takes a batch. 400, 413 and 422 refuse something in it; every other answer, and none, is another time.
//! Limits: [`limits::SINK_TIMEOUT`] for an answer, whose body is not read. Never does: following a redirect, using a proxy of the environment.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Response};

use super::super::options::HttpTo;
use super::{Event, Failed, Format, Why, authorities, is_lines, lines, name, secret};
use crate::limits;

/// See the module.
#[derive(Debug)]
pub(in crate::audit::sinks) struct Server {
    to: HttpTo,
    format: Format,
    ca: Vec<Certificate>,
}

/// A client with its headers.
pub(in crate::audit::sinks) struct Client {
    client: reqwest::Client,
    to: HttpTo,
    format: Format,
}

impl Server {
    pub(super) fn new(to: HttpTo, format: Format) -> Result<Self, String> {
        let ca = certificates(to.ca.as_deref())?;
        if let Some(path) = &to.authorization_file {
            secret(path)?;
        }
        Ok(Self { to, format, ca })
    }

    pub(super) fn open(&self) -> Result<Client, Failed> {
        let client = client(&self.to, &self.ca)?;
        Ok(Client { client, to: self.to.clone(), format: self.format })
    }
}

pub(super) fn certificates(ca: Option<&Path>) -> Result<Vec<Certificate>, String> {
    let found = ca.map(authorities).transpose()?.unwrap_or_default();
    found.iter().map(|one| Certificate::from_der(one).map_err(|error| error.to_string())).collect()
}

pub(super) fn client(to: &HttpTo, ca: &[Certificate]) -> Result<reqwest::Client, Failed> {
    // reqwest takes the provider of the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut headers = HeaderMap::new();
    if let Some(path) = &to.authorization_file {
        let value = secret(path).map_err(|why| Failed::later(0, why))?;
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| Failed::later(0, format!("`{}` is no value of a header", path.display())))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let builder = reqwest::Client::builder()
        .user_agent(concat!("cardea/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .connect_timeout(limits::SINK_CONNECT_TIMEOUT)
        .timeout(limits::SINK_TIMEOUT)
        .redirect(Policy::none())
        .referer(false)
        .no_proxy();
    let builder = ca.iter().fold(builder, |builder, one| builder.tls_certs_merge([one.clone()]));
    builder.build().map_err(|error| Failed::later(0, said(&error)))
}

impl Client {
    pub(super) async fn send(&self, batch: &[Event]) -> Result<(), Failed> {
        let (media_type, body) = if is_lines(self.format) {
            ("application/x-ndjson", lines(batch))
        } else {
            ("application/cloudevents-batch+json", array(batch))
        };
        let request = self
            .client
            .post(self.to.url.url().clone())
            .header(CONTENT_TYPE, media_type)
            // The same for the same batch; a server that keeps it takes no batch twice.
            .header("idempotency-key", name(batch));
        judge(&post(request, body, self.to.gzip).await?)
    }
}

/// Posts a body, compressed if so wished.
pub(super) async fn post(
    request: reqwest::RequestBuilder,
    body: Vec<u8>,
    gzip: bool,
) -> Result<Response, Failed> {
    let request = if gzip {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        let packed = packed.write_all(&body).and_then(|()| packed.finish());
        request.header(CONTENT_ENCODING, "gzip").body(packed.map_err(|error| Failed::later(0, error))?)
    } else {
        request.body(body)
    };
    request.send().await.map_err(|error| Failed::later(0, said(&error)))
}

/// What an answer means for the batch.
pub(super) fn judge(response: &Response) -> Result<(), Failed> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let what = format!("the answer is {status}");
    if [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY]
        .contains(&status)
    {
        return Err(Failed::refused(0, what));
    }
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let after = after.map(Duration::from_secs).map(|after| after.min(limits::SINK_BACKOFF_MAX));
    Err(Failed { taken: 0, why: Why::Later { what, after } })
}

/// A JSON array of what are JSON objects already.
fn array(batch: &[Event]) -> Vec<u8> {
    let mut array = vec![b'['];
    for (at, event) in batch.iter().enumerate() {
        if at > 0 {
            array.push(b',');
        }
        array.extend_from_slice(&event.body);
    }
    array.push(b']');
    array
}

/// The innermost reason, without the address: it may hold a secret of the receiver.
fn said(error: &reqwest::Error) -> String {
    let mut innermost = if error.is_timeout() { Some("no answer in time".to_owned()) } else { None };
    let mut source = std::error::Error::source(error);
    while let Some(deeper) = source {
        innermost = Some(deeper.to_string());
        source = deeper.source();
    }
    innermost.unwrap_or_else(|| "the request failed".to_owned())
}
