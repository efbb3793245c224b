//! The one place that reads time.
//!
//! A [`Clock`] is cheap to clone and is handed to whoever needs the time; [`Clock::now`] takes one monotonic
//! and one wall reading together, once per attempt or event, and the pair travels as an argument from there.
//! Units: monotonic time in nanoseconds since the clock was made (584 years fit), wall time in milliseconds
//! since the Unix epoch.
//! Never does: sleeping, timers, time zones.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use cardea_core::time::Now;

/// Where the time comes from: the machine, or a test that moves it.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    Machine { origin: Instant },
    Moved(Arc<Hands>),
}

/// The movable time of a test clock.
#[derive(Debug)]
struct Hands {
    mono_ns: AtomicU64,
    wall_ms: AtomicI64,
}

impl Clock {
    /// The machine's clock; monotonic time starts at 0 here.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    pub fn machine() -> Self {
        Self(Source::Machine { origin: Instant::now() })
    }

    /// A clock that stands still until [`Clock::advance`] or [`Clock::set_wall_ms`] moves it. Clones share
    /// the same hands.
    #[must_use]
    pub fn standing_at(wall_ms: i64) -> Self {
        Self(Source::Moved(Arc::new(Hands { mono_ns: AtomicU64::new(0), wall_ms: AtomicI64::new(wall_ms) })))
    }

    /// Both readings, taken together.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now(&self) -> Now {
        match &self.0 {
            Source::Machine { origin } => {
                Now { mono_ns: saturating_ns(origin.elapsed()), wall_ms: unix_ms(SystemTime::now()) }
            }
            Source::Moved(hands) => Now {
                mono_ns: hands.mono_ns.load(Ordering::Acquire),
                wall_ms: hands.wall_ms.load(Ordering::Acquire),
            },
        }
    }

    /// The monotonic reading alone: half the price, for measuring how long something took.
    #[must_use]
    pub fn mono_ns(&self) -> u64 {
        match &self.0 {
            Source::Machine { origin } => saturating_ns(origin.elapsed()),
            Source::Moved(hands) => hands.mono_ns.load(Ordering::Acquire),
        }
    }

    /// Moves both readings of a test clock on. Returns false, and does nothing, on the machine's clock.
    pub fn advance(&self, by: Duration) -> bool {
        let Source::Moved(hands) = &self.0 else { return false };
        hands.mono_ns.fetch_add(saturating_ns(by), Ordering::AcqRel);
        hands.wall_ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::AcqRel);
        true
    }

    /// Sets only the wall reading of a test clock, forwards or backwards, as an operator or NTP would.
    /// Returns false, and does nothing, on the machine's clock.
    pub fn set_wall_ms(&self, wall_ms: i64) -> bool {
        let Source::Moved(hands) = &self.0 else { return false };
        hands.wall_ms.store(wall_ms, Ordering::Release);
        true
    }
}

fn saturating_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Before 1970 counts backwards, so that a machine with a broken clock still orders its events.
fn unix_ms(at: SystemTime) -> i64 {
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_time_rises_and_reads_this_century() {
        let clock = Clock::machine();
        let first = clock.now();
        let second = clock.now();
        assert!(second.mono_ns >= first.mono_ns);
        assert!(first.wall_ms > 1_700_000_000_000, "wall time {} ms", first.wall_ms);
        assert!(!clock.advance(Duration::from_secs(1)), "the machine's clock cannot be moved");
    }

    #[test]
    fn clones_of_a_test_clock_move_together() {
        let clock = Clock::standing_at(1_000);
        let other = clock.clone();
        assert!(clock.advance(Duration::from_millis(250)));
        assert_eq!(other.now(), Now { mono_ns: 250_000_000, wall_ms: 1_250 });
        assert_eq!(other.mono_ns(), 250_000_000);
    }

    #[test]
    fn a_wall_step_backwards_leaves_monotonic_time_alone() {
        let clock = Clock::standing_at(5_000);
        clock.advance(Duration::from_secs(1));
        let before = clock.now();
        clock.set_wall_ms(0);
        let after = clock.now();
        assert_eq!(after.since_ns(before), 0);
        assert_eq!(after.wall_ms, 0);
    }

    #[test]
    fn time_before_1970_is_negative() {
        assert_eq!(unix_ms(UNIX_EPOCH - Duration::from_millis(7)), -7);
    }
}
