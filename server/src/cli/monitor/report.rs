//! `cardea monitor report`: one page for people from scored attempts.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Progress, ended};
use crate::cli::watch::printable;
use crate::monitor::attempts::Attempts;
use crate::monitor::config::Config;
use crate::monitor::lines::Lines;
use crate::monitor::read_kept;
use crate::monitor::report::{Choice, Pairs, Report};
use crate::monitor::{Fault, whole};

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea monitor score  --attempts new.jsonl.gz --config monitor.toml --baseline baseline.json > scored.jsonl
  cardea monitor report --attempts new.jsonl.gz --config monitor.toml --baseline baseline.json \\
      --scored scored.jsonl --out report.html

Give the same attempts, configuration and baselines that `score` was given; line N of both files is the same attempt. The page
needs nothing but a browser: it fetches nothing and runs nothing. It shows incidents over time, by identity and by kind of action,
which action came after which, and the evidence of each case. It names people and accounts: keep it as you keep audit records.

To see one agent, or one of its tasks, alone:
  cardea monitor report … --identity agent:office --task user_task_14 --out office-14.html")]
pub(in crate::cli) struct ReportArgs {
    /// What `cardea monitor score` printed, plain or gzip.
    #[arg(long, value_name = "FILE")]
    scored: PathBuf,
    /// The attempts that were scored, as JSON Lines, plain or gzip.
    #[arg(long, value_name = "FILE")]
    attempts: PathBuf,
    /// The baselines that they were scored against.
    #[arg(long, value_name = "FILE")]
    baseline: PathBuf,
    /// How attempts are read; see docs/monitoring.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the page goes; replaced whole.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Only attempts of this identity.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Only attempts in this task.
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
}

pub(super) fn run(args: &ReportArgs) -> ExitCode {
    ended(report(args))
}

fn report(args: &ReportArgs) -> Result<String, Fault> {
    let config = Config::read(&args.config)?;
    let kept = read_kept(&args.baseline)?;
    let choice = Choice { identity: args.identity.clone(), task: args.task.clone() };
    let mut report = Report::new(&config, &kept, choice);
    let mut progress = Progress::new("read");
    let attempts = Attempts::open(&args.attempts)?;
    for pair in Pairs::new(Lines::open(&args.scored)?, attempts) {
        let (recorded, told) = pair?;
        report.note(&recorded, &told);
        progress.step();
    }
    progress.end();
    if report.attempts() == 0 {
        let chosen = args.identity.is_some() || args.task.is_some();
        let what = if chosen { "holds no attempt of this identity and task" } else { "holds no attempt" };
        return Err(Fault::of(&args.attempts, what));
    }
    whole::write(&args.out, report.page().as_bytes())?;
    Ok(format!("{}: {}", args.out.display(), printable(&report.summary())))
}
