//! How old facts may be, for some actions, and sources of signals that fell silent.

use super::*;

const CLASSES: &str = "name = \"t\"
[facts]
session_max_age_s = 1000
[[facts.class]]
actions = [\"write\"]
session_max_age_s = 60
risk_max_age_s = 30
[signals.source.edr]
max_silence_s = 40
[signals.source.idp]
max_silence_s = 90
";

fn write() -> Parts<'static> {
    Parts { action: ("", "write"), ..parts() }
}

fn judged(snapshot: &Snapshot, parts: Parts<'_>, facts: &Facts, now: Now) -> Option<ReasonCode> {
    let attempt = Attempt::new(snapshot, parts).unwrap();
    code(&decide(&Question::new(snapshot, &attempt), facts, now))
}

fn later(seconds: i64) -> Now {
    Now { wall_ms: NOW.wall_ms + seconds * 1000, ..NOW }
}

#[test]
fn a_class_has_limits_of_its_own() {
    let snapshot = with_settings(CLASSES, PERMIT);
    let mut known = session();
    known.expires_ms = i64::MAX;
    let facts = Facts { hops: with_risk(1).hops, ..in_session(known) };
    assert_eq!(judged(&snapshot, write(), &facts, later(30)), None);
    assert_eq!(judged(&snapshot, write(), &facts, later(31)), Some(ReasonCode::FactStale), "risk");
    assert_eq!(judged(&snapshot, parts(), &facts, later(31)), None);
    let without_risk = with_settings(&CLASSES.replace("risk_max_age_s = 30", ""), PERMIT);
    assert_eq!(judged(&without_risk, write(), &facts, later(60)), None);
    assert_eq!(judged(&without_risk, write(), &facts, later(61)), Some(ReasonCode::FactStale), "session");
    assert_eq!(judged(&without_risk, parts(), &facts, later(1000)), None);
    assert_eq!(judged(&without_risk, parts(), &facts, later(1001)), Some(ReasonCode::FactStale));
}

#[test]
fn risk_of_which_nothing_was_ever_heard_is_stale_for_each_hop() {
    let snapshot = with_settings(CLASSES, PERMIT);
    assert_eq!(judged(&snapshot, write(), &Facts::default(), NOW), Some(ReasonCode::FactStale));
    let delegated = Parts { delegation: &[("User", "u")], ..write() };
    let one_of_two = with_risk(1);
    assert_eq!(judged(&snapshot, delegated.clone(), &one_of_two, NOW), Some(ReasonCode::FactStale));
    let both = Facts { hops: one_of_two.hops.iter().cycle().take(2).cloned().collect(), ..Facts::default() };
    assert_eq!(judged(&snapshot, delegated, &both, NOW), None);
}

#[test]
fn what_a_class_limits_is_gathered_though_no_policy_reads_it() {
    let snapshot = with_settings(CLASSES, PERMIT);
    let attempt = Attempt::new(&snapshot, write()).unwrap();
    assert!(Question::new(&snapshot, &attempt).needs().reads_any(Group::Risk));
    let other = Attempt::new(&snapshot, parts()).unwrap();
    assert!(Question::new(&snapshot, &other).needs().is_empty());
}

#[test]
fn a_source_is_silent_until_it_speaks_and_after_its_limit() {
    let policy = |silent: &str| {
        format!("permit(principal, action, resource) when {{ context.signals.silent == {silent} }};")
    };
    let is = |silent: &str, facts: &Facts, now: Now| {
        let snapshot = with_settings(CLASSES, &policy(silent));
        judged(&snapshot, parts(), facts, now).is_none()
    };
    let nothing = Facts::default();
    assert!(is("[\"edr\", \"idp\"]", &nothing, NOW));
    let heard = Facts { heard: vec![("edr".into(), NOW.wall_ms), ("unasked".into(), 0)], ..Facts::default() };
    assert!(is("[\"idp\"]", &heard, later(40)));
    assert!(is("[\"idp\", \"edr\"]", &heard, later(41)));
    let snapshot = with_settings(CLASSES, &policy("[\"idp\"]"));
    let attempt = attempt(&snapshot);
    let next = boundary::next_change(&Question::new(&snapshot, &attempt), &heard, NOW);
    assert_eq!(next.at_ms, Some(later(41).wall_ms));
    let age_ms = heard.age_ms(Group::Signals, &attempt, snapshot.settings(), later(7));
    assert_eq!(age_ms, Some(7000), "of those that are expected");
}
