//! Incidents over time, stacked by assessment.

use jiff::Timestamp;

use super::{fill, legend, words};
use crate::monitor::report::Report;
use crate::monitor::report::html::{Html, counted, grouped};
use crate::monitor::report::tally::{KINDS, Tally};
use crate::monitor::report::timeline::COLUMNS_MAX;

/// Fewest columns that the width is divided into: few columns stay slim.
const COLUMNS_MIN: i64 = 24;

pub(super) fn section(html: &mut Html, report: &Report<'_>) {
    let timeline = &report.timeline;
    let (first, span) = timeline.range();
    let columns = span.clamp(COLUMNS_MIN, COLUMNS_MAX);
    let most = timeline.columns.values().map(Tally::incidents).max().unwrap_or(0);
    html.raw("<section aria-labelledby=\"over-time\">\n<h2 id=\"over-time\">Incidents over time</h2>\n");
    if most == 0 {
        html.raw("<p class=\"soft\">There are none.</p>\n</section>\n");
        return;
    }
    let top = round_up(most);
    legend(html);
    html.raw("<figure>\n<div class=\"plot\"><div class=\"scale\" aria-hidden=\"true\"><span>")
        .count(top)
        .raw("</span><span>")
        .count(top / 2)
        .raw("</span><span>0</span></div>\n<svg viewBox=\"0 0 ")
        .number(coordinate(columns))
        .raw(" 100\" preserveAspectRatio=\"none\" role=\"img\" aria-labelledby=\"plot-title plot-desc\">")
        .raw("<title id=\"plot-title\">Incidents over time, stacked by assessment</title><desc id=\"plot-desc\">")
        .text(&described(report, most))
        .raw("</desc><path class=\"grid\" d=\"M0 0H96M0 50H96\"/>\n");
    for (at, tally) in timeline.columns.iter().filter(|(_, tally)| tally.incidents() > 0) {
        column(html, coordinate(at - first), tally, top, &date(*at, timeline.step_s));
    }
    html.raw("</svg>\n<div class=\"dates\" aria-hidden=\"true\">");
    for at in [first, first + columns / 2, first + columns] {
        html.raw("<span>").text(&date(at, timeline.step_s)).raw("</span>");
    }
    html.raw("</div></div>\n<figcaption>Each column is ")
        .text(&words::span(timeline.step_s))
        .raw(" long; times are UTC.</figcaption>\n</figure>\n</section>\n");
}

fn column(html: &mut Html, x: f64, tally: &Tally, top: u64, begins: &str) {
    html.raw("<g><title>").text(begins).raw(": ");
    let said: Vec<String> = KINDS
        .into_iter()
        .filter(|kind| tally.of(*kind) > 0)
        .map(|kind| format!("{} {}", grouped(tally.of(kind)), words::kind(kind).to_lowercase()))
        .collect();
    html.text(&said.join(", ")).raw("</title>");
    let mut y = 100.0;
    for kind in KINDS.into_iter().filter(|kind| tally.of(*kind) > 0) {
        let height = share(tally.of(kind), top) * 100.0;
        y -= height;
        html.raw("<rect x=\"").number(x + 0.1).raw("\" y=\"").number(y).raw("\" width=\"0.8\" height=\"");
        html.number(height).raw("\" class=\"").raw(fill(kind)).raw("\"/>");
    }
    html.raw("</g>\n");
}

fn described(report: &Report<'_>, most: u64) -> String {
    let timeline = &report.timeline;
    let peak = timeline.columns.iter().find(|(_, tally)| tally.incidents() == most).map_or(0, |(at, _)| *at);
    format!(
        "{} in all; the most in one column, {}, from {} on.",
        counted(report.whole.incidents(), "incident", "incidents"),
        grouped(most),
        date(peak, timeline.step_s)
    )
}

/// When a column begins.
fn date(column: i64, step_s: i64) -> String {
    let words = if step_s < 60 { words::second } else { words::minute };
    Timestamp::from_second(column.saturating_mul(step_s)).map(words).unwrap_or_default()
}

/// The next even number with one or two leading digits, so that half of it is whole.
fn round_up(number: u64) -> u64 {
    let mut unit: u64 = 2;
    while number / unit >= 10 {
        unit = unit.saturating_mul(10);
    }
    number.div_ceil(unit).saturating_mul(unit)
}

#[expect(clippy::cast_precision_loss, reason = "it is drawn")]
pub(super) fn share(part: u64, of: u64) -> f64 {
    part as f64 / of.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "it is drawn")]
const fn coordinate(at: i64) -> f64 {
    at as f64
}
