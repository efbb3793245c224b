//! The HTTP/1.1 port of signals: a request goes to the first part that owns its path.
//!
//! On loopback it speaks plain text, beyond it TLS with the server's certificate; who a caller is, is for the parts to find
//! out from its requests. Limits: [`limits::SSF_CONNECTIONS_MAX`] connections, [`limits::HTTP_HEAD_TIMEOUT`] for a head and
//! [`limits::SSF_HEAD_BYTES_MAX`] of it, [`limits::SSF_BODY_TIMEOUT`] for a body, whose bytes its part bounds.
//! Never does: knowing what a request is about.

use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::limits;
use crate::listen::Tls;
use crate::supervise::Supervisor;

/// An answer.
pub type Answer = Response<Full<Bytes>>;
/// An answer that is worked on.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// A part of the port.
pub trait Part: Send + Sync {
    /// Whether requests with this path are its own.
    fn owns(&self, path: &str) -> bool;
    /// Answers one of its own.
    fn answer(&self, head: Parts, body: Incoming) -> Answering<'_>;
}

/// Serves until the process drains.
///
/// # Errors
/// When the listener cannot join the runtime.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    parts: Arc<[Box<dyn Part>]>,
    supervisor: Supervisor,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(limits::SSF_CONNECTIONS_MAX));
    let mut connections = supervisor.tasks();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                    let (tls, parts) = (tls.clone(), Arc::clone(&parts));
                    connections.start(async move {
                        secured(socket, tls, parts).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the port of signals could not accept");
                    tokio::time::sleep(limits::ACCEPT_BACKOFF).await;
                }
            },
            () = connections.join_next() => {}
            () = supervisor.shutdown().draining() => break,
        }
    }
    drop(listener);
    // What is being answered is finished; an idle connection ends with the process.
    tokio::select! {
        () = tokio::time::sleep(limits::SSF_DRAIN) => {}
        () = supervisor.shutdown().aborting() => {}
    }
    connections.abort_all().await;
    Ok(())
}

async fn secured(socket: TcpStream, tls: Option<Arc<Tls>>, parts: Arc<[Box<dyn Part>]>) {
    let Some(tls) = tls else { return connection(socket, parts).await };
    let acceptor = tokio_rustls::TlsAcceptor::from(tls.without_clients());
    match tokio::time::timeout(limits::HTTP_HEAD_TIMEOUT, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => connection(stream, parts).await,
        Ok(Err(error)) => tracing::debug!(%error, "no TLS with a caller of the port of signals"),
        Err(_) => tracing::debug!("a TLS handshake on the port of signals took too long"),
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send, parts: Arc<[Box<dyn Part>]>) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let parts = Arc::clone(&parts);
        async move { Ok::<_, Infallible>(answer(&parts, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_HEAD_TIMEOUT)
        .max_buf_size(limits::SSF_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(limits::HTTP_CONNECTION_LIFE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the port of signals ended early"),
        Err(_) => tracing::debug!("a connection to the port of signals outlived its time"),
    }
}

async fn answer(parts: &[Box<dyn Part>], request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    match parts.iter().find(|part| part.owns(head.uri.path())) {
        Some(part) => part.answer(head, body).await,
        None => plain(StatusCode::NOT_FOUND, "there is nothing here\n"),
    }
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// Larger than allowed.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// It did not come whole, or not in time.
    #[error("the body did not come whole, or not in time")]
    Broken,
}

/// A whole body.
///
/// # Errors
/// When it is larger than `bytes_max` or does not come.
pub async fn read(body: Incoming, bytes_max: usize) -> Result<Bytes, BodyFault> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(BodyFault::TooLarge(bytes_max));
    }
    match tokio::time::timeout(limits::SSF_BODY_TIMEOUT, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyFault::TooLarge(bytes_max)),
        Ok(Err(_)) | Err(_) => Err(BodyFault::Broken),
    }
}

/// Whether a request has exactly one `Content-Type` and it is this one, whatever its parameters.
#[must_use]
pub fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    let mut found = headers.get_all(CONTENT_TYPE).iter();
    let (Some(kind), None) = (found.next(), found.next()) else { return false };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case(wanted)
}

/// The one `Authorization` of a request; none if there is none or several.
#[must_use]
pub fn authorization(headers: &HeaderMap) -> Option<&[u8]> {
    let mut found = headers.get_all(AUTHORIZATION).iter();
    match (found.next(), found.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

/// An answer in words.
#[must_use]
pub fn plain(status: StatusCode, words: impl Into<Bytes>) -> Answer {
    of(status, "text/plain; charset=utf-8", words.into())
}

/// An answer in JSON.
#[must_use]
pub fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    of(status, "application/json", value.to_string().into())
}

/// The answer to a method that is not offered.
#[must_use]
pub fn not_offered(method: &Method) -> Answer {
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, format!("only {method}\n"));
    if let Ok(allow) = HeaderValue::from_str(method.as_str()) {
        answer.headers_mut().insert(ALLOW, allow);
    }
    answer
}

fn of(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
