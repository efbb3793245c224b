//! Sessions, signals and tokens as scenario files tell of them, turned into the messages that the services take.
//!
//! Times are spans from the moment of the step; an unset one is unset in the message.

use cardea_proto::v1;
use cardea_proto::v1::signal::Change;
use serde::Deserialize;

use super::words::{Many, Named, Span};
use crate::doors::told::timestamp;

/// A session: one that a scenario opens has an id and a principal; that of a situation of the matrix has neither.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionTold {
    /// Its id.
    pub id: Option<String>,
    /// Whose it is.
    pub principal: Option<Named>,
    expires_in: Option<Span>,
    authenticated_ago: Option<Span>,
    acr: String,
    amr: Many<String>,
    aal: u32,
    device_compliant: Option<bool>,
    networks: Many<String>,
    labels: Many<String>,
    credential_changed: bool,
    task: Option<TaskTold>,
}

impl SessionTold {
    /// The session as an opener would tell of it at this time.
    #[must_use]
    pub fn message(&self, id: &str, principal: v1::EntityRef, now_ms: i64) -> v1::Session {
        v1::Session {
            id: id.to_owned(),
            principal: Some(principal),
            expires_at: ahead(self.expires_in, now_ms),
            authenticated_at: ago(self.authenticated_ago, now_ms),
            acr: self.acr.clone(),
            amr: self.amr.0.clone(),
            aal: self.aal,
            device_compliant: self.device_compliant,
            networks: self.networks.0.clone(),
            labels: self.labels.0.clone(),
            task: self.task.as_ref().map(|task| task.message(now_ms)),
            credential_changed: self.credential_changed,
            ..v1::Session::default()
        }
    }

    /// The session of someone whom nothing speaks against.
    #[must_use]
    pub fn calm(acr: &str) -> Self {
        Self {
            authenticated_ago: Some(Span { ms: 0 }),
            acr: acr.to_owned(),
            aal: 3,
            device_compliant: Some(true),
            task: Some(TaskTold::default()),
            ..Self::default()
        }
    }

    /// Its task's actions, where it names none, become this one.
    #[must_use]
    pub fn covering(mut self, action: &str) -> Self {
        if let Some(task) = self.task.as_mut().filter(|task| task.actions.0.is_empty()) {
            task.actions.0.push(action.to_owned());
        }
        self
    }
}

/// A change of a session.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateTold {
    /// The session.
    pub id: String,
    expires_in: Option<Span>,
    authenticated_ago: Option<Span>,
    acr: Option<String>,
    amr: Many<String>,
    aal: Option<u32>,
    device_compliant: Option<bool>,
    add_networks: Many<String>,
    add_labels: Many<String>,
    remove_labels: Many<String>,
    task: Option<TaskTold>,
}

impl UpdateTold {
    /// The change as a caller would tell of it at this time.
    #[must_use]
    pub fn message(&self, now_ms: i64) -> v1::UpdateSessionRequest {
        v1::UpdateSessionRequest {
            id: self.id.clone(),
            expires_at: ahead(self.expires_in, now_ms),
            authenticated_at: ago(self.authenticated_ago, now_ms),
            acr: self.acr.clone(),
            amr: self.amr.0.clone(),
            aal: self.aal,
            device_compliant: self.device_compliant,
            add_networks: self.add_networks.0.clone(),
            add_labels: self.add_labels.0.clone(),
            remove_labels: self.remove_labels.0.clone(),
            task: self.task.as_ref().map(|task| task.message(now_ms)),
            device_id: None,
        }
    }
}

/// The end of one session, or of all of a principal's.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ending {
    /// The session.
    pub id: Option<String>,
    /// Whose sessions, if not one.
    pub principal: Option<Named>,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// An approved piece of work.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskTold {
    id: Option<String>,
    purpose: String,
    actions: Many<String>,
    resources: Many<String>,
    starts_in: Option<Span>,
    started_ago: Option<Span>,
    ends_in: Option<Span>,
    ended_ago: Option<Span>,
}

impl TaskTold {
    fn message(&self, now_ms: i64) -> v1::Task {
        v1::Task {
            id: self.id.clone().unwrap_or_else(|| "task".to_owned()),
            purpose: self.purpose.clone(),
            not_before: ago(self.started_ago, now_ms).or_else(|| ahead(self.starts_in, now_ms)),
            not_after: ago(self.ended_ago, now_ms).or_else(|| ahead(self.ends_in, now_ms)),
            actions: self.actions.0.clone(),
            resources: self.resources.0.clone(),
        }
    }
}

/// A token.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenTold {
    issued_ago: Option<Span>,
    expires_in: Option<Span>,
    scopes: Many<String>,
    issuer: String,
    bound: bool,
    authenticated_ago: Option<Span>,
    acr: String,
    amr: Many<String>,
}

impl TokenTold {
    /// The token as an enforcement point would tell of it at this time.
    #[must_use]
    pub fn message(&self, now_ms: i64) -> v1::Token {
        v1::Token {
            issuer: self.issuer.clone(),
            issued_at: ago(self.issued_ago, now_ms),
            expires_at: ahead(self.expires_in, now_ms),
            scopes: self.scopes.0.clone(),
            bound: self.bound,
            authenticated_at: ago(self.authenticated_ago, now_ms),
            acr: self.acr.clone(),
            amr: self.amr.0.clone(),
        }
    }

    /// The token of someone whom nothing speaks against: bound, an hour old, good for another.
    #[must_use]
    pub fn calm() -> Self {
        let hour = Some(Span { ms: 3_600_000 });
        Self { issued_ago: hour, expires_in: hour, bound: true, ..Self::default() }
    }
}

/// A change of fact.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalTold {
    /// Whom it is about.
    pub subject: Option<Named>,
    /// The session that it is about.
    pub session: Option<String>,
    ago: Option<Span>,
    #[serde(default)]
    reason: String,
    risk: Option<RiskTold>,
    change: Option<ChangeTold>,
    device_compliant: Option<bool>,
    aal: Option<u32>,
}

/// Changes that have nothing more to say.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ChangeTold {
    PrincipalDisabled,
    PrincipalEnabled,
    SessionRevoked,
    CredentialChanged,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RiskTold {
    kind: RiskKindTold,
    severity: u32,
    confidence: Option<u32>,
    half_life: Option<Span>,
}

/// The kinds of risk, as policies see them in `risk.reasons`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RiskKindTold {
    AnomalousBehavior,
    CredentialCompromise,
    WorkloadCompromise,
    NetworkAnomaly,
    PromptInjection,
    DataExfiltration,
    VendorScore,
    Operator,
}

impl SignalTold {
    /// The same about this principal and its session, where it names none.
    #[must_use]
    pub fn about(&self, principal: &Named, session: &str) -> Self {
        let mut told = self.clone();
        let is_of_session = told.device_compliant.is_some() || told.aal.is_some();
        if told.subject.is_none() && told.session.is_none() {
            told.subject = Some(principal.clone());
            told.session = is_of_session.then(|| session.to_owned());
        }
        told
    }

    /// The signal as a detector would report it at this time.
    ///
    /// # Errors
    /// When it does not tell exactly one change, in words.
    pub fn message(&self, now_ms: i64) -> Result<v1::Signal, String> {
        let session_id = self.session.clone().unwrap_or_default();
        let reason = self.reason.clone();
        let named = self.change.map(|change| match change {
            ChangeTold::PrincipalDisabled => {
                Change::PrincipalDisabled(v1::PrincipalDisabled { reason: reason.clone() })
            }
            ChangeTold::PrincipalEnabled => Change::PrincipalEnabled(v1::PrincipalEnabled {}),
            ChangeTold::SessionRevoked => Change::SessionRevoked(v1::SessionRevoked {
                session_id: session_id.clone(),
                reason: reason.clone(),
            }),
            ChangeTold::CredentialChanged => {
                Change::CredentialChanged(v1::CredentialChanged { session_id: session_id.clone() })
            }
        });
        let told = [
            self.risk.as_ref().map(|risk| Change::Risk(risk.message(&reason))),
            named,
            self.device_compliant.map(|compliant| {
                let session_id = session_id.clone();
                Change::DeviceCompliance(v1::DeviceComplianceChanged {
                    session_id,
                    compliant,
                    device_id: String::new(),
                })
            }),
            self.aal.map(|aal| {
                Change::AssuranceLevel(v1::AssuranceLevelChanged { session_id: session_id.clone(), aal })
            }),
        ];
        let mut told = told.into_iter().flatten();
        let (Some(change), None) = (told.next(), told.next()) else {
            return Err("a signal tells one change: `risk`, `change`, `device_compliant` or `aal`".to_owned());
        };
        Ok(v1::Signal {
            subject: self.subject.as_ref().map(Named::reference),
            event_time: ago(self.ago, now_ms),
            source: "scenario".to_owned(),
            change: Some(change),
        })
    }
}

impl RiskTold {
    fn message(&self, reason: &str) -> v1::RiskObserved {
        let kind = match self.kind {
            RiskKindTold::AnomalousBehavior => v1::RiskKind::AnomalousBehavior,
            RiskKindTold::CredentialCompromise => v1::RiskKind::CredentialCompromise,
            RiskKindTold::WorkloadCompromise => v1::RiskKind::WorkloadCompromise,
            RiskKindTold::NetworkAnomaly => v1::RiskKind::NetworkAnomaly,
            RiskKindTold::PromptInjection => v1::RiskKind::PromptInjection,
            RiskKindTold::DataExfiltration => v1::RiskKind::DataExfiltration,
            RiskKindTold::VendorScore => v1::RiskKind::VendorScore,
            RiskKindTold::Operator => v1::RiskKind::Operator,
        };
        let seconds = |span: Span| prost_types::Duration { seconds: span.ms / 1000, nanos: 0 };
        v1::RiskObserved {
            kind: kind.into(),
            severity: self.severity,
            confidence: self.confidence.unwrap_or(100),
            half_life: self.half_life.map(seconds),
            reason: reason.to_owned(),
        }
    }
}

fn ago(span: Option<Span>, now_ms: i64) -> Option<prost_types::Timestamp> {
    span.map(|span| timestamp(now_ms.saturating_sub(span.ms)))
}

fn ahead(span: Option<Span>, now_ms: i64) -> Option<prost_types::Timestamp> {
    span.map(|span| timestamp(now_ms.saturating_add(span.ms)))
}
