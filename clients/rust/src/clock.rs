//! The client's clock: the only file that reads one.

use std::time::Instant;

/// Monotonic time since the clock was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place of the client that reads time")]
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the clock was made.
    pub(crate) fn now_ns(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
