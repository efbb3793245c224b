//! The types of events with their URIs.

use super::What;

/// Which document defines an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Continuous Access Evaluation Profile.
    Caep,
    /// Risk Incident Sharing and Coordination.
    Risc,
    /// Shared Signals Framework.
    Ssf,
}

impl Family {
    /// What the URIs of its events begin with.
    #[must_use]
    pub const fn base(self) -> &'static str {
        match self {
            Self::Caep => "https://schemas.openid.net/secevent/caep/event-type/",
            Self::Risc => "https://schemas.openid.net/secevent/risc/event-type/",
            Self::Ssf => "https://schemas.openid.net/secevent/ssf/event-type/",
        }
    }
}

macro_rules! types {
    ($($variant:ident $pattern:pat => $family:ident $name:literal),+ $(,)?) => {
        /// The type of an event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "described at the variants of `What` that bear the same names")]
        pub enum EventType { $($variant),+ }

        impl EventType {
            /// Every type.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The last part of its URI.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// Which document defines it.
            #[must_use]
            pub const fn family(self) -> Family {
                match self { $(Self::$variant => Family::$family),+ }
            }
        }

        impl What {
            /// Its type.
            #[must_use]
            pub const fn kind(&self) -> EventType {
                match self { $($pattern => EventType::$variant),+ }
            }
        }
    };
}

types! {
    SessionRevoked What::SessionRevoked => Caep "session-revoked",
    TokenClaimsChange What::TokenClaimsChange { .. } => Caep "token-claims-change",
    CredentialChange What::CredentialChange { .. } => Caep "credential-change",
    AssuranceLevelChange What::AssuranceLevelChange { .. } => Caep "assurance-level-change",
    DeviceComplianceChange What::DeviceComplianceChange { .. } => Caep "device-compliance-change",
    SessionEstablished What::SessionEstablished { .. } => Caep "session-established",
    SessionPresented What::SessionPresented { .. } => Caep "session-presented",
    RiskLevelChange What::RiskLevelChange { .. } => Caep "risk-level-change",
    AccountCredentialChangeRequired What::AccountCredentialChangeRequired
        => Risc "account-credential-change-required",
    AccountPurged What::AccountPurged => Risc "account-purged",
    AccountDisabled What::AccountDisabled { .. } => Risc "account-disabled",
    AccountEnabled What::AccountEnabled => Risc "account-enabled",
    IdentifierChanged What::IdentifierChanged { .. } => Risc "identifier-changed",
    IdentifierRecycled What::IdentifierRecycled => Risc "identifier-recycled",
    CredentialCompromise What::CredentialCompromise { .. } => Risc "credential-compromise",
    OptIn What::OptIn => Risc "opt-in",
    OptOutInitiated What::OptOutInitiated => Risc "opt-out-initiated",
    OptOutCancelled What::OptOutCancelled => Risc "opt-out-cancelled",
    OptOutEffective What::OptOutEffective => Risc "opt-out-effective",
    RecoveryActivated What::RecoveryActivated => Risc "recovery-activated",
    RecoveryInformationChanged What::RecoveryInformationChanged => Risc "recovery-information-changed",
    SessionsRevoked What::SessionsRevoked => Risc "sessions-revoked",
    Verification What::Verification { .. } => Ssf "verification",
    StreamUpdated What::StreamUpdated { .. } => Ssf "stream-updated",
}

impl EventType {
    /// Its URI.
    #[must_use]
    pub fn uri(self) -> String {
        format!("{}{}", self.family().base(), self.name())
    }

    /// The one with this URI, to the letter.
    #[must_use]
    pub fn of_uri(uri: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| uri.strip_prefix(kind.family().base()) == Some(kind.name()))
    }

    /// Whether it speaks of the stream and not of somebody.
    #[must_use]
    pub const fn is_of_stream(self) -> bool {
        matches!(self.family(), Family::Ssf)
    }
}
