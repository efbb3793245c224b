//! What a run leaves: latencies, counts, faults; and the report made of them.
//!
//! Latencies are kept in nanoseconds with three significant digits, from 1 ns to [`LATENCY_MAX`]; a longer one
//! counts as the maximum.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{answer::Expect, call::Mode, mono};

/// Longest latency that is told apart.
pub const LATENCY_MAX: Duration = Duration::from_secs(120);

/// Faults by who is at fault; a run with any of them is not a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// The connection or the stream broke.
    pub transport: u64,
    /// A gRPC status other than OK.
    pub status: u64,
    /// An answer that cannot be read, or with the wrong decision or count.
    pub answer: u64,
    /// Calls without an answer when the run was given up.
    pub unanswered: u64,
}

impl Faults {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.transport + self.status + self.answer + self.unanswered
    }
}

/// One fault of one call.
#[derive(Debug)]
pub enum Fault {
    /// See [`Faults::transport`].
    Transport(String),
    /// See [`Faults::status`].
    Status(String),
    /// See [`Faults::answer`].
    Answer(String),
}

/// Collects what the calls of one run came to.
#[derive(Debug)]
pub struct Recorder {
    latencies: Histogram<u64>,
    calls: u64,
    faults: Faults,
    first_fault: Option<String>,
    answer_bytes: u64,
}

impl Recorder {
    /// An empty one; `None` only if the histogram's fixed bounds were refused.
    #[must_use]
    pub fn new() -> Option<Self> {
        let latencies = Histogram::new_with_bounds(1, mono::nanos(LATENCY_MAX), 3).ok()?;
        Some(Self { latencies, calls: 0, faults: Faults::default(), first_fault: None, answer_bytes: 0 })
    }

    /// A call was answered as expected, `latency` after the instant at which it should have been sent.
    pub fn answered(&mut self, latency: Duration, answer_bytes: usize) {
        self.calls += 1;
        self.answer_bytes = answer_bytes as u64;
        self.latencies.saturating_record(mono::nanos(latency).max(1));
    }

    /// A call failed. It is no part of the latencies, and its run is no measurement.
    pub fn failed(&mut self, fault: Fault) {
        let (count, text) = match fault {
            Fault::Transport(text) => (&mut self.faults.transport, text),
            Fault::Status(text) => (&mut self.faults.status, text),
            Fault::Answer(text) => (&mut self.faults.answer, text),
        };
        *count += 1;
        self.first_fault.get_or_insert(text);
    }

    /// `calls` were given up on.
    pub fn unanswered(&mut self, calls: u64) {
        if calls > 0 {
            self.faults.unanswered += calls;
            self.first_fault.get_or_insert_with(|| format!("{calls} calls without an answer"));
        }
    }

    /// Calls answered as expected.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// What went wrong first.
    #[must_use]
    pub fn first_fault(&self) -> Option<&str> {
        self.first_fault.as_deref()
    }

    /// Counts of what went wrong.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// Length of the last good answer in bytes.
    #[must_use]
    pub fn answer_bytes(&self) -> u64 {
        self.answer_bytes
    }

    /// The latencies in microseconds.
    #[must_use]
    pub fn latency_us(&self) -> Latency {
        let at = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: self.latencies.max() as f64 / 1000.0,
        }
    }
}

/// Latency at its percentiles, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p99_9: f64,
    /// Longest.
    pub max: f64,
}

/// How the load was shaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// As many calls as answers allow, this many in flight. Latency is counted from the actual sending, so a
    /// stall of the server hides the calls that it kept from being sent.
    InFlight(u32),
    /// This many calls a second, whatever the answers do. Latency is counted from the intended sending.
    PerSecond(u32),
}

/// What one run of the load generator came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The door.
    pub mode: Mode,
    /// The shape of the load.
    pub shape: Shape,
    /// Attempts in each call.
    pub attempts_per_call: u32,
    /// Connections that the calls were spread over.
    pub connections: u32,
    /// The decision that every answer had to have.
    pub expect: Expect,
    /// Calls answered as expected.
    pub calls: u64,
    /// From the first sending to the last answer.
    pub seconds: f64,
    /// `calls` over `seconds`.
    pub calls_per_s: f64,
    /// Latency in microseconds.
    pub latency_us: Latency,
    /// What went wrong; a run with any fault is not a measurement.
    pub faults: Faults,
    /// The first fault in words.
    pub first_fault: Option<String>,
    /// CPU time of the server for each call, in nanoseconds, if its process was named.
    pub server_cpu_ns_per_call: Option<f64>,
    /// CPU time of this generator for each call, in nanoseconds. An open loop spins, so there it says nothing.
    pub client_cpu_ns_per_call: f64,
    /// Share of one core that this generator used; near 1 in a closed loop, it is the limit, not the server.
    pub client_busy: f64,
    /// Length of a request message in bytes.
    pub request_bytes: u64,
    /// Length of an answer message in bytes; of a stream, of its last message.
    pub answer_bytes: u64,
    /// Largest gap that the canary saw before and after the run, in microseconds.
    pub canary_gap_us: f64,
    /// Time that the hypervisor took during the run, in percent.
    pub steal_percent: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_recorded() {
        let mut recorder = Recorder::new().unwrap();
        for us in 1..=1000 {
            recorder.answered(Duration::from_micros(us), 10);
        }
        let latency = recorder.latency_us();
        assert!((latency.p50 - 500.0).abs() < 1.0, "{latency:?}");
        assert!((latency.p99 - 990.0).abs() < 2.0, "{latency:?}");
        assert!((latency.max - 1000.0).abs() < 2.0, "{latency:?}");
        assert_eq!(recorder.calls(), 1000);
    }

    #[test]
    fn a_latency_beyond_the_maximum_counts_as_the_maximum() {
        let mut recorder = Recorder::new().unwrap();
        recorder.answered(LATENCY_MAX * 3, 10);
        assert!(recorder.latency_us().max >= 0.99e6 * LATENCY_MAX.as_secs_f64());
    }

    #[test]
    fn failures_are_counted_apart_and_the_first_is_kept() {
        let mut recorder = Recorder::new().unwrap();
        recorder.failed(Fault::Status("first".to_owned()));
        recorder.failed(Fault::Transport("second".to_owned()));
        recorder.unanswered(0);
        recorder.unanswered(3);
        let faults = Faults { transport: 1, status: 1, answer: 0, unanswered: 3 };
        assert_eq!((recorder.faults(), recorder.faults().total()), (faults, 5));
        assert_eq!((recorder.first_fault(), recorder.calls()), (Some("first"), 0));
    }
}
