//! The page: from what matters most down to the evidence.

mod bars;
mod cases;
mod graph;
mod plot;
pub(super) mod words;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cardea_core::behavior::Assessment;

use super::Report;
use super::html::Html;
use super::tally::KINDS;

const STYLE: &str = include_str!("style.css");

/// See the module.
pub(super) fn page(report: &Report<'_>) -> String {
    let mut html = Html::default();
    // Nothing may be fetched, nothing may run, and of styles only this one counts.
    html.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")
        .raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-")
        .text(&STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, STYLE.as_bytes())))
        .raw("'; base-uri 'none'; form-action 'none'\">\n")
        .raw("<meta name=\"referrer\" content=\"no-referrer\">\n")
        .raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Behaviour report: ")
        .text(&words::subject(report))
        .raw("</title>\n<style>")
        .raw(STYLE)
        .raw("</style>\n</head>\n<body>\n<main>\n");
    head(&mut html, report);
    plot::section(&mut html, report);
    bars::identities(&mut html, report);
    bars::classes(&mut html, report);
    graph::section(&mut html, report);
    cases::section(&mut html, report);
    foot(&mut html, report);
    html.raw("</main>\n</body>\n</html>\n");
    html.into_string()
}

fn head(html: &mut Html, report: &Report<'_>) {
    html.raw("<header>\n<h1>Behaviour report</h1>\n<p class=\"soft\"><bdi>")
        .text(&words::subject(report))
        .raw("</bdi>");
    if let Some((first, last)) = report.times {
        html.raw(" · ").text(&words::minute(first)).raw(" to ").text(&words::minute(last)).raw(" UTC");
    }
    html.raw("</p>\n</header>\n<p class=\"lead\">")
        .text(&words::summary(report))
        .raw("</p>\n<dl class=\"tiles\">\n");
    let whole = &report.whole;
    html.raw("<div><dt>Attempts</dt><dd>").count(whole.attempts);
    if report.has_sessions() {
        html.raw("<small>in ").count(report.sessions).raw(" sessions</small>");
    }
    html.raw("</dd></div>\n");
    for kind in KINDS {
        let count = whole.of(kind);
        // What did not happen needs no colour.
        let style = class(if count == 0 { Assessment::None } else { kind });
        html.raw("<div class=\"").raw(style).raw("\"><dt>").raw(words::kind(kind)).raw("</dt><dd>");
        html.count(count).raw("<small>").raw(words::meaning(kind)).raw("</small></dd></div>\n");
    }
    html.raw("</dl>\n");
}

fn foot(html: &mut Html, report: &Report<'_>) {
    let whose =
        if report.answers.is_some() { "that policies gave" } else { "that the monitor would have given" };
    html.raw("<footer class=\"soft\">\n<p>An <strong>incident</strong> is a deviation that its session had not shown before; what repeats it is ")
        .raw("counted as a repeat. An assessment says which approved entry is missing; nothing is guessed. <strong>Confidence</strong> orders cases ")
        .raw("of the same assessment and is no probability. Answers are those ")
        .raw(whose)
        .raw(".</p>\n<p>");
    compared_with(html, report);
    html.raw(" Made by cardea ")
        .raw(env!("CARGO_PKG_VERSION"))
        .raw(". Characters that show nothing or reorder text stand as ⟨U+…⟩.</p>\n</footer>\n");
}

fn compared_with(html: &mut Html, report: &Report<'_>) {
    let kept = report.kept;
    if let Some(answers) = &report.answers {
        html.raw("Compared with the baselines in force then");
        for (at, baseline) in answers.baselines.iter().enumerate() {
            html.raw(if at == 0 { ": version <bdi>" } else { ", version <bdi>" })
                .short(baseline, 80)
                .raw("</bdi>");
        }
        html.raw(".");
        return;
    }
    html.raw("Compared with baseline version ")
        .count(u64::from(kept.version))
        .raw(", approved by <bdi>")
        .short(&kept.approved_by, 80)
        .raw("</bdi>, learned from ")
        .count(kept.attempts)
        .raw(" attempts.");
}

/// The style of an assessment.
const fn class(kind: Assessment) -> &'static str {
    match kind {
        Assessment::None => "none",
        Assessment::Misconfiguration => "config",
        Assessment::WorkflowChange => "change",
        Assessment::Abuse => "abuse",
    }
}

/// The colour of an assessment in a picture.
const fn fill(kind: Assessment) -> &'static str {
    match kind {
        Assessment::None => "none-fill",
        Assessment::Misconfiguration => "config-fill",
        Assessment::WorkflowChange => "change-fill",
        Assessment::Abuse => "abuse-fill",
    }
}

/// Which colour is which assessment.
fn legend(html: &mut Html) {
    html.raw("<ul class=\"legend\">");
    for kind in KINDS {
        html.raw("<li><svg width=\"10\" height=\"10\" aria-hidden=\"true\"><rect width=\"10\" height=\"10\" rx=\"2\" class=\"")
            .raw(fill(kind))
            .raw("\"/></svg>")
            .raw(words::kind(kind))
            .raw("</li>");
    }
    html.raw("</ul>\n");
}
