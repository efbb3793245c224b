//! Listens for gRPC connections and hands each one to a worker.
//!
//! Owns the sockets and the Unix socket's file. Everything that takes time per connection (TLS, preface, calls)
//! happens on the worker; here a connection is only accepted, counted and passed on.
//! Limits: [`limits::CONNECTIONS_MAX`] connections over all listeners; one more is closed at once, so that its peer
//! can go elsewhere instead of waiting.
//! Never does: reading from a connection.

mod peer;
mod preface;
mod tls;
mod uds;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use peer::{ClientCertificate, Peer, Transport};
pub(crate) use preface::{NotHttp2, Prefaced, read_preface};
pub use tls::{Tls, TlsFault};
pub use uds::UnixSocket;

use crate::config::Listen;
use crate::limits;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::workers::Dispatch;

/// Why a listener cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ListenFault {
    /// A TCP address cannot be bound.
    #[error("cannot listen on `{at}`: {source}")]
    Tcp {
        /// The address.
        at: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// Somebody answers on the Unix socket.
    #[error("another process answers on `{path}`; stop it or choose another `listen.uds`")]
    Occupied {
        /// The socket's path.
        path: PathBuf,
    },
    /// Something that is not a socket is in the way, and is left alone.
    #[error("`{path}` exists and is not a socket; move it away or choose another `listen.uds`")]
    InTheWay {
        /// The path.
        path: PathBuf,
    },
    /// The Unix socket cannot be made.
    #[error("cannot listen on `{path}`: {source}")]
    Unix {
        /// The socket's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Bound sockets, not yet accepting.
#[derive(Debug)]
pub struct Listeners {
    tcp: Vec<TcpListener>,
    unix: Option<UnixSocket>,
}

/// A connection on its way to a worker. It counts as open until `place` is dropped.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    pub(crate) place: OwnedSemaphorePermit,
}

/// The two kinds of socket, outside of any runtime.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

impl Listeners {
    /// Binds every gRPC address and the Unix socket.
    ///
    /// # Errors
    /// With the first that cannot be bound; what was bound before is released.
    pub fn bind(config: &Listen) -> Result<Self, ListenFault> {
        let tcp = config.grpc.iter().map(|at| bind_tcp(*at)).collect::<Result<_, _>>()?;
        let unix = config.uds.as_deref().map(UnixSocket::bind).transpose()?;
        Ok(Self { tcp, unix })
    }

    /// The TCP addresses as bound: where the configuration says port 0, the port that was found.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Accepts until the process drains, then closes the sockets and removes the Unix socket's file.
    ///
    /// # Errors
    /// When a socket cannot join the runtime.
    pub(crate) async fn accept(self, gate: Gate) -> io::Result<()> {
        let gate = &gate;
        let mut tcp = Vec::new();
        for listener in self.tcp {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tcp.push(async move { gate.accept_tcp(&listener).await });
        }
        let unix = async {
            let Some(socket) = self.unix else { return Ok(()) };
            let (listener, _file) = socket.into_parts();
            gate.accept_unix(&tokio::net::UnixListener::from_std(listener)?).await;
            Ok(())
        };
        let (_, unix) = tokio::join!(futures_util::future::join_all(tcp), unix);
        unix
    }
}

/// What every accepted connection passes: the limit, the count, the way to a worker.
#[derive(Debug)]
pub(crate) struct Gate {
    places: Arc<Semaphore>,
    dispatch: Dispatch,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
}

impl Gate {
    pub(crate) fn new(
        connections_max: usize,
        dispatch: Dispatch,
        metrics: Arc<Metrics>,
        shutdown: Shutdown,
    ) -> Self {
        Self { places: Arc::new(Semaphore::new(connections_max)), dispatch, metrics, shutdown }
    }

    async fn accept_tcp(&self, listener: &tokio::net::TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shutdown.draining() => return,
            };
            match accepted.and_then(|(socket, from)| Ok(Socket::Tcp(without_delay(socket)?, from))) {
                Ok(socket) => self.pass(socket),
                Err(error) => self.rest(&error).await,
            }
        }
    }

    async fn accept_unix(&self, listener: &tokio::net::UnixListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shutdown.draining() => return,
            };
            match accepted.and_then(|(socket, _)| Ok(Socket::Unix(socket.into_std()?))) {
                Ok(socket) => self.pass(socket),
                Err(error) => self.rest(&error).await,
            }
        }
    }

    fn pass(&self, socket: Socket) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.connections_refused.limit.increment(1);
            return;
        };
        if self.dispatch.hand(Accepted { socket, place }) {
            self.metrics.connections_accepted.increment(1);
        } else {
            self.metrics.connections_refused.workers_busy.increment(1);
        }
    }

    async fn rest(&self, error: &io::Error) {
        self.metrics.connections_refused.accept.increment(1);
        tracing::warn!(%error, "a connection could not be accepted");
        tokio::time::sleep(limits::ACCEPT_BACKOFF).await;
    }
}

/// Binds a TCP address for a runtime to take over.
pub(crate) fn bind_tcp(at: SocketAddr) -> Result<TcpListener, ListenFault> {
    let bind = || {
        let listener = TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|source| ListenFault::Tcp { at, source })
}

/// Small answers must not wait for the peer's acknowledgement (Nagle).
fn without_delay(socket: tokio::net::TcpStream) -> io::Result<std::net::TcpStream> {
    socket.set_nodelay(true)?;
    socket.into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_named() {
        let first = bind_tcp(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let at = first.local_addr().unwrap();
        let listen = Listen { grpc: vec![at], uds: None, http: None };
        let fault = Listeners::bind(&listen).unwrap_err().to_string();
        assert!(fault.starts_with(&format!("cannot listen on `{at}`")), "{fault}");
    }
}
