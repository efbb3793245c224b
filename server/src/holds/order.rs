//! Up to which state version every change was heard: versions may be heard out of their order, for whoever changes a fact
//! takes its version a moment before it tells of it.
//!
//! Limits: [`AHEAD_MAX`] versions ahead of one that is missing; as many threads never change facts at once.

use std::collections::BTreeSet;

/// With more than this the missing one never came.
const AHEAD_MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Order {
    through: u64,
    ahead: BTreeSet<u64>,
}

impl Order {
    /// Every change up to this version counts as heard.
    pub(super) fn new(through: u64) -> Self {
        Self { through, ahead: BTreeSet::new() }
    }

    /// A change was heard.
    pub(super) fn hear(&mut self, version: u64) {
        if version <= self.through {
            return;
        }
        self.ahead.insert(version);
        if self.ahead.len() > AHEAD_MAX
            && let Some(first) = self.ahead.first()
        {
            self.through = first - 1;
        }
        self.go_on();
    }

    fn go_on(&mut self) {
        while self.ahead.first().is_some_and(|first| *first == self.through + 1) {
            self.ahead.pop_first();
            self.through += 1;
        }
    }

    /// Every change up to this version counts as heard, whatever was missed.
    pub(super) fn skip_to(&mut self, version: u64) {
        self.through = self.through.max(version);
        self.ahead = self.ahead.split_off(&(self.through + 1));
        self.go_on();
    }

    /// Up to here.
    pub(super) fn through(&self) -> u64 {
        self.through
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_counts_only_when_all_before_it_were_heard() {
        let mut order = Order::new(10);
        order.hear(12);
        order.hear(13);
        order.hear(9);
        assert_eq!(order.through(), 10);
        order.hear(11);
        assert_eq!(order.through(), 13);
    }

    #[test]
    fn what_never_comes_does_not_hold_up_for_ever() {
        let mut order = Order::new(0);
        (2..=4098).for_each(|version| order.hear(version));
        assert_eq!(order.through(), 4098);
    }

    #[test]
    fn after_a_gap_it_goes_on_behind_it() {
        let mut order = Order::new(0);
        order.hear(7);
        order.skip_to(6);
        assert_eq!(order.through(), 7);
        order.skip_to(9);
        assert_eq!(order.through(), 9);
    }
}
