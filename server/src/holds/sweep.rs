//! Judging all holds again, in parts: after a new bundle, or when more changed than is told apart.
//!
//! A hold that was judged since the sweep began is passed over. For a new bundle the thread rests where it is faster than
//! [`limits::HOLD_SWEEP_PER_SECOND`], so that decisions find a core.

use std::time::Duration;

use cardea_core::time::Now;

use super::Cause;
use super::engine::Engine;
use super::judging::Why;
use crate::limits;

/// All holds are judged again, from the first place to the last.
pub(super) struct Sweep {
    why: Why,
    next: u32,
    judged: u64,
    /// State changed and not only the bundle: `told` must not rise before the end.
    pub(super) is_of_state: bool,
    began_ns: u64,
    pub(super) rest_until_ns: u64,
}

impl<S> Engine<S> {
    pub(super) fn begin_sweep(&mut self, cause: Cause, now: Now, is_of_state: bool) {
        self.epoch += 1;
        self.sweep = Some(Sweep {
            why: Why::new(cause, now),
            next: 0,
            judged: 0,
            is_of_state,
            began_ns: now.mono_ns,
            rest_until_ns: 0,
        });
    }

    /// Judges the next part of a sweep. One for a new bundle rests where it is faster than it must be.
    pub(super) fn sweep_on(&mut self) {
        let Some(mut sweep) = self.sweep.take() else { return };
        let now = self.pipeline.now();
        if now.mono_ns < sweep.rest_until_ns {
            self.sweep = Some(sweep);
            return;
        }
        let part = if sweep.is_of_state { limits::HOLD_CHUNK } else { limits::HOLD_SWEEP_CHUNK };
        let mut judged = 0;
        while judged < part && sweep.next < self.book.places() {
            if self.book.get(sweep.next).is_some_and(|hold| hold.epoch < self.epoch) {
                self.judge(sweep.next, &sweep.why);
                judged += 1;
            }
            sweep.next += 1;
        }
        sweep.judged += u64::try_from(judged).unwrap_or(u64::MAX);
        if sweep.next >= self.book.places() {
            let took = Duration::from_nanos(self.pipeline.now().mono_ns.saturating_sub(sweep.began_ns));
            let metrics = &self.pipeline.metrics().holds;
            metrics.sweep_seconds.set(took.as_secs_f64());
            metrics.sweeps.increment(1);
            return;
        }
        if !sweep.is_of_state {
            let due_ns = sweep.judged.saturating_mul(1_000_000_000) / limits::HOLD_SWEEP_PER_SECOND;
            sweep.rest_until_ns = sweep.began_ns.saturating_add(due_ns);
        }
        self.sweep = Some(sweep);
    }
}
