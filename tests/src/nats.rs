//! A real NATS server with JetStream: Debian's `nats-server`, with its streams in a directory of its own.
//!
//! It binds a free port and tells the real one in its log. Promises: what it acknowledged is there after
//! [`NatsServer::stop`] and [`NatsServer::start_again`], and its address stays; a stream exists only after
//! [`NatsServer::create_stream`].
//! Never does: TLS, passwords, monitoring, more than one replica.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use async_nats::jetstream::{self, stream};
use async_nats::{ConnectOptions, HeaderMap};
use tempfile::TempDir;

use crate::process::Process;
use crate::registry::program;
use crate::wait;

/// What lies in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its place in the stream, from 1.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// Its headers; of several with one name, the first.
    pub headers: BTreeMap<String, String>,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct NatsServer {
    /// The process.
    pub process: Process,
    address: SocketAddr,
    dir: TempDir,
}

impl NatsServer {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// If it is not installed or does not start.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("nats-").tempdir()?;
        let (process, address) = launch(dir.path(), None).await?;
        Ok(Self { process, address, dir })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it; its streams stay.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn stop(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again, at the same address and on the same streams.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        (self.process, _) = launch(self.dir.path(), Some(self.address.port())).await?;
        Ok(())
    }

    /// Makes a stream of these subjects, in files.
    ///
    /// # Errors
    /// If it is there already with other subjects, or the server does not answer.
    pub async fn create_stream(&self, name: &str, subjects: &[&str]) -> Result<()> {
        let config = stream::Config {
            name: name.to_owned(),
            subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
            ..stream::Config::default()
        };
        let jetstream = jetstream(self.address).await?;
        jetstream.create_stream(config).await.with_context(|| format!("create the stream {name}"))?;
        Ok(())
    }

    /// Everything that lies in a stream, in its order.
    ///
    /// # Errors
    /// If there is no such stream, a message was deleted out of it, or the server does not answer.
    pub async fn messages(&self, stream: &str) -> Result<Vec<Message>> {
        wait::within("the messages of a stream", self.all_messages(stream)).await?
    }

    async fn all_messages(&self, stream: &str) -> Result<Vec<Message>> {
        let stream = jetstream(self.address).await?.get_stream(stream).await?;
        let state = &stream.cached_info().state;
        let mut messages = Vec::new();
        if state.messages > 0 {
            for sequence in state.first_sequence..=state.last_sequence {
                let found = stream.get_raw_message(sequence).await?;
                let (subject, payload) = (found.subject.to_string(), found.payload.to_vec());
                messages.push(Message { sequence, subject, headers: headers(&found.headers), payload });
            }
        }
        Ok(messages)
    }
}

fn headers(of: &HeaderMap) -> BTreeMap<String, String> {
    let first = of.iter().filter_map(|(name, values)| Some((name, values.first()?)));
    first.map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

async fn jetstream(address: SocketAddr) -> Result<jetstream::Context> {
    let connecting = ConnectOptions::new().connect(address.to_string());
    Ok(jetstream::new(wait::within("a connection to NATS", connecting).await??))
}

/// Starts it on this port, or on any.
async fn launch(dir: &Path, port: Option<u16>) -> Result<(Process, SocketAddr)> {
    let mut command = Command::new(program("nats-server")?);
    let port = port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
    command.args(["--addr", "127.0.0.1", "--port", &port, "--jetstream", "--store_dir"]).arg(dir);
    let mut process = Process::start("nats-server", &mut command)?;
    let address = wait::until("the NATS server to be ready", async || {
        process.must_run()?;
        let log = process.stderr();
        let listening = log.lines().find_map(|line| line.split("client connections on ").nth(1));
        let ready = log.contains("Server is ready");
        Ok(listening.filter(|_| ready).map(|address| address.trim().parse()).transpose()?)
    })
    .await?;
    Ok((process, address))
}
