//! What comes from each transmitter: tokens by what became of them.
//!
//! Label `receiver`: a name of the configuration, at most [`SSF_RECEIVERS_MAX`](crate::limits::SSF_RECEIVERS_MAX).

use std::collections::BTreeMap;

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::ssf::set::ErrorCode;

/// What can become of a token that is taken in.
const OUTCOMES: [&str; 7] =
    ["applied", "superseded", "unknown_subject", "unmapped", "critical_member", "recorded", "unknown_event"];

/// See the module.
#[derive(Debug)]
pub struct ReceiverMetrics {
    /// Tokens that came.
    pub received: Counter,
    /// Tokens that came again.
    pub duplicates: Counter,
    /// Tokens that could not be taken in then.
    pub later: Counter,
    /// How long before the last event was taken in it had happened.
    pub event_age: Gauge,
    /// When the last token was taken in, Unix seconds.
    pub last_taken: Gauge,
    /// Tokens that are remembered, of all receivers.
    pub seen: Gauge,
    /// 1 while the stream is enabled, as far as is known.
    pub stream_enabled: Gauge,
    taken: BTreeMap<&'static str, Counter>,
    refused: BTreeMap<ErrorCode, Counter>,
    other: Counter,
}

impl ReceiverMetrics {
    pub(super) fn register(receiver: &str) -> Self {
        let name = receiver.to_owned();
        let of = |result: &'static str| counter!("cardea_ssf_tokens_total", "receiver" => name.clone(), "result" => result);
        Self {
            received: counter!("cardea_ssf_received_total", "receiver" => name.clone()),
            duplicates: of("duplicate"),
            later: of("later"),
            event_age: gauge!("cardea_ssf_event_age_seconds", "receiver" => name.clone()),
            last_taken: gauge!("cardea_ssf_last_token_timestamp_seconds", "receiver" => name.clone()),
            seen: gauge!("cardea_ssf_seen"),
            stream_enabled: gauge!("cardea_ssf_stream_enabled", "receiver" => name.clone()),
            taken: OUTCOMES.into_iter().map(|outcome| (outcome, of(outcome))).collect(),
            refused: ErrorCode::ALL.into_iter().map(|code| (code, of(code.word()))).collect(),
            other: of("other"),
        }
    }

    /// Tokens that were taken in with this outcome.
    pub fn taken(&self, outcome: &str) -> &Counter {
        self.taken.get(outcome).unwrap_or(&self.other)
    }

    /// Tokens that were refused for this.
    pub fn refused(&self, code: ErrorCode) -> &Counter {
        self.refused.get(&code).unwrap_or(&self.other)
    }

    pub(super) fn describe() {
        describe_counter!("cardea_ssf_received_total", Unit::Count, "Security event tokens that came");
        describe_counter!(
            "cardea_ssf_tokens_total",
            Unit::Count,
            "Security event tokens, by what became of them: taken in, seen before, or refused with a code"
        );
        describe_gauge!(
            "cardea_ssf_event_age_seconds",
            Unit::Seconds,
            "How old the last event of a transmitter was when it was taken in"
        );
        describe_gauge!(
            "cardea_ssf_last_token_timestamp_seconds",
            Unit::Seconds,
            "When the last token of a transmitter was taken in, Unix time"
        );
        describe_gauge!("cardea_ssf_seen", Unit::Count, "Security event tokens that are remembered as seen");
        describe_gauge!(
            "cardea_ssf_stream_enabled",
            Unit::Count,
            "1 while the stream of a transmitter is enabled, as it last said"
        );
    }
}
