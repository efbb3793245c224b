//! `cardea bundle rollback`: back to the content of an earlier revision, under a new and higher one.
//!
//! With an old packed bundle it makes a new one, to be signed and published like any other.

use std::path::PathBuf;
use std::process::ExitCode;

use cardea_policy_store::load;
use cardea_policy_store::manifest::Manifest;
use cardea_policy_store::pack;
use clap::Args;

use super::build::{Built, Says, written};
use super::output::{End, end};
use crate::cli::Format;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea bundle rollback agents-6.cardea --revision 8 -o out/
  cardea bundle sign out/agents-8.cardea --key ci.key")]
pub(in crate::cli) struct RollbackArgs {
    /// The packed bundle to go back to.
    old: PathBuf,
    #[command(flatten)]
    says: Says,
    /// Where to write: a file, or a directory for NAME-REVISION.cardea in it.
    #[arg(short, long, value_name = "PATH", default_value = ".")]
    output: PathBuf,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &RollbackArgs) -> ExitCode {
    end(&rebuild(args).unwrap_or_else(|end| end), args.format, Built::human)
}

fn rebuild(args: &RollbackArgs) -> Result<End<Built>, End<Built>> {
    let packed = super::packed(&args.old).map_err(|fault| End::Failed(fault.to_string()))?;
    let old = packed.unpack().map_err(|error| End::Failed(format!("`{}`: {error}", args.old.display())))?;
    let before = old.manifest.revision;
    let revision = args.says.revision.filter(|revision| *revision > before).ok_or_else(|| {
        End::Failed(format!("give --revision, higher than any that nodes had since revision {before}"))
    })?;
    // What it was validated with may be another version than this one.
    load::files(&old.files)?;
    let manifest = pack::manifest_for(&old.manifest.name, revision, &old.files);
    let manifest = Manifest { rollback_of: Some(before), ..manifest };
    let manifest = args.says.manifest(manifest).map_err(End::Failed)?;
    written(&manifest, &old.files, &args.output)
}
