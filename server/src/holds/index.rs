//! Which holds depend on what.
//!
//! Owns: for each key the holds that depend on it, and which aspects of it they read. A hold always depends on what can
//! end it whatever policy says (standing, cut-offs, its session); on a risk, a credential, a posture, a task or a grant only
//! if its candidate policies read that.
//! INVARIANT (exactly those): `dependents` gives the holds whose facts a change can reach, no more and no fewer.
//! Never does: judging, knowing streams.

use std::collections::BTreeMap;

use ahash::AHashMap;
use smallvec::SmallVec;

use crate::state::Key;

/// Which sides of a key somebody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aspects(u8);

impl Aspects {
    /// What matters to every hold: the end of a session, standing, cut-offs, and all that has no aspect of its own.
    pub(super) const ALWAYS: Self = Self(1);
    /// The risk of a principal.
    pub(super) const RISK: Self = Self(2);
    /// When its credential changed.
    pub(super) const CREDENTIAL: Self = Self(4);

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn when(self, condition: bool) -> Self {
        if condition { self } else { Self(0) }
    }

    /// As a number, to tell two apart.
    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What one hold depends on.
pub(super) type Dependencies = SmallVec<[(Key, Aspects); 4]>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: AHashMap<Key, Dependents>,
    /// What each hold is entered under.
    holds: Vec<Dependencies>,
}

/// Nearly every key has one hold; some have a hundred thousand.
#[derive(Debug)]
enum Dependents {
    One(u32, Aspects),
    Many(BTreeMap<u32, Aspects>),
}

impl Index {
    /// Says what a hold depends on from now on. A key that is named twice counts once, with the aspects of both.
    pub(super) fn set(&mut self, hold: u32, mut on: Dependencies) {
        let place = usize::try_from(hold).unwrap_or(usize::MAX);
        merge(&mut on);
        if self.holds.get(place).is_some_and(|known| *known == on) {
            return;
        }
        self.remove(hold);
        if self.holds.len() <= place {
            self.holds.resize_with(place.saturating_add(1), Dependencies::new);
        }
        for (key, aspects) in &on {
            match self.keys.get_mut(key) {
                Some(dependents) => dependents.insert(hold, *aspects),
                None => {
                    self.keys.insert(key.clone(), Dependents::One(hold, *aspects));
                }
            }
        }
        if let Some(known) = self.holds.get_mut(place) {
            *known = on;
        }
    }

    /// Forgets a hold.
    pub(super) fn remove(&mut self, hold: u32) {
        let place = usize::try_from(hold).unwrap_or(usize::MAX);
        let Some(known) = self.holds.get_mut(place).map(std::mem::take) else { return };
        for (key, _) in &known {
            if self.keys.get_mut(key).is_some_and(|dependents| dependents.remove(hold)) {
                self.keys.remove(key);
            }
        }
    }

    /// The holds that read one of these aspects of a key, in rising order.
    pub(super) fn dependents(&self, key: &Key, of: Aspects, mut visit: impl FnMut(u32)) {
        match self.keys.get(key) {
            None => {}
            Some(Dependents::One(hold, aspects)) if aspects.meets(of) => visit(*hold),
            Some(Dependents::One(..)) => {}
            Some(Dependents::Many(holds)) => {
                holds.iter().filter(|(_, aspects)| aspects.meets(of)).for_each(|(hold, _)| visit(*hold));
            }
        }
    }

    /// How many keys have holds.
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }
}

impl Dependents {
    fn insert(&mut self, hold: u32, aspects: Aspects) {
        match self {
            Self::One(other, of_other) => {
                *self = Self::Many(BTreeMap::from([(*other, *of_other), (hold, aspects)]));
            }
            Self::Many(holds) => {
                holds.insert(hold, aspects);
            }
        }
    }

    /// Whether nobody is left.
    fn remove(&mut self, hold: u32) -> bool {
        match self {
            Self::One(other, _) => *other == hold,
            Self::Many(holds) => {
                holds.remove(&hold);
                if let (1, Some((last, aspects))) = (holds.len(), holds.first_key_value()) {
                    *self = Self::One(*last, *aspects);
                }
                false
            }
        }
    }
}

fn merge(on: &mut Dependencies) {
    let mut merged = Dependencies::new();
    for (key, aspects) in on.drain(..) {
        match merged.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = known.and(aspects),
            None => merged.push((key, aspects)),
        }
    }
    *on = merged;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> Key {
        match number % 3 {
            0 => Key::Session(number.to_string().into()),
            1 => Key::Task(number.to_string().into()),
            _ => Key::Tenant(number.to_string().into()),
        }
    }

    fn found(index: &Index, key: &Key, of: Aspects) -> Vec<u32> {
        let mut found = Vec::new();
        index.dependents(key, of, |hold| found.push(hold));
        found
    }

    #[test]
    fn a_hold_that_does_not_read_an_aspect_is_not_found_by_it() {
        let mut index = Index::default();
        index.set(1, [(key(0), Aspects::ALWAYS)].into_iter().collect());
        index.set(2, [(key(0), Aspects::ALWAYS.and(Aspects::RISK))].into_iter().collect());
        assert_eq!(found(&index, &key(0), Aspects::RISK), [2]);
        assert_eq!(found(&index, &key(0), Aspects::ALWAYS), [1, 2]);
        index.remove(2);
        assert!(found(&index, &key(0), Aspects::RISK).is_empty());
    }

    #[test]
    fn nothing_is_left_of_holds_that_are_gone() {
        let mut index = Index::default();
        for hold in 0..100 {
            index.set(hold, [(key(0), Aspects::ALWAYS), (key(1), Aspects::RISK)].into_iter().collect());
        }
        (0..100).for_each(|hold| index.remove(hold));
        assert_eq!(index.keys(), 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u32, Vec<(u8, u8)>),
        Remove(u32),
        Change(u8, u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let on = prop::collection::vec((0..6_u8, 0..8_u8), 0..5);
        prop_oneof![
            3 => (0..12_u32, on).prop_map(|(hold, on)| Step::Set(hold, on)),
            1 => (0..12_u32).prop_map(Step::Remove),
            3 => (0..6_u8, 1..8_u8).prop_map(|(of, aspects)| Step::Change(of, aspects)),
        ]
    }

    proptest! {
        /// The reference looks at every hold for every change.
        #[test]
        fn a_change_finds_exactly_the_holds_that_read_it(steps in prop::collection::vec(step(), 0..80)) {
            let mut index = Index::default();
            let mut holds: BTreeMap<u32, Vec<(u8, u8)>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Set(hold, on) => {
                        index.set(hold, on.iter().map(|(of, aspects)| (key(*of), Aspects(*aspects))).collect());
                        holds.insert(hold, on);
                    }
                    Step::Remove(hold) => {
                        index.remove(hold);
                        holds.remove(&hold);
                    }
                    Step::Change(of, aspects) => {
                        let reads = |on: &&(u8, u8)| on.0 == of && on.1 & aspects != 0;
                        let expected: Vec<u32> = holds
                            .iter()
                            .filter(|(_, on)| on.iter().any(|on| reads(&on)))
                            .map(|(hold, _)| *hold)
                            .collect();
                        prop_assert_eq!(found(&index, &key(of), Aspects(aspects)), expected);
                    }
                }
            }
        }
    }
}
