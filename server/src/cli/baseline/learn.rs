//! `cardea baseline learn`: a candidate from recorded attempts, or from what nodes audited.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use cardea_core::behavior::Kept;
use cardea_core::behavior::promoted::Reviewed;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

use super::view::time;
use super::{could_not_run, tell};
use crate::cli::monitor::recorded;
use crate::cli::records::RecordArgs;
use crate::cli::{Format, exit};
use crate::hidden::printable;
use crate::monitor::audited::{AuditLearner, Choice, LeftOut};
use crate::monitor::config::{Config, Run};
use crate::monitor::{Fault, KeptFile, whole};
use crate::proving::words::Named;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea baseline learn --audit /var/lib/cardea/audit --identity 'Agent::\"new-bot\"' --out candidate.json
  cardea baseline learn --node http://127.0.0.1:7411 --for 8h --out candidate.json      all identities in observe mode, live
  cardea baseline learn --attempts approved.jsonl.gz --config monitor.toml --out candidate.json

From an audit, sessions are learned in which every attempt was allowed and none deviated; of observed identities ([behavior.observe])
novelty is no deviation. Attempts that a reviewer approved into the next baseline are taken up by themselves. The file is a candidate:
neither `cardea monitor score` nor a bundle takes it before `cardea baseline promote` made an approved file of it.

Read whole nodes, and all nodes of a service, in one go: what is wrong on one takes the session out on all.")]
pub(in crate::cli) struct LearnArgs {
    #[command(flatten)]
    records: RecordArgs,
    /// Approved runs as JSON Lines, plain or gzip, instead of an audit; - reads standard input.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "config", conflicts_with_all = ["audit", "url"])]
    attempts: Vec<PathBuf>,
    /// How recorded attempts are read; see docs/monitoring.md.
    #[arg(long, value_name = "FILE", requires = "attempts")]
    config: Option<PathBuf>,
    /// With --attempts: leave out what deviates from these baselines.
    #[arg(long, value_name = "FILE", requires = "attempts")]
    baseline: Option<PathBuf>,
    /// Whom to learn, as 'Type::"id"'; again for more. Unset: all that were observed.
    #[arg(long, value_name = "ENTITY", conflicts_with = "attempts")]
    identity: Vec<Named>,
    /// What one run is.
    #[arg(long, value_enum, default_value_t, conflicts_with = "attempts")]
    run: RunWord,
    /// Learn attempts from then on, as 2026-01-01T12:00:00Z; what was wrong before still takes its session out.
    #[arg(long, value_name = "TIME", conflicts_with = "attempts")]
    since: Option<Timestamp>,
    /// Where the candidate goes; replaced whole.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How it is told.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What one run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum RunWord {
    /// A session, in each of its tasks; without sessions all attempts of an identity.
    #[default]
    Session,
    /// An attempt: for identities that never end what they do.
    Attempt,
}

#[derive(Serialize)]
struct Told<'a> {
    out: String,
    baselines: usize,
    runs: u64,
    attempts: u64,
    from: Option<String>,
    until: Option<String>,
    left_out: Vec<LeftOutView>,
    left_out_attempts: u64,
    examples: Vec<ExampleView>,
    reviewed: &'a [Reviewed],
}

#[derive(Serialize)]
struct LeftOutView {
    why: &'static str,
    sessions: u64,
}

#[derive(Serialize)]
struct ExampleView {
    identity: String,
    session: String,
    why: &'static str,
}

pub(super) fn run(args: &LearnArgs) -> ExitCode {
    match learn(args) {
        Ok(()) => ExitCode::from(exit::FINE),
        Err(fault) => could_not_run(&fault),
    }
}

fn learn(args: &LearnArgs) -> Result<(), Fault> {
    let (kept, left_out) = match &args.config {
        Some(config) => {
            let config = Config::read(config)?;
            let older = args.baseline.as_deref().map(KeptFile::approved).transpose()?;
            let learned =
                recorded(&config, &args.attempts, Kept::candidate(), older.as_ref().map(|of| &of.kept))?;
            (learned.kept, LeftOut { attempts: learned.left_out, ..LeftOut::default() })
        }
        None => audited(args)?,
    };
    if kept.baselines.is_empty() {
        return Err(Fault { place: args.out.display().to_string(), what: nothing(args, &left_out) });
    }
    let bytes = kept.bytes().map_err(|error| Fault::of(&args.out, error.to_string()))?;
    whole::write(&args.out, &bytes)?;
    let told = told(args, &kept, &left_out);
    tell(args.format, &human(&told), &told)
}

fn audited(args: &LearnArgs) -> Result<(Kept, LeftOut), Fault> {
    if !args.records.is_given() {
        let what = "name what to learn from: --audit, --node, or --attempts with --config";
        return Err(Fault { place: "cardea baseline learn".to_owned(), what: what.to_owned() });
    }
    let mut learner = AuditLearner::new(Choice {
        identities: args.identity.iter().map(ToString::to_string).collect(),
        run: match args.run {
            RunWord::Session => Run::Session,
            RunWord::Attempt => Run::Attempt,
        },
        since_ms: args.since.map(Timestamp::as_millisecond),
    });
    let place = args.records.place();
    args.records.each(|record| {
        let noted = learner.note(record);
        noted.map_err(|why| Fault { place: place.clone(), what: why.to_string() })
    })?;
    Ok(learner.finish())
}

fn nothing(args: &LearnArgs, left_out: &LeftOut) -> String {
    let mut what = "nothing was learned, and nothing is written".to_owned();
    for (why, sessions) in &left_out.sessions {
        let _ = write!(what, "; {sessions} sessions {}", why.words());
    }
    if args.config.is_some() && left_out.attempts > 0 {
        let _ = write!(what, "; {} attempts deviate from the baselines", left_out.attempts);
    }
    if left_out.sessions.is_empty() && args.config.is_none() {
        what.push_str(
            "; attempts are recorded for learning where a policy reads what the bundle compares, and without --identity only those of \
             observed identities count",
        );
    }
    what
}

fn told<'a>(args: &LearnArgs, kept: &'a Kept, left_out: &LeftOut) -> Told<'a> {
    let all = || kept.baselines.values().flat_map(|tasks| tasks.values());
    Told {
        out: args.out.display().to_string(),
        baselines: all().count(),
        runs: all().map(|approved| u64::from(approved.runs)).sum(),
        attempts: kept.attempts,
        from: kept.learned.and_then(|learned| time(learned.from_ms)),
        until: kept.learned.and_then(|learned| time(learned.until_ms)),
        left_out: left_out
            .sessions
            .iter()
            .map(|(why, sessions)| LeftOutView { why: why.words(), sessions: *sessions })
            .collect(),
        left_out_attempts: left_out.attempts,
        examples: left_out
            .examples
            .iter()
            .map(|(identity, session, why)| ExampleView {
                identity: identity.clone(),
                session: session.clone(),
                why: why.words(),
            })
            .collect(),
        reviewed: &kept.reviewed,
    }
}

fn human(told: &Told<'_>) -> String {
    let Told { out, baselines, runs, attempts, left_out_attempts, .. } = told;
    let mut text =
        format!("{out}: a candidate, {baselines} baselines from {runs} runs, {attempts} attempts\n");
    for LeftOutView { why, sessions } in &told.left_out {
        let _ = writeln!(text, "left out: {sessions} sessions that {why}");
    }
    if *left_out_attempts > 0 {
        let _ = writeln!(text, "left out: {left_out_attempts} attempts");
    }
    for ExampleView { identity, session, why } in &told.examples {
        let session = if session.is_empty() { "attempts without a session" } else { session };
        let _ = writeln!(text, "  {} {}: {why}", printable(identity), printable(session));
    }
    text.push_str(&reviewed(told.reviewed));
    let _ =
        writeln!(text, "look at it with `cardea baseline show`, approve it with `cardea baseline promote`");
    text
}

/// What reviewers approved, one line each.
pub(super) fn reviewed(reviews: &[Reviewed]) -> String {
    const SHOWN_MAX: usize = 50;
    let line = |one: &Reviewed| {
        let task =
            if one.task.is_empty() { String::new() } else { format!(" in task {}", printable(&one.task)) };
        let (by, identity, action) = (printable(&one.by), printable(&one.identity), printable(&one.action));
        format!("approved in review by {by}: {action} of {identity}{task}\n")
    };
    let mut text: String = reviews.iter().take(SHOWN_MAX).map(line).collect();
    if let Some(more) = reviews.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
        let _ = writeln!(text, "… and {more} more reviews");
    }
    text
}
