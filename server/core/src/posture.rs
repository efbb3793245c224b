//! The posture of a device: whether it meets its owner's rules, by the newest report.
//!
//! INVARIANT (order): the newest report counts, and of two of the same time the strict one, in whichever order they come.

/// What was last heard of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posture {
    /// Whether it meets the rules.
    pub compliant: bool,
    /// When that was so, Unix milliseconds.
    pub event_ms: i64,
}

impl Posture {
    /// Whether `other` is to be believed instead.
    #[must_use]
    pub fn yields_to(self, other: Self) -> bool {
        (self.event_ms, !self.compliant) < (other.event_ms, !other.compliant)
    }

    /// Takes in another report; `false` if this one stays.
    pub fn hear(&mut self, other: Self) -> bool {
        let yields = self.yields_to(other);
        if yields {
            *self = other;
        }
        yields
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_newest_and_strictest_report_stays(reports in prop::collection::vec((any::<bool>(), 0..5i64), 1..8)) {
            let all = reports.iter().map(|&(compliant, event_ms)| Posture { compliant, event_ms });
            let mut heard = all.clone().next().unwrap();
            all.clone().for_each(|report| { heard.hear(report); });
            let newest = all.clone().map(|report| report.event_ms).max().unwrap();
            let strict = all.clone().filter(|report| report.event_ms == newest).all(|report| report.compliant);
            prop_assert_eq!(heard, Posture { compliant: strict, event_ms: newest });
            prop_assert!(!all.clone().any(|report| heard.hear(report)));
        }
    }
}
