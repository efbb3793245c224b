//! How each sink of the audit is doing.
//!
//! Label `sink`: a name of the configuration, at most [`SINKS_MAX`](crate::limits::SINKS_MAX).

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

/// See the module.
#[derive(Debug)]
pub struct SinkMetrics {
    /// Records that it took.
    pub delivered: Counter,
    /// Times that it took nothing.
    pub failures: Counter,
    /// Records that it refused for good.
    pub dead: Counter,
    /// Records that retention took before it did.
    pub missed: Counter,
    /// Records on disk that are still to be read for it.
    pub lag: Gauge,
    /// 1 while it takes nothing.
    pub fault: Gauge,
}

impl SinkMetrics {
    pub(super) fn register(sink: &str) -> Self {
        let counter = |name: &'static str| counter!(name, "sink" => sink.to_owned());
        let gauge = |name: &'static str| gauge!(name, "sink" => sink.to_owned());
        Self {
            delivered: counter("cardea_sink_records_total"),
            failures: counter("cardea_sink_failures_total"),
            dead: counter("cardea_sink_dead_letters_total"),
            missed: counter("cardea_sink_missed_total"),
            lag: gauge("cardea_sink_lag_records"),
            fault: gauge("cardea_sink_fault"),
        }
    }

    pub(super) fn describe() {
        describe_counter!(
            "cardea_sink_records_total",
            Unit::Count,
            "Records that a sink took, repetitions included"
        );
        describe_counter!(
            "cardea_sink_failures_total",
            Unit::Count,
            "Times that a sink took nothing and is asked again"
        );
        describe_counter!(
            "cardea_sink_dead_letters_total",
            Unit::Count,
            "Records that a sink refused for good; they lie in its dead letters"
        );
        describe_counter!(
            "cardea_sink_missed_total",
            Unit::Count,
            "Records that retention removed before a sink had them"
        );
        describe_gauge!(
            "cardea_sink_lag_records",
            Unit::Count,
            "Records on disk that a sink is still to be sent"
        );
        describe_gauge!("cardea_sink_fault", Unit::Count, "1 while a sink takes nothing");
    }
}
