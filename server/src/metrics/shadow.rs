//! What the shadow counts: attempts by what became of them, and differences by the two answers.

use std::collections::BTreeMap;

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::shadow::{Effect, Step};

/// See the module.
#[derive(Debug)]
pub struct ShadowMetrics {
    /// Revision of the candidate.
    pub revision: Gauge,
    /// Attempts that were evaluated.
    pub evaluated: Counter,
    /// Attempts that were picked and found the queue full.
    pub skipped: Counter,
    /// Attempts that were picked and could not be read by the bundle in force.
    pub unread: Counter,
    /// Differences, by the two answers.
    pub steps: BTreeMap<Step, Counter>,
}

impl ShadowMetrics {
    pub(super) fn register() -> Self {
        let step = |step: Step| {
            counter!(
                "cardea_shadow_differences_total",
                "effect" => effect(step.effect),
                "in_force" => step.in_force.name(),
                "candidate" => step.candidate.name()
            )
        };
        Self {
            revision: gauge!("cardea_shadow_revision"),
            evaluated: counter!("cardea_shadow_evaluated_total"),
            skipped: counter!("cardea_shadow_skipped_total"),
            unread: counter!("cardea_shadow_unread_total"),
            steps: Step::ALL.into_iter().map(|at| (at, step(at))).collect(),
        }
    }

    pub(super) fn describe() {
        describe_gauge!(
            "cardea_shadow_revision",
            Unit::Count,
            "Revision of the shadow's candidate; 0 without one"
        );
        describe_counter!(
            "cardea_shadow_evaluated_total",
            Unit::Count,
            "Attempts that the shadow's candidate was asked about"
        );
        describe_counter!(
            "cardea_shadow_skipped_total",
            Unit::Count,
            "Attempts picked for the shadow that found its queue full"
        );
        describe_counter!(
            "cardea_shadow_unread_total",
            Unit::Count,
            "Attempts picked for the shadow that the bundle in force could not read"
        );
        describe_counter!(
            "cardea_shadow_differences_total",
            Unit::Count,
            "Attempts that the shadow's candidate would have answered differently, by both answers"
        );
    }
}

const fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Widened => "widened",
        Effect::Tightened => "tightened",
        Effect::Changed => "changed",
    }
}
