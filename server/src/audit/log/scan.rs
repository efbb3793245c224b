//! Every record that is in a directory or in a segment, in order, without anybody saying how far the log goes.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use super::block;
use super::files::{Name, segments};
use super::segment::{BadSegment, Block, Blocks};

/// See the module. What is not whole at the end of the last segment is not there yet.
pub(in crate::audit) struct Scan {
    dir: PathBuf,
    names: VecDeque<Name>,
    open: Option<Blocks>,
    block: Option<Block>,
    /// Where the next record of the block begins, and its number.
    at: usize,
    next: u64,
}

impl Scan {
    /// Opens a directory, or one segment by its path.
    ///
    /// # Errors
    /// The directory cannot be read, or the file is not named like a segment.
    pub(in crate::audit) fn open(path: &Path) -> io::Result<Self> {
        let (dir, names) = if path.is_dir() {
            (path.to_owned(), segments(path)?.into())
        } else {
            let name = path.file_name().and_then(std::ffi::OsStr::to_str).and_then(Name::parse);
            let name = name.ok_or_else(|| io::Error::other("it is not named like a segment"))?;
            (path.parent().unwrap_or(path).to_owned(), VecDeque::from([name]))
        };
        Ok(Self { dir, names, open: None, block: None, at: 0, next: 0 })
    }

    /// Whether there is no segment at all.
    pub(in crate::audit) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.open.is_none()
    }

    /// The next record and its sequence number.
    ///
    /// # Errors
    /// A segment cannot be read on.
    pub(in crate::audit) fn read(&mut self) -> Result<Option<(u64, &[u8])>, BadSegment> {
        while self.block.as_ref().is_none_or(|block| self.at >= block.payload.len()) {
            self.block = self.read_block()?;
            self.at = 0;
            match &self.block {
                Some(block) => self.next = block.first,
                None => return Ok(None),
            }
        }
        let (sequence, at) = (self.next, self.at);
        let payload = self.block.as_ref().map(|block| block.payload.as_slice()).unwrap_or_default();
        let mut rest = payload.get(at..).unwrap_or_default();
        let before = rest.len();
        let record = block::split_record(&mut rest)
            .map_err(|why| BadSegment::Block { at: self.open.as_ref().map_or(0, Blocks::at), why })?;
        self.at += before - rest.len();
        self.next += 1;
        Ok(Some((sequence, record)))
    }

    fn read_block(&mut self) -> Result<Option<Block>, BadSegment> {
        loop {
            if self.open.is_none() {
                let Some(name) = self.names.pop_front() else { return Ok(None) };
                let packed = || Blocks::open(&self.dir, Name { is_packed: true, ..name });
                let opened = match Blocks::open(&self.dir, name) {
                    // It was packed meanwhile.
                    Err(BadSegment::Io(error)) if error.kind() == io::ErrorKind::NotFound => packed(),
                    opened => opened,
                };
                match opened {
                    Ok(blocks) => self.open = Some(blocks),
                    Err(BadSegment::Torn(0)) if self.names.is_empty() => return Ok(None),
                    Err(bad) => return Err(bad),
                }
            }
            let Some(blocks) = &mut self.open else { return Ok(None) };
            match blocks.read() {
                Ok(Some(block)) => return Ok(Some(block)),
                Ok(None) => self.open = None,
                Err(BadSegment::Torn(_)) if self.names.is_empty() => return Ok(None),
                Err(bad) => return Err(bad),
            }
        }
    }
}
