//! Whatever happens: what enforcement points believe is what judging every hold anew would say.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Add { hold: u64, agent: u8, root: Option<u8>, session: u8, action: u8 },
    Drop(u64),
    Open(u8, u8),
    End(u8),
    EndAll(u8),
    Risk(u8, bool),
    Disable(u8, bool),
    Credential(u8),
    Swap(bool),
    Wait(u16),
    Read,
    Break,
}

fn step() -> impl Strategy<Value = Step> {
    let agent = || 0..3_u8;
    prop_oneof![
        6 => (1..12_u64, agent(), prop::option::of(agent()), 0..4_u8, 0..3_u8).prop_map(
            |(hold, agent, root, session, action)| Step::Add { hold, agent, root, session, action }
        ),
        1 => (1..12_u64).prop_map(Step::Drop),
        4 => (0..4_u8, agent()).prop_map(|(session, agent)| Step::Open(session, agent)),
        2 => (0..4_u8).prop_map(Step::End),
        1 => agent().prop_map(Step::EndAll),
        3 => (agent(), any::<bool>()).prop_map(|(agent, high)| Step::Risk(agent, high)),
        2 => (agent(), any::<bool>()).prop_map(|(agent, to)| Step::Disable(agent, to)),
        1 => agent().prop_map(Step::Credential),
        1 => any::<bool>().prop_map(Step::Swap),
        1 => (0..3000_u16).prop_map(Step::Wait),
        2 => Just(Step::Read),
        1 => Just(Step::Break),
    ]
}

const ACTIONS: [&str; 3] = ["read", "list", "work"];
const OTHER_POLICIES: &str = r#"
permit(principal, action, resource) when { context.session.known };
forbid(principal, action == Action::"list", resource) when { context.risk.score > 50 };
"#;

/// Agent, root of the chain, session and action of one hold.
type Held = (u8, Option<u8>, u8, u8);

/// One enforcement point: what it holds and what it believes.
struct Point {
    opened: Opened<Said>,
    heard: u64,
    holds: BTreeMap<u64, Held>,
    believes: BTreeMap<u64, Decision>,
}

impl Point {
    fn read(&mut self) {
        while let Some(batch) = self.opened.outbox.take(2) {
            let Batch::Answers { answers, sequence, .. } = batch else { panic!("nothing overflows here") };
            self.heard = sequence;
            self.believes.extend(answers.into_iter().map(|(hold, answer)| (hold, answer.said.0)));
        }
        self.believes.retain(|hold, _| self.holds.contains_key(hold));
    }
}

fn parts<'a>(names: &'a [String; 3], root: &'a [(&'a str, &'a str)], action: u8) -> Parts<'a> {
    Parts { delegation: root, ..Node::read_by(&names[0], ACTIONS[usize::from(action)], &names[1]) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happened: what an enforcement point believes is what a fresh judgement of every hold says, and a change of
    /// fact judges exactly the holds that it can reach.
    #[test]
    fn what_is_told_is_what_judging_every_hold_anew_would_say(steps in prop::collection::vec(step(), 1..60)) {
        let mut node = Node::new();
        let opened = node.open();
        let mut point = Point { opened, heard: 0, holds: BTreeMap::new(), believes: BTreeMap::new() };
        let mut revision = 1;
        let mut reads_risk: BTreeSet<u8> = [0].into();
        for step in steps {
            node.clock.advance(Duration::from_millis(2));
            node.settle();
            let (judged, version) = (node.judged_at_all(), node.pipeline.state().version());
            // Which holds a change can reach, found by looking at all of them.
            let reached = |reaches: &dyn Fn(&Held) -> bool| point.holds.values().filter(|hold| reaches(hold)).count();
            let mut expected = None;
            match step {
                Step::Add { hold, agent, root, session, action } => {
                    let names = [format!("a{agent}"), format!("s{session}"), format!("a{}", root.unwrap_or(0))];
                    let chain = [("Agent", names[2].as_str())];
                    node.add(&point.opened, hold, parts(&names, &chain[..usize::from(root.is_some())], action));
                    point.holds.insert(hold, (agent, root, session, action));
                }
                Step::Drop(hold) => {
                    node.engine.drop_holds(point.opened.stream, &point.opened.outbox, &[hold]);
                    point.holds.remove(&hold);
                }
                Step::Open(session, agent) => {
                    let opened = Session::open(format!("s{session}").into(), node.agent(&format!("a{agent}")), START_MS + LIFE_MS, node.clock.now());
                    if node.pipeline.state().open(opened, 0, node.clock.now()).is_ok() {
                        expected = Some(reached(&|hold| hold.2 == session));
                    }
                }
                Step::End(session) => {
                    node.end(&format!("s{session}"));
                    expected = Some(reached(&|hold| hold.2 == session));
                }
                Step::EndAll(agent) => {
                    let now = node.clock.now();
                    let target = Target::Principal(node.agent(&format!("a{agent}")), now.wall_ms);
                    node.pipeline.state().end(&target, &"x".into(), LIFE_MS, now).unwrap();
                }
                Step::Risk(agent, high) => {
                    node.risk(&format!("a{agent}"), if high { 90 } else { 0 });
                    let reads = reads_risk.clone();
                    expected = Some(reached(&|hold| (hold.0 == agent || hold.1 == Some(agent)) && reads.contains(&hold.3)));
                }
                Step::Disable(agent, to) => {
                    let standing = if to { Standing::Disabled } else { Standing::Enabled };
                    node.apply(Change::Standing(node.agent(&format!("a{agent}")), standing));
                }
                Step::Credential(agent) => {
                    // No policy here reads it.
                    node.apply(Change::Credential(node.agent(&format!("a{agent}"))));
                    expected = Some(0);
                }
                Step::Swap(other) => {
                    revision += 1;
                    node.swap(revision, if other { OTHER_POLICIES } else { POLICIES });
                    reads_risk = if other { [1].into() } else { [0].into() };
                }
                Step::Wait(ms) => {
                    node.clock.advance(Duration::from_millis(ms.into()));
                }
                Step::Read => point.read(),
                Step::Break => {
                    // What is on the way is lost.
                    while point.opened.outbox.take(3).is_some() {}
                    point.opened.outbox.leave(false);
                    node.clock.advance(limits::HOLD_ROUND);
                    node.settle();
                    point.opened = node.resume(point.opened.token, point.heard);
                    prop_assert_eq!(point.opened.resumed, !point.holds.is_empty(), "an empty one is not kept");
                    point.heard = point.opened.sequence;
                }
            }
            let of_time = node.judged(CauseKind::Time);
            let touched = node.pipeline.state().version() - version;
            node.settle();
            if let (Some(expected), 1) = (expected, touched) {
                let by_time = node.judged(CauseKind::Time) - of_time;
                prop_assert_eq!(node.judged_at_all() - judged - by_time, expected as u64);
            }
        }
        node.settle();
        point.read();
        for (hold, (agent, root, session, action)) in &point.holds {
            let names = [format!("a{agent}"), format!("s{session}"), format!("a{}", root.unwrap_or(0))];
            let chain = [("Agent", names[2].as_str())];
            let attempt = node.attempt(parts(&names, &chain[..usize::from(root.is_some())], *action));
            let snapshot = node.pipeline.policy().snapshot();
            let fresh = node.pipeline.reconsider(snapshot.as_deref(), Ok(&attempt), node.clock.now());
            prop_assert_eq!(point.believes.get(hold), Some(&fresh.verdict.decision()), "hold {}", hold);
        }
        prop_assert_eq!(node.holds.told(), node.pipeline.state().version());
        let views = node.engine.list(Listing { stream: None, after_hold: 0, holds_max: 0 });
        let others = point.believes.values().filter(|decision| **decision != Decision::Allow).count();
        let counted: Vec<_> = views.iter().filter(|view| view.connected).map(|view| (view.holds, view.not_allowed)).collect();
        prop_assert_eq!(counted, [(point.holds.len(), others)]);
    }
}
