//! The log as a whole: it goes on where it ended, is packed without anybody noticing, and whatever is changed in it is found.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::Arc;

use cardea_tlog::VerifierKey;
use tempfile::{TempDir, tempdir};

use super::verify::{Finding, Verified, verify};
use super::*;

pub(super) fn signer() -> Signer {
    Signer::new("log.example/audit", [4; 32]).unwrap()
}

pub(super) fn keys() -> [VerifierKey; 1] {
    [signer().verifier().clone()]
}

fn open(dir: &Path) -> (Log, Found) {
    Log::open(dir, 4_096, signer()).unwrap()
}

pub(super) fn record(sequence: u64) -> Vec<u8> {
    format!("record {sequence} {}", "x".repeat(usize::try_from(sequence % 40).unwrap())).into_bytes()
}

/// Appends records up to this one, in blocks of varying size, as the writer does.
fn append(log: &mut Log, to: u64) {
    let mut batch = Batch::new(log.next);
    while batch.next() <= to {
        batch.push(&record(batch.next()));
        if batch.next().is_multiple_of(7) || batch.ends_tile() {
            log.append(&batch).unwrap();
            batch.clear();
        }
    }
    if batch.records() > 0 {
        log.append(&batch).unwrap();
    }
}

/// A log of that many records, closed in order.
pub(super) fn closed(records: u64) -> TempDir {
    let dir = tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    append(&mut log, records);
    log.close().unwrap();
    dir
}

fn read(dir: &Path, from: u64, until: u64) -> Vec<Vec<u8>> {
    let mut cursor = Cursor::new(Arc::from(dir), from);
    let mut records = Vec::new();
    while let Some((sequence, record)) = cursor.read(until).unwrap() {
        assert_eq!(sequence, from + records.len() as u64);
        records.push(record.to_vec());
    }
    assert_eq!(cursor.next(), until + 1);
    records
}

pub(super) fn check(dir: &Path) -> Verified {
    verify(dir, &keys()).unwrap()
}

fn segments_in(dir: &Path) -> Vec<Name> {
    files::segments(dir).unwrap()
}

#[test]
fn a_log_goes_on_where_it_was_closed_and_every_record_is_read_and_verified() {
    let dir = tempdir().unwrap();
    for (size, expected) in [(10, 1), (700, 11), (701, 701), (1_500, 702)] {
        let (mut log, found) = open(dir.path());
        assert_eq!(found, Found { next: expected, is_unclean: false });
        append(&mut log, size);
        log.close().unwrap();
        drop(log);
        let records: Vec<Vec<u8>> = (1..=size).map(record).collect();
        assert_eq!(read(dir.path(), 1, size), records);
        let verified = check(dir.path());
        assert_eq!((verified.records, verified.signed, verified.unsigned), (size, size, 0));
        assert_eq!(verified.findings, []);
        assert_eq!(verified.origin, "log.example/audit");
    }
    let firsts: Vec<u64> = segments_in(dir.path()).iter().map(|name| name.first).collect();
    assert!(firsts.len() > 3 && firsts.iter().all(|first| first % 256 == 1), "{firsts:?}");
}

#[test]
fn packed_segments_read_and_verify_like_stored_ones_and_are_smaller() {
    let dir = closed(2_000);
    let before = check(dir.path());
    let (mut log, _) = open(dir.path());
    let mut packed = 0;
    while let Some(first) = log.take_unpacked() {
        let stored = fs::metadata(Name { first, is_packed: false }.path(dir.path())).unwrap().len();
        pack(dir.path(), first, || ()).unwrap();
        let now = fs::metadata(Name { first, is_packed: true }.path(dir.path())).unwrap().len();
        assert!(now * 2 < stored, "{now} of {stored}");
        packed += 1;
    }
    assert!(packed > 3);
    log.close().unwrap();
    let after = check(dir.path());
    assert_eq!((before.records, before.findings), (2_000, Vec::new()));
    assert_eq!((after.records, after.findings), (2_000, Vec::new()));
    for from in [1, 2, 255, 256, 257, 1_000, 1_999] {
        assert_eq!(read(dir.path(), from, 2_000), (from..=2_000).map(record).collect::<Vec<_>>());
    }
    let all = segments_in(dir.path());
    let last = all.last().unwrap();
    let whole: Vec<u8> = fs::read(all[0].path(dir.path())).unwrap();
    let stream = zstd::decode_all(whole.as_slice()).unwrap();
    let mut rest = stream.as_slice();
    let (mut sequence, mut count) = (1, 0);
    while !rest.is_empty() {
        assert_eq!(block::split_record(&mut rest).unwrap(), record(sequence));
        sequence += 1;
        count += 1;
    }
    assert_eq!(count + 1, all[1].first, "zstd alone makes a delimited stream of it");
    assert!(!last.is_packed);
}

#[test]
fn a_reader_goes_on_while_the_segment_that_it_reads_is_packed() {
    let dir = closed(2_000);
    let mut cursor = Cursor::new(Arc::from(dir.path()), 1);
    for sequence in 1..=2_000 {
        let (found, bytes) = cursor.read(2_000).unwrap().map(|(at, bytes)| (at, bytes.to_vec())).unwrap();
        assert_eq!((found, bytes), (sequence, record(sequence)));
        if sequence % 100 == 0
            && let Some(name) = segments_in(dir.path()).into_iter().find(|name| !name.is_packed)
            && name.first < 1_700
        {
            pack(dir.path(), name.first, || ()).unwrap();
        }
    }
}

#[test]
fn what_a_kill_left_half_written_is_cut_off_and_the_log_says_that_it_was_not_closed() {
    let whole = closed(300);
    let (mut log, _) = open(whole.path());
    append(&mut log, 303);
    let last = *segments_in(whole.path()).last().unwrap();
    let signed = check(whole.path()).signed;
    drop(log);
    let bytes = fs::read(last.path(whole.path())).unwrap();
    let before = bytes.len()
        - usize::try_from(
            Blocks::open(whole.path(), last)
                .map(|mut blocks| {
                    blocks.skip_to(301).unwrap();
                    bytes.len() as u64 - blocks.at()
                })
                .unwrap(),
        )
        .unwrap();
    for end in before..bytes.len() {
        fs::write(last.path(whole.path()), &bytes[..end]).unwrap();
        let (mut log, found) = open(whole.path());
        assert_eq!(found, Found { next: signed + 1, is_unclean: true }, "{end} of {}", bytes.len());
        append(&mut log, 310);
        log.sync().unwrap();
        drop(log);
        assert_eq!(check(whole.path()).findings, []);
        assert_eq!(read(whole.path(), 290, 310).len(), 21);
    }
}

#[test]
fn a_log_that_lost_what_was_signed_is_not_gone_on_with() {
    let dir = closed(300);
    let last = *segments_in(dir.path()).last().unwrap();
    let path = last.path(dir.path());
    let bytes = fs::read(&path).unwrap();
    let refused = |what: &str| {
        let said = Log::open(dir.path(), 4_096, signer()).err().unwrap().to_string();
        assert!(said.contains(what), "{said}");
    };
    OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes.len() as u64 - 1).unwrap();
    refused("it ends within a block");
    let mut blocks = Blocks::open(dir.path(), last).unwrap();
    blocks.skip_to(295).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(blocks.at()).unwrap();
    refused("300 records were signed");
    fs::remove_file(&path).unwrap();
    refused("were signed");
    fs::write(&path, &bytes).unwrap();
    assert_eq!(open(dir.path()).1.next, 301);
}

#[test]
fn a_record_that_somebody_changed_with_its_checksum_is_not_gone_on_with() {
    let dir = closed(20);
    let path = segments_in(dir.path())[0].path(dir.path());
    forge(&path, 0, |payload| payload[20] ^= 1);
    let said = Log::open(dir.path(), 4_096, signer()).err().unwrap().to_string();
    assert!(said.contains("is not the one that was hashed"), "{said}");
    fs::remove_dir_all(dir.path().join(files::TREE)).unwrap();
    let said = Log::open(dir.path(), 4_096, signer()).err().unwrap().to_string();
    assert!(said.contains("the root of its first 20 records is another"), "{said}");
}

#[test]
fn a_log_signed_by_another_key_is_not_gone_on_with() {
    let dir = closed(5);
    let other = Signer::new("log.example/audit", [5; 32]).unwrap();
    let said = Log::open(dir.path(), 4_096, other).err().unwrap().to_string();
    assert!(said.contains("give the key that signed it"), "{said}");
    assert!(Log::open(dir.path(), 4_096, signer()).is_ok());
}

/// Changes the payload of a block of a stored segment, and makes its checksum right.
fn forge(path: &Path, number: usize, change: impl FnOnce(&mut [u8])) {
    let mut bytes = fs::read(path).unwrap();
    let mut at = block::HEADER_BYTES;
    let header = |bytes: &[u8], at: usize| Header::parse(bytes[at..at + 32].try_into().unwrap()).unwrap();
    for _ in 0..number {
        at += usize::try_from(header(&bytes, at).bytes()).unwrap();
    }
    let old = header(&bytes, at);
    let end = at + usize::try_from(old.bytes()).unwrap();
    change(&mut bytes[at + 32..end]);
    let new = Header::of(old.first, old.records, &bytes[at + 32..end], None);
    bytes[at..at + 32].copy_from_slice(&new.print());
    fs::write(path, bytes).unwrap();
}

/// The records of which findings speak; of hashes those that they belong to.
fn places(verified: &Verified) -> Vec<u64> {
    let mut places = Vec::new();
    for finding in &verified.findings {
        match finding {
            Finding::Altered { sequence } | Finding::Moved { sequence, .. } => places.push(*sequence),
            Finding::Missing { from, to }
            | Finding::Repeated { from, to, .. }
            | Finding::Damaged { from, to, .. } => places.extend(*from..=*to),
            Finding::Hash { level: 0, index } => places.push(index + 1),
            Finding::Checkpoint(_)
            | Finding::Foreign { .. }
            | Finding::Hash { .. }
            | Finding::Root { .. } => {}
        }
    }
    places
}

#[test]
fn whichever_byte_of_a_log_is_changed_it_is_found_and_the_log_is_as_before_when_it_is_put_back() {
    let dir = closed(600);
    pack(dir.path(), 1, || ()).unwrap();
    let trees = ["0", "1"].map(|level| dir.path().join(files::TREE).join(level));
    let stored = segments_in(dir.path()).into_iter().map(|name| name.path(dir.path()));
    let mut changed = 0;
    for path in stored.chain(trees).chain([dir.path().join(CHECKPOINT)]) {
        let good = fs::read(&path).unwrap();
        // Every byte of what is small, every ninth of what is not.
        for at in (0..good.len()).step_by(if good.len() < 3_000 { 1 } else { 9 }) {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            fs::write(&path, &bad).unwrap();
            let verified = check(dir.path());
            assert!(!verified.findings.is_empty(), "byte {at} of {}", path.display());
            changed += 1;
        }
        fs::write(&path, &good).unwrap();
        assert_eq!(check(dir.path()).findings, [], "{}", path.display());
    }
    assert!(changed > 3_000, "{changed}");
}

#[test]
fn an_altered_record_is_named_even_if_its_checksum_was_made_right() {
    let dir = closed(600);
    let path = segments_in(dir.path())[1].path(dir.path());
    let first = segments_in(dir.path())[1].first;
    forge(&path, 1, |payload| {
        let at = payload.windows(6).position(|window| window == b"record").unwrap();
        payload[at] = b'R';
    });
    let verified = check(dir.path());
    let mut blocks = Blocks::open(dir.path(), segments_in(dir.path())[1]).unwrap();
    let one = blocks.read().unwrap().unwrap();
    assert_eq!(verified.findings, [Finding::Altered { sequence: first + u64::from(one.records) }]);
    assert_eq!(verified.records, 599);
}

#[test]
fn reordered_removed_repeated_and_inserted_records_are_named() {
    let name = Name { first: 1, is_packed: false };
    let blocks_of = |dir: &Path| -> Vec<Vec<u8>> {
        let bytes = fs::read(name.path(dir)).unwrap();
        let (mut at, mut blocks) = (block::HEADER_BYTES, vec![bytes[..block::HEADER_BYTES].to_vec()]);
        while at < bytes.len() {
            let header = Header::parse(bytes[at..at + 32].try_into().unwrap()).unwrap();
            let end = at + usize::try_from(header.bytes()).unwrap();
            blocks.push(bytes[at..end].to_vec());
            at = end;
        }
        blocks
    };
    let after = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let dir = closed(40);
        let mut blocks = blocks_of(dir.path());
        change(&mut blocks);
        fs::write(name.path(dir.path()), blocks.concat()).unwrap();
        check(dir.path())
    };
    // Blocks hold records 1 to 6, 7 to 13, 14 to 20, 21 to 27, 28 to 34 and 35 to 40.
    assert_eq!(places(&after(&|_| {})), [0_u64; 0]);
    assert_eq!(places(&after(&|blocks| drop(blocks.remove(3)))), (14..=20).collect::<Vec<_>>());
    assert_eq!(places(&after(&|blocks| drop(blocks.pop()))), (35..=40).collect::<Vec<_>>());
    let repeated = after(&|blocks| blocks.insert(3, blocks[2].clone()));
    assert_eq!(
        repeated.findings,
        [Finding::Repeated { file: "00000000000000000001.log".into(), from: 7, to: 13 }]
    );
    let swapped = after(&|blocks| blocks.swap(2, 3));
    assert!(places(&swapped).iter().any(|at| (7..=20).contains(at)), "{swapped:?}");

    // The same with checksums and numbers made right, so that only the tree can tell.
    let dir = closed(40);
    forge(&name.path(dir.path()), 1, |payload| {
        let mut records = block::records(payload, 7).unwrap();
        records.sort_by_key(|record| record.len());
        records.reverse();
        let mut other = Vec::new();
        records.into_iter().for_each(|record| block::push(&mut other, record));
        payload.copy_from_slice(&other);
    });
    let moved = check(dir.path());
    assert!(moved.findings.contains(&Finding::Moved { sequence: 7, is: 13 }), "{moved:?}");
    assert!(places(&moved).iter().all(|at| (7..=13).contains(at)), "{moved:?}");

    let dir = closed(40);
    let mut file = OpenOptions::new().append(true).open(name.path(dir.path())).unwrap();
    let mut payload = Vec::new();
    block::push(&mut payload, b"forged");
    file.write_all(&Header::of(41, 1, &payload, None).print()).unwrap();
    file.write_all(&payload).unwrap();
    assert_eq!(check(dir.path()).unsigned, 1, "it is told that no signature covers it");
}

#[test]
fn segments_that_are_removed_renamed_or_cut_are_named() {
    let dir = closed(1_500);
    let names = segments_in(dir.path());
    let (one, other) = (names[1].path(dir.path()), names[2].path(dir.path()));
    let (good, next) = (fs::read(&one).unwrap(), fs::read(&other).unwrap());
    fs::remove_file(&one).unwrap();
    assert_eq!(places(&check(dir.path())), (names[1].first..names[2].first).collect::<Vec<_>>());
    fs::write(&one, &next).unwrap();
    fs::write(&other, &good).unwrap();
    let swapped = check(dir.path());
    assert_eq!(
        swapped.findings.iter().filter(|finding| matches!(finding, Finding::Foreign { .. })).count(),
        2
    );
    fs::write(&one, &good[..good.len() / 2]).unwrap();
    fs::write(&other, &next).unwrap();
    let cut = places(&check(dir.path()));
    assert!(!cut.is_empty() && cut.iter().all(|at| (names[1].first..names[2].first).contains(at)), "{cut:?}");
    fs::write(&one, &good).unwrap();
    assert_eq!(check(dir.path()).findings, []);
}

#[test]
fn a_checkpoint_that_is_missing_or_of_another_key_vouches_for_nothing() {
    let dir = closed(10);
    let other = Signer::new("log.example/audit", [5; 32]).unwrap();
    let said = verify(dir.path(), &[other.verifier().clone()]).unwrap();
    assert!(matches!(&said.findings[..], [Finding::Checkpoint(_)]), "{said:?}");
    fs::remove_file(dir.path().join(CHECKPOINT)).unwrap();
    let said = check(dir.path());
    assert_eq!(said.findings, [Finding::Checkpoint("there is none".into())]);
    assert_eq!((said.signed, said.unsigned), (0, 10));
}

#[test]
fn one_directory_is_one_processes() {
    let dir = tempdir().unwrap();
    let (log, _) = open(dir.path());
    assert!(matches!(Log::open(dir.path(), 4_096, signer()), Err(BadLog::InUse(_))));
    drop(log);
    open(dir.path());
}
