//! How single values of records look in JSON: times as RFC 3339 with milliseconds, durations in milliseconds, enums by their own names in
//! lower case without the prefix (`step_up`, `no_permit`).

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, EnumAccess, MapAccess, VariantAccess, Visitor};
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

impl Serialize for v1::Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { sequence, time, entry } = self;
        Written { sequence: *sequence, time: *time, entry: entry.as_ref() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for v1::Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

/// Reads the members of a record one by one: each once, and exactly one entry among them. Of two, nobody could say which one was meant.
struct Members;

#[derive(Deserialize)]
struct Time(#[serde(with = "time")] prost_types::Timestamp);

/// A member whose name says which variant of an enum its value is.
struct Named<'n, 'm, M> {
    name: &'n str,
    members: &'m mut M,
}

impl<'de, M: MapAccess<'de>> Deserializer<'de> for Named<'_, '_, M> {
    type Error = M::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, M::Error> {
        visitor.visit_enum(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, M: MapAccess<'de>> EnumAccess<'de> for Named<'_, '_, M> {
    type Error = M::Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), M::Error> {
        let variant = seed.deserialize(StrDeserializer::new(self.name))?;
        Ok((variant, self))
    }
}

impl<'de, M: MapAccess<'de>> VariantAccess<'de> for Named<'_, '_, M> {
    type Error = M::Error;

    fn unit_variant(self) -> Result<(), M::Error> {
        Err(de::Error::custom("an entry is an object"))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, M::Error> {
        self.members.next_value_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, M::Error> {
        Err(de::Error::custom("an entry is an object"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, M::Error> {
        Err(de::Error::custom("an entry is an object"))
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = v1::Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record: `sequence`, `time` and one entry, such as `decision`")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Self::Value, M::Error> {
        let (mut sequence, mut time, mut entry) = (None, None, None::<(String, v1::record::Entry)>);
        while let Some(name) = members.next_key::<String>()? {
            let is_first = match name.as_str() {
                "sequence" => sequence.replace(members.next_value()?).is_none(),
                "time" => time.replace(members.next_value::<Time>()?.0).is_none(),
                _ => {
                    if let Some((first, _)) = &entry {
                        return Err(de::Error::custom(format_args!(
                            "a record has one entry, and this has `{first}` and `{name}`"
                        )));
                    }
                    let read = v1::record::Entry::deserialize(Named { name: &name, members: &mut members })?;
                    entry.replace((name.clone(), read)).is_none()
                }
            };
            if !is_first {
                return Err(de::Error::custom(format_args!("`{name}` stands twice")));
            }
        }
        let sequence = sequence.ok_or_else(|| de::Error::missing_field("sequence"))?;
        let time = time.ok_or_else(|| de::Error::missing_field("time"))?;
        let (_, entry) = entry.ok_or_else(|| de::Error::custom("a record without an entry"))?;
        Ok(Self::Value { sequence, time: Some(time), entry: Some(entry) })
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
