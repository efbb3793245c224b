//! `cardea monitor report`: one page for people from scored attempts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cardea_core::behavior::Kept;
use cardea_policy_store::approvals::BehaviorSettings;
use cardea_policy_store::settings::Settings;
use clap::Args;

use super::{Progress, ended};
use crate::cli::bundle;
use crate::cli::records::RecordArgs;
use crate::hidden::printable;
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

Of what nodes decided, with the bundle that says what its actions are:
  cardea monitor report --audit /var/lib/cardea/audit --bundle policies/ --out report.html

To see one agent, or one of its tasks, alone:
  cardea monitor report … --identity agent:office --task user_task_14 --out office-14.html")]
pub(in crate::cli) struct ReportArgs {
    /// What `cardea monitor score` printed, plain or gzip.
    #[arg(long, value_name = "FILE", requires_all = ["attempts", "baseline", "config"], conflicts_with_all = ["audit", "url"])]
    scored: Option<PathBuf>,
    /// The attempts that were scored, as JSON Lines, plain or gzip.
    #[arg(long, value_name = "FILE", requires = "scored")]
    attempts: Option<PathBuf>,
    /// The baselines that they were scored against.
    #[arg(long, value_name = "FILE", requires = "scored")]
    baseline: Option<PathBuf>,
    /// How attempts are read; see docs/monitoring.md.
    #[arg(long, value_name = "FILE", requires = "scored")]
    config: Option<PathBuf>,
    #[command(flatten)]
    records: RecordArgs,
    /// With --audit or --node: the bundle, a directory or packed, whose [behavior] and baselines the page goes by.
    #[arg(long, value_name = "PATH", conflicts_with = "scored")]
    bundle: Option<PathBuf>,
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
    let choice = Choice { identity: args.identity.clone(), task: args.task.clone() };
    if args.records.is_given() {
        return of_records(args, choice);
    }
    let (Some(scored), Some(attempts), Some(baseline), Some(config)) =
        (&args.scored, &args.attempts, &args.baseline, &args.config)
    else {
        let what = "name what to report of: --scored with --attempts, --baseline and --config, or --audit or --node with --bundle";
        return Err(Fault { place: "cardea monitor report".to_owned(), what: what.to_owned() });
    };
    let config = Config::read(config)?;
    let kept = read_kept(baseline)?;
    let mut report = Report::new(&config, &kept, choice);
    let mut progress = Progress::new("read");
    for pair in Pairs::new(Lines::open(scored)?, Attempts::open(attempts)?) {
        let (recorded, told) = pair?;
        report.note(&recorded, &told);
        progress.step();
    }
    progress.end();
    written(args, &report, attempts.display().to_string())
}

/// Of what nodes decided.
fn of_records(args: &ReportArgs, choice: Choice) -> Result<String, Fault> {
    let (config, kept) = match &args.bundle {
        Some(path) => of_bundle(path)?,
        None => (Config::default(), Kept::candidate()),
    };
    let mut report = Report::new(&config, &kept, choice);
    let mut progress = Progress::new("read");
    args.records.each(|record| {
        report.note_record(record);
        progress.step();
        Ok(())
    })?;
    progress.end();
    written(args, &report, args.records.place())
}

/// What a bundle says of its actions, and what it approves.
fn of_bundle(path: &Path) -> Result<(Config, Kept), Fault> {
    let unread = |what: String| Fault::of(path, format!("cannot be read: {what}"));
    let files = bundle::open(path).map_err(|faults| unread(faults.to_string()))?;
    let text = |name: &str| files.get(Path::new(name)).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let settings = text("bundle.toml").ok_or_else(|| unread("it has no bundle.toml".to_owned()))?;
    let settings: Settings = toml::from_str(settings).map_err(|error| unread(error.message().to_owned()))?;
    let kept = match text("baselines.json") {
        Some(text) => Kept::parse(text.as_bytes()).map_err(|why| unread(why.to_string()))?,
        None => Kept::candidate(),
    };
    let BehaviorSettings { classes, rules, .. } = settings.behavior;
    Ok((Config { classes, rules, ..Config::default() }, kept))
}

fn written(args: &ReportArgs, report: &Report<'_>, place: String) -> Result<String, Fault> {
    if report.attempts() == 0 {
        let chosen = args.identity.is_some() || args.task.is_some();
        let kind = if args.records.is_given() { "attempt that was compared" } else { "attempt" };
        let of = if chosen { " of this identity and task" } else { "" };
        return Err(Fault { place, what: format!("holds no {kind}{of}") });
    }
    whole::write(&args.out, report.page().as_bytes())?;
    Ok(format!("{}: {}", args.out.display(), printable(&report.summary())))
}
