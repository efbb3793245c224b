//! The monitor against a naive model of sets of strings, and what it must never do.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::approved::Merge;
use super::evidence::{Subject, evidence};
use super::*;

const NOW_MS: i64 = 1_000;

fn key() -> Key {
    Key::new([9; 16])
}

fn send<'a>(targets: &'a [&'a str], references: &'a [&'a str]) -> Observed<'a> {
    Observed {
        action: "send_email",
        class: ActionClass::Egress,
        targets,
        references,
        names_task: true,
        ..Observed::default()
    }
}

/// A task in which nothing but a mail to a@ours.io after reading was ever done, so many times.
fn mailing(runs: u32) -> Approved {
    let mut approved = Approved::default();
    for run in 0..runs {
        let read =
            Observed { action: "read", class: ActionClass::Read, targets: &["inbox"], ..Observed::default() };
        let mail = send(&["a@ours.io"], &["a@ours.io"]);
        approved.learn([
            Step { observed: read, previous: "", at_ms: i64::from(run) },
            Step { observed: mail, previous: "read", at_ms: i64::from(run) },
        ]);
    }
    approved
}

fn judged(runs: u32, observed: &Observed<'_>) -> Deviation {
    let (rules, key) = (Rules::default(), key());
    let task = Baseline::compile("v1", &mailing(runs), &key, &rules);
    let baselines = Baselines { task: Some(&task), identity: Some(&task) };
    compare(&rules, &key, observed, &baselines, &SessionBehavior::default())
}

#[test]
fn what_was_approved_does_not_deviate() {
    let (rules, key) = (Rules::default(), key());
    let task = Baseline::compile("v1", &mailing(8), &key, &rules);
    let baselines = Baselines { task: Some(&task), identity: Some(&task) };
    let mut session = SessionBehavior::default();
    for observed in [
        Observed {
            action: "read",
            class: ActionClass::Read,
            targets: &["inbox"],
            names_task: true,
            ..Observed::default()
        },
        send(&["\"A@ours.io\""], &["A@OURS.io."]),
    ] {
        let deviation = compare(&rules, &key, &observed, &baselines, &session);
        assert!(deviation.flags.is_empty(), "{:?}", deviation.flags.iter().collect::<Vec<_>>());
        assert_eq!((deviation.assessment, deviation.response), (Assessment::None, Response::Allow));
        session.note(&deviation, true, NOW_MS);
    }
    assert!(task.bytes() < 4096, "{}", task.bytes());
}

#[test]
fn a_mature_baseline_blocks_a_stranger_and_an_immature_one_asks() {
    let stranger = send(&["x@evil.example"], &["x@evil.example"]);
    let mature = judged(8, &stranger);
    assert_eq!((mature.assessment, mature.response), (Assessment::Abuse, Response::Deny));
    let immature = judged(7, &stranger);
    assert_eq!((immature.assessment, immature.response), (Assessment::Abuse, Response::StepUp));
    assert!(immature.confidence < mature.confidence);
    assert!(immature.flags.has(Flag::Immature));
}

#[test]
fn reading_around_is_evidence_and_no_more() {
    let look = Observed {
        action: "list",
        class: ActionClass::Read,
        targets: &["x"],
        names_task: true,
        ..Observed::default()
    };
    let deviation = judged(8, &look);
    assert!(deviation.flags.has(Flag::NewAction) && deviation.flags.has(Flag::NewTarget));
    assert_eq!((deviation.assessment, deviation.response), (Assessment::None, Response::Allow));
}

#[test]
fn a_read_that_carries_a_stranger_out_is_abuse() {
    let look = Observed {
        action: "read",
        class: ActionClass::Read,
        targets: &["inbox"],
        references: &["www.evil.example"],
        names_task: true,
        ..Observed::default()
    };
    assert_eq!(judged(8, &look).assessment, Assessment::Abuse);
    let look_up = Observed { targets: &["http://www.evil.example"], ..look };
    assert_eq!(
        judged(8, &look_up).assessment,
        Assessment::None,
        "at home nothing is handed out by looking it up"
    );
}

#[test]
fn what_the_task_names_is_expected_as_a_target_but_a_new_reference_is_not() {
    let named = Observed { purpose: "Send a note to Bob", ..send(&["bob"], &[]) };
    let deviation = judged(8, &named);
    assert!(deviation.flags.has(Flag::NewTarget) && !deviation.flags.has(Flag::UnexpectedTarget));
    assert_eq!(deviation.assessment, Assessment::None);
    let reference = Observed { purpose: "Send a note to b@x.io", ..send(&[], &["b@x.io"]) };
    assert_eq!(judged(8, &reference).assessment, Assessment::Abuse);
}

#[test]
fn a_page_of_an_approved_site_may_be_read_but_nothing_be_sent_there() {
    let mut approved = Approved::default();
    fn page<'a>(reference: &'a [&'a str], class: ActionClass) -> Observed<'a> {
        Observed { action: "get", class, references: reference, names_task: true, ..Observed::default() }
    }
    let known = page(&["blog.com"], ActionClass::Fetch);
    (0..9).for_each(|_| approved.learn([Step { observed: known, previous: "", at_ms: 0 }]));
    let (rules, key) = (Rules::default(), key());
    let task = Baseline::compile("v1", &approved, &key, &rules);
    let of = |observed: Observed<'_>| {
        let baselines = Baselines { task: Some(&task), identity: None };
        compare(&rules, &key, &observed, &baselines, &SessionBehavior::default()).assessment
    };
    assert_eq!(of(page(&["http://blog.com/posts?x"], ActionClass::Fetch)), Assessment::None);
    assert_eq!(of(page(&["http://blog.com.evil.io/posts"], ActionClass::Fetch)), Assessment::Abuse);
    assert_eq!(of(page(&["http://blog.com/posts"], ActionClass::Egress)), Assessment::Abuse);
    assert_eq!(of(page(&["ann@blog.com"], ActionClass::Egress)), Assessment::None, "the same party");
    for stranger in ["ann@notblog.com", "ann@blog.com.evil.io", "evil.io/?ann@blog.com", "ann@mail.blog.com"]
    {
        assert_eq!(of(page(&[stranger], ActionClass::Egress)), Assessment::Abuse, "{stranger}");
    }
}

#[test]
fn a_call_without_its_target_is_a_misconfiguration() {
    for targets in [&[][..], &["?"], &[" ", "''"]] {
        let deviation = judged(8, &send(targets, &[]));
        assert_eq!(
            (deviation.assessment, deviation.response),
            (Assessment::Misconfiguration, Response::Allow),
            "{targets:?}"
        );
    }
}

#[test]
fn scope_and_window_are_policy_whatever_the_statistics_say() {
    let outside = Observed { action: "pay", scope: Scope::Outside, ..send(&[], &[]) };
    for runs in [0, 1, 8] {
        assert_eq!(judged(runs, &outside).response, Response::Deny, "{runs}");
        let late = Observed { is_out_of_window: true, ..send(&["a@ours.io"], &["a@ours.io"]) };
        let late = judged(runs, &late);
        assert_eq!(late.response, Response::Deny);
        assert_eq!(late.assessment == Assessment::WorkflowChange, runs > 0);
    }
    let approved = Observed { scope: Scope::Outside, ..send(&["a@ours.io"], &["a@ours.io"]) };
    assert_eq!(judged(8, &approved).response, Response::Allow, "what approved runs did was approved");
    assert_eq!(judged(1, &approved).response, Response::Deny, "what one of them did was a slip");
}

#[test]
fn denials_tell_the_stolen_credential_from_the_broken_integration() {
    let denied = Observed { is_denied: true, names_task: false, ..send(&[], &["a@ours.io"]) };
    let broken = judged(8, &Observed { token_age_s: Some(1), ..denied });
    assert_eq!((broken.assessment, broken.response), (Assessment::Misconfiguration, Response::Deny));
    let never = Observed { action: "iam:CreateUser", class: ActionClass::Privilege, ..denied };
    assert_eq!(judged(8, &Observed { token_age_s: Some(60), ..never }).assessment, Assessment::Abuse);
    assert_eq!(
        judged(8, &Observed { token_age_s: Some(61), ..never }).assessment,
        Assessment::WorkflowChange
    );
    assert_eq!(
        judged(8, &never).assessment,
        Assessment::WorkflowChange,
        "a token of unknown age is not fresh"
    );
}

#[test]
fn a_flagged_pair_is_flagged_a_thousand_times() {
    let (rules, key) = (Rules::default(), key());
    let task = Baseline::compile("v1", &mailing(8), &key, &rules);
    let baselines = Baselines { task: Some(&task), identity: Some(&task) };
    let mut session = SessionBehavior::default();
    let stranger = send(&["x@evil.example"], &["x@evil.example"]);
    for at in 0..1000 {
        let deviation = compare(&rules, &key, &stranger, &baselines, &session);
        assert!(deviation.flags.has(Flag::NewReference) && deviation.response == Response::Deny, "at {at}");
        assert_eq!(deviation.flags.has(Flag::Again), at > 0);
        session.note(&deviation, true, at);
    }
    assert_eq!((session.deviations(), session.incidents()), (1000, 1));
}

#[test]
fn evidence_names_the_missing_entry_what_was_seen_and_the_version() {
    let (rules, key) = (Rules::default(), key());
    let task = Baseline::compile("v7", &mailing(12), &key, &rules);
    let baselines = Baselines { task: Some(&task), identity: None };
    let observed = send(&["bob"], &["http://www.x.example/"]);
    let deviation = compare(&rules, &key, &observed, &baselines, &SessionBehavior::default());
    let told = evidence(&deviation, Subject { principal: "agent:a", task: "14" }, &observed, &baselines);
    assert_eq!(
        told,
        [
            "send_email → x.example: the reference was never used in task 14, nor for the identity in any task; \
             seen references: a@ours.io",
            "send_email → bob was never a target in task 14, nor for the identity in any task",
            "send_email never came after the action before it in task 14",
            "compared with baseline v7 (12 approved runs)",
        ]
    );
}

#[test]
fn names_expire_merge_and_differ() {
    let mut old = mailing(3);
    let mut newer = mailing(0);
    newer.learn([Step { observed: send(&["bob"], &[]), previous: "", at_ms: 100 }]);
    assert_eq!(
        old.diff(&newer),
        [
            "- action read",
            "- reference a@ours.io",
            "- target read → inbox",
            "- transition (begin) → read",
            "- transition read → send_email",
            "+ target send_email → bob",
            "+ transition (begin) → send_email",
        ]
    );
    old.merge(&newer, Merge::SameTask);
    assert_eq!((old.runs, old.actions["send_email"].seen.runs), (4, 4));
    let dropped = old.expire(100);
    assert_eq!(dropped, 5);
    assert_eq!(old.actions.keys().collect::<Vec<_>>(), ["send_email"]);
    assert!(old.references.is_empty());
}

#[test]
fn what_policy_denied_is_not_learned_and_limits_hold() {
    let mut approved = Approved::default();
    let denied = Observed { is_denied: true, ..send(&["bob"], &[]) };
    approved.learn([Step { observed: denied, previous: "", at_ms: 0 }]);
    assert_eq!((approved.runs, approved.entries()), (1, 0));
    for at in 0..approved::ENTRIES_MAX + 10 {
        approved.learn([Step { observed: send(&[&at.to_string()], &[]), previous: "", at_ms: 0 }]);
    }
    assert_eq!(approved.entries(), approved::ENTRIES_MAX);
    assert!(approved.left_out > 0);
}

// === The model ===

#[derive(Clone, Debug)]
struct Call {
    action: usize,
    targets: Vec<usize>,
    references: Vec<usize>,
}

const ACTIONS: [&str; 4] = ["read", "write", "send", "pay"];
const CLASSES: [ActionClass; 4] =
    [ActionClass::Read, ActionClass::Write, ActionClass::Egress, ActionClass::Egress];
const TARGETS: [&str; 5] = ["t0", "t1", "T1", "a much longer target name", "é"];
const REFERENCES: [&str; 5] = ["a@b.io", "http://c.io/x", "www.c.io/x", "d.io", "se355"];

fn any_call() -> impl Strategy<Value = Call> {
    let some = || prop::collection::vec(0..5usize, 0..3);
    (0..4usize, some(), some()).prop_map(|(action, targets, references)| Call { action, targets, references })
}

fn any_runs() -> impl Strategy<Value = Vec<Vec<Call>>> {
    prop::collection::vec(prop::collection::vec(any_call(), 0..4), 0..12)
}

/// What a task is known for.
#[derive(Default)]
struct Model {
    actions: BTreeSet<usize>,
    pairs: BTreeMap<(usize, usize), BTreeSet<usize>>,
    references: BTreeSet<&'static str>,
    transitions: BTreeSet<(Option<usize>, usize)>,
}

fn short(reference: usize) -> &'static str {
    if matches!(reference, 1 | 2) { "c.io/x" } else { REFERENCES[reference] }
}

impl Model {
    fn learn(runs: &[Vec<Call>]) -> Self {
        let mut model = Self::default();
        for (run, calls) in runs.iter().enumerate() {
            let mut previous = None;
            for call in calls {
                model.actions.insert(call.action);
                model.transitions.insert((previous, call.action));
                previous = Some(call.action);
                for target in &call.targets {
                    model.pairs.entry((call.action, *target)).or_default().insert(run);
                }
                model.references.extend(call.references.iter().map(|at| short(*at)));
            }
        }
        model
    }
}

fn names<const N: usize>(of: [&'static str; N], at: &[usize]) -> Vec<&'static str> {
    at.iter().map(|at| of[*at]).collect()
}

fn learned(runs: &[Vec<Call>]) -> Approved {
    let mut approved = Approved::default();
    for run in runs {
        let given: Vec<_> =
            run.iter().map(|c| (names(TARGETS, &c.targets), names(REFERENCES, &c.references))).collect();
        approved.learn(run.iter().zip(&given).enumerate().map(|(at, (call, (targets, references)))| Step {
            observed: Observed { action: ACTIONS[call.action], targets, references, ..Observed::default() },
            previous: at.checked_sub(1).map_or("", |before| ACTIONS[run[before].action]),
            at_ms: 0,
        }));
    }
    approved
}

proptest! {
    #[test]
    fn flags_are_those_of_sets_of_strings(here in any_runs(), other in any_runs(), calls in prop::collection::vec(any_call(), 1..6)) {
        let (rules, key) = (Rules::default(), key());
        let mut all = Approved::default();
        all.merge(&learned(&here), Merge::OtherTask);
        all.merge(&learned(&other), Merge::OtherTask);
        let (mine, every) = (Model::learn(&here), Model::learn(&[here.clone(), other].concat()));
        let task = Baseline::compile("t", &learned(&here), &key, &rules);
        let identity = Baseline::compile("i", &all, &key, &rules);
        let baselines = Baselines { task: Some(&task), identity: Some(&identity) };
        let (mut session, mut previous) = (SessionBehavior::default(), None);
        for call in &calls {
            let (targets, references) = (names(TARGETS, &call.targets), names(REFERENCES, &call.references));
            let observed = Observed {
                action: ACTIONS[call.action],
                class: CLASSES[call.action],
                targets: &targets,
                references: &references,
                names_task: true,
                ..Observed::default()
            };
            let found = compare(&rules, &key, &observed, &baselines, &session);
            let pair = |target: &usize| (call.action, *target);
            let new_targets: Vec<_> = call.targets.iter().filter(|t| !mine.pairs.contains_key(&pair(t))).collect();
            let new_references: Vec<_> = call.references.iter().filter(|r| !mine.references.contains(short(**r))).collect();
            let expected = [
                (Flag::NewAction, !mine.actions.contains(&call.action)),
                (Flag::NewActionForIdentity, !every.actions.contains(&call.action)),
                (Flag::NewTarget, !new_targets.is_empty()),
                (Flag::NewTargetForIdentity, new_targets.iter().any(|t| !every.pairs.contains_key(&pair(t)))),
                (Flag::NewReference, !new_references.is_empty()),
                (Flag::NewReferenceForIdentity, new_references.iter().any(|r| !every.references.contains(short(**r)))),
                (Flag::NewTransition, !mine.transitions.contains(&(previous, call.action))),
                (Flag::Immature, here.len() < 8),
            ];
            for (flag, is_set) in expected {
                prop_assert_eq!(found.flags.has(flag), is_set, "{:?} of {:?}", flag, call);
            }
            // Again gives the same, under the same key and another.
            prop_assert_eq!(found, compare(&rules, &key, &observed, &baselines, &session));
            let fresh = Key::new([3; 16]);
            let task = Baseline::compile("t", &learned(&here), &fresh, &rules);
            let identity = Baseline::compile("i", &all, &fresh, &rules);
            let baselines = Baselines { task: Some(&task), identity: Some(&identity) };
            let mut again = SessionBehavior::default();
            if let Some(previous) = previous {
                let action = Observed { action: ACTIONS[previous], ..Observed::default() };
                again.note(&compare(&rules, &fresh, &action, &baselines, &again), true, NOW_MS);
            }
            let other = compare(&rules, &fresh, &observed, &baselines, &again);
            // The session of the other key was told nothing yet.
            let said = |d: &Deviation| d.flags.iter().filter(|flag| *flag != Flag::Again).collect::<Vec<_>>();
            prop_assert_eq!((said(&found), found.assessment, found.response), (said(&other), other.assessment, other.response));
            session.note(&found, true, NOW_MS);
            previous = Some(call.action);
        }
    }

    #[test]
    fn runs_learned_in_any_order_give_the_same_bytes(mut runs in any_runs()) {
        let forth = serde_json::to_string(&learned(&runs)).unwrap();
        runs.reverse();
        prop_assert_eq!(&forth, &serde_json::to_string(&learned(&runs)).unwrap());
        let read: Approved = serde_json::from_str(&forth).unwrap();
        prop_assert_eq!(read, learned(&runs));
    }
}

// === Bursts ===

#[test]
fn a_burst_stands_out_and_is_not_learned_as_normal() {
    let key = key();
    let (source, quiet, flooded) = (key.text("s"), key.text("q"), key.text("f"));
    let mut detector = BurstDetector::new(1000.0);
    let start = 29_000_000;
    for tick in start..start + 200 {
        assert!(detector.observe(source, quiet, tick) < 50.0);
    }
    let mut scores = Vec::new();
    for tick in start + 200..start + 260 {
        scores.push((0..500).map(|_| detector.observe(source, flooded, tick)).fold(0.0, f32::max));
    }
    assert!(scores.iter().all(|score| *score > 1000.0), "{scores:?}");
    assert!(BurstDetector::bytes() < 200_000);
}

#[test]
fn a_tick_that_falls_back_counts_as_the_latest() {
    let key = key();
    let (a, b) = (key.text("a"), key.text("b"));
    let mut detector = BurstDetector::new(1000.0);
    for tick in [0, 5, 3, u32::MAX, 1, 0] {
        let score = detector.observe(a, b, tick);
        assert!(score.is_finite() && score >= 0.0, "{tick}: {score}");
    }
}

#[test]
fn nobody_hides_a_name_behind_many_known_ones() {
    let known = vec!["a@ours.io"; attempt::NAMES_MAX];
    let many: Vec<&str> = known.iter().copied().chain(["mallory"]).collect();
    let (all, more): (Vec<&str>, Vec<&str>) =
        (attempt::bounded(known.into_iter()).collect(), attempt::bounded(many.into_iter()).collect());
    assert_eq!((all.len(), more.len()), (attempt::NAMES_MAX, attempt::NAMES_MAX + 1));
    assert!(!judged(8, &send(&all, &["a@ours.io"])).flags.has(Flag::UnexpectedTarget));
    for hiding in [send(&more, &["a@ours.io"]), send(&[], &more)] {
        assert_eq!(judged(8, &hiding).assessment, Assessment::Abuse);
        // Nor is it learned.
        let mut approved = mailing(8);
        (0..8).for_each(|at_ms| approved.learn([Step { observed: hiding, previous: "", at_ms }]));
        assert_eq!(approved.left_out, 8);
        let (rules, key) = (Rules::default(), key());
        let task = Baseline::compile("v1", &approved, &key, &rules);
        let baselines = Baselines { task: Some(&task), identity: Some(&task) };
        let deviation = compare(&rules, &key, &hiding, &baselines, &SessionBehavior::default());
        assert_eq!(deviation.assessment, Assessment::Abuse);
    }
}
