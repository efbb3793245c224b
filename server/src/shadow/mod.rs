//! A candidate bundle evaluated beside the one in force, on live attempts.
//!
//! ```text
//! judge -> picked at random -> Sample -> queue -> thread `shadow` -> candidate's verdict -> Tally, metrics, records
//! ```
//!
//! Owns: the candidate, the queue, what was found. While no shadow is on, a decision pays one relaxed load.
//! Promises: nobody waits for a shadow: a sample is made of shared pieces, a full queue is counted, the thread takes at
//! most half of one core, and a panic in it ends the shadow and nothing else. The candidate sees the facts and the time
//! of the decision itself.
//! Limits: [`limits::SHADOW_SAMPLES_MAX`] samples wait; see `tally` for groups and records.
//! Never does: changing state, answering anybody, judging attempts that the bundle in force could not read.

mod sample;
mod tally;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use cardea_policy_store::snapshot::Snapshot;
use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;

use crate::bundle_admin::{Asked, Source};
use crate::limits;
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::shutdown::{Phase, Shutdown};
use cardea_proto::v1::record::Entry;

pub use sample::Effect;
pub(crate) use sample::{Answer, Occasion, Sample};
pub use tally::{GROUPS_MAX, Group, GroupKey, POLICIES_SHOWN, RECORDS_PER_GROUP, Step, Tally};

/// Shares are parts of this.
pub const SAMPLE_WHOLE: u32 = 10_000;

/// What is evaluated, and how often.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The candidate, verified and compiled.
    pub snapshot: Arc<Snapshot>,
    /// Where it came from, so that it can be put in force.
    pub source: Source,
    /// How many of [`SAMPLE_WHOLE`] attempts are evaluated.
    pub sample_per_10000: u32,
    /// Who started it, and why.
    pub asked: Asked,
    /// When it was started, Unix milliseconds.
    pub started_ms: i64,
}

/// One shadow, from its start to its end.
#[derive(Debug)]
pub struct Run {
    /// What is evaluated.
    pub candidate: Candidate,
    tally: Mutex<Tally>,
    skipped: Since,
    unread: Since,
}

/// A count of the process, since the start of a run.
#[derive(Debug)]
struct Since {
    count: Arc<AtomicU64>,
    start: u64,
}

impl Since {
    fn now(count: &Arc<AtomicU64>) -> Self {
        Self { count: Arc::clone(count), start: count.load(Ordering::Relaxed) }
    }

    fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed).saturating_sub(self.start)
    }
}

impl Run {
    /// What was found so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally.lock().clone()
    }

    /// Attempts that were picked and found the queue full.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped.get()
    }

    /// Attempts that were picked and could not be read by the bundle in force.
    #[must_use]
    pub fn unread(&self) -> u64 {
        self.unread.get()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Shadow {
    /// How many of [`SAMPLE_WHOLE`] attempts are picked; 0: no shadow is on.
    rate: AtomicU32,
    waiting: ArrayQueue<Box<Sample>>,
    current: Mutex<Option<Arc<Run>>>,
    skipped: Arc<AtomicU64>,
    unread: Arc<AtomicU64>,
    thread: OnceLock<Thread>,
    metrics: Arc<Metrics>,
}

impl Shadow {
    /// Off.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            rate: AtomicU32::new(0),
            waiting: ArrayQueue::new(limits::SHADOW_SAMPLES_MAX),
            current: Mutex::new(None),
            skipped: Arc::default(),
            unread: Arc::default(),
            thread: OnceLock::new(),
            metrics,
        }
    }

    /// Turns it on; `None` if one is on already and `replace` is false. Gives the new one and the one before.
    pub fn start(&self, candidate: Candidate, replace: bool) -> Option<(Arc<Run>, Option<Arc<Run>>)> {
        let mut current = self.current.lock();
        if current.is_some() && !replace {
            return None;
        }
        // What still waits was picked for the one before.
        while self.waiting.pop().is_some() {}
        let rate = candidate.sample_per_10000.min(SAMPLE_WHOLE);
        self.show_revision(candidate.snapshot.settings().revision);
        let run = Arc::new(Run {
            candidate,
            tally: Mutex::default(),
            skipped: Since::now(&self.skipped),
            unread: Since::now(&self.unread),
        });
        let before = current.replace(Arc::clone(&run));
        self.rate.store(rate, Ordering::Relaxed);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
        Some((run, before))
    }

    /// Turns it off, if it is the one that is on; any, if `only` is `None`. Gives what was on.
    pub fn stop(&self, only: Option<&Arc<Run>>) -> Option<Arc<Run>> {
        let mut current = self.current.lock();
        if let (Some(only), Some(on)) = (only, current.as_ref())
            && !Arc::ptr_eq(only, on)
        {
            return None;
        }
        self.rate.store(0, Ordering::Relaxed);
        self.show_revision(0);
        current.take()
    }

    /// The one that is on.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Run>> {
        self.current.lock().clone()
    }

    /// Samples that wait for the thread.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the next attempt is to be evaluated.
    #[inline]
    pub(crate) fn picks(&self) -> bool {
        match self.rate.load(Ordering::Relaxed) {
            0 => false,
            rate => fastrand::u32(..SAMPLE_WHOLE) < rate,
        }
    }

    /// Takes a sample, or counts it; never waits for the thread.
    pub(crate) fn offer(&self, sample: Box<Sample>) {
        if self.waiting.push(sample).is_err() {
            self.metrics.shadow.skipped.increment(1);
            self.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts an attempt that the bundle in force could not read.
    #[cold]
    pub(crate) fn count_unread(&self) {
        self.metrics.shadow.unread.increment(1);
        self.unread.fetch_add(1, Ordering::Relaxed);
    }

    /// Evaluates until the process stops.
    ///
    /// # Errors
    /// Never.
    pub fn run(&self, pipeline: &Pipeline, shutdown: &Shutdown) -> Result<(), Infallible> {
        let _already_set = self.thread.set(thread::current());
        while shutdown.phase() == Phase::Running {
            let began = pipeline.now();
            // The thread's own hold on the candidate ends with the round.
            let rest = match self.current() {
                None => limits::SHADOW_IDLE,
                Some(run) => {
                    self.round(&run, pipeline);
                    let worked = Duration::from_nanos(pipeline.now().since_ns(began));
                    worked.max(limits::SHADOW_INTERVAL)
                }
            };
            thread::park_timeout(rest);
        }
        Ok(())
    }

    fn round(&self, run: &Arc<Run>, pipeline: &Pipeline) {
        let all = AssertUnwindSafe(|| {
            for _ in 0..limits::SHADOW_SAMPLES_MAX {
                let Some(sample) = self.waiting.pop() else { return };
                self.evaluate(run, &sample, pipeline);
            }
        });
        if catch_unwind(all).is_err() {
            self.metrics.panics.increment(1);
            self.stop(Some(run));
            tracing::error!(
                digest = %run.candidate.snapshot.digest(),
                "the evaluation of the candidate panicked; the shadow is off, decisions are not touched"
            );
        }
    }

    fn evaluate(&self, run: &Run, sample: &Sample, pipeline: &Pipeline) {
        let candidate = &*run.candidate.snapshot;
        let verdict = sample.judge(candidate);
        let answer = Answer::from(&verdict);
        let effect = sample.effect(candidate, &answer);
        let step = effect.map(|effect| Step {
            effect,
            candidate: answer.decision,
            in_force: sample.answer.decision,
        });
        self.metrics.shadow.evaluated.increment(1);
        if let Some(counter) = step.and_then(|step| self.metrics.shadow.steps.get(&step)) {
            counter.increment(1);
        }
        // Decisions come first: a shadow leaves half of the audit's places to them.
        let has_room = pipeline.audit().has_room();
        let to_record = run.tally.lock().count(sample, candidate, &answer, step, has_room);
        if let (Some(effect), true) = (effect, to_record) {
            let record = Entry::Shadow(sample.record(candidate, &answer, effect));
            pipeline.record(record, sample.occasion.now);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
    fn show_revision(&self, revision: u64) {
        self.metrics.shadow.revision.set(revision as f64);
    }
}
