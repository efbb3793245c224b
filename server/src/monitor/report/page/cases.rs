//! The evidence: cases, the most severe first.

use super::{class, words};
use crate::monitor::report::Report;
use crate::monitor::report::cases::{Case, Key};
use crate::monitor::report::html::{Html, counted};

/// Most cases in the table.
pub(super) const CASES_SHOWN: usize = 100;
/// Most characters of a sentence.
const SENTENCE_CHARS: usize = 320;
/// Sentences that are read without opening anything.
const SENTENCES_OPEN: usize = 2;

pub(super) fn section(html: &mut Html, report: &Report<'_>) {
    html.raw("<section aria-labelledby=\"cases\" class=\"cases\">\n<h2 id=\"cases\">Cases and their evidence</h2>\n");
    let ranked = report.cases.ranked();
    if ranked.is_empty() {
        html.raw("<p class=\"soft\">There are none.</p>\n</section>\n");
        return;
    }
    html.raw("<p class=\"soft\">Incidents of one identity and task that say the same are one case. The most severe stand first.</p>\n");
    html.raw("<div class=\"scroll\"><table role=\"table\">\n<thead role=\"rowgroup\"><tr role=\"row\">");
    for head in ["Assessment", "Identity, task", "What was done, and what is missing"] {
        html.raw("<th scope=\"col\" role=\"columnheader\">").raw(head).raw("</th>");
    }
    for head in ["Incidents", "Repeats"] {
        html.raw("<th scope=\"col\" role=\"columnheader\" class=\"n\">").raw(head).raw("</th>");
    }
    html.raw("<th scope=\"col\" role=\"columnheader\">Seen</th></tr></thead>\n<tbody role=\"rowgroup\">\n");
    for (key, case) in ranked.iter().take(CASES_SHOWN) {
        row(html, key, case);
    }
    html.raw("</tbody>\n</table></div>\n");
    let rest = ranked.get(CASES_SHOWN..).unwrap_or_default();
    let hidden = rest.iter().map(|(_, case)| case.incidents).sum::<u64>();
    if !rest.is_empty() {
        let cases = u64::try_from(rest.len()).unwrap_or(u64::MAX);
        html.raw("<p>And ").text(&counted(cases, "more case", "more cases")).raw(" with ");
        html.text(&counted(hidden, "incident", "incidents"))
            .raw(", less severe than these; the scored file holds them all.</p>\n");
    }
    if report.cases.dropped > 0 {
        html.raw("<p>There were too many cases to hold; ").text(&counted(
            report.cases.dropped,
            "incident",
            "incidents",
        ));
        html.raw(" of the less severe ones are counted above and in no case.</p>\n");
    }
    html.raw("</section>\n");
}

fn row(html: &mut Html, key: &Key, case: &Case) {
    let kind = key.assessment.0;
    html.raw("<tr role=\"row\"><td role=\"cell\"><span class=\"mark ")
        .raw(class(kind))
        .raw("\">")
        .raw(words::kind(kind));
    html.raw("</span><br><span class=\"soft\">").raw(words::answer(key.response.0)).raw(", confidence ");
    html.text(&format!("{:.2}", case.confidence.clamp(0.0, 1.0)))
        .raw("</span></td>\n<td role=\"cell\" class=\"who\">");
    html.short(&key.principal, 80);
    if !key.task.is_empty() {
        html.raw("<br><span class=\"soft\">").short(&key.task, 80).raw("</span>");
    }
    html.raw("</td>\n<td role=\"cell\" class=\"what\"><code>")
        .short(&key.action, 80)
        .raw("</code> <span class=\"soft\">");
    html.raw(case.class.name()).raw("</span>");
    evidence(html, &case.evidence);
    html.raw("</td>\n<td role=\"cell\" class=\"n\" data-label=\"Incidents\">").count(case.incidents);
    html.raw(if case.repeats == 0 {
        "</td><td role=\"cell\" class=\"n zero\" data-label=\"Repeats\">"
    } else {
        "</td><td role=\"cell\" class=\"n\" data-label=\"Repeats\">"
    });
    html.count(case.repeats)
        .raw("</td>\n<td role=\"cell\" class=\"seen soft\" data-label=\"Seen\">")
        .text(&words::second(case.first));
    if case.last != case.first {
        html.raw("<br>to ").text(&words::second(case.last));
    }
    if !matches!(case.session.as_str(), "" | "-") {
        html.raw("<br>first in <bdi>").short(&case.session, 40).raw("</bdi>");
    }
    html.raw("</td></tr>\n");
}

/// The two weightiest sentences, and the others for who opens them.
fn evidence(html: &mut Html, sentences: &[String]) {
    let (open, more) = sentences.split_at_checked(SENTENCES_OPEN).unwrap_or((sentences, &[]));
    for sentence in open {
        html.raw("<p>").short(sentence, SENTENCE_CHARS).raw("</p>");
    }
    if more.is_empty() {
        return;
    }
    html.raw("<details><summary>more evidence</summary><ul>");
    for sentence in more {
        html.raw("<li>").short(sentence, SENTENCE_CHARS).raw("</li>");
    }
    html.raw("</ul></details>");
}
