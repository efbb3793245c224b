//! What an operator says about a sink.

use std::path::PathBuf;

use smol_str::SmolStr;

use super::format::Format;
use crate::audit::Filter;
use crate::ssf::address::Address;

/// One sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkOptions {
    /// Its name; stands in metrics, in Status and in its files.
    pub name: SmolStr,
    /// How records look.
    pub format: Format,
    /// Which records it gets.
    pub filter: Filter,
    /// With which record a sink begins that has no place in the log yet.
    pub from: From,
    /// Where records go.
    pub to: To,
}

/// With which record a sink begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With the first one that the log still has.
    Start,
    /// With the next one.
    Now,
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// Lines in files.
    File(FileTo),
    /// Lines on standard output.
    Stdout,
    /// Batches by HTTP.
    Http(HttpTo),
    /// A NATS `JetStream` stream.
    Nats(NatsTo),
    /// A Kafka topic.
    Kafka(KafkaTo),
    /// Log records of OpenTelemetry, by HTTP.
    Otlp(HttpTo),
}

impl To {
    /// As the configuration calls it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Stdout => "stdout",
            Self::Http(_) => "http",
            Self::Nats(_) => "nats",
            Self::Kafka(_) => "kafka",
            Self::Otlp(_) => "otlp",
        }
    }
}

/// Lines in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTo {
    /// The file that is written.
    pub path: PathBuf,
    /// Size after which the next one begins, in bytes.
    pub rotate_bytes: u64,
    /// How many older ones stay; 0: all.
    pub keep: usize,
}

/// An HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTo {
    /// Where batches are posted to.
    pub url: Address,
    /// File with the value of the header `Authorization`; read again for each connection.
    pub authorization_file: Option<PathBuf>,
    /// Certificates of further authorities, PEM.
    pub ca: Option<PathBuf>,
    /// Whether bodies are compressed.
    pub gzip: bool,
}

/// A NATS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsTo {
    /// `tls://HOST:PORT`, or `nats://HOST:PORT` on loopback.
    pub url: String,
    /// The subject; a stream must take it.
    pub subject: String,
    /// File with a JWT and the seed of its key, as `nsc` makes it.
    pub credentials_file: Option<PathBuf>,
    /// Certificates of further authorities, PEM.
    pub ca: Option<PathBuf>,
}

/// Kafka brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaTo {
    /// `HOST:PORT` of some of them.
    pub brokers: Vec<String>,
    /// The topic; it must exist.
    pub topic: String,
    /// The partition; `None`: picked by the log's id, so that a node keeps its order.
    pub partition: Option<i32>,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// Certificates of further authorities, PEM.
    pub ca: Option<PathBuf>,
    /// Name and file with the password for SASL/PLAIN.
    pub login: Option<(String, PathBuf)>,
}
