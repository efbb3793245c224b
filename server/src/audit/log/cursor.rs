//! Reading the log back: from a sequence number on, as far as the caller says that it goes.
//!
//! Owns: one reader's place. Everything is read from disk, so a reader holds back nobody, and its memory is one block. A segment that is
//! packed meanwhile is read on in the form in which it was opened, or found again by number.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

use super::block;
use super::files::{Name, segments};
use super::segment::{BadSegment, Block, Blocks};

/// Why reading cannot go on.
#[derive(Debug, Error)]
pub enum BadRead {
    /// The record is not there.
    #[error("record {sequence} is not on disk{}", go_on(*.next))]
    Missing {
        /// The record that was wanted.
        sequence: u64,
        /// The first one after it that is on disk.
        next: Option<u64>,
    },
    /// Somebody else changed a segment, or the disk did.
    #[error("segment `{file}` cannot be read from record {sequence} on: {why}")]
    Corrupt {
        /// Name of the segment.
        file: String,
        /// The first record that cannot be read.
        sequence: u64,
        /// What is wrong.
        why: BadSegment,
    },
    /// The file system refused.
    #[error("cannot read the audit log")]
    Io(#[from] io::Error),
}

fn go_on(next: Option<u64>) -> String {
    next.map(|next| format!("; the first after it is {next}")).unwrap_or_default()
}

/// See the module.
pub(in crate::audit) struct Cursor {
    dir: Arc<Path>,
    next: u64,
    /// `None` before the first segment and between two.
    open: Option<(Name, Blocks)>,
    /// The block in hand: where its records lie in the payload, those that are still to come.
    payload: Vec<u8>,
    records: VecDeque<Range<usize>>,
}

impl Cursor {
    /// A cursor whose next record is this one.
    pub(in crate::audit) fn new(dir: Arc<Path>, next: u64) -> Self {
        Self { dir, next, open: None, payload: Vec::new(), records: VecDeque::new() }
    }

    /// Sequence number of the next record.
    pub(in crate::audit) fn next(&self) -> u64 {
        self.next
    }

    /// Reads one record; `None` once record `until` is read.
    ///
    /// # Errors
    /// See [`BadRead`].
    pub(in crate::audit) fn read(&mut self, until: u64) -> Result<Option<(u64, &[u8])>, BadRead> {
        if self.next > until {
            if let Some((_, blocks)) = &mut self.open {
                blocks.forget_ahead()?;
            }
            return Ok(None);
        }
        while self.records.is_empty() {
            self.read_block()?;
        }
        let sequence = self.next;
        let record = self.records.pop_front().and_then(|range| self.payload.get(range)).unwrap_or_default();
        self.next += 1;
        Ok(Some((sequence, record)))
    }

    /// Takes the next block in hand, from the next segment if need be.
    fn read_block(&mut self) -> Result<(), BadRead> {
        let (name, mut blocks) = match self.open.take() {
            Some(open) => open,
            None => self.find()?,
        };
        match blocks.read() {
            Ok(Some(block)) => {
                let fault = |why| BadSegment::Block { at: blocks.at(), why };
                self.take(block).map_err(|why| self.corrupt(name, fault(why)))?;
                self.open = Some((name, blocks));
                Ok(())
            }
            // The records go on in the next segment.
            Ok(None) => {
                self.open = Some(self.find()?);
                Ok(())
            }
            Err(BadSegment::Io(error)) => Err(error.into()),
            Err(why) => Err(self.corrupt(name, why)),
        }
    }

    fn take(&mut self, block: Block) -> Result<(), block::BadBlock> {
        let skipped = usize::try_from(self.next - block.first).unwrap_or(usize::MAX);
        let mut at = 0;
        let mut ranges = VecDeque::new();
        for record in block::records(&block.payload, block.records)? {
            // Each record stands behind its own length.
            at += prost::length_delimiter_len(record.len());
            ranges.push_back(at..at + record.len());
            at += record.len();
        }
        ranges.drain(..skipped.min(ranges.len()));
        self.payload = block.payload;
        self.records = ranges;
        Ok(())
    }

    /// Opens the segment that holds the next record, before its block.
    fn find(&self) -> Result<(Name, Blocks), BadRead> {
        // A segment may be packed, and its stored form removed, between the list and the opening.
        for _ in 0..FIND_TRIES {
            let names = segments(&self.dir)?;
            let later = names.partition_point(|name| name.first <= self.next);
            let after = names.get(later).map(|name| name.first);
            let name = later.checked_sub(1).and_then(|at| names.get(at)).copied();
            let name = name.ok_or_else(|| self.missing(after))?;
            let opened = Blocks::open(&self.dir, name)
                .and_then(|mut blocks| blocks.skip_to(self.next).map(|is_there| (blocks, is_there)));
            match opened {
                Ok((blocks, true)) => return Ok((name, blocks)),
                Ok((_, false)) => return Err(self.missing(after)),
                Err(BadSegment::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(BadSegment::Io(error)) => return Err(error.into()),
                Err(why) => return Err(self.corrupt(name, why)),
            }
        }
        Err(self.missing(None))
    }

    fn missing(&self, next: Option<u64>) -> BadRead {
        BadRead::Missing { sequence: self.next, next }
    }

    fn corrupt(&self, name: Name, why: BadSegment) -> BadRead {
        let path = name.path(&self.dir);
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        BadRead::Corrupt { file, sequence: self.next, why }
    }
}

/// How often a segment is looked for that disappears while it is opened. It is packed once.
const FIND_TRIES: u32 = 8;
