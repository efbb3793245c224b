//! Proofs that a record is in the log, for whoever has the log's public key and nothing else of it.

use std::fs;
use std::io;
use std::path::Path;

use cardea_proto::v1::{self, record::Entry};
use cardea_tlog::{BadCheckpoint, BadProof, Checkpoint, Hash, Receipt, inclusion, verify_inclusion};
use prost::Message as _;
use thiserror::Error;

use super::log::{BadRead, BadSegment, CHECKPOINT, Cursor, Hashes, Scan};

/// Why nothing is proven.
#[derive(Debug, Error)]
pub enum NotProven {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] BadRead),
    /// A segment cannot be read.
    #[error("the log cannot be read: {0}; `cardea audit verify` tells more")]
    Segment(#[from] BadSegment),
    /// The file system refused.
    #[error("the log cannot be read: {0}")]
    Io(#[from] io::Error),
    /// There is no such decision.
    #[error("no record of decision `{0}` is in this log; is it another node's, or was it let go of?")]
    Unknown(String),
    /// The checkpoint is missing or none.
    #[error("the checkpoint cannot be read: {0}")]
    Checkpoint(#[from] BadCheckpoint),
    /// It will be proven in a moment.
    #[error("record {sequence} is not signed yet, the checkpoint covers {signed}; a node signs every second")]
    NotSigned {
        /// The record.
        sequence: u64,
        /// Records that are signed.
        signed: u64,
    },
    /// The log is not what was signed.
    #[error("the log is not what was signed: {0}; `cardea audit verify` tells more")]
    Proof(#[from] BadProof),
}

/// The sequence number of a decision's record.
///
/// # Errors
/// See [`NotProven`].
pub fn find(dir: &Path, decision_id: &str) -> Result<u64, NotProven> {
    let mut scan = Scan::open(dir)?;
    while let Some((sequence, bytes)) = scan.read()? {
        let entry = v1::Record::decode(bytes).ok().and_then(|record| record.entry);
        if matches!(entry, Some(Entry::Decision(decision)) if decision.decision_id == decision_id) {
            return Ok(sequence);
        }
    }
    Err(NotProven::Unknown(decision_id.to_owned()))
}

/// A receipt for a record, with the record itself as extra data. It is held against the checkpoint before it is given out.
///
/// # Errors
/// See [`NotProven`].
pub fn prove(dir: &Path, sequence: u64) -> Result<Receipt, NotProven> {
    let mut cursor = Cursor::new(dir.into(), sequence);
    let record = cursor.read(sequence)?.map(|(_, bytes)| bytes.to_vec()).unwrap_or_default();
    let checkpoint = fs::read_to_string(dir.join(CHECKPOINT))?;
    let Checkpoint { size, root, .. } = Checkpoint::open_unverified(&checkpoint)?;
    if sequence > size {
        return Err(NotProven::NotSigned { sequence, signed: size });
    }
    let index = sequence - 1;
    let path = inclusion(index, size, &mut Hashes::open(dir))?;
    verify_inclusion(&Hash::leaf(&record), index, size, &path, &root)?;
    Ok(Receipt { extra: Some(record), index, path, checkpoint })
}
