//! Packing closed segments: the same records in blocks of one tile each, compressed with zstd.
//!
//! Owns: nothing; the caller names the segment. A packed segment gets its name only once it is whole and on disk, and the stored form is
//! removed after that: whatever is killed in between, the records are there in one of the two.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use thiserror::Error;

use super::block::{self, BadBlock, Header, PAYLOAD_BYTES_MAX};
use super::files::{Name, sync_dir, unfinished};
use super::segment::{BadSegment, Blocks, print_head};

/// Records of a block: those of a tile, so that one tile is read with one block.
const BLOCK_RECORDS: u32 = 256;
/// zstd's own choice between speed and size: 200 to 300 MB/s of records on one core, to an eighth of their size.
const LEVEL: i32 = 3;

/// Why a segment was not packed.
#[derive(Debug, Error)]
pub(in crate::audit) enum BadPack {
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What is to be packed cannot be read; it stays as it is.
    #[error(transparent)]
    Segment(#[from] BadSegment),
    /// Its records do not add up; it stays as it is.
    #[error(transparent)]
    Block(#[from] BadBlock),
}

/// Packs the stored segment that begins with this record, and removes it; `rest` is called after each block.
///
/// # Errors
/// See [`BadPack`]; the stored form stays, and what was made so far is removed.
pub(in crate::audit) fn pack(dir: &Path, first: u64, rest: impl FnMut()) -> Result<(), BadPack> {
    let packed = Name { first, is_packed: true }.path(dir);
    let unfinished = unfinished(&packed);
    if let Err(error) = write(dir, first, &unfinished, rest) {
        // The next try begins anew in any case.
        let _may_stay = fs::remove_file(&unfinished);
        return Err(error);
    }
    fs::rename(&unfinished, &packed)?;
    sync_dir(dir)?;
    remove_stored(dir, first)
}

/// Removes the stored form of a segment that is packed.
pub(super) fn remove_stored(dir: &Path, first: u64) -> Result<(), BadPack> {
    Ok(fs::remove_file(Name { first, is_packed: false }.path(dir))?)
}

fn write(dir: &Path, first: u64, to: &Path, mut rest: impl FnMut()) -> Result<(), BadPack> {
    let mut blocks = Blocks::open(dir, Name { first, is_packed: false })?;
    let mut packer = Packer {
        file: BufWriter::with_capacity(256 * 1024, File::create(to)?),
        compressor: zstd::bulk::Compressor::new(LEVEL)?,
        next: first,
        payload: Vec::new(),
        records: 0,
    };
    packer.file.write_all(&print_head(first))?;
    while let Some(read) = blocks.read()? {
        for record in block::records(&read.payload, read.records)? {
            if packer.add(record)? {
                rest();
            }
        }
    }
    packer.close()?;
    let file = packer.file.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(file.sync_all()?)
}

struct Packer {
    file: BufWriter<File>,
    compressor: zstd::bulk::Compressor<'static>,
    /// First record of the block in hand.
    next: u64,
    payload: Vec<u8>,
    records: u32,
}

impl Packer {
    /// Returns whether a block was closed with it.
    fn add(&mut self, record: &[u8]) -> io::Result<bool> {
        block::push(&mut self.payload, record);
        self.records += 1;
        let is_full = self.records == BLOCK_RECORDS;
        if is_full {
            self.close()?;
        }
        Ok(is_full)
    }

    fn close(&mut self) -> io::Result<()> {
        if self.records == 0 {
            return Ok(());
        }
        debug_assert!(self.payload.len() <= PAYLOAD_BYTES_MAX, "a tile of the longest records fits");
        let packed = self.compressor.compress(&self.payload)?;
        let raw_bytes = u32::try_from(self.payload.len()).map_err(io::Error::other)?;
        let header = Header::of(self.next, self.records, &packed, Some(raw_bytes));
        self.file.write_all(&header.print())?;
        self.file.write_all(&packed)?;
        self.next = header.next();
        self.payload.clear();
        self.records = 0;
        Ok(())
    }
}
