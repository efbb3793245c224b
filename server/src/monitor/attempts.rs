//! Recorded attempts as JSON Lines.
//!
//! Of an object only `ts`, `principal`, `session`, `action`, `resource` and `context` are read; whatever else it holds, above
//! all labels, is skipped unread.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::lines::{Line, Lines};

/// Attempts, one after the other.
pub type Attempts = Lines<Recorded>;

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

impl Line for Recorded {
    const REMEDY: &'static str = "a line is an object with `ts`, `principal`, `session`, `action`, and may have `resource` and `context`";
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};
    use std::path::Path;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;
    use crate::monitor::Fault;

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
