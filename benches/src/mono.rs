//! The clock of the benches: monotonic reads, the canary that notices a throttled host, the idle spinner.
//!
//! The benches measure real time, so this is the one place that reads it; nothing here can be moved by a test.

use std::{
    os::unix::process::parent_id,
    time::{Duration, Instant},
};

/// Clock reads between two looks at the parent in [`spin_while_parent_lives`]: about 50 ms of spinning.
const SPINS_PER_LOOK: u32 = 1 << 21;

/// Reads the monotonic clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a bench measures real time; it has no clock to inject")]
pub fn now() -> Instant {
    Instant::now()
}

/// Spins for `span` and returns the largest gap between two clock reads: how long this core was taken away.
/// A host that throttles the machine shows here although it does not show as steal time.
#[must_use]
pub fn largest_gap(span: Duration) -> Duration {
    let start = now();
    let (mut last, mut largest) = (start, Duration::ZERO);
    while last.duration_since(start) < span {
        let read = now();
        largest = largest.max(read.duration_since(last));
        last = read;
    }
    largest
}

/// Keeps a core from going idle, so that no wake-up pays for leaving the idle state. Meant to run under
/// `SCHED_IDLE`, where it yields to everything else. Returns when the parent process is gone.
pub fn spin_while_parent_lives() {
    let parent = parent_id();
    while parent_id() == parent {
        for _ in 0..SPINS_PER_LOOK {
            std::hint::spin_loop();
        }
    }
}

/// A duration in whole nanoseconds, saturating.
#[must_use]
pub fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canary_lasts_its_span_and_sees_a_gap_no_longer_than_that() {
        let span = Duration::from_millis(20);
        let start = now();
        let gap = largest_gap(span);
        let took = start.elapsed();
        assert!(took >= span);
        assert!(gap > Duration::ZERO && gap <= took, "gap {gap:?} within {took:?}");
    }
}
