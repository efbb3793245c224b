//! A task: an approved piece of work, its window and its scope. Its life is in [`life`].

pub mod life;

use cardea_policy_store::engine::Uid;
use smol_str::SmolStr;

use crate::time::{Now, UNKNOWN_AGE_S};

/// Most actions, and most resource patterns, that one task may name.
pub const SCOPE_MAX: usize = 256;

/// An approved piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Names the task.
    pub id: SmolStr,
    /// What the work is for, in words.
    pub purpose: SmolStr,
    /// First instant of the window, Unix milliseconds; `None`: open.
    pub not_before_ms: Option<i64>,
    /// First instant after the window, Unix milliseconds; `None`: open.
    pub not_after_ms: Option<i64>,
    /// Action ids in scope.
    pub actions: Vec<SmolStr>,
    /// Resources in scope; none: every resource.
    pub resources: Vec<ResourcePattern>,
}

impl Task {
    /// Whether now lies in the window.
    #[must_use]
    pub fn is_active(&self, now: Now) -> bool {
        self.not_before_ms.is_none_or(|from| from <= now.wall_ms)
            && self.not_after_ms.is_none_or(|end| now.wall_ms < end)
    }

    /// Whole seconds until the window closes; ten years if it has no end.
    #[must_use]
    pub fn remaining_s(&self, now: Now) -> i64 {
        self.not_after_ms.map_or(UNKNOWN_AGE_S, |end| now.until_s(end))
    }

    /// Whether the task covers this action on this resource.
    #[must_use]
    pub fn covers(&self, action: &Uid, resource: &Uid) -> bool {
        self.actions.iter().any(|id| id == action.id())
            && (self.resources.is_empty() || self.resources.iter().any(|pattern| pattern.matches(resource)))
    }
}

/// `Type::"id"` or `Type::"prefix*"`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourcePattern {
    type_name: SmolStr,
    id: SmolStr,
    is_prefix: bool,
}

/// A resource pattern that is neither `Type::"id"` nor `Type::"prefix*"`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a resource pattern; write `Type::\"id\"` or `Type::\"prefix*\"`")]
pub struct BadPattern(SmolStr);

impl ResourcePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When the text has another form, or a `*` elsewhere than at the end.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let bad = || BadPattern(text.into());
        let (type_name, rest) = text.split_once("::\"").ok_or_else(bad)?;
        let quoted = rest.strip_suffix('"').ok_or_else(bad)?;
        let (id, is_prefix) = match quoted.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (quoted, false),
        };
        let name_is_plain = !type_name.is_empty()
            && type_name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':');
        if !name_is_plain || id.contains(['*', '"', '\\']) {
            return Err(bad());
        }
        Ok(Self { type_name: type_name.into(), id: id.into(), is_prefix })
    }

    /// Whether every resource that the other matches is matched by this one, too.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let ids = if self.is_prefix {
            other.id.starts_with(self.id.as_str())
        } else {
            !other.is_prefix && self.id == other.id
        };
        ids && self.type_name == other.type_name
    }

    /// Whether it matches this resource and no other.
    #[must_use]
    pub fn is_only(&self, resource: &Uid) -> bool {
        !self.is_prefix && self.matches(resource)
    }

    /// Whether it matches the resource.
    #[must_use]
    pub fn matches(&self, resource: &Uid) -> bool {
        let id_matches = if self.is_prefix {
            resource.id().starts_with(self.id.as_str())
        } else {
            resource.id() == self.id.as_str()
        };
        id_matches && resource.type_text() == self.type_name.as_str()
    }
}

impl std::fmt::Display for ResourcePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}::\"{}{}\"", self.type_name, self.id, if self.is_prefix { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::from(&text.parse::<cedar_policy::EntityUid>().unwrap())
    }

    #[test]
    fn the_window_starts_at_its_first_and_ends_before_its_last_instant() {
        let task = Task {
            id: "t".into(),
            purpose: "p".into(),
            not_before_ms: Some(10),
            not_after_ms: Some(20),
            actions: vec!["read".into()],
            resources: vec![],
        };
        let at = |wall_ms| task.is_active(Now { mono_ns: 0, wall_ms });
        assert_eq!([at(9), at(10), at(19), at(20)], [false, true, true, false]);
    }

    #[test]
    fn a_scope_names_actions_and_resources() {
        let task = Task {
            id: "t".into(),
            purpose: "p".into(),
            not_before_ms: None,
            not_after_ms: None,
            actions: vec!["read".into()],
            resources: vec![
                ResourcePattern::parse("Db::Table::\"sales/*\"").unwrap(),
                ResourcePattern::parse("Doc::\"plan\"").unwrap(),
            ],
        };
        let read = uid("Action::\"read\"");
        assert!(task.covers(&read, &uid("Db::Table::\"sales/eu\"")));
        assert!(task.covers(&read, &uid("Doc::\"plan\"")));
        assert!(!task.covers(&read, &uid("Doc::\"plans\"")));
        assert!(!task.covers(&read, &uid("Other::\"sales/eu\"")));
        assert!(!task.covers(&uid("Action::\"write\""), &uid("Doc::\"plan\"")));
    }

    #[test]
    fn a_pattern_contains_what_matches_no_more() {
        let pattern = |text: &str| ResourcePattern::parse(text).unwrap();
        let wide = pattern("Doc::\"a*\"");
        assert!(wide.contains(&pattern("Doc::\"ab*\"")) && wide.contains(&pattern("Doc::\"a\"")));
        assert!(wide.contains(&wide));
        for beyond in ["Doc::\"*\"", "Doc::\"b\"", "Dok::\"ab*\"", "Doc::\"\""] {
            assert!(!wide.contains(&pattern(beyond)), "{beyond}");
        }
        let exact = pattern("Doc::\"a\"");
        assert!(exact.contains(&exact) && !exact.contains(&wide) && !exact.contains(&pattern("Doc::\"ab\"")));
    }

    #[test]
    fn patterns_that_say_something_else_are_refused() {
        for bad in ["", "Doc", "Doc::plan", "Doc::\"a*b\"", "::\"a\"", "Doc::\"a\"b\""] {
            assert!(ResourcePattern::parse(bad).is_err(), "{bad}");
        }
    }
}
