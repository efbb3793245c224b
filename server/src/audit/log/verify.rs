//! Whether a log is what was signed, and where it is not.
//!
//! The signed root vouches for the hashes of level 0, and each of those for one record; so what is wrong has a place. Where the hashes
//! themselves are not those that were signed, records are held against the root as a whole. Reads everything; writes nothing, so that
//! evidence stays as it was found.
//! Limits: one segment in memory, and one bit for each record that was signed.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use cardea_tlog::{Checkpoint, Frontier, Hash, VerifierKey};

use super::block::{self, HEADER_BYTES, Header};
use super::files::{self, Name};
use super::segment::print_head;
use super::tree::Hashes;

/// Most findings that are kept; more are counted.
const FINDINGS_MAX: usize = 1_000;
/// Hashes that are read at once.
const HASHES_AT_ONCE: u64 = 4_096;

/// What verifying came to.
#[derive(Debug, Default)]
pub struct Verified {
    /// Of which log the checkpoint is; empty: there is none to rely on.
    pub origin: String,
    /// Records that are there and are what they should be.
    pub records: u64,
    /// Sequence number of the first record that is there.
    pub first: u64,
    /// Records that the checkpoint covers.
    pub signed: u64,
    /// Records behind those, which no signature covers.
    pub unsigned: u64,
    /// What is wrong, in order.
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub more: u64,
}

/// Something that is not as it was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The checkpoint is missing, or cannot be relied on.
    Checkpoint(String),
    /// Records that were signed are not there.
    Missing {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// A record is another than the one that was signed.
    Altered {
        /// Its number.
        sequence: u64,
    },
    /// In the place of one record stands another one of the log.
    Moved {
        /// Its number.
        sequence: u64,
        /// The number of the one that stands there.
        is: u64,
    },
    /// Records stand once more, where others should.
    Repeated {
        /// The file.
        file: String,
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// A part of a segment cannot be read; it held these records, as far as can be told.
    Damaged {
        /// The file.
        file: String,
        /// Where, in bytes.
        at: u64,
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
        /// What is wrong.
        why: String,
    },
    /// A file is no segment of this log, although it is named like one.
    Foreign {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// A hash of the tree is not the one that was signed.
    Hash {
        /// Level of the tree.
        level: usize,
        /// Place in the level.
        index: u64,
    },
    /// Neither the records nor the hashes are those that were signed.
    Root {
        /// How many.
        size: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |from: &u64, to: &u64| {
            if from == to { format!("record {from}") } else { format!("records {from} to {to}") }
        };
        match self {
            Self::Checkpoint(why) => write!(f, "checkpoint: {why}"),
            Self::Missing { from, to } => write!(f, "{}: signed, and not there", range(from, to)),
            Self::Altered { sequence } => write!(f, "record {sequence}: altered"),
            Self::Moved { sequence, is } => write!(f, "record {sequence}: record {is} stands in its place"),
            Self::Repeated { file, from, to } => write!(f, "{}: once more, in {file}", range(from, to)),
            Self::Damaged { file, at, from, to, why } => {
                write!(f, "{}: cannot be read, at byte {at} of {file}: {why}", range(from, to))
            }
            Self::Foreign { file, why } => write!(f, "{file}: {why}"),
            Self::Hash { level, index } => write!(f, "tree/{level}: hash {index} is another"),
            Self::Root { size } => {
                write!(
                    f,
                    "the first {size} records: neither they nor their hashes are those that were signed"
                )
            }
        }
    }
}

/// Verifies a directory.
///
/// # Errors
/// The file system refuses.
pub fn verify(dir: &Path, keys: &[VerifierKey]) -> io::Result<Verified> {
    let mut verified = Verified::default();
    let checkpoint = verified.checkpoint(dir, keys)?;
    verified.signed = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
    let mut hashes = Hashes::open(dir);
    let hashed = hashes.len(0)?;
    let is_vouched = match &checkpoint {
        Some(checkpoint) => verified.tree(&mut hashes, checkpoint)?,
        None => false,
    };
    let mut walk = Walk {
        verified,
        hashes,
        hashed,
        is_vouched,
        records: Frontier::default(),
        seen: Seen::default(),
        places: None,
    };
    let names = files::segments(dir)?;
    walk.verified.first = names.first().map_or(0, |name| name.first);
    for (at, name) in names.iter().enumerate() {
        let end = names.get(at + 1).map(|next| next.first);
        walk.segment(dir, *name, end)?;
    }
    Ok(walk.finish(checkpoint.as_ref()))
}

impl Verified {
    fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX { self.findings.push(finding) } else { self.more += 1 }
    }

    fn checkpoint(&mut self, dir: &Path, keys: &[VerifierKey]) -> io::Result<Option<Checkpoint>> {
        let note = match fs::read(dir.join(files::CHECKPOINT)) {
            Ok(note) => String::from_utf8(note).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.find(Finding::Checkpoint("there is none".to_owned()));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match Checkpoint::open(&note, keys) {
            Ok(checkpoint) => {
                self.origin.clone_from(&checkpoint.origin);
                Ok(Some(checkpoint))
            }
            Err(why) => {
                self.find(Finding::Checkpoint(why.to_string()));
                Ok(None)
            }
        }
    }

    /// Whether the hashes of level 0 are those that were signed; if so, what stands above them is held against them.
    fn tree(&mut self, hashes: &mut Hashes, checkpoint: &Checkpoint) -> io::Result<bool> {
        if hashes.len(0)? < checkpoint.size {
            return Ok(false);
        }
        let mut frontier = Frontier::default();
        let mut above = Vec::new();
        let mut wrong = Vec::new();
        let mut counts = [0_u64; 9];
        let mut at = 0;
        while at < checkpoint.size {
            let count = HASHES_AT_ONCE.min(checkpoint.size - at);
            for leaf in hashes.hashes(0, at, usize::try_from(count).unwrap_or(0))? {
                frontier.push(leaf, |level, hash| above.push((level, hash)));
            }
            for (level, hash) in above.drain(..).filter(|(level, _)| *level > 0) {
                let level = usize::try_from(level).unwrap_or(usize::MAX);
                let Some(index) = counts.get_mut(level) else { continue };
                if !hashes.hash(level, *index).is_ok_and(|stored| stored == hash) {
                    wrong.push(Finding::Hash { level, index: *index });
                }
                *index += 1;
            }
            at += count;
        }
        let is_vouched = frontier.root() == checkpoint.root;
        if is_vouched {
            wrong.into_iter().for_each(|finding| self.find(finding));
        }
        Ok(is_vouched)
    }
}

/// Which of the signed records were found.
#[derive(Default)]
struct Seen(Vec<u64>);

impl Seen {
    fn note(&mut self, sequence: u64) {
        let (word, bit) = (usize::try_from(sequence / 64).unwrap_or(usize::MAX), sequence % 64);
        if self.0.len() <= word {
            self.0.resize(word.saturating_add(1), 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << bit;
        }
    }

    fn has(&self, sequence: u64) -> bool {
        let word = usize::try_from(sequence / 64).ok().and_then(|word| self.0.get(word));
        word.is_some_and(|word| word >> (sequence % 64) & 1 == 1)
    }
}

/// Goes through the records.
struct Walk {
    verified: Verified,
    hashes: Hashes,
    /// Hashes of level 0 that there are.
    hashed: u64,
    /// Whether those are the signed ones.
    is_vouched: bool,
    /// The tree over the records themselves, as long as they come one after the other from the first.
    records: Frontier,
    seen: Seen,
    /// Where each signed hash belongs, once somebody asks.
    places: Option<HashMap<Hash, u64>>,
}

impl Walk {
    fn segment(&mut self, dir: &Path, name: Name, end: Option<u64>) -> io::Result<()> {
        let path = name.path(dir);
        let bytes = match fs::read(&path) {
            // It was packed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !name.is_packed => {
                fs::read(Name { is_packed: true, ..name }.path(dir))?
            }
            read => read?,
        };
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if bytes.first_chunk::<HEADER_BYTES>() != Some(&print_head(name.first)) {
            let why = format!("it does not begin like a segment whose first record is {}", name.first);
            self.verified.find(Finding::Foreign { file: file.clone(), why });
        }
        let (mut at, mut next) = (HEADER_BYTES, name.first);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match block_at(rest) {
                Ok((header, stored)) => {
                    self.block(&file, at as u64, header, stored, &mut next)?;
                    at += HEADER_BYTES + stored.len();
                }
                Err(why) => {
                    // Where the next whole block begins, what lies between cannot be read.
                    let found = (1..rest.len()).find_map(|skip| {
                        let (header, stored) = block_at(rest.get(skip..)?).ok()?;
                        (header.first >= next && header.open(stored).is_ok()).then_some((skip, header.first))
                    });
                    let last =
                        found.map(|(_, first)| first).or(end).map_or(next, |first| first.saturating_sub(1));
                    let from = next;
                    let (file, to) = (file.clone(), last.max(from));
                    self.verified.find(Finding::Damaged { file, at: at as u64, from, to, why });
                    let Some((skip, first)) = found else { return Ok(()) };
                    at += skip;
                    next = first;
                }
            }
        }
        Ok(())
    }

    fn block(
        &mut self,
        file: &str,
        at: u64,
        header: Header,
        stored: &[u8],
        next: &mut u64,
    ) -> io::Result<()> {
        if header.first < *next {
            let (file, to) = (file.to_owned(), header.next() - 1);
            self.verified.find(Finding::Repeated { file, from: header.first, to });
            return Ok(());
        }
        // What is missing in between is told by what was signed.
        *next = header.next();
        let damaged = |why: String, from: u64| {
            let (file, to) = (file.to_owned(), header.next() - 1);
            Finding::Damaged { file, at, from, to, why }
        };
        let opened = header.open(stored);
        let payload = match &opened {
            Ok(payload) => &**payload,
            // As far as the records can be told apart, each is held against its hash.
            Err(_) if !header.is_packed => stored,
            Err(why) => {
                self.verified.find(damaged(why.to_string(), header.first));
                return Ok(());
            }
        };
        let mut sequence = header.first;
        let mut rest = payload;
        let before = self.verified.findings.len() as u64 + self.verified.more;
        while sequence < header.next() {
            let record = block::split_record(&mut rest);
            let Ok(record) = record else {
                self.verified.find(damaged("its records do not add up".to_owned(), sequence));
                return Ok(());
            };
            self.record(sequence, record)?;
            sequence += 1;
        }
        let found_more = self.verified.findings.len() as u64 + self.verified.more > before;
        match opened {
            Err(why) if !found_more => self.verified.find(damaged(why.to_string(), header.first)),
            Ok(_) if !rest.is_empty() => {
                self.verified.find(damaged("something stands behind its records".to_owned(), header.first));
            }
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }

    fn record(&mut self, sequence: u64, record: &[u8]) -> io::Result<()> {
        let leaf = Hash::leaf(record);
        if self.records.size() + 1 == sequence {
            self.records.push(leaf, |_, _| ());
        }
        let index = sequence - 1;
        let is_signed = sequence <= self.verified.signed;
        self.verified.unsigned += u64::from(!is_signed);
        if index >= self.hashed {
            self.verified.records += u64::from(!is_signed);
            return Ok(());
        }
        if self.hashes.hash(0, index)? == leaf {
            self.verified.records += 1;
            self.seen.note(sequence);
        } else if self.is_vouched && is_signed {
            self.seen.note(sequence);
            let finding = match self.place_of(&leaf)? {
                Some(is) if is != sequence => Finding::Moved { sequence, is },
                _ => Finding::Altered { sequence },
            };
            self.verified.find(finding);
        } else {
            self.seen.note(sequence);
            self.verified.find(Finding::Hash { level: 0, index });
        }
        Ok(())
    }

    /// The sequence number of the record with this hash.
    fn place_of(&mut self, leaf: &Hash) -> io::Result<Option<u64>> {
        if self.places.is_none() {
            let count = usize::try_from(self.verified.signed).unwrap_or(usize::MAX);
            let hashes = self.hashes.hashes(0, 0, count)?;
            self.places = Some(hashes.into_iter().zip(1..).collect());
        }
        Ok(self.places.as_ref().and_then(|places| places.get(leaf)).copied())
    }

    fn finish(mut self, checkpoint: Option<&Checkpoint>) -> Verified {
        // Records before the first segment were let go of by retention, which says so itself.
        let mut missing: Option<(u64, u64)> = None;
        for sequence in self.verified.first.max(1)..=self.verified.signed {
            match (&mut missing, self.seen.has(sequence)) {
                (None, false) => missing = Some((sequence, sequence)),
                (Some((_, to)), false) => *to = sequence,
                (Some((from, to)), true) => {
                    self.verified.find(Finding::Missing { from: *from, to: *to });
                    missing = None;
                }
                (None, true) => {}
            }
        }
        if let Some((from, to)) = missing {
            self.verified.find(Finding::Missing { from, to });
        }
        if let Some(checkpoint) = checkpoint.filter(|_| !self.is_vouched) {
            let is_signed = self.records.size() == checkpoint.size && self.records.root() == checkpoint.root;
            if !is_signed {
                self.verified.find(Finding::Root { size: checkpoint.size });
            } else if self.hashed < checkpoint.size {
                self.verified.find(Finding::Hash { level: 0, index: self.hashed });
            }
        }
        self.verified
    }
}

/// The block at the beginning of some bytes, its payload unchecked.
fn block_at(bytes: &[u8]) -> Result<(Header, &[u8]), String> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or("it ends within a block")?;
    let header = Header::parse(header).map_err(|why| why.to_string())?;
    let stored = usize::try_from(header.stored_bytes).ok().and_then(|bytes| rest.get(..bytes));
    Ok((header, stored.ok_or("it ends within a block")?))
}
