//! A histogram with fixed bounds: one atomic add for the bucket and one for the sum.
//!
//! The Prometheus recorder's own histograms keep every single sample until the next scrape, which at a million
//! decisions per second grows without bound; this one has a fixed size.
//! Never does: quantiles; they are computed from the buckets by whoever reads them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts samples by bucket.
#[derive(Debug)]
pub(super) struct Histogram {
    /// Upper bounds, inclusive, rising, in the unit of the samples.
    bounds: &'static [u64],
    /// One per bound and one for what is above the last.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// The counts of one or more histograms of the same bounds at an instant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Totals {
    /// Cumulative, one per bound.
    pub(super) at_most: Vec<u64>,
    pub(super) count: u64,
    pub(super) sum: u64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.is_sorted(), "the search below needs rising bounds");
        Self {
            bounds,
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    pub(super) fn record(&self, sample: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < sample);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(sample, Ordering::Relaxed);
    }

    /// Adds up histograms of the same bounds.
    pub(super) fn totals<'h>(bounds: &'static [u64], parts: impl Iterator<Item = &'h Self>) -> Totals {
        let mut counts = vec![0_u64; bounds.len() + 1];
        let mut sum = 0_u64;
        for part in parts {
            for (count, bucket) in counts.iter_mut().zip(&part.buckets) {
                *count += bucket.load(Ordering::Relaxed);
            }
            sum = sum.wrapping_add(part.sum.load(Ordering::Relaxed));
        }
        let mut running = 0;
        let mut at_most: Vec<u64> = counts
            .iter()
            .map(|count| {
                running += count;
                running
            })
            .collect();
        at_most.truncate(bounds.len());
        Totals { at_most, count: running, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[u64] = &[10, 100];

    #[test]
    fn a_sample_on_a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(BOUNDS);
        for sample in [0, 10, 11, 100, 101, 5_000] {
            histogram.record(sample);
        }
        let totals = Histogram::totals(BOUNDS, std::iter::once(&histogram));
        assert_eq!(totals, Totals { at_most: vec![2, 4], count: 6, sum: 5_222 });
    }

    #[test]
    fn parts_add_up() {
        let parts = [Histogram::new(BOUNDS), Histogram::new(BOUNDS)];
        parts[0].record(1);
        parts[1].record(50);
        assert_eq!(
            Histogram::totals(BOUNDS, parts.iter()),
            Totals { at_most: vec![1, 2], count: 2, sum: 51 }
        );
    }
}
