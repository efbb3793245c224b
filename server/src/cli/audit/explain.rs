//! `cardea audit explain`: the whole story of one decision, from its record and from what followed.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use cardea_proto::v1::{self, record::Entry, value::Kind};
use clap::Args;

use super::{could_not_run, shown};
use crate::audit::stored::Stored;
use crate::cli::bundle::node::time;
use crate::cli::drawn::say;
use crate::cli::words::entity;
use crate::cli::{Format, exit};
use crate::hidden::printable;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea audit explain 019a3f6e-7f2c-7c1e-8a52-0d4f6f9f3a10 --audit .cardea/audit
  cardea audit explain 019a3f6e-7f2c-7c1e-8a52-0d4f6f9f3a10 --format json | jq .[0].decision.evidence")]
pub(in crate::cli) struct ExplainArgs {
    /// The decision's id, as the answer and the record have it.
    decision: String,
    /// Directories of logs, segments, or records as JSON Lines.
    #[arg(long, value_name = "PATH", default_value = "audit", num_args = 1..)]
    audit: Vec<PathBuf>,
    /// As text, or the records themselves as a list.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &ExplainArgs) -> ExitCode {
    let records = match Stored::open(&args.audit) {
        Ok(records) => records,
        Err(fault) => return could_not_run(fault),
    };
    let mut story: Vec<v1::Record> = Vec::new();
    for record in records {
        match record {
            Ok(record) if is_about(&record, &args.decision) => story.push(record),
            Ok(_) => {}
            Err(fault) => return could_not_run(fault),
        }
    }
    if story.is_empty() {
        say(&format!("no record of decision {} is here", printable(&args.decision)));
        return ExitCode::from(exit::FINDINGS);
    }
    match args.format {
        Format::Json => say(&serde_json::to_string_pretty(&story).unwrap_or_default()),
        Format::Human => story.iter().for_each(|record| say(told(record).trim_end())),
    }
    ExitCode::SUCCESS
}

/// Whether a record is the decision's, or of something that followed from it.
fn is_about(record: &v1::Record, id: &str) -> bool {
    match &record.entry {
        Some(Entry::Decision(decision)) => decision.decision_id == id,
        Some(Entry::Review(review)) => review.decision_id == id,
        Some(Entry::Shadow(shadow)) => shadow.decision_id == id,
        Some(Entry::Withheld(withheld)) => withheld.decision_id == id,
        Some(
            Entry::Signal(_)
            | Entry::Session(_)
            | Entry::Bundle(_)
            | Entry::Gap(_)
            | Entry::Task(_)
            | Entry::Stream(_)
            | Entry::Retention(_),
        )
        | None => false,
    }
}

fn told(record: &v1::Record) -> String {
    match &record.entry {
        Some(Entry::Decision(decision)) => decided(record, decision),
        _ => format!("\nthen\n{}", shown::line(record, false)),
    }
}

/// Writes a titled list, unless it is empty.
fn section(out: &mut String, title: &str, lines: impl IntoIterator<Item = String>) {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_none() {
        return;
    }
    let _infallible = writeln!(out, "\n{title}");
    for line in lines {
        let _infallible = writeln!(out, "  {}", printable(&line));
    }
}

fn decided(record: &v1::Record, decision: &v1::DecisionRecord) -> String {
    let mut out = String::new();
    let word = decision.decision().as_str_name().trim_start_matches("DECISION_").to_ascii_lowercase();
    let head = format!(
        "{}  {} {} {}",
        word,
        entity(decision.principal.as_ref()),
        entity(decision.action.as_ref()),
        entity(decision.resource.as_ref())
    );
    let at = time(record.time.as_ref()).unwrap_or_default();
    let _infallible = writeln!(out, "{}", printable(&head));
    let _infallible = writeln!(
        out,
        "  record {}, {at}, by door {}, decided in {} us",
        record.sequence,
        printable(&decision.door),
        decision.latency_ns / 1_000
    );
    if !decision.session_id.is_empty() {
        let _infallible = writeln!(out, "  session {}", printable(&decision.session_id));
    }
    section(&mut out, "on behalf of", decision.delegation.iter().map(|hop| entity(Some(hop))));
    section(
        &mut out,
        "why",
        decision.reasons.iter().map(|reason| {
            let code = reason.code().as_str_name().trim_start_matches("REASON_CODE_").to_ascii_lowercase();
            format!("{code}  {}", reason.message)
        }),
    );
    section(&mut out, "settled by", decision.determining_policies.clone());
    section(&mut out, "could not be evaluated", decision.policy_errors.clone());
    section(&mut out, "needs", decision.step_up.clone());
    section(&mut out, "obliges to", decision.obligations.clone());
    section(
        &mut out,
        "evidence",
        decision.evidence.iter().map(|one| {
            let value = one.value.as_ref().map(plain).unwrap_or_default();
            let why = if one.why.is_empty() { String::new() } else { format!("  ({})", one.why) };
            format!("{} = {value}{why}", one.fact)
        }),
    );
    rest(&mut out, decision);
    section(&mut out, "responses", decision.responses.clone());
    section(
        &mut out,
        "in dry run",
        decision.would_have.iter().map(|would| {
            let word = would.decision().as_str_name().trim_start_matches("DECISION_").to_ascii_lowercase();
            format!("{} would have said {word}", would.policy)
        }),
    );
    section(&mut out, "masked", decision.masked.clone());
    section(&mut out, "left out, since the record would have been too long", decision.left_out.clone());
    out
}

/// What it was decided from.
fn rest(out: &mut String, decision: &v1::DecisionRecord) {
    if let Some(replay) = &decision.replay {
        let sent = replay.request.iter().map(|(name, value)| format!("request.{name} = {}", plain(value)));
        let facts = replay
            .facts
            .iter()
            .map(|fact| format!("{} = {}", fact.fact, fact.value.as_ref().map(plain).unwrap_or_default()));
        section(out, "all that was read", sent.chain(facts));
    }
    if let Some(basis) = &decision.basis {
        let ages = basis.ages.iter().map(|age| format!("{} is {} s old", age.fact, age.age_ms / 1_000));
        let rests = [
            format!("bundle revision {} {}", basis.revision, basis.digest),
            format!("state version {}", basis.state_version),
        ];
        section(out, "rests on", rests.into_iter().chain(ages));
    }
    section(
        out,
        "each hop of the delegation",
        decision.hops.iter().map(|hop| {
            let word = hop.decision().as_str_name().trim_start_matches("DECISION_").to_ascii_lowercase();
            format!("{}  {word}  {}", entity(hop.principal.as_ref()), hop.determining_policies.join(", "))
        }),
    );
    section(
        out,
        "counters",
        decision.counters.iter().map(|of| {
            let warm = if of.warm { "" } else { ", not warm" };
            format!("{} at {}{warm}: {}", of.name, of.count, of.outcome)
        }),
    );
    if let Some(deviation) = &decision.deviation {
        let title = format!(
            "deviates: {} ({} of 100), compared with baseline {}",
            deviation.assessment, deviation.confidence, deviation.baseline
        );
        section(out, &printable(&title), deviation.evidence.clone());
    }
}

/// A value as policy writes it, more or less.
fn plain(value: &v1::Value) -> String {
    let list = |values: &[v1::Value]| values.iter().map(plain).collect::<Vec<_>>().join(", ");
    match &value.kind {
        Some(Kind::Bool(value)) => value.to_string(),
        Some(Kind::Long(value)) => value.to_string(),
        Some(Kind::String(text)) => format!("{text:?}"),
        Some(Kind::Entity(uid)) => entity(Some(uid)),
        Some(Kind::Set(set)) => format!("[{}]", list(&set.values)),
        Some(Kind::Record(record)) => {
            let fields: Vec<_> =
                record.fields.iter().map(|(name, value)| format!("{name}: {}", plain(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Some(Kind::Decimal(text)) => format!("decimal({text:?})"),
        Some(Kind::Ip(text)) => format!("ip({text:?})"),
        Some(Kind::Datetime(at)) => time(Some(at)).unwrap_or_default(),
        Some(Kind::Duration(span)) => {
            format!("{} ms", span.seconds.saturating_mul(1_000) + i64::from(span.nanos / 1_000_000))
        }
        None => "nothing".to_owned(),
    }
}
