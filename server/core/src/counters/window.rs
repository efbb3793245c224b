//! How many of something happened in a sliding window, in fixed memory.
//!
//! The window is cut into [`PARTS`] parts; a ring holds how many happened in each, and beyond now how many places are reserved
//! up to when. INVARIANT (never fewer): [`Window::count`] is at least what counts in the window that ends now; it is more by no
//! more than what happened in the one part before. A place that is reserved until later counts from now on and until a window
//! after that, unless it is given back or settled: nobody has to watch for its end.
//! Time is milliseconds that never go back; a reading that is older than the newest one counts as that one.

/// Parts of a window: a count is let go at most a sixteenth of the window too late.
pub const PARTS: u64 = 16;
/// Slots of the ring: the window with the part that it leaves, and as much ahead.
pub const SLOTS: usize = 34;
/// The same as a number of parts.
const RING: u64 = 34;
/// Parts ahead of now.
const AHEAD: u64 = PARTS + 1;

const _: () = assert!(RING == PARTS + 1 + AHEAD, "each part in sight has a slot of its own");

/// One part of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part(pub u64);

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    part_ms: u64,
    /// The part that now lies in.
    now: u64,
    total: u64,
    slots: [u32; SLOTS],
}

impl Window {
    /// An empty one of that length.
    #[must_use]
    pub fn new(window_ms: u64, at_ms: u64) -> Self {
        let part_ms = window_ms.div_ceil(PARTS).max(1);
        Self { part_ms, now: at_ms / part_ms, total: 0, slots: [0; SLOTS] }
    }

    /// Time goes on.
    pub fn advance(&mut self, at_ms: u64) {
        let now = at_ms / self.part_ms;
        if now <= self.now {
            return;
        }
        // Each part that comes into sight takes the slot of the one that leaves the window.
        let first = self.now + AHEAD + 1;
        for part in first..first + (now - self.now).min(RING) {
            if let Some(slot) = self.slots.get_mut(slot_of(part)) {
                self.total -= u64::from(std::mem::take(slot));
            }
        }
        self.now = now;
    }

    /// How many count.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// Whether none counts any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.total == 0
    }

    /// Takes a place, reserved until then (at most one window ahead); in the past: it counts now.
    pub fn take(&mut self, until_ms: u64) -> Part {
        let part = (until_ms / self.part_ms).clamp(self.now, self.now + AHEAD);
        self.add(part, 1);
        Part(part)
    }

    /// Gives a place back. One that counts no more is gone already.
    pub fn give_back(&mut self, Part(part): Part) {
        if !self.sees(part) {
            return;
        }
        // A full slot does not know how many it stands for.
        let slot = self.slots.get_mut(slot_of(part)).filter(|slot| (1..u32::MAX).contains(*slot));
        if let Some(slot) = slot {
            *slot -= 1;
            self.total -= 1;
        }
    }

    /// What a place was reserved for has happened now.
    pub fn settle(&mut self, part: Part) {
        // First the new place, so that a count is never missing.
        self.add(self.now, 1);
        self.give_back(part);
    }

    /// The parts in which anything counts, with how much.
    pub fn parts(&self) -> impl Iterator<Item = (Part, u32)> {
        let seen = self.now.saturating_sub(PARTS)..=self.now + AHEAD;
        let held = |part: u64| (Part(part), self.slots.get(slot_of(part)).copied().unwrap_or(0));
        seen.map(held).filter(|(_, count)| *count > 0)
    }

    /// Puts back what [`Self::parts`] gave. What lies outside of the window is gone; what lies too far ahead, as after the
    /// clock went back, counts as long as anything can.
    pub fn restore(&mut self, Part(part): Part, count: u32) {
        if part.saturating_add(PARTS) >= self.now {
            self.add(part.min(self.now + AHEAD), count);
        }
    }

    fn sees(&self, part: u64) -> bool {
        part.saturating_add(PARTS) >= self.now && part <= self.now + AHEAD
    }

    fn add(&mut self, part: u64, count: u32) {
        if let Some(slot) = self.slots.get_mut(slot_of(part)) {
            let before = *slot;
            *slot = before.saturating_add(count);
            self.total += u64::from(*slot - before);
        }
    }
}

fn slot_of(part: u64) -> usize {
    usize::try_from(part % RING).unwrap_or(0)
}
