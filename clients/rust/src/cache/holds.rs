//! Which holds stand for which keys: plain bookkeeping of one stream, without the stream.
//!
//! Limit: as many holds as there are places for allows. A hold whose answer may not be reused any more is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::key::Keys;

/// One hold.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) keys: Keys,
    /// Under which it is found in [`Holds`]: the key of the answer at registration.
    name: Arc<[u8]>,
    /// Generation of the table when it was asked for.
    pub(super) generation: u64,
    /// When the registration was handed to the stream.
    pub(super) sent_ns: u64,
    /// Whether the first answer came.
    pub(super) answered: bool,
    /// When it is given up, unless an answer says otherwise.
    until_ns: u64,
}

/// What is to be registered.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) attempt: crate::v1::Attempt,
    pub(super) keys: Keys,
    pub(super) on_context: bool,
    pub(super) generation: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Holds {
    max: usize,
    last_id: u64,
    by_id: BTreeMap<u64, Hold>,
    by_name: BTreeMap<Arc<[u8]>, u64>,
    /// When each is given up.
    ends: BTreeSet<(u64, u64)>,
}

impl Holds {
    pub(super) fn new(max: usize) -> Self {
        Self { max, last_id: 0, by_id: BTreeMap::new(), by_name: BTreeMap::new(), ends: BTreeSet::new() }
    }

    /// A new hold, with its id and that of the one whose place it takes; `None` if there is no place.
    pub(super) fn add(&mut self, wanted: &Wanted, now_ns: u64, until_ns: u64) -> Option<(u64, Option<u64>)> {
        let name: Arc<[u8]> = wanted.keys.of(wanted.on_context).bytes.into();
        let before = self.by_name.get(&name).copied();
        if let Some(before) = before {
            self.remove(before);
        }
        if self.by_id.len() >= self.max {
            return None;
        }
        // Never used twice: what is told of an old one must not be taken for the new one.
        self.last_id += 1;
        let hold = Hold {
            keys: wanted.keys.clone(),
            name: Arc::clone(&name),
            generation: wanted.generation,
            sent_ns: now_ns,
            answered: false,
            until_ns,
        };
        self.by_id.insert(self.last_id, hold);
        self.by_name.insert(name, self.last_id);
        self.ends.insert((until_ns, self.last_id));
        Some((self.last_id, before))
    }

    pub(super) fn get(&self, id: u64) -> Option<&Hold> {
        self.by_id.get(&id)
    }

    /// An answer came that may be reused until then.
    pub(super) fn answered(&mut self, id: u64, until_ns: u64) {
        if let Some(hold) = self.by_id.get_mut(&id) {
            self.ends.remove(&(hold.until_ns, id));
            hold.answered = true;
            hold.until_ns = until_ns;
            self.ends.insert((until_ns, id));
        }
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Hold> {
        let hold = self.by_id.remove(&id)?;
        self.ends.remove(&(hold.until_ns, id));
        if self.by_name.get(&hold.name) == Some(&id) {
            self.by_name.remove(&hold.name);
        }
        Some(hold)
    }

    /// Gives up what is over, at most so many at once.
    pub(super) fn over(&mut self, now_ns: u64, most: usize) -> Vec<u64> {
        let over: Vec<u64> =
            self.ends.iter().take_while(|(end, _)| *end <= now_ns).take(most).map(|(_, id)| *id).collect();
        over.iter().for_each(|id| drop(self.remove(*id)));
        over
    }

    /// Gives up what was not answered.
    pub(super) fn forget_unanswered(&mut self) {
        let unanswered: Vec<u64> =
            self.by_id.iter().filter(|(_, hold)| !hold.answered).map(|(id, _)| *id).collect();
        unanswered.into_iter().for_each(|id| drop(self.remove(id)));
    }

    pub(super) fn clear(&mut self) {
        self.by_id.clear();
        self.by_name.clear();
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attempt, entity, v1};

    /// Named by the principal, with one value of context.
    fn wanted([name, value]: [&str; 2], on_context: bool) -> Wanted {
        let value = v1::Value { kind: Some(v1::value::Kind::String(value.into())) };
        let context = [("x".to_owned(), value)].into_iter().collect();
        let attempt = v1::Attempt { context, ..attempt(entity("Agent", name), "read", entity("Doc", "d")) };
        let keys = Keys::new(&attempt, &ahash::RandomState::new());
        Wanted { attempt, keys, on_context, generation: 0 }
    }

    #[test]
    fn a_hold_stands_for_one_key_and_a_new_one_takes_its_place() {
        let mut holds = Holds::new(10);
        assert_eq!(holds.add(&wanted(["a", "b"], true), 0, 5), Some((1, None)));
        assert_eq!(holds.add(&wanted(["a", "c"], true), 0, 5), Some((2, None)));
        assert_eq!(holds.add(&wanted(["a", "b"], true), 1, 6), Some((3, Some(1))));
        assert_eq!(holds.add(&wanted(["a", "b"], false), 1, 7), Some((4, None)));
        assert_eq!(holds.add(&wanted(["a", "c"], false), 1, 7), Some((5, Some(4))), "whatever the context");
        assert!(holds.get(1).is_none() && holds.get(3).is_some());
    }

    #[test]
    fn what_is_over_is_given_up_and_makes_room() {
        let mut holds = Holds::new(2);
        holds.add(&wanted(["a", ""], true), 0, 5);
        holds.add(&wanted(["b", ""], true), 0, 6);
        assert_eq!(holds.add(&wanted(["c", ""], true), 0, 6), None);
        holds.answered(1, 9);
        assert_eq!(holds.over(8, 10), [2]);
        assert_eq!(holds.over(9, 10), [1]);
        assert_eq!(holds.add(&wanted(["c", ""], true), 0, 6), Some((3, None)));
        assert_eq!((holds.by_id.len(), holds.by_name.len(), holds.ends.len()), (1, 1, 1));
    }

    #[test]
    fn what_was_not_answered_is_forgotten_alone() {
        let mut holds = Holds::new(9);
        holds.add(&wanted(["a", ""], true), 0, 5);
        holds.add(&wanted(["b", ""], true), 0, 6);
        holds.answered(2, 9);
        holds.forget_unanswered();
        assert!(holds.get(1).is_none() && holds.get(2).is_some_and(|hold| hold.answered));
        holds.clear();
        assert!(holds.over(u64::MAX, 9).is_empty());
    }
}
