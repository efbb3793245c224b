//! The small words of scenario files: spans of time, entities, lists of one.
//!
//! Limits: [`SPAN_MS_MAX`]. Never does: looking anything up; whether a type exists is asked when the scenario is played.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use cardea_proto::v1;
use cedar_policy::EntityUid;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor, value::SeqAccessDeserializer};

/// Longest span of time, in milliseconds: a hundred years, more than any session, task or token lasts.
pub const SPAN_MS_MAX: i64 = 100 * 366 * 24 * 3600 * 1000;

/// A span of time, written `10m` or `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Its length, in milliseconds; not negative.
    pub ms: i64,
}

/// A text that is no span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no span of time; write numbers with ms, s, m, h or d, such as `90s` or `1h30m`")]
pub struct NotASpan(String);

impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Self, NotASpan> {
        let bad = || NotASpan(text.chars().take(40).collect());
        let mut rest = text.trim();
        let mut total: i64 = 0;
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let (digits, after) = split(rest, |c| !c.is_ascii_digit());
            let (unit, after) = split(after, |c| !c.is_ascii_alphabetic());
            let unit_ms: i64 = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(bad()),
            };
            let number: i64 = digits.parse().map_err(|_| bad())?;
            total = number.checked_mul(unit_ms).and_then(|ms| total.checked_add(ms)).ok_or_else(bad)?;
            rest = after.trim_start();
        }
        if total > SPAN_MS_MAX { Err(bad()) } else { Ok(Self { ms: total }) }
    }
}

/// A text up to where `ends` says, and the rest.
fn split(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.find(ends).and_then(|at| text.split_at_checked(at)).unwrap_or((text, ""))
}

/// An entity, written as in policies: `Type::"id"`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// The type's full name.
    pub type_name: String,
    /// The id, unescaped.
    pub id: String,
}

impl Named {
    /// As the wire says it.
    #[must_use]
    pub fn reference(&self) -> v1::EntityRef {
        v1::EntityRef { r#type: self.type_name.clone(), id: self.id.clone() }
    }
}

/// A text that names no entity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no entity; write `Type::\"id\"`, in single quotes: 'Type::\"id\"'")]
pub struct NotNamed(String);

impl FromStr for Named {
    type Err = NotNamed;

    fn from_str(text: &str) -> Result<Self, NotNamed> {
        let uid = EntityUid::from_str(text).map_err(|_| NotNamed(text.chars().take(80).collect()))?;
        Ok(Self { type_name: uid.type_name().to_string(), id: uid.id().unescaped().to_owned() })
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::\"{}\"", self.type_name, self.id.escape_debug())
    }
}

/// An action: its id, or `Type::"id"` where its type is not `Action`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActionNamed(pub Named);

impl FromStr for ActionNamed {
    type Err = NotNamed;

    fn from_str(text: &str) -> Result<Self, NotNamed> {
        if text.contains("::\"") {
            return text.parse().map(Self);
        }
        Ok(Self(Named { type_name: "Action".to_owned(), id: text.to_owned() }))
    }
}

impl fmt::Display for ActionNamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = !self.0.id.is_empty()
            && self
                .0
                .id
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':'));
        if self.0.type_name == "Action" && is_plain { f.write_str(&self.0.id) } else { self.0.fmt(f) }
    }
}

macro_rules! read_from_text {
    ($($type:ident),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

read_from_text!(Span, Named, ActionNamed);

/// A list; one element may stand without brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Many<T>(pub Vec<T>);

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de> + FromStr<Err: fmt::Display>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + FromStr<Err: fmt::Display>> Visitor<'de> for OneOrMany<T> {
            type Value = Many<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Many<T>, E> {
                text.parse().map(|one| Many(vec![one])).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Many<T>, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(Many)
            }
        }

        deserializer.deserialize_any(OneOrMany(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spans_are_numbers_with_units() {
        let ms = |text: &str| text.parse::<Span>().ok().map(|span| span.ms);
        assert_eq!(ms("90s"), Some(90_000));
        assert_eq!(ms("1h30m"), Some(5_400_000));
        assert_eq!(ms("2d 500ms"), Some(172_800_500));
        for bad in ["", "10", "m", "-1s", "1.5h", "1y", "99999999999999999999s", "9999999999d"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_action_is_its_id_or_a_whole_name() {
        let shown = |text: &str| text.parse::<ActionNamed>().map(|action| action.to_string());
        assert_eq!(shown("read").as_deref(), Ok("read"));
        assert_eq!(shown("Action::\"read\"").as_deref(), Ok("read"));
        assert_eq!(shown("Db::Action::\"read\"").as_deref(), Ok("Db::Action::\"read\""));
        assert!(shown("Db Action::\"read\"").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _span = text.parse::<Span>();
            let _named = text.parse::<Named>();
            let _action = text.parse::<ActionNamed>();
        }

        #[test]
        fn a_name_reads_back_as_it_is_shown(id in "[ -~]{0,20}") {
            let named = Named { type_name: "A::B".to_owned(), id };
            prop_assert_eq!(named.to_string().parse::<Named>(), Ok(named));
        }
    }
}
