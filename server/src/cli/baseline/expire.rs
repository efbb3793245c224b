//! `cardea baseline expire`: drops what was not used for long.

use std::path::PathBuf;
use std::process::ExitCode;

use cardea_core::behavior::Promotion;
use cardea_core::behavior::promoted::Decided;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::view::time;
use super::{could_not_run, tell};
use crate::cli::bundle::node::table;
use crate::cli::words::now_ms;
use crate::cli::{Format, exit};
use crate::monitor::{Fault, KeptFile, whole};

const DAY_MS: i64 = 24 * 3600 * 1000;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea baseline expire baseline.json --unused-days 90 --out baseline-2.json --approved-by ann

Drops actions, targets, transitions, references and networks that no approved run used in the last 90 days before the newest use in
the file, or before --as-of. Runs stay counted, so a mature baseline stays mature. The new file has the next version, and
names who decided it. What was dropped deviates from then on: see it with `cardea baseline diff`.")]
pub(in crate::cli) struct ExpireArgs {
    /// Baselines, from `cardea monitor learn`.
    file: PathBuf,
    /// Drop what was not used for more than so many days.
    #[arg(long, value_name = "DAYS")]
    unused_days: u32,
    /// Where the baselines go; replaced whole.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Who decides it; the file and evidence name it.
    #[arg(long, value_name = "NAME")]
    approved_by: String,
    /// The day to count back from, as 2026-01-01T12:00:00Z; without it the newest use in the file.
    #[arg(long, value_name = "TIME")]
    as_of: Option<Timestamp>,
    /// How it is told.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Expired {
    out: String,
    version: u32,
    approved_by: String,
    /// What was used before then went.
    before: Option<String>,
    dropped: usize,
    kept: usize,
    baselines: Vec<Dropped>,
}

/// How many names of a baseline went.
#[derive(Serialize)]
struct Dropped {
    identity: String,
    task: String,
    dropped: usize,
    kept: usize,
}

pub(super) fn run(args: &ExpireArgs) -> ExitCode {
    match expire(args).and_then(|expired| tell(args.format, &human(&expired), &expired)) {
        Ok(()) => ExitCode::from(exit::FINE),
        Err(fault) => could_not_run(&fault),
    }
}

fn expire(args: &ExpireArgs) -> Result<Expired, Fault> {
    let KeptFile { kept: before, digest } = KeptFile::approved(&args.file)?;
    let mut kept = before.clone();
    let all = kept.baselines.values().flat_map(|tasks| tasks.values());
    let newest_ms = all.filter_map(|approved| approved.last_used_ms()).max();
    let from_ms = args.as_of.map(Timestamp::as_millisecond).or(newest_ms);
    let from_ms = from_ms.ok_or_else(|| Fault::of(&args.file, "approves nothing, so nothing can expire"))?;
    let before_ms = from_ms.saturating_sub(i64::from(args.unused_days).saturating_mul(DAY_MS));
    let mut baselines = Vec::new();
    let mut left = 0;
    for (identity, tasks) in &mut kept.baselines {
        for (task, approved) in tasks {
            let dropped = approved.expire(before_ms);
            let kept = approved.entries();
            left += kept;
            if dropped > 0 {
                baselines.push(Dropped { identity: identity.clone(), task: task.clone(), dropped, kept });
            }
        }
    }
    let reason = format!("expired what was not used for {} days", args.unused_days);
    let decided = Decided { by: &args.approved_by, at_ms: now_ms(), reason: &reason };
    let entry = Promotion { from: digest, ..Promotion::default() };
    kept.decide(&before, entry, decided).map_err(|why| Fault::of(&args.out, why.to_string()))?;
    let bytes = kept.bytes().map_err(|error| Fault::of(&args.out, error.to_string()))?;
    whole::write(&args.out, &bytes)?;
    Ok(Expired {
        out: args.out.display().to_string(),
        version: kept.version,
        approved_by: kept.approved_by,
        before: time(before_ms),
        dropped: baselines.iter().map(|one| one.dropped).sum(),
        kept: left,
        baselines,
    })
}

fn human(expired: &Expired) -> String {
    let mut text = String::new();
    if !expired.baselines.is_empty() {
        let row = |one: &Dropped| {
            let task = if one.task.is_empty() { "-".to_owned() } else { one.task.clone() };
            vec![one.identity.clone(), task, one.dropped.to_string(), one.kept.to_string()]
        };
        let rows: Vec<_> = expired.baselines.iter().map(row).collect();
        text = table(&["IDENTITY", "TASK", "DROPPED", "KEPT"], &rows) + "\n";
    }
    let before = expired.before.as_deref().unwrap_or("ever");
    let Expired { out, version, dropped, kept, .. } = expired;
    text + &format!(
        "{out}: version {version}; {dropped} names not used since {before} dropped, {kept} kept\n"
    )
}
