//! Tasks as they are printed.

use cardea_client::v1;
use serde::Serialize;

use crate::cli::bundle::node::{self, time};
use crate::cli::words::entity;

#[derive(Serialize)]
pub(super) struct Tasks {
    pub(super) tasks: Vec<TaskView>,
}

#[derive(Serialize)]
pub(super) struct Changed {
    pub(super) ok: bool,
    pub(super) task: TaskView,
    pub(super) state_version: u64,
}

/// A task, for machines.
#[derive(Serialize)]
pub(super) struct TaskView {
    id: String,
    status: &'static str,
    purpose: String,
    agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_behalf_of: Option<String>,
    actions: Vec<String>,
    resources: Vec<String>,
    not_before: Option<String>,
    not_after: Option<String>,
    latest_end: Option<String>,
    approved_by: String,
    approved_at: Option<String>,
    changes: Vec<ChangeView>,
}

#[derive(Serialize)]
struct ChangeView {
    at: Option<String>,
    change: &'static str,
    by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

impl From<&v1::ApprovedTask> for TaskView {
    fn from(task: &v1::ApprovedTask) -> Self {
        let scope = task.task.clone().unwrap_or_default();
        let change = |change: &v1::TaskChange| ChangeView {
            at: time(change.at.as_ref()),
            change: match change.kind() {
                v1::TaskChangeKind::Narrowed => "narrowed",
                v1::TaskChangeKind::Extended => "extended",
                v1::TaskChangeKind::Ended => "ended",
                v1::TaskChangeKind::Unspecified => "unknown",
            },
            by: entity(change.by.as_ref()),
            reason: change.reason.clone(),
        };
        Self {
            id: scope.id,
            status: match task.status() {
                v1::TaskStatus::Waiting => "waiting",
                v1::TaskStatus::Active => "active",
                v1::TaskStatus::Over => "over",
                v1::TaskStatus::Ended => "ended",
                v1::TaskStatus::Unspecified => "unknown",
            },
            purpose: scope.purpose,
            agent: entity(task.agent.as_ref()),
            on_behalf_of: task.on_behalf_of.as_ref().map(|one| entity(Some(one))),
            actions: scope.actions,
            resources: scope.resources,
            not_before: time(scope.not_before.as_ref()),
            not_after: time(scope.not_after.as_ref()),
            latest_end: time(task.latest_end.as_ref()),
            approved_by: entity(task.approved_by.as_ref()),
            approved_at: time(task.approved_at.as_ref()),
            changes: task.changes.iter().map(change).collect(),
        }
    }
}

/// One line for each task.
pub(super) fn table(tasks: &[v1::ApprovedTask]) -> String {
    let row = |task: &v1::ApprovedTask| {
        let view = TaskView::from(task);
        let ends = view.not_after.unwrap_or_else(|| "-".to_owned());
        vec![view.id, view.status.to_owned(), view.agent, ends, view.actions.join(","), view.purpose]
    };
    let rows: Vec<_> = tasks.iter().map(row).collect();
    node::table(&["TASK", "STATUS", "AGENT", "ENDS", "ACTIONS", "PURPOSE"], &rows)
}

/// Everything about one task.
pub(super) fn details(task: &v1::ApprovedTask) -> String {
    let view = TaskView::from(task);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut text = String::new();
    let resources = match (view.resources.is_empty(), view.actions.is_empty()) {
        (_, true) => "none".to_owned(),
        (true, false) => "all".to_owned(),
        (false, false) => view.resources.join(" "),
    };
    let lines = [
        ("task", format!("{} ({})", view.id, view.status)),
        ("purpose", view.purpose),
        ("agent", view.agent),
        ("for", or_dash(view.on_behalf_of)),
        ("actions", if view.actions.is_empty() { "none".to_owned() } else { view.actions.join(" ") }),
        ("resources", resources),
        ("from", view.not_before.unwrap_or_else(|| "its approval".to_owned())),
        ("until", format!("{}, at the latest {}", or_dash(view.not_after), or_dash(view.latest_end))),
        ("approved", format!("{} by {}", or_dash(view.approved_at), view.approved_by)),
    ];
    for (name, value) in lines {
        node::field(&mut text, name, &value);
    }
    for change in view.changes {
        let why = if change.reason.is_empty() { String::new() } else { format!(": {}", change.reason) };
        node::field(&mut text, change.change, &format!("{} by {}{why}", or_dash(change.at), change.by));
    }
    text
}
