//! Words that commands about a running node take: who asks, and points in time.

use cardea_client::v1;
use clap::Args;
use jiff::Timestamp;

use crate::proving::words::{Named, Span};

/// A point in time: RFC 3339, or a span such as `2h` or `1h30m` from now, or before it with `ago`.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    At(Timestamp),
    In(Span),
    Ago(Span),
}

impl std::str::FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(span) = text.parse::<Span>() {
            return Ok(Self::In(span));
        }
        if let Some(Ok(span)) = text.strip_suffix("ago").map(|span| span.trim_end().parse::<Span>()) {
            return Ok(Self::Ago(span));
        }
        text.parse::<Timestamp>().map(Self::At).map_err(|_| {
            format!(
                "`{text}` is no time; write a span from now such as `2h`, `5m ago`, or 2026-01-01T12:00:00Z"
            )
        })
    }
}

impl When {
    /// As the wire says it, on this machine's clock.
    pub(super) fn message(self, now_ms: i64) -> prost_types::Timestamp {
        let at_ms = match self {
            Self::At(at) => at.as_millisecond(),
            Self::In(span) => now_ms.saturating_add(span.ms),
            Self::Ago(span) => now_ms.saturating_sub(span.ms),
        };
        crate::doors::timestamp(at_ms)
    }
}

/// Who asks for a change, and why.
#[derive(Clone, Debug, Args)]
pub(super) struct By {
    /// Who asks for it, as 'Type::"id"'; goes into the record.
    #[arg(long, value_name = "ENTITY")]
    by: Named,
    /// Why; goes into the record.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) reason: String,
}

impl By {
    pub(super) fn reference(&self) -> Option<v1::EntityRef> {
        Some(self.by.reference())
    }
}

/// An entity as policies write it; `-` for none.
pub(super) fn entity(reference: Option<&v1::EntityRef>) -> String {
    reference.map_or_else(
        || "-".to_owned(),
        |one| Named { type_name: one.r#type.clone(), id: one.id.clone() }.to_string(),
    )
}

/// Now, on this machine's clock, Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    crate::clock::Clock::machine().now().wall_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_span_from_now_one_ago_or_an_instant() {
        let seconds = |text: &str| text.parse::<When>().map(|when| when.message(1_000_000_000).seconds);
        assert_eq!(seconds("2h"), Ok(1_007_200));
        assert_eq!(seconds("5m ago"), Ok(999_700));
        assert_eq!(seconds("1970-01-01T00:00:07Z"), Ok(7));
        assert!(seconds("-5m").is_err_and(|why| why.contains("`5m ago`")));
        assert!(seconds("ago").is_err());
    }
}
