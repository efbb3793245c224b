//! Reading the records back: from a sequence number on, then live, without gap or repetition.
//!
//! Owns: one reader's place in the log. Everything is read from disk, so a reader needs no queue: a slow
//! one holds back nobody, and its memory is one block and one batch of at most `BATCH_RECORDS_MAX` records and
//! `BATCH_BYTES_MAX` bytes (give or take one record).
//! Never does: read past the last record that the writer announced, so it never sees half a block.

use std::{path::Path, sync::Arc};

use cardea_proto::v1::{self, record::Entry};
use prost::Message as _;
use smol_str::SmolStr;
use thiserror::Error;
use tokio::{sync::watch, task};

use super::{
    Written,
    log::{BadRead, Cursor, firsts},
    record::{kind, unix_ms},
};

/// Most records of one batch; with typical records about 256 KB.
pub const BATCH_RECORDS_MAX: usize = 256;

/// Most bytes of records of one batch: the message made from it stays under gRPC's usual limit of 4 MiB.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Most bytes read for one batch, matching or not: a filter that matches little still lets go of its thread.
const SCAN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Which records a reader wants: those that match every field that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Decisions with one of these answers; empty: any record.
    pub decisions: Vec<v1::Decision>,
    /// Decisions and sessions of this principal, signals about it.
    pub principal: Option<v1::EntityRef>,
    /// Decisions about the action with this id.
    pub action: Option<SmolStr>,
    /// Decisions that came in by this door.
    pub door: Option<SmolStr>,
    /// Records of one of these kinds; empty: any record.
    pub kinds: Vec<v1::RecordKind>,
    /// No decisions but those that a hold was told because something changed.
    pub changes: bool,
    /// Decisions with one of these severities (`@severity` of what settled them); empty: any record.
    pub severities: Vec<SmolStr>,
    /// Records from this time on, in milliseconds since 1970.
    pub since_ms: Option<i64>,
}

/// A filter that names something unknown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("filter: unknown {what} `{value}`")]
pub struct BadFilter {
    what: &'static str,
    value: i32,
}

/// Why reading cannot go on.
#[derive(Debug, Error)]
pub enum TailError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] BadRead),
    /// What is in the log is no record that this version knows.
    #[error("record {sequence} is none that this version knows: {why}")]
    Unknown {
        /// Its sequence number.
        sequence: u64,
        /// Why.
        why: prost::DecodeError,
    },
    /// Us: the reading thread ended early.
    #[error("the reading thread ended early")]
    ReaderEnded,
}

/// Reads from a sequence number on, then follows.
pub struct Tail {
    /// `None` only while the blocking thread has it.
    place: Option<Place>,
    live: watch::Receiver<Written>,
}

impl Tail {
    pub(super) fn new(
        dir: Arc<Path>,
        live: watch::Receiver<Written>,
        from_sequence: u64,
        filter: Filter,
    ) -> Self {
        let next = if from_sequence == 0 { live.borrow().sequence + 1 } else { from_sequence };
        Self { place: Some(Place { cursor: Cursor::new(dir, next), filter }), live }
    }

    /// The next batch that is not empty; waits for it. `None` once the audit is closed and all is read.
    ///
    /// # Errors
    /// See `TailError`. After an error, or after its future was dropped, a tail is of no more use: open another
    /// one after the last record that was received.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<v1::Record>>, TailError> {
        loop {
            match self.read_on().await? {
                Some(batch) if batch.is_empty() => {}
                batch => return Ok(batch),
            }
        }
    }

    /// Sequence number of the record behind those that were read, wanted or not.
    pub(super) fn next(&self) -> u64 {
        self.place.as_ref().map_or(0, |place| place.cursor.next())
    }

    /// As `next_batch`, and also returns when something was read of which nothing is wanted.
    pub(super) async fn read_on(&mut self) -> Result<Option<Vec<v1::Record>>, TailError> {
        loop {
            let written = *self.live.borrow_and_update();
            let mut place = self.place.take().ok_or(TailError::ReaderEnded)?;
            if place.cursor.next() <= written.sequence {
                let reading = task::spawn_blocking(move || {
                    let batch = place.read(written.sequence);
                    (place, batch)
                });
                let (place, batch) = reading.await.map_err(|_| TailError::ReaderEnded)?;
                let batch = batch?;
                self.place = Some(place);
                return Ok(Some(batch));
            }
            self.place = Some(place);
            if written.closed || self.live.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

/// First record of the last segment that begins before a time; so that nothing of that time stands before it, unless the clock was set back.
pub(super) fn first_since(dir: &Arc<Path>, time_ms: i64) -> std::io::Result<u64> {
    let firsts = firsts(dir)?;
    let begins_before = |first: u64| {
        let mut cursor = Cursor::new(Arc::clone(dir), first);
        let record = cursor.read(first).ok().flatten().and_then(|(_, bytes)| v1::Record::decode(bytes).ok());
        record.and_then(|record| record.time).is_some_and(|time| unix_ms(&time) < time_ms)
    };
    let found = firsts.iter().rev().copied().find(|first| begins_before(*first));
    Ok(found.or_else(|| firsts.first().copied()).unwrap_or(1))
}

/// A reader's place. It passes through the blocking thread and back.
struct Place {
    cursor: Cursor,
    filter: Filter,
}

impl Place {
    /// Reads on, to record `until` at most. An empty batch means: call again.
    fn read(&mut self, until: u64) -> Result<Vec<v1::Record>, TailError> {
        let (mut batch, mut batch_bytes, mut scanned) = (Vec::new(), 0, 0);
        while batch.len() < BATCH_RECORDS_MAX && batch_bytes < BATCH_BYTES_MAX && scanned < SCAN_BYTES_MAX {
            let bytes = match self.cursor.read(until) {
                Ok(Some((sequence, bytes))) => {
                    let record = v1::Record::decode(bytes);
                    let record = record.map_err(|why| TailError::Unknown { sequence, why })?;
                    if self.filter.passes(&record) {
                        batch_bytes += bytes.len();
                        batch.push(record);
                    }
                    bytes.len()
                }
                Ok(None) => break,
                // What is read so far goes out first; the next call comes back to the fault.
                Err(_) if !batch.is_empty() => break,
                Err(why) => return Err(why.into()),
            };
            scanned += bytes;
        }
        Ok(batch)
    }
}

impl Filter {
    /// Whether a record is wanted.
    #[must_use]
    pub fn passes(&self, record: &v1::Record) -> bool {
        let Some(entry) = &record.entry else { return *self == Self::default() };
        let kind_passes = self.kinds.is_empty() || self.kinds.contains(&kind(entry));
        let is_in_time = self.since_ms.is_none_or(|since| record.time.as_ref().map(unix_ms) >= Some(since));
        kind_passes
            && is_in_time
            && (!self.changes || is_change(entry))
            && self.passes_as_decision(entry)
            && self.passes_principal(entry)
    }

    fn passes_as_decision(&self, entry: &Entry) -> bool {
        let Entry::Decision(decision) = entry else {
            return self.decisions.is_empty()
                && self.action.is_none()
                && self.door.is_none()
                && self.severities.is_empty();
        };
        let action_id = decision.action.as_ref().map(|action| action.id.as_str());
        (self.decisions.is_empty() || self.decisions.contains(&decision.decision()))
            && self.action.as_ref().is_none_or(|wanted| action_id == Some(wanted))
            && self.door.as_ref().is_none_or(|wanted| decision.door == *wanted)
            && (self.severities.is_empty()
                || self.severities.iter().any(|wanted| decision.severity == *wanted))
    }

    fn passes_principal(&self, entry: &Entry) -> bool {
        let principal = match entry {
            Entry::Decision(decision) => decision.principal.as_ref(),
            Entry::Session(session) => session.principal.as_ref(),
            Entry::Signal(signal) => signal.subject.as_ref(),
            Entry::Shadow(shadow) => shadow.principal.as_ref(),
            Entry::Task(task) => task.agent.as_ref(),
            Entry::Review(review) => review.principal.as_ref(),
            Entry::Bundle(_)
            | Entry::Gap(_)
            | Entry::Stream(_)
            | Entry::Withheld(_)
            | Entry::Retention(_) => None,
        };
        self.principal.is_none() || self.principal.as_ref() == principal
    }
}

/// Whether a record tells of a change, and not of an attempt that somebody made.
fn is_change(entry: &Entry) -> bool {
    match entry {
        Entry::Decision(decision) => decision.hold.as_ref().is_some_and(|hold| hold.cause.is_some()),
        Entry::Shadow(_) | Entry::Withheld(_) | Entry::Retention(_) => false,
        Entry::Signal(_)
        | Entry::Session(_)
        | Entry::Bundle(_)
        | Entry::Gap(_)
        | Entry::Task(_)
        | Entry::Review(_)
        | Entry::Stream(_) => true,
    }
}

impl TryFrom<v1::RecordFilter> for Filter {
    type Error = BadFilter;

    /// Repetitions are dropped, so a filter stays small whatever was sent.
    fn try_from(filter: v1::RecordFilter) -> Result<Self, BadFilter> {
        let mut wanted = Self {
            principal: filter.principal,
            action: Some(filter.action).filter(|action| !action.is_empty()).map(Into::into),
            door: Some(filter.door).filter(|door| !door.is_empty()).map(Into::into),
            changes: filter.changes,
            severities: filter.severities.into_iter().map(Into::into).collect(),
            ..Self::default()
        };
        for value in filter.decisions {
            match v1::Decision::try_from(value) {
                Ok(v1::Decision::Unspecified) | Err(_) => return Err(BadFilter { what: "decision", value }),
                Ok(decision) if wanted.decisions.contains(&decision) => {}
                Ok(decision) => wanted.decisions.push(decision),
            }
        }
        for value in filter.kinds {
            match v1::RecordKind::try_from(value) {
                Ok(v1::RecordKind::Unspecified) | Err(_) => return Err(BadFilter { what: "kind", value }),
                Ok(kind) if wanted.kinds.contains(&kind) => {}
                Ok(kind) => wanted.kinds.push(kind),
            }
        }
        wanted.severities.sort_unstable();
        wanted.severities.dedup();
        Ok(wanted)
    }
}
