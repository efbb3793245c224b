//! Words that commands about a running node take: who asks, and points in time.

use cardea_client::v1;
use clap::Args;
use jiff::Timestamp;

use crate::proving::words::{Named, Span};

/// A point in time: RFC 3339, or a span from now such as `2h` or `1h30m`.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    At(Timestamp),
    In(Span),
}

impl std::str::FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(span) = text.parse::<Span>() {
            return Ok(Self::In(span));
        }
        text.parse::<Timestamp>().map(Self::At).map_err(|_| {
            format!("`{text}` is no time; write a span from now such as `2h`, or 2026-01-01T12:00:00Z")
        })
    }
}

impl When {
    /// As the wire says it, on this machine's clock.
    pub(super) fn message(self, now_ms: i64) -> prost_types::Timestamp {
        let at_ms = match self {
            Self::At(at) => at.as_millisecond(),
            Self::In(span) => now_ms.saturating_add(span.ms),
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
