//! What becomes of step-ups that ask for an approval.

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

/// See the module.
#[derive(Clone)]
pub struct ReviewMetrics {
    /// Reviews, or further rounds of one, that were opened.
    pub opened: Counter,
    /// Not opened: too many waited for the desk.
    pub skipped: Counter,
    /// Not opened: the table is full.
    pub full: Counter,
    /// Not opened: the principal has too many.
    pub too_many: Counter,
    /// Not opened: the arguments are too large.
    pub too_large: Counter,
    /// Reviews in memory.
    pub held: Gauge,
    /// Approved tasks in memory.
    pub tasks: Gauge,
}

impl std::fmt::Debug for ReviewMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReviewMetrics").finish_non_exhaustive()
    }
}

impl ReviewMetrics {
    pub(super) fn register() -> Self {
        let not_opened =
            |reason: &'static str| counter!("cardea_reviews_not_opened_total", "reason" => reason);
        Self {
            opened: counter!("cardea_reviews_opened_total"),
            skipped: not_opened("busy"),
            full: not_opened("full"),
            too_many: not_opened("principal"),
            too_large: not_opened("arguments"),
            held: gauge!("cardea_reviews"),
            tasks: gauge!("cardea_tasks"),
        }
    }

    pub(super) fn describe() {
        describe_counter!(
            "cardea_reviews_opened_total",
            Unit::Count,
            "Reviews opened, further rounds included"
        );
        describe_counter!(
            "cardea_reviews_not_opened_total",
            Unit::Count,
            "Step-ups without a review, by reason"
        );
        describe_gauge!("cardea_reviews", Unit::Count, "Reviews in memory");
        describe_gauge!("cardea_tasks", Unit::Count, "Approved tasks in memory");
    }
}
