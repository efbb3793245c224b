//! The threads that serve: one current-thread runtime each, connections dealt out in turn.
//!
//! A multi-thread runtime would move a connection and its calls between threads and write once per answer; a runtime
//! per thread writes once per batch of answers and costs 2 to 5 µs less per call. Each connection is served by
//! hyper's HTTP/2 directly, with the limits of `limits.rs`, on a service that the worker made for itself.
//! Limits: [`limits::WORKER_QUEUE_MAX`] sockets wait per worker; [`limits::HANDSHAKE_TIMEOUT`] for TLS and preface;
//! streams, headers, windows and pings as `limits::HTTP2_*`; the drain takes at most [`limits::DRAIN_GRACE`].
//! Never does: work on another worker's connection, restarting a dead worker.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use futures_util::future::{Either, Ready, ready};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use crate::limits;
use crate::listen::{
    Accepted, ClientCertificate, NotHttp2, Peer, Prefaced, Socket, Tls, Transport, read_preface,
};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::supervise::{Ended, Fatal, StreamExecutor, Supervisor};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What all workers share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// TLS of TCP connections; `None` serves them in plain text.
    pub tls: Option<Arc<Tls>>,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
    /// Who is told when a worker dies.
    pub supervisor: Supervisor,
}

/// Running workers.
#[derive(Debug)]
pub struct Workers {
    dispatch: Dispatch,
    ended: Vec<Ended>,
}

/// Deals accepted connections out to the workers, in turn.
#[derive(Debug, Clone)]
pub(crate) struct Dispatch {
    queues: Arc<[mpsc::Sender<Accepted>]>,
    next: Arc<AtomicUsize>,
}

/// A service that workers can serve: a tower service on hyper's requests with tonic's bodies. It is cloned per call and
/// asked for readiness without waiting; one that is not ready answers UNAVAILABLE.
pub trait Serve:
    Service<
        Request<Incoming>,
        Response = Response<Body>,
        Error: Into<BoxError> + Send,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
{
}

impl<S> Serve for S where
    S: Service<
            Request<Incoming>,
            Response = Response<Body>,
            Error: Into<BoxError> + Send,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static
{
}

/// Starts `threads` workers. Each calls `make` with its number on its own thread, inside its runtime.
///
/// # Errors
/// When the operating system gives no thread.
pub fn start<F, S>(threads: usize, make: F, shared: &Shared) -> Result<Workers, Fatal>
where
    F: Fn(usize) -> S + Send + Sync + 'static,
    S: Serve,
{
    let make = Arc::new(make);
    let (mut queues, mut ended) = (Vec::new(), Vec::new());
    for number in 0..threads.clamp(1, limits::WORKERS_MAX) {
        let (queue, accepted) = mpsc::channel(limits::WORKER_QUEUE_MAX);
        let (make, shared) = (Arc::clone(&make), shared.clone());
        let name = format!("worker-{number}");
        ended.push(shared.supervisor.clone().thread(name, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
            runtime.block_on(async { Worker::new(make(number), shared).run(accepted).await });
            Ok::<(), io::Error>(())
        })?);
        queues.push(queue);
    }
    Ok(Workers { dispatch: Dispatch { queues: queues.into(), next: Arc::default() }, ended })
}

impl Workers {
    pub(crate) fn dispatch(&self) -> Dispatch {
        self.dispatch.clone()
    }

    /// Waits until every worker has ended; they do after the process drains or aborts.
    pub async fn ended(self) {
        for worker in self.ended {
            worker.wait().await;
        }
    }
}

impl Dispatch {
    /// Gives a connection to the next worker that has room; false when none has, and the connection is closed.
    pub(crate) fn hand(&self, mut accepted: Accepted) -> bool {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for offset in 0..self.queues.len() {
            let Some(queue) = self.queues.get(first.wrapping_add(offset) % self.queues.len()) else {
                return false;
            };
            match queue.try_send(accepted) {
                Ok(()) => return true,
                Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => {
                    accepted = back;
                }
            }
        }
        false
    }
}

/// One thread's part.
struct Worker<S> {
    service: S,
    http2: http2::Builder<StreamExecutor>,
    shared: Shared,
    /// The phase for this worker's connections: they look at it at each wake-up, and must not share a lock with other
    /// threads for that.
    local: Shutdown,
}

impl<S: Serve> Worker<S> {
    fn new(service: S, shared: Shared) -> Self {
        let mut http2 = http2::Builder::new(StreamExecutor::new(shared.metrics.panics.clone()));
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits::HTTP2_STREAMS_MAX)
            .max_header_list_size(limits::HTTP2_HEADER_LIST_BYTES_MAX)
            .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(limits::HTTP2_SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(limits::HTTP2_PENDING_RESETS_MAX)
            .max_local_error_reset_streams(limits::HTTP2_LOCAL_RESETS_MAX)
            .keep_alive_interval(limits::HTTP2_PING_INTERVAL)
            .keep_alive_timeout(limits::HTTP2_PING_TIMEOUT)
            // gRPC does not use it, and it would be written into every answer.
            .auto_date_header(false);
        Self { service, http2, shared, local: Shutdown::new() }
    }

    async fn run(self, mut accepted: mpsc::Receiver<Accepted>) {
        let shutdown = self.shared.supervisor.shutdown().clone();
        let mut connections = self.shared.supervisor.tasks();
        loop {
            tokio::select! {
                next = accepted.recv() => match next {
                    Some(next) => connections.start(self.connection(next)),
                    None => break,
                },
                () = connections.join_next() => {}
                () = shutdown.draining() => break,
            }
        }
        drop(accepted);
        self.local.drain();
        let drained = tokio::time::timeout(limits::DRAIN_GRACE, connections.join_all());
        tokio::select! {
            drained = drained => if drained.is_err() {
                tracing::warn!("connections did not finish within the grace period");
            },
            () = shutdown.aborting() => {}
        }
        connections.abort_all().await;
    }

    fn connection(&self, accepted: Accepted) -> impl Future<Output = ()> + Send + 'static {
        let connection = Connection {
            service: self.service.clone(),
            http2: self.http2.clone(),
            shared: self.shared.clone(),
            shutdown: self.local.clone(),
        };
        async move {
            let Accepted { socket, place } = accepted;
            let metrics = Arc::clone(&connection.shared.metrics);
            metrics.connections.increment(1);
            // Dropped also when the task is aborted or panics.
            let _open = scopeguard(move || metrics.connections.decrement(1));
            connection.serve(socket).await;
            drop(place);
        }
    }
}

/// One connection's part.
struct Connection<S> {
    service: S,
    http2: http2::Builder<StreamExecutor>,
    shared: Shared,
    shutdown: Shutdown,
}

/// Why a connection ends before its first call.
#[derive(Debug, thiserror::Error)]
enum NotServed {
    #[error("the socket failed: {0}")]
    Socket(#[from] io::Error),
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error("the handshake took longer than {:?}", limits::HANDSHAKE_TIMEOUT)]
    Timeout,
    #[error("{0}")]
    NotHttp2(#[from] NotHttp2),
    #[error("the client's certificate is missing")]
    NoCertificate,
}

impl<S: Serve> Connection<S> {
    async fn serve(self, socket: Socket) {
        let metrics = Arc::clone(&self.shared.metrics);
        let served = match socket {
            Socket::Tcp(socket, from) => match self.shared.tls.clone() {
                Some(tls) => self.tls(socket, from, tls.current()).await,
                None => self.plain(TcpStream::from_std(socket), Transport::Tcp { from }).await,
            },
            Socket::Unix(socket) => {
                let socket = UnixStream::from_std(socket);
                let uid =
                    socket.as_ref().ok().and_then(|socket| socket.peer_cred().ok()).map(|peer| peer.uid());
                self.plain(socket, Transport::Unix { uid }).await
            }
        };
        let Err(fault) = served else { return };
        let refused = &metrics.connections_refused;
        match &fault {
            NotServed::Tls(_) | NotServed::NoCertificate => refused.tls.increment(1),
            NotServed::Timeout => refused.timeout.increment(1),
            NotServed::NotHttp2(_) => refused.not_http2.increment(1),
            NotServed::Socket(_) => {}
        }
        tracing::debug!(%fault, "a connection was not served");
    }

    async fn plain<IO>(self, socket: io::Result<IO>, transport: Transport) -> Result<(), NotServed>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Some(prefaced) = in_time(&self.shutdown, async { Ok(read_preface(socket?).await??) }).await?
        else {
            return Ok(());
        };
        self.http2(prefaced, Peer::new(transport)).await;
        Ok(())
    }

    async fn tls(
        self,
        socket: std::net::TcpStream,
        from: std::net::SocketAddr,
        config: Arc<rustls::ServerConfig>,
    ) -> Result<(), NotServed> {
        let shake_hands = async {
            let socket = TcpStream::from_std(socket)?;
            let stream = TlsAcceptor::from(config).accept(socket).await.map_err(NotServed::Tls)?;
            let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let leaf = leaf.ok_or(NotServed::NoCertificate)?.clone().into_owned();
            Ok((read_preface(stream).await??, ClientCertificate::read(leaf)))
        };
        let Some((prefaced, certificate)) = in_time(&self.shutdown, shake_hands).await? else {
            return Ok(());
        };
        self.http2(prefaced, Peer::new(Transport::Tls { from, certificate })).await;
        Ok(())
    }

    async fn http2<IO>(self, io: Prefaced<IO>, peer: Peer)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = WithPeer { service: self.service, peer };
        let mut served = pin!(self.http2.serve_connection(TokioIo::new(io), service));
        let ended = tokio::select! {
            biased;
            ended = served.as_mut() => ended,
            () = self.shutdown.draining() => {
                // GOAWAY: no new streams, those in flight finish; the worker sets the end to the patience.
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended with an error");
        }
    }
}

/// The handshake under its timeout; `None` when the process drains first.
async fn in_time<T>(
    shutdown: &Shutdown,
    handshake: impl Future<Output = Result<T, NotServed>>,
) -> Result<Option<T>, NotServed> {
    tokio::select! {
        done = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, handshake) => match done {
            Ok(done) => done.map(Some),
            Err(_) => Err(NotServed::Timeout),
        },
        () = shutdown.draining() => Ok(None),
    }
}

/// Puts the peer into each request and calls the service.
struct WithPeer<S> {
    service: S,
    peer: Peer,
}

impl<S: Serve> hyper::service::Service<Request<Incoming>> for WithPeer<S> {
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        let mut service = self.service.clone();
        match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Either::Left(service.call(request)),
            Poll::Ready(Err(error)) => Either::Right(ready(Err(error))),
            Poll::Pending => Either::Right(ready(Ok(Status::unavailable("the service is busy").into_http()))),
        }
    }
}

/// Runs `at_end` when dropped.
fn scopeguard<F: FnMut()>(at_end: F) -> impl Drop {
    struct AtEnd<F: FnMut()>(F);
    impl<F: FnMut()> Drop for AtEnd<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    AtEnd(at_end)
}
