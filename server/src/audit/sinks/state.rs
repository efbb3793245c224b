//! How a sink is doing: for Status and metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use smol_str::SmolStr;

use super::options::SinkOptions;
use crate::metrics::SinkMetrics;

/// What a sink's thread tells.
#[derive(Debug)]
pub struct SinkState {
    name: SmolStr,
    kind: &'static str,
    metrics: SinkMetrics,
    /// Everything before this record is delivered, dead or not wanted.
    next: AtomicU64,
    delivered: AtomicU64,
    dead: AtomicU64,
    missed: AtomicU64,
    fault: Mutex<Option<String>>,
}

/// What Status shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkStats {
    /// Its name.
    pub name: SmolStr,
    /// `file`, `http`, …
    pub kind: &'static str,
    /// The next record that it is to get.
    pub next_sequence: u64,
    /// Records delivered since the start; what was sent again counts again.
    pub delivered: u64,
    /// Records in its dead letters.
    pub dead: u64,
    /// Records that retention took before they were delivered, since the start.
    pub missed: u64,
    /// Why it takes nothing at the moment.
    pub fault: Option<String>,
}

impl SinkState {
    pub(super) fn new(options: &SinkOptions, metrics: SinkMetrics) -> Self {
        Self {
            name: options.name.clone(),
            kind: options.to.kind(),
            metrics,
            next: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            fault: Mutex::new(None),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &SmolStr {
        &self.name
    }

    /// How it is doing.
    #[must_use]
    pub fn stats(&self) -> SinkStats {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        SinkStats {
            name: self.name.clone(),
            kind: self.kind,
            next_sequence: read(&self.next),
            delivered: read(&self.delivered),
            dead: read(&self.dead),
            missed: read(&self.missed),
            fault: self.fault.lock().clone(),
        }
    }

    pub(super) fn reached(&self, next: u64) {
        self.next.store(next, Ordering::Relaxed);
    }

    pub(super) fn delivered(&self, records: usize) {
        self.delivered.fetch_add(records as u64, Ordering::Relaxed);
        self.metrics.delivered.increment(records as u64);
    }

    pub(super) fn dead(&self, all: u64) {
        self.dead.store(all, Ordering::Relaxed);
    }

    pub(super) fn died(&self, all: u64) {
        self.dead(all);
        self.metrics.dead.increment(1);
    }

    pub(super) fn missed(&self, records: u64) {
        self.missed.fetch_add(records, Ordering::Relaxed);
        self.metrics.missed.increment(records);
    }

    /// Notes why it takes nothing; says whether that is news.
    pub(super) fn failed(&self, why: &str) -> bool {
        self.metrics.failures.increment(1);
        self.metrics.fault.set(1.0);
        self.fault.lock().replace(why.to_owned()).is_none()
    }

    /// Notes that it takes records; says whether that is news.
    pub(super) fn works(&self) -> bool {
        self.metrics.fault.set(0.0);
        self.fault.lock().take().is_some()
    }

    /// Tells how far it is behind.
    pub fn show_lag(&self, last_sequence: u64) {
        let next = self.next.load(Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        self.metrics.lag.set((last_sequence + 1).saturating_sub(next.max(1)) as f64);
    }
}
