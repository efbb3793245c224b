//! Bursts between identities and resources: MIDAS-F (Bhatia et al., arXiv 2009.08452) with lazy ticks.
//!
//! Three count-min sketches count edges, sources and destinations. Each counter keeps the current count, which halves at each tick,
//! and the total so far, into which the current count is merged at each tick only if the counter's last score was below a threshold: a
//! burst is not learned as normal. The paper walks over all counters at each tick; here a counter catches up
//! when it is next touched, in constant time, so no attempt pays for a tick. Fixed memory; deterministic: only IEEE additions,
//! multiplications and divisions.

use serde::Deserialize;

use super::fingerprint::{Fingerprint, Kind};

/// Counters in a row; a power of two.
const WIDTH: usize = 2_048;
/// Rows of a sketch.
const ROWS: usize = 2;
/// Halvings after which nothing that counts remains.
const HALVINGS_MAX: u32 = 24;

/// How bursts are counted.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counting {
    /// Length of a tick, in seconds, at least 1.
    pub tick_s: u32,
    /// Score below which a rate is learned as normal.
    pub merge_below: f32,
}

impl Default for Counting {
    fn default() -> Self {
        Self { tick_s: 60, merge_below: 1_000.0 }
    }
}

impl Counting {
    /// The number of the tick at a Unix time in seconds.
    #[must_use]
    pub fn tick(&self, second: i64) -> u32 {
        u32::try_from(second / i64::from(self.tick_s.max(1))).unwrap_or(1)
    }
}

/// One counter.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    current: f32,
    total: f32,
    score: f32,
    tick: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct BurstDetector {
    edges: Sketch,
    sources: Sketch,
    destinations: Sketch,
    merge_below: f32,
    first_tick: Option<u32>,
}

/// A count-min sketch.
#[derive(Clone, Debug)]
struct Sketch {
    cells: Box<[[Cell; WIDTH]; ROWS]>,
}

impl BurstDetector {
    /// One that has seen nothing. What scores less than `merge_below` is learned as normal; the paper takes 1,000.
    #[must_use]
    pub fn new(merge_below: f32) -> Self {
        Self {
            edges: Sketch::new(),
            sources: Sketch::new(),
            destinations: Sketch::new(),
            merge_below,
            first_tick: None,
        }
    }

    /// Takes in one edge and says how unusual its rate is: 0 for what is as ever. `tick` counts spans of time of one's choice, from
    /// whatever number; one that is earlier than the latest counts as the latest. Fingerprints are keyed, so nobody can aim
    /// at somebody else's counter.
    pub fn observe(&mut self, source: Fingerprint, destination: Fingerprint, tick: u32) -> f32 {
        let tick = self.since_first(tick);
        let own = self.add_own(source, destination, tick);
        own.max(self.destinations.add(destination, tick, self.merge_below))
    }

    /// As [`Self::observe`], and only what the source itself does: where an answer to one depends on it, the rate of all at the same
    /// destination would let one that floods it have the others refused.
    pub fn observe_own(&mut self, source: Fingerprint, destination: Fingerprint, tick: u32) -> f32 {
        let tick = self.since_first(tick);
        self.add_own(source, destination, tick)
    }

    /// Means are over the ticks since the first edge, whatever the clock's count was then.
    fn since_first(&mut self, tick: u32) -> u32 {
        let first = *self.first_tick.get_or_insert(tick);
        tick.saturating_sub(first).saturating_add(1)
    }

    fn add_own(&mut self, source: Fingerprint, destination: Fingerprint, tick: u32) -> f32 {
        let edge = self.edges.add(source.with(destination, Kind::Edge), tick, self.merge_below);
        edge.max(self.sources.add(source, tick, self.merge_below))
    }

    /// Bytes that it takes.
    #[must_use]
    pub const fn bytes() -> usize {
        3 * ROWS * WIDTH * size_of::<Cell>()
    }
}

impl Sketch {
    fn new() -> Self {
        Self { cells: Box::new([[Cell::default(); WIDTH]; ROWS]) }
    }

    fn add(&mut self, key: Fingerprint, tick: u32, merge_below: f32) -> f32 {
        let [first, second] = &mut *self.cells;
        // WIDTH is a power of two: the mask is below it.
        let (Some(one), Some(other)) = (first.get_mut(low(key.0)), second.get_mut(low(key.0 >> 32))) else {
            return 0.0;
        };
        one.catch_up(tick, merge_below);
        other.catch_up(tick, merge_below);
        one.current += 1.0;
        other.current += 1.0;
        let (current, total) = (one.current.min(other.current), one.total.min(other.total));
        let score = score(current, total, tick.max(one.tick).max(other.tick));
        one.score = score;
        other.score = score;
        score
    }
}

impl Cell {
    /// What the ticks since it was last touched do to it, in closed form.
    fn catch_up(&mut self, tick: u32, merge_below: f32) {
        let since = tick.saturating_sub(self.tick);
        if since == 0 {
            return;
        }
        if self.tick > 0 {
            let rest = remains(since);
            if self.score < merge_below {
                // current × (1 + 1/2 + 1/4 + …), one term for each tick.
                self.total += self.current * (1.0 - rest) * 2.0;
            } else {
                // Each tick adds the mean so far, so the mean stays: total × t / (t - 1), telescoped.
                self.total *= ratio(tick, self.tick);
            }
            self.current *= rest;
        }
        self.tick = tick;
    }
}

/// (tick - 1) / (earlier - 1): 1 for the first tick, of which there is no mean.
fn ratio(tick: u32, earlier: u32) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "a ratio of counts of ticks")]
    let ratio = (tick.max(2) - 1) as f32 / (earlier.max(2) - 1) as f32;
    ratio
}

/// The chi-squared of a current count against the mean of the ticks before.
fn score(current: f32, total: f32, tick: u32) -> f32 {
    if total == 0.0 || tick <= 1 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of ticks")]
    let tick = tick as f32;
    let over = (current - total / tick) * tick;
    if over <= 0.0 { 0.0 } else { over * over / (total * (tick - 1.0)) }
}

/// What remains of a count after so many ticks. Halving is exact, so the exponent is written as such.
fn remains(ticks: u32) -> f32 {
    match ticks {
        0..=HALVINGS_MAX => f32::from_bits((127 - ticks) << 23),
        _ => 0.0,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "masked to the width")]
const fn low(key: u64) -> usize {
    key as usize & (WIDTH - 1)
}
