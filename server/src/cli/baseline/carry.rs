//! `cardea baseline import` and `export`: between a file of baselines and the bundle that carries it.
#![expect(clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cardea_core::behavior::Kept;
use cardea_policy_store::digest::Digest;
use cardea_policy_store::fault::Severity;
use cardea_policy_store::{lint, load};
use clap::Args;
use serde::Serialize;

use super::diff::{self, Difference};
use super::{could_not_run, tell};
use crate::cli::drawn::drawn;
use crate::cli::{Format, bundle, exit};
use crate::hidden::printable;
use crate::monitor::{Fault, KeptFile, whole};

/// The file in a bundle.
const NAME: &str = "baselines.json";

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea baseline import next.json --bundle policies/
  cardea bundle build policies/ -o office.cardea         packs and, with keys, signs policies and baselines together

Refused is a candidate that nobody promoted, a file that does not carry on what the bundle has (see `promotions` in it), and one that the
bundle could not serve with. Names that the schema does not have are warned of.")]
pub(in crate::cli) struct ImportArgs {
    /// An approved file, from `cardea baseline promote`.
    file: PathBuf,
    /// The directory of the bundle.
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
    /// Take the file although it does not carry on what the bundle has.
    #[arg(long)]
    replace: bool,
    /// How it is told.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea baseline export --bundle policies/ --out baselines.json
  cardea baseline export --bundle office.cardea --out baselines.json     of a packed bundle, such as one that `bundle pull` fetched")]
pub(in crate::cli) struct ExportArgs {
    /// The bundle: a directory, or packed.
    #[arg(long, value_name = "PATH")]
    bundle: PathBuf,
    /// Where the baselines go; replaced whole.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How it is told.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Imported<'a> {
    bundle: String,
    version: u32,
    approved_by: &'a str,
    difference: Difference<'a>,
}

#[derive(Serialize)]
struct Exported<'a> {
    out: String,
    version: u32,
    approved_by: &'a str,
    digest: &'a str,
}

/// What an import came to.
enum End {
    Done,
    Refused,
}

pub(super) fn import(args: &ImportArgs) -> ExitCode {
    match try_import(args) {
        Ok(End::Done) => ExitCode::from(exit::FINE),
        Ok(End::Refused) => ExitCode::from(exit::FINDINGS),
        Err(fault) => could_not_run(&fault),
    }
}

fn try_import(args: &ImportArgs) -> Result<End, Fault> {
    let next = KeptFile::approved(&args.file)?;
    let bytes = std::fs::read(&args.file)
        .map_err(|error| Fault::of(&args.file, format!("cannot be read: {error}")))?;
    if Digest::of(&bytes).to_string() != next.digest {
        return Err(Fault::of(&args.file, "changed while it was read; try again"));
    }
    if !args.bundle.is_dir() {
        return Err(Fault::of(&args.bundle, "is no directory of a bundle; build it again after the import"));
    }
    let mut files = load::read_directory(&args.bundle).map_err(|faults| first(&args.bundle, &faults))?;
    let nothing = Kept::candidate();
    let current = match files.get(Path::new(NAME)) {
        Some(current) => Some(parsed(&args.bundle, current)?),
        None => None,
    };
    let has = current.as_ref().map_or(&nothing, |current| &current.kept);
    if let Some(current) = &current
        && !args.replace
        && current.digest != next.digest
        && !next.kept.descends_from(&current.digest)
    {
        let (file, bundle) = (args.file.display(), args.bundle.display());
        let (version, by) = (current.kept.version, printable(&current.kept.approved_by));
        eprintln!("error: {file} does not carry on what {bundle} has: version {version}, approved by {by}");
        eprintln!("  help: promote onto that with `cardea baseline promote --onto`, or say --replace");
        return Ok(End::Refused);
    }
    files.insert(NAME.into(), bytes.clone());
    let report = lint::check(&files);
    for fault in
        report.findings.iter().filter(|one| one.severity == Severity::Error || one.file() == Path::new(NAME))
    {
        eprint!("{}", drawn(fault));
    }
    if report.errors > 0 {
        eprintln!("error: the bundle could not serve with it; nothing is changed");
        return Ok(End::Refused);
    }
    whole::write(&args.bundle.join(NAME), &bytes)?;
    let imported = Imported {
        bundle: args.bundle.display().to_string(),
        version: next.kept.version,
        approved_by: &next.kept.approved_by,
        difference: diff::difference(has, &next.kept),
    };
    let Imported { bundle, version, approved_by, .. } = &imported;
    let text = diff::human(&imported.difference)
        + &format!("{bundle}: baselines version {version}, approved by {}\n", printable(approved_by));
    tell(args.format, &text, &imported)?;
    Ok(End::Done)
}

pub(super) fn export(args: &ExportArgs) -> ExitCode {
    match try_export(args) {
        Ok(()) => ExitCode::from(exit::FINE),
        Err(fault) => could_not_run(&fault),
    }
}

fn try_export(args: &ExportArgs) -> Result<(), Fault> {
    let files = bundle::open(&args.bundle).map_err(|faults| first(&args.bundle, &faults))?;
    let bytes = files.get(Path::new(NAME));
    let bytes = bytes.ok_or_else(|| Fault::of(&args.bundle, format!("has no {NAME}")))?;
    let KeptFile { kept, digest } = parsed(&args.bundle, bytes)?;
    whole::write(&args.out, bytes)?;
    let exported = Exported {
        out: args.out.display().to_string(),
        version: kept.version,
        approved_by: &kept.approved_by,
        digest: &digest,
    };
    let Exported { out, version, approved_by, .. } = &exported;
    let text = format!("{out}: version {version}, approved by {}\n", printable(approved_by));
    tell(args.format, &text, &exported)
}

fn parsed(bundle: &Path, bytes: &[u8]) -> Result<KeptFile, Fault> {
    let kept = Kept::parse(bytes).map_err(|why| Fault::of(&bundle.join(NAME), why.to_string()))?;
    Ok(KeptFile { kept, digest: Digest::of(bytes).to_string() })
}

fn first(bundle: &Path, faults: &cardea_policy_store::fault::Faults) -> Fault {
    let what = faults.list().first().map_or_else(String::new, |fault| fault.message.clone());
    Fault::of(bundle, format!("cannot be read: {what}"))
}
