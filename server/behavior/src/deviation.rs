//! How an attempt deviates: evidence as a set of bits, and what it amounts to. Plain data, copied.

use serde::Deserialize;

use super::fingerprint::Fingerprint;

macro_rules! flags {
    ($($(#[$doc:meta])* $variant:ident $name:literal,)*) => {
        /// One piece of evidence. A flag is not a judgement; [`Deviation::assessment`] is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Flag {
            $($(#[$doc])* $variant,)*
        }

        impl Flag {
            /// Every flag, in order.
            pub const ALL: [Self; [$(stringify!($variant)),*].len()] = [$(Self::$variant),*];

            /// Its name in policy and evidence.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

flags! {
    /// No baseline bears on the attempt.
    Unknown "unknown",
    /// The narrowest baseline rests on too few runs, or there is none for the task.
    Immature "immature",
    /// The action was never approved here.
    NewAction "new_action",
    /// Nor anywhere for the identity.
    NewActionForIdentity "new_action_for_identity",
    /// A target was never approved with this action here.
    NewTarget "new_target",
    /// Nor anywhere for the identity.
    NewTargetForIdentity "new_target_for_identity",
    /// A new target that neither the task's words nor anything else explains.
    UnexpectedTarget "unexpected_target",
    /// An external reference was never approved here.
    NewReference "new_reference",
    /// Nor anywhere for the identity.
    NewReferenceForIdentity "new_reference_for_identity",
    /// A new reference that neither the task's words nor anything else explains.
    UnexpectedReference "unexpected_reference",
    /// The action has always had a target, and has none.
    MissingTarget "missing_target",
    /// The action never came after the one before it.
    NewTransition "new_transition",
    /// The network was never approved for the identity.
    NewNetwork "new_network",
    /// The session was first seen in another network.
    SecondNetwork "second_network",
    /// The task was not declared for this action, and too few approved runs used it.
    OutOfScope "out_of_scope",
    /// Before or after the task's time window.
    OutOfWindow "out_of_window",
    /// The token is fresh.
    FreshToken "fresh_token",
    /// Policy denies it.
    Denied "denied",
    /// Policy denies it, and the identity was never approved to do it.
    NeverAllowed "never_allowed",
    /// Policy denies it, and the identity is otherwise approved to do it.
    AllowedElsewhere "allowed_elsewhere",
    /// The session was denied this before.
    RepeatedDenial "repeated_denial",
    /// Far more than usual between this identity and this resource.
    Burst "burst",
    /// The session did this before, and it was told then: no new incident, and no less of a deviation.
    Again "again",
}

/// A set of flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u32);

impl Flags {
    /// Whether a flag is in it.
    #[must_use]
    pub const fn has(self, flag: Flag) -> bool {
        self.0 & (1 << flag as u32) != 0
    }

    /// Whether one of these is in it.
    #[must_use]
    pub fn has_any(self, flags: &[Flag]) -> bool {
        flags.iter().any(|flag| self.has(*flag))
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The flags, in order.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.into_iter().filter(move |flag| self.has(*flag))
    }

    pub(super) const fn clear(&mut self, flag: Flag) {
        self.0 &= !(1 << flag as u32);
    }

    pub(super) const fn set(&mut self, flag: Flag, on: bool) {
        self.0 |= (on as u32) << flag as u32;
    }
}

/// What a deviation amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Assessment {
    /// Nothing that matters.
    #[default]
    None,
    /// The integration is set up wrongly: it fails at what it is approved for.
    Misconfiguration,
    /// The work changed, and nobody approved that yet.
    WorkflowChange,
    /// Somebody uses the identity for something else.
    Abuse,
}

impl Assessment {
    /// Its name in policy, records and configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Misconfiguration => "misconfiguration",
            Self::WorkflowChange => "workflow_change",
            Self::Abuse => "abuse",
        }
    }
}

/// What the monitor would answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Response {
    /// Let it happen.
    #[default]
    Allow,
    /// Let somebody look at it first.
    StepUp,
    /// Refuse it.
    Deny,
}

impl Response {
    /// Its name in configuration and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::StepUp => "step_up",
            Self::Deny => "deny",
        }
    }
}

/// How one attempt deviates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deviation {
    /// The evidence.
    pub flags: Flags,
    /// What it amounts to.
    pub assessment: Assessment,
    /// How sure that is, in percent: an order, calibrated on nothing but the measured data; 0 if it amounts to nothing.
    pub confidence: u8,
    /// What the monitor would answer.
    pub response: Response,
    /// Place of the target that evidence is about, among the attempt's.
    pub target_at: u16,
    /// Place of the reference that evidence is about, among the attempt's.
    pub reference_at: u16,
    pub(super) action: Fingerprint,
    /// The action with what is missing.
    pub(super) about: Fingerprint,
    pub(super) network: Option<Fingerprint>,
}
