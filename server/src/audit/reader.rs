//! Reading the records back: from a sequence number on, then live, without gap or repetition.
//!
//! Owns: one reader's place in the segments. Everything is read from disk, so a reader needs no queue: a slow
//! one holds back nobody, and its memory is one batch of at most `BATCH_RECORDS_MAX` records and
//! `BATCH_BYTES_MAX` bytes of lines (give or take one line).
//! Never does: read past the last record that the writer announced, so it never sees half a line.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use cardea_proto::v1;
use smol_str::SmolStr;
use thiserror::Error;
use tokio::{sync::watch, task};

use super::{
    Written,
    record::{Body, Entity, Record},
    segments,
};

/// Most records of one batch; with typical records about 256 KB.
pub const BATCH_RECORDS_MAX: usize = 256;

/// Most bytes of lines of one batch: the message made from it stays under gRPC's usual limit of 4 MiB.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Most bytes read for one batch, matching or not: a filter that matches little still lets go of its thread.
const SCAN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Which records a reader wants: those that match every field that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Decisions with one of these answers; empty: any record.
    pub decisions: Vec<v1::Decision>,
    /// Decisions and sessions of this principal, signals about it.
    pub principal: Option<Entity>,
    /// Decisions about the action with this id.
    pub action: Option<SmolStr>,
    /// Decisions that came in by this door.
    pub door: Option<SmolStr>,
    /// Records of one of these kinds; empty: any record.
    pub kinds: Vec<v1::RecordKind>,
    /// No decisions but those that a hold was told because something changed.
    pub changes: bool,
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
    /// Caller: the record is no longer there.
    #[error("record {sequence} is not on disk{}", go_on(*.next))]
    Missing {
        /// The record that was wanted.
        sequence: u64,
        /// The first one after it that is on disk.
        next: Option<u64>,
    },
    /// Peer: somebody else changed a segment.
    #[error("segment `{file}` is corrupt at record {sequence}: {why}")]
    Corrupt {
        /// Name of the segment.
        file: String,
        /// The record whose line it is.
        sequence: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The file system refused.
    #[error("cannot read the audit segments")]
    Io(#[from] io::Error),
    /// Us: the reading thread ended early.
    #[error("the reading thread ended early")]
    ReaderEnded,
}

/// Reads from a sequence number on, then follows.
pub struct Tail {
    /// `None` only while the blocking thread has it.
    cursor: Option<Cursor>,
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
        Self { cursor: Some(Cursor { dir, next, filter, segment: None }), live }
    }

    /// The next batch that is not empty; waits for it. `None` once the audit is closed and all is read.
    ///
    /// # Errors
    /// See `TailError`. After an error, or after its future was dropped, a tail is of no more use: open another
    /// one after the last record that was received.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<Record>>, TailError> {
        loop {
            let written = *self.live.borrow_and_update();
            let mut cursor = self.cursor.take().ok_or(TailError::ReaderEnded)?;
            if cursor.next <= written.sequence {
                let reading = task::spawn_blocking(move || {
                    let batch = cursor.read(written.sequence);
                    (cursor, batch)
                });
                let (cursor, batch) = reading.await.map_err(|_| TailError::ReaderEnded)?;
                let batch = batch?;
                self.cursor = Some(cursor);
                if !batch.is_empty() {
                    return Ok(Some(batch));
                }
                continue;
            }
            self.cursor = Some(cursor);
            if written.closed || self.live.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

/// A reader's place. It passes through the blocking thread and back.
struct Cursor {
    dir: Arc<Path>,
    /// Sequence number of the next record to read.
    next: u64,
    filter: Filter,
    /// `None` before the first segment and between two.
    segment: Option<Segment>,
}

struct Segment {
    file: File,
    path: PathBuf,
    /// Where the line of record `next` begins.
    offset: u64,
}

impl Cursor {
    /// Reads on in one segment, to record `until` at most. An empty batch means: call again.
    fn read(&mut self, until: u64) -> Result<Vec<Record>, TailError> {
        let mut segment = match self.segment.take() {
            Some(segment) => segment,
            None => self.find()?,
        };
        segment.file.seek(SeekFrom::Start(segment.offset))?;
        let mut reader = BufReader::new(&segment.file);
        let (mut batch, mut batch_bytes, mut scanned, mut line) = (Vec::new(), 0, 0, Vec::new());
        while self.next <= until
            && batch.len() < BATCH_RECORDS_MAX
            && batch_bytes < BATCH_BYTES_MAX
            && scanned < SCAN_BYTES_MAX
        {
            if !segments::read_line(&mut reader, &mut line)? {
                // The records go on in the next segment.
                return Ok(batch);
            }
            let record = match segments::check_line(&line, self.next) {
                Ok(record) => record,
                // What is read so far goes out first; the next call comes back to this line.
                Err(_) if !batch.is_empty() => break,
                Err(why) => return Err(self.corrupt(&segment.path, why)),
            };
            let line_bytes = line.len() + 1;
            self.next += 1;
            segment.offset += line_bytes as u64;
            scanned += line_bytes;
            if self.filter.passes(&record) {
                batch_bytes += line_bytes;
                batch.push(record);
            }
        }
        self.segment = Some(segment);
        Ok(batch)
    }

    /// Opens the segment that holds record `next`, at its line.
    fn find(&self) -> Result<Segment, TailError> {
        let firsts = segments::list(&self.dir)?;
        let later = firsts.partition_point(|&first| first <= self.next);
        let missing = || TailError::Missing { sequence: self.next, next: firsts.get(later).copied() };
        let first = later.checked_sub(1).and_then(|index| firsts.get(index)).ok_or_else(missing)?;
        let path = segments::path(&self.dir, *first);
        let file = File::open(&path)?;
        let (mut offset, mut line) = (0, Vec::new());
        let mut reader = BufReader::new(&file);
        for _ in *first..self.next {
            if !segments::read_line(&mut reader, &mut line)? {
                return Err(missing());
            }
            offset += line.len() as u64 + 1;
        }
        if reader.fill_buf()?.is_empty() {
            return Err(missing());
        }
        Ok(Segment { file, path, offset })
    }

    fn corrupt(&self, path: &Path, why: String) -> TailError {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        TailError::Corrupt { file, sequence: self.next, why }
    }
}

impl Filter {
    fn passes(&self, record: &Record) -> bool {
        let kind_passes = self.kinds.is_empty() || self.kinds.contains(&record.body.kind());
        kind_passes
            && (!self.changes || is_change(&record.body))
            && self.passes_as_decision(&record.body)
            && self.passes_principal(&record.body)
    }

    fn passes_as_decision(&self, body: &Body) -> bool {
        let Body::Decision(decision) = body else {
            return self.decisions.is_empty() && self.action.is_none() && self.door.is_none();
        };
        let action_id = decision.action.as_ref().map(|action| &action.id);
        (self.decisions.is_empty() || self.decisions.contains(&decision.decision))
            && self.action.as_ref().is_none_or(|wanted| action_id == Some(wanted))
            && self.door.as_ref().is_none_or(|wanted| decision.door == *wanted)
    }

    fn passes_principal(&self, body: &Body) -> bool {
        let principal = match body {
            Body::Decision(decision) => decision.principal.as_ref(),
            Body::Session(session) => session.principal.as_ref(),
            Body::Signal(signal) => signal.subject.as_ref(),
            Body::Shadow(shadow) => Some(&shadow.principal),
            Body::Task(task) => Some(&task.agent),
            Body::Review(review) => Some(&review.principal),
            Body::Bundle(_) | Body::Gap(_) | Body::Stream(_) => None,
        };
        self.principal.is_none() || self.principal.as_ref() == principal
    }
}

/// Whether a record tells of a change, and not of an attempt that somebody made.
fn is_change(body: &Body) -> bool {
    match body {
        Body::Decision(decision) => decision.hold.as_ref().is_some_and(|hold| hold.cause.is_some()),
        Body::Shadow(_) => false,
        Body::Signal(_)
        | Body::Session(_)
        | Body::Bundle(_)
        | Body::Gap(_)
        | Body::Task(_)
        | Body::Review(_)
        | Body::Stream(_) => true,
    }
}

impl TryFrom<v1::RecordFilter> for Filter {
    type Error = BadFilter;

    /// Repetitions are dropped, so a filter stays small whatever was sent.
    fn try_from(filter: v1::RecordFilter) -> Result<Self, BadFilter> {
        let mut wanted = Self {
            principal: filter
                .principal
                .map(|principal| Entity { type_name: principal.r#type.into(), id: principal.id.into() }),
            action: Some(filter.action).filter(|action| !action.is_empty()).map(Into::into),
            door: Some(filter.door).filter(|door| !door.is_empty()).map(Into::into),
            changes: filter.changes,
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
        Ok(wanted)
    }
}

fn go_on(next: Option<u64>) -> String {
    next.map(|next| format!("; the first after it is {next}")).unwrap_or_default()
}
