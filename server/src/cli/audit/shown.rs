//! A record in one line, for people.

use cardea_proto::v1::{self, record::Entry};

use crate::cli::bundle::node::time;
use crate::cli::watch;
use crate::cli::words::entity;
use crate::hidden::printable;

const GREEN: &str = "\u{1b}[32m";
const YELLOW: &str = "\u{1b}[33m";
const RED: &str = "\u{1b}[31m";
const END: &str = "\u{1b}[0m";

/// Number, time, and what happened. Names come from outside: what could move a cursor is shown as an escape.
pub(super) fn line(record: &v1::Record, colour: bool) -> String {
    let time = time(record.time.as_ref()).unwrap_or_default();
    let what = match &record.entry {
        Some(Entry::Decision(decision)) => decided(decision, colour),
        Some(Entry::Gap(gap)) => lost(gap),
        Some(Entry::Shadow(shadow)) => format!(
            "shadow  {} {} {}: a candidate would have said something else of decision {}",
            entity(shadow.principal.as_ref()),
            entity(shadow.action.as_ref()),
            entity(shadow.resource.as_ref()),
            printable(&shadow.decision_id)
        ),
        Some(_) => watch::told(record, colour).unwrap_or_default(),
        None => "a record of a kind that this version does not know".to_owned(),
    };
    if matches!(record.entry, Some(Entry::Decision(_) | Entry::Gap(_) | Entry::Shadow(_)) | None) {
        return format!("{:>8}  {time}  {what}", record.sequence);
    }
    format!("{:>8}  {what}", record.sequence)
}

fn decided(decision: &v1::DecisionRecord, colour: bool) -> String {
    let (word, paint) = match decision.decision() {
        v1::Decision::Allow => ("allow", GREEN),
        v1::Decision::StepUp => ("step_up", YELLOW),
        v1::Decision::Deny | v1::Decision::Unspecified => ("deny", RED),
    };
    let word = if colour { format!("{paint}{word:<7}{END}") } else { format!("{word:<7}") };
    let who = entity(decision.principal.as_ref());
    let (action, resource) = (entity(decision.action.as_ref()), entity(decision.resource.as_ref()));
    let mut line = format!("{word}  {}  {who} {action} {resource}", decision.door);
    let why: Vec<String> = decision
        .reasons
        .iter()
        .map(|reason| reason.code().as_str_name().trim_start_matches("REASON_CODE_").to_ascii_lowercase())
        .collect();
    for (name, parts) in [("because", &why), ("policy", &decision.determining_policies)] {
        if !parts.is_empty() {
            line.push_str(&format!("  {name} {}", printable(&parts.join(","))));
        }
    }
    line.push_str(&format!("  {}", decision.decision_id));
    line
}

fn lost(gap: &v1::GapRecord) -> String {
    match gap.cause() {
        v1::gap_record::Cause::UncleanStop => format!(
            "GAP  the process before this one was not stopped in order; at most {} records are gone",
            gap.lost_max
        ),
        v1::gap_record::Cause::TooLong => "GAP  a record was longer than one may be".to_owned(),
        v1::gap_record::Cause::QueueFull | v1::gap_record::Cause::Unspecified => {
            let classes = match (gap.lost_decisions, gap.lost_changes) {
                (0, 0) => String::new(),
                (decisions, changes) => format!(": {decisions} decisions, {changes} changes"),
            };
            format!("GAP  {} records are not here{classes}", gap.lost)
        }
    }
}
