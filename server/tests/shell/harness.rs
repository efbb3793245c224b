//! Starts the shell on free ports with the standard health service, and talks to it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use cardea_server::config::{self, Listen};
use cardea_server::limits;
use cardea_server::listen::{Listeners, Peer, Tls};
use cardea_server::metrics::{Labels, Metrics};
use cardea_server::router::Router;
use cardea_server::run::{Parts, until_stopped};
use cardea_server::shutdown::Shutdown;
use cardea_server::supervise::Supervisor;
use cardea_server::workers::Shared;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Service, service_fn};

/// How long anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What the service notes and how it behaves; shared with the test.
#[derive(Clone)]
pub(crate) struct Behaviour {
    /// Peers of the calls that arrived.
    pub(crate) peers: Arc<Mutex<Vec<Peer>>>,
    /// A call needs a permit to finish.
    pub(crate) permits: Arc<Semaphore>,
    /// The next call panics.
    pub(crate) panic_next: Arc<AtomicBool>,
}

/// The health service behind the behaviour.
#[derive(Clone)]
struct Spied<S> {
    inner: S,
    behaviour: Behaviour,
}

impl<S> NamedService for Spied<S> {
    const NAME: &'static str = "grpc.health.v1.Health";
}

impl<S> Service<http::Request<Incoming>> for Spied<S>
where
    S: Service<http::Request<Incoming>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().expect("every request carries its peer").clone();
        self.behaviour.peers.lock().unwrap().push(peer);
        let (mut inner, behaviour) = (self.inner.clone(), self.behaviour.clone());
        Box::pin(async move {
            assert!(!behaviour.panic_next.swap(false, Ordering::SeqCst), "asked to panic");
            let _permit = behaviour.permits.acquire().await.expect("never closed");
            inner.call(request).await
        })
    }
}

/// What to start.
pub(crate) struct Setup {
    pub(crate) listen: Listen,
    pub(crate) tls: Option<config::Tls>,
    pub(crate) connections_max: usize,
    pub(crate) calls_at_once: usize,
    pub(crate) make_panics: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            listen: Listen { grpc: vec![SocketAddr::from(([127, 0, 0, 1], 0))], uds: None, http: None },
            tls: None,
            connections_max: limits::CONNECTIONS_MAX,
            calls_at_once: 1_000,
            make_panics: false,
        }
    }
}

/// A running shell.
pub(crate) struct Running {
    pub(crate) at: Option<SocketAddr>,
    pub(crate) uds: Option<PathBuf>,
    pub(crate) shutdown: Shutdown,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) behaviour: Behaviour,
    thread: std::thread::JoinHandle<Result<(), String>>,
}

impl Setup {
    /// Starts it on a thread and a runtime of its own, as `main` would.
    pub(crate) fn start(self) -> Running {
        let metrics = Arc::new(Metrics::new(Labels {
            doors: &["grpc"],
            outcomes: &[("allow", "permitted")],
            shards: 2,
        }));
        let behaviour = Behaviour {
            peers: Arc::default(),
            permits: Arc::new(Semaphore::new(self.calls_at_once)),
            panic_next: Arc::default(),
        };
        let shutdown = Shutdown::new();
        let (supervisor, mut deaths) = Supervisor::new(shutdown.clone(), metrics.panics.clone());
        let tls = self.tls.map(|files| Arc::new(Tls::load(&files, Arc::clone(&metrics)).unwrap()));
        let listeners = Listeners::bind(&self.listen).unwrap();
        let at = listeners.addresses().first().copied();
        let (noted, make_panics) = (behaviour.clone(), self.make_panics);
        let make = move |_worker| {
            assert!(!make_panics, "asked to panic");
            let (_reporter, health) = tonic_health::server::health_reporter();
            let inner = health.max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX);
            Router::builder().service(Spied { inner, behaviour: noted.clone() }).build()
        };
        let shared = Shared { tls, metrics: Arc::clone(&metrics), supervisor };
        let parts = Parts { listeners, threads: 2, connections_max: self.connections_max, make, shared };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(until_stopped(parts, &mut deaths)).map_err(|fatal| fatal.to_string())
        });
        Running { at, uds: self.listen.uds, shutdown, metrics, behaviour, thread }
    }
}

impl Running {
    /// A channel over TCP.
    pub(crate) async fn tcp(&self) -> Channel {
        let at = self.at.expect("listens on TCP");
        Endpoint::from_shared(format!("http://{at}")).unwrap().timeout(PATIENCE).connect().await.unwrap()
    }

    /// A channel over the Unix socket.
    pub(crate) async fn unix(&self) -> Channel {
        let path = self.uds.clone().expect("listens on a Unix socket");
        let connect = service_fn(move |_| {
            let path = path.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        Endpoint::from_static("http://unix").connect_with_connector(connect).await.unwrap()
    }

    /// The number that a metric shows; 0 when it is not there.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.metrics.render();
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or_default()
    }

    /// Waits until `done` holds.
    pub(crate) async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let wait = async {
            while !done(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("waited too long until {what}\n{}", self.metrics.render());
        }
    }

    /// Calls that arrived.
    pub(crate) fn calls(&self) -> usize {
        self.behaviour.peers.lock().unwrap().len()
    }

    /// Drains and waits for the end.
    pub(crate) async fn ended_after_drain(self) -> Result<(), String> {
        self.shutdown.drain();
        self.ended().await
    }

    /// Waits for the end and returns how it ended.
    pub(crate) async fn ended(self) -> Result<(), String> {
        let joined = tokio::task::spawn_blocking(move || self.thread.join().unwrap());
        tokio::time::timeout(PATIENCE, joined).await.expect("ends in time").unwrap()
    }
}

/// One health check.
pub(crate) async fn check(channel: Channel) -> Result<i32, Status> {
    let answer = HealthClient::new(channel).check(HealthCheckRequest { service: String::new() }).await?;
    Ok(answer.into_inner().status)
}
