//! One HTTP client for all sources: TLS by rustls with ring, every wait and every body bounded.
//!
//! Limits: [`limits::REMOTE_CONNECT_TIMEOUT`], [`limits::REMOTE_ANSWER_TIMEOUT`], [`limits::REMOTE_STALL_TIMEOUT`], the
//! configured time for a whole body, [`limits::REMOTE_REDIRECTS_MAX`]. Bodies take the bound that their reader names.
//! Never does: accepting a certificate that does not verify, following a redirect to plain text, decompressing, or using
//! a proxy of the environment.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, RETRY_AFTER, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode, Version};
use jiff::fmt::rfc2822;
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Certificate, Client, Identity, RequestBuilder, Response, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::timeout;

use super::error::{RemoteError, tidy};
use super::location::is_loopback;
use super::{Options, Progress, credentials};
use crate::limits;

/// How we name ourselves to servers.
pub(super) const USER_AGENT: &str = concat!("cardea/", env!("CARGO_PKG_VERSION"));

/// Which redirects are followed, within [`limits::REMOTE_REDIRECTS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Redirects {
    /// Those that stay on the server.
    SameServer,
    /// Those, and for blobs of a registry any with TLS: registries keep blobs elsewhere, and a blob is verified by the
    /// digest in its name. The `Authorization` header does not go along.
    Blobs,
    /// None: a redirected upload would become a download.
    Never,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Transport {
    client: Client,
    server: String,
    body_timeout: Duration,
    progress: Option<Progress>,
}

impl Transport {
    pub(crate) fn new(server: String, options: &Options, redirects: Redirects) -> Result<Self, RemoteError> {
        install_provider();
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(limits::REMOTE_CONNECT_TIMEOUT)
            .redirect(policy(redirects))
            .referer(false);
        for authority in authorities(options)? {
            let authority = Certificate::from_der(&authority).map_err(|error| client_fault(&error))?;
            builder = builder.tls_certs_merge([authority]);
        }
        if let Some(identity) = identity(options)? {
            builder = builder.identity(identity);
        }
        let client = builder.build().map_err(|error| client_fault(&error))?;
        Ok(Self { client, server, body_timeout: options.timeout, progress: options.progress.clone() })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Host and port, for messages.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Sends a request whose answer may begin `wait` later than usual.
    pub(crate) async fn send(
        &self,
        request: RequestBuilder,
        wait: Duration,
    ) -> Result<Response, RemoteError> {
        let limit = limits::REMOTE_ANSWER_TIMEOUT.saturating_add(wait);
        match timeout(limit, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(RemoteError::of_request(&self.server, error)),
            Err(_) => Err(self.slow("answer", limit)),
        }
    }

    /// Sends a request with a large body.
    pub(super) async fn upload(&self, request: RequestBuilder) -> Result<Response, RemoteError> {
        match timeout(self.body_timeout, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(RemoteError::of_request(&self.server, error)),
            Err(_) => Err(self.slow("take the bundle", self.body_timeout)),
        }
    }

    /// The body of an answer, whole and within `bytes_max`.
    pub(crate) async fn body(
        &self,
        response: Response,
        what: &str,
        bytes_max: u64,
    ) -> Result<Bytes, RemoteError> {
        match timeout(self.body_timeout, self.read(response, what, bytes_max)).await {
            Ok(read) => read,
            Err(_) => Err(self.slow("send it all", self.body_timeout)),
        }
    }

    async fn read(&self, mut response: Response, what: &str, bytes_max: u64) -> Result<Bytes, RemoteError> {
        let announced = announced_length(&response, &self.server)?;
        let too_large = || RemoteError::TooLarge { what: what.to_owned(), bytes_max };
        if announced.is_some_and(|bytes| bytes > bytes_max) {
            return Err(too_large());
        }
        let cut_off =
            |got: usize| RemoteError::Truncated { what: what.to_owned(), got: got as u64, announced };
        // What a server announces is not reserved: it costs it nothing.
        let mut body = Vec::new();
        loop {
            let chunk = match timeout(limits::REMOTE_STALL_TIMEOUT, response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => break,
                Ok(Err(_)) => return Err(cut_off(body.len())),
                Err(_) => return Err(self.slow("send the next bytes", limits::REMOTE_STALL_TIMEOUT)),
            };
            if (body.len() + chunk.len()) as u64 > bytes_max {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
            if let Some(progress) = &self.progress {
                progress.tell(body.len() as u64, announced);
            }
        }
        if announced.is_some_and(|bytes| bytes != body.len() as u64) {
            return Err(cut_off(body.len()));
        }
        Ok(body.into())
    }

    /// The error that an answer without success is.
    pub(crate) async fn refusal(
        &self,
        response: Response,
        what: &str,
        credentials_sent: bool,
    ) -> RemoteError {
        let (server, what) = (self.server.clone(), what.to_owned());
        match response.status() {
            StatusCode::UNAUTHORIZED => RemoteError::Unauthorized { server, sent: credentials_sent },
            StatusCode::FORBIDDEN => RemoteError::Forbidden { server, what },
            StatusCode::NOT_FOUND | StatusCode::GONE => RemoteError::NotFound { what },
            status if status.is_redirection() => {
                let to = response.headers().get(http::header::LOCATION);
                let to =
                    to.map_or_else(String::new, |to| String::from_utf8_lossy(to.as_bytes()).into_owned());
                RemoteError::Redirect { server, why: format!("to `{}`", tidy(&to)) }
            }
            status => {
                let retry_after = retry_after(response.headers());
                let body = self.body(response, &what, limits::REMOTE_ANSWER_BYTES_MAX).await;
                let said = body.ok().and_then(|body| message(&body));
                let said = said.or_else(|| status.canonical_reason().map(str::to_owned));
                let said = said.map(|said| format!(": {said}")).unwrap_or_default();
                RemoteError::Answer { server, code: status.as_u16(), said, retry_after }
            }
        }
    }

    fn slow(&self, what: &'static str, limit: Duration) -> RemoteError {
        RemoteError::Slow { server: self.server.clone(), what, limit }
    }
}

/// reqwest is built without a provider of its own and takes that of the process.
pub(super) fn install_provider() {
    // Fails when there is one already: this one, since no other is built in.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The authorities that count beside those of the system.
pub(super) fn authorities(options: &Options) -> Result<Vec<CertificateDer<'static>>, RemoteError> {
    let Some(path) = &options.ca else { return Ok(Vec::new()) };
    let pem = credentials::read(path, limits::TLS_FILE_BYTES_MAX)?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(content(path, "holds no certificate in PEM form")),
        Err(error) => Err(content(path, &format!("holds no certificate in PEM form: {error}"))),
    }
}

fn identity(options: &Options) -> Result<Option<Identity>, RemoteError> {
    let (cert, key) = match (&options.client_cert, &options.client_key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        _ => {
            return Err(RemoteError::Credentials(
                "a client certificate needs its key, and a key its certificate".into(),
            ));
        }
    };
    let mut pem = credentials::read(cert, limits::TLS_FILE_BYTES_MAX)?;
    pem.push(b'\n');
    pem.extend(credentials::read(key, limits::TLS_FILE_BYTES_MAX)?);
    let read = Identity::from_pem(&pem);
    read.map(Some).map_err(|_| content(cert, "and its key are no certificate and private key in PEM form"))
}

fn content(path: &Path, why: &str) -> RemoteError {
    RemoteError::Content { path: path.to_owned(), why: why.to_owned() }
}

fn client_fault(error: &reqwest::Error) -> RemoteError {
    let mut error: &(dyn std::error::Error + 'static) = error;
    while let Some(source) = error.source() {
        error = source;
    }
    RemoteError::Client(tidy(&error.to_string()))
}

fn policy(redirects: Redirects) -> Policy {
    match redirects {
        Redirects::SameServer => Policy::custom(|attempt| follow(attempt, false)),
        Redirects::Blobs => Policy::custom(|attempt| {
            let first = attempt.previous().first();
            let is_blob = first.is_some_and(|url| url.path().contains("/blobs/sha256:"));
            follow(attempt, is_blob)
        }),
        Redirects::Never => Policy::none(),
    }
}

fn follow(attempt: Attempt<'_>, may_leave: bool) -> Action {
    let to = attempt.url().clone();
    let Some(from) = attempt.previous().last().cloned() else { return attempt.stop() };
    if attempt.previous().len() > limits::REMOTE_REDIRECTS_MAX {
        return attempt.error(format!("more than {} in a row", limits::REMOTE_REDIRECTS_MAX));
    }
    if same_server(&from, &to)
        || (may_leave && (to.scheme() == "https" || (is_loopback(&from) && is_loopback(&to))))
    {
        return attempt.follow();
    }
    // Without path and query: they may hold a signature.
    let origin = to.origin().ascii_serialization();
    attempt.error(format!("to `{origin}`, which is another server"))
}

fn same_server(from: &Url, to: &Url) -> bool {
    from.origin() == to.origin()
}

/// The announced length; a body of HTTP/1 must say how it ends, or its truncation would not be noticed.
fn announced_length(response: &Response, server: &str) -> Result<Option<u64>, RemoteError> {
    let protocol = |why: &str| RemoteError::Protocol { server: server.to_owned(), why: why.to_owned() };
    let headers = response.headers();
    let announced = headers.get(CONTENT_LENGTH).map(|value| value.to_str().ok()?.parse().ok());
    match announced {
        Some(Some(bytes)) => Ok(Some(bytes)),
        Some(None) => Err(protocol("its Content-Length is no number")),
        None if response.version() <= Version::HTTP_11 && !headers.contains_key(TRANSFER_ENCODING) => Err(
            protocol("its answer has neither Content-Length nor Transfer-Encoding, so a cut would not show"),
        ),
        None => Ok(None),
    }
}

/// `Retry-After` in seconds, or as a date that is compared with the server's own.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok();
    let value = text(RETRY_AFTER)?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = rfc2822::parse(value).ok()?;
    let now = rfc2822::parse(text(DATE)?).ok()?;
    Duration::try_from(at.timestamp().duration_since(now.timestamp())).ok()
}

/// The words of an error in the form of registries: `{"errors":[{"code":…,"message":…}]}`.
fn message(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let error = body.get("errors")?.get(0)?;
    let said = error.get("message").or_else(|| error.get("code"))?.as_str()?;
    Some(tidy(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        assert_eq!(retry_after(&headers(&[(RETRY_AFTER, "17")])), Some(Duration::from_secs(17)));
        let date = "Wed, 21 Oct 2026 07:28:00 GMT";
        let later = "Wed, 21 Oct 2026 07:29:30 GMT";
        let both = headers(&[(RETRY_AFTER, later), (DATE, date)]);
        assert_eq!(retry_after(&both), Some(Duration::from_secs(90)));
        let past = headers(&[(RETRY_AFTER, date), (DATE, later)]);
        assert_eq!(retry_after(&past), None);
        assert_eq!(retry_after(&headers(&[(RETRY_AFTER, later)])), None, "no clock to compare with");
        assert_eq!(retry_after(&headers(&[(RETRY_AFTER, "soon")])), None);
    }

    #[test]
    fn what_a_registry_says_is_repeated_without_control_characters() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no \u001b[31mway\nout"}]}"#;
        assert_eq!(message(body).unwrap(), "no  [31mway out");
        assert_eq!(message(b"<html>"), None);
    }

    #[test]
    fn halves_of_client_certificates_and_empty_authorities_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file.pem");
        std::fs::write(&file, "nothing").unwrap();
        for options in [
            Options { client_cert: Some(file.clone()), ..Options::default() },
            Options { client_key: Some(file.clone()), ..Options::default() },
            Options { client_cert: Some(file.clone()), client_key: Some(file.clone()), ..Options::default() },
            Options { ca: Some(file), ..Options::default() },
        ] {
            assert!(Transport::new("s".into(), &options, Redirects::Never).is_err(), "{options:?}");
        }
    }
}
