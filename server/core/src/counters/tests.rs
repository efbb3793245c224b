//! The window against a log that forgets nothing; then what policies read.

use std::collections::BTreeMap;

use cardea_policy_store::load;
use proptest::prelude::*;

use super::*;
use crate::attempt::{Attempt, Parts};
use crate::decide::{Question, decide};
use crate::time::Now;

#[test]
fn a_count_is_let_go_after_its_window_and_at_most_a_part_later() {
    let mut window = Window::new(1600, 1_000_000);
    window.take(0);
    for (at_ms, counts) in [(1_000_000, 1), (1_001_600, 1), (1_001_699, 1), (1_001_700, 0)] {
        window.advance(at_ms);
        assert_eq!(window.count(), counts, "{at_ms}");
    }
    assert!(window.is_over());
}

#[test]
fn a_reserved_place_counts_until_a_window_after_its_end_unless_it_is_settled_or_given_back() {
    let reserved = || {
        let mut window = Window::new(1600, 0);
        let part = window.take(1600);
        (window, part)
    };
    let (mut forgotten, _) = reserved();
    forgotten.advance(3200);
    assert_eq!(forgotten.count(), 1, "nobody said that it was not done");
    forgotten.advance(3300);
    assert_eq!(forgotten.count(), 0);
    let (mut settled, part) = reserved();
    settled.advance(100);
    settled.settle(part);
    settled.advance(1700);
    assert_eq!(settled.count(), 1);
    settled.advance(1800);
    assert_eq!(settled.count(), 0);
    let (mut released, part) = reserved();
    released.give_back(part);
    released.give_back(part);
    assert_eq!(released.count(), 0);
}

#[test]
fn a_reading_of_the_clock_that_is_older_changes_nothing() {
    let mut window = Window::new(1600, 10_000);
    window.take(0);
    window.advance(20_000);
    window.take(0);
    window.advance(10_000);
    assert_eq!(window.count(), 1);
    window.advance(u64::MAX / 4);
    assert!(window.is_over());
}

/// What may happen.
#[derive(Clone, Debug)]
enum Happening {
    Passes(u64),
    Takes {
        reserve_ms: u64,
    },
    /// The oldest reservation that is open.
    Settles,
    GivesBack,
    /// Written down and read back.
    Restarts,
}

fn happening(window_ms: u64) -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (0..window_ms / 2).prop_map(Happening::Passes),
        1 => (0..window_ms * 3).prop_map(Happening::Passes),
        4 => Just(Happening::Takes { reserve_ms: 0 }),
        3 => (1..=window_ms).prop_map(|reserve_ms| Happening::Takes { reserve_ms }),
        2 => Just(Happening::Settles),
        2 => Just(Happening::GivesBack),
        1 => Just(Happening::Restarts),
    ]
}

fn happenings() -> impl Strategy<Value = (u64, Vec<Happening>)> {
    (1_u64..100_000)
        .prop_flat_map(|window_ms| (Just(window_ms), prop::collection::vec(happening(window_ms), 1..80)))
}

proptest! {
    #[test]
    fn it_never_counts_fewer_than_an_exact_log_and_more_by_a_part_at_most((window_ms, all) in happenings()) {
        let mut at_ms = 1_700_000_000_123;
        let mut window = Window::new(window_ms, at_ms);
        let part_ms = window_ms.div_ceil(PARTS);
        // When each counts as happened: the end of its reservation if nobody says otherwise.
        let mut log: Vec<u64> = Vec::new();
        let mut open: Vec<(Part, u64)> = Vec::new();
        for one in all {
            match one {
                Happening::Passes(ms) => at_ms += ms,
                Happening::Takes { reserve_ms: 0 } => {
                    window.advance(at_ms);
                    window.take(at_ms);
                    log.push(at_ms);
                }
                Happening::Takes { reserve_ms } => {
                    window.advance(at_ms);
                    open.push((window.take(at_ms + reserve_ms), at_ms + reserve_ms));
                }
                Happening::Settles | Happening::GivesBack => {
                    let Some(at) = open.iter().position(|(_, until_ms)| *until_ms > at_ms) else { continue };
                    let (part, _) = open.remove(at);
                    window.advance(at_ms);
                    if matches!(one, Happening::Settles) {
                        window.settle(part);
                        log.push(at_ms);
                    } else {
                        window.give_back(part);
                    }
                }
                Happening::Restarts => {
                    window.advance(at_ms);
                    let parts: Vec<_> = window.parts().collect();
                    let mut read = Window::new(window_ms, at_ms);
                    parts.into_iter().for_each(|(part, count)| read.restore(part, count));
                    prop_assert_eq!(&read, &window);
                }
            }
            window.advance(at_ms);
            let happened = |after_ms: u64| {
                let all = log.iter().chain(open.iter().map(|(_, until_ms)| until_ms));
                u64::try_from(all.filter(|happened| **happened > after_ms).count()).unwrap()
            };
            let (least, most) = (happened(at_ms - window_ms), happened(at_ms - PARTS * part_ms - part_ms));
            prop_assert!((least..=most).contains(&window.count()), "{} in {least}..={most}", window.count());
        }
    }
}

const NOW: Now = Now { mono_ns: 0, wall_ms: 1_000_000_000 };

fn snapshot(condition: &str) -> Snapshot {
    let files: BTreeMap<std::path::PathBuf, Vec<u8>> = [
        (
            "bundle.toml",
            "name = \"t\"\n[lease]\nmax_ms = 250\n[counters.mails]\nactions = [\"send\"]\nper = \"session\"\nwindow_s = 3600\n\
             [counters.other]\nactions = [\"send\"]\nper = \"identity\"\non = \"attempt\"\nwindow_s = 60\n"
                .to_owned(),
        ),
        (
            "schema.cedarschema",
            "entity A, T; action send, read, plain appliesTo { principal: A, resource: T,
               context: { counters: { mails: Cardea::Counter, other: Cardea::Counter } } };"
                .to_owned(),
        ),
        (
            "policies/p.cedar",
            format!(
                "@id(\"all\") permit(principal, action, resource);
                 @id(\"limit\") forbid(principal, action in [Action::\"send\", Action::\"read\"], resource) when {{ {condition} }};"
            ),
        ),
    ]
    .into_iter()
    .map(|(name, text)| (name.into(), text.into_bytes()))
    .collect();
    load::files(&files).unwrap().snapshot
}

fn attempt(snapshot: &Snapshot, action: &str) -> Attempt {
    let parts =
        Parts { principal: ("A", "a"), action: ("", action), resource: ("T", "t"), ..Parts::default() };
    Attempt::new(snapshot, parts).unwrap()
}

fn facts(snapshot: &Snapshot, count: i64, is_warm: bool) -> Facts {
    let definition = snapshot.counters()[0].definition;
    let fact = CounterFact { definition, count, is_warm, warm_ms: NOW.wall_ms, is_taken: true };
    Facts { counters: vec![fact], ..Facts::default() }
}

#[test]
fn policies_read_count_and_warmth_in_whatever_way() {
    for condition in [
        "context.counters.mails.count >= 10 && context.counters.mails.warm",
        "context.counters has mails && context.counters.mails.count >= 10 && context.counters.mails has warm && context.counters.mails.warm",
        "context.counters.mails == { count: 10, warm: true } || (context.counters.mails.count > 10 && context.counters.mails.warm)",
    ] {
        let snapshot = snapshot(condition);
        let attempt = attempt(&snapshot, "read");
        let said = |count, is_warm| {
            decide(&Question::new(&snapshot, &attempt), &facts(&snapshot, count, is_warm), NOW).decision()
        };
        assert_eq!(said(9, true), Decision::Allow, "{condition}");
        assert_eq!(said(10, false), Decision::Allow, "{condition}");
        assert_eq!(said(10, true), Decision::Deny, "{condition}");
        assert_eq!(said(11, true), Decision::Deny, "{condition}");
    }
}

#[test]
fn what_nobody_counted_is_as_much_as_can_be() {
    let snapshot = snapshot("context.counters.mails.count >= 10");
    let attempt = attempt(&snapshot, "read");
    let verdict = decide(&Question::new(&snapshot, &attempt), &Facts::default(), NOW);
    assert_eq!(verdict.decision(), Decision::Deny);
    let counted = verdict.counters()[0];
    assert_eq!(
        counted.why(&snapshot.counters()[0]),
        "there is no session to count for, or no place to count it"
    );
}

#[test]
fn a_verdict_says_what_was_counted_and_since_when() {
    let snapshot = snapshot("context.counters.mails.count >= 10");
    let attempt = attempt(&snapshot, "send");
    let of = |count, is_warm| {
        let verdict = decide(&Question::new(&snapshot, &attempt), &facts(&snapshot, count, is_warm), NOW);
        let counter = &snapshot.counters()[0];
        let told = verdict.counters()[0];
        (
            told.is_evidence,
            told.outcome(counter, verdict.decision()),
            told.why(counter),
            verdict.counters().len(),
        )
    };
    let warm = "12 in 3600 s per session, warm since 1970-01-12T13:46:40Z".to_owned();
    assert_eq!(of(12, true), (true, Outcome::Released, warm, 2));
    let cold = "3 in 3600 s per session, warm at 1970-01-12T13:46:40Z".to_owned();
    assert_eq!(of(3, false), (false, Outcome::Counted, cold, 2), "an allow is settled by its permits");
}

#[test]
fn what_is_counted_or_read_is_never_leased() {
    let snapshot = snapshot("context.counters.mails.count >= 10");
    let lease = |action: &str| {
        let attempt = attempt(&snapshot, action);
        let verdict = decide(&Question::new(&snapshot, &attempt), &facts(&snapshot, 0, true), NOW);
        assert_eq!(verdict.decision(), Decision::Allow);
        verdict.lease().held_lease_ms
    };
    assert_eq!((lease("send"), lease("read"), lease("plain")), (0, 0, 250));
}

#[test]
fn what_becomes_of_a_place_follows_from_the_answer() {
    use Decision::{Allow, Deny, StepUp};
    let all = |on| [Allow, StepUp, Deny].map(|decision| Outcome::of(on, decision));
    assert_eq!(all(On::Attempt), [Outcome::Counted; 3]);
    assert_eq!(all(On::Allow), [Outcome::Counted, Outcome::Released, Outcome::Released]);
    assert_eq!(all(On::Commit), [Outcome::Reserved, Outcome::Released, Outcome::Released]);
}
