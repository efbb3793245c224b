//! A collector of audit records over HTTP that behaves as a test says: takes batches, refuses, fails, answers slowly, or never.
//!
//! HTTP/1.1 with keep-alive, through hyper. What it took stays when it is stopped and started again at the same address.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// How it behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Takes every batch.
    Takes,
    /// Takes a batch, and answers after this time.
    Slow(Duration),
    /// Answers with this status, and takes nothing.
    Fails(StatusCode),
    /// Answers 503 with this `Retry-After`.
    Later(u64),
    /// Takes a batch, and then closes the connection without an answer.
    TakesInSilence,
    /// Never answers.
    Hangs,
    /// Refuses batches that hold one of these sequence numbers.
    Refuses(BTreeSet<u64>),
}

/// What it has.
#[derive(Debug, Default)]
pub struct Taken {
    /// Bodies of batches that it took.
    pub bodies: Vec<Vec<u8>>,
    /// Heads of all requests.
    pub heads: Vec<http::HeaderMap>,
}

/// See the module.
#[derive(Debug)]
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    taken: Arc<Mutex<Taken>>,
    stop: Option<(oneshot::Sender<()>, std::thread::JoinHandle<()>)>,
}

impl Collector {
    /// Starts on a free port.
    ///
    /// # Errors
    /// If no port can be bound.
    pub fn start() -> Result<Self> {
        let mut collector = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            mood: Arc::new(Mutex::new(Mood::Takes)),
            taken: Arc::default(),
            stop: None,
        };
        collector.start_again()?;
        Ok(collector)
    }

    /// Starts again after a stop.
    ///
    /// # Errors
    /// If the port is taken.
    pub fn start_again(&mut self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = std::net::TcpListener::bind(self.address)?;
        listener.set_nonblocking(true)?;
        self.address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let (mood, taken) = (Arc::clone(&self.mood), Arc::clone(&self.taken));
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = serve(listener, mood, taken) => {}
                    _ = stopped => {}
                }
            });
        });
        self.stop = Some((stop, thread));
        Ok(())
    }

    /// Stops, and cuts all connections.
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.stop.take() {
            // Fails only if the thread has ended.
            let _ = stop.send(());
            let _ = thread.join();
        }
    }

    /// Behaves like this from the next request on.
    pub fn set(&self, mood: Mood) {
        *lock(&self.mood) = mood;
    }

    /// What it has.
    pub fn taken(&self) -> MutexGuard<'_, Taken> {
        lock(&self.taken)
    }

    /// Every JSON line that it took, in order.
    ///
    /// # Errors
    /// If one is no JSON.
    pub fn lines(&self) -> Result<Vec<Value>> {
        let taken = self.taken();
        let lines = taken.bodies.iter().flat_map(|body| body.split(|byte| *byte == b'\n'));
        lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_slice(line).with_context(|| String::from_utf8_lossy(line).into_owned())
            })
            .collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, mood: Arc<Mutex<Mood>>, taken: Arc<Mutex<Taken>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { return };
        let (mood, taken) = (Arc::clone(&mood), Arc::clone(&taken));
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&mood), Arc::clone(&taken)));
            // Connections that break are what some moods are for.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
    mood: Arc<Mutex<Mood>>,
    taken: Arc<Mutex<Taken>>,
) -> Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let is_packed = head.headers.get("content-encoding").is_some_and(|value| value == "gzip");
    let body = body.collect().await?.to_bytes();
    let body = if is_packed {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(body.as_ref()).read_to_end(&mut plain)?;
        plain
    } else {
        body.to_vec()
    };
    lock(&taken).heads.push(head.headers);
    let mood = lock(&mood).clone();
    let take = || lock(&taken).bodies.push(body.clone());
    let status = |status: StatusCode| Ok(Response::builder().status(status).body(Full::default())?);
    match mood {
        Mood::Takes => {
            take();
            status(StatusCode::OK)
        }
        Mood::Slow(time) => {
            take();
            tokio::time::sleep(time).await;
            status(StatusCode::NO_CONTENT)
        }
        Mood::Fails(with) => status(with),
        Mood::Later(seconds) => Ok(Response::builder()
            .status(StatusCode::SERVICE_UNAVAILABLE)
            .header("retry-after", seconds)
            .body(Full::default())?),
        Mood::TakesInSilence => {
            take();
            anyhow::bail!("no answer")
        }
        Mood::Hangs => std::future::pending().await,
        Mood::Refuses(sequences) => {
            let is_refused = |sequence: &u64| {
                let part = format!("\"sequence\":{sequence},");
                body.windows(part.len()).any(|window| window == part.as_bytes())
            };
            if sequences.iter().any(is_refused) {
                return status(StatusCode::UNPROCESSABLE_ENTITY);
            }
            take();
            status(StatusCode::OK)
        }
    }
}
