//! `cardea baseline show`: what a file approves.

use std::path::PathBuf;
use std::process::ExitCode;

use cardea_core::behavior::promoted::Reviewed;
use cardea_core::behavior::{Kept, Promotion, Rules};
use clap::Args;
use serde::Serialize;

use super::learn::reviewed;
use super::view::{BaselineView, summary, time};
use super::{could_not_run, tell};
use crate::cli::bundle::node::field;
use crate::cli::{Format, exit};
use crate::hidden::printable;
use crate::monitor::config::Config;
use crate::monitor::{Fault, KeptFile};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea baseline show baseline.json                     one line for each identity and task
  cardea baseline show baseline.json --identity agent:office --task user_task_14
                                                         everything that is approved there
  cardea baseline show baseline.json --format json       everything, for programs

RUNS and TASKS say how many approved runs and tasks used a name, LAST USED when one did for the last time.")]
pub(in crate::cli) struct ShowArgs {
    /// Baselines, or a candidate.
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
    /// Nobody approved it yet.
    candidate: bool,
    promotions: &'a [Promotion],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    reviewed: &'a [Reviewed],
    baselines: Vec<BaselineView<'a>>,
}

pub(super) fn run(args: &ShowArgs) -> ExitCode {
    match show(args) {
        Ok(()) => ExitCode::from(exit::FINE),
        Err(fault) => could_not_run(&fault),
    }
}

fn show(args: &ShowArgs) -> Result<(), Fault> {
    let kept = KeptFile::read(&args.file)?.kept;
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
    tell(
        args.format,
        &text,
        &Shown {
            version,
            approved_by,
            attempts,
            candidate: kept.is_candidate(),
            promotions: &kept.promotions,
            reviewed: &kept.reviewed,
            baselines,
        },
    )
}

fn human(kept: &Kept, baselines: &[BaselineView<'_>]) -> String {
    let mut text = String::new();
    field(&mut text, "version", &kept.version.to_string());
    let by = if kept.is_candidate() {
        "by nobody: it is a candidate"
    } else {
        &format!("by {}", printable(&kept.approved_by))
    };
    field(&mut text, "approved", by);
    field(&mut text, "learned", &format!("from {} attempts", kept.attempts));
    text.push_str(&history(kept));
    text.push_str(&reviewed(&kept.reviewed));
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

/// How it came to be, the newest first.
fn history(kept: &Kept) -> String {
    const SHOWN_MAX: usize = 5;
    let line = |one: &Promotion| {
        let (version, by) = (one.version, printable(&one.approved_by));
        let at = time(one.at_ms).unwrap_or_else(|| "-".to_owned());
        let why = if one.reason.is_empty() { String::new() } else { format!(": {}", printable(&one.reason)) };
        let reviewers = match one.reviewed_by.as_slice() {
            [] => String::new(),
            some => format!(", with reviews of {}", printable(&some.join(", "))),
        };
        format!("  version {version} by {by} at {at}, +{} -{}{reviewers}{why}\n", one.added, one.removed)
    };
    kept.promotions.iter().rev().take(SHOWN_MAX).map(line).collect()
}
