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

    /// Every class.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Fetch, Self::Write, Self::Egress, Self::Privilege, Self::Secret];

    /// The class of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// The same, made stricter by what a tool says of itself. Nobody vouches for it, so that it only reads is not believed.
    #[must_use]
    pub const fn hinted(self, hints: Hints) -> Self {
        let class = match self {
            Self::Read | Self::Fetch if hints.is_destructive => Self::Write,
            Self::Read | Self::Fetch | Self::Write | Self::Egress | Self::Privilege | Self::Secret => self,
        };
        match class {
            Self::Read if hints.is_open_world => Self::Fetch,
            Self::Write if hints.is_open_world => Self::Egress,
            Self::Read | Self::Fetch | Self::Write | Self::Egress | Self::Privilege | Self::Secret => class,
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

/// What a tool says of itself (tool annotations of the Model Context Protocol, 2025-06-18), as far as it can make an action's class stricter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `destructiveHint`: it may change or remove something.
    pub is_destructive: bool,
    /// `openWorldHint`: it deals with parties outside.
    pub is_open_world: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_only_make_a_class_stricter() {
        for class in ActionClass::ALL {
            assert_eq!(ActionClass::named(class.name()), Some(class));
            for (is_destructive, is_open_world) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                let hinted = class.hinted(Hints { is_destructive, is_open_world });
                assert!(hinted >= class, "{class:?}");
                assert!(hinted == class || is_destructive || is_open_world);
            }
        }
        let both = Hints { is_destructive: true, is_open_world: true };
        assert_eq!(ActionClass::Read.hinted(both), ActionClass::Egress);
    }
}
