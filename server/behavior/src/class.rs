//! What kind of thing an action does; the bundle or a table says which action is which, never its name alone.

use serde::{Deserialize, Serialize};

/// See the module. An action that nobody classified is [`ActionClass::Write`]: the strict side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionClass {
    /// Reads what belongs to the identity's own world. Looking around is how agents work: it is not held against them.
    Read,
    /// Reads from outside: what is asked for leaves, and what comes back is somebody else's text.
    Fetch,
    /// Changes something.
    #[default]
    Write,
    /// Hands data, money or access to another party.
    Egress,
    /// Changes who may do what.
    Privilege,
    /// Reads or changes a secret.
    Secret,
}

impl ActionClass {
    /// Its name in configuration and evidence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Fetch => "fetch",
            Self::Write => "write",
            Self::Egress => "egress",
            Self::Privilege => "privilege",
            Self::Secret => "secret",
        }
    }

    /// Whether a target that was never approved matters: everything but reading at home.
    #[must_use]
    pub const fn counts(self) -> bool {
        !matches!(self, Self::Read)
    }

    /// Whether it does something that cannot be undone by not looking: everything but reading.
    #[must_use]
    pub const fn has_effect(self) -> bool {
        !matches!(self, Self::Read | Self::Fetch)
    }
}
