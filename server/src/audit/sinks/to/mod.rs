//! Where records go.
//!
//! A destination is set up once and opened for each connection; what fails takes its connection along, and the next one begins anew. Each
//! batch is taken up to some record, and what is behind it is sent again.

mod file;
mod http;
mod kafka;
mod nats;
mod otlp;
mod stdout;

use std::path::Path;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::format::{Event, Format};
use super::options::{SinkOptions, To};
use crate::limits;

/// A batch that was not taken whole.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::audit::sinks) struct Failed {
    /// How many of its first records were taken.
    pub(in crate::audit::sinks) taken: usize,
    /// Why the one after them was not.
    pub(in crate::audit::sinks) why: Why,
}

/// Why a record was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::audit::sinks) enum Why {
    /// Another time it may be.
    Later {
        /// What happened, in words.
        what: String,
        /// When it wants to be asked again.
        after: Option<Duration>,
    },
    /// Sending it again would change nothing: it, or one behind it in the batch, is refused.
    Refused(String),
}

impl Failed {
    fn later(taken: usize, what: impl std::fmt::Display) -> Self {
        Self { taken, why: Why::Later { what: what.to_string(), after: None } }
    }

    fn refused(taken: usize, what: impl std::fmt::Display) -> Self {
        Self { taken, why: Why::Refused(what.to_string()) }
    }
}

/// A sink's destination, not yet connected.
#[derive(Debug)]
pub(in crate::audit::sinks) enum Destination {
    /// Lines in files.
    File(file::Files),
    /// Lines on standard output.
    Stdout,
    /// Batches by HTTP.
    Http(http::Server),
    /// A NATS `JetStream` stream.
    Nats(nats::Server),
    /// A Kafka topic.
    Kafka(kafka::Brokers),
    /// Log records of OpenTelemetry.
    Otlp(otlp::Collector),
}

/// A destination that takes batches.
pub(in crate::audit::sinks) enum Connection {
    /// See [`Destination`].
    File(file::Open),
    /// See [`Destination`].
    Stdout,
    /// See [`Destination`].
    Http(http::Client),
    /// See [`Destination`].
    Nats(nats::Connected),
    /// See [`Destination`].
    Kafka(Box<kafka::Connected>),
    /// See [`Destination`].
    Otlp(otlp::Client),
}

impl Destination {
    /// Reads what has to be there before anything is sent.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(in crate::audit::sinks) fn prepare(options: &SinkOptions, log: &str) -> Result<Self, String> {
        Ok(match &options.to {
            To::File(to) => Self::File(file::Files::new(to.clone())),
            To::Stdout => Self::Stdout,
            To::Http(to) => Self::Http(http::Server::new(to.clone(), options.format)?),
            To::Nats(to) => Self::Nats(nats::Server::new(to.clone(), options.format)?),
            To::Kafka(to) => Self::Kafka(kafka::Brokers::new(to.clone(), options.format, log)?),
            To::Otlp(to) => Self::Otlp(otlp::Collector::new(to.clone(), log)?),
        })
    }

    /// Connects.
    ///
    /// # Errors
    /// Why that does not work now.
    pub(in crate::audit::sinks) async fn open(&self) -> Result<Connection, Failed> {
        Ok(match self {
            Self::File(files) => Connection::File(files.open().map_err(|error| Failed::later(0, error))?),
            Self::Stdout => Connection::Stdout,
            Self::Http(server) => Connection::Http(server.open()?),
            Self::Nats(server) => Connection::Nats(server.open().await?),
            Self::Kafka(brokers) => Connection::Kafka(Box::new(brokers.open().await?)),
            Self::Otlp(collector) => Connection::Otlp(collector.open()?),
        })
    }
}

impl Connection {
    /// Sends a batch, and waits until it is taken.
    ///
    /// # Errors
    /// How far it was taken.
    pub(in crate::audit::sinks) async fn send(&mut self, batch: &[Event]) -> Result<(), Failed> {
        match self {
            Self::File(file) => file.send(batch),
            Self::Stdout => stdout::send(batch),
            Self::Http(client) => client.send(batch).await,
            Self::Nats(connected) => connected.send(batch).await,
            Self::Kafka(connected) => connected.send(batch).await,
            Self::Otlp(client) => client.send(batch).await,
        }
    }
}

/// Lines of a batch.
fn lines(batch: &[Event]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(batch.iter().map(|event| event.body.len() + 1).sum());
    for event in batch {
        lines.extend_from_slice(&event.body);
        lines.push(b'\n');
    }
    lines
}

/// What the file of a secret holds, without the end of its line.
fn secret(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    let text = text.trim();
    if text.is_empty() || text.len() > limits::SINK_SECRET_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!(
            "`{}` has to hold one line of at most {} bytes",
            path.display(),
            limits::SINK_SECRET_BYTES_MAX
        ));
    }
    Ok(text.to_owned())
}

/// Certificates of further authorities.
fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|error| format!("`{shown}` cannot be read: {error}"))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("`{shown}` holds no certificates in PEM form"))?;
    if found.is_empty() { Err(format!("`{shown}` holds no certificate")) } else { Ok(found) }
}

/// What TLS trusts: the public authorities, and those of a file.
fn tls(ca: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    // A library below takes the provider of the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for authority in ca.map(authorities).transpose()?.unwrap_or_default() {
        roots.add(authority).map_err(|error| format!("an authority cannot be trusted: {error}"))?;
    }
    Ok(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// How a batch is told to whoever wants to know repetitions: where it begins and ends.
fn name(batch: &[Event]) -> String {
    let first = batch.first().map_or("", |event| event.id.as_str());
    let last = batch.last().map_or(0, |event| event.record.sequence);
    format!("{first}-{last}")
}

/// Whether one record of this media type is followed by another by a line break.
const fn is_lines(format: Format) -> bool {
    match format {
        Format::Json | Format::Ocsf => true,
        Format::CloudEvents => false,
    }
}
