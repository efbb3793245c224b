//! Streams and outboxes against a small model, with a real ledger that is closed and opened again in between.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::outbox::Kind;
use super::super::request::Wanted;
use super::super::store::Store;
use super::super::streams::Streams;
use super::super::subject::Subject;
use super::*;
use crate::ledger::Table;
use crate::ssf::event::StreamStatus;

const ITEMS: usize = 5;
const AGE_MS: i64 = 1000;
const IDS: [&str; 2] = ["00000000000000000000000000000000", "11111111111111111111111111111111"];

#[derive(Clone, Debug)]
enum Step {
    Publish { user: u8 },
    Poll { stream: usize, most: usize },
    Acknowledge { stream: usize, pick: Vec<bool> },
    Status { stream: usize, status: StreamStatus },
    LeaveOut { stream: usize, user: u8 },
    TakeIn { stream: usize, user: u8 },
    Wait { ms: i64 },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let stream = 0..2_usize;
    let status = prop_oneof![
        3 => Just(StreamStatus::Enabled), 1 => Just(StreamStatus::Paused), 1 => Just(StreamStatus::Disabled)
    ];
    prop_oneof![
        10 => (0..3_u8).prop_map(|user| Step::Publish { user }),
        5 => (stream.clone(), 0..8_usize).prop_map(|(stream, most)| Step::Poll { stream, most }),
        5 => (stream.clone(), prop::collection::vec(any::<bool>(), 8))
            .prop_map(|(stream, pick)| Step::Acknowledge { stream, pick }),
        2 => (stream.clone(), status).prop_map(|(stream, status)| Step::Status { stream, status }),
        1 => (stream.clone(), 0..3_u8).prop_map(|(stream, user)| Step::LeaveOut { stream, user }),
        1 => (stream, 0..3_u8).prop_map(|(stream, user)| Step::TakeIn { stream, user }),
        2 => (1..400_i64).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Restart),
    ]
}

/// What a receiver may expect of its stream.
#[derive(Debug, Default)]
struct Model {
    /// Names of the events, with their times, oldest first.
    events: Vec<(SmolStr, i64)>,
    /// Events that are missing and of which the receiver did not acknowledge that it knows.
    lost: u64,
    /// All that it saw, the newest poll last.
    seen: Vec<SmolStr>,
    out: BTreeSet<u8>,
    status: Option<StreamStatus>,
}

impl Model {
    fn status(&self) -> StreamStatus {
        self.status.unwrap_or(StreamStatus::Enabled)
    }

    fn push(&mut self, jti: SmolStr, now: i64) {
        while self.events.len() + usize::from(self.lost > 0) >= ITEMS && !self.events.is_empty() {
            self.events.remove(0);
            self.lost += 1;
        }
        self.events.push((jti, now));
    }

    fn expire(&mut self, now: i64) {
        while self.events.first().is_some_and(|(_, at)| at + AGE_MS < now) {
            self.events.remove(0);
            self.lost += 1;
        }
    }
}

fn user(n: u8) -> Subject {
    Subject::read(&json!({ "format": "opaque", "id": n.to_string() })).unwrap()
}

fn fresh() -> Streams {
    Streams::new(Bounds { items: ITEMS, bytes: 1 << 20, age_ms: AGE_MS }, 0)
}

fn notice(_: &Stream, lost: u64) -> streams::Claims {
    (claims::unique(), format!("lost {lost}").into())
}

struct Bench {
    dir: TempDir,
    streams: Streams,
    open: Option<(Ledger, crate::ledger::Writer)>,
}

impl Bench {
    fn new() -> Self {
        let dir = temp();
        let open = Some(Ledger::open(dir.path()).unwrap());
        let mut bench = Self { dir, streams: fresh(), open };
        for id in IDS {
            let rows = bench.streams.create(id, id.into(), Wanted::default()).unwrap();
            bench.keep(&rows);
        }
        bench
    }

    fn keep(&self, rows: &[streams::Row]) {
        let (ledger, _) = self.open.as_ref().unwrap();
        Store::new(ledger.clone()).write(&self.streams, rows).unwrap();
    }

    fn restart(&mut self) {
        let (ledger, writer) = self.open.take().unwrap();
        ledger.close();
        writer.run().unwrap();
        drop(ledger);
        let opened = Ledger::open(self.dir.path()).unwrap();
        self.streams = fresh();
        Store::new(opened.0.clone()).load(&mut self.streams).unwrap();
        self.open = Some(opened);
    }
}

fn play(bench: &mut Bench, models: &mut [Model; 2], now: &mut i64, step: Step) -> Result<(), TestCaseError> {
    match step {
        Step::Publish { user: n } => {
            for (id, model) in IDS.iter().zip(models) {
                let jti = claims::unique();
                let made = (jti.clone(), Arc::from("{}"));
                let before = model.lost;
                let done = bench.streams.publish(id, &user(n), |_| made, *now, &mut notice);
                if model.status() != StreamStatus::Disabled && !model.out.contains(&n) {
                    model.push(jti, *now);
                }
                let dropped = done.dropped.values().sum::<u64>();
                prop_assert_eq!(dropped, model.lost - before, "every drop is counted");
                bench.keep(&done.rows);
            }
        }
        Step::Poll { stream, most } => poll(bench, &mut models[stream], IDS[stream], most)?,
        Step::Acknowledge { stream, pick } => {
            let (id, model) = (IDS[stream], &mut models[stream]);
            let acknowledged: BTreeSet<SmolStr> =
                model.seen.iter().zip(pick).filter(|(_, pick)| *pick).map(|(jti, _)| jti.clone()).collect();
            let jtis: BTreeSet<&str> = acknowledged.iter().map(SmolStr::as_str).collect();
            let (gone, rows) = bench.streams.acknowledge(id, &jtis);
            model.events.retain(|(jti, _)| !acknowledged.contains(jti));
            if gone.iter().any(|item| item.kind == Kind::Notice { lost: model.lost }) {
                model.lost = 0;
            }
            bench.keep(&rows);
        }
        Step::Status { stream, status } => {
            let (id, model) = (IDS[stream], &mut models[stream]);
            let rows = bench.streams.set_status(id, id, status, None).unwrap();
            model.status = Some(status);
            if status == StreamStatus::Disabled {
                (model.events, model.lost) = (Vec::new(), 0);
            }
            bench.keep(&rows);
        }
        Step::LeaveOut { stream, user: n } => {
            let rows = bench.streams.leave_out(IDS[stream], IDS[stream], user(n)).unwrap();
            models[stream].out.insert(n);
            bench.keep(&rows);
        }
        Step::TakeIn { stream, user: n } => {
            let rows = bench.streams.take_in(IDS[stream], IDS[stream], user(n)).unwrap();
            models[stream].out.remove(&n);
            bench.keep(&rows);
        }
        Step::Wait { ms } => {
            *now += ms;
            let done = bench.streams.expire(*now, &mut notice);
            models.iter_mut().for_each(|model| model.expire(*now));
            bench.keep(&done.rows);
        }
        Step::Restart => bench.restart(),
    }
    Ok(())
}

fn poll(bench: &mut Bench, model: &mut Model, id: &str, most: usize) -> Result<(), TestCaseError> {
    let items = bench.streams.hand_out(id, most);
    let mut expected: Vec<SmolStr> = Vec::new();
    if model.status() == StreamStatus::Enabled {
        expected = model.events.iter().map(|(jti, _)| jti.clone()).collect();
        let notices: Vec<_> = items.iter().filter(|item| item.kind != Kind::Event).collect();
        if model.lost > 0 && most > 0 {
            prop_assert_eq!(notices.len(), 1);
            prop_assert_eq!(notices[0].kind, Kind::Notice { lost: model.lost });
            expected.insert(0, notices[0].jti.clone());
        } else {
            prop_assert!(notices.is_empty());
        }
        expected.truncate(most);
    }
    let got: Vec<SmolStr> = items.iter().map(|item| item.jti.clone()).collect();
    prop_assert_eq!(&got, &expected, "the oldest first, none missing");
    model.seen = got;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn streams_do_what_the_model_does_also_across_restarts(steps in prop::collection::vec(step(), 1..80)) {
        let (mut bench, mut models, mut now) = (Bench::new(), [Model::default(), Model::default()], START_MS);
        for step in steps {
            play(&mut bench, &mut models, &mut now, step)?;
            for (id, model) in IDS.iter().zip(&models) {
                let stream = bench.streams.by_id(id).unwrap();
                prop_assert_eq!(stream.outbox.len(), model.events.len() + usize::from(model.lost > 0));
                prop_assert!(stream.outbox.len() <= ITEMS);
                prop_assert_eq!(stream.status, model.status());
            }
        }
        // Nothing of a stream outlives it.
        for id in IDS {
            let rows = bench.streams.delete(id, id).unwrap();
            bench.keep(&rows);
        }
        bench.restart();
        let (ledger, _) = bench.open.as_ref().unwrap();
        for table in [Table::Streams, Table::Outbox] {
            prop_assert_eq!(ledger.len(table).unwrap(), 0);
        }
    }
}

#[test]
fn what_a_stream_left_on_disk_keeps_nobody_from_starting() {
    let mut bench = Bench::new();
    let [gone, stays] = [IDS[0], IDS[1]];
    let done = bench.streams.publish(gone, &user(0), |_| (claims::unique(), "{}".into()), 0, &mut notice);
    bench.keep(&done.rows);
    let rows = bench.streams.leave_out(gone, gone, user(1)).unwrap();
    bench.keep(&rows);
    // The disk takes nothing while these are heard, and takes the end of the stream again.
    let jtis: Vec<SmolStr> = bench.streams.hand_out(gone, 9).into_iter().map(|item| item.jti).collect();
    let _not_kept = bench.streams.acknowledge(gone, &jtis.iter().map(SmolStr::as_str).collect());
    let _not_kept = bench.streams.take_in(gone, gone, user(1)).unwrap();
    let rows = bench.streams.delete(gone, gone).unwrap();
    bench.keep(&rows);
    bench.restart();
    assert!(bench.streams.by_id(gone).is_none() && bench.streams.by_id(stays).is_some());
    bench.restart();
    let (ledger, _) = bench.open.as_ref().unwrap();
    let mut left = Vec::new();
    for table in [Table::Streams, Table::Outbox] {
        ledger
            .scan(table, &[], &mut |key, _| {
                left.push(key.to_vec());
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
    }
    assert_eq!(left, [stays.as_bytes()], "and is cleared away");
}
