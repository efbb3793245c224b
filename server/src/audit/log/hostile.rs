//! Directories that somebody else wrote: files that are anything, and files that were good before somebody changed them.
//!
//! Laws: nothing panics, and everything ends; what is read is what was written; a change of a segment is found, or every record is still there.

use std::sync::Arc;

use proptest::prelude::*;
use tempfile::tempdir;

use super::tests::{check, closed, keys, record};
use super::verify::verify;
use super::*;

const RECORDS: u64 = 700;

/// What somebody does to a file.
#[derive(Clone, Debug)]
enum Change {
    Put(prop::sample::Index, u8),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
    Cut(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Put(at, byte)),
        (at(), 1..400_usize).prop_map(|(at, many)| Change::Remove(at, many)),
        (at(), 1..400_usize).prop_map(|(at, many)| Change::Repeat(at, many)),
        (at(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        at().prop_map(Change::Cut),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        match change {
            Change::Put(at, byte) => bytes[at.index(length)] = *byte,
            Change::Remove(at, many) => {
                let first = at.index(length);
                bytes.drain(first..(first + many).min(length));
            }
            Change::Repeat(at, many) => {
                let first = at.index(length);
                let part = bytes[first..(first + many).min(length)].to_vec();
                bytes.splice(first..first, part);
            }
            Change::Insert(at, more) => {
                let first = at.index(length);
                bytes.splice(first..first, more.clone());
            }
            Change::Cut(at) => bytes.truncate(at.index(length)),
        }
    }
    bytes
}

/// Reads as far as it goes; whatever comes is what was written under its number.
fn read_on(dir: &Path) -> u64 {
    let mut cursor = Cursor::new(Arc::from(dir), 1);
    let mut count = 0;
    while let Ok(Some((sequence, found))) = cursor.read(RECORDS) {
        count += 1;
        assert_eq!((sequence, found), (count, record(count).as_slice()));
    }
    count
}

fn scan_on(dir: &Path) {
    let Ok(mut scan) = Scan::open(dir) else { return };
    let mut count = 0;
    while let Ok(Some(_)) = scan.read() {
        count += 1;
        assert!(count <= 1_000_000, "it ends");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_changed_segment_is_found_or_every_record_is_still_there(
        which in any::<prop::sample::Index>(), packed in any::<bool>(), changes in prop::collection::vec(change(), 1..4),
    ) {
        let dir = closed(RECORDS);
        if packed {
            pack(dir.path(), 1, || ()).unwrap();
        }
        let segments = files::segments(dir.path()).unwrap();
        let path = which.get(&segments).path(dir.path());
        let before = fs::read(&path).unwrap();
        let after = changed(before.clone(), &changes);
        fs::write(&path, &after).unwrap();
        let count = read_on(dir.path());
        scan_on(dir.path());
        let is_found = verify(dir.path(), &keys()).map_or(true, |verified| !verified.findings.is_empty());
        prop_assert!(is_found || count == RECORDS, "{count} records, and nothing is found: {changes:?}");
        prop_assert!(is_found || before == after || after.starts_with(&before), "{changes:?}");
    }

    #[test]
    fn changed_hashes_and_checkpoints_do_not_change_what_is_read(
        which in 0..3_usize, changes in prop::collection::vec(change(), 1..4),
    ) {
        let dir = closed(RECORDS);
        let path = dir.path().join(["tree/0", "tree/1", CHECKPOINT][which]);
        let after = changed(fs::read(&path).unwrap(), &changes);
        fs::write(&path, &after).unwrap();
        prop_assert_eq!(read_on(dir.path()), RECORDS);
        // It says something, and does not panic.
        let _said = verify(dir.path(), &keys());
        let _opened = Log::open(dir.path(), 4_096, tests::signer());
    }

    #[test]
    fn segments_of_anything_are_read_to_an_end(
        bytes in prop::collection::vec(any::<u8>(), 0..4_000), is_packed in any::<bool>(), with_frame in any::<bool>(),
    ) {
        let dir = tempdir().unwrap();
        let bytes = if with_frame { zstd::encode_all(bytes.as_slice(), 1).unwrap() } else { bytes };
        fs::write(Name { first: 1, is_packed }.path(dir.path()), bytes).unwrap();
        let mut cursor = Cursor::new(Arc::from(dir.path()), 1);
        while let Ok(Some(_)) = cursor.read(RECORDS) {}
        scan_on(dir.path());
        let _said = verify(dir.path(), &keys());
        let _opened = Log::open(dir.path(), 4_096, tests::signer());
    }
}

#[test]
fn a_log_that_nobody_changed_has_no_findings() {
    assert_eq!(check(closed(RECORDS).path()).findings, []);
}
