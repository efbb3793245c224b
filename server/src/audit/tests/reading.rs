//! `Tail` and the gRPC stream over it.

use std::fs;

use cardea_proto::v1::audit_service_server::AuditService as _;
use futures_util::StreamExt as _;
use tempfile::tempdir;
use tonic::{Code, Request};

use super::*;
use crate::audit::{AuditStreams, BATCH_RECORDS_MAX, BadRead, Filter, STREAMS_MAX, Tail, TailError};
use crate::shutdown::Shutdown;

/// Reads until it has this many records.
async fn take(tail: &mut Tail, count: usize) -> Vec<v1::Record> {
    let mut records = Vec::new();
    while records.len() < count {
        let batch = tail.next_batch().await.unwrap().expect("the audit is open");
        assert!(!batch.is_empty() && batch.len() <= BATCH_RECORDS_MAX);
        records.extend(batch);
    }
    records
}

fn sequences(records: &[v1::Record]) -> Vec<u64> {
    records.iter().map(|record| record.sequence).collect()
}

/// Fills, waiting for places.
fn put_patiently(audit: &Audit, numbers: std::ops::Range<usize>) {
    for n in numbers {
        wait_until("there is a place", || {
            audit.reserve().map(|place| place.fill_entry(2_000, numbered(n))).is_ok()
        });
    }
}

#[tokio::test]
async fn reads_from_disk_then_follows_through_rotations_without_gap_or_repetition() {
    let dir = tempdir().unwrap();
    let audit = Arc::new(open(&config(dir.path(), 32, WhenFull::Deny)));
    put_patiently(&audit, 0..300);
    let mut tails: Vec<_> = [1, 2, 40, 300].map(|from| (from, audit.tail(from, Filter::default()))).into();
    let writing = thread::spawn({
        let audit = Arc::clone(&audit);
        move || put_patiently(&audit, 300..2_000)
    });
    for (from, tail) in &mut tails {
        let records = take(tail, 2_001 - usize::try_from(*from).unwrap()).await;
        assert_eq!(sequences(&records), (*from..=2_000).collect::<Vec<_>>());
    }
    writing.join().unwrap();
    assert!(segments(dir.path()).len() > 3, "there were rotations");
}

#[tokio::test]
async fn from_zero_gives_only_what_comes_later() {
    let dir = tempdir().unwrap();
    let audit = open(&config(dir.path(), 32, WhenFull::Deny));
    put_patiently(&audit, 0..5);
    wait_until("five are written", || audit.stats().last_sequence == 5);
    let mut tail = audit.tail(0, Filter::default());
    put(&audit, 5);
    assert_eq!(sequences(&take(&mut tail, 1).await), [6]);
}

#[tokio::test]
async fn a_tail_ends_when_the_audit_is_closed_and_all_is_read() {
    let dir = tempdir().unwrap();
    let audit = Arc::new(open(&config(dir.path(), 32, WhenFull::Deny)));
    let mut tail = audit.tail(1, Filter::default());
    put(&audit, 0);
    let closing = thread::spawn({
        let audit = Arc::clone(&audit);
        move || audit.close()
    });
    assert_eq!(sequences(&take(&mut tail, 1).await), [1]);
    assert!(tail.next_batch().await.unwrap().is_none());
    closing.join().unwrap().unwrap();
    let mut late = audit.tail(1, Filter::default());
    assert_eq!(sequences(&take(&mut late, 1).await), [1]);
    assert!(late.next_batch().await.unwrap().is_none());
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_back_nobody_and_catches_up_in_bounded_batches() {
    let dir = tempdir().unwrap();
    let mut config = config(dir.path(), 32, WhenFull::Deny);
    config.segment_bytes_max = 256 * 1024;
    let audit = open(&config);
    let mut slow = audit.tail(1, Filter::default());
    let mut quick = audit.tail(1, Filter::default());
    assert!(audit.stats().last_sequence == 0);
    put_patiently(&audit, 0..2_000);
    assert_eq!(take(&mut quick, 2_000).await.len(), 2_000);
    assert_eq!(sequences(&take(&mut slow, 2_000).await), (1..=2_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_record_that_is_not_on_disk_is_an_error_that_says_where_to_go_on() {
    let dir = tempdir().unwrap();
    let audit = open(&config(dir.path(), 32, WhenFull::Deny));
    put_patiently(&audit, 0..1_300);
    audit.close().unwrap();
    let firsts = segments(dir.path());
    for gone in [firsts[0], firsts[2]] {
        // In whichever form it is just now.
        let _stored = fs::remove_file(dir.path().join(format!("{gone:020}.log")));
        let _packed = fs::remove_file(dir.path().join(format!("{gone:020}.log.zst")));
    }
    let missing = |error: &TailError, sequence: u64, next: u64| matches!(error, TailError::Log(BadRead::Missing { sequence: of, next: Some(at) }) if (*of, *at) == (sequence, next));
    let error = audit.tail(1, Filter::default()).next_batch().await.unwrap_err();
    assert!(missing(&error, 1, firsts[1]), "{error}");
    let mut tail = audit.tail(firsts[1], Filter::default());
    let before_the_hole = usize::try_from(firsts[2] - firsts[1]).unwrap();
    assert_eq!(take(&mut tail, before_the_hole).await.len(), before_the_hole);
    let error = tail.next_batch().await.unwrap_err();
    assert!(missing(&error, firsts[2], firsts[3]), "{error}");
}

#[tokio::test]
async fn a_damaged_block_ends_the_tail_after_the_records_before_it() {
    let dir = tempdir().unwrap();
    let audit = open(&config(dir.path(), 32, WhenFull::Deny));
    for n in 0..10 {
        put(&audit, n);
        wait_until("it is in a block of its own", || audit.stats().last_sequence == n as u64 + 1);
    }
    let file = dir.path().join("00000000000000000001.log");
    let mut bytes = fs::read(&file).unwrap();
    // Field 1 of the seventh record, its sequence number, and the tag of the next.
    let at = bytes.windows(3).position(|window| window == [0x08, 7, 0x12]).unwrap();
    bytes[at + 1] = 8;
    fs::write(&file, bytes).unwrap();
    let mut tail = audit.tail(1, Filter::default());
    assert_eq!(sequences(&take(&mut tail, 6).await), [1, 2, 3, 4, 5, 6]);
    let error = tail.next_batch().await.unwrap_err();
    let is_told = matches!(&error, TailError::Log(BadRead::Corrupt { sequence: 7, file, .. }) if file.ends_with("01.log"));
    assert!(is_told, "{error}");
}

fn decision(answer: v1::Decision, principal: &str, action: &str, door: &str) -> Entry {
    Entry::Decision(v1::DecisionRecord {
        decision_id: "d".to_owned(),
        door: door.to_owned(),
        principal: Some(agent(principal)),
        action: Some(v1::EntityRef { r#type: "Action".to_owned(), id: action.to_owned() }),
        decision: answer.into(),
        latency_ns: 1,
        ..v1::DecisionRecord::default()
    })
}

fn agent(id: &str) -> v1::EntityRef {
    v1::EntityRef { r#type: "Agent".to_owned(), id: id.to_owned() }
}

/// Sequence numbers that a stream with this filter gives, of six records of every sort.
async fn matching(filter: v1::RecordFilter) -> Vec<u64> {
    use v1::Decision::{Allow, Deny};
    let dir = tempdir().unwrap();
    let audit = Arc::new(open(&config(dir.path(), 32, WhenFull::Deny)));
    let mut session = numbered(1);
    if let Entry::Session(session) = &mut session {
        session.principal = Some(agent("a"));
    }
    let bundle = v1::BundleRecord { change: "activated".to_owned(), ..v1::BundleRecord::default() };
    for body in [
        decision(Allow, "a", "read", "grpc"),
        decision(Deny, "a", "write", "grpc"),
        decision(Deny, "b", "read", "ext_authz"),
        session,
        numbered(2),
        Entry::Bundle(bundle),
    ] {
        audit.reserve().unwrap().fill_entry(2_000, body);
    }
    let service = AuditStreams::new(Arc::clone(&audit), Shutdown::new());
    let request = v1::StreamRecordsRequest { from_sequence: 1, filter: Some(filter), from_time: None };
    let stream = service.stream(Request::new(request)).await.unwrap().into_inner();
    audit.close().unwrap();
    stream
        .map(|message| message.unwrap().records)
        .collect::<Vec<_>>()
        .await
        .concat()
        .into_iter()
        .map(|record| record.sequence)
        .collect()
}

#[tokio::test]
async fn a_filter_passes_what_matches_every_field_that_is_set() {
    let any = v1::RecordFilter::default();
    let deny = vec![v1::Decision::Deny.into()];
    assert_eq!(matching(any.clone()).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(matching(v1::RecordFilter { decisions: deny.clone(), ..any.clone() }).await, [2, 3]);
    assert_eq!(matching(v1::RecordFilter { principal: Some(agent("a")), ..any.clone() }).await, [1, 2, 4]);
    assert_eq!(matching(v1::RecordFilter { action: "read".into(), ..any.clone() }).await, [1, 3]);
    assert_eq!(matching(v1::RecordFilter { door: "grpc".into(), ..any.clone() }).await, [1, 2]);
    let kinds = vec![v1::RecordKind::Session.into(), v1::RecordKind::Bundle.into()];
    assert_eq!(matching(v1::RecordFilter { kinds: kinds.clone(), ..any.clone() }).await, [4, 5, 6]);
    let both = v1::RecordFilter { decisions: deny, door: "grpc".into(), ..any.clone() };
    assert_eq!(matching(both).await, [2]);
    let never = v1::RecordFilter { kinds, door: "grpc".into(), ..any };
    assert_eq!(matching(never).await, [0_u64; 0]);
}

#[tokio::test]
async fn the_stream_sends_past_and_new_records_as_the_wire_has_them() {
    let dir = tempdir().unwrap();
    let audit = Arc::new(open(&config(dir.path(), 32, WhenFull::Deny)));
    put(&audit, 10);
    let service = AuditStreams::new(Arc::clone(&audit), Shutdown::new());
    let request = v1::StreamRecordsRequest { from_sequence: 1, filter: None, from_time: None };
    let mut stream = service.stream(Request::new(request)).await.unwrap().into_inner();
    for (sequence, number) in [(1, "10"), (2, "20")] {
        let message = stream.next().await.unwrap().unwrap();
        let [record] = message.records.as_slice() else { panic!("{message:?}") };
        assert_eq!((record.sequence, record.time.unwrap().seconds), (sequence, 2));
        assert!(matches!(&record.entry, Some(Entry::Session(session)) if session.session_id == number));
        put(&audit, 20);
    }
}

#[tokio::test]
async fn the_stream_refuses_what_it_cannot_serve_with_a_fitting_status() {
    let dir = tempdir().unwrap();
    let audit = Arc::new(open(&config(dir.path(), 32, WhenFull::Deny)));
    let service = AuditStreams::new(audit, Shutdown::new());
    let ask = |filter| {
        Request::new(v1::StreamRecordsRequest { from_sequence: 0, filter: Some(filter), from_time: None })
    };
    for bad in [
        v1::RecordFilter { decisions: vec![0], ..Default::default() },
        v1::RecordFilter { decisions: vec![99], ..Default::default() },
        v1::RecordFilter { kinds: vec![99], ..Default::default() },
    ] {
        assert_eq!(service.stream(ask(bad)).await.err().unwrap().code(), Code::InvalidArgument);
    }
    let mut open = Vec::new();
    for _ in 0..STREAMS_MAX {
        open.push(service.stream(ask(v1::RecordFilter::default())).await.unwrap());
    }
    let refused = service.stream(ask(v1::RecordFilter::default())).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    open.pop();
    assert!(service.stream(ask(v1::RecordFilter::default())).await.is_ok());
}

#[tokio::test]
async fn a_stream_from_a_record_that_is_gone_is_out_of_range() {
    let dir = tempdir().unwrap();
    let audit = Arc::new(open(&config(dir.path(), 32, WhenFull::Deny)));
    put_patiently(&audit, 0..200);
    wait_until("all are written", || audit.stats().last_sequence == 200);
    fs::remove_file(dir.path().join("00000000000000000001.log")).unwrap();
    let service = AuditStreams::new(audit, Shutdown::new());
    let request = Request::new(v1::StreamRecordsRequest { from_sequence: 1, filter: None, from_time: None });
    let mut stream = service.stream(request).await.unwrap().into_inner();
    assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::OutOfRange);
    assert!(stream.next().await.is_none(), "an error ends the stream");
}
