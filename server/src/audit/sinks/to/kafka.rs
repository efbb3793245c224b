//! A Kafka topic.
//!
//! All records of a node go to one partition, one batch at a time, acknowledged by all in-sync replicas: so they keep their order. The
//! client takes no part in Kafka's own detection of repetitions; the header `id` names the record.
//! Batches are not compressed: a small request would wait for the acknowledgement of its own first part (the client has no `TCP_NODELAY`), and
//! a topic can be compressed by its broker.
//! Limits: [`limits::SINK_TIMEOUT`] for a batch. Never does: making topics.

use std::sync::Arc;

use rskafka::BackoffConfig;
use rskafka::chrono::DateTime;
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder, Credentials, SaslConfig};
use rskafka::record::Record;
use tokio::time::timeout;

use super::super::options::KafkaTo;
use super::{Event, Failed, Format, secret, tls};
use crate::audit::record::unix_ms;
use crate::limits;

/// See the module.
#[derive(Debug)]
pub(in crate::audit::sinks) struct Brokers {
    to: KafkaTo,
    format: Format,
    log: String,
}

/// The leader of the partition.
pub(in crate::audit::sinks) struct Connected {
    partition: PartitionClient,
    format: Format,
    log: String,
}

impl Brokers {
    pub(super) fn new(to: KafkaTo, format: Format, log: &str) -> Result<Self, String> {
        let brokers = Self { to, format, log: log.to_owned() };
        brokers.builder().map(|_| brokers)
    }

    fn builder(&self) -> Result<ClientBuilder, String> {
        let deadline = Some(limits::SINK_TIMEOUT);
        let mut builder = ClientBuilder::new(self.to.brokers.clone())
            .client_id("cardea")
            .backoff_config(BackoffConfig { deadline, ..BackoffConfig::default() });
        if self.to.tls {
            builder = builder.tls_config(Arc::new(tls(self.to.ca.as_deref())?));
        }
        if let Some((username, password_file)) = &self.to.login {
            let credentials = Credentials::new(username.clone(), secret(password_file)?);
            builder = builder.sasl_config(SaslConfig::Plain(credentials));
        }
        Ok(builder)
    }

    pub(super) async fn open(&self) -> Result<Connected, Failed> {
        let builder = self.builder().map_err(|why| Failed::later(0, why))?;
        let connecting = async {
            let client = builder.build().await.map_err(|error| Failed::later(0, error))?;
            let number = match self.to.partition {
                Some(number) => number,
                None => self.pick(&client).await?,
            };
            let partition =
                client.partition_client(self.to.topic.clone(), number, UnknownTopicHandling::Error).await;
            partition.map_err(|error| self.failed(&error))
        };
        let partition = timeout(limits::SINK_TIMEOUT, connecting).await;
        let partition = partition.map_err(|_| Failed::later(0, "no answer in time"))??;
        Ok(Connected { partition, format: self.format, log: self.log.clone() })
    }

    /// The partition of this log: the same each time, as long as the topic has as many.
    async fn pick(&self, client: &Client) -> Result<i32, Failed> {
        let topics = client.list_topics().await.map_err(|error| Failed::later(0, error))?;
        let topic = topics.into_iter().find(|topic| topic.name == self.to.topic);
        let partitions: Vec<i32> =
            topic.map(|topic| topic.partitions.into_iter().collect()).unwrap_or_default();
        let all = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        let at = crc32fast::hash(self.log.as_bytes()).checked_rem(all).unwrap_or(0);
        let picked = usize::try_from(at).ok().and_then(|at| partitions.get(at)).copied();
        picked.ok_or_else(|| Failed::later(0, format!("there is no topic `{}`: make it", self.to.topic)))
    }

    fn failed(&self, error: &Error) -> Failed {
        if let Error::ServerError { protocol_error: ProtocolError::UnknownTopicOrPartition, .. } = error {
            let what = format!("there is no such partition of a topic `{}`: make it", self.to.topic);
            return Failed::later(0, what);
        }
        Failed::later(0, error)
    }
}

impl Connected {
    pub(super) async fn send(&self, batch: &[Event]) -> Result<(), Failed> {
        let records = batch.iter().map(|event| self.record(event)).collect();
        let produced =
            timeout(limits::SINK_TIMEOUT, self.partition.produce(records, Compression::NoCompression)).await;
        match produced {
            Ok(Ok(_offsets)) => Ok(()),
            Ok(Err(Error::ServerError {
                protocol_error:
                    error @ (ProtocolError::MessageTooLarge
                    | ProtocolError::RecordListTooLarge
                    | ProtocolError::InvalidRecord),
                ..
            })) => Err(Failed::refused(0, error)),
            Ok(Err(error)) => Err(Failed::later(0, error)),
            Err(_) => Err(Failed::later(0, "no answer in time")),
        }
    }

    fn record(&self, event: &Event) -> Record {
        let ms = event.record.time.as_ref().map_or(0, unix_ms);
        let headers =
            [("id", event.id.as_str()), ("kind", event.kind), ("content-type", self.format.media_type())];
        Record {
            key: Some(self.log.clone().into_bytes()),
            value: Some(event.body.clone()),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
                .collect(),
            timestamp: DateTime::from_timestamp_millis(ms).unwrap_or_default(),
        }
    }
}
