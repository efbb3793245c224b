//! What a security event says: every event of CAEP 1.0 and RISC 1.0, and the two by which SSF 1.0 speaks of a stream.
//!
//! [`Event::parse`] is strict: a member that an event defines has the form that it defines, or the event is refused. Members
//! that are not defined are ignored. [`Event::to_json`] writes what is read back as the same.
//! Limits: [`TEXT_BYTES_MAX`] for a text, [`LANGUAGES_MAX`] languages of a reason, [`METHODS_MAX`] methods. The claims of
//! a token are bounded by the token.
//! Never does: saying what follows from an event; its receiver's configuration does.

mod kind;
mod read;

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use smol_str::SmolStr;

pub use self::kind::{EventType, Family};
pub(crate) use self::read::seconds;
use super::subject::{Simple, Subject};

/// Longest text in an event, in bytes: a user agent or a reason in words.
pub const TEXT_BYTES_MAX: usize = 2048;
/// Most languages in which a reason is given.
pub const LANGUAGES_MAX: usize = 32;
/// Most authentication methods of a session.
pub const METHODS_MAX: usize = 16;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub what: What,
    /// What every event can say beside it.
    pub common: Common,
}

/// What every event can say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Common {
    /// When it happened, Unix milliseconds.
    pub event_ms: Option<i64>,
    /// Who brought it about.
    pub initiating_entity: Option<Initiator>,
    /// Why, for administrators.
    pub reason_admin: Reasons,
    /// Why, for the one concerned.
    pub reason_user: Reasons,
}

/// A reason in words, by language (BCP 47); empty: none is given.
pub type Reasons = BTreeMap<SmolStr, SmolStr>;

/// A word out of a fixed list.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $variant),+ }

        impl $name {
            /// Every word.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it stands in an event.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The one with this word.
            #[must_use]
            pub fn of_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.word() == word)
            }
        }
    };
}

words!(
    /// Who brought an event about.
    Initiator {
        /// An administrator.
        Admin = "admin",
        /// The user.
        User = "user",
        /// A rule.
        Policy = "policy",
        /// A machine.
        System = "system",
    }
);
words!(
    /// What happened to a credential.
    CredentialChange {
        /// A new one.
        Create = "create",
        /// It counts no longer.
        Revoke = "revoke",
        /// It was changed.
        Update = "update",
        /// It was removed.
        Delete = "delete",
    }
);
words!(
    /// Where an assurance level went.
    Direction {
        /// Up.
        Increase = "increase",
        /// Down.
        Decrease = "decrease",
    }
);
words!(
    /// Whether a device meets the rules.
    Compliance {
        /// It does.
        Compliant = "compliant",
        /// It does not.
        NotCompliant = "not-compliant",
    }
);
words!(
    /// A level of risk.
    RiskLevel {
        /// Low.
        Low = "LOW",
        /// Medium.
        Medium = "MEDIUM",
        /// High.
        High = "HIGH",
    }
);
words!(
    /// Whether a stream carries events.
    StreamStatus {
        /// It does.
        Enabled = "enabled",
        /// Not now; events may be kept for later.
        Paused = "paused",
        /// No, and none is kept.
        Disabled = "disabled",
    }
);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// CAEP: sessions are over.
    SessionRevoked,
    /// CAEP: tokens would now carry other claims.
    TokenClaimsChange {
        /// Their new values.
        claims: Map<String, Value>,
    },
    /// CAEP: a credential changed.
    CredentialChange {
        /// Its kind: `password`, `x509`, `fido2-roaming`, …, or another that was agreed on.
        credential_type: SmolStr,
        /// What happened to it.
        change_type: CredentialChange,
        /// What its owner calls it.
        friendly_name: Option<SmolStr>,
        /// Issuer of a certificate.
        x509_issuer: Option<SmolStr>,
        /// Serial of a certificate.
        x509_serial: Option<SmolStr>,
        /// Model of an authenticator.
        fido2_aaguid: Option<SmolStr>,
    },
    /// CAEP: an authentication counts more or less than before.
    AssuranceLevelChange {
        /// Whose levels: `NIST-AAL`, `RFC8176`, …, or another that was agreed on.
        namespace: SmolStr,
        /// The level now.
        current_level: SmolStr,
        /// The level before; none: not known.
        previous_level: Option<SmolStr>,
        /// Where it went.
        change_direction: Option<Direction>,
    },
    /// CAEP: a device meets the rules, or no longer.
    DeviceComplianceChange {
        /// Before.
        previous_status: Compliance,
        /// Now.
        current_status: Compliance,
    },
    /// CAEP: a session began.
    SessionEstablished {
        /// A fingerprint of the user agent.
        fp_ua: Option<SmolStr>,
        /// Authentication context class.
        acr: Option<SmolStr>,
        /// Authentication methods.
        amr: Vec<SmolStr>,
        /// Name of the session elsewhere.
        ext_id: Option<SmolStr>,
    },
    /// CAEP: a session was used.
    SessionPresented {
        /// A fingerprint of the user agent.
        fp_ua: Option<SmolStr>,
        /// Name of the session elsewhere.
        ext_id: Option<SmolStr>,
    },
    /// CAEP: a risk rose or fell.
    RiskLevelChange {
        /// Which member of the subject is at risk: `USER`, `DEVICE`, `SESSION`, `TENANT`, `ORG_UNIT`, `GROUP`, ….
        principal: SmolStr,
        /// The level now.
        current_level: RiskLevel,
        /// The level before.
        previous_level: Option<RiskLevel>,
        /// Why, in a word.
        risk_reason: Option<SmolStr>,
    },
    /// RISC: the account has to change a credential.
    AccountCredentialChangeRequired,
    /// RISC: the account is gone for good.
    AccountPurged,
    /// RISC: the account cannot be used.
    AccountDisabled {
        /// `hijacking` or `bulk-account`, or other words.
        reason: Option<SmolStr>,
    },
    /// RISC: the account can be used again.
    AccountEnabled,
    /// RISC: an address or number of the account changed; the subject is the old one.
    IdentifierChanged {
        /// The new one.
        new_value: Option<SmolStr>,
    },
    /// RISC: an address or number now belongs to somebody else.
    IdentifierRecycled,
    /// RISC: a credential is in other hands.
    CredentialCompromise {
        /// Its kind.
        credential_type: SmolStr,
    },
    /// RISC: the account takes part.
    OptIn,
    /// RISC: the account asked not to take part.
    OptOutInitiated,
    /// RISC: it takes part after all.
    OptOutCancelled,
    /// RISC: it takes part no longer.
    OptOutEffective,
    /// RISC: somebody began to recover the account.
    RecoveryActivated,
    /// RISC: how the account is recovered changed.
    RecoveryInformationChanged,
    /// RISC: all sessions of the account are over; CAEP's session-revoked is newer.
    SessionsRevoked,
    /// SSF: a stream shows that it works.
    Verification {
        /// What the receiver gave to be said.
        state: Option<SmolStr>,
    },
    /// SSF: a stream is enabled, paused or disabled.
    StreamUpdated {
        /// What it is now.
        status: StreamStatus,
        /// Why.
        reason: Option<SmolStr>,
    },
}

/// Why something is not an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventFault {
    /// Nothing that CAEP, RISC or SSF define.
    #[error("`{0}` is no event that is understood here")]
    Unknown(SmolStr),
    /// The event is no object.
    #[error("what `{0}` says is no object")]
    NotAnObject(&'static str),
    /// A member that the event needs is missing.
    #[error("`{event}` needs `{member}`")]
    Missing {
        /// The event.
        event: &'static str,
        /// The member.
        member: &'static str,
    },
    /// A member has not the form that the event defines.
    #[error("`{member}` of `{event}` {why}")]
    Member {
        /// The event.
        event: &'static str,
        /// The member.
        member: &'static str,
        /// What is wrong, as the end of a sentence.
        why: &'static str,
    },
    /// The event cannot speak of such a subject.
    #[error("`{event}` speaks of {wanted}, and not of a subject of format `{format}`")]
    Subject {
        /// The event.
        event: &'static str,
        /// What it speaks of.
        wanted: &'static str,
        /// What it was given.
        format: SmolStr,
    },
}

impl Event {
    /// An event about which nothing further is said.
    #[must_use]
    pub fn of(what: What) -> Self {
        Self { what, common: Common::default() }
    }

    /// Reads what a token says under an event's URI.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(uri: &str, value: &Value) -> Result<Self, EventFault> {
        let kind = EventType::of_uri(uri).ok_or_else(|| {
            EventFault::Unknown(uri.chars().filter(|c| !c.is_control()).take(128).collect())
        })?;
        read::event(kind, value)
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> EventType {
        self.what.kind()
    }

    /// What a token says under the URI of [`Event::kind`].
    #[must_use]
    pub fn to_json(&self) -> Value {
        read::to_json(self)
    }

    /// Whether it can speak of this subject: some events define the format.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_subject(&self, subject: &Subject) -> Result<(), EventFault> {
        let kind = self.kind();
        let (fits, wanted) = if matches!(kind, EventType::IdentifierChanged | EventType::IdentifierRecycled) {
            let of = match subject {
                Subject::Simple(simple) => Some(simple),
                Subject::Complex(complex) => complex.member("user"),
            };
            let fits = of.is_some_and(|of| matches!(of, Simple::Email { .. } | Simple::PhoneNumber { .. }));
            (fits, "the old address of mail or telephone number")
        } else if kind.is_of_stream() {
            let fits = matches!(subject, Subject::Simple(Simple::Opaque { .. }));
            (fits, "a stream by its id, of format `opaque`")
        } else {
            (true, "")
        };
        if fits {
            return Ok(());
        }
        Err(EventFault::Subject { event: kind.name(), wanted, format: subject.format().into() })
    }
}

#[cfg(test)]
mod tests;
