//! The plain HTTP/1.1 port for operators: `/metrics`, `/healthz`, `/readyz`.
//!
//! `/healthz` is 200 while the process lives; `/readyz` is 200 when the given check says so and 503 with its reason
//! otherwise; `/metrics` is the Prometheus text format. Anything else is 404, any method but GET is 405.
//! Limits: [`limits::HTTP_CONNECTIONS_MAX`] connections, [`limits::HTTP_HEAD_TIMEOUT`] for a head,
//! [`limits::HTTP_HEAD_BYTES_MAX`] bytes of it, [`limits::HTTP_CONNECTION_LIFE`] for a connection; bodies are not read, and
//! one that announces more than [`limits::HTTP_BODY_BYTES_MAX`] is refused with 413.
//! Never does: judging attempts, showing identities or secrets.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Body;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::limits;
use crate::supervise::Supervisor;

/// What the port shows.
pub struct Pages {
    /// Text of `/metrics`.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Whether the process can decide; the error says what is missing.
    pub ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Pages").finish_non_exhaustive()
    }
}

/// Binds the port.
///
/// # Errors
/// When the address cannot be bound; the text names it.
pub fn bind(at: SocketAddr) -> Result<TcpListener, crate::listen::ListenFault> {
    crate::listen::bind_tcp(at)
}

/// Serves `pages` until the process aborts: probes must see the drain. Dropping the runtime ends it too.
///
/// # Errors
/// When the listener cannot join the runtime.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>, supervisor: Supervisor) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(limits::HTTP_CONNECTIONS_MAX));
    let mut connections = supervisor.tasks();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                    let pages = Arc::clone(&pages);
                    connections.start(async move {
                        connection(socket, pages).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the metrics port could not accept");
                    tokio::time::sleep(limits::ACCEPT_BACKOFF).await;
                }
            },
            () = connections.join_next() => {}
            () = supervisor.shutdown().aborting() => break,
        }
    }
    connections.abort_all().await;
    Ok(())
}

async fn connection(socket: TcpStream, pages: Arc<Pages>) {
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let answer = answer(&request, &pages);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_HEAD_TIMEOUT)
        .max_buf_size(limits::HTTP_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
    match tokio::time::timeout(limits::HTTP_CONNECTION_LIFE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the metrics port ended early"),
        Err(_) => tracing::debug!("a connection to the metrics port outlived its time"),
    }
}

fn answer<B: Body>(request: &Request<B>, pages: &Pages) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
        return text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n");
    }
    if request.method() != Method::GET {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    if request.body().size_hint().lower() > limits::HTTP_BODY_BYTES_MAX {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "no body is needed\n");
    }
    match path {
        "/metrics" => {
            let mut response = text(StatusCode::OK, (pages.metrics)());
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        "/readyz" => match (pages.ready)() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        },
        _ => text(StatusCode::OK, "alive\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use metrics::Counter;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::shutdown::Shutdown;

    /// Starts the port and returns its address, the switch of its readiness and its shutdown.
    fn start() -> (SocketAddr, Arc<AtomicBool>, Shutdown) {
        let ready = Arc::new(AtomicBool::new(false));
        let switch = Arc::clone(&ready);
        let pages = Pages {
            metrics: Box::new(|| "cardea_up 1\n".to_owned()),
            ready: Box::new(move || {
                if switch.load(Ordering::Relaxed) { Ok(()) } else { Err("no snapshot".to_owned()) }
            }),
        };
        let shutdown = Shutdown::new();
        let (supervisor, _deaths) = Supervisor::new(shutdown.clone(), Counter::noop());
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let at = listener.local_addr().unwrap();
        supervisor.task("http", serve(listener, Arc::new(pages), supervisor.clone()));
        (at, ready, shutdown)
    }

    async fn ask(at: SocketAddr, head: &str) -> String {
        let mut socket = TcpStream::connect(at).await.unwrap();
        socket.write_all(format!("{head}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test(flavor = "current_thread")]
    async fn each_page_answers_and_readiness_follows_the_check() {
        let (at, ready, _shutdown) = start();
        assert!(ask(at, "GET /healthz HTTP/1.1").await.starts_with("HTTP/1.1 200"));
        let metrics = ask(at, "GET /metrics HTTP/1.1").await;
        assert!(metrics.contains("version=0.0.4") && metrics.ends_with("cardea_up 1\n"), "{metrics}");
        let not_ready = ask(at, "GET /readyz HTTP/1.1").await;
        assert!(not_ready.starts_with("HTTP/1.1 503") && not_ready.contains("no snapshot"), "{not_ready}");
        ready.store(true, Ordering::Relaxed);
        assert!(ask(at, "GET /readyz HTTP/1.1").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_not_offered_is_refused() {
        let (at, _ready, _shutdown) = start();
        assert!(ask(at, "GET /other HTTP/1.1").await.starts_with("HTTP/1.1 404"));
        let post = ask(at, "POST /metrics HTTP/1.1\r\ncontent-length: 0").await;
        assert!(post.starts_with("HTTP/1.1 405") && post.contains("allow: GET"), "{post}");
        assert!(ask(at, "GET /metrics HTTP/1.1\r\ncontent-length: 5000").await.starts_with("HTTP/1.1 413"));
        let large = format!("GET /metrics HTTP/1.1\r\nx-large: {}", "x".repeat(limits::HTTP_HEAD_BYTES_MAX));
        assert!(ask(at, &large).await.starts_with("HTTP/1.1 431"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_port_outlives_the_drain_and_ends_with_the_abort() {
        let (at, _ready, shutdown) = start();
        shutdown.drain();
        assert!(ask(at, "GET /healthz HTTP/1.1").await.starts_with("HTTP/1.1 200"));
        shutdown.abort();
        for _ in 0..100 {
            if TcpStream::connect(at).await.is_err() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the port is still open");
    }
}
