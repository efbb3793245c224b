//! A shadow as text and as JSON.

use std::fmt::Write as _;

use cardea_client::v1;
use serde::Serialize;

use crate::cli::bundle::node::{table, time};
use crate::shadow::SAMPLE_WHOLE;

/// For machines.
#[derive(Serialize)]
pub(in crate::cli::bundle) struct ShadowView<'a> {
    name: &'a str,
    revision: u64,
    digest: &'a str,
    sample: f64,
    started_at: Option<String>,
    started_by: &'a str,
    reason: &'a str,
    evaluated: u64,
    skipped: u64,
    unread: u64,
    waiting: u64,
    same: u64,
    changes: Vec<ChangeView>,
    groups: Vec<GroupView<'a>>,
    groups_total: u64,
    ungrouped: u64,
    recorded: u64,
}

#[derive(Serialize)]
struct ChangeView {
    effect: &'static str,
    in_force: &'static str,
    candidate: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct GroupView<'a> {
    effect: &'static str,
    in_force: &'static str,
    candidate: &'static str,
    action: String,
    in_force_policies: &'a [String],
    candidate_policies: &'a [String],
    candidate_reasons: Vec<String>,
    count: u64,
    first: Option<String>,
    last: Option<String>,
    example: ExampleView<'a>,
}

#[derive(Serialize)]
struct ExampleView<'a> {
    decision_id: &'a str,
    principal: String,
    resource: String,
}

impl<'a> From<&'a v1::Shadow> for ShadowView<'a> {
    fn from(shadow: &'a v1::Shadow) -> Self {
        let change = |change: &v1::ShadowChange| ChangeView {
            effect: effect(change.effect()),
            in_force: decision(change.in_force()),
            candidate: decision(change.candidate()),
            count: change.count,
        };
        Self {
            name: &shadow.name,
            revision: shadow.revision,
            digest: &shadow.digest,
            sample: share(shadow),
            started_at: time(shadow.started_at.as_ref()),
            started_by: &shadow.started_by,
            reason: &shadow.reason,
            evaluated: shadow.evaluated,
            skipped: shadow.skipped,
            unread: shadow.unread,
            waiting: shadow.waiting,
            same: shadow.same,
            changes: shadow.changes.iter().map(change).collect(),
            groups: shadow.groups.iter().map(group).collect(),
            groups_total: shadow.groups_total,
            ungrouped: shadow.ungrouped,
            recorded: shadow.recorded,
        }
    }
}

fn group(group: &v1::ShadowGroup) -> GroupView<'_> {
    GroupView {
        effect: effect(group.effect()),
        in_force: decision(group.in_force()),
        candidate: decision(group.candidate()),
        action: entity(group.action.as_ref()),
        in_force_policies: &group.in_force_policies,
        candidate_policies: &group.candidate_policies,
        candidate_reasons: group.candidate_reasons().map(reason).collect(),
        count: group.count,
        first: time(group.first.as_ref()),
        last: time(group.last.as_ref()),
        example: ExampleView {
            decision_id: &group.example_decision_id,
            principal: entity(group.example_principal.as_ref()),
            resource: entity(group.example_resource.as_ref()),
        },
    }
}

/// Which candidate it is, in two lines.
pub(super) fn head(shadow: &v1::Shadow) -> String {
    let percent = share(shadow) * 100.0;
    let since = time(shadow.started_at.as_ref()).unwrap_or_default();
    format!(
        "shadow: {} revision {}, {percent} % of the attempts, since {since}\ndigest {}",
        shadow.name, shadow.revision, shadow.digest
    )
}

/// What it found, in one line.
pub(in crate::cli::bundle) fn summary(shadow: &v1::Shadow) -> String {
    let of = |wanted: v1::ShadowEffect| -> u64 {
        let changes = shadow.changes.iter().filter(|change| change.effect() == wanted);
        changes.map(|change| change.count).sum()
    };
    format!(
        "{} evaluated: {} same, {} widened, {} tightened, {} changed in detail; {} skipped, {} not readable, {} waiting",
        shadow.evaluated,
        shadow.same,
        of(v1::ShadowEffect::Widened),
        of(v1::ShadowEffect::Tightened),
        of(v1::ShadowEffect::Changed),
        shadow.skipped,
        shadow.unread,
        shadow.waiting
    )
}

/// Everything, as tables.
pub(super) fn whole(shadow: &v1::Shadow) -> String {
    let mut text = format!("{}\n{}\n", head(shadow), summary(shadow));
    if !shadow.groups.is_empty() {
        let row = |group: &v1::ShadowGroup| {
            vec![
                effect(group.effect()).to_owned(),
                format!("{} -> {}", decision(group.in_force()), decision(group.candidate())),
                group.count.to_string(),
                entity(group.action.as_ref()),
                names(&group.in_force_policies),
                names(&group.candidate_policies),
                format!(
                    "{} on {}",
                    entity(group.example_principal.as_ref()),
                    entity(group.example_resource.as_ref())
                ),
            ]
        };
        let rows: Vec<_> = shadow.groups.iter().map(row).collect();
        let columns = ["EFFECT", "ANSWER", "COUNT", "ACTION", "BY", "BY (CANDIDATE)", "FIRST"];
        text.push('\n');
        text.push_str(&table(&columns, &rows));
        let hidden = shadow.groups_total.saturating_sub(u64::try_from(shadow.groups.len()).unwrap_or(0));
        if hidden > 0 || shadow.ungrouped > 0 {
            let _infallible =
                writeln!(text, "{hidden} more groups, {} differences outside of groups", shadow.ungrouped);
        }
    }
    text
}

fn names(policies: &[String]) -> String {
    if policies.is_empty() { "-".to_owned() } else { policies.join(",") }
}

fn share(shadow: &v1::Shadow) -> f64 {
    f64::from(shadow.sample_per_10000) / f64::from(SAMPLE_WHOLE)
}

/// An effect as it is printed.
pub(super) fn effect(effect: v1::ShadowEffect) -> &'static str {
    match effect {
        v1::ShadowEffect::Widened => "widened",
        v1::ShadowEffect::Tightened => "tightened",
        v1::ShadowEffect::Changed => "changed",
        v1::ShadowEffect::Unspecified => "unknown",
    }
}

/// A decision as it is printed.
pub(super) fn decision(decision: v1::Decision) -> &'static str {
    match decision {
        v1::Decision::Allow => "allow",
        v1::Decision::StepUp => "step_up",
        v1::Decision::Deny => "deny",
        v1::Decision::Unspecified => "unknown",
    }
}

/// The code of a reason as records show it.
pub(super) fn reason(code: v1::ReasonCode) -> String {
    let name = code.as_str_name();
    name.strip_prefix("REASON_CODE_").unwrap_or(name).to_ascii_lowercase()
}

/// An entity as Cedar writes it.
pub(super) fn entity(reference: Option<&v1::EntityRef>) -> String {
    let Some(reference) = reference else { return "-".to_owned() };
    format!("{}::\"{}\"", reference.r#type, reference.id.escape_debug())
}
