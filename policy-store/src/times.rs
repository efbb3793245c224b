//! What a condition reads of time: which facts change by themselves as time passes, and at which values of theirs the
//! condition can come out differently.
//!
//! Found once, when a bundle is loaded; `cardea-core` turns it into points in time. Equal sets are shared.
//! INVARIANT (no change unseen): between two instants at which no threshold is crossed and no opaque fact changes, the
//! condition comes out the same. Never holds a value of a fact, and never says how a condition comes out.

use crate::fragment::{Fact, Needs};

/// Milliseconds of a day.
pub const DAY_MS: i64 = 24 * 3600 * 1000;

/// Where a condition can come out differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Threshold {
    /// A numeric fact comes to be, or ceases to be, at least `from`.
    Value {
        /// The fact: an age, a remaining time, or the risk score.
        fact: Fact,
        /// The lower of the two values between which the threshold lies is `from - 1`.
        from: i64,
    },
    /// One of these kinds of signals ceases to be a reason of the risk: bit n stands for
    /// [`crate::fragment::RISK_KINDS`]`[n]`.
    Reasons(u8),
    /// The task's window opens or closes.
    Window,
    /// A source of signals has been silent for too long.
    Silence,
    /// This instant, Unix milliseconds.
    Instant(i64),
    /// This time of every day, in milliseconds since midnight UTC.
    TimeOfDay(i64),
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Times {
    pub(crate) thresholds: Box<[Threshold]>,
    pub(crate) opaque: Needs,
}

impl Times {
    /// Where the condition can come out differently, in order.
    #[must_use]
    pub fn thresholds(&self) -> &[Threshold] {
        &self.thresholds
    }

    /// Facts that change as time passes and that the condition does more with than comparing them with constants; the time
    /// itself stands here as the whole group `now`. It can come out differently whenever one of them changes.
    #[must_use]
    pub fn opaque(&self) -> Needs {
        self.opaque
    }
}
