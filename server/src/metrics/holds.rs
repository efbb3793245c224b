//! What holds are counted by.

use std::collections::BTreeMap;

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use super::decisions::{NS_PER_SECOND, write_histogram};
use super::histogram::Histogram;
use crate::holds::CauseKind;

/// Upper bounds of the time to a push, in nanoseconds: around the budget of 1 ms.
const PUSH_NS: &[u64] = &[
    50_000,
    100_000,
    200_000,
    300_000,
    500_000,
    700_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
];

/// See the module.
#[derive(Debug)]
pub struct HoldMetrics {
    /// Holds.
    pub holds: Gauge,
    /// Bytes that their attempts took on the wire.
    pub bytes: Gauge,
    /// Streams that a connection carries.
    pub streams: Gauge,
    /// Streams that wait to be resumed.
    pub streams_lost: Gauge,
    /// Holds that are looked at again and again.
    pub polled: Gauge,
    /// Timers that are set.
    pub timers: Gauge,
    /// Keys that holds depend on.
    pub keys: Gauge,
    /// Rounds through all holds that came to their end.
    pub sweeps: Counter,
    /// How long the last of them took.
    pub sweep_seconds: Gauge,
    /// Holds that were judged again, by what changed.
    pub judged: BTreeMap<CauseKind, Counter>,
    /// Those of them whose answer stayed.
    pub unchanged: Counter,
    /// Answers that were told, by the answer.
    pub pushed: Pushed,
    /// Answers that took the place of one that nobody had read.
    pub coalesced: Counter,
    /// Streams that were told to forget everything, by the reason.
    pub forgets: Forgets,
    /// Attempts that found no place.
    pub refused: Counter,
    push_ns: Histogram,
}

/// Answers that were told.
#[derive(Debug)]
pub struct Pushed {
    /// Allow.
    pub allow: Counter,
    /// Step-up.
    pub step_up: Counter,
    /// Deny.
    pub deny: Counter,
}

/// Why streams were told to forget.
#[derive(Debug)]
pub struct Forgets {
    /// The reader was too slow.
    pub slow_reader: Counter,
    /// What it missed cannot be told again.
    pub too_old: Counter,
}

impl HoldMetrics {
    pub(super) fn register() -> Self {
        let judged = |kind: CauseKind| counter!("cardea_hold_judged_again_total", "cause" => kind.name());
        Self {
            holds: gauge!("cardea_holds"),
            bytes: gauge!("cardea_holds_bytes"),
            streams: gauge!("cardea_hold_streams", "state" => "connected"),
            streams_lost: gauge!("cardea_hold_streams", "state" => "lost"),
            polled: gauge!("cardea_holds_polled"),
            timers: gauge!("cardea_hold_timers"),
            keys: gauge!("cardea_hold_index_keys"),
            sweeps: counter!("cardea_hold_sweeps_total"),
            sweep_seconds: gauge!("cardea_hold_sweep_seconds"),
            judged: CauseKind::ALL.into_iter().map(|kind| (kind, judged(kind))).collect(),
            unchanged: counter!("cardea_hold_unchanged_total"),
            pushed: Pushed {
                allow: counter!("cardea_hold_answers_total", "decision" => "allow"),
                step_up: counter!("cardea_hold_answers_total", "decision" => "step_up"),
                deny: counter!("cardea_hold_answers_total", "decision" => "deny"),
            },
            coalesced: counter!("cardea_hold_coalesced_total"),
            forgets: Forgets {
                slow_reader: counter!("cardea_hold_forgets_total", "reason" => "slow_reader"),
                too_old: counter!("cardea_hold_forgets_total", "reason" => "too_old"),
            },
            refused: counter!("cardea_hold_refused_total"),
            push_ns: Histogram::new(PUSH_NS),
        }
    }

    /// Counts how long it took from a cause to the message that tells of it.
    pub fn pushed_after(&self, ns: u64) {
        self.push_ns.record(ns);
    }

    pub(super) fn render(&self, text: &mut String) -> std::fmt::Result {
        use std::fmt::Write as _;
        let name = "cardea_hold_push_seconds";
        writeln!(text, "# HELP {name} Time from noticing a change to the message that tells a hold of it")?;
        writeln!(text, "# TYPE {name} histogram")?;
        let totals = Histogram::totals(PUSH_NS, std::iter::once(&self.push_ns));
        write_histogram(text, name, "", PUSH_NS, NS_PER_SECOND, &totals)?;
        writeln!(text)
    }

    pub(super) fn describe() {
        describe_gauge!("cardea_holds", Unit::Count, "Attempts that enforcement points hold");
        describe_gauge!("cardea_holds_bytes", Unit::Bytes, "What the held attempts took on the wire");
        describe_gauge!(
            "cardea_hold_streams",
            Unit::Count,
            "Streams of enforcement points, by whether one is lost"
        );
        describe_gauge!("cardea_holds_polled", Unit::Count, "Holds whose next change cannot be calculated");
        describe_gauge!("cardea_hold_timers", Unit::Count, "Holds that will be judged again at a known time");
        describe_gauge!(
            "cardea_hold_index_keys",
            Unit::Count,
            "Sessions, principals and the like that holds depend on"
        );
        describe_counter!(
            "cardea_hold_sweeps_total",
            Unit::Count,
            "Rounds of judging all holds again that ended"
        );
        describe_gauge!(
            "cardea_hold_sweep_seconds",
            Unit::Seconds,
            "How long judging all holds again took, the last time"
        );
        describe_counter!(
            "cardea_hold_judged_again_total",
            Unit::Count,
            "Holds judged again, by what changed"
        );
        describe_counter!(
            "cardea_hold_unchanged_total",
            Unit::Count,
            "Holds judged again whose answer stayed"
        );
        describe_counter!(
            "cardea_hold_answers_total",
            Unit::Count,
            "Answers told to holds, the first ones included"
        );
        describe_counter!(
            "cardea_hold_coalesced_total",
            Unit::Count,
            "Answers that replaced one that nobody had read"
        );
        describe_counter!(
            "cardea_hold_forgets_total",
            Unit::Count,
            "Streams told to forget everything, by reason"
        );
        describe_counter!(
            "cardea_hold_refused_total",
            Unit::Count,
            "Attempts denied because no more are held"
        );
    }
}
