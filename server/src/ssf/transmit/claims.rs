//! The claims of security event tokens, as the framework asks for them: one event, a subject in `sub_id`, neither `sub` nor
//! `exp`.
//!
//! Never does: signing.

use std::sync::Arc;

use serde_json::{Value, json};
use smol_str::SmolStr;

use super::streams::{Claims, Stream};
use super::subject::Subject;
use crate::ssf::event::{self, Event, EventType, StreamStatus};

/// Makes the claims of the events of one moment.
#[derive(Clone, Copy)]
pub(super) struct Maker<'m> {
    /// Who we are.
    pub(super) issuer: &'m str,
    /// When, Unix milliseconds.
    pub(super) now_ms: i64,
}

impl Maker<'_> {
    /// An event about a subject.
    pub(super) fn event(
        &self,
        audience: &str,
        txn: &str,
        subject: &Subject,
        kind: EventType,
        payload: &Value,
    ) -> Claims {
        let subject: Value = serde_json::from_str(subject.as_str()).unwrap_or_default();
        self.claims(audience, Some(txn), &subject, kind, payload)
    }

    /// Shows that the stream works.
    pub(super) fn verification(&self, audience: &str, id: &str, state: Option<String>) -> Claims {
        let what = event::What::Verification { state: state.map(SmolStr::from) };
        self.about_stream(audience, id, what)
    }

    /// Tells that events are missing.
    pub(super) fn notice(&self, audience: &str, stream: &Stream, lost: u64) -> Claims {
        let reason = format!("{lost} events were dropped because they were not taken in time");
        self.updated(audience, stream, reason)
    }

    /// Tells that conclusions were lost before they became events.
    pub(super) fn conclusions_lost(&self, audience: &str, stream: &Stream, lost: u64) -> Claims {
        let reason = format!("up to {lost} events are missing because too much happened at once");
        self.updated(audience, stream, reason)
    }

    fn updated(&self, audience: &str, stream: &Stream, reason: String) -> Claims {
        let what = event::What::StreamUpdated { status: StreamStatus::Enabled, reason: Some(reason.into()) };
        self.about_stream(audience, &stream.id, what)
    }

    fn about_stream(&self, audience: &str, id: &str, what: event::What) -> Claims {
        let event = Event::of(what);
        let subject = json!({ "format": "opaque", "id": id });
        self.claims(audience, None, &subject, event.kind(), &event.to_json())
    }

    fn claims(
        &self,
        audience: &str,
        txn: Option<&str>,
        subject: &Value,
        kind: EventType,
        payload: &Value,
    ) -> Claims {
        let jti = unique();
        let mut claims = json!({
            "iss": self.issuer,
            "jti": jti.as_str(),
            "iat": self.now_ms.div_euclid(1000),
            "aud": audience,
            "sub_id": subject,
            "events": { kind.uri(): payload },
        });
        if let (Some(txn), Some(claims)) = (txn, claims.as_object_mut()) {
            claims.insert("txn".to_owned(), txn.into());
        }
        (jti, Arc::from(claims.to_string()))
    }
}

/// A name that nothing else has: 128 random bits, in hexadecimal. Unique, not secret.
pub(super) fn unique() -> SmolStr {
    format!("{:032x}", fastrand::u128(..)).into()
}
