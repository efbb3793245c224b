//! Places, for whom they count, what is kept, and who may give one back.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use cardea_core::attempt::Parts;
use cardea_core::decide::decide;
use cardea_core::session::Session;
use cardea_core::verdict::Verdict;
use cardea_policy_store::fragment::Needs;
use cardea_policy_store::load;

use super::*;
use crate::state::{Capacity, State};

const SCHEMA: &str = "entity A, T;
action send, read, look appliesTo { principal: A, resource: T, context: {
  session: Cardea::Session, risk: Cardea::Risk,
  counters: { mails: Cardea::Counter } } };";
const POLICIES: &str = "
@id(\"all\") permit(principal, action, resource);
@id(\"limit\") forbid(principal, action, resource) when { context.counters.mails.count >= 3 };
@id(\"never\") forbid(principal == A::\"barred\", action, resource);";

fn bundle(counter: &str, policies: &str) -> Snapshot {
    let settings = format!("name = \"t\"\n[counters.mails]\nactions = [\"send\"]\n{counter}");
    let files: load::Files =
        [("bundle.toml", settings.as_str()), ("schema.cedarschema", SCHEMA), ("policies/p.cedar", policies)]
            .map(|(name, text)| (PathBuf::from(name), text.as_bytes().to_vec()))
            .into();
    load::files(&files).unwrap().snapshot
}

fn per(per: &str) -> Snapshot {
    bundle(&format!("per = \"{per}\"\nwindow_s = 60"), POLICIES)
}

fn commits() -> Snapshot {
    bundle("per = \"identity\"\non = \"commit\"\nwindow_s = 60\nreserve_s = 10", POLICIES)
}

/// So many milliseconds after the start.
fn at(ms: i64) -> Now {
    Now { mono_ns: u64::try_from(ms).unwrap() * 1_000_000, wall_ms: 1_700_000_000_000 + ms }
}

fn state(counters: usize) -> State {
    State::new(Capacity {
        sessions: 10_000,
        stored_sessions: 10_000,
        subjects: 10,
        revocations: 10,
        tasks: 10,
        reviews: 10,
        counters,
    })
}

struct Asked {
    verdict: Verdict,
    reservation: Option<Reservation>,
}

impl Asked {
    fn count(&self) -> i64 {
        self.verdict.counters()[0].fact.count
    }

    fn is_allowed(&self) -> bool {
        self.verdict.decision() == Decision::Allow
    }

    fn token(&self) -> &str {
        &self.reservation.as_ref().unwrap().token
    }
}

fn parts<'a>(principal: &'a str, action: &'a str) -> Parts<'a> {
    Parts { principal: ("A", principal), action: ("", action), resource: ("T", "t"), ..Parts::default() }
}

/// An attempt as the pipeline makes it.
fn ask(state: &State, snapshot: &Snapshot, parts: Parts<'_>, counting: Counting, now: Now) -> Asked {
    let attempt = Attempt::new(snapshot, parts).unwrap();
    let question = Question::new(snapshot, &attempt);
    let (mut facts, _) = state.gather(&question, Needs::default(), now);
    let taken = state.counters().count(&question, Needs::default(), &mut facts, counting, now);
    let verdict = decide(&question, &facts, now);
    let reservation = state.counters().conclude(taken, verdict.decision(), now);
    Asked { verdict, reservation }
}

fn send(state: &State, snapshot: &Snapshot, principal: &str, now: Now) -> Asked {
    ask(state, snapshot, parts(principal, "send"), Counting::Made, now)
}

#[test]
fn allowed_attempts_count_and_refused_ones_eat_nothing() {
    let (state, snapshot) = (state(1000), per("identity"));
    let counts: Vec<_> = (0..6).map(|ms| send(&state, &snapshot, "a", at(ms)).count()).collect();
    assert_eq!(counts, [0, 1, 2, 3, 3, 3], "the three that were refused are not there");
    assert!(send(&state, &snapshot, "b", at(7)).is_allowed(), "another identity");
    assert!(!send(&state, &snapshot, "a", at(60_000)).is_allowed());
    assert!(send(&state, &snapshot, "a", at(64_000)).is_allowed(), "the window is over");
    assert!(!send(&state, &snapshot, "barred", at(8)).is_allowed());
    assert_eq!(send(&state, &snapshot, "barred", at(9)).count(), 0);
}

#[test]
fn refused_attempts_under_invented_names_take_no_room_from_those_that_count() {
    let policies =
        "permit(principal == A::\"known\", action, resource) when { context.counters.mails.count < 3 };
      permit(principal == A::\"new\", action, resource) when { context.counters.mails.count < 3 };";
    let (state, snapshot) = (state(512), bundle("per = \"identity\"\nwindow_s = 60", policies));
    assert!(send(&state, &snapshot, "known", at(0)).is_allowed());
    for n in 0..5_000 {
        assert!(!send(&state, &snapshot, &format!("invented{n}"), at(1)).is_allowed());
    }
    let usage = state.counters().usage();
    assert_eq!((usage.subjects, usage.refused), (1, 0));
    assert_eq!(send(&state, &snapshot, "known", at(2)).count(), 1);
}

#[test]
fn every_attempt_counts_where_the_bundle_asks_for_it() {
    let (state, snapshot) =
        (state(1000), bundle("per = \"identity\"\non = \"attempt\"\nwindow_s = 60", POLICIES));
    let counts: Vec<_> = (0..5).map(|ms| send(&state, &snapshot, "a", at(ms)).count()).collect();
    assert_eq!(counts, [0, 1, 2, 3, 4]);
}

#[test]
fn what_is_not_counted_only_reads_and_judging_again_does_not_hold_an_attempt_against_itself() {
    let (state, snapshot) = (state(1000), per("identity"));
    for ms in 0..3 {
        assert!(send(&state, &snapshot, "a", at(ms)).is_allowed());
    }
    let look = |action, counting| ask(&state, &snapshot, parts("a", action), counting, at(5));
    for _ in 0..5 {
        assert_eq!(look("read", Counting::Made).count(), 3);
        assert_eq!(look("read", Counting::Again).count(), 3);
        assert!(look("send", Counting::Again).is_allowed(), "the third is one of those that are counted");
    }
    assert_eq!(look("send", Counting::Made).count(), 3);
    let other = ask(&state, &snapshot, parts("z", "send"), Counting::Again, at(5));
    assert_eq!((other.count(), state.counters().usage().subjects), (0, 1), "looking makes no entry");
}

#[test]
fn of_many_at_the_same_time_exactly_the_limit_is_allowed() {
    let snapshot = bundle("per = \"root\"\nwindow_s = 60", POLICIES);
    for round in 0..20 {
        let state = state(1000);
        let allowed = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8_u32 {
                let (state, snapshot, allowed) = (&state, &snapshot, &allowed);
                scope.spawn(move || {
                    for ms in 0..50 {
                        // Clocks of threads are read before the lock, in no order.
                        let now = at(i64::from((thread * 7 + ms) % 11));
                        if send(state, snapshot, "a", now).is_allowed() {
                            allowed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(allowed.load(Ordering::Relaxed), 3, "round {round}");
        assert_eq!(send(&state, &snapshot, "a", at(20)).count(), 3, "nothing of the refused is left");
    }
}

#[test]
fn parallel_releases_give_back_exactly_what_was_reserved() {
    let (state, snapshot) = (
        state(1000),
        bundle(
            "per = \"identity\"\non = \"commit\"\nwindow_s = 60\nreserve_s = 10",
            "permit(principal, action, resource) when { context.counters.mails.count < 1000000 };",
        ),
    );
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (state, snapshot) = (&state, &snapshot);
            scope.spawn(move || {
                for turn in 0..100_i64 {
                    let asked = send(state, snapshot, "a", at(turn));
                    state.counters().settle(asked.token(), (turn + thread) % 2 == 0, at(turn)).unwrap();
                }
            });
        }
    });
    assert_eq!(send(&state, &snapshot, "a", at(200)).count(), 400);
}

#[test]
fn a_reservation_counts_until_it_is_released_and_for_good_once_its_time_is_over() {
    let (state, snapshot) = (state(1000), commits());
    let [first, second, third] = [0, 1, 2].map(|ms| send(&state, &snapshot, "a", at(ms)));
    assert_eq!(third.reservation.as_ref().unwrap().settle_ms, 10_000);
    let refused = send(&state, &snapshot, "a", at(3));
    assert!(!refused.is_allowed() && refused.reservation.is_none(), "what is reserved counts");
    let settle = |asked: &Asked, is_done, ms| state.counters().settle(asked.token(), is_done, at(ms));
    assert_eq!(settle(&first, false, 4), Ok(()));
    assert_eq!(settle(&first, false, 5), Ok(()), "said again");
    assert_eq!(settle(&first, true, 5), Err(NotSettled::Otherwise));
    assert_eq!(send(&state, &snapshot, "a", at(6)).count(), 2, "one place came back, once");
    assert_eq!(settle(&second, true, 7), Ok(()));
    assert_eq!(settle(&second, false, 8), Err(NotSettled::Otherwise), "what was done stays counted");
    assert_eq!(settle(&third, false, 10_002), Err(NotSettled::Unknown), "its time is over");
    assert_eq!(send(&state, &snapshot, "a", at(10_003)).count(), 3);
    let usage = state.counters().usage();
    assert_eq!((usage.committed, usage.released), (1, 1));
    state.counters().sweep(at(90_000));
    assert_eq!((state.counters().usage().subjects, state.counters().usage().reservations), (0, 0));
}

#[test]
fn nobody_settles_what_he_was_not_told_the_token_of() {
    let (state, snapshot) = (state(1000), commits());
    let asked = send(&state, &snapshot, "victim", at(0));
    let token = asked.token();
    let upper = token.to_uppercase();
    let near = format!("{:032x}", u128::from_str_radix(token, 16).unwrap() ^ 1);
    for guess in
        ["", "0", &near, &format!("0{token}"), &format!(" {token}"), &token.replacen(|_: char| true, "+", 1)]
    {
        assert_eq!(state.counters().settle(guess, false, at(1)), Err(NotSettled::Unknown), "{guess}");
    }
    if upper != token {
        assert_eq!(state.counters().settle(&upper, false, at(1)), Err(NotSettled::Unknown));
    }
    assert_eq!(send(&state, &snapshot, "victim", at(2)).count(), 1);
    assert!(!format!("{:?}", asked.reservation).contains(token), "no log shows it");
    let again = send(&state, &snapshot, "victim", at(2));
    assert_ne!(again.token(), token);
}

#[test]
fn who_names_a_session_that_nobody_knows_has_no_budget() {
    let (state, snapshot) = (state(1000), per("session"));
    let of = |session_id: &str, now| {
        let parts = Parts { session_id, ..parts("a", "send") };
        ask(&state, &snapshot, parts, Counting::Made, now)
    };
    for session in ["", "made-up-1", "made-up-2"] {
        let asked = of(session, at(1));
        assert_eq!((asked.is_allowed(), asked.count()), (false, UNKNOWN), "{session}");
    }
    let attempt = Attempt::new(&snapshot, parts("a", "send")).unwrap();
    let session = Session::open("s".into(), attempt.principal, at(600_000).wall_ms, at(0));
    state.open(session, 0, at(0)).unwrap();
    assert_eq!(of("s", at(2)).count(), 0);
    // Somebody else's session: disqualified, and it takes nothing of its owner's budget.
    let foreign =
        ask(&state, &snapshot, Parts { session_id: "s", ..parts("b", "send") }, Counting::Made, at(3));
    assert!(!foreign.verdict.policy_was_asked());
    assert_eq!(of("s", at(4)).count(), 1);
    for per_what in ["task", "tenant"] {
        let snapshot = per(per_what);
        let asked =
            ask(&state, &snapshot, Parts { session_id: "s", ..parts("a", "send") }, Counting::Made, at(5));
        assert_eq!(asked.count(), UNKNOWN, "{per_what}");
    }
}

#[test]
fn a_chain_is_counted_once_under_its_root() {
    let (state, snapshot) = (state(1000), per("root"));
    let of = |principal, now| {
        let parts = Parts { delegation: &[("A", "boss"), ("A", "middle")], ..parts(principal, "send") };
        ask(&state, &snapshot, parts, Counting::Made, now).count()
    };
    assert_eq!([of("a", at(0)), of("b", at(1)), of("c", at(2))], [0, 1, 2]);
    assert_eq!(send(&state, &snapshot, "boss", at(3)).count(), 3);
    assert_eq!(send(&state, &snapshot, "middle", at(3)).count(), 0);
}

#[test]
fn a_full_table_refuses_newcomers_and_forgets_nobody() {
    let (state, snapshot) = (state(256), per("identity"));
    for subject in 0..2000 {
        send(&state, &snapshot, &format!("s{subject}"), at(0));
    }
    let usage = state.counters().usage();
    assert!(usage.subjects <= 256 && usage.refused >= 2000 - 256, "{usage:?}");
    let counts: Vec<i64> = (0..2000)
        .map(|n| ask(&state, &snapshot, parts(&format!("s{n}"), "send"), Counting::Made, at(1)).count())
        .collect();
    let known = counts.iter().filter(|count| **count == 1).count();
    assert_eq!(u64::try_from(known).unwrap(), usage.subjects, "who had a place still has his count");
    assert!(counts.iter().all(|count| matches!(*count, 1 | UNKNOWN)));
    assert!(send(&state, &snapshot, "late", at(70_000)).is_allowed(), "windows that are over make room");
}

#[test]
fn a_counter_is_warm_once_it_has_counted_for_a_window_and_a_changed_one_begins_anew() {
    let state = state(1000);
    let install = |snapshot: &Snapshot, ms| state.counters().install(snapshot, at(ms));
    let warm = |snapshot: &Snapshot, ms| {
        let fact = send(&state, snapshot, "a", at(ms)).verdict.counters()[0].fact;
        (fact.is_warm, fact.warm_ms - at(0).wall_ms)
    };
    let (first, same, other) =
        (per("identity"), bundle("per = \"identity\"\nwindow_s = 60 # as before", POLICIES), per("root"));
    install(&first, 1000);
    assert_eq!(warm(&first, 2000), (false, 61_000));
    assert_eq!(warm(&first, 61_000), (true, 61_000));
    install(&same, 62_000);
    assert_eq!(warm(&same, 62_000), (true, 61_000));
    assert!(send(&state, &same, "a", at(62_001)).count() > 0);
    install(&other, 63_000);
    assert_eq!(warm(&other, 63_000), (false, 123_000));
    assert_eq!(send(&state, &other, "b", at(63_000)).count(), 0);
    install(&first, 64_000);
    assert_eq!(warm(&first, 64_000), (false, 124_000), "nothing was counted meanwhile");
}

#[test]
fn no_step_of_the_wall_clock_empties_a_window() {
    let (state, snapshot) = (state(1000), per("identity"));
    for ms in 0..3 {
        send(&state, &snapshot, "a", at(ms));
    }
    for wall_ms in [0, at(0).wall_ms + 1_000_000_000] {
        assert_eq!(send(&state, &snapshot, "a", Now { wall_ms, ..at(10) }).count(), 3);
    }
}

/// Another process on the same directory, whose monotonic clock begins anew.
fn started(dir: &std::path::Path, wall_ms: i64) -> (State, Result<Kept, Unreadable>) {
    let state = state(1000);
    let kept = state.counters().restore(dir, Now { mono_ns: 0, wall_ms });
    (state, kept)
}

fn later(wall_ms: i64) -> Now {
    Now { mono_ns: 5_000_000, wall_ms: wall_ms + 5 }
}

#[test]
fn a_process_that_ended_in_order_goes_on_warm_and_one_that_did_not_goes_on_cold() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = per("identity");
    let (first, kept) = started(dir.path(), at(0).wall_ms);
    assert_eq!(kept.unwrap(), Kept::Nothing);
    first.counters().install(&snapshot, at(0));
    for ms in 70_000..70_002 {
        assert!(send(&first, &snapshot, "a", at(ms)).is_allowed());
    }
    first.counters().keep(dir.path(), true, at(70_002));
    let (second, kept) = started(dir.path(), at(71_000).wall_ms);
    assert_eq!(kept.unwrap(), Kept::Everything(1));
    second.counters().install(&snapshot, later(at(71_000).wall_ms));
    let asked = send(&second, &snapshot, "a", later(at(71_000).wall_ms));
    assert_eq!((asked.count(), asked.verdict.counters()[0].fact.is_warm), (2, true));
    // Killed: this attempt is not in any snapshot, and nothing says that the process ended in order.
    let (third, kept) = started(dir.path(), at(73_000).wall_ms);
    assert!(matches!(kept.unwrap(), Kept::UpTo(1, 1000..=3000)), "since the mark that the start made");
    third.counters().install(&snapshot, later(at(73_000).wall_ms));
    let asked = send(&third, &snapshot, "a", later(at(73_000).wall_ms));
    let fact = asked.verdict.counters()[0].fact;
    assert_eq!((fact.count, fact.is_warm, fact.warm_ms), (2, false, at(133_000).wall_ms));
    assert_eq!(third.counters().usage().lost, 1);
}

#[test]
fn reserved_places_outlast_the_process_and_their_tokens_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = commits();
    let (first, _) = started(dir.path(), at(0).wall_ms);
    first.counters().install(&snapshot, at(0));
    let asked = send(&first, &snapshot, "a", at(0));
    first.counters().keep(dir.path(), true, at(1));
    let (second, _) = started(dir.path(), at(2).wall_ms);
    let now = later(at(2).wall_ms);
    assert_eq!(second.counters().settle(asked.token(), false, now), Err(NotSettled::Unknown));
    assert_eq!(send(&second, &snapshot, "a", now).count(), 1);
}

#[test]
fn a_clock_that_stands_before_the_snapshot_lets_no_time_pass() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = per("identity");
    let (first, _) = started(dir.path(), at(0).wall_ms);
    first.counters().install(&snapshot, at(0));
    send(&first, &snapshot, "a", at(0));
    first.counters().keep(dir.path(), true, at(1));
    let (second, _) = started(dir.path(), 0);
    assert_eq!(send(&second, &snapshot, "a", later(0)).count(), 1);
}

#[test]
fn a_damaged_snapshot_is_found_out_and_nothing_is_warm() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = per("identity");
    let (first, _) = started(dir.path(), at(0).wall_ms);
    first.counters().install(&snapshot, at(0));
    send(&first, &snapshot, "a", at(0));
    first.counters().keep(dir.path(), true, at(70_000));
    let path = dir.path().join(file::FILE);
    let whole = std::fs::read(&path).unwrap();
    for at_byte in [0, 20, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at_byte] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        let (second, kept) = started(dir.path(), at(71_000).wall_ms);
        assert!(matches!(kept, Err(Unreadable::Damaged)), "{at_byte}");
        let now = later(at(71_000).wall_ms);
        second.counters().install(&snapshot, now);
        assert!(!send(&second, &snapshot, "a", now).verdict.counters()[0].fact.is_warm);
        assert_eq!(second.counters().usage().lost, 1);
    }
    std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    assert!(started(dir.path(), at(71_000).wall_ms).1.is_err());
}
