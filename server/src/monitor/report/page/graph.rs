//! Which action came after which, drawn as arcs beside a column of actions: forward to the right, back to the left. Solid arcs
//! were approved, dashed ones are new; those that are red were incidents at least every other time.

use std::collections::{BTreeMap, BTreeSet};

use crate::monitor::report::calls::{Calls, Edge};
use crate::monitor::report::html::{Html, counted, grouped};
use crate::monitor::report::{Identity, Report, clipped};

/// Most identities that are drawn.
const GRAPHS_MAX: usize = 6;
/// Most actions in one picture.
const ACTIONS_DRAWN: usize = 26;
/// Most arcs in one picture.
const ARCS_DRAWN: usize = 44;
/// Characters of an action's name.
const NAME_CHARS: usize = 40;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 200.0;
const RIGHT: f64 = 560.0;
const ROW: f64 = 32.0;

type Ends = (String, String);

pub(super) fn section(html: &mut Html, report: &Report<'_>) {
    html.raw("<section aria-labelledby=\"calls\">\n<h2 id=\"calls\">What came after what</h2>\n<p class=\"soft\">Actions from the first of a ");
    html.raw("session down to the last, on average. An arc leads from an action to the one after it: forward on the right, back on the left. ");
    html.raw("A new order alone is evidence and no incident.</p>\n<ul class=\"legend\">");
    for (style, what) in [
        (Style::Known, "approved"),
        (Style::New, "new"),
        (Style::KnownBad, "approved, mostly incidents"),
        (Style::NewBad, "new, mostly incidents"),
        (Style::Unused, "approved, not used"),
    ] {
        html.raw("<li><svg width=\"28\" height=\"8\" aria-hidden=\"true\"><path d=\"M0 4H28\" stroke-width=\"2\" class=\"").raw(style.line());
        html.raw("\"/></svg>").raw(what).raw("</li>");
    }
    html.raw("</ul>\n");
    let ranked = report.ranked();
    let chosen = |at: usize, one: &Identity| at == 0 || one.tally.incidents() > 0;
    let drawn = ranked.iter().take(GRAPHS_MAX).enumerate().filter(|(at, (_, one))| chosen(*at, one));
    for (at, (name, one)) in drawn {
        html.raw(if at == 0 { "<details class=\"agent\" open>" } else { "<details class=\"agent\">" });
        html.raw("<summary><bdi>").short(name, 80).raw("</bdi> <span>");
        html.text(&counted(one.tally.incidents(), "incident", "incidents")).raw(" in ");
        html.text(&counted(one.tally.attempts, "attempt", "attempts")).raw("</span></summary>\n");
        Picture::new(&one.calls, approved(report, name)).draw(html, at);
        html.raw("</details>\n");
    }
    let more = ranked.iter().skip(GRAPHS_MAX).filter(|(_, one)| one.tally.incidents() > 0).count();
    if more > 0 {
        let more =
            counted(u64::try_from(more).unwrap_or(u64::MAX), "more identity has", "more identities have");
        html.raw("<p class=\"soft\">")
            .text(&more)
            .raw(" incidents; draw one with <code>--identity</code>.</p>\n");
    }
    html.raw("</section>\n");
}

/// Approved transitions of an identity, in the chosen task or in any.
fn approved(report: &Report<'_>, name: &str) -> BTreeSet<Ends> {
    let tasks = report.kept.baselines.get(name).into_iter().flatten();
    let only = report.choice.task.as_ref();
    let tasks = tasks.filter(|(task, _)| only.is_none_or(|only| only == *task)).map(|(_, approved)| approved);
    let transitions = tasks.flat_map(|approved| &approved.transitions);
    let ends = transitions.flat_map(|(from, after)| after.keys().map(move |to| (clipped(from), clipped(to))));
    ends.collect()
}

/// What an arc says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Style {
    Unused,
    Known,
    New,
    KnownBad,
    NewBad,
}

impl Style {
    fn of(edge: Edge, is_approved: bool) -> Self {
        let is_bad = edge.incidents > 0 && edge.incidents.saturating_mul(2) >= edge.calls;
        match (edge.calls, is_bad, is_approved) {
            (0, ..) => Self::Unused,
            (_, false, true) => Self::Known,
            (_, false, false) => Self::New,
            (_, true, true) => Self::KnownBad,
            (_, true, false) => Self::NewBad,
        }
    }

    const fn line(self) -> &'static str {
        match self {
            Self::Unused => "edge unused",
            Self::Known => "edge",
            Self::New => "edge new",
            Self::KnownBad => "edge bad",
            Self::NewBad => "edge new bad",
        }
    }

    const fn tip(self) -> &'static str {
        match self {
            Self::Unused => "tip unused",
            Self::Known => "tip",
            Self::New => "tip new",
            Self::KnownBad | Self::NewBad => "tip bad",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Unused => "approved, not used",
            Self::Known | Self::KnownBad => "approved",
            Self::New | Self::NewBad => "new",
        }
    }
}

struct Picture<'p> {
    calls: &'p Calls,
    arcs: Vec<(Ends, Edge, Style)>,
    /// Rows from the top; the empty one is the beginning.
    rows: BTreeMap<String, f64>,
    of_arcs: usize,
}

impl<'p> Picture<'p> {
    fn new(calls: &'p Calls, approved: BTreeSet<Ends>) -> Self {
        let mut arcs: Vec<(Ends, Edge, Style)> = calls
            .edges
            .iter()
            .map(|(ends, edge)| (ends.clone(), *edge, Style::of(*edge, approved.contains(ends))))
            .collect();
        let unused = approved.into_iter().filter(|ends| !calls.edges.contains_key(ends));
        arcs.extend(unused.map(|ends| (ends, Edge::default(), Style::Unused)));
        let of_arcs = arcs.len();
        // Should there be too many, half of the room is for those with most incidents, the rest for those that are used most.
        arcs.sort_by_key(|(_, edge, style)| {
            std::cmp::Reverse((edge.incidents, *style != Style::Unused, edge.calls))
        });
        let rest = arcs.get_mut(ARCS_DRAWN / 2..).unwrap_or_default();
        rest.sort_by_key(|(_, edge, _)| std::cmp::Reverse(edge.calls));
        let mut names = BTreeSet::from([String::new()]);
        arcs.retain(|((from, to), ..)| {
            let new = usize::from(!names.contains(from)) + usize::from(to != from && !names.contains(to));
            let fits = names.len() + new <= ACTIONS_DRAWN + 1;
            if fits {
                names.extend([from.clone(), to.clone()]);
            }
            fits
        });
        arcs.truncate(ARCS_DRAWN);
        // The gravest on top of the others.
        arcs.sort_by_key(|(_, edge, style)| (*style, edge.calls));
        Self { calls, rows: rows(&arcs, calls), arcs, of_arcs }
    }

    fn draw(&self, html: &mut Html, number: usize) {
        let number = number.to_string();
        let height = (f64::from(u32::try_from(self.rows.len()).unwrap_or(0)) + 0.5) * ROW;
        html.raw("<figure><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Graph of actions\"><svg class=\"graph\" viewBox=\"0 0 ");
        html.number(WIDTH)
            .raw(" ")
            .number(height)
            .raw("\" role=\"img\" aria-labelledby=\"graph-title-")
            .text(&number)
            .raw(" graph-desc-");
        html.text(&number)
            .raw("\"><title id=\"graph-title-")
            .text(&number)
            .raw("\">Which action came after which</title><desc id=\"graph-desc-");
        html.text(&number).raw("\">").text(&self.described()).raw("</desc>\n");
        for arc in &self.arcs {
            self.arc(html, arc);
        }
        for (name, y) in &self.rows {
            self.node(html, name, *y);
        }
        html.raw("</svg></div>\n<figcaption>").text(&self.described()).raw("</figcaption></figure>\n");
    }

    fn described(&self) -> String {
        let count = |styles: &[Style]| {
            let fit = self.arcs.iter().filter(|(.., style)| styles.contains(style)).count();
            grouped(u64::try_from(fit).unwrap_or(u64::MAX))
        };
        let mut text = format!(
            "{} approved and {} new transitions in the picture; {} of them were incidents at least every other time.",
            count(&[Style::Known, Style::KnownBad]),
            count(&[Style::New, Style::NewBad]),
            count(&[Style::KnownBad, Style::NewBad])
        );
        let hidden = self.of_arcs - self.arcs.len();
        if hidden > 0 {
            let hidden = counted(u64::try_from(hidden).unwrap_or(u64::MAX), "more is", "more are");
            text.push_str(&format!(" And {hidden} not drawn; those with most incidents and attempts are."));
        }
        if self.calls.left_out > 0 {
            let left_out = counted(self.calls.left_out, "attempt", "attempts");
            text.push_str(&format!(" {left_out} of an identity with so many actions are in no picture."));
        }
        text
    }

    fn arc(&self, html: &mut Html, ((from, to), edge, style): &(Ends, Edge, Style)) {
        let (Some(start), Some(end)) = (self.rows.get(from), self.rows.get(to)) else { return };
        let (is_back, is_loop) = (end < start, from == to);
        let (x, side) = if is_back { (LEFT, -1.0) } else { (RIGHT, 1.0) };
        // Arcs leave below the middle of their row and arrive above it, so that the two can be told apart.
        let (leave, arrive) = if is_back { (start - 5.0, end + 5.0) } else { (start + 5.0, end - 5.0) };
        let (leave, arrive) = if is_loop { (start - 6.0, start + 6.0) } else { (leave, arrive) };
        let rows = (end - start).abs() / ROW;
        let bulge = if is_loop { 22.0 } else { (24.0 + 13.0 * rows).min(235.0) } * side;
        let tip = x + 7.0 * side;
        html.raw("<g><title>")
            .text(&title(from, to, *edge, *style))
            .raw("</title><path class=\"")
            .raw(style.line());
        html.raw("\" stroke-width=\"")
            .number(stroke(edge.calls))
            .raw("\" d=\"M")
            .number(x)
            .raw(" ")
            .number(leave)
            .raw("C");
        html.number(x + bulge)
            .raw(" ")
            .number(leave)
            .raw(" ")
            .number(x + bulge)
            .raw(" ")
            .number(arrive)
            .raw(" ");
        html.number(tip)
            .raw(" ")
            .number(arrive)
            .raw("\"/><path class=\"")
            .raw(style.tip())
            .raw("\" d=\"M")
            .number(x)
            .raw(" ");
        html.number(arrive)
            .raw("L")
            .number(x + 9.0 * side)
            .raw(" ")
            .number(arrive - 4.0)
            .raw("V")
            .number(arrive + 4.0)
            .raw("Z\"/></g>\n");
    }

    fn node(&self, html: &mut Html, name: &str, y: f64) {
        if name.is_empty() {
            html.raw("<text x=\"").number(f64::midpoint(LEFT, RIGHT)).raw("\" y=\"").number(y + 4.0);
            html.raw("\" text-anchor=\"middle\">begin of a session</text>\n");
            return;
        }
        let action = self.calls.actions.get(name).copied().unwrap_or_default();
        html.raw("<g><title>")
            .short(name, 200)
            .raw(": ")
            .text(&counted(action.calls, "attempt", "attempts"))
            .raw(", ");
        html.text(&counted(action.incidents, "incident", "incidents"))
            .raw("</title><rect x=\"")
            .number(LEFT)
            .raw("\" y=\"");
        html.number(y - 12.0)
            .raw("\" width=\"")
            .number(RIGHT - LEFT)
            .raw("\" height=\"24\" rx=\"5\" class=\"");
        html.raw(if action.incidents > 0 { "node hit" } else { "node" })
            .raw("\"/><text x=\"")
            .number(LEFT + 10.0)
            .raw("\" y=\"");
        html.number(y + 4.0).raw("\">").short(name, NAME_CHARS).raw("</text>");
        if action.incidents > 0 {
            html.raw("<text class=\"many\" text-anchor=\"end\" x=\"")
                .number(RIGHT - 10.0)
                .raw("\" y=\"")
                .number(y + 4.0)
                .raw("\">");
            html.count(action.incidents).raw("</text>");
        }
        html.raw("</g>\n");
    }
}

/// Actions by their mean place in a session; those that were not seen come last.
fn rows(arcs: &[(Ends, Edge, Style)], calls: &Calls) -> BTreeMap<String, f64> {
    let names: BTreeSet<&String> = arcs.iter().flat_map(|((from, to), ..)| [from, to]).collect();
    let place = |name: &str| match (name, calls.actions.get(name)) {
        ("", _) => -1.0,
        (_, Some(action)) => action.place(),
        (_, None) => f64::MAX,
    };
    let mut names: Vec<&String> = names.into_iter().collect();
    names.sort_by(|one, other| place(one).total_cmp(&place(other)).then(one.cmp(other)));
    let mut y = ROW * -0.25;
    names
        .into_iter()
        .map(|name| {
            y += ROW;
            (name.clone(), y)
        })
        .collect()
}

fn title(from: &str, to: &str, edge: Edge, style: Style) -> String {
    let from = if from.is_empty() { "begin" } else { from };
    let calls = counted(edge.calls, "attempt", "attempts");
    format!("{from} → {to}: {}, {calls}, {}", style.words(), counted(edge.incidents, "incident", "incidents"))
}

/// Wider with each tenfold.
fn stroke(calls: u64) -> f64 {
    1.2 + f64::from(calls.max(1).ilog10()) * 0.9
}
