//! Recorded attempts as JSON Lines, plain or compressed by gzip, read as a stream.
//!
//! Of an object only `ts`, `principal`, `session`, `action`, `resource` and `context` are read; whatever else it holds, above
//! all labels, is skipped unread. Limit: [`LINE_BYTES_MAX`] for each line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Fault;

/// Longest line, in bytes.
pub const LINE_BYTES_MAX: u64 = 1 << 20;

/// One recorded attempt.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Recorded {
    /// When.
    #[serde(deserialize_with = "super::timestamp")]
    pub ts: Timestamp,
    /// Who.
    pub principal: String,
    /// In which session.
    pub session: String,
    /// What.
    pub action: String,
    /// To what; `-` or nothing: unknown.
    #[serde(default)]
    pub resource: String,
    /// What else was known.
    #[serde(default)]
    pub context: Map<String, Value>,
}

/// Reads attempts one after the other.
pub struct Attempts {
    path: PathBuf,
    from: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
    is_broken: bool,
}

impl Attempts {
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
        Ok(Self { path: path.to_owned(), from, line: Vec::new(), number: 0, is_broken: false })
    }

    fn fault(&self, what: impl Into<String>) -> Fault {
        Fault { place: format!("{}:{}", self.path.display(), self.number), what: what.into() }
    }

    fn read(&mut self) -> Option<Result<Recorded, Fault>> {
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
            return Some(serde_json::from_slice(text).map_err(|error| {
                let remedy = "a line is an object with `ts`, `principal`, `session`, `action`, and may have `resource` and `context`";
                self.fault(format!("{error}; {remedy}"))
            }));
        }
    }
}

impl Iterator for Attempts {
    type Item = Result<Recorded, Fault>;

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

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    const LINE: &str =
        r#"{"ts":"2026-01-01T00:00:00Z","principal":"a","session":"s","action":"x","label":"attack"}"#;

    fn read(bytes: Vec<u8>) -> Vec<Result<Recorded, Fault>> {
        Attempts::of(Path::new("f"), Box::new(Cursor::new(bytes))).unwrap().collect()
    }

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_and_compressed_lines_are_the_same_and_labels_are_not_read() {
        let text = format!("{LINE}\n\n  {LINE}");
        let plain = read(text.clone().into_bytes());
        assert_eq!(plain.len(), 2);
        assert!(plain.iter().all(Result::is_ok));
        assert_eq!(plain, read(compressed(text.as_bytes())));
        let halves = [compressed(format!("{LINE}\n").as_bytes()), compressed(LINE.as_bytes())].concat();
        assert_eq!(plain, read(halves));
    }

    #[test]
    fn a_fault_names_its_line_and_ends_the_stream() {
        let found = read(format!("{LINE}\n{{\"ts\":1}}\n{LINE}").into_bytes());
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].as_ref().unwrap_err().place, "f:2");
        let long = read(vec![b'x'; 2 << 20]);
        assert_eq!(long.len(), 1);
        assert!(long[0].as_ref().unwrap_err().what.contains("more than 1048576 bytes"));
        let cut = compressed(LINE.repeat(100).as_bytes());
        assert!(read(cut[..cut.len() / 2].to_vec()).pop().unwrap().is_err());
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_are_it_ends_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), pack in any::<bool>()) {
            read(if pack { compressed(&bytes) } else { bytes });
        }

        #[test]
        fn whatever_happens_to_a_line_it_ends_without_a_panic(at in 0..LINE.len(), byte in any::<u8>(), cut in 0..LINE.len()) {
            let mut bytes = LINE.as_bytes().to_vec();
            bytes[at] = byte;
            read(bytes.clone());
            bytes.truncate(cut);
            read(bytes);
        }
    }
}
