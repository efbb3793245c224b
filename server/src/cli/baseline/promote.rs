//! `cardea baseline promote`: somebody approves a candidate.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use cardea_core::behavior::Kept;
use cardea_core::behavior::promoted::Decided;
use clap::Args;
use serde::Serialize;

use super::diff::{self, Difference};
use super::learn::reviewed;
use super::view::time;
use super::{could_not_run, tell};
use crate::cli::words::now_ms;
use crate::cli::{Format, exit};
use crate::monitor::{Fault, KeptFile, whole};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea baseline promote candidate.json --approved-by ann --out baselines.json
  cardea baseline promote candidate.json --onto baselines.json --approved-by ann --reason 'first month' --out next.json

Prints what is approved from now on and was not. The file says who approved it, when, why, and from which file and candidate, by their
digests. The same candidate is promoted once. Bring the file into a bundle with `cardea baseline import`.")]
pub(in crate::cli) struct PromoteArgs {
    /// The candidate, from `cardea baseline learn`.
    candidate: PathBuf,
    /// What is approved so far; unset: nothing.
    #[arg(long, value_name = "FILE")]
    onto: Option<PathBuf>,
    /// Who approves it; the file, its bundle's record and evidence name it.
    #[arg(long, value_name = "NAME")]
    approved_by: String,
    /// Why; goes into the file.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Where the approved file goes; replaced whole.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How it is told.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Promoted<'a> {
    out: String,
    version: u32,
    approved_by: &'a str,
    /// Until when an earlier candidate was learned, if this one begins before.
    overlaps_until: Option<String>,
    difference: Difference<'a>,
}

pub(super) fn run(args: &PromoteArgs) -> ExitCode {
    match promote(args) {
        Ok(()) => ExitCode::from(exit::FINE),
        Err(fault) => could_not_run(&fault),
    }
}

fn promote(args: &PromoteArgs) -> Result<(), Fault> {
    let candidate = KeptFile::read(&args.candidate)?;
    let onto = args.onto.as_deref().map(KeptFile::approved).transpose()?;
    let decided = Decided { by: &args.approved_by, at_ms: now_ms(), reason: &args.reason };
    let next = Kept::promoted(onto.as_ref().map(KeptFile::signed), candidate.signed(), decided)
        .map_err(|why| Fault::of(&args.candidate, why.to_string()))?;
    let bytes = next.bytes().map_err(|error| Fault::of(&args.out, error.to_string()))?;
    whole::write(&args.out, &bytes)?;
    let nothing = Kept::candidate();
    let before = onto.as_ref().map_or(&nothing, |onto| &onto.kept);
    let counted_ms = before.promotions.iter().map(|one| one.learned_until_ms).max().unwrap_or(0);
    let overlaps = candidate.kept.learned.is_some_and(|learned| learned.from_ms <= counted_ms);
    let promoted = Promoted {
        out: args.out.display().to_string(),
        version: next.version,
        approved_by: &next.approved_by,
        overlaps_until: overlaps.then(|| time(counted_ms)).flatten(),
        difference: diff::difference(before, &next),
    };
    let text = human(&promoted) + &reviewed(&candidate.kept.reviewed);
    tell(args.format, &text, &promoted)
}

fn human(promoted: &Promoted<'_>) -> String {
    let Promoted { out, version, approved_by, overlaps_until, difference } = promoted;
    let mut text = diff::human(difference);
    if let Some(until) = overlaps_until {
        let _ = writeln!(
            text,
            "note: runs before {until} may have been counted by an earlier promotion; learn with --since {until}"
        );
    }
    let _ = writeln!(text, "{out}: version {version}, approved by {approved_by}");
    text
}
