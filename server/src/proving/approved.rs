//! Approvals in scenario files: tasks, and single attempts that a step-up asked an approval for.

use std::collections::BTreeMap;

use cardea_proto::v1;
use serde::Deserialize;
use serde_json::Value;

use super::attempt::{AttemptTold, Expected};
use super::told::TaskTold;
use super::words::{ActionNamed, Many, Named, Span};

/// A task that somebody approves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskApproved {
    agent: Named,
    on_behalf_of: Option<Named>,
    by: Named,
    task: TaskTold,
}

impl TaskApproved {
    /// The approval as a caller would ask for it at this time.
    #[must_use]
    pub fn message(&self, now_ms: i64) -> v1::ApproveTaskRequest {
        v1::ApproveTaskRequest {
            task: Some(self.task.message(now_ms)),
            agent: Some(self.agent.reference()),
            on_behalf_of: self.on_behalf_of.as_ref().map(Named::reference),
            approved_by: Some(self.by.reference()),
            latest_end: None,
        }
    }
}

/// A task that somebody ends.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskEnded {
    /// The task.
    pub id: String,
    /// Who ends it.
    pub by: Named,
}

/// An attempt that a reviewer approves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptApproved {
    principal: Named,
    action: ActionNamed,
    resource: Named,
    #[serde(default)]
    request: BTreeMap<String, Value>,
    session: Option<String>,
    #[serde(default)]
    delegation: Many<Named>,
    /// The requirement that it meets, by its name in the bundle.
    pub requirement: String,
    /// Who approves.
    pub by: Named,
    /// When the grant ends; unset: as late as the requirement allows.
    pub ends_in: Option<Span>,
}

impl AttemptApproved {
    /// The attempt that is approved.
    #[must_use]
    pub fn attempt(&self) -> AttemptTold {
        AttemptTold {
            name: None,
            principal: self.principal.clone(),
            action: self.action.clone(),
            resource: self.resource.clone(),
            request: self.request.clone(),
            session: self.session.clone(),
            task_id: None,
            delegation: self.delegation.clone(),
            token: None,
            times: None,
            // Nobody judges it here.
            expect: Expected::StepUp,
            reasons: None,
            policies: None,
            requirements: None,
            obligations: None,
            errors: None,
            message: None,
        }
    }
}
