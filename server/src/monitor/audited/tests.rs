//! What is learned from records, and what whoever is watched can do about it: nothing.

use proptest::prelude::*;

use super::*;

const AGENT: &str = "Agent::\"a\"";

fn reference(type_name: &str, id: &str) -> Option<v1::EntityRef> {
    Some(v1::EntityRef { r#type: type_name.into(), id: id.into() })
}

/// An allowed attempt of `Agent::"a"` that was compared and does not deviate.
fn allowed(session: &str, to: &str) -> v1::DecisionRecord {
    let observed = v1::ObservedRecord { task: "t".into(), targets: vec![to.into()], ..Default::default() };
    v1::DecisionRecord {
        principal: reference("Agent", "a"),
        action: reference("Action", "send"),
        session_id: session.into(),
        decision: v1::Decision::Allow.into(),
        observed: Some(Box::new(observed)),
        ..Default::default()
    }
}

fn deviating(assessment: &str, flags: &[&str], mut decision: v1::DecisionRecord) -> v1::DecisionRecord {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let of = v1::DeviationRecord { assessment: assessment.into(), flags, ..Default::default() };
    decision.deviation = Some(Box::new(of));
    decision
}

fn observed(mut decision: v1::DecisionRecord) -> v1::DecisionRecord {
    decision.observed.as_mut().unwrap().observing = true;
    decision
}

fn record(entry: Entry) -> v1::Record {
    record_at(7, entry)
}

fn record_at(seconds: i64, entry: Entry) -> v1::Record {
    let time = Some(prost_types::Timestamp { seconds, nanos: 0 });
    v1::Record { sequence: 1, time, entry: Some(entry) }
}

fn learn_at(choice: Choice, entries: impl IntoIterator<Item = (i64, Entry)>) -> (Kept, LeftOut) {
    let mut learner = AuditLearner::new(choice);
    for (seconds, entry) in entries {
        learner.note(&record_at(seconds, entry)).unwrap();
    }
    learner.finish()
}

fn signal(subject: Option<v1::EntityRef>, session: &str) -> Entry {
    let (session_id, outcome) = (session.to_owned(), "applied".to_owned());
    Entry::Signal(v1::SignalRecord { subject, session_id, outcome, ..Default::default() })
}

fn learn(choice: Choice, entries: impl IntoIterator<Item = Entry>) -> (Kept, LeftOut) {
    let mut learner = AuditLearner::new(choice);
    for entry in entries {
        learner.note(&record(entry)).unwrap();
    }
    learner.finish()
}

fn of_agent() -> Choice {
    Choice { identities: [AGENT.to_owned()].into(), ..Choice::default() }
}

/// Targets of `send` that are in the candidate, with its runs.
fn targets(kept: &Kept) -> (u32, Vec<&str>) {
    let Some(approved) = kept.baselines.get(AGENT).and_then(|tasks| tasks.get("t")) else {
        return (0, vec![]);
    };
    let names =
        approved.actions.get("send").map(|done| done.targets.keys().map(smol_str::SmolStr::as_str).collect());
    (approved.runs, names.unwrap_or_default())
}

#[test]
fn clean_sessions_are_learned_and_the_result_is_a_candidate() {
    let entries = [allowed("s", "ann"), allowed("s", "bob"), allowed("r", "ann")].map(Entry::Decision);
    let (kept, left_out) = learn(of_agent(), entries);
    assert_eq!(targets(&kept), (2, vec!["ann", "bob"]));
    assert!(kept.is_candidate() && Kept::parse(&kept.bytes().unwrap()).is_err());
    assert_eq!((kept.attempts, left_out.attempts), (3, 0));
    assert_eq!(kept.learned, Some(Learned { from_ms: 7000, until_ms: 7000 }));
}

#[test]
fn one_wrong_attempt_takes_its_whole_session_out_before_and_after() {
    let denied = v1::DecisionRecord { decision: v1::Decision::Deny.into(), ..allowed("s", "ann") };
    let by_another = v1::DecisionRecord { principal: reference("Agent", "b"), ..denied.clone() };
    let mut unusable = allowed("s", "ann");
    unusable.observed.as_mut().unwrap().unusable = true;
    let wrong = [
        (denied, Why::Denied),
        (by_another, Why::Denied),
        (deviating("workflow_change", &["new_target"], allowed("s", "eve")), Why::Deviated),
        (deviating("invented", &[], allowed("s", "eve")), Why::Deviated),
        (unusable, Why::Unusable),
    ];
    for (wrong, why) in wrong {
        let entries = [allowed("s", "ann"), allowed("r", "bob"), wrong, allowed("s", "dan")];
        let (kept, left_out) = learn(of_agent(), entries.map(Entry::Decision));
        assert_eq!(targets(&kept), (1, vec!["bob"]), "{why:?}");
        assert_eq!(left_out.sessions, [(why, 1)].into());
    }
}

#[test]
fn a_thousand_repetitions_of_a_deviation_teach_nothing() {
    let entries = (0..1000).flat_map(|n| {
        let (session, other) = (format!("s{n}"), format!("o{n}"));
        let flagged = deviating("abuse", &["unexpected_target"], allowed(&session, "mallory"));
        // Each in a session of its own, and in one with a clean beginning.
        let again = deviating("abuse", &["unexpected_target", "again"], allowed(&other, "mallory"));
        [flagged, allowed(&other, "ann"), again].map(Entry::Decision)
    });
    let (kept, left_out) = learn(of_agent(), entries);
    assert_eq!(targets(&kept), (0, vec![]));
    assert!(kept.baselines.is_empty());
    assert_eq!((left_out.sessions[&Why::Deviated], left_out.examples.len()), (2000, EXAMPLES_MAX));
}

#[test]
fn nobody_pushes_a_flag_out_by_opening_many_sessions() {
    let flagged = deviating("abuse", &[], allowed("s", "mallory"));
    let flood = (0..SESSIONS_MAX + 1).map(|n| allowed(&format!("f{n}"), "ann"));
    let entries = [allowed("s", "eve"), flagged].into_iter().chain(flood).chain([allowed("s", "eve")]);
    let (kept, left_out) = learn(of_agent(), entries.map(Entry::Decision));
    assert_eq!(targets(&kept).1, ["ann"]);
    assert!(left_out.sessions.contains_key(&Why::NoRoom), "{:?}", left_out.sessions);
}

#[test]
fn of_observed_identities_novelty_is_learned_and_abuse_is_not() {
    let new =
        deviating("workflow_change", &["unknown", "immature", "new_action"], observed(allowed("s", "ann")));
    let stranger =
        deviating("abuse", &["unknown", "immature", "unexpected_reference"], observed(allowed("r", "x")));
    let outside = deviating("workflow_change", &["immature", "out_of_scope"], observed(allowed("q", "x")));
    let held = allowed("p", "carl");
    let entries = [new, stranger, outside, held].map(Entry::Decision);
    let (kept, left_out) = learn(Choice::default(), entries);
    // Who is not observed is not learned unless somebody names him.
    assert_eq!(targets(&kept), (1, vec!["ann"]));
    assert_eq!(left_out.sessions, [(Why::Deviated, 2)].into());
}

#[test]
fn a_gap_and_a_signal_take_out_what_ran_then() {
    let gap = Entry::Gap(v1::GapRecord { lost: 3, ..v1::GapRecord::default() });
    let attempt = |session| Entry::Decision(allowed(session, "ann"));
    for (between, why) in [
        (gap, Why::Gap),
        (signal(None, "s"), Why::Signalled),
        (signal(reference("Agent", "a"), ""), Why::Signalled),
    ] {
        let (kept, left_out) = learn(of_agent(), [attempt("s"), between, attempt("r")]);
        assert_eq!((targets(&kept).0, left_out.sessions), (1, [(why, 1)].into()));
    }
}

#[test]
fn what_was_wrong_before_the_first_attempt_that_is_learned_takes_its_session_out() {
    let gap = Entry::Gap(v1::GapRecord { lost: 3, ..v1::GapRecord::default() });
    for (between, why) in [(gap, Why::Gap), (signal(reference("Agent", "a"), ""), Why::Signalled)] {
        let choice = Choice { since_ms: Some(10_000), ..of_agent() };
        let attempt = |session| Entry::Decision(allowed(session, "ann"));
        let stepped = Entry::Decision(v1::DecisionRecord {
            decision: v1::Decision::StepUp.into(),
            ..allowed("stepped", "ann")
        });
        let entries = [
            (5, attempt("early")),
            (5, stepped),
            (6, between),
            (11, attempt("early")),
            (12, attempt("stepped")),
            (13, attempt("late")),
        ];
        let (kept, left_out) = learn_at(choice, entries);
        assert_eq!((targets(&kept).0, left_out.sessions), (1, [(why, 2)].into()));
    }
}

#[test]
fn what_came_before_the_first_attempt_that_is_learned_is_no_beginning() {
    let choice = Choice { since_ms: Some(10_000), ..of_agent() };
    let mut read = allowed("s", "inbox");
    read.action = reference("Action", "read");
    let entries = [(5, read), (11, allowed("s", "ann"))].map(|(at, one)| (at, Entry::Decision(one)));
    let (kept, _) = learn_at(choice, entries);
    let transitions = &kept.baselines[AGENT]["t"].transitions;
    assert_eq!(transitions.keys().map(smol_str::SmolStr::as_str).collect::<Vec<_>>(), ["read"]);
}

#[test]
fn a_signal_takes_out_what_ran_then_on_a_node_that_is_read_later() {
    let attempt = |session| Entry::Decision(allowed(session, "ann"));
    let of_one = [(20, signal(reference("Agent", "a"), ""))];
    let of_another = [(15, attempt("before")), (25, attempt("after"))];
    let (kept, left_out) = learn_at(of_agent(), of_one.into_iter().chain(of_another));
    assert_eq!((targets(&kept).0, left_out.sessions), (1, [(Why::Signalled, 1)].into()));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long it takes is what it asks")]
fn many_signals_about_one_identity_cost_as_much_as_they_are() {
    let sessions = (0..20_000).map(|n| Entry::Decision(allowed(&format!("s{n}"), "ann")));
    let signals = (0..20_000).map(|_| signal(reference("Agent", "a"), ""));
    let gaps = (0..20_000).map(|_| Entry::Gap(v1::GapRecord { lost: 1, ..v1::GapRecord::default() }));
    let began = std::time::Instant::now();
    let (_, left_out) = learn(of_agent(), sessions.chain(signals).chain(gaps));
    assert_eq!(left_out.sessions.values().sum::<u64>(), 20_000);
    // Each of them looked at each session took minutes.
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn what_a_reviewer_approved_is_taken_up_unless_it_was_taken_back() {
    let review = |id: &str, change: &str, to: &str| {
        let (task, targets, network) = ("t".into(), vec![to.into()], "elsewhere".into());
        let named = v1::ObservedRecord { task, targets, network, ..Default::default() };
        Entry::Review(v1::ReviewRecord {
            review_id: id.into(),
            round: 1,
            change: change.into(),
            principal: reference("Agent", "a"),
            action: reference("Action", "send"),
            reviewer: reference("Person", "ann"),
            into_baseline: (change == "approved").then_some(named),
            ..Default::default()
        })
    };
    let entries =
        [review("1", "approved", "new"), review("2", "approved", "gone"), review("2", "revoked", "gone")];
    let (kept, _) = learn(Choice::default(), entries);
    assert_eq!(targets(&kept), (0, vec!["new"]), "names, and no run");
    let approved = &kept.baselines[AGENT]["t"];
    assert!(approved.networks.is_empty() && approved.transitions.is_empty(), "nobody asked for these");
    // Four runs put an action in scope, and targets of one run each make an action's targets open: no review does.
    let done = &approved.actions["send"];
    assert_eq!((done.seen.runs, done.seen.last_ms, done.targets["new"].runs), (0, 7000, 0));
    assert_eq!(kept.reviewed.len(), 1);
    assert_eq!(kept.reviewed[0].by, "Person::\"ann\"");
    assert!(Kept::parse_any(&kept.bytes().unwrap()).is_ok());
}

#[test]
fn where_an_attempt_is_a_run_each_is_counted_and_a_wrong_one_still_takes_all_out() {
    let choice = Choice { run: Run::Attempt, ..of_agent() };
    let attempts = ["ann", "ann", "bob"].map(|to| Entry::Decision(allowed("", to)));
    let (kept, _) = learn(choice.clone(), attempts.clone());
    assert_eq!(targets(&kept), (3, vec!["ann", "bob"]));
    let wrong = Entry::Decision(deviating("abuse", &[], allowed("", "eve")));
    let (kept, _) = learn(choice, attempts.into_iter().chain([wrong]));
    assert_eq!(targets(&kept), (0, vec![]));
}

proptest! {
    /// Against a model that knows the whole list: learned is exactly what sessions without anything wrong were allowed.
    #[test]
    fn learned_is_what_clean_sessions_were_allowed(
        steps in prop::collection::vec((0..5u8, 0..6u8, 0..4u8), 0..60),
    ) {
        let entries = steps.iter().map(|(session, to, what)| {
            let attempt = allowed(&format!("s{session}"), &format!("t{to}"));
            Entry::Decision(match what {
                0 if *to == 0 => deviating("abuse", &[], attempt),
                1 if *to == 1 => v1::DecisionRecord { decision: v1::Decision::Deny.into(), ..attempt },
                2 => v1::DecisionRecord { decision: v1::Decision::StepUp.into(), ..attempt },
                _ => attempt,
            })
        });
        let (kept, _) = learn(of_agent(), entries);
        let is_wrong = |(_, to, what): &(u8, u8, u8)| (*what == 0 && *to == 0) || (*what == 1 && *to == 1);
        let spoilt: BTreeSet<u8> = steps.iter().filter(|step| is_wrong(step)).map(|step| step.0).collect();
        let clean = || steps.iter().filter(|(session, _, what)| !spoilt.contains(session) && *what != 2);
        let runs: BTreeSet<u8> = clean().map(|step| step.0).collect();
        let names: BTreeSet<String> = clean().map(|step| format!("t{}", step.1)).collect();
        let (found, learned) = targets(&kept);
        prop_assert_eq!(found as usize, runs.len());
        prop_assert_eq!(learned, names.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
