//! `cardea monitor learn`: baselines from approved runs.

use std::path::PathBuf;
use std::process::ExitCode;

use cardea_core::behavior::promoted::Decided;
use cardea_core::behavior::{Kept, Promotion, Response};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::{Progress, ended};
use crate::monitor::attempts::Attempts;
use crate::monitor::config::Config;
use crate::monitor::learn::Learner;
use crate::monitor::score::Scorer;
use crate::monitor::whole;
use crate::monitor::{Fault, KeptFile, fresh_key};

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea monitor learn --attempts approved.jsonl.gz --config examples/monitoring/agentdojo.toml \\
      --out baseline.json --approved-by ann

Every attempt of the files counts as approved but those that policy denied. With --onto, attempts that deviate from the older
baselines are not learned from: approve them by learning from a file that holds them alone, without --onto.")]
pub(in crate::cli) struct LearnArgs {
    /// Approved runs as JSON Lines, plain or gzip; - reads standard input.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    attempts: Vec<PathBuf>,
    /// How attempts are read; see docs/monitoring.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the baselines go; replaced whole.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Who approved the runs; evidence names it.
    #[arg(long, value_name = "NAME", default_value = "nobody", value_parser = NonEmptyStringValueParser::new())]
    approved_by: String,
    /// Older baselines to add to.
    #[arg(long, value_name = "FILE")]
    onto: Option<PathBuf>,
    /// Drop what no approved run used for so many days before the newest attempt.
    #[arg(long, value_name = "DAYS")]
    expire_days: Option<u32>,
}

pub(super) fn run(args: &LearnArgs) -> ExitCode {
    ended(learn(args))
}

fn learn(args: &LearnArgs) -> Result<String, Fault> {
    let config = Config::read(&args.config)?;
    let onto = args.onto.as_deref().map(KeptFile::approved).transpose()?;
    let kept = onto.as_ref().map_or_else(|| Kept::new(&args.approved_by), |onto| onto.kept.clone());
    let older = onto.as_ref().map(|onto| &onto.kept);
    let Recorded { mut kept, left_out, newest_ms } = recorded(&config, &args.attempts, kept, older)?;
    let expired = args.expire_days.map_or(0, |days| expire(&mut kept, newest_ms, days));
    if let Some(before) = onto {
        // Of the newest attempt, so that the same runs give the same bytes.
        let decided = Decided { by: &args.approved_by, at_ms: newest_ms, reason: "" };
        let entry = Promotion { from: before.digest, ..Promotion::default() };
        kept.decide(&before.kept, entry, decided).map_err(|why| Fault::of(&args.out, why.to_string()))?;
    }
    let bytes = kept.bytes().map_err(|error| Fault::of(&args.out, error.to_string()))?;
    whole::write(&args.out, &bytes)?;
    let count = kept.baselines.values().map(std::collections::BTreeMap::len).sum::<usize>();
    Ok(format!(
        "{}: version {}, {count} baselines from {} attempts; {left_out} attempts left out because they deviate, {expired} names expired",
        args.out.display(),
        kept.version,
        kept.attempts
    ))
}

/// What was learned from recorded attempts.
pub(in crate::cli) struct Recorded {
    pub(in crate::cli) kept: Kept,
    /// Attempts that deviate.
    pub(in crate::cli) left_out: u64,
    /// When the newest attempt was, Unix milliseconds.
    newest_ms: i64,
}

/// Learns recorded attempts on top of `kept`, but for those that deviate from `older`.
pub(in crate::cli) fn recorded(
    config: &Config,
    attempts: &[PathBuf],
    kept: Kept,
    older: Option<&Kept>,
) -> Result<Recorded, Fault> {
    let mut older = match older {
        Some(older) => {
            let key = fresh_key()?;
            Some(Scorer::new(config, key.clone(), older.compile(&key, &config.rules), None))
        }
        None => None,
    };
    let mut learner = Learner::new(config, kept);
    let mut progress = Progress::new("learned");
    let mut newest_ms = i64::MIN;
    for file in attempts {
        for recorded in Attempts::open(file)? {
            let recorded = recorded?;
            newest_ms = newest_ms.max(recorded.ts.as_millisecond());
            let deviates = |older: &mut Scorer<'_>| older.deviation(&recorded).response != Response::Allow;
            if older.as_mut().is_some_and(deviates) {
                learner.leave_out();
            } else {
                learner.learn(&recorded);
            }
            progress.step();
        }
    }
    progress.end();
    let (kept, left_out) = learner.finish();
    Ok(Recorded { kept, left_out, newest_ms })
}

fn expire(kept: &mut Kept, newest_ms: i64, days: u32) -> usize {
    let before_ms = newest_ms.saturating_sub(i64::from(days).saturating_mul(24 * 3600 * 1000));
    kept.baselines
        .values_mut()
        .flat_map(|tasks| tasks.values_mut())
        .map(|approved| approved.expire(before_ms))
        .sum()
}
