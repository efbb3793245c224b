//! An HTTPS server that answers exactly what a test says, byte for byte: for what no real server does on purpose.
//!
//! HTTP/1.1, one request for each connection. Serves until it is dropped.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Longest head of a request that is read, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// A part of an answer.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends the same bytes again and again, until nobody takes them.
    Flood(Vec<u8>),
    /// Sends one byte in each period, without end.
    Drip(Duration),
    /// Waits until this is set, at most as long.
    Await(Arc<AtomicBool>, Duration),
}

/// See the module.
#[derive(Debug)]
pub struct Scripted {
    /// Where it listens.
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Scripted {
    /// Starts on a free port; `script` gets the head of each request.
    ///
    /// # Errors
    /// If no port can be bound.
    pub fn start(
        config: ServerConfig,
        script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (stop, stopped) = oneshot::channel();
        let (memory, acceptor) = (Arc::clone(&heads), TlsAcceptor::from(Arc::new(config)));
        thread::spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = serve(listener, acceptor, memory, Arc::new(script)) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, heads, stop: Some(stop) })
    }

    /// The address of a file.
    #[must_use]
    pub fn location(&self, path: &str) -> String {
        format!("https://{}/{path}", self.address)
    }

    /// The head of every request so far.
    #[must_use]
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Fails only if the thread has ended.
            let _ = stop.send(());
        }
    }
}

async fn serve<S>(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    memory: Arc<Mutex<Vec<String>>>,
    script: Arc<S>,
) where
    S: Fn(&str) -> Vec<Step> + Send + Sync + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { return };
        let (acceptor, memory, script) = (acceptor.clone(), Arc::clone(&memory), Arc::clone(&script));
        connections.spawn(async move {
            // A connection that breaks is what some of the scripts are for.
            let _ = answer(socket, acceptor, &memory, script.as_ref()).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    socket: TcpStream,
    acceptor: TlsAcceptor,
    memory: &Mutex<Vec<String>>,
    script: &(impl Fn(&str) -> Vec<Step> + Sync),
) -> Result<()> {
    let mut stream = acceptor.accept(socket).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    memory.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    for step in script(&head) {
        match step {
            Step::Send(bytes) => stream.write_all(&bytes).await?,
            Step::Flood(bytes) => loop {
                stream.write_all(&bytes).await?;
            },
            Step::Drip(period) => loop {
                stream.write_all(b".").await?;
                stream.flush().await?;
                tokio::time::sleep(period).await;
            },
            Step::Await(set, at_most) => {
                let period = Duration::from_millis(5);
                let mut left = at_most.as_millis() / period.as_millis();
                while !set.load(Ordering::Acquire) && left > 0 {
                    tokio::time::sleep(period).await;
                    left -= 1;
                }
            }
        }
        stream.flush().await?;
    }
    Ok(stream.shutdown().await?)
}
