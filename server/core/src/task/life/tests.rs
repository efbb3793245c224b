//! A life against a model that keeps what is covered as plain sets and takes changes one after the other.

use proptest::prelude::*;

use super::*;

const ACTIONS: [&str; 3] = ["read", "write", "drop"];
const PATTERNS: [&str; 8] =
    ["T::\"*\"", "T::\"a*\"", "T::\"ab*\"", "T::\"ab\"", "T::\"b\"", "U::\"*\"", "U::\"a\"", "U::\"a*\""];
const RESOURCES: [&str; 8] =
    ["T::\"\"", "T::\"a\"", "T::\"ab\"", "T::\"abc\"", "T::\"b\"", "U::\"a\"", "U::\"ab\"", "V::\"a\""];
const END_MS: i64 = 20;
const LATEST_MS: i64 = 30;

fn uid(text: &str) -> Uid {
    Uid::from(&text.parse::<cedar_policy::EntityUid>().unwrap())
}

fn named(text: &str) -> Named {
    Named { type_name: "Person".into(), id: text.into() }
}

fn at(wall_ms: i64) -> Now {
    Now { mono_ns: 0, wall_ms }
}

fn pattern(text: &str) -> ResourcePattern {
    ResourcePattern::parse(text).unwrap()
}

fn approval() -> Approval {
    Approval {
        task: Task {
            id: "t".into(),
            purpose: "p".into(),
            not_before_ms: Some(2),
            not_after_ms: Some(END_MS),
            actions: ACTIONS.map(SmolStr::from).to_vec(),
            resources: vec![],
        },
        agent: uid("Agent::\"bot\""),
        on_behalf_of: Some(uid("Person::\"ann\"")),
        approved_by: named("boss"),
        approved_ms: 0,
        latest_end_ms: LATEST_MS,
    }
}

fn change(at_ms: i64, step: Step) -> Change {
    Change { at_ms, step, by: named("boss"), reason: "r".into() }
}

/// What a task covers, as pairs of places in [`ACTIONS`] and [`RESOURCES`], and its window.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    covered: BTreeSet<(usize, usize)>,
    start_ms: i64,
    end_ms: i64,
    ended: bool,
}

impl Model {
    fn new() -> Self {
        let covered = (0..ACTIONS.len()).flat_map(|a| (0..RESOURCES.len()).map(move |r| (a, r))).collect();
        Self { covered, start_ms: 2, end_ms: END_MS, ended: false }
    }

    fn of(mut changes: Vec<Change>) -> Self {
        changes.sort_by_key(|change| {
            let rank = match change.step {
                Step::Extended(_) => 0,
                Step::Narrowed(_) => 1,
                Step::Ended => 2,
            };
            (change.at_ms, rank)
        });
        let mut model = Self::new();
        for change in changes {
            model.take(&change);
        }
        model
    }

    fn take(&mut self, change: &Change) {
        if self.ended {
            return;
        }
        match &change.step {
            Step::Extended(end_ms) => {
                if change.at_ms < self.end_ms {
                    self.end_ms = self.end_ms.max((*end_ms).min(LATEST_MS));
                }
            }
            Step::Narrowed(left) => {
                let keeps = |&(a, r): &(usize, usize)| {
                    let action = left.actions.as_ref().is_none_or(|set| set.contains(ACTIONS[a]));
                    let resource = left.resources.as_ref().is_none_or(|list| {
                        list.iter().any(|pattern| {
                            let text = pattern.to_string();
                            let whole = RESOURCES[r].strip_suffix('"').unwrap();
                            match text.strip_suffix("*\"") {
                                Some(prefix) => whole.starts_with(prefix),
                                None => text == RESOURCES[r],
                            }
                        })
                    });
                    action && resource
                };
                self.covered.retain(keeps);
                self.start_ms = self.start_ms.max(left.not_before_ms.unwrap_or(i64::MIN));
                self.end_ms = self.end_ms.min(left.not_after_ms.unwrap_or(i64::MAX));
            }
            Step::Ended => {
                self.ended = true;
                self.covered.clear();
                self.end_ms = self.end_ms.min(change.at_ms);
            }
        }
    }

    fn agrees(&self, life: &Life) {
        let task = life.task();
        for (a, action) in ACTIONS.iter().enumerate() {
            let action = uid(&format!("Action::\"{action}\""));
            for (r, resource) in RESOURCES.iter().enumerate() {
                assert_eq!(
                    task.covers(&action, &uid(resource)),
                    self.covered.contains(&(a, r)),
                    "{action} {resource}: {task:?}"
                );
            }
        }
        for wall_ms in 0..40 {
            let is_active = self.start_ms <= wall_ms && wall_ms < self.end_ms;
            assert_eq!(task.is_active(at(wall_ms)), is_active, "{wall_ms}: {task:?}");
            assert_eq!(life.standing(at(wall_ms)) == Standing::Ended, self.ended);
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let actions = proptest::option::of(proptest::sample::subsequence(ACTIONS.to_vec(), 1..=3));
    let resources = proptest::option::of(proptest::sample::subsequence(PATTERNS.to_vec(), 1..=3));
    let narrowing = (actions, resources, proptest::option::of(0..30i64), proptest::option::of(0..40i64))
        .prop_map(|(actions, resources, not_before_ms, not_after_ms)| {
            Step::Narrowed(Narrowing {
                actions: actions.map(|list| list.into_iter().map(SmolStr::from).collect()),
                resources: resources.map(|list| list.into_iter().map(pattern).collect()),
                not_before_ms,
                not_after_ms,
            })
        });
    prop_oneof![4 => narrowing, 3 => (0..60i64).prop_map(Step::Extended), 1 => Just(Step::Ended)]
}

/// Changes, and an order of delivery in which some come twice.
fn any_delivery() -> impl Strategy<Value = (Vec<Change>, Vec<usize>)> {
    let changes = proptest::collection::vec((0..25i64, any_step()), 0..7);
    changes.prop_flat_map(|changes| {
        let changes: Vec<Change> = changes.into_iter().map(|(at_ms, step)| change(at_ms, step)).collect();
        let twice: Vec<usize> = (0..changes.len()).chain(0..changes.len()).collect();
        (Just(changes), Just(twice).prop_shuffle())
    })
}

proptest! {
    #[test]
    fn the_order_and_number_of_deliveries_does_not_matter((changes, order) in any_delivery()) {
        let mut life = Life::new(approval());
        let mut seen = BTreeSet::new();
        for place in order {
            let one = changes[place].clone();
            let before = life.clone();
            let is_new = seen.insert(one.clone());
            prop_assert_eq!(life.apply(one), is_new);
            if !is_new {
                prop_assert_eq!(&life, &before);
            }
        }
        Model::of(changes).agrees(&life);
    }

    #[test]
    fn nothing_but_an_extension_ever_opens((changes, _) in any_delivery(), late in (0..25i64, any_step())) {
        let mut life = Life::new(approval());
        for one in changes {
            life.apply(one);
        }
        let before = Arc::clone(life.task());
        life.apply(change(late.0, late.1));
        for action in ACTIONS.map(|action| uid(&format!("Action::\"{action}\""))) {
            for resource in RESOURCES.map(uid) {
                prop_assert!(before.covers(&action, &resource) || !life.task().covers(&action, &resource));
            }
        }
        prop_assert!(life.task().not_after_ms.unwrap() <= LATEST_MS);
    }

    /// Whoever asks for a change that is not refused gets exactly that.
    #[test]
    fn what_passes_the_check_has_its_effect((changes, _) in any_delivery(), step in any_step()) {
        let mut life = Life::new(approval());
        for one in changes {
            life.apply(one);
        }
        let one = change(25, step);
        if life.check(&one, at(25)).is_err() {
            return Ok(());
        }
        life.apply(one.clone());
        match one.step {
            Step::Extended(end_ms) => prop_assert_eq!(life.task().not_after_ms, Some(end_ms)),
            Step::Ended => prop_assert_eq!(life.standing(at(25)), Standing::Ended),
            Step::Narrowed(left) => {
                if let Some(actions) = left.actions {
                    prop_assert_eq!(life.task().actions.iter().cloned().collect::<BTreeSet<_>>(), actions);
                }
                prop_assert!(left.not_after_ms.is_none_or(|end_ms| life.task().not_after_ms == Some(end_ms)));
            }
        }
    }
}

#[test]
fn a_change_that_asks_for_more_is_refused() {
    let mut life = Life::new(approval());
    let narrow = |narrowing: Narrowing| change(5, Step::Narrowed(narrowing));
    let to = |text: &str| Narrowing { resources: Some(vec![pattern(text)]), ..Narrowing::default() };
    assert!(life.apply(narrow(to("T::\"a*\""))));
    let refused = |step: Step| life.check(&change(6, step), at(6)).unwrap_err();
    assert_eq!(refused(Step::Narrowed(to("T::\"*\""))), TaskFault::Wider("T::\"*\"".into()));
    assert_eq!(refused(Step::Narrowed(to("U::\"a\""))), TaskFault::Wider("U::\"a\"".into()));
    let actions = Some(["grant".into()].into());
    let wider = Narrowing { actions, ..Narrowing::default() };
    assert_eq!(refused(Step::Narrowed(wider)), TaskFault::Wider("grant".into()));
    let window = |not_before_ms, not_after_ms| {
        Step::Narrowed(Narrowing { not_before_ms, not_after_ms, ..Narrowing::default() })
    };
    assert_eq!(refused(window(Some(1), None)), TaskFault::WiderWindow);
    assert_eq!(refused(window(None, Some(21))), TaskFault::WiderWindow);
    assert_eq!(refused(window(Some(10), Some(10))), TaskFault::NoWindow);
    assert_eq!(refused(Step::Extended(END_MS)), TaskFault::Shorter);
    assert_eq!(refused(Step::Extended(LATEST_MS + 1)), TaskFault::TooLate);
    let by_itself =
        Change { by: Named { type_name: "Agent".into(), id: "bot".into() }, ..change(6, Step::Extended(25)) };
    assert!(matches!(life.check(&by_itself, at(6)), Err(TaskFault::OwnTask(_))));
    assert_eq!(life.check(&change(20, Step::Extended(25)), at(20)), Err(TaskFault::Over("t".into())));
    assert_eq!(life.check(&change(20, Step::Ended), at(20)), Ok(()));
    let long = Change { reason: "x".repeat(WORD_BYTES_MAX + 1).into(), ..change(6, Step::Ended) };
    assert_eq!(life.check(&long, at(6)), Err(TaskFault::TooMuch));
}

#[test]
fn an_approval_has_a_scope_a_window_and_another_approver() {
    let now = at(1);
    assert_eq!(approval().check(now), Ok(()));
    let with = |change: &dyn Fn(&mut Approval)| {
        let mut one = approval();
        change(&mut one);
        one.check(now).unwrap_err()
    };
    assert_eq!(with(&|one| one.task.actions.clear()), TaskFault::NoActions);
    assert_eq!(with(&|one| one.task.not_after_ms = None), TaskFault::NoWindow);
    assert_eq!(with(&|one| one.task.not_after_ms = Some(1)), TaskFault::NoWindow);
    assert_eq!(with(&|one| one.task.not_after_ms = Some(2)), TaskFault::NoWindow);
    assert_eq!(with(&|one| one.latest_end_ms = 19), TaskFault::TooLong);
    assert_eq!(with(&|one| one.latest_end_ms = LIFE_MAX_MS + 1), TaskFault::TooLong);
    assert!(matches!(with(&|one| one.approved_by = Named::from(&one.agent)), TaskFault::OwnTask(_)));
    assert_eq!(with(&|one| one.task.id = "".into()), TaskFault::TooMuch);
    assert_eq!(with(&|one| one.task.purpose = "x".repeat(257).into()), TaskFault::TooMuch);
    let many: Vec<SmolStr> = (0..=SCOPE_MAX).map(|at| format!("{at}").into()).collect();
    assert_eq!(with(&|one| one.task.actions.clone_from(&many)), TaskFault::TooMuch);
    let wordy: Vec<SmolStr> = (0..200).map(|at| format!("{at:0200}").into()).collect();
    assert_eq!(with(&|one| one.task.actions.clone_from(&wordy)), TaskFault::TooMuch);
}

#[test]
fn only_its_agent_uses_it_and_only_for_whom_it_was_approved() {
    let life = Life::new(approval());
    let (bot, ann, bob) = (uid("Agent::\"bot\""), uid("Person::\"ann\""), uid("Person::\"bob\""));
    let chain = |chain: &[&Uid]| {
        let mut attempt = Attempt::given(
            (*chain.last().unwrap()).clone(),
            uid("Action::\"read\""),
            uid("T::\"a\""),
            cardea_policy_store::engine::Record::default(),
        );
        attempt.delegation = chain[..chain.len() - 1].iter().map(|hop| (*hop).clone()).collect();
        life.serves(&attempt)
    };
    let helper = uid("Agent::\"helper\"");
    assert!(chain(&[&ann, &bot]) && chain(&[&ann, &bot, &helper]) && chain(&[&bob, &ann, &bot]));
    assert!(!chain(&[&bot]) && !chain(&[&bob, &bot]) && !chain(&[&ann, &helper]) && !chain(&[&bot, &ann]));
}
