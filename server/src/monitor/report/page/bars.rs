//! Incidents of each identity and of each class of action, as tables with bars.

use cardea_core::behavior::ActionClass;

use super::plot::share;
use super::{fill, words};
use crate::monitor::report::Report;
use crate::monitor::report::html::{Html, counted};
use crate::monitor::report::tally::{KINDS, Tally};

/// Most identities in the table.
pub(super) const IDENTITIES_SHOWN: usize = 20;

pub(super) fn identities(html: &mut Html, report: &Report<'_>) {
    let ranked = report.ranked();
    let deviating = ranked.iter().take_while(|(_, one)| one.tally.incidents() > 0).count();
    // One that did nothing wrong is shown only if nobody did.
    let count = deviating.clamp(1, IDENTITIES_SHOWN);
    let shown: Vec<_> = ranked.iter().take(count).map(|(name, one)| (*name, "", one.tally)).collect();
    html.raw("<section aria-labelledby=\"identities\">\n<h2 id=\"identities\">By identity</h2>\n");
    table(html, "Identity", &shown);
    let rest = ranked.get(count..).unwrap_or_default();
    let mut hidden = report.others;
    for (_, one) in rest {
        hidden.add(one.tally);
    }
    if hidden.attempts > 0 {
        let count = u64::try_from(rest.len()).unwrap_or(u64::MAX);
        let least = if report.others.attempts > 0 { "at least " } else { "" };
        html.raw("<p class=\"soft\">And ")
            .raw(least)
            .text(&counted(count.max(1), "more identity", "more identities"))
            .raw(" with ");
        html.text(&counted(hidden.incidents(), "incident", "incidents")).raw(" in ");
        html.text(&counted(hidden.attempts, "attempt", "attempts")).raw(".</p>\n");
    }
    html.raw("</section>\n");
}

pub(super) fn classes(html: &mut Html, report: &Report<'_>) {
    let row = |(class, tally): (&ActionClass, &Tally)| (class.name(), meaning(*class), *tally);
    let mut rows: Vec<_> = report.classes.iter().map(row).collect();
    rows.sort_by_key(|(.., tally)| std::cmp::Reverse((tally.severity(), tally.attempts)));
    html.raw("<section aria-labelledby=\"classes\">\n<h2 id=\"classes\">By kind of action</h2>\n");
    table(html, "Kind", &rows);
    html.raw("</section>\n");
}

/// What a class says, as docs/monitoring.md has it.
const fn meaning(class: ActionClass) -> &'static str {
    match class {
        ActionClass::Read => "at home",
        ActionClass::Fetch => "reads from outside",
        ActionClass::Write => "changes something",
        ActionClass::Egress => "hands data, money or access to another party",
        ActionClass::Privilege => "changes who may do what",
        ActionClass::Secret => "reads or changes a secret",
    }
}

fn table(html: &mut Html, what: &'static str, rows: &[(&str, &'static str, Tally)]) {
    let most = rows.iter().map(|(.., tally)| tally.incidents()).max().unwrap_or(0);
    html.raw("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"").raw(what).raw(" table\">");
    html.raw("<table class=\"bars\">\n<thead><tr><th scope=\"col\">").raw(what).raw("</th>");
    html.raw("<th scope=\"col\" class=\"n\">Incidents</th>");
    for kind in KINDS {
        html.raw("<th scope=\"col\" class=\"n\">").raw(words::kind(kind)).raw("</th>");
    }
    html.raw("<th scope=\"col\" class=\"n\">Repeats</th><th scope=\"col\" class=\"n\">Attempts</th></tr></thead>\n<tbody>\n");
    for (name, meaning, tally) in rows {
        html.raw("<tr><th scope=\"row\">")
            .short(name, 80)
            .raw(" <span class=\"soft\">")
            .raw(meaning)
            .raw("</span>");
        bar(html, tally, most);
        html.raw("</th>");
        cell(html, tally.incidents());
        for kind in KINDS {
            cell(html, tally.of(kind));
        }
        cell(html, tally.repeats);
        cell(html, tally.attempts);
        html.raw("</tr>\n");
    }
    html.raw("</tbody>\n</table></div>\n");
}

fn bar(html: &mut Html, tally: &Tally, most: u64) {
    // The numbers stand beside it, so those who do not see it miss nothing.
    html.raw("<svg viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\">");
    let mut x = 0.0;
    for kind in KINDS.into_iter().filter(|kind| tally.of(*kind) > 0) {
        let width = share(tally.of(kind), most) * 100.0;
        html.raw("<rect x=\"")
            .number(x)
            .raw("\" width=\"")
            .number(width.max(0.4))
            .raw("\" height=\"8\" class=\"");
        html.raw(fill(kind)).raw("\"/>");
        x += width;
    }
    html.raw("</svg>");
}

fn cell(html: &mut Html, count: u64) {
    html.raw(if count == 0 { "<td class=\"n zero\">" } else { "<td class=\"n\">" }).count(count).raw("</td>");
}
