//! Time, as an argument.

/// One reading of both clocks, taken together once per attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Now {
    /// Monotonic, in nanoseconds since an arbitrary start; for durations within this process.
    pub mono_ns: u64,
    /// Wall clock, in milliseconds since 1970-01-01T00:00:00Z; for what is compared with times from outside.
    pub wall_ms: i64,
}

/// What an age or a remaining time is when the thing is unknown or endless: ten years, in seconds. Large enough
/// for every "older than", small enough that policies can calculate with it.
pub const UNKNOWN_AGE_S: i64 = 10 * 365 * 24 * 3600;

impl Now {
    /// Nanoseconds from `earlier` to this instant; 0 when `earlier` is later.
    #[must_use]
    pub fn since_ns(self, earlier: Self) -> u64 {
        self.mono_ns.saturating_sub(earlier.mono_ns)
    }

    /// Whole seconds since a wall time; 0 if it lies in the future, at most [`UNKNOWN_AGE_S`].
    #[must_use]
    pub fn since_s(self, wall_ms: i64) -> i64 {
        (self.wall_ms.saturating_sub(wall_ms) / 1000).clamp(0, UNKNOWN_AGE_S)
    }

    /// Whole seconds until a wall time; 0 if it has passed, at most [`UNKNOWN_AGE_S`].
    #[must_use]
    pub fn until_s(self, wall_ms: i64) -> i64 {
        (wall_ms.saturating_sub(self.wall_ms) / 1000).clamp(0, UNKNOWN_AGE_S)
    }
}
