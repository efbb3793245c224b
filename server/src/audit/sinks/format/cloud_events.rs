//! A record in a CloudEvent (CloudEvents 1.0.2, JSON format).

use cardea_proto::v1::{self, record::Entry};
use serde::Serialize;

use crate::audit::record::unix_ms;

#[derive(Serialize)]
pub(super) struct CloudEvent<'r> {
    specversion: &'static str,
    id: String,
    source: String,
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    datacontenttype: &'static str,
    data: &'r v1::Record,
}

/// `source` is the log and `id` the number in it: together they name the record for all time.
pub(super) fn event<'r>(log: &str, kind: &str, record: &'r v1::Record) -> CloudEvent<'r> {
    let subject = match &record.entry {
        Some(Entry::Decision(decision)) => Some(decision.decision_id.as_str()),
        Some(Entry::Session(session)) => Some(session.session_id.as_str()),
        Some(Entry::Task(task)) => Some(task.task_id.as_str()),
        Some(Entry::Review(review)) => Some(review.review_id.as_str()),
        Some(
            Entry::Signal(_)
            | Entry::Bundle(_)
            | Entry::Gap(_)
            | Entry::Shadow(_)
            | Entry::Stream(_)
            | Entry::Withheld(_)
            | Entry::Retention(_),
        )
        | None => None,
    };
    let time = record.time.as_ref().and_then(|time| jiff::Timestamp::from_millisecond(unix_ms(time)).ok());
    CloudEvent {
        specversion: "1.0",
        id: record.sequence.to_string(),
        source: format!("/{log}"),
        r#type: format!("cardea.v1.{kind}"),
        subject: subject.filter(|subject| !subject.is_empty()),
        time: time.map(|time| format!("{time:.3}")),
        datacontenttype: "application/json",
        data: record,
    }
}
