//! What the page says in words.

use cardea_core::behavior::{Assessment, Response};
use jiff::Timestamp;

use crate::monitor::report::html::{counted, grouped};
use crate::monitor::report::{Choice, Report, clipped};

/// Whom the report is of.
pub(super) fn subject(report: &Report<'_>) -> String {
    let Choice { identity, task } = &report.choice;
    match (identity, task) {
        (None, None) => "all identities".to_owned(),
        (Some(identity), None) => clipped(identity),
        (None, Some(task)) => format!("task {}", clipped(task)),
        (Some(identity), Some(task)) => format!("{}, task {}", clipped(identity), clipped(task)),
    }
}

/// The whole report in one paragraph.
pub(in crate::monitor::report) fn summary(report: &Report<'_>) -> String {
    let whole = &report.whole;
    let identities = u64::try_from(report.identities.len()).unwrap_or(u64::MAX);
    let more = if report.others.attempts > 0 { "more than " } else { "" };
    let who = format!("{more}{}", counted(identities, "identity", "identities"));
    let what = counted(whole.attempts, "attempt", "attempts");
    if whole.incidents() == 0 {
        let text = format!("{who} made {what}, and nothing deviates from what was approved.");
        return text + &decided(report);
    }
    let mut text =
        format!("{who}, {what}, {}: {}", counted(whole.incidents(), "incident", "incidents"), kinds(report));
    if whole.repeats > 0 {
        let repeats = counted(whole.repeats, "further attempt repeats", "further attempts repeat");
        text.push_str(&format!("; {repeats} an incident of the same session"));
    }
    text.push_str(". ");
    text.push_str(&answers(report));
    text.push_str(&decided(report));
    if report.has_sessions() {
        text.push_str(&format!(
            " {} of {} deviated.",
            grouped(report.sessions_with_incidents),
            counted(report.sessions, "session", "sessions")
        ));
    }
    if report.identities.len() > 1
        && let Some((name, worst)) = report.ranked().first()
    {
        let count = worst.tally.incidents();
        text.push_str(&format!(
            " Most severe: {} with {}.",
            clipped(name),
            counted(count, "incident", "incidents")
        ));
    }
    text
}

/// `12 abuse, 3 workflow changes and 1 misconfiguration`; kinds that did not happen are left out.
fn kinds(report: &Report<'_>) -> String {
    let whole = &report.whole;
    let parts = [
        (whole.of(Assessment::Abuse), "abuse", "abuse"),
        (whole.of(Assessment::WorkflowChange), "workflow change", "workflow changes"),
        (whole.of(Assessment::Misconfiguration), "misconfiguration", "misconfigurations"),
    ];
    listed(
        parts
            .into_iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, one, many)| counted(count, one, many)),
    )
}

fn answers(report: &Report<'_>) -> String {
    let whole = &report.whole;
    let allowed = whole.incidents() - whole.denied - whole.stepped_up;
    let parts = [(whole.denied, "denied"), (whole.stepped_up, "held for review"), (allowed, "let through")];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    let whose = if report.answers.is_some() { "Policies' answer" } else { "The monitor's answer" };
    format!("{whose}: {}.", listed(parts.map(|(count, what)| format!("{} {what}", grouped(count)))))
}

/// Of what nodes decided: all answers, and what policies did not see.
fn decided(report: &Report<'_>) -> String {
    let Some(answers) = &report.answers else { return String::new() };
    let parts =
        [(answers.allowed, "allowed"), (answers.stepped_up, "held for review"), (answers.denied, "denied")];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    let mut text = format!(
        " Of all attempts {}.",
        listed(parts.map(|(count, what)| format!("{} were {what}", grouped(count))))
    );
    if answers.observed > 0 {
        let what = counted(answers.observed, "incident is", "incidents are");
        text.push_str(&format!(" {what} of observed identities: policies did not see them."));
    }
    if answers.uncompared > 0 {
        let what = counted(answers.uncompared, "further attempt was", "further attempts were");
        text.push_str(&format!(" {what} not compared, as no policy reads it."));
    }
    text
}

fn listed(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    match parts.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
        None => String::new(),
    }
}

/// An assessment as people call it.
pub(super) const fn kind(kind: Assessment) -> &'static str {
    match kind {
        Assessment::None => "None",
        Assessment::Misconfiguration => "Misconfiguration",
        Assessment::WorkflowChange => "Workflow change",
        Assessment::Abuse => "Abuse",
    }
}

/// What an assessment means.
pub(super) const fn meaning(kind: Assessment) -> &'static str {
    match kind {
        Assessment::None => "nothing that matters",
        Assessment::Misconfiguration => "fails at approved work",
        Assessment::WorkflowChange => "new, not yet approved",
        Assessment::Abuse => "used for something else",
    }
}

/// An answer as people call it.
pub(super) const fn answer(response: Response) -> &'static str {
    match response {
        Response::Allow => "let through",
        Response::StepUp => "held for review",
        Response::Deny => "denied",
    }
}

/// A time, UTC, to the minute.
pub(super) fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M").to_string()
}

/// A time, UTC, to the second.
pub(super) fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A length of time.
pub(super) fn span(seconds: i64) -> String {
    let units = [(604_800, "week"), (86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let fit = units.into_iter().find(|(length, _)| seconds % length == 0);
    let (length, unit) = fit.unwrap_or((1, "second"));
    match seconds / length {
        1 => format!("one {unit}"),
        many => format!("{many} {unit}s"),
    }
}
