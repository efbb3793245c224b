//! Counts decisions by door, action, decision and reason, with their latency and candidates.
//!
//! Built for the hot path: one decision is five relaxed atomic adds into tables found by index. The tables exist
//! once per shard; a thread keeps to its shard, so workers do not fight for cache lines. The text is made from the
//! sums when someone asks.
//! Limits: [`limits::ACTION_LABELS_MAX`] action labels, [`limits::METRIC_SHARDS_MAX`] shards. Memory: shards x doors x
//! actions x outcomes x 8 bytes; 4 doors, 128 actions, 24 outcomes and 16 shards are 1.5 MiB.
//! Never does: forgetting an action label once given (a counter must not fall).

use std::cell::Cell as ThreadCell;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::histogram::{Histogram, Totals};
use crate::limits;

/// Upper bounds of the latency buckets, in nanoseconds: 250 ns to 100 ms.
const LATENCY_NS: &[u64] = &[
    250,
    500,
    1_000,
    2_000,
    3_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
];

/// Upper bounds of the candidate buckets, in policies.
const CANDIDATES: &[u64] = &[0, 1, 2, 3, 5, 10, 20, 50, 100, 1_000];

pub(super) const NS_PER_SECOND: f64 = 1e9;

/// Label of every action that has none of its own.
const OTHER: &str = "other";

/// The names that decisions are counted under. Indices into these lists are what the hot path passes.
#[derive(Debug, Clone, Copy)]
pub struct Labels {
    /// Doors, such as `grpc` and `ext_authz`.
    pub doors: &'static [&'static str],
    /// Pairs of decision and reason, such as `("deny", "no_permit")`.
    pub outcomes: &'static [(&'static str, &'static str)],
    /// Copies of the tables; the number of workers is right.
    pub shards: usize,
}

/// The label of one action: an index that stays valid for the life of the process. The default is `other`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ActionLabel(u16);

/// The labels of a snapshot's actions, in the order they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActionLabels(Box<[ActionLabel]>);

/// Where one decision is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Index into [`Labels::doors`].
    pub door: usize,
    /// Index into [`Labels::outcomes`].
    pub outcome: usize,
    /// From [`ActionLabels::get`].
    pub action: ActionLabel,
}

/// The tables.
#[derive(Debug)]
pub struct Decisions {
    labels: Labels,
    /// Index 0 is [`OTHER`].
    actions: RwLock<Vec<String>>,
    shards: Box<[Shard]>,
}

/// Aligned so that two shards never share a cache line (128 for processors that fetch lines in pairs).
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    counts: Box<[AtomicU64]>,
    /// One per door.
    latency_ns: Box<[Histogram]>,
    candidates: Histogram,
}

impl ActionLabels {
    /// The label of the action with this index; `other` beyond the end.
    #[must_use]
    pub fn get(&self, action: usize) -> ActionLabel {
        self.0.get(action).copied().unwrap_or_default()
    }
}

impl Decisions {
    pub(super) fn new(labels: Labels) -> Self {
        let cells = labels.doors.len() * limits::ACTION_LABELS_MAX * labels.outcomes.len();
        let shard = |_| Shard {
            counts: (0..cells).map(|_| AtomicU64::new(0)).collect(),
            latency_ns: labels.doors.iter().map(|_| Histogram::new(LATENCY_NS)).collect(),
            candidates: Histogram::new(CANDIDATES),
        };
        let shards = (0..labels.shards.clamp(1, limits::METRIC_SHARDS_MAX)).map(shard).collect();
        Self { labels, actions: RwLock::new(vec![OTHER.to_owned()]), shards }
    }

    /// Gives each action a label; call once per snapshot, in the order of its action indices. Names that came before
    /// keep their label; what does not fit any more is counted under `other`.
    pub fn label_actions<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> ActionLabels {
        let mut known = self.actions.write();
        let label = |name: &str| {
            if let Some(at) = known.iter().position(|known| known == name) {
                return ActionLabel(u16::try_from(at).unwrap_or_default());
            }
            if known.len() >= limits::ACTION_LABELS_MAX || name.len() > limits::ACTION_LABEL_BYTES_MAX {
                return ActionLabel::default();
            }
            known.push(name.to_owned());
            ActionLabel(u16::try_from(known.len() - 1).unwrap_or_default())
        };
        ActionLabels(names.into_iter().map(label).collect())
    }

    /// Counts one decision. A door or outcome beyond its list is a bug; it is not counted in release builds.
    pub fn count(&self, cell: Cell, candidates: usize, elapsed_ns: u64) {
        debug_assert!(cell.door < self.labels.doors.len() && cell.outcome < self.labels.outcomes.len());
        let Some(shard) = self.shards.get(my_shard(self.shards.len())) else { return };
        if let Some(count) = shard.counts.get(self.index(cell.door, usize::from(cell.action.0), cell.outcome))
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(latency) = shard.latency_ns.get(cell.door) {
            latency.record(elapsed_ns);
        }
        shard.candidates.record(candidates as u64);
    }

    fn index(&self, door: usize, action: usize, outcome: usize) -> usize {
        (door * limits::ACTION_LABELS_MAX + action) * self.labels.outcomes.len() + outcome
    }

    pub(super) fn render(&self, text: &mut String) {
        // Writing to a String cannot fail.
        let _ = self.write_counts(text);
        let _ = self.write_latency(text);
        let _ = self.write_candidates(text);
    }

    fn write_counts(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# HELP cardea_decisions_total Decisions, by door, action, decision and reason")?;
        writeln!(text, "# TYPE cardea_decisions_total counter")?;
        let actions = self.actions.read();
        for (door, door_name) in self.labels.doors.iter().enumerate() {
            for (action, action_name) in actions.iter().enumerate() {
                for (outcome, (decision, reason)) in self.labels.outcomes.iter().enumerate() {
                    let at = self.index(door, action, outcome);
                    let total: u64 = self
                        .shards
                        .iter()
                        .filter_map(|shard| shard.counts.get(at))
                        .map(|count| count.load(Ordering::Relaxed))
                        .sum();
                    if total > 0 {
                        writeln!(
                            text,
                            "cardea_decisions_total{{door=\"{door_name}\",action=\"{}\",decision=\"{decision}\",reason=\"{reason}\"}} {total}",
                            escape(action_name),
                        )?;
                    }
                }
            }
        }
        writeln!(text)
    }

    fn write_latency(&self, text: &mut String) -> std::fmt::Result {
        let name = "cardea_decision_seconds";
        writeln!(text, "# HELP {name} Time from the attempt to its verdict, without the wire")?;
        writeln!(text, "# TYPE {name} histogram")?;
        for (door, door_name) in self.labels.doors.iter().enumerate() {
            let parts = self.shards.iter().filter_map(|shard| shard.latency_ns.get(door));
            let totals = Histogram::totals(LATENCY_NS, parts);
            write_histogram(
                text,
                name,
                &format!("door=\"{door_name}\""),
                LATENCY_NS,
                NS_PER_SECOND,
                &totals,
            )?;
        }
        writeln!(text)
    }

    fn write_candidates(&self, text: &mut String) -> std::fmt::Result {
        let name = "cardea_decision_candidates";
        writeln!(text, "# HELP {name} Candidate policies that a decision evaluated")?;
        writeln!(text, "# TYPE {name} histogram")?;
        let totals = Histogram::totals(CANDIDATES, self.shards.iter().map(|shard| &shard.candidates));
        write_histogram(text, name, "", CANDIDATES, 1.0, &totals)?;
        writeln!(text)
    }
}

/// Each thread takes the next shard the first time it counts.
fn my_shard(shards: usize) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: ThreadCell<usize> = ThreadCell::new(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    MINE.with(ThreadCell::get) % shards
}

pub(super) fn write_histogram(
    text: &mut String,
    name: &str,
    label: &str,
    bounds: &[u64],
    per_unit: f64,
    totals: &Totals,
) -> std::fmt::Result {
    let comma = if label.is_empty() { "" } else { "," };
    for (bound, at_most) in bounds.iter().zip(&totals.at_most) {
        writeln!(text, "{name}_bucket{{{label}{comma}le=\"{}\"}} {at_most}", *bound as f64 / per_unit)?;
    }
    writeln!(text, "{name}_bucket{{{label}{comma}le=\"+Inf\"}} {}", totals.count)?;
    let braced = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
    writeln!(text, "{name}_sum{braced} {}", totals.sum as f64 / per_unit)?;
    writeln!(text, "{name}_count{braced} {}", totals.count)
}

/// Label values of the text format escape backslash, quote and line feed.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decisions() -> Decisions {
        Decisions::new(Labels {
            doors: &["grpc", "ext_authz"],
            outcomes: &[("allow", "permitted"), ("deny", "no_permit")],
            shards: 2,
        })
    }

    fn text(decisions: &Decisions) -> String {
        let mut text = String::new();
        decisions.render(&mut text);
        text
    }

    #[test]
    fn a_decision_is_counted_under_its_four_labels() {
        let decisions = decisions();
        let actions = decisions.label_actions(["read", "say \"hi\""]);
        decisions.count(Cell { door: 1, outcome: 1, action: actions.get(1) }, 3, 900);
        decisions.count(Cell { door: 1, outcome: 1, action: actions.get(1) }, 1, 2_000_000_000);
        decisions.count(Cell { door: 0, outcome: 0, action: actions.get(99) }, 0, 1);
        let text = text(&decisions);
        for line in [
            r#"cardea_decisions_total{door="ext_authz",action="say \"hi\"",decision="deny",reason="no_permit"} 2"#,
            r#"cardea_decisions_total{door="grpc",action="other",decision="allow",reason="permitted"} 1"#,
            r#"cardea_decision_seconds_bucket{door="ext_authz",le="0.0000005"} 0"#,
            r#"cardea_decision_seconds_bucket{door="ext_authz",le="0.000001"} 1"#,
            r#"cardea_decision_seconds_bucket{door="ext_authz",le="0.1"} 1"#,
            r#"cardea_decision_seconds_bucket{door="ext_authz",le="+Inf"} 2"#,
            r#"cardea_decision_seconds_count{door="grpc"} 1"#,
            r#"cardea_decision_candidates_bucket{le="0"} 1"#,
            "cardea_decision_candidates_sum 4",
        ] {
            assert!(text.lines().any(|found| found == line), "`{line}` is missing in\n{text}");
        }
    }

    #[test]
    fn threads_add_up() {
        let decisions = decisions();
        std::thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        decisions.count(Cell { door: 0, outcome: 0, action: ActionLabel::default() }, 1, 1);
                    }
                });
            }
        });
        assert!(text(&decisions).contains("reason=\"permitted\"} 5000"));
    }

    #[test]
    fn a_new_snapshot_keeps_the_labels_of_the_old() {
        let decisions = decisions();
        let old = decisions.label_actions(["read", "write"]);
        let new = decisions.label_actions(["write", "delete"]);
        assert_eq!(old.get(1), new.get(0));
        assert_ne!(new.get(1), old.get(0));
    }

    #[test]
    fn actions_beyond_the_limit_share_one_label() {
        let decisions = decisions();
        let names: Vec<String> =
            (0..limits::ACTION_LABELS_MAX + 10).map(|number| format!("a{number}")).collect();
        let labels = decisions.label_actions(names.iter().map(String::as_str));
        assert_ne!(labels.get(limits::ACTION_LABELS_MAX - 2), ActionLabel::default());
        assert_eq!(labels.get(limits::ACTION_LABELS_MAX - 1), ActionLabel::default());
        let long = "x".repeat(limits::ACTION_LABEL_BYTES_MAX + 1);
        assert_eq!(decisions.label_actions([long.as_str()]).get(0), ActionLabel::default());
    }
}
