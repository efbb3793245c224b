//! How single values of records look in JSON: times as RFC 3339 with milliseconds, durations in milliseconds, enums by their own names in
//! lower case without the prefix (`step_up`, `no_permit`).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::v1;

/// A record, as `{"sequence": …, "time": …, KIND: {…}}`.
#[derive(Serialize)]
struct Written<'r> {
    sequence: u64,
    #[serde(with = "optional_time")]
    time: Option<prost_types::Timestamp>,
    #[serde(flatten)]
    entry: Option<&'r v1::record::Entry>,
}

#[derive(Deserialize)]
struct Read {
    sequence: u64,
    #[serde(with = "time")]
    time: prost_types::Timestamp,
    #[serde(flatten)]
    entry: v1::record::Entry,
}

impl Serialize for v1::Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { sequence, time, entry } = self;
        Written { sequence: *sequence, time: *time, entry: entry.as_ref() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for v1::Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { sequence, time, entry } = Read::deserialize(deserializer)?;
        Ok(Self { sequence, time: Some(time), entry: Some(entry) })
    }
}

/// Whether a field has what it has when nobody set it; such fields are left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A `Timestamp`; beyond the years that RFC 3339 can write, milliseconds since 1970.
pub(crate) mod time {
    use std::fmt;

    use jiff::Timestamp as Instant;
    use prost_types::Timestamp;
    use serde::{Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        let ms = time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos / 1_000_000));
        match Instant::from_millisecond(ms) {
            Ok(time) => serializer.collect_str(&format_args!("{time:.3}")),
            Err(_) => serializer.serialize_i64(ms),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        deserializer.deserialize_any(Milliseconds)
    }

    struct Milliseconds;

    impl de::Visitor<'_> for Milliseconds {
        type Value = Timestamp;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a time as RFC 3339, or milliseconds since 1970")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
            let time = text.parse::<Instant>().map_err(E::custom)?;
            self.visit_i64(time.as_millisecond())
        }

        fn visit_i64<E: de::Error>(self, ms: i64) -> Result<Timestamp, E> {
            let nanos = i32::try_from(ms.rem_euclid(1_000) * 1_000_000).unwrap_or_default();
            Ok(Timestamp { seconds: ms.div_euclid(1_000), nanos })
        }

        fn visit_u64<E: de::Error>(self, ms: u64) -> Result<Timestamp, E> {
            self.visit_i64(i64::try_from(ms).map_err(E::custom)?)
        }
    }
}

/// A `Timestamp` that may be unset.
pub(crate) mod optional_time {
    use prost_types::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Time(#[serde(with = "super::time")] Timestamp);

    #[expect(clippy::ref_option, reason = "serde calls it with a reference")]
    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        (*time).map(Time).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<Time>::deserialize(deserializer)?.map(|time| time.0))
    }
}

/// A `Duration`, in milliseconds.
pub(crate) mod duration {
    use prost_types::Duration;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let ms = span.seconds.saturating_mul(1_000).saturating_add(i64::from(span.nanos / 1_000_000));
        serializer.serialize_i64(ms)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let ms = i64::deserialize(deserializer)?;
        let nanos = i32::try_from(ms % 1_000 * 1_000_000).unwrap_or_default();
        Ok(Duration { seconds: ms / 1_000, nanos })
    }
}

macro_rules! name_of_enum {
    ($module:ident, $($path:ident)::*, $prefix:literal, $what:literal) => {
        pub(crate) mod $module {
            use std::borrow::Cow;

            use serde::{Deserialize as _, Deserializer, Serializer, de};

            use crate::v1::$($path)::* as Named;

            pub(crate) fn serialize<S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
                let name = Named::try_from(*number).unwrap_or_default().as_str_name();
                let short = name.strip_prefix($prefix).unwrap_or(name);
                serializer.serialize_str(&short.to_ascii_lowercase())
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                let name = format!(concat!($prefix, "{}"), text.to_ascii_uppercase());
                let named = Named::from_str_name(&name).map(i32::from);
                named.ok_or_else(|| de::Error::custom(format_args!(concat!("unknown ", $what, " `{}`"), text)))
            }
        }
    };
}

name_of_enum!(decision, Decision, "DECISION_", "decision");
name_of_enum!(reason_code, ReasonCode, "REASON_CODE_", "reason code");
name_of_enum!(shadow_effect, ShadowEffect, "SHADOW_EFFECT_", "effect of a shadow");
name_of_enum!(hold_cause, hold_cause::Kind, "KIND_", "cause of a hold's answer");
name_of_enum!(gap_cause, gap_record::Cause, "CAUSE_", "cause of a gap");
