//! What this node concludes, and the event that tells it.
//!
//! Plain data and pure functions. An event is told to everybody but whoever caused it: [`Cause`] names the sender of the
//! signal that led to the conclusion, and keeps its `txn`.
//! Limits: reasons are cut at [`limits::SSF_TEXT_BYTES_MAX`] bytes.

use cardea_policy_store::engine::Uid;
use serde_json::Value;
use smol_str::SmolStr;

use crate::limits;
use crate::ssf::event;
use crate::ssf::event::{Common, Direction, Event, EventType};
pub use crate::ssf::event::{Initiator, RiskLevel};

/// Every event type that is published.
pub const SUPPORTED: [EventType; 3] =
    [EventType::AssuranceLevelChange, EventType::RiskLevelChange, EventType::SessionRevoked];

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
    pub fn event_type(&self) -> EventType {
        match self {
            Self::SessionRevoked { .. } => EventType::SessionRevoked,
            Self::RiskLevel { .. } => EventType::RiskLevelChange,
            Self::AssuranceLevel { .. } => EventType::AssuranceLevelChange,
        }
    }
}

/// The payload of the event that tells `conclusion`.
pub(super) fn payload(conclusion: &Conclusion) -> Value {
    let mut common = Common {
        // Whole seconds, as most transmitters send them.
        event_ms: Some(conclusion.at_ms.div_euclid(1000) * 1000),
        initiating_entity: Some(conclusion.initiator),
        ..Common::default()
    };
    let what = match &conclusion.what {
        What::SessionRevoked { reason } => {
            common.reason_admin.insert("en".into(), said(reason, "the session was ended"));
            event::What::SessionRevoked
        }
        What::RiskLevel { previous, current, reason } => event::What::RiskLevelChange {
            principal: "USER".into(),
            current_level: *current,
            previous_level: *previous,
            risk_reason: Some(said(reason, "the risk was assessed anew")),
        },
        What::AssuranceLevel { previous, current } => {
            let level = |level: u8| SmolStr::from(format!("nist-aal{level}"));
            event::What::AssuranceLevelChange {
                namespace: "NIST-AAL".into(),
                current_level: level(*current),
                previous_level: previous.map(level),
                change_direction: previous.filter(|previous| previous != current).map(|previous| {
                    if *current > previous { Direction::Increase } else { Direction::Decrease }
                }),
            }
        }
    };
    Event { what, common }.to_json()
}

/// A reason that is not empty and not too long; receivers refuse empty ones.
fn said(reason: &str, otherwise: &'static str) -> SmolStr {
    let reason = reason.trim();
    let fits = |at: &usize| reason.is_char_boundary(*at);
    let end = (0..=limits::SSF_TEXT_BYTES_MAX.min(reason.len())).rev().find(fits).unwrap_or(0);
    match reason.get(..end) {
        Some(cut) if !cut.is_empty() => cut.into(),
        _ => SmolStr::new_static(otherwise),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        assert_eq!(
            (&told["previous_level"], &told["current_level"]),
            (&json!("nist-aal2"), &json!("nist-aal1"))
        );
        let told = payload(&conclusion(What::AssuranceLevel { previous: None, current: 1 }));
        assert_eq!(told.get("change_direction"), None);
    }
}
