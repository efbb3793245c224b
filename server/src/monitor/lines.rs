//! JSON Lines, plain or compressed by gzip, read as a stream. Limit: [`LINE_BYTES_MAX`] for each line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde::de::DeserializeOwned;

use super::Fault;

/// Longest line, in bytes.
pub const LINE_BYTES_MAX: u64 = 1 << 20;

/// What one line holds.
pub trait Line: DeserializeOwned {
    /// What to write instead of a line that cannot be read.
    const REMEDY: &'static str;
}

/// Reads one line after the other.
pub struct Lines<T> {
    path: PathBuf,
    from: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
    is_broken: bool,
    holds: PhantomData<fn() -> T>,
}

impl<T: Line> Lines<T> {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let plain: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::new(io::stdin()))
        } else {
            let file =
                File::open(path).map_err(|error| Fault::of(path, format!("cannot be opened: {error}")))?;
            Box::new(BufReader::new(file))
        };
        Self::of(path, plain).map_err(|error| Fault::of(path, format!("cannot be read: {error}")))
    }

    /// Reads from an open stream that is called `path` in faults.
    ///
    /// # Errors
    ///
    /// Its first bytes cannot be read.
    pub fn of(path: &Path, mut plain: Box<dyn BufRead>) -> io::Result<Self> {
        let is_compressed = plain.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        let from: Box<dyn BufRead> =
            if is_compressed { Box::new(BufReader::new(MultiGzDecoder::new(plain))) } else { plain };
        Ok(Self {
            path: path.to_owned(),
            from,
            line: Vec::new(),
            number: 0,
            is_broken: false,
            holds: PhantomData,
        })
    }

    /// A fault of the line that was read last.
    pub(super) fn fault(&self, what: impl Into<String>) -> Fault {
        Fault { place: format!("{}:{}", self.path.display(), self.number), what: what.into() }
    }

    fn read(&mut self) -> Option<Result<T, Fault>> {
        loop {
            self.line.clear();
            self.number += 1;
            let read = (&mut self.from).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line);
            match read {
                Err(error) => {
                    return Some(Err(self.fault(format!("cannot be read: {error}; is the file whole?"))));
                }
                Ok(0) => return None,
                Ok(read)
                    if !self.line.ends_with(b"\n")
                        && u64::try_from(read).is_ok_and(|read| read >= LINE_BYTES_MAX) =>
                {
                    return Some(Err(self.fault(format!("the line has more than {LINE_BYTES_MAX} bytes"))));
                }
                Ok(_) => {}
            }
            let text = self.line.trim_ascii();
            if text.is_empty() {
                continue;
            }
            return Some(
                serde_json::from_slice(text).map_err(|error| self.fault(format!("{error}; {}", T::REMEDY))),
            );
        }
    }
}

impl<T: Line> Iterator for Lines<T> {
    type Item = Result<T, Fault>;

    /// Nothing comes after a fault: what follows a broken line cannot be told to be whole.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_broken {
            return None;
        }
        let read = self.read();
        self.is_broken = matches!(read, Some(Err(_)));
        read
    }
}
