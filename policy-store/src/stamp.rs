//! Points in time as bundles write them: RFC 3339 in UTC, whole seconds, `2026-11-25T18:00:00Z`.
//!
//! Never reads a clock: what is compared with now gets it as an argument.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time, in whole seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(i64);

/// A text that is no point in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time: write it as `2026-11-25T18:00:00Z`")]
pub struct NotAStamp(String);

impl Stamp {
    /// From whole seconds since 1970; `None` outside the years -9999 to 9999.
    #[must_use]
    pub fn from_unix_s(seconds: i64) -> Option<Self> {
        Timestamp::from_second(seconds).ok().map(|at| Self(at.as_second()))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn unix_ms(self) -> i64 {
        self.0.saturating_mul(1000)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Timestamp::from_second(self.0).map_or(Err(fmt::Error), |at| write!(f, "{at}"))
    }
}

impl FromStr for Stamp {
    type Err = NotAStamp;

    fn from_str(text: &str) -> Result<Self, NotAStamp> {
        let bad = || NotAStamp(text.chars().take(40).collect());
        let at: Timestamp = text.parse().map_err(|_| bad())?;
        if at.subsec_nanosecond() != 0 {
            return Err(bad());
        }
        Ok(Self(at.as_second()))
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_what_it_writes() {
        let stamp = Stamp::from_unix_s(1_790_000_000).unwrap();
        assert_eq!(stamp.to_string(), "2026-09-21T14:13:20Z");
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
        assert_eq!("2026-09-21T16:13:20+02:00".parse(), Ok(stamp));
        for bad in ["", "yesterday", "2026-09-21", "2026-09-21T14:13:20.5Z"] {
            assert!(bad.parse::<Stamp>().is_err(), "{bad}");
        }
    }
}
