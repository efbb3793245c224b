//! `cardea monitor learn`: baselines from approved runs.

use std::path::PathBuf;
use std::process::ExitCode;

use cardea_core::behavior::{Kept, Response};
use clap::Args;

use super::{Progress, ended};
use crate::monitor::attempts::Attempts;
use crate::monitor::config::Config;
use crate::monitor::learn::Learner;
use crate::monitor::score::Scorer;
use crate::monitor::whole;
use crate::monitor::{Fault, fresh_key, read_kept};

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
    #[arg(long, value_name = "NAME", default_value = "nobody")]
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
    let (kept, mut older) = match &args.onto {
        Some(path) => {
            let mut kept = read_kept(path)?;
            let key = fresh_key()?;
            let older = Scorer::new(&config, key.clone(), kept.compile(&key, &config.rules), None);
            kept.version = kept.version.saturating_add(1);
            kept.approved_by.clone_from(&args.approved_by);
            (kept, Some(older))
        }
        None => (Kept::new(&args.approved_by), None),
    };
    let mut learner = Learner::new(&config, kept);
    let mut progress = Progress::new("learned");
    let mut newest_ms = i64::MIN;
    for file in &args.attempts {
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
    let (mut kept, left_out) = learner.finish();
    let expired = args.expire_days.map_or(0, |days| expire(&mut kept, newest_ms, days));
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

fn expire(kept: &mut Kept, newest_ms: i64, days: u32) -> usize {
    let before_ms = newest_ms.saturating_sub(i64::from(days).saturating_mul(24 * 3600 * 1000));
    kept.baselines
        .values_mut()
        .flat_map(|tasks| tasks.values_mut())
        .map(|approved| approved.expire(before_ms))
        .sum()
}
