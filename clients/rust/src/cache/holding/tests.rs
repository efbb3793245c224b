//! What the stream covers and what it takes back, message by message.

use super::*;
use crate::cache::key::{Keys, Lookup};
use crate::cache::table::{Link, Table};
use crate::clock::Clock;
use crate::v1::{self, Attempt, HoldForget, HoldHeartbeat, HoldVerdicts, Lease};
use crate::{attempt, entity};

/// A client's memory and its stream, at a time that the test says, in milliseconds.
struct Both {
    shared: Shared,
    state: State,
}

impl Both {
    /// With a stream that is open since 0 and speaks every 10 ms.
    fn open() -> Self {
        let shared = Shared { table: Table::new(100), link: Link::default(), clock: Clock::new() };
        let mut both = Self { shared, state: State::new(100) };
        both.tell(0, Part::Opened(opened(false)));
        both
    }

    fn tell(&mut self, at: u64, part: Part) {
        self.state.hear(&self.shared, part, at * MS_NS);
    }

    /// As [`super::super::CachedClient::decide`] does after an allow whose lease needs a stream.
    fn register(&mut self, at: u64, attempt: &Attempt, on_context: bool) -> u64 {
        let Shared { table, .. } = &self.shared;
        let keys = Keys::new(attempt, table.hashing());
        let generation = table.asked(keys.of(on_context)).generation;
        let attempt = attempt.clone();
        self.state.register(Wanted { attempt, keys, on_context, generation }, at * MS_NS);
        let Request::Add(add) = self.state.next() else { panic!("nothing is dropped") };
        add.holds[0].hold_id
    }

    fn answer(&mut self, at: u64, hold_id: u64, decision: Decision) {
        let lease = Lease { held_lease_ms: 100, stream_loss_max_ms: 5, on_context: true, ..Lease::default() };
        let verdict = v1::Verdict { decision: decision.into(), lease: Some(lease), ..v1::Verdict::default() };
        let told = HoldVerdict { hold_id, verdict: Some(verdict), cause: None };
        self.tell(at, Part::Verdicts(HoldVerdicts { verdicts: vec![told], ..HoldVerdicts::default() }));
    }

    fn beat(&mut self, at: u64) {
        self.tell(at, Part::Heartbeat(HoldHeartbeat::default()));
    }

    fn reuses(&self, at: u64, attempt: &Attempt) -> bool {
        let Shared { table, link, .. } = &self.shared;
        let mut key = Lookup::new(attempt, table.hashing());
        let find =
            |key: &Lookup<'_>| table.find(key.hash(), |stored| key.is(stored), 0, link, at * MS_NS).is_some();
        find(&key) || {
            key.count_context();
            find(&key)
        }
    }
}

fn opened(resumed: bool) -> HoldOpened {
    HoldOpened { heartbeat_ms: 10, resumed, resume_token: "r".into(), ..HoldOpened::default() }
}

fn read() -> Attempt {
    attempt(entity("Agent", "a"), "read", entity("Doc", "d"))
}

#[test]
fn an_allow_is_covered_from_the_first_answer_on_until_its_lease_or_the_stream_ends() {
    let mut both = Both::open();
    let hold = both.register(1, &read(), true);
    assert!(!both.reuses(2, &read()), "not answered");
    both.answer(3, hold, Decision::Allow);
    assert!(both.reuses(4, &read()));
    // Three heartbeats of 10 ms, and 5 ms more, after the last thing heard.
    assert!(both.reuses(37, &read()) && !both.reuses(38, &read()));
    for at in (10..200).step_by(10) {
        both.beat(at);
    }
    assert!(
        both.reuses(100, &read()) && !both.reuses(101, &read()),
        "its lease counts from the registration"
    );
}

#[test]
fn what_is_taken_back_is_not_reused_and_not_held_any_more() {
    for decision in [Decision::Deny, Decision::StepUp, Decision::Unspecified] {
        let mut both = Both::open();
        let hold = both.register(1, &read(), true);
        both.answer(3, hold, Decision::Allow);
        both.answer(5, hold, decision);
        assert!(!both.reuses(5, &read()), "{decision:?}");
        assert!(both.state.has_to_say());
        let Request::Drop(told) = both.state.next() else { panic!("it is dropped") };
        assert_eq!(told.hold_ids, [hold]);
    }
}

#[test]
fn forgetting_drops_everything() {
    let mut both = Both::open();
    let hold = both.register(1, &read(), true);
    both.answer(3, hold, Decision::Allow);
    both.tell(4, Part::Forget(HoldForget::default()));
    assert!(!both.reuses(4, &read()));
    both.answer(5, hold, Decision::Allow);
    assert!(!both.reuses(5, &read()), "what is told of a hold that was forgotten counts for nothing");
    both.state.drops.clear();
    let again = both.register(6, &read(), true);
    both.answer(7, again, Decision::Allow);
    assert!(both.reuses(8, &read()));
}

#[test]
fn a_resumed_stream_covers_again_once_everything_was_told() {
    let mut both = Both::open();
    let hold = both.register(1, &read(), true);
    both.answer(3, hold, Decision::Allow);
    let unanswered = both.register(4, &attempt(entity("Agent", "b"), "read", entity("Doc", "d")), true);
    both.shared.link.lost(3 * MS_NS);
    assert!(both.reuses(7, &read()) && !both.reuses(8, &read()), "for as long as the answer says");
    both.tell(20, Part::Opened(opened(true)));
    assert!(!both.reuses(21, &read()));
    both.beat(22);
    assert!(both.reuses(22, &read()));
    both.answer(23, unanswered, Decision::Allow);
    assert!(both.state.drops.contains(&unanswered), "whoever was not answered before is asked again");
}

#[test]
fn another_stream_covers_nothing_that_the_one_before_did() {
    let mut both = Both::open();
    let hold = both.register(1, &read(), true);
    both.answer(3, hold, Decision::Allow);
    both.shared.link.lost(3 * MS_NS);
    both.tell(4, Part::Opened(opened(false)));
    both.beat(5);
    assert!(!both.reuses(5, &read()));
    both.answer(6, hold, Decision::Allow);
    assert!(!both.reuses(6, &read()), "its number was given under the stream before");
}

#[test]
fn an_answer_that_comes_to_rest_on_less_or_more_leaves_nothing_behind() {
    let mut both = Both::open();
    let hold = both.register(1, &read(), false);
    both.answer(3, hold, Decision::Allow);
    let value = v1::Value { kind: Some(v1::value::Kind::Bool(true)) };
    let other = Attempt { context: [("x".to_owned(), value)].into_iter().collect(), ..read() };
    assert!(both.reuses(4, &read()) && !both.reuses(4, &other));
}

#[test]
fn an_allow_that_was_asked_for_before_it_was_taken_back_is_not_kept() {
    let mut both = Both::open();
    let hold = both.register(1, &read(), true);
    both.answer(3, hold, Decision::Allow);
    let Shared { table, .. } = &both.shared;
    let keys = Keys::new(&read(), table.hashing());
    let asked = table.asked(keys.of(true));
    // The answer is on its way while the stream says deny.
    both.answer(5, hold, Decision::Deny);
    let kept = Kept { verdict: Arc::default(), until_ns: 100 * MS_NS, held: None };
    both.shared.table.store(keys.of(true), kept, asked, 6 * MS_NS);
    assert!(!both.reuses(7, &read()));
}

#[test]
fn an_allow_that_is_told_anew_ends_no_later_than_its_lease_from_the_registration() {
    let mut both = Both::open();
    let hold = both.register(1, &read(), true);
    both.answer(3, hold, Decision::Allow);
    // It may have been on its way for long.
    both.answer(90, hold, Decision::Allow);
    assert!(both.reuses(100, &read()));
    both.beat(100);
    assert!(!both.reuses(101, &read()));
}
