//! `cardea baseline show`: what a file approves.

use std::path::PathBuf;
use std::process::ExitCode;

use cardea_core::behavior::{Kept, Rules};
use clap::Args;
use serde::Serialize;

use super::view::{BaselineView, summary};
use super::{could_not_run, tell};
use crate::cli::bundle::node::field;
use crate::cli::{Format, exit};
use crate::monitor::Fault;
use crate::monitor::config::Config;
use crate::monitor::read_kept;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea baseline show baseline.json                     one line for each identity and task
  cardea baseline show baseline.json --identity agent:office --task user_task_14
                                                         everything that is approved there
  cardea baseline show baseline.json --format json       everything, for programs

RUNS and TASKS say how many approved runs and tasks used a name, LAST USED when one did for the last time.")]
pub(in crate::cli) struct ShowArgs {
    /// Baselines, from `cardea monitor learn`.
    file: PathBuf,
    /// Only of this identity.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Only of this task; '' for what named none.
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Whose rules say what is mature; without it a baseline is from eight runs on.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Shown<'a> {
    version: u32,
    approved_by: &'a str,
    attempts: u64,
    baselines: Vec<BaselineView<'a>>,
}

pub(super) fn run(args: &ShowArgs) -> ExitCode {
    match show(args) {
        Ok(()) => ExitCode::from(exit::FINE),
        Err(fault) => could_not_run(&fault),
    }
}

fn show(args: &ShowArgs) -> Result<(), Fault> {
    let kept = read_kept(&args.file)?;
    let rules = match &args.config {
        Some(path) => Config::read(path)?.rules,
        None => Rules::default(),
    };
    let baselines: Vec<_> = kept
        .baselines
        .iter()
        .filter(|(identity, _)| args.identity.as_ref().is_none_or(|only| only == *identity))
        .flat_map(|(identity, tasks)| tasks.iter().map(move |(task, approved)| (identity, task, approved)))
        .filter(|(_, task, _)| args.task.as_ref().is_none_or(|only| only == *task))
        .map(|(identity, task, approved)| BaselineView::new(identity, task, approved, &rules))
        .collect();
    if baselines.is_empty() {
        return Err(Fault::of(&args.file, "holds no baseline of this identity and task"));
    }
    let text = human(&kept, &baselines);
    let (version, approved_by, attempts) = (kept.version, kept.approved_by.as_str(), kept.attempts);
    tell(args.format, &text, &Shown { version, approved_by, attempts, baselines })
}

fn human(kept: &Kept, baselines: &[BaselineView<'_>]) -> String {
    let mut text = String::new();
    field(&mut text, "version", &kept.version.to_string());
    field(&mut text, "approved", &format!("by {}", kept.approved_by));
    field(&mut text, "learned", &format!("from {} attempts", kept.attempts));
    text.push('\n');
    text.push_str(&summary(baselines));
    if let [one] = baselines {
        text.push_str(&one.details());
    }
    let left_out: u64 = baselines.iter().map(|one| one.left_out).sum();
    if left_out > 0 {
        text.push_str(&format!("\n{left_out} names were left out because of limits; they deviate\n"));
    }
    text
}
