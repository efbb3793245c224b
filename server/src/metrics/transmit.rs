//! Metrics of the signals that go out.

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

/// Why events were dropped.
#[derive(Debug)]
pub struct Dropped {
    /// A bound of their stream was reached.
    pub bounds: Counter,
    /// Their receiver cannot use them.
    pub refused: Counter,
    /// Nothing of their subject is known that the template asks for.
    pub no_subject: Counter,
}

/// See the module.
#[derive(Debug)]
pub struct TransmitMetrics {
    /// Events that receivers took, or were answered to a poll.
    pub sent: Counter,
    /// Pushes that are tried again.
    pub retried: Counter,
    /// Events that were dropped.
    pub dropped: Dropped,
    /// Conclusions that never became events.
    pub conclusions_lost: Counter,
    /// Changes that the ledger did not take.
    pub unstored: Counter,
    streams: Gauge,
    outbox_depth: Gauge,
    oldest_age: Gauge,
}

impl TransmitMetrics {
    pub(super) fn register() -> Self {
        let dropped = |reason| counter!("cardea_ssf_transmit_dropped_total", "reason" => reason);
        Self {
            sent: counter!("cardea_ssf_transmit_sent_total"),
            retried: counter!("cardea_ssf_transmit_retried_total"),
            dropped: Dropped {
                bounds: dropped("bounds"),
                refused: dropped("refused"),
                no_subject: dropped("no_subject"),
            },
            conclusions_lost: counter!("cardea_ssf_transmit_conclusions_lost_total"),
            unstored: counter!("cardea_ssf_transmit_unstored_total"),
            streams: gauge!("cardea_ssf_transmit_streams"),
            outbox_depth: gauge!("cardea_ssf_transmit_outbox_depth"),
            oldest_age: gauge!("cardea_ssf_transmit_outbox_oldest_age_seconds"),
        }
    }

    /// How many streams there are, how much waits in all of them, and for how long already.
    #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
    pub fn gauge(&self, streams: usize, depth: usize, oldest_ms: i64) {
        self.streams.set(streams as f64);
        self.outbox_depth.set(depth as f64);
        self.oldest_age.set(oldest_ms as f64 / 1000.0);
    }

    pub(super) fn describe() {
        describe_counter!(
            "cardea_ssf_transmit_sent_total",
            Unit::Count,
            "Signals that receivers took or fetched"
        );
        describe_counter!(
            "cardea_ssf_transmit_retried_total",
            Unit::Count,
            "Pushes of signals that are tried again"
        );
        describe_counter!(
            "cardea_ssf_transmit_dropped_total",
            Unit::Count,
            "Outgoing signals dropped, by reason"
        );
        describe_counter!(
            "cardea_ssf_transmit_conclusions_lost_total",
            Unit::Count,
            "Conclusions that never became signals because too many waited"
        );
        describe_counter!(
            "cardea_ssf_transmit_unstored_total",
            Unit::Count,
            "Changes of outgoing signals that would not survive a restart"
        );
        describe_gauge!("cardea_ssf_transmit_streams", Unit::Count, "Streams of outgoing signals");
        describe_gauge!("cardea_ssf_transmit_outbox_depth", Unit::Count, "Outgoing signals that wait");
        describe_gauge!(
            "cardea_ssf_transmit_outbox_oldest_age_seconds",
            Unit::Seconds,
            "Age of the outgoing signal that waits longest"
        );
    }
}
