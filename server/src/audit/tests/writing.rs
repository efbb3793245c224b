//! The queue, the writer and the segments.

use std::{fs, thread, time::Duration};

use proptest::prelude::*;
use tempfile::tempdir;

use super::*;
use crate::audit::{BadLog, CloseError, Full, Keep, OpenError};

#[test]
fn records_are_numbered_from_one_in_the_order_they_were_filled_and_go_on_after_reopening() {
    let dir = tempdir().unwrap();
    let config = config(dir.path(), 64, WhenFull::Deny);
    for round in 0..3 {
        let audit = open(&config);
        assert_eq!(audit.stats().last_sequence, round * 10);
        (0..10).for_each(|n| put(&audit, n));
        audit.close().unwrap();
        assert_eq!(audit.stats().last_sequence, round * 10 + 10);
    }
    let records = on_disk(dir.path());
    assert_eq!(numbers(&records), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].repeat(3));
    assert!(records.iter().all(|record| record.time.unwrap().seconds == 2));
}

#[test]
fn a_place_dropped_unfilled_is_given_back() {
    let dir = tempdir().unwrap();
    let audit = open(&config(dir.path(), 1, WhenFull::Deny));
    for _ in 0..10 {
        let place = audit.reserve().unwrap();
        assert_eq!(audit.reserve().err(), Some(Full));
        drop(place);
    }
    put(&audit, 7);
    audit.close().unwrap();
    assert_eq!(numbers(&on_disk(dir.path())), [7]);
}

#[test]
fn with_deny_a_full_queue_refuses_and_loses_nothing() {
    let dir = tempdir().unwrap();
    let (audit, gate) = open_gated(&config(dir.path(), 8, WhenFull::Deny), Mode::Holds(0));
    (0..8).for_each(|n| put(&audit, n));
    assert_eq!(audit.reserve().err(), Some(Full));
    assert_eq!(audit.admit().err(), Some(Full));
    assert_eq!((audit.stats().queued, audit.stats().queue_max, audit.stats().lost), (8, 8, 0));

    gate.set(Mode::Works);
    wait_until("there is room again", || audit.stats().queued == 0);
    audit.admit().unwrap().unwrap().fill_entry(2_000, numbered(8));
    audit.close().unwrap();
    let records = on_disk(dir.path());
    assert_eq!((numbers(&records), lost(&records)), ((0..9).collect(), 0));
}

#[test]
fn with_count_gap_a_full_queue_admits_and_the_exact_count_stands_in_its_place() {
    let dir = tempdir().unwrap();
    let (audit, gate) = open_gated(&config(dir.path(), 8, WhenFull::CountGap), Mode::Holds(0));
    (0..8).for_each(|n| put(&audit, n));
    for _ in 0..3 {
        assert!(audit.admit().unwrap().is_none());
    }
    assert!(!audit.record(0, numbered(99)));
    gate.set(Mode::Works);
    wait_until("there is room again", || audit.stats().queued == 0);
    (8..10).for_each(|n| put(&audit, n));
    audit.close().unwrap();

    let records = on_disk(dir.path());
    assert_eq!(numbers(&records), (0..10).collect::<Vec<_>>());
    let gap = gap_of(&records[8]).unwrap();
    assert_eq!((gap.lost, gap.cause()), (4, v1::gap_record::Cause::QueueFull));
    assert_eq!((gap.lost_decisions, gap.lost_changes), (3, 1));
    assert_eq!((records[8].time.unwrap().seconds, audit.stats().lost), (1, 4));
}

#[test]
fn a_gap_lies_between_what_was_queued_before_the_loss_and_what_came_after_in_spite_of_batches() {
    let dir = tempdir().unwrap();
    let (audit, gate) = open_gated(&config(dir.path(), 200, WhenFull::CountGap), Mode::Holds(0));
    (0..200).for_each(|n| put(&audit, n));
    for _ in 0..5 {
        assert!(audit.admit().unwrap().is_none());
    }
    // One batch goes out (4 KiB are about 40 of these); newcomers take its places while the rest still waits.
    gate.set(Mode::Holds(2));
    wait_until("the first batch is out", || audit.stats().queued < 200);
    let mut next = 200;
    while let Ok(place) = audit.reserve() {
        place.fill_entry(2_000, numbered(next));
        next += 1;
    }
    assert!(next > 200);
    gate.set(Mode::Works);
    audit.close().unwrap();

    let records = on_disk(dir.path());
    assert_eq!(numbers(&records), (0..next).collect::<Vec<_>>());
    assert_eq!(gap_of(&records[200]).unwrap().lost, 5);
}

#[test]
fn a_full_disk_shows_as_a_fault_fills_the_queue_and_recovers_by_itself() {
    let dir = tempdir().unwrap();
    let (audit, gate) = open_gated(&config(dir.path(), 8, WhenFull::Deny), Mode::Fails);
    (0..8).for_each(|n| put(&audit, n));
    wait_until("the fault shows", || audit.fault().is_some());
    assert_eq!(audit.reserve().err(), Some(Full));
    assert_eq!(audit.stats().last_sequence, 0);
    gate.set(Mode::Works);
    wait_until("it has recovered", || audit.fault().is_none() && audit.stats().last_sequence == 8);
    put(&audit, 8);
    audit.close().unwrap();
    assert_eq!(numbers(&on_disk(dir.path())), (0..9).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_durable_record_is_acknowledged_only_once_it_is_on_the_disk_and_several_share_a_sync() {
    let dir = tempdir().unwrap();
    let slow = AuditConfig { sync_interval: Duration::from_secs(1), ..config(dir.path(), 8, WhenFull::Deny) };
    let (audit, gate) = open_gated(&slow, Mode::Holds(0));
    let durable = |n| audit.reserve().unwrap().fill_durable(2_000, Box::new(numbered(n)));
    assert!(!durable(0).wait(Duration::from_millis(50)).await, "the disk is held up");
    let (one, other) = (durable(1), durable(2));
    gate.set(Mode::Works);
    assert!(one.wait(Duration::from_secs(10)).await && other.wait(Duration::from_secs(10)).await);
    assert_eq!(numbers(&on_disk(dir.path())), [0, 1, 2]);
    assert_eq!(audit.stats().last_sequence, 3);
    gate.set(Mode::Fails);
    let never = durable(3);
    let closed = thread::scope(|scope| scope.spawn(|| audit.close()).join().unwrap());
    assert!(
        closed.is_err() && !never.wait(Duration::from_secs(10)).await,
        "what is not written is not acknowledged"
    );
}

#[test]
fn close_gives_up_on_a_disk_that_goes_on_refusing_and_says_how_many() {
    let dir = tempdir().unwrap();
    let (audit, _gate) = open_gated(&config(dir.path(), 8, WhenFull::Deny), Mode::Fails);
    (0..5).for_each(|n| put(&audit, n));
    assert!(matches!(audit.close(), Err(CloseError::Unwritten { records: 5, .. })));
    assert_eq!(audit.reserve().err(), Some(Full));
}

#[test]
fn a_directory_that_was_removed_shows_as_a_fault_and_nothing_is_written_elsewhere() {
    let dir = tempdir().unwrap();
    let inner = dir.path().join("audit");
    let audit = open(&config(&inner, 8, WhenFull::Deny));
    put(&audit, 0);
    wait_until("the first is written", || audit.stats().last_sequence == 1);
    // Aside first: the writer may just be making a file in it.
    let aside = dir.path().join("aside");
    fs::rename(&inner, &aside).unwrap();
    fs::remove_dir_all(&aside).unwrap();
    put(&audit, 1);
    wait_until("the fault shows", || audit.fault().is_some());
    assert_eq!(audit.stats().last_sequence, 1);
    assert!(audit.close().is_err(), "what is lost is told");
}

#[test]
fn segments_end_at_a_tile_beyond_their_size_and_are_packed_once_they_are_closed() {
    let dir = tempdir().unwrap();
    let audit = open(&config(dir.path(), 1_024, WhenFull::Deny));
    (0..1_000).for_each(|n| put(&audit, n));
    let packed = || dir.path().join("00000000000000000001.log.zst").exists();
    wait_until("the first segment is packed", packed);
    audit.close().unwrap();
    assert_eq!(on_disk(dir.path()).len(), 1_000);
    assert_eq!(segments(dir.path()), [1, 257, 513, 769]);
}

#[test]
fn old_segments_go_once_a_record_says_so_and_what_is_left_is_still_what_was_signed() {
    let dir = tempdir().unwrap();
    let keep = Keep { bytes: Some(6_000), age: None };
    let config = AuditConfig { keep, ..config(dir.path(), 4_096, WhenFull::Deny) };
    let audit = open(&config);
    for round in 0..8 {
        (0..400).for_each(|n| put(&audit, round * 400 + n));
        wait_until("it is written", || audit.stats().queued == 0);
    }
    wait_until("segments went", || segments(dir.path()).first() > Some(&1));
    audit.close().unwrap();
    let records: Vec<v1::Record> =
        Stored::open(&[dir.path().to_owned()]).unwrap().map(Result::unwrap).collect();
    let first = records[0].sequence;
    assert!(first % 256 == 1 && first > 256, "{first}");
    let said = records.iter().filter_map(|record| match record.entry {
        Some(Entry::Retention(retention)) => Some(retention.kept_from),
        _ => None,
    });
    assert_eq!(said.max(), Some(first), "the newest of them says what is gone");
    let verified = crate::audit::verify(dir.path(), &[audit.verifier().clone()]).unwrap();
    assert_eq!((verified.findings, verified.first), (Vec::new(), first));
    open(&config).close().unwrap();
}

#[test]
fn one_directory_serves_one_process() {
    let dir = tempdir().unwrap();
    let config = config(dir.path(), 8, WhenFull::Deny);
    let audit = open(&config);
    let refused = Audit::open(&config, clock()).err().unwrap();
    assert!(matches!(&refused, OpenError::Log(BadLog::InUse(held)) if held == dir.path()), "{refused}");
    drop(audit);
    open(&config).close().unwrap();
}

#[test]
fn close_writes_what_is_filled_while_it_waits() {
    let dir = tempdir().unwrap();
    let audit = open(&config(dir.path(), 8, WhenFull::Deny));
    thread::scope(|scope| {
        let place = audit.reserve().unwrap();
        let closing = scope.spawn(|| audit.close());
        wait_until("no more is taken", || audit.reserve().is_err());
        thread::sleep(Duration::from_millis(20));
        place.fill_entry(2_000, numbered(3));
        closing.join().unwrap().unwrap();
    });
    assert_eq!(numbers(&on_disk(dir.path())), [3]);
}

#[test]
fn a_place_held_beyond_the_close_is_reported_and_its_record_counted_as_lost() {
    let dir = tempdir().unwrap();
    let audit = open(&config(dir.path(), 8, WhenFull::CountGap));
    put(&audit, 0);
    let place = audit.reserve().unwrap();
    assert!(matches!(audit.close(), Err(CloseError::Unwritten { records: 1, .. })));
    assert!(audit.admit().is_err(), "a closed audit can record no gap");
    place.fill_entry(2_000, numbered(1));
    assert_eq!((audit.stats().lost, audit.stats().queued), (1, 0));
    assert_eq!(numbers(&on_disk(dir.path())), [0]);
}

#[test]
fn settings_out_of_range_are_refused() {
    let dir = tempdir().unwrap();
    let good = config(dir.path(), 8, WhenFull::Deny);
    for bad in [
        AuditConfig { queue_max: 0, ..good.clone() },
        AuditConfig { segment_bytes_max: 10, ..good.clone() },
        AuditConfig { flush_interval: Duration::ZERO, ..good },
    ] {
        assert!(matches!(Audit::open(&bad, clock()), Err(OpenError::Config { .. })), "{bad:?}");
    }
}

#[test]
fn many_threads_lose_nothing_and_keep_each_their_order() {
    const THREADS: usize = 4;
    const EACH: usize = 3_000;
    let dir = tempdir().unwrap();
    let mut config = config(dir.path(), 16, WhenFull::CountGap);
    config.segment_bytes_max = 64 * 1024;
    let audit = open(&config);
    thread::scope(|scope| {
        for first in (0..THREADS).map(|thread| thread * EACH) {
            let audit = &audit;
            scope.spawn(move || {
                for n in first..first + EACH {
                    if let Some(place) = audit.admit().unwrap() {
                        place.fill_entry(2_000, numbered(n));
                    }
                }
            });
        }
    });
    audit.close().unwrap();
    let records = on_disk(dir.path());
    let numbers = numbers(&records);
    assert_eq!(numbers.len() as u64 + lost(&records), (THREADS * EACH) as u64);
    for thread in 0..THREADS {
        let of_one: Vec<_> = numbers.iter().filter(|&&n| n / EACH == thread).collect();
        assert!(of_one.is_sorted());
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Admit,
    Fill(usize),
    Drop(usize),
    Pause,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Admit),
        6 => (0_usize..8).prop_map(Step::Fill),
        2 => (0_usize..8).prop_map(Step::Drop),
        1 => Just(Step::Pause),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_steps_leaves_a_whole_sequence_on_disk(
        steps in prop::collection::vec(step(), 1..120),
        queue_max in 1_usize..6,
    ) {
        let dir = tempdir().unwrap();
        let config = config(dir.path(), queue_max, WhenFull::CountGap);
        let (mut filled, mut skipped, mut left) = (0, 0, steps.into_iter().peekable());
        while left.peek().is_some() {
            let audit = open(&config);
            let mut places = Vec::new();
            for step in left.by_ref() {
                match step {
                    Step::Admit => match audit.admit().unwrap() {
                        Some(place) => places.push(place),
                        None => skipped += 1,
                    },
                    Step::Fill(at) if at < places.len() => {
                        places.swap_remove(at).fill_entry(2_000, numbered(filled));
                        filled += 1;
                    }
                    Step::Drop(at) if at < places.len() => drop(places.swap_remove(at)),
                    Step::Fill(_) | Step::Drop(_) => {}
                    Step::Pause => thread::sleep(Duration::from_millis(3)),
                    Step::Reopen => break,
                }
            }
            drop(places);
            audit.close().unwrap();
        }
        let records = on_disk(dir.path());
        prop_assert_eq!(numbers(&records), (0..filled).collect::<Vec<_>>());
        prop_assert_eq!(lost(&records), skipped);
    }
}
