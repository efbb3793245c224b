//! `cardea bundle diff`: what a change of bundle does.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::audit::stored::Stored;
use crate::cli::bundle::{cannot_open, open};
use crate::cli::{Format, exit};
use crate::proving::diff::effects::{Direction, Effects};
use crate::proving::diff::replay::Replayed;
use crate::proving::diff::words::{Names, Policies, Words};
use crate::proving::diff::{self, Report, Side};
use crate::proving::matrix::Filters;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea bundle diff old/ new/                       what is written otherwise, and which verdicts change
  cardea bundle diff old/ new/ --fail-on widening    in CI: fail when anything opens that was closed
  cardea bundle diff old/ new/ --records audit/      also: judge recorded decisions again, under both

Records are judged again as they were judged then unless the node wrote them with `replayable = false` under [audit]. Those
are judged from their evidence, and those that do not come out again under OLD are counted and left out.")]
pub(in crate::cli) struct DiffArgs {
    /// The bundle as it is: its directory, or a packed file.
    old: PathBuf,
    /// The bundle as it would be.
    new: PathBuf,
    /// Directories or segments of an audit, or its records as JSON Lines, to judge the decisions in them again.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    records: Vec<PathBuf>,
    /// Which changed verdicts make the command fail.
    #[arg(long, value_enum, default_value_t)]
    fail_on: FailOn,
    /// Only cells of the matrix whose principal (`Type::"id"`) contains this text.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    principal: String,
    /// Only cells whose action contains this text.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    action: String,
    /// Only cells whose resource (`Type::"id"`) contains this text.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    resource: String,
    /// How the changes are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Which changed verdicts make the command fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Those that open more than before.
    Widening,
    /// All of them.
    Any,
    /// None: only tell.
    #[default]
    None,
}

pub(super) fn run(args: &DiffArgs) -> ExitCode {
    let side = |path: &Path| open(path).and_then(Side::new).map_err(|faults| cannot_open(path, &faults));
    let (old, new) = match (side(&args.old), side(&args.new)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(code), _) | (_, Err(code)) => return code,
    };
    let report = match report(args, &old, &new) {
        Ok(report) => report,
        Err(fault) => {
            eprintln!("error: {fault}");
            return ExitCode::from(exit::COULD_NOT_RUN);
        }
    };
    let (changed, widening) = report.changes();
    let fails = match args.fail_on {
        FailOn::Widening => widening > 0,
        FailOn::Any => changed > 0,
        FailOn::None => false,
    };
    match args.format {
        Format::Human => human(&report),
        Format::Json => match serde_json::to_string_pretty(&report) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("the report cannot be written: {error}"),
        },
    }
    if fails {
        eprintln!("error: {changed} verdicts change, {widening} of them open more than before");
    }
    ExitCode::from(if fails { exit::FINDINGS } else { exit::FINE })
}

fn report(args: &DiffArgs, old: &Side, new: &Side) -> Result<Report, String> {
    let filters = Filters {
        principal: args.principal.clone(),
        action: args.action.clone(),
        resource: args.resource.clone(),
    };
    let mut replayed = Replayed::default();
    for record in Stored::open(&args.records).map_err(|fault| fault.to_string())? {
        replayed.read(old, new, &record.map_err(|fault| fault.to_string())?);
    }
    Ok(Report {
        words: diff::words(old, new),
        matrix: diff::matrix(old, new, &filters)?,
        records: (!args.records.is_empty()).then(|| replayed.done()),
    })
}

fn human(report: &Report) {
    words(&report.words);
    println!("\nOver the matrix of both bundles:");
    effects(&report.matrix, "cells");
    let Some(records) = &report.records else { return };
    println!("\nOver recorded decisions:");
    let counts = [
        ("judged again from the request and all facts", records.from_facts),
        ("judged again from their evidence alone", records.from_evidence),
        ("denied before policy was asked; not judged again", records.before_policy),
        ("do not come out again under the old bundle; left out", records.not_reproducible),
        ("hide something, and do not come out again; left out", records.masked),
    ];
    println!("  {} decisions", records.decisions);
    for (what, count) in counts {
        println!("  {count:>8}  {what}");
    }
    let beside = [
        (
            records.with_unknown_facts,
            "decisions for which the new bundle reads facts that were never recorded: taken as unknown",
        ),
        (records.others, "records of other kinds"),
        (records.lost, "records were lost when they should have been written"),
        (records.unreadable, "records of kinds that this version does not know"),
    ];
    for (count, what) in beside.into_iter().filter(|(count, _)| *count > 0) {
        println!("  {count:>8}  {what}");
    }
    effects(&records.effects, "decisions");
}

pub(in crate::cli) fn effects(effects: &Effects, what: &str) {
    println!(
        "  {} {what} compared, {} verdicts change, {} of them open more than before",
        effects.compared, effects.changed, effects.widening
    );
    for group in &effects.groups {
        let sign = match group.direction {
            Direction::Widening => "OPENS ",
            Direction::Tightening => "closes",
        };
        println!(
            "  {sign}  {} -> {}  {}  ({})",
            group.old.verdict, group.new.verdict, group.action, group.count
        );
        println!("          old: {}", group.old.why());
        println!("          new: {}", group.new.why());
        if group.with_unknown_facts > 0 {
            println!("          {} of them with facts that were never recorded", group.with_unknown_facts);
        }
        for example in &group.examples {
            println!("          {example}");
        }
    }
    if effects.not_grouped > 0 {
        println!("  {} further changes are counted and not shown", effects.not_grouped);
    }
}

fn words(words: &Words) {
    if words.is_empty() {
        println!("Nothing is written otherwise.");
        return;
    }
    policies("policy", &words.policies);
    policies("template", &words.templates);
    for key in &words.settings {
        let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "(not written)".to_owned());
        println!("setting {}: {} -> {}", key.key, side(&key.old), side(&key.new));
    }
    names("entities", &words.entities);
    names("links", &words.links);
    for (what, lines) in [("schema", &words.schema), ("routes", &words.routes)] {
        if !lines.is_empty() {
            println!("{what}: changed");
            print_lines(lines);
        }
    }
}

fn policies(what: &str, policies: &Policies) {
    for id in &policies.added {
        println!("{what} {id}: added");
    }
    for id in &policies.removed {
        println!("{what} {id}: removed");
    }
    for changed in &policies.changed {
        println!("{what} {}: {} changed", changed.id, changed.parts.join(", "));
        print_lines(&changed.lines);
    }
}

fn print_lines(lines: &[String]) {
    for line in lines {
        println!("    {line}");
    }
}

fn names(what: &str, names: &Names) {
    let counts = names.counts;
    let total = counts.added + counts.removed + counts.changed;
    if total == 0 {
        return;
    }
    println!("{what}: {} added, {} removed, {} changed", counts.added, counts.removed, counts.changed);
    print_lines(&names.names);
    let more = total.saturating_sub(names.names.len());
    if more > 0 {
        println!("    and {more} more");
    }
}
