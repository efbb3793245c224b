//! The record of a stream of outgoing signals.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// What happened to a stream of outgoing signals, or to a key that signs them; fields as in `cardea.v1.StreamRecord`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// The stream; of a key its id.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub stream_id: SmolStr,
    /// The receiver whose stream it is, by its name in the configuration.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub receiver: SmolStr,
    /// `created`, `updated`, `replaced`, `deleted`, `enabled`, `paused`, `disabled`, `subject_added`, `subject_removed`,
    /// `events_dropped`, `event_refused`, `conclusions_lost`, `key_made`, `key_signs`, `key_forgotten` or `key_lost`.
    pub change: SmolStr,
    /// How many events it is about.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub events: u64,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub reason: SmolStr,
}

impl StreamRecord {
    /// A change of a stream.
    #[must_use]
    pub fn of(stream_id: &str, receiver: &str, change: &'static str) -> Self {
        Self {
            stream_id: stream_id.into(),
            receiver: receiver.into(),
            change: SmolStr::new_static(change),
            events: 0,
            reason: SmolStr::default(),
        }
    }

    /// A change of a key.
    #[must_use]
    pub fn of_key(kid: &str, change: &'static str) -> Self {
        Self::of(kid, "", change)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
