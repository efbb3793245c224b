//! How single values look in a line: times as RFC 3339 with milliseconds, the wire's enums as their own names
//! in lower case without the prefix (`step_up`, `no_permit`).
//!
//! Owns: nothing. The wire's enums stay the only list of names, so the two cannot fall out of step.
//! Never does: the shape of a record (`record`).

/// Milliseconds since 1970 as RFC 3339; beyond the years that RFC 3339 can write, the bare number.
pub(super) mod time {
    use std::fmt;

    use jiff::Timestamp;
    use serde::{Deserializer, Serializer, de};

    pub(in crate::audit) fn serialize<S: Serializer>(ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        match Timestamp::from_millisecond(*ms) {
            Ok(time) => serializer.collect_str(&format_args!("{time:.3}")),
            Err(_) => serializer.serialize_i64(*ms),
        }
    }

    pub(in crate::audit) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        deserializer.deserialize_any(Milliseconds)
    }

    struct Milliseconds;

    impl de::Visitor<'_> for Milliseconds {
        type Value = i64;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a time as RFC 3339, or milliseconds since 1970")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<i64, E> {
            text.parse::<Timestamp>().map(Timestamp::as_millisecond).map_err(E::custom)
        }

        fn visit_i64<E: de::Error>(self, ms: i64) -> Result<i64, E> {
            Ok(ms)
        }

        fn visit_u64<E: de::Error>(self, ms: u64) -> Result<i64, E> {
            i64::try_from(ms).map_err(E::custom)
        }
    }
}

macro_rules! name_of_wire_enum {
    ($module:ident, $($path:ident)::*, $prefix:literal, $what:literal) => {
        pub(super) mod $module {
            use std::borrow::Cow;

            use cardea_proto::v1::$($path)::* as Named;
            use serde::{Deserialize as _, Deserializer, Serializer, de};
            use smol_str::SmolStr;

            pub(in crate::audit) fn serialize<S: Serializer>(
                value: &Named,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                let name = value.as_str_name();
                let short = name.strip_prefix($prefix).unwrap_or(name);
                let lower: SmolStr = short.chars().map(|c| c.to_ascii_lowercase()).collect();
                serializer.serialize_str(&lower)
            }

            pub(in crate::audit) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Named, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                let name = format!(concat!($prefix, "{}"), text.to_ascii_uppercase());
                Named::from_str_name(&name)
                    .ok_or_else(|| de::Error::custom(format_args!(concat!("unknown ", $what, " `{}`"), text)))
            }
        }
    };
}

name_of_wire_enum!(decision, Decision, "DECISION_", "decision");
name_of_wire_enum!(reason_code, ReasonCode, "REASON_CODE_", "reason code");
name_of_wire_enum!(shadow_effect, ShadowEffect, "SHADOW_EFFECT_", "effect of a shadow");
name_of_wire_enum!(hold_cause, hold_cause::Kind, "KIND_", "cause of a hold's answer");
