//! How long to wait after a failure: exponential with full jitter.
//!
//! A pure state machine: the random number is passed in, and it knows no clock. Waits lie between
//! [`limits::REMOTE_BACKOFF_MIN`] and a ceiling that doubles from [`limits::REMOTE_BACKOFF_FIRST`] up to
//! [`limits::REMOTE_BACKOFF_MAX`].

use std::time::Duration;

use crate::limits;

/// Doublings after which the ceiling stands for certain.
const DOUBLINGS_MAX: u32 = 16;

/// Failures in a row and the wait that they ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts one more failure and returns the wait before the next attempt. Any `random` picks evenly between the
    /// shortest wait and the ceiling, so that nodes that failed together do not come back together.
    pub fn next(&mut self, random: u64) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        let span = ceiling.saturating_sub(limits::REMOTE_BACKOFF_MIN);
        limits::REMOTE_BACKOFF_MIN + share(span, random)
    }

    /// The longest wait that the next failure can ask for.
    #[must_use]
    pub fn ceiling(&self) -> Duration {
        let doubled = limits::REMOTE_BACKOFF_FIRST.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX));
        doubled.min(limits::REMOTE_BACKOFF_MAX)
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The part of `span` that `random` picks, from nothing to all of it.
pub(super) fn share(span: Duration, random: u64) -> Duration {
    let nanos = span.as_nanos().saturating_mul(u128::from(random)) / u128::from(u64::MAX);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Failure(u64),
        Success,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![4 => any::<u64>().prop_map(Event::Failure), 1 => Just(Event::Success)]
    }

    proptest! {
        #[test]
        fn waits_stay_between_the_floor_and_a_ceiling_that_doubles(events in proptest::collection::vec(event(), 0..60)) {
            let mut backoff = Backoff::default();
            let mut in_a_row = 0_u32;
            for event in events {
                match event {
                    Event::Failure(random) => {
                        let wait = backoff.next(random);
                        let doubled = limits::REMOTE_BACKOFF_FIRST.as_secs_f64() * 2_f64.powi(in_a_row.cast_signed());
                        let ceiling = doubled.min(limits::REMOTE_BACKOFF_MAX.as_secs_f64());
                        prop_assert!(wait >= limits::REMOTE_BACKOFF_MIN);
                        prop_assert!(wait.as_secs_f64() <= ceiling, "{:?} beyond {}", wait, ceiling);
                        in_a_row += 1;
                    }
                    Event::Success => {
                        backoff.reset();
                        in_a_row = 0;
                    }
                }
                prop_assert_eq!(backoff.failures(), in_a_row);
            }
        }

        #[test]
        fn a_larger_random_number_never_waits_less(failures in 0_u32..40, low in any::<u64>(), high in any::<u64>()) {
            let (low, high) = (low.min(high), low.max(high));
            let at = Backoff { failures };
            let (mut one, mut other) = (at, at);
            prop_assert!(one.next(low) <= other.next(high));
        }
    }

    #[test]
    fn the_whole_span_is_used() {
        let mut backoff = Backoff { failures: 30 };
        assert_eq!(backoff.next(0), limits::REMOTE_BACKOFF_MIN);
        assert_eq!(backoff.next(u64::MAX), limits::REMOTE_BACKOFF_MAX);
    }

    #[test]
    fn failures_without_end_do_not_overflow() {
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.next(u64::MAX), limits::REMOTE_BACKOFF_MAX);
        assert_eq!(backoff.failures(), u32::MAX);
    }
}
