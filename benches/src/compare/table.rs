//! The comparison as text: one line a row, and the budgets beside what was measured.

use std::fmt::Write as _;

use super::{Comparison, Row, stats::Spread};
use crate::{call::Mode, record::Shape};

/// Budget of the design for CPU of a unary call, relative to the service that does nothing.
pub const UNARY_CPU_RATIO_MAX: f64 = 1.30;
/// Budget of the design for p99 at half load, relative to the service that does nothing.
pub const HALF_LOAD_P99_RATIO_MAX: f64 = 1.25;
/// Budget of the design for a stream with batches, in decisions for a second of one core.
pub const STREAM_DECISIONS_PER_CORE_S_MIN: f64 = 1_000_000.0;

/// Share of its core from which the load generator counts as the limit of a closed loop.
const CLIENT_BUSY_MAX: f64 = 0.95;

/// One budget and what was measured for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// What it limits.
    pub name: &'static str,
    /// The worst that was measured.
    pub measured: f64,
    /// The limit.
    pub limit: f64,
    /// Whether the measured value keeps to it.
    pub met: bool,
}

/// The budgets for which the comparison has rows.
#[must_use]
pub fn budgets(comparison: &Comparison) -> Vec<Budget> {
    let of = |wanted: fn(&Row) -> bool, value: fn(&Row) -> f64| {
        comparison.rows.iter().filter(move |row| wanted(row)).map(value)
    };
    let closed_unary = of(
        |row| row.mode == Mode::Unary && matches!(row.shape, Shape::InFlight(_)),
        |row| row.cpu_ratio.median,
    );
    let half_load = of(
        |row| row.mode == Mode::Unary && matches!(row.shape, Shape::PerSecond(_)),
        |row| row.p99_ratio.median,
    );
    let stream = of(|row| row.mode == Mode::Stream, decisions_per_core_s);
    let at_most = |name, measured: Option<f64>, limit| {
        measured.map(|measured| Budget { name, measured, limit, met: measured <= limit })
    };
    let best_stream = stream.reduce(f64::max).map(|measured| Budget {
        name: "stream: decisions for a second of one core (best row)",
        measured,
        limit: STREAM_DECISIONS_PER_CORE_S_MIN,
        met: measured >= STREAM_DECISIONS_PER_CORE_S_MIN,
    });
    [
        at_most("unary: CPU ratio (worst row)", closed_unary.reduce(f64::max), UNARY_CPU_RATIO_MAX),
        at_most("unary at half load: p99 ratio", half_load.reduce(f64::max), HALF_LOAD_P99_RATIO_MAX),
        best_stream,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The whole comparison as Markdown, to be read as it is or pasted into a document.
#[must_use]
pub fn render(comparison: &Comparison) -> String {
    let mut text = String::new();
    if comparison.self_check {
        text.push_str(
            "Self-check: the do-nothing service stands in for cardea; every ratio should be 1.\n\n",
        );
    }
    text.push_str(HEAD);
    for row in &comparison.rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line(row));
    }
    let _ = writeln!(
        text,
        "\nMedians of {} alternating rounds; +- is half the distance from the smallest to the largest. \
         A closed loop's latency is not corrected for coordinated omission, an open loop's is.",
        comparison.rounds
    );
    if comparison.rows.iter().any(|row| row.disturbed_runs > 0) {
        text.push_str("Rows with disturbed runs were measured on a machine that was taken away meanwhile.\n");
    }
    let limits = |row: &Row| {
        let busy = row.noop.client_busy_max.max(row.cardea.client_busy_max) > CLIENT_BUSY_MAX;
        busy && matches!(row.shape, Shape::InFlight(_))
    };
    let limited: Vec<String> = comparison
        .rows
        .iter()
        .filter(|row| limits(row))
        .map(|row| format!("{} {}", row.mode.name(), load(row)))
        .collect();
    if !limited.is_empty() {
        let _ = writeln!(
            text,
            "The load generator was at its limit in: {}. CPU a call is right there; latency and calls per second are the client's.",
            limited.join(", ")
        );
    }
    if !comparison.self_check {
        text.push('\n');
        for Budget { name, measured, limit, met } in budgets(comparison) {
            let verdict = if met { "met" } else { "MISSED" };
            let _ = writeln!(text, "{name}: {} against {}: {verdict}", figure(measured), figure(limit));
        }
    }
    text
}

const HEAD: &str = "\
| mode | load | attempts | bytes asked / answered (no-op, cardea) | CPU us a call: no-op | cardea | ratio (min to max) | p50 us: no-op / cardea | p99 us: no-op / cardea | decisions per core second: no-op / cardea | disturbed |
|---|---|---|---|---|---|---|---|---|---|---|
";

fn load(row: &Row) -> String {
    match row.shape {
        Shape::InFlight(count) => format!("{count} in flight"),
        Shape::PerSecond(rate) => format!("{rate}/s"),
    }
}

fn line(row: &Row) -> String {
    let load = load(row);
    let cpu = |spread: &Spread| format!("{:.2} +-{:.0} %", spread.median, spread.plus_minus_percent());
    let per_core = |spread: &Spread| format!("{:.0}", f64::from(row.attempts_per_call) * 1e6 / spread.median);
    format!(
        "| {} | {load} | {} | {} / {}, {} | {} | {} | {:.2} ({:.2} to {:.2}) | {:.0} / {:.0} | {:.0} / {:.0} | {} / {} | {}/{} |",
        row.mode.name(),
        row.attempts_per_call,
        row.request_bytes,
        row.noop.answer_bytes,
        row.cardea.answer_bytes,
        cpu(&row.noop.cpu_us_per_call),
        cpu(&row.cardea.cpu_us_per_call),
        row.cpu_ratio.median,
        row.cpu_ratio.min,
        row.cpu_ratio.max,
        row.noop.p50_us.median,
        row.cardea.p50_us.median,
        row.noop.p99_us.median,
        row.cardea.p99_us.median,
        per_core(&row.noop.cpu_us_per_call),
        per_core(&row.cardea.cpu_us_per_call),
        row.disturbed_runs,
        row.runs,
    )
}

fn decisions_per_core_s(row: &Row) -> f64 {
    f64::from(row.attempts_per_call) * 1e6 / row.cardea.cpu_us_per_call.median
}

fn figure(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Side;

    fn row(mode: Mode, shape: Shape, cpu_ratio: f64, p99_ratio: f64) -> Row {
        let one = |value| Spread { median: value, min: value, max: value };
        let side = |cpu| Side {
            cpu_us_per_call: one(cpu),
            p50_us: one(50.0),
            p99_us: one(90.0),
            calls_per_s: one(1000.0),
            client_busy_max: 0.5,
            answer_bytes: 300,
        };
        Row {
            mode,
            shape,
            attempts_per_call: if mode.is_batched() { 64 } else { 1 },
            request_bytes: 300,
            noop: side(10.0),
            cardea: side(10.0 * cpu_ratio),
            cpu_ratio: one(cpu_ratio),
            p99_ratio: one(p99_ratio),
            disturbed_runs: 0,
            runs: 6,
        }
    }

    #[test]
    fn the_worst_unary_row_is_held_against_the_budget() {
        let rows = vec![
            row(Mode::Unary, Shape::InFlight(1), 1.1, 9.0),
            row(Mode::Unary, Shape::InFlight(64), 1.4, 9.0),
            row(Mode::Check, Shape::InFlight(64), 3.0, 9.0),
            row(Mode::Unary, Shape::PerSecond(1000), 9.0, 1.2),
            row(Mode::Stream, Shape::InFlight(4), 6.0, 9.0),
        ];
        let budgets = budgets(&Comparison { self_check: false, rounds: 3, rows });
        let seen: Vec<(f64, bool)> = budgets.iter().map(|budget| (budget.measured, budget.met)).collect();
        assert_eq!(seen, [(1.4, false), (1.2, true), (64.0 * 1e6 / 60.0, true)]);
    }

    #[test]
    fn every_row_has_as_many_cells_as_the_head() {
        let rows = vec![row(Mode::Unary, Shape::InFlight(1), 1.1, 1.1)];
        let text = render(&Comparison { self_check: false, rounds: 3, rows });
        let cells: Vec<usize> =
            text.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count()).collect();
        assert_eq!(cells, [12, 12, 12], "{text}");
        assert!(text.contains("unary: CPU ratio (worst row): 1.10 against 1.30: met"), "{text}");
    }
}
