//! A segment: its own header, then blocks. Reading them one after the other, and writing behind the last.
//!
//! The header is a skippable frame of zstd, too: magic, 24, `cardea-audit`, the version of the format, the first sequence number.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use thiserror::Error;

use super::block::{BadBlock, HEADER_BYTES, Header, PAYLOAD_BYTES_MAX};
use super::files::{Name, sync_dir};

/// Version of the format.
const VERSION: u32 = 1;
const MAGIC: u32 = 0x184D_2A5A;
const FRAME_BYTES: u32 = 24;
const WORD: &[u8; 12] = b"cardea-audit";
const _: () = assert!(HEADER_BYTES == 8 + FRAME_BYTES as usize, "headers of files and blocks have one size");

/// Why a segment cannot be read on.
#[derive(Debug, Error)]
pub enum BadSegment {
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not begin like one.
    #[error("it is no audit segment of this version that begins with record {0}")]
    Head(u64),
    /// It ends within a block.
    #[error("it ends within a block, at byte {0}")]
    Torn(u64),
    /// A block is not what was written.
    #[error("the block at byte {at} is damaged: {why}")]
    Block {
        /// Where it begins.
        at: u64,
        /// What is wrong.
        why: BadBlock,
    },
    /// A block is not the next.
    #[error("the block at byte {at} begins with record {found}, and {expected} is next")]
    Order {
        /// Where it begins.
        at: u64,
        /// What it begins with.
        found: u64,
        /// What should come.
        expected: u64,
    },
}

/// Reads the blocks of a segment.
pub(super) struct Blocks {
    file: BufReader<File>,
    at: u64,
    next: u64,
}

/// One block, checked and unpacked.
pub(super) struct Block {
    pub(super) first: u64,
    pub(super) records: u32,
    pub(super) payload: Vec<u8>,
}

impl Blocks {
    /// # Errors
    /// The file cannot be opened, or is no such segment. A header that was not written whole is [`BadSegment::Torn`].
    pub(super) fn open(dir: &Path, name: Name) -> Result<Self, BadSegment> {
        let mut file = BufReader::with_capacity(128 * 1024, File::open(name.path(dir))?);
        let mut head = [0; HEADER_BYTES];
        match fill(&mut file, &mut head)? {
            HEADER_BYTES if head == print_head(name.first) => {}
            HEADER_BYTES => return Err(BadSegment::Head(name.first)),
            _ => return Err(BadSegment::Torn(0)),
        }
        Ok(Self { file, at: HEADER_BYTES as u64, next: name.first })
    }

    /// Where the next block begins.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The record that is next.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Reads on; `None` at the end.
    ///
    /// # Errors
    /// See [`BadSegment`]; after one, the place is still that before the block.
    pub(super) fn read(&mut self) -> Result<Option<Block>, BadSegment> {
        let Some(header) = self.header()? else { return Ok(None) };
        let mut stored = vec![0; usize::try_from(header.stored_bytes).unwrap_or(PAYLOAD_BYTES_MAX)];
        if fill(&mut self.file, &mut stored)? != stored.len() {
            return Err(self.back_to_block(BadSegment::Torn(self.at)));
        }
        let payload = match header.open(&stored) {
            Ok(std::borrow::Cow::Owned(payload)) => payload,
            Ok(std::borrow::Cow::Borrowed(_)) => stored,
            Err(why) => return Err(self.back_to_block(BadSegment::Block { at: self.at, why })),
        };
        self.at += header.bytes();
        self.next = header.next();
        Ok(Some(Block { first: header.first, records: header.records, payload }))
    }

    /// Passes over blocks until the next one holds this record; their payloads are not looked at. Returns whether there is one.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn skip_to(&mut self, sequence: u64) -> Result<bool, BadSegment> {
        loop {
            let Some(header) = self.header()? else { return Ok(false) };
            if header.next() > sequence {
                self.file.seek_relative(-(HEADER_BYTES as i64))?;
                return Ok(true);
            }
            self.file.seek_relative(i64::from(header.stored_bytes))?;
            self.at += header.bytes();
            self.next = header.next();
        }
    }

    /// Forgets what was read ahead: a write that failed may have been cut off since, and another have taken its place.
    pub(super) fn forget_ahead(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.at)).map(|_| ())
    }

    fn header(&mut self) -> Result<Option<Header>, BadSegment> {
        let mut bytes = [0; HEADER_BYTES];
        match fill(&mut self.file, &mut bytes)? {
            0 => return Ok(None),
            HEADER_BYTES => {}
            _ => return Err(self.back_to_block(BadSegment::Torn(self.at))),
        }
        match Header::parse(&bytes) {
            Ok(header) if header.first == self.next => Ok(Some(header)),
            Ok(Header { first: found, .. }) => {
                let (at, expected) = (self.at, self.next);
                Err(self.back_to_block(BadSegment::Order { at, found, expected }))
            }
            Err(why) => Err(self.back_to_block(BadSegment::Block { at: self.at, why })),
        }
    }

    fn back_to_block(&mut self, bad: BadSegment) -> BadSegment {
        match self.forget_ahead() {
            Ok(()) => bad,
            Err(error) => error.into(),
        }
    }
}

/// The segment that is written.
pub(super) struct Writing {
    file: File,
    first: u64,
    /// INVARIANT (whole blocks): the file up to here is whole blocks, all acknowledged to the writer.
    bytes: u64,
    /// A write failed: there may be a part of it beyond `bytes`.
    is_torn: bool,
}

impl Writing {
    /// Begins a segment. A file of this name that holds nothing but a header is left over from an earlier try.
    pub(super) fn begin(dir: &Path, first: u64) -> io::Result<Self> {
        let path = Name { first, is_packed: false }.path(dir);
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        if file.metadata()?.len() > HEADER_BYTES as u64 {
            return Err(io::Error::other(format!("`{}` is already there", path.display())));
        }
        file.set_len(0)?;
        file.write_all(&print_head(first))?;
        sync_dir(dir)?;
        Ok(Self { file, first, bytes: HEADER_BYTES as u64, is_torn: false })
    }

    /// Goes on with a segment behind its last whole block; what is beyond is cut off.
    pub(super) fn resume(dir: &Path, first: u64, bytes: u64) -> io::Result<Self> {
        let path = Name { first, is_packed: false }.path(dir);
        let file = OpenOptions::new().append(true).open(&path)?;
        file.set_len(bytes)?;
        Ok(Self { file, first, bytes, is_torn: false })
    }

    /// Appends a block: all of it, or an error, and the same may be tried again.
    pub(super) fn append(&mut self, header: &Header, payload: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.bytes)?;
        }
        self.is_torn = true;
        self.file.write_all(&header.print())?;
        self.file.write_all(payload)?;
        // A file that was removed still takes writes, which then end nowhere.
        if self.file.metadata()?.nlink() == 0 {
            let why = "the audit's segment was removed; put its directory back, or restart the node with an empty one";
            return Err(io::Error::other(why));
        }
        self.is_torn = false;
        self.bytes += header.bytes();
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sequence number of its first record.
    pub(super) fn first(&self) -> u64 {
        self.first
    }
}

/// The header of a segment.
pub(super) fn print_head(first: u64) -> [u8; HEADER_BYTES] {
    let mut head = [0; HEADER_BYTES];
    let fields = MAGIC.to_le_bytes().into_iter().chain(FRAME_BYTES.to_le_bytes()).chain(*WORD);
    let fields = fields.chain(VERSION.to_le_bytes()).chain(first.to_le_bytes());
    head.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    head
}

/// Reads until the buffer is full or the file ends; returns how much there was.
fn fill(file: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::block::push;
    use super::*;

    const NAME: Name = Name { first: 7, is_packed: false };

    fn block(first: u64, records: &[&[u8]]) -> (Header, Vec<u8>) {
        let mut payload = Vec::new();
        records.iter().for_each(|record| push(&mut payload, record));
        (Header::of(first, u32::try_from(records.len()).unwrap(), &payload, None), payload)
    }

    fn written(dir: &Path, blocks: &[(Header, Vec<u8>)]) -> Writing {
        let mut segment = Writing::begin(dir, NAME.first).unwrap();
        blocks.iter().for_each(|(header, payload)| segment.append(header, payload).unwrap());
        segment
    }

    #[test]
    fn blocks_are_read_as_they_were_written_and_passed_over_by_number() {
        let dir = tempfile::tempdir().unwrap();
        written(
            dir.path(),
            &[block(7, &[b"a".as_slice(), b"bb"]), block(9, &[b""]), block(10, &[b"c".as_slice(); 5])],
        );
        let mut blocks = Blocks::open(dir.path(), NAME).unwrap();
        for (first, records) in [(7, 2), (9, 1), (10, 5)] {
            let block = blocks.read().unwrap().unwrap();
            assert_eq!((block.first, block.records), (first, records));
        }
        assert!(blocks.read().unwrap().is_none());
        for (wanted, first) in [(7, 7), (8, 7), (9, 9), (10, 10), (14, 10)] {
            let mut blocks = Blocks::open(dir.path(), NAME).unwrap();
            assert!(blocks.skip_to(wanted).unwrap());
            assert_eq!(blocks.read().unwrap().unwrap().first, first, "{wanted}");
        }
        let mut blocks = Blocks::open(dir.path(), NAME).unwrap();
        assert!(!blocks.skip_to(15).unwrap());
        assert!(blocks.read().unwrap().is_none());
    }

    #[test]
    fn a_segment_that_ends_anywhere_within_a_block_is_torn_there() {
        let dir = tempfile::tempdir().unwrap();
        let blocks = [block(7, &[b"first"]), block(8, &[b"second"])];
        let second = HEADER_BYTES as u64 + blocks[0].0.bytes();
        let whole = written(dir.path(), &blocks);
        let bytes = fs::read(Name { first: whole.first(), ..NAME }.path(dir.path())).unwrap();
        for end in 0..bytes.len() {
            fs::write(NAME.path(dir.path()), &bytes[..end]).unwrap();
            let read = || -> Result<u32, BadSegment> {
                let mut blocks = Blocks::open(dir.path(), NAME)?;
                let mut found = 0;
                while blocks.read()?.is_some() {
                    found += 1;
                }
                Ok(found)
            };
            let end = end as u64;
            match read() {
                Ok(found) => assert_eq!(end, [HEADER_BYTES as u64, second][found as usize]),
                Err(BadSegment::Torn(at)) => {
                    assert!(at <= end && [0, HEADER_BYTES as u64, second].contains(&at))
                }
                Err(other) => panic!("{end}: {other}"),
            }
        }
    }

    #[test]
    fn a_write_that_failed_half_way_is_cut_off_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let mut segment = written(dir.path(), &[block(7, &[b"first"])]);
        segment.file.write_all(b"half of a block").unwrap();
        segment.is_torn = true;
        let (header, payload) = block(8, &[b"second"]);
        segment.append(&header, &payload).unwrap();
        let mut blocks = Blocks::open(dir.path(), NAME).unwrap();
        assert_eq!(blocks.read().unwrap().unwrap().first, 7);
        assert_eq!(blocks.read().unwrap().unwrap().payload, payload);
        assert!(blocks.read().unwrap().is_none());
    }

    #[test]
    fn a_block_out_of_its_place_and_a_file_of_another_number_are_told() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), &[block(7, &[b"first"]), block(9, &[b"third"])]);
        let mut blocks = Blocks::open(dir.path(), NAME).unwrap();
        blocks.read().unwrap();
        assert!(matches!(blocks.read(), Err(BadSegment::Order { found: 9, expected: 8, .. })));
        let other = Name { first: 8, is_packed: false };
        fs::rename(NAME.path(dir.path()), other.path(dir.path())).unwrap();
        assert!(matches!(Blocks::open(dir.path(), other), Err(BadSegment::Head(8))));
    }
}
