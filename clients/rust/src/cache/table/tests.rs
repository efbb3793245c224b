//! The table against a model that remembers everything.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::v1;

fn verdict(id: u64) -> Arc<Verdict> {
    let basis = v1::Basis { state_version: id, ..v1::Basis::default() };
    Arc::new(Verdict { decision_id: id.to_string(), basis: Some(basis), ..Verdict::default() })
}

impl Table {
    fn key<'k>(&self, bytes: &'k [u8]) -> Key<'k> {
        Key { hash: self.hashing.hash_one(bytes), bytes }
    }

    fn find_key(&self, key: &[u8], at_least: u64, link: &Link, now_ns: u64) -> Option<Arc<Verdict>> {
        self.find(self.key(key).hash, |stored| stored == key, at_least, link, now_ns)
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Key, lease, held lease and how long it outlives the stream; held under the stream that is open.
    Store(u8, u64, Option<(u64, u64)>),
    /// The same, asked for before everything was forgotten, or that key was taken back.
    StoreLate(u8, u64, bool),
    Remove(u8),
    Pass(u64),
    Open,
    Hear,
    Lose,
    Forget,
    Find(u8, u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let key = || 0..6u8;
    prop_oneof![
        4 => (key(), 0..30u64, prop::option::of((0..60u64, 0..20u64))).prop_map(|(key, free, held)| Step::Store(key, free, held)),
        1 => (key(), 0..30u64, any::<bool>()).prop_map(|(key, free, all)| Step::StoreLate(key, free, all)),
        1 => key().prop_map(Step::Remove),
        4 => (0..15u64).prop_map(Step::Pass),
        1 => Just(Step::Open),
        2 => Just(Step::Hear),
        1 => Just(Step::Lose),
        1 => Just(Step::Forget),
        8 => (key(), 0..40u64).prop_map(|(key, at_least)| Step::Find(key, at_least)),
    ]
}

/// How long a stream counts as there after something was heard.
const PATIENCE: u64 = 10;

#[derive(Clone, Debug)]
struct Known {
    id: u64,
    until: u64,
    /// Number of the stream, end, loss.
    held: Option<(u64, u64, u64)>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// `places`: with many it gives out exactly what the model does, with one set never more.
    #[test]
    fn it_gives_out_what_may_be_reused_and_nothing_else(
        steps in prop::collection::vec(any_step(), 0..60), roomy in any::<bool>()
    ) {
        let (table, link) = (Table::new(if roomy { 4096 } else { 1 }), Link::default());
        let mut model: BTreeMap<u8, Known> = BTreeMap::new();
        let (mut now, mut stream, mut there_until, mut id) = (1u64, 0u64, 0u64, 0u64);
        for step in steps {
            match step {
                Step::Store(key, free, held) => {
                    id += 1;
                    let held = held.filter(|_| stream > 0);
                    let kept = Kept {
                        verdict: verdict(id),
                        until_ns: now + free,
                        held: held.map(|(ms, loss)| Held { stream, until_ns: now + ms, loss_max_ns: loss }),
                    };
                    if kept.ends_ns() > now {
                        model.insert(key, Known { id, until: now + free, held: held.map(|(ms, loss)| (stream, now + ms, loss)) });
                    }
                    table.store(table.key(&[key]), kept, table.asked(table.key(&[key])), now);
                }
                Step::StoreLate(key, free, all) => {
                    id += 1;
                    let kept = Kept { verdict: verdict(id), until_ns: now + free, held: None };
                    let before = table.asked(table.key(&[key]));
                    if all {
                        table.forget_all();
                        model.clear();
                    } else {
                        table.remove(table.key(&[key]));
                        model.remove(&key);
                    }
                    table.store(table.key(&[key]), kept, before, now);
                }
                Step::Remove(key) => {
                    model.remove(&key);
                    table.remove(table.key(&[key]));
                }
                Step::Pass(time) => now += time,
                Step::Open => {
                    stream = link.opened(now + PATIENCE);
                    there_until = now + PATIENCE;
                }
                Step::Hear if now < there_until => {
                    link.heard(now + PATIENCE);
                    there_until = now + PATIENCE;
                }
                Step::Hear => {}
                Step::Lose => {
                    link.lost(now);
                    there_until = there_until.min(now);
                }
                Step::Forget => {
                    model.clear();
                    table.forget_all();
                }
                Step::Find(key, at_least) => {
                    prop_assert_eq!(link.is_there(now), now < there_until);
                    let expected = model.get(&key).filter(|known| {
                        let free = now < known.until;
                        let held = known.held.is_some_and(|(of, until, loss)| {
                            of == stream && now < until && now < there_until + loss
                        });
                        known.id >= at_least && (free || held)
                    });
                    let found = table.find_key(&[key], at_least, &link, now).map(|verdict| verdict.decision_id.clone());
                    let expected = expected.map(|known| known.id.to_string());
                    if roomy || found.is_some() {
                        prop_assert_eq!(found, expected);
                    }
                }
            }
        }
    }
}

#[test]
fn a_full_set_drops_what_ends_first() {
    let (table, link) = (Table::new(WAYS), Link::default());
    let keep = |key: u8, until_ns| {
        let key = [key];
        let key = table.key(&key);
        table.store(key, Kept { verdict: verdict(1), until_ns, held: None }, table.asked(key), 0)
    };
    for key in 0..8 {
        keep(key, 100 + u64::from(key));
    }
    keep(8, 50);
    let found: Vec<u8> = (0..9).filter(|key| table.find_key(&[*key], 0, &link, 1).is_some()).collect();
    assert_eq!(found, [1, 2, 3, 4, 5, 6, 7, 8], "the newest always has a place");
}

#[test]
fn keys_of_equal_hash_are_told_apart() {
    let table = Table::new(1);
    let link = Link::default();
    let keep = |key, id| {
        table.store(key, Kept { verdict: verdict(id), until_ns: 10, held: None }, table.asked(key), 0)
    };
    let find = |bytes: &[u8]| {
        table.find(7, |stored| stored == bytes, 0, &link, 1).map(|verdict| verdict.decision_id.clone())
    };
    keep(Key { hash: 7, bytes: b"one" }, 1);
    assert_eq!(find(b"two"), None);
    keep(Key { hash: 7, bytes: b"two" }, 2);
    assert_eq!((find(b"one").as_deref(), find(b"two").as_deref()), (Some("1"), Some("2")));
    table.remove(Key { hash: 7, bytes: b"one" });
    assert_eq!((find(b"one"), find(b"two").as_deref()), (None, Some("2")));
}
