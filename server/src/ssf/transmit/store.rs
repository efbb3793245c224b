//! What the transmitter keeps in the ledger, and how it is found again.
//!
//! `Streams` holds a stream under its id, and each subject that it leaves out under id and digest; `Outbox` holds events
//! under id and number, so that a scan gives each stream's in order; `Keys` holds the lives of keys, never a private key.
//! Ids have one length, so that no stream's rows can be taken for another's.
//! Never does: deciding; it writes what `streams.rs` says changed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use prost::Message;
use ring::digest::{SHA256, digest};
use smol_str::SmolStr;

use super::outbox::{Item, Kind};
use super::request::Wanted;
use super::signing::Life;
use super::streams::{self, Delivery, Secret, Stream, Streams};
use super::subject::Subject;
use crate::ledger::{self, Ledger, LedgerFault, Table, Ticket};
use crate::limits;
use crate::ssf::event::StreamStatus;

/// Length of a stream's id, in bytes.
pub(super) const ID_BYTES: usize = 32;

/// A stream as it is kept; tags are never used again.
#[derive(Clone, PartialEq, Message)]
struct StreamRow {
    #[prost(string, tag = "1")]
    receiver: String,
    #[prost(string, optional, tag = "2")]
    description: Option<String>,
    /// Whether `events` says anything: an empty list is not the same as none.
    #[prost(bool, tag = "3")]
    has_events: bool,
    #[prost(string, repeated, tag = "4")]
    events: Vec<String>,
    /// Empty for poll.
    #[prost(string, tag = "5")]
    endpoint: String,
    #[prost(string, optional, tag = "6")]
    authorization: Option<String>,
    #[prost(string, tag = "7")]
    status: String,
    #[prost(string, optional, tag = "8")]
    reason: Option<String>,
    #[prost(int64, optional, tag = "9")]
    verified_ms: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct ItemRow {
    #[prost(string, tag = "1")]
    jti: String,
    #[prost(string, tag = "2")]
    claims: String,
    #[prost(int64, tag = "3")]
    queued_ms: i64,
    /// Above 0 for a notice.
    #[prost(uint64, tag = "4")]
    lost: u64,
}

#[derive(Clone, PartialEq, Message)]
struct KeyRow {
    #[prost(int64, tag = "1")]
    made_ms: i64,
    #[prost(int64, optional, tag = "2")]
    signs_ms: Option<i64>,
    #[prost(int64, optional, tag = "3")]
    ended_ms: Option<i64>,
}

/// See the module.
pub(super) struct Store(Ledger);

impl Store {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self(ledger)
    }

    /// Whether less than half of what may wait for the disk does.
    pub(super) fn has_room(&self) -> bool {
        self.0.usage().pending < limits::LEDGER_PENDING_MAX as u64 / 2
    }

    /// Writes what changed. Call it under the lock of `streams`.
    pub(super) fn write(&self, streams: &Streams, rows: &[streams::Row]) -> Result<Ticket, LedgerFault> {
        self.0.write(rows.iter().filter_map(|row| encode(streams, row)).collect())
    }

    /// Completes when it is on disk.
    pub(super) async fn durable(&self, ticket: Ticket) -> Result<(), LedgerFault> {
        self.0.durable(ticket).await
    }

    /// Writes the lives of keys, and takes out those that are forgotten.
    pub(super) fn write_keys(&self, lives: &[Life], forgotten: &[SmolStr]) -> Result<Ticket, LedgerFault> {
        let table = Table::Keys;
        let put = lives.iter().map(|life| {
            let row = KeyRow { made_ms: life.made_ms, signs_ms: life.signs_ms, ended_ms: life.ended_ms };
            ledger::Row::Put { table, key: life.kid.as_bytes().to_vec(), value: row.encode_to_vec() }
        });
        let delete = forgotten.iter().map(|kid| ledger::Row::Delete { table, key: kid.as_bytes().to_vec() });
        self.0.write(put.chain(delete).collect())
    }

    /// The lives of all keys.
    pub(super) fn keys(&self) -> Result<Vec<Life>, LedgerFault> {
        let mut lives = Vec::new();
        self.each(Table::Keys, |key, value| {
            let row = KeyRow::decode(value).map_err(|error| error.to_string())?;
            let kid = text(key)?.into();
            let (made_ms, signs_ms, ended_ms) = (row.made_ms, row.signs_ms, row.ended_ms);
            lives.push(Life { kid, made_ms, signs_ms, ended_ms });
            Ok(())
        })?;
        Ok(lives)
    }

    /// All streams with what waits for them. What a stream that is gone left behind, because the disk did not take its end
    /// whole, is cleared away.
    pub(super) fn load(&self, into: &mut Streams) -> Result<(), LedgerFault> {
        let mut streams: BTreeMap<SmolStr, Stream> = BTreeMap::new();
        let mut left = Vec::new();
        self.each(Table::Streams, |key, value| {
            let (id, behind) = split(key)?;
            if behind.is_empty() {
                streams.insert(id.clone(), decode(id, value)?);
                return Ok(());
            }
            // A stream comes before the subjects that it leaves out: its key is shorter.
            let Some(stream) = streams.get_mut(&id) else {
                left.push(delete(Table::Streams, key.to_vec()));
                return Ok(());
            };
            let subject: serde_json::Value =
                serde_json::from_slice(value).map_err(|error| error.to_string())?;
            let subject = Subject::read(&subject).map_err(|fault| fault.to_string())?;
            stream.left_out.insert(subject);
            Ok(())
        })?;
        self.each(Table::Outbox, |key, value| {
            let (id, behind) = split(key)?;
            let seq = behind.try_into().map(u64::from_be_bytes).map_err(|_| "an event without a number")?;
            let Some(stream) = streams.get_mut(&id) else {
                left.push(delete(Table::Outbox, key.to_vec()));
                return Ok(());
            };
            let row = ItemRow::decode(value).map_err(|error| error.to_string())?;
            stream.outbox.restore(Item {
                seq,
                jti: row.jti.into(),
                kind: if row.lost > 0 { Kind::Notice { lost: row.lost } } else { Kind::Event },
                claims: row.claims.into(),
                queued_ms: row.queued_ms,
                // Whether the receiver saw it is not known any more.
                handed_out: true,
                signed: None,
            });
            Ok(())
        })?;
        if !left.is_empty() {
            tracing::warn!(
                rows = left.len(),
                "rows of streams that are gone were left on disk; they are removed"
            );
            self.0.write(left)?;
        }
        streams.into_values().for_each(|stream| into.restore(stream));
        Ok(())
    }

    fn each(
        &self,
        table: Table,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), String>,
    ) -> Result<(), LedgerFault> {
        let mut fault = None;
        self.0.scan(table, &[], &mut |key, value| match visit(key, value) {
            Ok(()) => ControlFlow::Continue(()),
            Err(why) => {
                fault = Some(LedgerFault::NotRead(format!("table `{}`: {why}", table.name()).into()));
                ControlFlow::Break(())
            }
        })?;
        fault.map_or(Ok(()), Err)
    }
}

/// The row of the ledger; none for an item that left again before its row was written: the row that says so comes after.
fn encode(streams: &Streams, row: &streams::Row) -> Option<ledger::Row> {
    Some(match row {
        streams::Row::PutStream(id) => {
            let stream = streams.by_id(id)?;
            let (endpoint, authorization) = match &stream.wanted.delivery {
                Delivery::Poll => (String::new(), None),
                Delivery::Push { endpoint, authorization } => {
                    (endpoint.clone(), authorization.as_ref().map(|secret| secret.0.clone()))
                }
            };
            let row = StreamRow {
                receiver: stream.receiver.to_string(),
                description: stream.wanted.description.clone(),
                has_events: stream.wanted.events.is_some(),
                events: stream.wanted.events.clone().unwrap_or_default(),
                endpoint,
                authorization,
                status: stream.status.word().to_owned(),
                reason: stream.reason.clone(),
                verified_ms: stream.verified_ms,
            };
            put(Table::Streams, id.as_bytes().to_vec(), row.encode_to_vec())
        }
        streams::Row::DeleteStream(id) => delete(Table::Streams, id.as_bytes().to_vec()),
        streams::Row::PutRemoved(id, subject) => {
            put(Table::Streams, removed_key(id, subject), subject.as_str().as_bytes().to_vec())
        }
        streams::Row::DeleteRemoved(id, subject) => delete(Table::Streams, removed_key(id, subject)),
        streams::Row::PutItem(id, seq) => {
            let item = streams.by_id(id)?.outbox.get(*seq)?;
            let lost = match item.kind {
                Kind::Event => 0,
                Kind::Notice { lost } => lost,
            };
            let row = ItemRow {
                jti: item.jti.to_string(),
                claims: item.claims.to_string(),
                queued_ms: item.queued_ms,
                lost,
            };
            put(Table::Outbox, item_key(id, *seq), row.encode_to_vec())
        }
        streams::Row::DeleteItem(id, seq) => delete(Table::Outbox, item_key(id, *seq)),
    })
}

fn decode(id: SmolStr, value: &[u8]) -> Result<Stream, String> {
    let row = StreamRow::decode(value).map_err(|error| error.to_string())?;
    let delivery = if row.endpoint.is_empty() {
        Delivery::Poll
    } else {
        Delivery::Push { endpoint: row.endpoint, authorization: row.authorization.map(Secret) }
    };
    let wanted =
        Wanted { events: row.has_events.then_some(row.events), description: row.description, delivery };
    let mut stream = Stream::new(id, row.receiver.into(), wanted);
    stream.status = StreamStatus::of_word(&row.status).ok_or("a stream without a status")?;
    stream.reason = row.reason;
    stream.verified_ms = row.verified_ms;
    Ok(stream)
}

fn put(table: Table, key: Vec<u8>, value: Vec<u8>) -> ledger::Row {
    ledger::Row::Put { table, key, value }
}

fn delete(table: Table, key: Vec<u8>) -> ledger::Row {
    ledger::Row::Delete { table, key }
}

fn removed_key(id: &str, subject: &Subject) -> Vec<u8> {
    [id.as_bytes(), digest(&SHA256, subject.as_str().as_bytes()).as_ref()].concat()
}

fn item_key(id: &str, seq: u64) -> Vec<u8> {
    [id.as_bytes(), &seq.to_be_bytes()].concat()
}

fn split(key: &[u8]) -> Result<(SmolStr, &[u8]), String> {
    let (id, behind) = key.split_at_checked(ID_BYTES).ok_or("a key without a stream")?;
    Ok((text(id)?.into(), behind))
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "a name that is no text".to_owned())
}
