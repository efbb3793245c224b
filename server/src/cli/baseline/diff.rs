//! `cardea baseline diff`: what a newer file approves that an older one does not.
#![expect(clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use cardea_core::behavior::{Approved, Kept};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{could_not_run, tell};
use crate::cli::{Format, exit};
use crate::hidden::printable;
use crate::monitor::KeptFile;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea baseline diff old.json new.json                     + is approved now, - is not any more
  cardea baseline diff old.json new.json --fail-on widening  in CI: fail when anything more is approved

Either may be a candidate. Counts and times of use are not compared: they change with each run and approve nothing. `cardea baseline show` has them.")]
pub(in crate::cli) struct DiffArgs {
    /// The baselines as they are.
    old: PathBuf,
    /// The baselines as they would be.
    new: PathBuf,
    /// Which changes make the command fail.
    #[arg(long, value_enum, default_value_t)]
    fail_on: FailOn,
    /// How the changes are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Which changes make the command fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Those that approve more than before.
    Widening,
    /// All of them.
    Any,
    /// None: only tell.
    #[default]
    None,
}

#[derive(Serialize)]
pub(super) struct Difference<'a> {
    old: Side<'a>,
    new: Side<'a>,
    added: usize,
    removed: usize,
    changes: Vec<Change<'a>>,
}

#[derive(Serialize)]
struct Side<'a> {
    version: u32,
    approved_by: &'a str,
}

/// What changes for an identity in a task.
#[derive(Serialize)]
struct Change<'a> {
    identity: &'a str,
    /// Empty: what named no task.
    task: &'a str,
    old_runs: u32,
    new_runs: u32,
    added: Vec<String>,
    removed: Vec<String>,
}

pub(super) fn run(args: &DiffArgs) -> ExitCode {
    let (old, new) = match (KeptFile::read(&args.old), KeptFile::read(&args.new)) {
        (Ok(old), Ok(new)) => (old.kept, new.kept),
        (Err(fault), _) | (_, Err(fault)) => return could_not_run(&fault),
    };
    let difference = difference(&old, &new);
    if let Err(fault) = tell(args.format, &human(&difference), &difference) {
        return could_not_run(&fault);
    }
    let Difference { added, removed, .. } = difference;
    let fails = match args.fail_on {
        FailOn::Widening => added > 0,
        FailOn::Any => added + removed > 0,
        FailOn::None => false,
    };
    if fails {
        eprintln!("error: {added} names are approved that were not, {removed} are not any more");
    }
    ExitCode::from(if fails { exit::FINDINGS } else { exit::FINE })
}

/// What a newer file approves that an older one does not, and the other way round.
pub(super) fn difference<'a>(old: &'a Kept, new: &'a Kept) -> Difference<'a> {
    let (before, after) = (flat(old), flat(new));
    let nothing = Approved::default();
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
    let changes: Vec<Change<'a>> = keys
        .into_iter()
        .map(|key @ (identity, task)| {
            let (was, is) =
                (before.get(&key).copied().unwrap_or(&nothing), after.get(&key).copied().unwrap_or(&nothing));
            let lines = was.diff(is);
            let with =
                |sign| lines.iter().filter_map(|line| line.strip_prefix(sign)).map(str::to_owned).collect();
            Change {
                identity,
                task,
                old_runs: was.runs,
                new_runs: is.runs,
                added: with("+ "),
                removed: with("- "),
            }
        })
        .filter(|change| !change.added.is_empty() || !change.removed.is_empty())
        .collect();
    let side = |kept: &'a Kept| Side { version: kept.version, approved_by: &kept.approved_by };
    Difference {
        old: side(old),
        new: side(new),
        added: changes.iter().map(|change| change.added.len()).sum(),
        removed: changes.iter().map(|change| change.removed.len()).sum(),
        changes,
    }
}

fn flat(kept: &Kept) -> BTreeMap<(&str, &str), &Approved> {
    let all = kept.baselines.iter();
    all.flat_map(|(identity, tasks)| {
        tasks.iter().map(move |(task, approved)| ((identity.as_str(), task.as_str()), approved))
    })
    .collect()
}

/// The same for people.
pub(super) fn human(difference: &Difference<'_>) -> String {
    let side = |side: &Side<'_>| match side.approved_by {
        "" if side.version == 0 => "not approved".to_owned(),
        by => format!("version {} (approved by {})", side.version, printable(by)),
    };
    let mut text = format!("{} -> {}\n", side(&difference.old), side(&difference.new));
    if difference.changes.is_empty() {
        text.push_str("Both approve the same.\n");
        return text;
    }
    for Change { identity, task, old_runs, new_runs, added, removed } in &difference.changes {
        let task = if task.is_empty() { String::new() } else { format!(", task {}", printable(task)) };
        text.push_str(&format!("\n{}{task}  ({old_runs} -> {new_runs} runs)\n", printable(identity)));
        let lines = removed.iter().map(|line| ('-', line)).chain(added.iter().map(|line| ('+', line)));
        for (sign, line) in lines {
            text.push_str(&format!("  {sign} {}\n", printable(line)));
        }
    }
    text.push_str(&format!("\n{} added, {} removed\n", difference.added, difference.removed));
    text
}
