//! `cardea audit query` and `cardea audit tail`: records on disk, and as they are written.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use cardea_proto::v1::{self, record::Entry};
use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::output::{Form, Output};
use super::{could_not_run, shown};
use crate::audit::Filter;
use crate::audit::record::unix_ms;
use crate::audit::stored::Stored;
use crate::cli::bundle::node::{self, Failure, NodeArgs};
use crate::cli::drawn::say;
use crate::cli::{Format, exit};
use crate::proving::words::Named;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea audit query .cardea/audit --decision deny --since 2026-01-01T00:00:00Z
  cardea audit query .cardea/audit --principal 'Agent::\"a1\"' --format json | jq .decision.reasons
  cardea audit query .cardea/audit --id 019a3f6e-7f2c-7c1e-8a52-0d4f6f9f3a10
  cardea audit query .cardea/audit --format parquet --out audit.parquet
  duckdb -c \"SELECT decision, count(*) FROM 'audit.parquet' GROUP BY ALL\"
  cardea audit query .cardea/audit --decision deny --format csv > denied.csv

The columns of csv and parquet are in docs/audit.md.")]
pub(in crate::cli) struct QueryArgs {
    /// Directories of logs, segments, or records as JSON Lines.
    #[arg(default_value = "audit", num_args = 1..)]
    audit: Vec<PathBuf>,
    #[command(flatten)]
    wanted: Wanted,
    /// Only from this time on.
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// At most so many, the first ones.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// As what records are written.
    #[arg(long, value_enum, default_value_t)]
    format: Form,
    /// Write into this file instead of to standard output; it is there once it is whole, for its owner only.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea audit tail --node http://127.0.0.1:7411
  cardea audit tail --node http://127.0.0.1:7411 --from 1 --decision deny --format json")]
pub(in crate::cli) struct TailArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Begin with this record instead of with what happens from now on.
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    from: u64,
    /// Begin with the first record of this time instead.
    #[arg(long, value_name = "TIME", conflicts_with = "from")]
    since: Option<Timestamp>,
    #[command(flatten)]
    wanted: Wanted,
    /// How records are printed: a line of text, or one of JSON, for each.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Which records.
#[derive(Debug, Args)]
struct Wanted {
    /// Only decisions with this answer; again for another.
    #[arg(long, value_enum, value_name = "ANSWER")]
    decision: Vec<Answer>,
    /// Only records about this principal, `Type::"id"`.
    #[arg(long, value_name = "ENTITY", value_parser = entity)]
    principal: Option<v1::EntityRef>,
    /// Only decisions about the action with this id.
    #[arg(long, value_name = "ID")]
    action: Option<String>,
    /// Only decisions that came in by this door: grpc, ext_authz, hold, …
    #[arg(long, value_name = "DOOR")]
    door: Option<String>,
    /// Only decisions that this policy settled.
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,
    /// Only the decision with this id.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Only decisions of this severity, as `@severity` of their policy says; again for another.
    #[arg(long, value_name = "WORD")]
    severity: Vec<String>,
    /// Only what changed: no decisions but those that a hold was told because something changed.
    #[arg(long)]
    changes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Answer {
    /// The action may run.
    Allow,
    /// It may run once the requirements are met.
    #[value(name = "step_up")]
    StepUp,
    /// It must not run.
    Deny,
}

fn entity(text: &str) -> Result<v1::EntityRef, String> {
    let named: Named = text.parse().map_err(|_| "write an entity as Type::\"id\"".to_owned())?;
    Ok(v1::EntityRef { r#type: named.type_name, id: named.id })
}

impl Wanted {
    fn filter(&self) -> Filter {
        let on_wire = |answer: &Answer| match answer {
            Answer::Allow => v1::Decision::Allow,
            Answer::StepUp => v1::Decision::StepUp,
            Answer::Deny => v1::Decision::Deny,
        };
        Filter {
            decisions: self.decision.iter().map(on_wire).collect(),
            principal: self.principal.clone(),
            action: self.action.as_deref().map(Into::into),
            door: self.door.as_deref().map(Into::into),
            kinds: Vec::new(),
            changes: self.changes,
            severities: self.severity.iter().map(Into::into).collect(),
            since_ms: None,
        }
    }

    /// What the filter of the stream does not ask.
    fn fits(&self, record: &v1::Record) -> bool {
        let decision = match &record.entry {
            Some(Entry::Decision(decision)) => Some(decision),
            _ => None,
        };
        let has_policy = |policy: &String| {
            decision.is_some_and(|of| of.determining_policies.iter().any(|one| one == policy))
        };
        let has_id = |id: &String| decision.is_some_and(|of| of.decision_id == *id);
        self.policy.as_ref().is_none_or(has_policy) && self.id.as_ref().is_none_or(has_id)
    }
}

pub(super) fn run(args: &QueryArgs) -> ExitCode {
    let records = match Stored::open(&args.audit) {
        Ok(records) => records,
        Err(fault) => return could_not_run(fault),
    };
    let mut output = match Output::open(args.format, args.out.as_deref()) {
        Ok(output) => output,
        Err(fault) => return could_not_run(fault),
    };
    let filter = args.wanted.filter();
    let mut left = args.limit.unwrap_or(u64::MAX);
    let (mut is_any, mut written) = (false, 0_u64);
    for record in records {
        let record = match record {
            Ok(record) => record,
            Err(fault) => return could_not_run(fault),
        };
        let at = record.time.as_ref().map(unix_ms);
        let is_in = args.since.is_none_or(|since| at >= Some(since.as_millisecond()))
            && args.until.is_none_or(|until| at < Some(until.as_millisecond()));
        if !is_in || !filter.passes(&record) || !args.wanted.fits(&record) {
            continue;
        }
        is_any = true;
        if left == 0 {
            break;
        }
        match output.write(&record) {
            Ok(true) => (left, written) = (left - 1, written + 1),
            Ok(false) => break,
            Err(fault) => return could_not_run(fault),
        }
    }
    if let Err(fault) = output.finish() {
        return could_not_run(fault);
    }
    if let Some(path) = &args.out {
        say(&format!("{written} records in {}", path.display()));
    }
    if is_any { ExitCode::SUCCESS } else { ExitCode::from(exit::FINDINGS) }
}

pub(super) fn tail(args: &TailArgs) -> ExitCode {
    node::run(args.format, async {
        let Filter { decisions, principal, action, door, changes, severities, .. } = args.wanted.filter();
        let filter = v1::RecordFilter {
            decisions: decisions.into_iter().map(Into::into).collect(),
            principal,
            action: action.unwrap_or_default().into(),
            door: door.unwrap_or_default().into(),
            kinds: Vec::new(),
            changes,
            severities: severities.into_iter().map(Into::into).collect(),
        };
        let mut client = args.node.connect().await?;
        let mut records = match args.since {
            Some(since) => client.audit_since(since.into(), Some(filter)).await?,
            None => client.audit_from(args.from, Some(filter)).await?,
        };
        let mut printer = Printer::new(args.format);
        loop {
            let batch = tokio::select! {
                batch = records.receive() => batch?,
                _interrupted = tokio::signal::ctrl_c() => return Ok(true),
            };
            let Some(batch) = batch else {
                return Err(Failure::Here("the node ended the stream; it is stopping".to_owned()));
            };
            let mut fitting = batch.iter().filter(|record| args.wanted.fits(record));
            let printed =
                fitting.try_for_each(|record| printer.print(record)).and_then(|()| printer.out.flush());
            if printed.is_err() {
                // Whoever read it has seen enough.
                return Ok(true);
            }
        }
    })
}

/// Prints records, each in a line.
pub(super) struct Printer<W: io::Write> {
    pub(super) out: W,
    pub(super) format: Format,
    pub(super) colour: bool,
}

impl Printer<io::BufWriter<io::StdoutLock<'static>>> {
    fn new(format: Format) -> Self {
        let colour = is_coloured();
        Self { out: io::BufWriter::new(io::stdout().lock()), format, colour }
    }
}

/// Whether standard output shows colours, and they are wanted.
pub(super) fn is_coloured() -> bool {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !plain
}

impl<W: io::Write> Printer<W> {
    pub(super) fn print(&mut self, record: &v1::Record) -> io::Result<()> {
        match self.format {
            Format::Json => {
                serde_json::to_writer(&mut self.out, record)?;
                self.out.write_all(b"\n")
            }
            Format::Human => writeln!(self.out, "{}", shown::line(record, self.colour)),
        }
    }
}
