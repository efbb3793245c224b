//! `cardea replay`: recorded decisions judged again.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::bundle::diff::effects;
use super::bundle::{cannot_open, open, packed};
use super::{Format, exit};
use crate::audit::stored::Stored;
use crate::proving::diff::Side;
use crate::proving::diff::replay::Replayed;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea replay --records .cardea/audit --bundle policies/       what the bundle would have answered otherwise
  cardea replay --records .cardea/audit --bundle policies-7.cardea every decision of this bundle comes out again as it was
  cardea replay --records .cardea/audit --bundle policies/ --same the same, where the node serves the directory itself

Records are judged as they were judged then unless the node wrote them with `replayable = false` under [audit]. Those are judged from their
evidence; what they do not hold is taken as unknown.")]
pub(super) struct ReplayArgs {
    /// Directories or segments of audits, or records as JSON Lines.
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    records: Vec<PathBuf>,
    /// The bundle: its directory, or a packed file.
    #[arg(long, value_name = "PATH")]
    bundle: PathBuf,
    /// The bundle is the one that judged them all. A packed bundle is known by its digest; a directory gets its digest from the node.
    #[arg(long)]
    same: bool,
    /// How the outcome is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &ReplayArgs) -> ExitCode {
    let side = match open(&args.bundle).and_then(Side::new) {
        Ok(side) => side,
        Err(faults) => return cannot_open(&args.bundle, &faults),
    };
    let replayed = match read(args, &side) {
        Ok(replayed) => replayed,
        Err(fault) => {
            eprintln!("error: {fault}");
            return ExitCode::from(exit::COULD_NOT_RUN);
        }
    };
    match args.format {
        Format::Human => human(&replayed),
        Format::Json => match serde_json::to_string_pretty(&replayed) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("the outcome cannot be written: {error}"),
        },
    }
    if replayed.not_reproducible > 0 {
        eprintln!("error: {} decisions of this very bundle come out otherwise", replayed.not_reproducible);
        return ExitCode::from(exit::FINDINGS);
    }
    ExitCode::SUCCESS
}

fn read(args: &ReplayArgs, side: &Side) -> Result<Replayed, String> {
    let mut replayed = Replayed::default();
    let own =
        args.bundle.is_file().then(|| packed(&args.bundle)).transpose().map_err(|fault| fault.to_string())?;
    let own = own.map(|packed| packed.digest().to_string());
    let is_by_this = |digest: &str| args.same || own.as_deref() == Some(digest);
    for record in Stored::open(&args.records).map_err(|fault| fault.to_string())? {
        replayed.read_beside(side, &is_by_this, &record.map_err(|fault| fault.to_string())?);
    }
    Ok(replayed.done())
}

fn human(replayed: &Replayed) {
    println!("{} decisions", replayed.decisions);
    let counts = [
        (replayed.from_facts, "judged again from the request and all facts"),
        (replayed.from_evidence, "judged again from their evidence alone"),
        (replayed.reproduced, "of this very bundle, as they were"),
        (replayed.not_reproducible, "of this very bundle, OTHERWISE"),
        (replayed.masked, "of this very bundle, otherwise since their records hide something"),
        (replayed.before_policy, "denied before policy was asked; not judged again"),
        (
            replayed.with_unknown_facts,
            "for which the bundle reads facts that were never recorded: taken as unknown",
        ),
        (replayed.others, "records of other kinds"),
        (replayed.lost, "records were lost when they should have been written"),
        (replayed.unreadable, "records of kinds that this version does not know"),
    ];
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        println!("  {count:>8}  {what}");
    }
    effects(&replayed.effects, "decisions");
}
