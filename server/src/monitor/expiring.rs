//! A map of bounded size that forgets what was put in first.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// See the module.
pub(super) struct Expiring<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
    most: usize,
}

impl<K: Eq + Hash + Clone, V: Default> Expiring<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self { map: HashMap::new(), order: VecDeque::new(), most }
    }

    /// The value of a key, new if need be, and what had to go for it.
    pub(super) fn entry(&mut self, key: &K) -> (&mut V, Option<V>) {
        let mut gone = None;
        if !self.map.contains_key(key) {
            if self.order.len() >= self.most {
                gone = self.order.pop_front().and_then(|oldest| self.map.remove(&oldest));
            }
            self.order.push_back(key.clone());
        }
        (self.map.entry(key.clone()).or_default(), gone)
    }

    /// All values, the first that was put in first.
    pub(super) fn into_values(mut self) -> impl Iterator<Item = V> {
        self.order.into_iter().filter_map(move |key| self.map.remove(&key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_goes_when_it_is_full() {
        let mut map = Expiring::<u8, u8>::new(2);
        for key in [1, 2, 1, 3] {
            let (value, gone) = map.entry(&key);
            *value += 1;
            assert_eq!(gone, (key == 3).then_some(2));
        }
        assert_eq!(map.into_values().collect::<Vec<_>>(), [1, 1]);
    }
}
