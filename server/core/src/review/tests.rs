//! A review against a model that sorts everything that happened and reads off what holds.

use cardea_policy_store::engine::{Record, Uid};
use proptest::prelude::*;
use smallvec::SmallVec;

use super::*;

fn uid(text: &str) -> Uid {
    Uid::from(&text.parse::<cedar_policy::EntityUid>().unwrap())
}

fn named(text: &str) -> Named {
    Named::from(&uid(text))
}

fn at(wall_ms: i64) -> Now {
    Now { mono_ns: 0, wall_ms }
}

fn ask() -> Ask {
    Ask {
        principal: uid("Agent::\"bot\""),
        delegation: SmallVec::from_vec(vec![uid("Person::\"ann\""), uid("Agent::\"lead\"")]),
        action: uid("Action::\"send\""),
        resource: uid("Box::\"out\""),
        arguments: Record::default(),
        requirement: "second_look".into(),
    }
}

fn opening(at_ms: i64) -> Opening {
    Opening { at_ms, decision_id: format!("d{at_ms}").into(), session_id: Some("s".into()), asked: None }
}

fn approval(at_ms: i64, ends_ms: i64) -> Approval {
    Approval {
        at_ms,
        ends_ms,
        session_id: None,
        once: false,
        into_baseline: false,
        by: named("Person::\"rev\""),
        reason: "ok".into(),
    }
}

fn rejection(at_ms: i64, until_ms: i64) -> Rejection {
    Rejection { at_ms, until_ms, by: named("Person::\"rev\""), reason: "no".into() }
}

const HOUR_MS: i64 = 3600 * 1000;

fn any_event() -> impl Strategy<Value = Event> {
    let hours = || (0..60i64).prop_map(|hours| hours * HOUR_MS);
    prop_oneof![
        2 => hours().prop_map(|at_ms| Event::Opened(opening(at_ms))),
        2 => (hours(), hours(), any::<bool>()).prop_map(|(at_ms, life, once)| {
            Event::Approved(Approval { once, ..approval(at_ms, at_ms + life) })
        }),
        1 => hours().prop_map(Event::Used),
        1 => (hours(), hours()).prop_map(|(at_ms, hold)| Event::Rejected(rejection(at_ms, at_ms + hold))),
    ]
}

fn any_delivery() -> impl Strategy<Value = (Vec<(u32, Event)>, Vec<usize>)> {
    proptest::collection::vec((1..4u32, any_event()), 1..10).prop_flat_map(|events| {
        let twice: Vec<usize> = (0..events.len()).chain(0..events.len()).collect();
        (Just(events), Just(twice).prop_shuffle())
    })
}

/// What holds at a time, read off the whole list.
fn model(events: &[(u32, Event)], now_ms: i64) -> (u32, Status, Option<i64>) {
    let round = events.iter().map(|(round, _)| *round).max().unwrap_or(0);
    let of_round: Vec<&Event> = events.iter().filter(|one| one.0 == round).map(|(_, event)| event).collect();
    let opened_ms = of_round
        .iter()
        .filter_map(|event| if let Event::Opened(one) = event { Some(one.at_ms) } else { None })
        .min();
    let approved = of_round
        .iter()
        .filter_map(|event| {
            if let Event::Approved(one) = event { Some((one.at_ms, one.ends_ms, one.once)) } else { None }
        })
        .min();
    let is_used = of_round.iter().any(|event| matches!(event, Event::Used(_)));
    let is_rejected = of_round.iter().any(|event| matches!(event, Event::Rejected(_)));
    let in_time =
        approved.zip(opened_ms).filter(|((at, ..), opened)| at >= opened && *at < opened + 24 * HOUR_MS);
    let ends_ms = in_time.map(|((_, ends, _), _)| ends);
    let is_gone = is_used && in_time.is_some_and(|((_, _, once), _)| once);
    let status = match (is_rejected, ends_ms, opened_ms) {
        (true, ..) => Status::Rejected,
        (_, Some(ends_ms), _) if now_ms < ends_ms && !is_gone => Status::Approved,
        (_, Some(_), _) => Status::UsedUp,
        (_, None, Some(opened_ms)) if now_ms < opened_ms + 24 * HOUR_MS => Status::Pending,
        _ => Status::Expired,
    };
    (round, status, ends_ms.filter(|_| status == Status::Approved))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn the_order_and_number_of_deliveries_does_not_matter((events, order) in any_delivery()) {
        let mut review = Review::new(ask());
        let mut heard = Vec::new();
        for place in order {
            let (round, event) = events[place].clone();
            let before = review.clone();
            let changed = review.apply(round, event.clone());
            prop_assert_eq!(changed, review != before || round > before.round());
            if heard.contains(&(round, event.clone())) {
                prop_assert_eq!(&review, &before);
            }
            heard.push((round, event));
        }
        for hours in 0..130 {
            let now_ms = hours * HOUR_MS;
            let (round, status, ends_ms) = model(&events, now_ms);
            prop_assert_eq!(review.round(), round);
            prop_assert_eq!(review.status(at(now_ms)), status);
            prop_assert_eq!(review.grant(at(now_ms)).map(|grant| grant.ends_ms), ends_ms);
        }
    }

    #[test]
    fn what_is_kept_makes_the_same_review((events, _) in any_delivery()) {
        let mut review = Review::new(ask());
        for (round, event) in events {
            review.apply(round, event);
        }
        let mut kept = Review::new(ask());
        for event in review.events().into_iter().flatten() {
            kept.apply(review.round(), event);
        }
        prop_assert_eq!(kept, review);
    }
}

fn pending() -> Review {
    let mut review = Review::new(ask());
    assert!(review.apply(1, Event::Opened(opening(0))));
    review
}

#[test]
fn a_round_is_pending_until_it_is_decided_or_a_day_has_passed() {
    let review = pending();
    assert_eq!(review.status(at(WAIT_MS - 1)), Status::Pending);
    assert_eq!(review.status(at(WAIT_MS)), Status::Expired);
    assert!(!review.is_over(at(WAIT_MS - 1)) && review.is_over(at(WAIT_MS)));
    let late = approval(WAIT_MS, WAIT_MS + 1);
    assert_eq!(review.check_approval(1, &late, 60, at(WAIT_MS)), Err(ReviewFault::NotPending));
}

#[test]
fn an_approval_gives_a_grant_and_a_rejection_takes_it_back() {
    let mut review = pending();
    assert_eq!(review.grant(at(1)), None);
    assert_eq!(review.check_approval(1, &approval(1, 1001), 1, at(1)), Ok(()));
    review.apply(1, Event::Approved(approval(1, 1001)));
    assert_eq!(review.grant(at(1000)).unwrap().requirement, "second_look");
    assert_eq!(review.grant(at(1001)), None);
    assert_eq!((review.status(at(1001)), review.is_over(at(1001))), (Status::UsedUp, true));
    // The same again is no other decision; a different one is.
    assert_eq!(review.check_approval(1, &approval(2, 1002), 1, at(2)), Ok(()));
    let other = Approval { by: named("Person::\"other\""), ..approval(2, 1002) };
    assert_eq!(review.check_approval(1, &other, 1, at(2)), Err(ReviewFault::NotPending));
    assert_eq!(review.check_rejection(1, &rejection(3, 4), at(3)), Ok(()));
    review.apply(1, Event::Rejected(rejection(3, 4)));
    assert_eq!((review.grant(at(3)), review.status(at(3))), (None, Status::Rejected));
    assert_eq!(review.check_approval(1, &approval(3, 4), 1, at(3)), Err(ReviewFault::NotPending));
    assert!(!review.is_over(at(3)) && review.is_over(at(4)));
    assert!(review.apply(2, Event::Opened(opening(4))));
    assert_eq!((review.round(), review.status(at(4))), (2, Status::Pending));
    assert!(!review.apply(1, Event::Approved(approval(2, 10))));
}

#[test]
fn nobody_decides_about_an_attempt_that_he_is_part_of() {
    let review = pending();
    for own in ["Agent::\"bot\"", "Agent::\"lead\"", "Person::\"ann\""] {
        let yes = Approval { by: named(own), ..approval(1, 2) };
        let no = Rejection { by: named(own), ..rejection(1, 2) };
        assert_eq!(review.check_approval(1, &yes, 60, at(1)), Err(ReviewFault::OwnAttempt(named(own))));
        assert_eq!(review.check_rejection(1, &no, at(1)), Err(ReviewFault::OwnAttempt(named(own))));
    }
    let namesake = Approval { by: named("Person::\"bot\""), ..approval(1, 2) };
    assert_eq!(review.check_approval(1, &namesake, 60, at(1)), Ok(()));
}

#[test]
fn a_decision_names_the_round_and_an_end_within_bounds() {
    let review = pending();
    let other = ReviewFault::OtherRound { asked: 2, current: 1 };
    assert_eq!(review.check_approval(2, &approval(1, 2), 60, at(1)), Err(other.clone()));
    assert_eq!(review.check_rejection(2, &rejection(1, 2), at(1)), Err(other));
    for ends_ms in [0, 1, 60_002, i64::MAX] {
        let fault = review.check_approval(1, &approval(1, ends_ms), 60, at(1));
        assert_eq!(fault, Err(ReviewFault::BadEnd(60)), "{ends_ms}");
    }
    let forever = rejection(1, REJECTED_MAX_MS + 2);
    assert!(matches!(review.check_rejection(1, &forever, at(1)), Err(ReviewFault::BadEnd(_))));
    assert_eq!(review.check_rejection(1, &rejection(1, 0), at(1)), Ok(()));
    let bound = Approval { session_id: Some("s".into()), ..approval(1, 2) };
    assert_eq!(review.check_approval(1, &bound, 60, at(1)), Ok(()));
    let elsewhere = Approval { session_id: Some("t".into()), ..approval(1, 2) };
    assert_eq!(review.check_approval(1, &elsewhere, 60, at(1)), Err(ReviewFault::NoSession));
    let wordy = Approval { reason: "x".repeat(REASON_BYTES_MAX + 1).into(), ..approval(1, 2) };
    assert_eq!(review.check_approval(1, &wordy, 60, at(1)), Err(ReviewFault::TooWordy));
}

#[test]
fn a_grant_that_opens_one_attempt_is_used_up_by_it_and_the_next_asks_anew() {
    let mut review = pending();
    let once = Approval { once: true, ..approval(1, 1001) };
    assert_eq!(review.check_approval(1, &once, 1, at(1)), Ok(()));
    review.apply(1, Event::Approved(once));
    assert!(review.grant(at(2)).is_some_and(|grant| grant.once));
    assert!(review.apply(1, Event::Used(2)));
    assert_eq!((review.status(at(2)), review.grant(at(2))), (Status::UsedUp, None));
    assert!(review.is_over(at(2)) && !review.apply(1, Event::Used(3)));
    review.apply(2, Event::Opened(opening(5)));
    assert_eq!((review.status(at(5)), review.used_ms()), (Status::Pending, None));
}

#[test]
fn only_what_was_compared_and_kept_goes_into_a_baseline() {
    let learned = Approval { into_baseline: true, ..approval(1, 1001) };
    assert_eq!(pending().check_approval(1, &learned, 1, at(1)), Err(ReviewFault::NothingToLearn));
    let asked = |named| Opening { asked: Some(Box::new(Asked { named, ..Asked::default() })), ..opening(0) };
    for (named, expected) in [(None, Err(ReviewFault::NothingToLearn)), (Some(Default::default()), Ok(()))] {
        let mut review = Review::new(ask());
        review.apply(1, Event::Opened(asked(named)));
        assert_eq!(review.check_approval(1, &learned, 1, at(1)), expected);
    }
}
