//! Sessions as they are printed.

use cardea_client::v1;
use serde::Serialize;

use crate::cli::bundle::node::{self, time};
use crate::cli::words::entity;

#[derive(Serialize)]
pub(super) struct Sessions {
    pub(super) sessions: Vec<SessionView>,
    /// There are more than were asked for.
    pub(super) has_more: bool,
}

#[derive(Serialize)]
pub(super) struct Opened {
    pub(super) ok: bool,
    pub(super) session: SessionView,
    pub(super) state_version: u64,
}

/// A session, for machines.
#[derive(Serialize)]
pub(super) struct SessionView {
    id: String,
    status: &'static str,
    principal: String,
    opened_at: Option<String>,
    expires_at: Option<String>,
    authenticated_at: Option<String>,
    acr: String,
    amr: Vec<String>,
    aal: u32,
    device_compliant: Option<bool>,
    credential_changed: bool,
    networks: Vec<String>,
    labels: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    task_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    parent_session_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    device_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    tenant: String,
}

impl From<&v1::Session> for SessionView {
    fn from(session: &v1::Session) -> Self {
        Self {
            id: session.id.clone(),
            status: match session.status() {
                v1::SessionStatus::Live => "live",
                v1::SessionStatus::Expired => "expired",
                v1::SessionStatus::Revoked => "revoked",
                v1::SessionStatus::Unspecified => "unknown",
            },
            principal: entity(session.principal.as_ref()),
            opened_at: time(session.opened_at.as_ref()),
            expires_at: time(session.expires_at.as_ref()),
            authenticated_at: time(session.authenticated_at.as_ref()),
            acr: session.acr.clone(),
            amr: session.amr.clone(),
            aal: session.aal,
            device_compliant: session.device_compliant,
            credential_changed: session.credential_changed,
            networks: session.networks.clone(),
            labels: session.labels.clone(),
            // A task that was told with the session has its id inside.
            task_id: match (&session.task, session.task_id.is_empty()) {
                (Some(task), true) => task.id.clone(),
                _ => session.task_id.clone(),
            },
            parent_session_id: session.parent_session_id.clone(),
            device_id: session.device_id.clone(),
            tenant: session.tenant.clone(),
        }
    }
}

/// One line for each session.
pub(super) fn table(sessions: &[v1::Session]) -> String {
    let row = |session: &v1::Session| {
        let view = SessionView::from(session);
        vec![view.id, view.status.to_owned(), view.principal, dash(view.expires_at), view.labels.join(",")]
    };
    let rows: Vec<_> = sessions.iter().map(row).collect();
    node::table(&["SESSION", "STATUS", "PRINCIPAL", "ENDS", "LABELS"], &rows)
}

/// Everything about one session.
pub(super) fn details(session: &v1::Session) -> String {
    let view = SessionView::from(session);
    let login = match &view.authenticated_at {
        None => "never told".to_owned(),
        Some(at) => {
            let changed = if view.credential_changed { "; a credential changed since" } else { "" };
            format!("{at} {} {} (assurance level {}){changed}", view.acr, view.amr.join("+"), view.aal)
        }
    };
    let device = match view.device_compliant {
        None => "posture unknown",
        Some(true) => "compliant",
        Some(false) => "not compliant",
    };
    let lines = [
        ("session", format!("{} ({})", view.id, view.status)),
        ("principal", view.principal),
        ("opened", dash(view.opened_at)),
        ("ends", dash(view.expires_at)),
        ("login", login),
        ("device", format!("{} {device}", view.device_id).trim_start().to_owned()),
        ("tenant", view.tenant),
        ("task", view.task_id),
        ("below", view.parent_session_id),
        ("labels", view.labels.join(" ")),
        ("networks", view.networks.join(" ")),
    ];
    let mut text = String::new();
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        node::field(&mut text, name, value);
    }
    text
}

fn dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}
