//! A real Kafka broker: one node of Apache Kafka that is its own controller, with its data in a directory of its own.
//!
//! Its jars are those that `tests/run` copies to `target/kafka`. Promises: what it acknowledged is there after
//! [`Broker::stop`] and [`Broker::start_again`], and its address stays; a topic exists only after
//! [`Broker::create_topic`].
//! Limits: a heap of 256 MB. A first start takes 3 s on an idle machine, one after [`Broker::stop`] 5 s. It reads records
//! back uncompressed only: the client is built without codecs.
//! Never does: TLS, passwords, more than one replica.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rskafka::BackoffConfig;
use rskafka::client::partition::{OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use tempfile::TempDir;

use crate::process::{Process, target_dir};
use crate::registry::program;
use crate::wait;

/// For tests a quick start counts, not what the compiler makes of code that runs for hours.
const JVM: [&str; 3] = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
/// Any will do; both commands must name the same.
const CLUSTER: &str = "Y2FyZGVhLXRlc3RzLTAwMA";
/// Bytes asked for at once.
const FETCH_BYTES_MAX: i32 = 1 << 20;
/// How long the broker may wait for something to send; it has what is asked for.
const FETCH_WAIT_MS: i32 = 500;
/// How long the broker may take to make a topic.
const CREATE_MS: i32 = 20_000;

/// What lies in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its place in the partition.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Vec<u8>,
    /// Its headers; of several with one name, one.
    pub headers: BTreeMap<String, Vec<u8>>,
}

/// See the module.
#[derive(Debug)]
pub struct Broker {
    /// The process.
    pub process: Process,
    address: SocketAddr,
    dir: TempDir,
}

impl Broker {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// If it is not installed or does not start.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("kafka-").tempdir()?;
        let (address, controller) = free_addresses()?;
        fs::write(dir.path().join("server.properties"), configuration(dir.path(), address, controller))?;
        format(dir.path())?;
        let process = launch(dir.path(), address).await?;
        Ok(Self { process, address, dir })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it; its data stay.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn stop(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again, at the same address and on the same data.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = launch(self.dir.path(), self.address).await?;
        Ok(())
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// If it is there already, or the broker does not answer.
    pub async fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let controller = client(self.address).await?.controller_client()?;
        let created = controller.create_topic(topic, partitions, 1, CREATE_MS);
        wait::within("a topic to be made", created)
            .await?
            .with_context(|| format!("create the topic {topic}"))
    }

    /// Everything that lies in a topic, partition by partition in the order of their offsets.
    ///
    /// # Errors
    /// If there is no such topic, a record without a value lies in it, or the broker does not answer.
    pub async fn records(&self, topic: &str) -> Result<Vec<Record>> {
        wait::within("the records of a topic", self.all_records(topic)).await?
    }

    async fn all_records(&self, topic: &str) -> Result<Vec<Record>> {
        let client = client(self.address).await?;
        let topics = client.list_topics().await?;
        let Some(known) = topics.iter().find(|known| known.name == topic) else {
            bail!("the broker has no topic {topic}");
        };
        let mut records = Vec::new();
        for &partition in &known.partitions {
            // `Retry`: right after a topic was made, its partitions may have no leader yet.
            let reader = client.partition_client(topic, partition, UnknownTopicHandling::Retry).await?;
            read(&reader, partition, &mut records).await?;
        }
        Ok(records)
    }
}

/// Reads a partition to the end that it has now.
async fn read(reader: &PartitionClient, partition: i32, into: &mut Vec<Record>) -> Result<()> {
    let end = reader.get_offset(OffsetAt::Latest).await?;
    let mut next = reader.get_offset(OffsetAt::Earliest).await?;
    while next < end {
        let (batch, _) = reader.fetch_records(next, 1..FETCH_BYTES_MAX, FETCH_WAIT_MS).await?;
        // A batch comes whole, also when it begins before the offset that was asked for.
        let new: Vec<_> = batch.into_iter().filter(|found| found.offset >= next).collect();
        let last = new.last().map(|found| found.offset);
        for found in new {
            let (offset, record) = (found.offset, found.record);
            let value =
                record.value.with_context(|| format!("the record at offset {offset} has no value"))?;
            into.push(Record { partition, offset, key: record.key, value, headers: record.headers });
        }
        let last =
            last.with_context(|| format!("partition {partition} ends at {end}, but nothing lies at {next}"))?;
        next = last + 1;
    }
    Ok(())
}

/// A client that gives up: without a deadline, it would try for ever.
async fn client(address: SocketAddr) -> Result<Client> {
    let patience = BackoffConfig {
        init_backoff: Duration::from_millis(20),
        max_backoff: Duration::from_millis(200),
        base: 2.0,
        deadline: Some(wait::LIMIT),
    };
    let connecting = ClientBuilder::new(vec![address.to_string()]).backoff_config(patience).build();
    Ok(wait::within("a connection to Kafka", connecting).await??)
}

async fn launch(dir: &Path, address: SocketAddr) -> Result<Process> {
    let mut command = java("kafka.Kafka")?;
    command.arg(dir.join("server.properties"));
    let mut process = Process::start("kafka", &mut command)?;
    wait::until("Kafka to listen", async || {
        process.must_run()?;
        Ok(std::net::TcpStream::connect(address).is_ok().then_some(()))
    })
    .await?;
    // It listens before it has read its data; it answers when it has.
    wait::within("Kafka to serve", client(address).await?.list_topics()).await??;
    Ok(process)
}

/// Makes the directory one of this cluster, without which Kafka does not start.
fn format(dir: &Path) -> Result<()> {
    let mut command = java("kafka.tools.StorageTool")?;
    command.args(["format", "--cluster-id", CLUSTER, "--config"]).arg(dir.join("server.properties"));
    let done = command.output()?;
    ensure!(
        done.status.success(),
        "Kafka did not format its data: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

fn java(class: &str) -> Result<Command> {
    let jars = target_dir()?.join("kafka");
    if !jars.is_dir() {
        bail!("there is no Kafka in {}: run tests/run, which installs it", jars.display());
    }
    let mut command = Command::new(program("java")?);
    command.args(JVM).arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
    command.arg("-cp").arg(jars.join("*")).arg(class);
    Ok(command)
}

/// Kafka cannot tell which ports it got, so it is given two that were free a moment ago.
fn free_addresses() -> Result<(SocketAddr, SocketAddr)> {
    let (one, other) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((one.local_addr()?, other.local_addr()?))
}

/// Small in threads and buffers: the cleaner's alone would be 128 MB. After a kill, the controller lets the broker in only
/// when its last session has run out; 3 s of it, not 9, make a second start short.
fn configuration(dir: &Path, address: SocketAddr, controller: SocketAddr) -> String {
    let dir = dir.join("data");
    let dir = dir.display();
    format!(
        "\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{address},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{address}
log.dirs={dir}
num.partitions=1
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
num.network.threads=1
num.io.threads=2
background.threads=1
log.cleaner.dedupe.buffer.size=2097152
"
    )
}
