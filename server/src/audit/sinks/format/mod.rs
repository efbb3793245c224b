//! How records look to a sink: as they are in JSON, as OCSF API Activity, or in CloudEvents.
//!
//! Never does: leaving anything of a record out. What a format has no place for stands in it as the record itself.

mod cloud_events;
mod ocsf;

use cardea_proto::v1::{self, record::Entry};
use serde::Serialize;

/// How records look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The record in JSON, as `cardea audit query --format json` prints it.
    Json,
    /// OCSF 1.8.0: decisions as API Activity (6003), all else as Base Event.
    Ocsf,
    /// CloudEvents 1.0 in JSON, with the record as data.
    CloudEvents,
}

impl Format {
    /// Every format, by its name in the configuration.
    pub const ALL: [(&'static str, Self); 3] =
        [("json", Self::Json), ("ocsf", Self::Ocsf), ("cloudevents", Self::CloudEvents)];

    /// As the configuration calls it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ocsf => "ocsf",
            Self::CloudEvents => "cloudevents",
        }
    }

    /// Media type of one record.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json | Self::Ocsf => "application/json",
            Self::CloudEvents => "application/cloudevents+json",
        }
    }
}

/// A record on its way to a sink.
#[derive(Clone, Debug)]
pub struct Event {
    /// The same each time that it is sent: `LOG/SEQUENCE`.
    pub id: String,
    /// `decision`, `signal`, …
    pub kind: &'static str,
    /// In the sink's format; one line.
    pub body: Vec<u8>,
    /// The record.
    pub record: v1::Record,
}

impl Event {
    /// Puts a record of this log into a format.
    #[must_use]
    pub fn new(log: &str, format: Format, record: v1::Record) -> Self {
        let id = format!("{log}/{}", record.sequence);
        let kind = record.entry.as_ref().map_or("unknown", kind);
        let body = match format {
            Format::Json => json(&record),
            Format::Ocsf => json(&ocsf::event(&id, kind, &record)),
            Format::CloudEvents => json(&cloud_events::event(log, kind, &record)),
        };
        Self { id, kind, body, record }
    }
}

/// What has no maps but those with text for keys can always be written.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// The kind of a record, as its JSON has it.
#[must_use]
pub const fn kind(entry: &Entry) -> &'static str {
    match entry {
        Entry::Decision(_) => "decision",
        Entry::Signal(_) => "signal",
        Entry::Session(_) => "session",
        Entry::Bundle(_) => "bundle",
        Entry::Gap(_) => "gap",
        Entry::Shadow(_) => "shadow",
        Entry::Task(_) => "task",
        Entry::Review(_) => "review",
        Entry::Stream(_) => "stream",
        Entry::Withheld(_) => "withheld",
        Entry::Retention(_) => "retention",
    }
}
