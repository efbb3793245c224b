//! What this node concludes, and the event that tells it.
//!
//! Plain data and pure functions. An event is told to everybody but whoever caused it: [`Cause`] names the sender of the
//! signal that led to the conclusion, and keeps its `txn`.
//! Limits: reasons are cut at [`limits::SSF_TEXT_BYTES_MAX`] bytes.

use cardea_policy_store::engine::Uid;
use serde_json::{Map, Value, json};
use smol_str::SmolStr;

use crate::limits;

/// `session-revoked` of CAEP.
pub const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
/// `risk-level-change` of CAEP.
pub const RISK_LEVEL_CHANGE: &str = "https://schemas.openid.net/secevent/caep/event-type/risk-level-change";
/// `assurance-level-change` of CAEP.
pub const ASSURANCE_LEVEL_CHANGE: &str =
    "https://schemas.openid.net/secevent/caep/event-type/assurance-level-change";
/// Every event type that is published, in the order of the alphabet.
pub const SUPPORTED: [&str; 3] = [ASSURANCE_LEVEL_CHANGE, RISK_LEVEL_CHANGE, SESSION_REVOKED];

/// `verification` of the framework.
pub(super) const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";
/// `stream-updated` of the framework.
pub(super) const STREAM_UPDATED: &str = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated";

/// Something that this node concluded and that others want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// Whom it is about.
    pub about: About,
    /// What it is.
    pub what: What,
    /// Who started it.
    pub initiator: Initiator,
    /// When it came to be, Unix milliseconds.
    pub at_ms: i64,
    /// The signal that led to it; none when it began here.
    pub cause: Option<Cause>,
}

/// Whom a conclusion is about; at least one of the two is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The principal.
    pub principal: Option<Uid>,
    /// The session; none means all sessions of the principal.
    pub session: Option<SmolStr>,
}

/// What was concluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A session, or every session of a principal, was ended here.
    SessionRevoked {
        /// Why, for administrators.
        reason: SmolStr,
    },
    /// The level of a principal's risk changed.
    RiskLevel {
        /// What it was, if known.
        previous: Option<RiskLevel>,
        /// What it is.
        current: RiskLevel,
        /// Why.
        reason: SmolStr,
    },
    /// The assurance level of a session changed.
    AssuranceLevel {
        /// What it was, 0 to 3, if known.
        previous: Option<u8>,
        /// What it is, 0 to 3.
        current: u8,
    },
}

/// How much risk there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RiskLevel {
    /// Little or none.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
}

/// Who started what led to a conclusion, in the words of CAEP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// An operator.
    Admin,
    /// The user.
    User,
    /// A policy.
    Policy,
    /// A system, such as this one.
    System,
}

/// The signal that led to a conclusion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// Who sent it: the issuer of the token, or the name of the source.
    pub from: SmolStr,
    /// The transaction that it names.
    pub txn: Option<SmolStr>,
}

impl What {
    /// The event type that tells it.
    #[must_use]
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::SessionRevoked { .. } => SESSION_REVOKED,
            Self::RiskLevel { .. } => RISK_LEVEL_CHANGE,
            Self::AssuranceLevel { .. } => ASSURANCE_LEVEL_CHANGE,
        }
    }
}

impl RiskLevel {
    fn as_str(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
        }
    }
}

impl Initiator {
    fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Policy => "policy",
            Self::System => "system",
        }
    }
}

/// The payload of the event that tells `conclusion`.
pub(super) fn payload(conclusion: &Conclusion) -> Value {
    let mut event = Map::new();
    event.insert("event_timestamp".into(), json!(conclusion.at_ms.div_euclid(1000)));
    event.insert("initiating_entity".into(), json!(conclusion.initiator.as_str()));
    match &conclusion.what {
        What::SessionRevoked { reason } => {
            event.insert("reason_admin".into(), json!({ "en": said(reason, "the session was ended") }));
        }
        What::RiskLevel { previous, current, reason } => {
            event.insert("principal".into(), json!("USER"));
            event.insert("current_level".into(), json!(current.as_str()));
            if let Some(previous) = previous {
                event.insert("previous_level".into(), json!(previous.as_str()));
            }
            event.insert("risk_reason".into(), json!(said(reason, "the risk was assessed anew")));
        }
        What::AssuranceLevel { previous, current } => {
            event.insert("namespace".into(), json!("NIST-AAL"));
            event.insert("current_level".into(), json!(assurance(*current)));
            if let Some(previous) = previous {
                event.insert("previous_level".into(), json!(assurance(*previous)));
                let direction = if current > previous { "increase" } else { "decrease" };
                event.insert("change_direction".into(), json!(direction));
            }
        }
    }
    Value::Object(event)
}

fn assurance(level: u8) -> String {
    format!("nist-aal{level}")
}

/// A reason that is not empty and not too long; receivers refuse empty ones.
fn said<'a>(reason: &'a str, otherwise: &'a str) -> &'a str {
    let reason = reason.trim();
    if reason.is_empty() {
        return otherwise;
    }
    let end = reason.floor_char_boundary(limits::SSF_TEXT_BYTES_MAX);
    reason.get(..end).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conclusion(what: What) -> Conclusion {
        Conclusion {
            about: About::default(),
            what,
            initiator: Initiator::Policy,
            at_ms: 1_760_000_000_999,
            cause: None,
        }
    }

    #[test]
    fn an_end_of_a_session_always_has_a_reason() {
        let told = payload(&conclusion(What::SessionRevoked { reason: " ".into() }));
        assert_eq!(
            told,
            json!({ "event_timestamp": 1_760_000_000, "initiating_entity": "policy",
                    "reason_admin": { "en": "the session was ended" } })
        );
        let long = "ü".repeat(limits::SSF_TEXT_BYTES_MAX);
        let told = payload(&conclusion(What::SessionRevoked { reason: long.into() }));
        let reason = told["reason_admin"]["en"].as_str().unwrap();
        assert_eq!(reason.len(), limits::SSF_TEXT_BYTES_MAX);
    }

    #[test]
    fn a_change_of_risk_names_both_levels_and_why() {
        let what = What::RiskLevel {
            previous: Some(RiskLevel::Low),
            current: RiskLevel::High,
            reason: "leak".into(),
        };
        assert_eq!(
            payload(&conclusion(what)),
            json!({ "event_timestamp": 1_760_000_000, "initiating_entity": "policy", "principal": "USER",
                    "previous_level": "LOW", "current_level": "HIGH", "risk_reason": "leak" })
        );
    }

    #[test]
    fn a_change_of_assurance_says_which_way() {
        let told = payload(&conclusion(What::AssuranceLevel { previous: Some(2), current: 1 }));
        assert_eq!(told["change_direction"], "decrease");
        assert_eq!((&told["previous_level"], &told["current_level"]), (&json!("nist-aal2"), &json!("nist-aal1")));
        let told = payload(&conclusion(What::AssuranceLevel { previous: None, current: 1 }));
        assert_eq!(told.get("change_direction"), None);
    }
}
