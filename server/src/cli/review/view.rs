//! Reviews as they are printed.

use std::fmt::Write as _;

use cardea_client::v1;
use serde::Serialize;

use crate::cli::bundle::node::{self, time};
use crate::cli::words::entity;
use crate::hidden::printable;

#[derive(Serialize)]
pub(super) struct Reviews {
    pub(super) reviews: Vec<ReviewView>,
}

#[derive(Serialize)]
pub(super) struct Changed {
    pub(super) ok: bool,
    pub(super) review: ReviewView,
    pub(super) state_version: u64,
}

/// A review, for machines.
#[derive(Serialize)]
pub(super) struct ReviewView {
    id: String,
    round: u32,
    status: &'static str,
    requirement: String,
    principal: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    delegation: Vec<String>,
    action: String,
    resource: String,
    arguments: serde_json::Map<String, serde_json::Value>,
    argument_digest: String,
    attempts: u64,
    opened_at: Option<String>,
    expires_at: Option<String>,
    last_attempt_at: Option<String>,
    reviewers: Vec<String>,
    decision_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    session_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_at: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant_ends_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant_session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deviation: Option<DeviationView>,
    /// What an approval into the next baseline takes up.
    #[serde(skip_serializing_if = "Option::is_none")]
    learnable: Option<LearnableView>,
    into_baseline: bool,
    once: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_at: Option<String>,
}

/// What would be approved for the principal, in which task; empty: in none.
#[derive(Serialize)]
struct LearnableView {
    task: String,
    targets: Vec<String>,
    references: Vec<String>,
}

/// How the attempt deviated when the round was opened.
#[derive(Serialize)]
struct DeviationView {
    assessment: String,
    confidence: u32,
    flags: Vec<String>,
    evidence: Vec<String>,
    baseline: String,
}

impl From<&v1::Review> for ReviewView {
    fn from(review: &v1::Review) -> Self {
        let ask = review.ask.clone().unwrap_or_default();
        let grant = review.grant.as_ref();
        Self {
            id: review.id.clone(),
            round: review.round,
            status: status(review.status()),
            requirement: ask.requirement,
            principal: entity(ask.principal.as_ref()),
            delegation: ask.delegation.iter().map(|hop| entity(Some(hop))).collect(),
            action: entity(ask.action.as_ref()),
            resource: entity(ask.resource.as_ref()),
            arguments: ask.arguments.iter().map(|(name, one)| (name.clone(), value(one))).collect(),
            argument_digest: ask.argument_digest,
            attempts: review.attempts,
            opened_at: time(review.opened_at.as_ref()),
            expires_at: time(review.expires_at.as_ref()),
            last_attempt_at: time(review.last_attempt_at.as_ref()),
            reviewers: review.reviewers.clone(),
            decision_id: review.decision_id.clone(),
            session_id: review.session_id.clone(),
            decided_by: review.decided_by.as_ref().map(|by| entity(Some(by))),
            decided_at: time(review.decided_at.as_ref()),
            reason: review.reason.clone(),
            grant_ends_at: grant.and_then(|grant| time(grant.ends_at.as_ref())),
            grant_session_id: grant.map(|grant| grant.session_id.clone()).filter(|id| !id.is_empty()),
            rejected_until: time(review.rejected_until.as_ref()),
            deviation: review.deviation.clone().map(|of| DeviationView {
                assessment: of.assessment,
                confidence: of.confidence,
                flags: of.flags,
                evidence: of.evidence,
                baseline: of.baseline,
            }),
            learnable: review.learnable.clone().map(|of| LearnableView {
                task: of.task,
                targets: of.targets,
                references: of.references,
            }),
            into_baseline: review.into_baseline,
            once: grant.is_some_and(|grant| grant.once),
            used_at: grant.and_then(|grant| time(grant.used_at.as_ref())),
        }
    }
}

fn status(status: v1::ReviewStatus) -> &'static str {
    match status {
        v1::ReviewStatus::Pending => "pending",
        v1::ReviewStatus::Approved => "approved",
        v1::ReviewStatus::Rejected => "rejected",
        v1::ReviewStatus::Expired => "expired",
        v1::ReviewStatus::UsedUp => "used_up",
        v1::ReviewStatus::Unspecified => "unknown",
    }
}

/// An argument as JSON; entities, times and the like as text.
fn value(of: &v1::Value) -> serde_json::Value {
    use v1::value::Kind;
    match &of.kind {
        None => serde_json::Value::Null,
        Some(Kind::Bool(value)) => (*value).into(),
        Some(Kind::Long(value)) => (*value).into(),
        Some(Kind::String(text) | Kind::Decimal(text) | Kind::Ip(text)) => text.as_str().into(),
        Some(Kind::Entity(reference)) => entity(Some(reference)).into(),
        Some(Kind::Set(set)) => set.values.iter().map(value).collect::<Vec<_>>().into(),
        Some(Kind::Record(record)) => {
            record.fields.iter().map(|(name, one)| (name.clone(), value(one))).collect()
        }
        Some(Kind::Datetime(at)) => time(Some(at)).unwrap_or_default().into(),
        Some(Kind::Duration(span)) => format!("{}s", span.seconds).into(),
    }
}

/// One line for each review.
pub(super) fn table(reviews: &[v1::Review]) -> String {
    let row = |review: &v1::Review| {
        let view = ReviewView::from(review);
        vec![
            view.id,
            view.status.to_owned(),
            view.requirement,
            view.principal,
            view.action,
            view.resource,
            view.deviation.map_or_else(|| "-".to_owned(), |of| of.assessment),
            view.attempts.to_string(),
            view.opened_at.unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let rows: Vec<_> = reviews.iter().map(row).collect();
    let head = [
        "REVIEW",
        "STATUS",
        "REQUIREMENT",
        "PRINCIPAL",
        "ACTION",
        "RESOURCE",
        "DEVIATES",
        "ATTEMPTS",
        "OPENED",
    ];
    node::table(&head, &rows)
}

/// Everything about one review.
pub(super) fn details(review: &v1::Review) -> String {
    let view = ReviewView::from(review);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let chain = if view.delegation.is_empty() { "itself".to_owned() } else { view.delegation.join(", ") };
    let mut text = String::new();
    let lines = [
        ("review", view.id),
        ("status", format!("{}, round {}", view.status, view.round)),
        ("asks for", view.requirement),
        ("principal", view.principal),
        ("for", chain),
        ("action", view.action),
        ("resource", view.resource),
        ("attempts", format!("{}, last {}", view.attempts, or_dash(view.last_attempt_at))),
        ("opened", format!("{}, expires {}", or_dash(view.opened_at), or_dash(view.expires_at))),
        ("reviewers", view.reviewers.join(" ")),
    ];
    for (name, line) in lines {
        node::field(&mut text, name, &line);
    }
    node::field(&mut text, "arguments", &format!("sha256 {}", view.argument_digest));
    for (name, argument) in &view.arguments {
        // JSON escapes few of the characters that must not reach a terminal.
        let line = format!("{}: {argument}", serde_json::Value::from(name.as_str()));
        let _ = writeln!(text, "  {}", printable(&line));
    }
    if let Some(of) = view.deviation {
        deviates(&mut text, &of, view.learnable);
    }
    if let Some(by) = view.decided_by {
        let why = if view.reason.is_empty() { String::new() } else { format!(": {}", view.reason) };
        node::field(&mut text, "decided", &format!("{} by {by}{why}", or_dash(view.decided_at)));
    }
    if let Some(ends) = view.grant_ends_at {
        let only = view.grant_session_id.map_or_else(String::new, |id| format!(", in session {id} only"));
        let once = match (view.once, view.used_at) {
            (false, _) => String::new(),
            (true, None) => ", for one attempt".to_owned(),
            (true, Some(at)) => format!(", for one attempt, which was at {at}"),
        };
        node::field(&mut text, "grant", &format!("until {ends}{only}{once}"));
    }
    if view.into_baseline {
        node::field(&mut text, "baseline", "goes into the next one");
    }
    if let Some(until) = view.rejected_until {
        node::field(&mut text, "closed", &format!("no other round before {until}"));
    }
    text
}

/// How the attempt deviated, and what an approval could take up.
fn deviates(text: &mut String, of: &DeviationView, learnable: Option<LearnableView>) {
    let against =
        if of.baseline.is_empty() { "no baseline".to_owned() } else { format!("baseline {}", of.baseline) };
    // A new order, say, is no deviation by itself; a policy asks about it all the same.
    let line = match of.assessment.as_str() {
        "none" => format!("by nothing that amounts to more than evidence, against {against}"),
        assessment => format!("{assessment}, {} percent sure, against {against}", of.confidence),
    };
    node::field(text, "deviates", &line);
    for sentence in &of.evidence {
        let _ = writeln!(text, "  {}", printable(sentence));
    }
    match learnable {
        None => {
            let what = "cannot be approved into a baseline: it names more than a review keeps";
            let _ = writeln!(text, "  {what}");
        }
        Some(of) => {
            let task = if of.task.is_empty() { "no task".to_owned() } else { format!("task {}", of.task) };
            let names: Vec<_> = of.targets.into_iter().chain(of.references).collect();
            let line = format!("in {task}: {}", names.join(", "));
            node::field(text, "learnable", &line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_shows_a_reviewer_every_character_that_it_has() {
        let text =
            v1::Value { kind: Some(v1::value::Kind::String("ann\u{202e}\u{9b}2J\u{7f}yrollam".to_owned())) };
        let ask = v1::ReviewAsk { arguments: [("to\u{2066}".to_owned(), text)].into(), ..Default::default() };
        let shown = details(&v1::Review { ask: Some(ask), ..Default::default() });
        assert!(shown.contains(r#"  "to\u{2066}": "ann\u{202e}\u{9b}2J\u{7f}yrollam""#), "{shown}");
    }
}
