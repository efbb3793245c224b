//! The table that says what kind of thing each action does.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::class::ActionClass;

/// Patterns for each class. The pattern with the most plain characters that fits an action decides; of two of the same
/// length the one of the stricter class. An action that none fits has the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Classes {
    /// Of actions that no pattern fits.
    #[serde(default)]
    default: ActionClass,
    #[serde(flatten)]
    patterns: BTreeMap<ActionClass, Vec<String>>,
}

impl Classes {
    /// The class of an action.
    #[must_use]
    pub fn of(&self, action: &str) -> ActionClass {
        let fitting = self.patterns.iter().flat_map(|(class, patterns)| {
            let fit = patterns.iter().filter(|pattern| fits(pattern, action));
            fit.map(move |pattern| (pattern.bytes().filter(|byte| *byte != b'*').count(), *class))
        });
        fitting.max().map_or(self.default, |(_, class)| class)
    }
}

/// Whether a pattern, in which `*` stands for anything, fits the whole text.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        // The first place is as good as any later one: more of the text is left for what follows.
        let Some((_, after)) = text.split_once(part) else { return false };
        text = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text) in
            [("a", "a"), ("*", ""), ("*", "x"), ("a*", "a"), ("*b", "ab"), ("a*c*e", "abcde"), ("*a*", "xay")]
        {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("a", "ab"), ("a*", "ba"), ("a*b", "a"), ("ab*b", "ab"), ("*a*a", "a"), ("a*c*e", "aec")]
        {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn the_longest_pattern_decides_and_then_the_stricter_class() {
        let text = r#"read = ["get_*", "x_a"]
            secret = ["get_secret*", "a_x", "x_*"]
            write = ["a_x"]
            default = "egress""#;
        let classes: Classes = toml::from_str(text).unwrap();
        let of = |action| classes.of(action).name();
        assert_eq!(
            [of("get_a"), of("get_secret"), of("a_x"), of("x_a"), of("y")],
            ["read", "secret", "secret", "read", "egress"]
        );
    }
}
