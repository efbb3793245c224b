//! `cardea watch`: what changes on a node, as it happens, from its audit stream.
//!
//! Names come from outside: whatever could move a terminal's cursor, or hide or reorder others, is shown as an escape.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use cardea_client::v1::{self, record::Entry};
use clap::Args;
use serde::Serialize;

use super::Format;
use super::bundle::node::{self, Failure, NodeArgs, time};
use super::words::entity;
use crate::hidden::printable;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea watch --node http://127.0.0.1:7411
  cardea watch --node http://127.0.0.1:7411 --from 1 --format json | jq 'select(.kind == \"hold\")'")]
pub(super) struct WatchArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Begin with this record instead of with what happens from now on.
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    from: u64,
    /// How changes are printed: a line of text, or one of JSON, for each.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// One change, for machines.
#[derive(Debug, Default, Serialize)]
struct Event<'a> {
    sequence: u64,
    time: Option<String>,
    kind: &'static str,
    change: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    session_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    enforcement_point: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    source: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_version: Option<u64>,
}

pub(super) fn run(args: &WatchArgs) -> ExitCode {
    node::run(args.format, async {
        let filter = v1::RecordFilter { changes: true, ..v1::RecordFilter::default() };
        let mut records = args.node.connect().await?.audit_from(args.from, Some(filter)).await?;
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = io::stdout().is_terminal() && !plain;
        loop {
            let batch = tokio::select! {
                batch = records.receive() => batch?,
                _interrupted = tokio::signal::ctrl_c() => return Ok(true),
            };
            let Some(batch) = batch else {
                return Err(Failure::Here("the node ended the stream; it is stopping".to_owned()));
            };
            if print(&batch, args.format, colour).is_err() {
                // Whoever read it has seen enough.
                return Ok(true);
            }
        }
    })
}

fn print(batch: &[v1::Record], format: Format, colour: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for event in batch.iter().filter_map(event) {
        match format {
            Format::Json => {
                serde_json::to_writer(&mut out, &event)?;
                out.write_all(b"\n")?;
            }
            Format::Human => writeln!(out, "{}", line(&event, colour))?,
        }
    }
    out.flush()
}

#[expect(clippy::too_many_lines, reason = "one arm for each kind of record")]
fn event(record: &v1::Record) -> Option<Event<'_>> {
    let common = Event { sequence: record.sequence, time: time(record.time.as_ref()), ..Event::default() };
    Some(match record.entry.as_ref()? {
        Entry::Decision(decided) => hold_event(decided, common),
        Entry::Signal(signal) => Event {
            kind: "signal",
            change: format!("{} {}", signal.kind, signal.outcome),
            principal: signal.subject.as_ref().map(|subject| entity(Some(subject))),
            session_id: &signal.session_id,
            source: &signal.source,
            reason: &signal.reason,
            state_version: Some(signal.state_version),
            ..common
        },
        Entry::Session(session) => Event {
            kind: "session",
            change: session.change.clone(),
            principal: session.principal.as_ref().map(|principal| entity(Some(principal))),
            session_id: &session.session_id,
            reason: &session.reason,
            state_version: Some(session.state_version),
            ..common
        },
        Entry::Bundle(bundle) => Event {
            kind: "bundle",
            change: match bundle.baseline_version {
                0 => format!("{} {} revision {}", bundle.change, bundle.name, bundle.revision),
                version => format!(
                    "{} {} revision {}, baselines {version} approved by {}",
                    bundle.change, bundle.name, bundle.revision, bundle.baseline_approved_by
                ),
            },
            source: &bundle.asked_by,
            reason: &bundle.reason,
            ..common
        },
        Entry::Task(task) => Event {
            kind: "task",
            change: format!("{} {}", task.task_id, task.change),
            principal: Some(entity(task.agent.as_ref())),
            source: &task.asked_by,
            reason: &task.reason,
            state_version: Some(task.state_version),
            ..common
        },
        Entry::Review(review) => Event {
            kind: "review",
            change: format!("{} {} {}", review.review_id, review.requirement, review.change),
            principal: Some(entity(review.principal.as_ref())),
            action: Some(entity(review.action.as_ref())),
            resource: Some(entity(review.resource.as_ref())),
            source: &review.asked_by,
            reason: &review.reason,
            state_version: Some(review.state_version),
            ..common
        },
        Entry::Retention(retention) => Event {
            kind: "retention",
            change: format!("records before {} are let go of", retention.kept_from),
            ..common
        },
        Entry::Withheld(withheld) => Event {
            kind: "withheld",
            change: format!("nobody got the verdict of decision {}", withheld.decision_id),
            ..common
        },
        Entry::Stream(stream) => Event {
            kind: "stream",
            change: format!("{} {}", stream.stream_id, stream.change),
            source: &stream.receiver,
            reason: &stream.reason,
            ..common
        },
        Entry::Gap(gap) => Event { kind: "gap", change: format!("{} records lost", gap.lost), ..common },
        // What a candidate would have answered changes nothing.
        Entry::Shadow(_) => return None,
    })
}

fn hold_event<'a>(decided: &'a v1::DecisionRecord, common: Event<'a>) -> Event<'a> {
    let hold = decided.hold.as_ref();
    let before = hold.map_or("unknown", |hold| decision(hold.before()));
    let cause = hold.and_then(|hold| hold.cause.as_ref());
    Event {
        kind: "hold",
        change: format!("{before} -> {}", decision(decided.decision())),
        principal: Some(entity(decided.principal.as_ref())),
        action: Some(entity(decided.action.as_ref())),
        resource: Some(entity(decided.resource.as_ref())),
        session_id: &decided.session_id,
        decision: Some(decision(decided.decision())),
        enforcement_point: hold.map_or("", |hold| &hold.enforcement_point),
        hold_id: hold.map(|hold| hold.hold_id),
        cause: cause.map(cause_text),
        reason: decided.reasons.first().map_or("", |reason| &reason.message),
        state_version: cause.map(|cause| cause.state_version),
        ..common
    }
}

/// What a record tells, in a line; `None`: it is no change.
pub(super) fn told(record: &v1::Record, colour: bool) -> Option<String> {
    event(record).map(|event| line(&event, colour))
}

fn line(event: &Event<'_>, colour: bool) -> String {
    let mut text = format!("{}  ", event.time.as_deref().unwrap_or("-"));
    let paint = match event.decision {
        Some("allow") => "\u{1b}[32m",
        Some("step_up") => "\u{1b}[33m",
        Some(_) => "\u{1b}[31m",
        None if event.kind == "gap" => "\u{1b}[31m",
        None => "\u{1b}[36m",
    };
    let shown = format!("{:<8} {}", event.kind, printable(&event.change));
    if colour {
        // Writing into a string cannot fail.
        let _ = write!(text, "{paint}{shown}\u{1b}[0m");
    } else {
        text.push_str(&shown);
    }
    let parts = [event.principal.as_deref(), event.action.as_deref(), event.resource.as_deref()];
    for part in parts.into_iter().flatten() {
        let _ = write!(text, "  {}", printable(part));
    }
    if !event.session_id.is_empty() {
        let _ = write!(text, "  session {}", printable(event.session_id));
    }
    if let Some(hold_id) = event.hold_id {
        let _ = write!(text, "  {} #{hold_id}", printable(event.enforcement_point));
    }
    if let Some(cause) = &event.cause {
        let _ = write!(text, "  because {}", printable(cause));
    }
    for (word, value) in [("by", event.source), (":", event.reason)] {
        if !value.is_empty() {
            let _ = write!(text, "  {word} {}", printable(value));
        }
    }
    text
}

/// A cause in words: `session s revoked`.
pub(super) fn cause_text(cause: &v1::HoldCause) -> String {
    let kind = cause.kind().as_str_name().trim_start_matches("KIND_").to_ascii_lowercase();
    [kind.as_str(), &cause.name, &cause.change]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A decision as it is printed.
pub(super) fn decision(decision: v1::Decision) -> &'static str {
    match decision {
        v1::Decision::Allow => "allow",
        v1::Decision::StepUp => "step_up",
        v1::Decision::Deny => "deny",
        v1::Decision::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_back(name: &str) -> v1::Record {
        let entity = |id: &str| Some(v1::EntityRef { r#type: "T".to_owned(), id: id.to_owned() });
        let cause = v1::HoldCause {
            kind: v1::hold_cause::Kind::Session.into(),
            name: "s".to_owned(),
            change: "revoked".to_owned(),
            state_version: 7,
        };
        let hold = v1::HoldRecord {
            enforcement_point: name.to_owned(),
            hold_id: 3,
            cause: Some(cause),
            before: v1::Decision::Allow.into(),
        };
        let decision = v1::DecisionRecord {
            principal: entity("a"),
            action: entity("read"),
            resource: entity("d"),
            decision: v1::Decision::Deny.into(),
            hold: Some(hold),
            ..v1::DecisionRecord::default()
        };
        v1::Record { sequence: 1, time: None, entry: Some(Entry::Decision(decision)) }
    }

    #[test]
    fn an_allow_that_is_taken_back_is_one_line_with_its_cause() {
        let record = taken_back("gate");
        let event = event(&record).unwrap();
        let expected =
            r#"-  hold     allow -> deny  T::"a"  T::"read"  T::"d"  gate #3  because session s revoked"#;
        assert_eq!(line(&event, false), expected);
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!((&json["cause"], &json["state_version"]), (&"session s revoked".into(), &7.into()));
    }

    #[test]
    fn names_from_outside_cannot_move_the_cursor() {
        let record = taken_back("x\u{1b}[2J\r\n");
        let shown = line(&event(&record).unwrap(), false);
        assert!(!shown.contains(|character: char| character.is_control()), "{shown:?}");
    }

    #[test]
    fn names_from_outside_cannot_hide_or_reorder_what_stands_beside_them() {
        let shown = printable("pay \u{202e}nna\u{2066}\u{200b}\u{9b}2J\u{feff}");
        assert_eq!(shown, r"pay \u{202e}nna\u{2066}\u{200b}\u{9b}2J\u{feff}");
        assert_eq!(printable("Zoë → 日本 «é»"), "Zoë → 日本 «é»");
    }
}
