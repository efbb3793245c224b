//! Attempts and their parts, written shortly.

use anyhow::{Context as _, Result};
use cardea_proto::v1;

/// `Type::id` as an entity.
///
/// # Errors
/// If there is no `::`.
pub fn entity(text: &str) -> Result<v1::EntityRef> {
    let (kind, id) = text.rsplit_once("::").with_context(|| format!("`{text}` is not `Type::id`"))?;
    Ok(v1::EntityRef { r#type: kind.to_owned(), id: id.to_owned() })
}

/// An attempt of a principal, with an action's id and a resource, in a session if not empty.
///
/// # Errors
/// If an entity is not `Type::id`.
pub fn attempt(principal: &str, action: &str, resource: &str, session_id: &str) -> Result<v1::Attempt> {
    Ok(v1::Attempt {
        principal: Some(entity(principal)?),
        action: Some(v1::EntityRef { r#type: String::new(), id: action.to_owned() }),
        resource: Some(entity(resource)?),
        session_id: session_id.to_owned(),
        ..v1::Attempt::default()
    })
}

/// A number for a context.
#[must_use]
pub fn long(value: i64) -> v1::Value {
    v1::Value { kind: Some(v1::value::Kind::Long(value)) }
}

/// The codes of a verdict's reasons.
#[must_use]
pub fn codes(verdict: &v1::Verdict) -> Vec<v1::ReasonCode> {
    verdict.reasons.iter().map(v1::Reason::code).collect()
}

/// The wall time, plus some seconds.
///
/// # Errors
/// If the machine's clock is before 1970.
pub fn wall_time(plus_s: i64) -> Result<prost_types::Timestamp> {
    let since_epoch = std::time::UNIX_EPOCH.elapsed()?;
    let seconds = i64::try_from(since_epoch.as_secs())? + plus_s;
    Ok(prost_types::Timestamp { seconds, nanos: i32::try_from(since_epoch.subsec_nanos())? })
}
