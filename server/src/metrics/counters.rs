//! What bundles count.

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::state::CountersUsage;

/// See the module.
#[derive(Clone)]
pub struct CounterMetrics {
    subjects: Gauge,
    reservations: Gauge,
    refused: Counter,
    unsettleable: Counter,
    committed: Counter,
    released: Counter,
    lost: Counter,
    unwritten: Counter,
}

impl std::fmt::Debug for CounterMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CounterMetrics").finish_non_exhaustive()
    }
}

impl CounterMetrics {
    pub(super) fn register() -> Self {
        let settled = |outcome: &'static str| counter!("cardea_counter_settled_total", "outcome" => outcome);
        Self {
            subjects: gauge!("cardea_counter_subjects"),
            reservations: gauge!("cardea_counter_reservations"),
            refused: counter!("cardea_counter_full_total"),
            unsettleable: counter!("cardea_counter_unsettleable_total"),
            committed: settled("committed"),
            released: settled("released"),
            lost: counter!("cardea_counter_losses_total"),
            unwritten: counter!("cardea_counter_unwritten_total"),
        }
    }

    pub(super) fn describe() {
        describe_gauge!("cardea_counter_subjects", Unit::Count, "Subjects of whom something is counted");
        describe_gauge!("cardea_counter_reservations", Unit::Count, "Allows that can be settled, or were");
        describe_counter!(
            "cardea_counter_full_total",
            Unit::Count,
            "Places that attempts did not get because the table is full"
        );
        describe_counter!(
            "cardea_counter_unsettleable_total",
            Unit::Count,
            "Allows that count and cannot be given back, for want of room"
        );
        describe_counter!("cardea_counter_settled_total", Unit::Count, "Allows settled, by outcome");
        describe_counter!(
            "cardea_counter_losses_total",
            Unit::Count,
            "Starts without the newest counts; nothing was warm after them"
        );
        describe_counter!(
            "cardea_counter_unwritten_total",
            Unit::Count,
            "Snapshots of what is counted that could not be written"
        );
    }

    /// Shows how things stand.
    #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
    pub fn show(&self, usage: &CountersUsage) {
        self.subjects.set(usage.subjects as f64);
        self.reservations.set(usage.reservations as f64);
        self.refused.absolute(usage.refused);
        self.unsettleable.absolute(usage.unsettleable);
        self.committed.absolute(usage.committed);
        self.released.absolute(usage.released);
        self.lost.absolute(usage.lost);
        self.unwritten.absolute(usage.unwritten);
    }
}
