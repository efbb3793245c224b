//! The message servers of the tests keep what they acknowledged, also when they are killed: what tests of sinks rest on.

use std::collections::BTreeMap;

use anyhow::Result;
use async_nats::HeaderMap;
use async_nats::jetstream;
use cardea_tests::kafka::{self, Broker};
use cardea_tests::nats::{Message, NatsServer};
use rskafka::chrono::DateTime;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;

#[tokio::test]
async fn a_kafka_broker_keeps_its_records_when_it_is_killed() -> Result<()> {
    let mut broker = Broker::start().await?;
    broker.create_topic("audit", 1).await?;
    assert_eq!(broker.records("audit").await?, []);

    let client = ClientBuilder::new(vec![broker.address().to_string()]).build().await?;
    let writer = client.partition_client("audit", 0, UnknownTopicHandling::Error).await?;
    let records = vec![record(Some("a"), "1"), record(None, "2"), record(Some("b"), "3")];
    assert_eq!(writer.produce(records, Compression::NoCompression).await?, [0, 1, 2]);
    let expected = [kept(0, Some("a"), "1"), kept(1, None, "2"), kept(2, Some("b"), "3")];
    assert_eq!(broker.records("audit").await?, expected);

    broker.stop()?;
    broker.start_again().await?;
    assert_eq!(broker.records("audit").await?, expected);
    assert_eq!(writer.produce(vec![record(None, "4")], Compression::NoCompression).await?, [3]);
    Ok(())
}

#[tokio::test]
async fn a_topic_is_there_only_once_it_is_made() -> Result<()> {
    let broker = Broker::start().await?;
    assert!(broker.records("audit").await.is_err());
    broker.create_topic("audit", 2).await?;
    assert!(broker.create_topic("audit", 2).await.is_err());

    let client = ClientBuilder::new(vec![broker.address().to_string()]).build().await?;
    // More than is fetched at once.
    let (large, count) = ("x".repeat(100_000), 12);
    for partition in [0, 1] {
        let writer = client.partition_client("audit", partition, UnknownTopicHandling::Retry).await?;
        for _ in 0..count {
            writer.produce(vec![record(None, &large)], Compression::NoCompression).await?;
        }
    }
    let records = broker.records("audit").await?;
    let places: Vec<_> = records.iter().map(|record| (record.partition, record.offset)).collect();
    let expected: Vec<_> =
        [0, 1].into_iter().flat_map(|partition| (0..count).map(move |at| (partition, at))).collect();
    assert_eq!(places, expected);
    assert!(records.iter().all(|record| record.value == large.as_bytes()));
    Ok(())
}

#[tokio::test]
async fn a_nats_server_keeps_its_messages_when_it_is_killed() -> Result<()> {
    let mut server = NatsServer::start().await?;
    assert!(server.messages("AUDIT").await.is_err());
    server.create_stream("AUDIT", &["audit.>"]).await?;
    assert_eq!(server.messages("AUDIT").await?, []);

    for id in ["1", "2", "3"] {
        assert!(!publish(&server, id).await?);
    }
    assert!(publish(&server, "3").await?, "the id is known");
    let expected = [message(1, "1"), message(2, "2"), message(3, "3")];
    assert_eq!(server.messages("AUDIT").await?, expected);

    server.stop()?;
    server.start_again().await?;
    assert_eq!(server.messages("AUDIT").await?, expected);
    assert!(publish(&server, "3").await?, "the id is still known");
    Ok(())
}

fn record(key: Option<&str>, value: &str) -> Record {
    Record {
        key: key.map(|key| key.as_bytes().to_vec()),
        value: Some(value.as_bytes().to_vec()),
        headers: headers(),
        timestamp: DateTime::UNIX_EPOCH,
    }
}

fn kept(offset: i64, key: Option<&str>, value: &str) -> kafka::Record {
    let (key, value) = (key.map(|key| key.as_bytes().to_vec()), value.as_bytes().to_vec());
    kafka::Record { partition: 0, offset, key, value, headers: headers() }
}

fn headers() -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([("kind".to_owned(), b"decision".to_vec())])
}

/// Publishes a message with its id as its payload; gives whether the server knew the id.
async fn publish(server: &NatsServer, id: &str) -> Result<bool> {
    let jetstream = jetstream::new(async_nats::connect(server.address().to_string()).await?);
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", id);
    let payload = id.to_owned().into();
    Ok(jetstream.publish_with_headers("audit.decision", headers, payload).await?.await?.duplicate)
}

fn message(sequence: u64, id: &str) -> Message {
    Message {
        sequence,
        subject: "audit.decision".to_owned(),
        headers: BTreeMap::from([("Nats-Msg-Id".to_owned(), id.to_owned())]),
        payload: id.as_bytes().to_vec(),
    }
}
