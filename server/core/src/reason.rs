//! Why a verdict is not a plain allow: every path to deny has its own code.

use cardea_policy_store::index::PolicyIndex;

/// The code of a reason; the wire and the records know the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReasonCode {
    /// A satisfied forbid policy.
    Forbidden,
    /// No satisfied permit policy.
    NoPermit,
    /// A forbid policy could not be evaluated, so it counts as satisfied.
    PolicyErrored,
    /// Permitted once the step-up requirements are met.
    StepUpRequired,
    /// The session was ended or revoked.
    SessionRevoked,
    /// The session is past its end.
    SessionExpired,
    /// The session belongs to somebody else.
    SessionMismatch,
    /// The principal, or one that it acts for, is disabled.
    PrincipalDisabled,
    /// The delegation chain is too long or names somebody twice.
    DelegationMalformed,
    /// A fact is older than the bundle's stated maximum.
    FactStale,
    /// This node's state is older than the attempt demands.
    StateTooOld,
    /// The attempt is malformed or beyond a limit.
    Malformed,
    /// The action or an entity type is not in the bundle's schema, or they do not go together.
    UnknownType,
    /// No route matches the request.
    NoRoute,
    /// The door could not learn who is calling.
    NoIdentity,
    /// The audit queue has no place.
    AuditFull,
    /// No bundle is in force.
    NoPolicy,
    /// The bundle in force is past its end, and the node denies then.
    PolicyStale,
    /// The token is past its end.
    TokenExpired,
    /// An unknown session cannot be told from a revoked one, because the table of revocations is full.
    StateFull,
    /// An unknown session cannot be told from a revoked one, because the disk cannot be read.
    StateUnreadable,
}

impl ReasonCode {
    /// Every code.
    pub const ALL: [Self; 21] = [
        Self::Forbidden,
        Self::NoPermit,
        Self::PolicyErrored,
        Self::StepUpRequired,
        Self::SessionRevoked,
        Self::SessionExpired,
        Self::SessionMismatch,
        Self::PrincipalDisabled,
        Self::DelegationMalformed,
        Self::FactStale,
        Self::StateTooOld,
        Self::Malformed,
        Self::UnknownType,
        Self::NoRoute,
        Self::NoIdentity,
        Self::AuditFull,
        Self::NoPolicy,
        Self::PolicyStale,
        Self::TokenExpired,
        Self::StateFull,
        Self::StateUnreadable,
    ];

    /// Its name in records, metrics and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::NoPermit => "no_permit",
            Self::PolicyErrored => "policy_errored",
            Self::StepUpRequired => "step_up_required",
            Self::SessionRevoked => "session_revoked",
            Self::SessionExpired => "session_expired",
            Self::SessionMismatch => "session_mismatch",
            Self::PrincipalDisabled => "principal_disabled",
            Self::DelegationMalformed => "delegation_malformed",
            Self::FactStale => "fact_stale",
            Self::StateTooOld => "state_too_old",
            Self::Malformed => "malformed",
            Self::UnknownType => "unknown_type",
            Self::NoRoute => "no_route",
            Self::NoIdentity => "no_identity",
            Self::AuditFull => "audit_full",
            Self::NoPolicy => "no_policy",
            Self::PolicyStale => "policy_stale",
            Self::TokenExpired => "token_expired",
            Self::StateFull => "state_full",
            Self::StateUnreadable => "state_unreadable",
        }
    }

    /// A sentence for the caller, where no policy gives one.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Forbidden => "a policy forbids this",
            Self::NoPermit => "no policy permits this",
            Self::PolicyErrored => "a policy could not be evaluated",
            Self::StepUpRequired => "this needs more proof or an approval",
            Self::SessionRevoked => "the session was ended",
            Self::SessionExpired => "the session has expired",
            Self::SessionMismatch => "the session belongs to somebody else",
            Self::PrincipalDisabled => "the principal, or one that it acts for, is disabled",
            Self::DelegationMalformed => "the delegation chain is too long or names somebody twice",
            Self::FactStale => "a fact is too old to rely on",
            Self::StateTooOld => "this node has not yet seen the state that the attempt demands",
            Self::Malformed => "the attempt is malformed",
            Self::UnknownType => "the bundle's schema does not know this attempt",
            Self::NoRoute => "no route matches the request",
            Self::NoIdentity => "the caller has no usable identity",
            Self::AuditFull => "decisions cannot be recorded at the moment",
            Self::NoPolicy => "no policy bundle is in force",
            Self::PolicyStale => "the policy bundle in force is past its end",
            Self::TokenExpired => "the token has expired",
            Self::StateFull | Self::StateUnreadable => {
                "this node cannot tell whether the session was revoked"
            }
        }
    }
}

/// One reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Its code.
    pub code: ReasonCode,
    /// The policy whose `@reason` tells the caller more.
    pub policy: Option<PolicyIndex>,
}

impl From<ReasonCode> for Reason {
    fn from(code: ReasonCode) -> Self {
        Self { code, policy: None }
    }
}
