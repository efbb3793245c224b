//! What an approval gives: a requirement is met for exactly one attempt, until an end.

use cardea_policy_store::engine::Uid;
use smol_str::SmolStr;

use crate::ask::AskDigest;
use crate::task::ResourcePattern;
use crate::time::Now;

/// One approval that counts, for the attempt whose digest it is kept under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The review that gave it.
    pub review: AskDigest,
    /// The requirement that it meets.
    pub requirement: SmolStr,
    /// First instant at which it no longer counts, Unix milliseconds.
    pub ends_ms: i64,
    /// Counts in this session only; `None`: in any.
    pub session_id: Option<SmolStr>,
    /// Opens one attempt, and is used up once that is allowed.
    pub once: bool,
}

/// The grants of one attempt: a few, one for each requirement.
pub type Grants = Vec<Grant>;

impl Grant {
    /// Whether it counts now, in the attempt's session.
    #[must_use]
    pub fn counts(&self, session_id: Option<&SmolStr>, now: Now) -> bool {
        now.wall_ms < self.ends_ms && self.session_id.as_ref().is_none_or(|only| session_id == Some(only))
    }
}

/// What an approval is to cover, as a reviewer asks for it; what is not named is what was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Action ids.
    pub actions: Vec<SmolStr>,
    /// Resources.
    pub resources: Vec<ResourcePattern>,
}

/// A scope that covers more than what was asked, or something else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not what was asked; an approval covers exactly that action on that resource, and nothing wider"
)]
pub struct Wider(pub String);

impl Scope {
    /// Whether it covers nothing beyond the action and the resource that were asked for.
    ///
    /// # Errors
    /// With the first thing that was not asked for.
    pub fn within(&self, action: &Uid, resource: &Uid) -> Result<(), Wider> {
        if let Some(other) = self.actions.iter().find(|name| *name != action.id()) {
            return Err(Wider(other.to_string()));
        }
        match self.resources.iter().find(|pattern| !pattern.is_only(resource)) {
            Some(other) => Err(Wider(other.to_string())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use cardea_policy_store::digest::Digest;

    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::from(&text.parse::<cedar_policy::EntityUid>().unwrap())
    }

    #[test]
    fn it_counts_before_its_end_and_in_its_session() {
        let review = AskDigest(Digest::of(b"x"));
        let grant = Grant { review, requirement: "r".into(), ends_ms: 10, session_id: None, once: false };
        let at = |wall_ms| Now { mono_ns: 0, wall_ms };
        let session = SmolStr::from("s");
        assert!(grant.counts(None, at(9)) && grant.counts(Some(&session), at(9)));
        assert!(!grant.counts(None, at(10)));
        let bound = Grant { session_id: Some(session.clone()), ..grant };
        assert!(bound.counts(Some(&session), at(9)));
        assert!(!bound.counts(None, at(9)) && !bound.counts(Some(&"t".into()), at(9)));
    }

    #[test]
    fn a_scope_is_what_was_asked_or_refused() {
        let (action, resource) = (uid("Action::\"read\""), uid("T::\"a\""));
        let scope = |actions: &[&str], resources: &[&str]| Scope {
            actions: actions.iter().copied().map(SmolStr::from).collect(),
            resources: resources.iter().map(|text| ResourcePattern::parse(text).unwrap()).collect(),
        };
        assert_eq!(scope(&[], &[]).within(&action, &resource), Ok(()));
        assert_eq!(scope(&["read"], &["T::\"a\""]).within(&action, &resource), Ok(()));
        for (actions, resources, beyond) in [
            (&["read", "write"][..], &[][..], "write"),
            (&[], &["T::\"a*\""], "T::\"a*\""),
            (&[], &["T::\"a\"", "T::\"b\""], "T::\"b\""),
            (&[], &["U::\"a\""], "U::\"a\""),
        ] {
            assert_eq!(scope(actions, resources).within(&action, &resource), Err(Wider(beyond.into())));
        }
    }
}
