//! `cardea bundle`: one file per command.

mod activate;
mod build;
mod check;
pub(in crate::cli) mod diff;
mod fmt;
mod init;
mod inspect;
mod keygen;
mod list;
mod matrix;
mod network;
pub(in crate::cli) mod node;
mod output;
mod promote;
mod pull;
mod push;
mod rollback;
mod shadow;
mod sign;
mod test;
mod verify;

use std::path::Path;
use std::process::ExitCode;

use cardea_policy_store::fault::{Fault, Faults};
use cardea_policy_store::load::{self, Files};
use cardea_policy_store::pack::{PACKED_BYTES_MAX, Packed};
use clap::Subcommand;

use crate::cli::drawn::drawn;
use crate::cli::exit;

#[derive(Debug, Subcommand)]
pub(super) enum BundleCommand {
    /// Start a small working bundle, with tests and a pipeline.
    ///
    /// Exit code 0: done; 2: could not run.
    Init(init::InitArgs),
    /// Validate a bundle strictly, and find what it surely does not mean: the place, the fault, and what to do.
    ///
    /// Exit code 0: fine; 1: findings; 2: could not run.
    Check(check::CheckArgs),
    /// Format the policies of a bundle.
    ///
    /// Exit code 0: done, or with --check nothing to do; 1: findings; 2: could not run.
    Fmt(fmt::FmtArgs),
    /// Play the scenarios of a bundle and compare the verdicts with what they expect.
    ///
    /// Exit code 0: all as expected; 1: findings; 2: could not run.
    Test(test::TestArgs),
    /// Print the verdict for every principal, action and resource, as a snapshot that a review can read.
    ///
    /// Exit code 0: fine; 1: cells changed; 2: could not run.
    Matrix(matrix::MatrixArgs),
    /// Tell what changes between two bundles, in words and in verdicts.
    ///
    /// Exit code 0: fine; 1: a change that --fail-on names; 2: could not run.
    Diff(diff::DiffArgs),
    /// Pack a bundle's directory into one file that can be signed.
    ///
    /// The same directory gives the same bytes on every machine and every day, so anybody can build it again and compare.
    /// Exit code 0: built; 1: the bundle has faults; 2: could not run.
    Build(build::BuildArgs),
    /// Make a key that signs bundles, and the entry for trust.toml that trusts it.
    ///
    /// Exit code 0: made; 2: could not run.
    Keygen(keygen::KeygenArgs),
    /// Prove a packed bundle and sign it with the evidence.
    ///
    /// Exit code 0: signed; 1: the evidence is not good enough to sign; 2: could not run.
    Sign(sign::SignArgs),
    /// Verify a packed bundle as a node would: signature, evidence, times, content.
    ///
    /// Exit code 0: it may serve; 1: it may not; 2: could not run.
    Verify(verify::VerifyArgs),
    /// Show what a packed bundle holds: its manifest, its files, its signature. Believes and verifies nothing.
    ///
    /// Exit code 0: shown; 1: it is no packed bundle; 2: could not run.
    Inspect(inspect::InspectArgs),
    /// Publish a packed bundle to an OCI registry or an HTTPS server.
    ///
    /// Exit code 0: published; 2: could not run.
    Push(push::PushArgs),
    /// Fetch a packed bundle from an OCI registry or an HTTPS server. Believes nothing: verify it next.
    ///
    /// Exit code 0: fetched; 2: could not run.
    Pull(pull::PullArgs),
    /// List the revisions that a running node has.
    ///
    /// Exit code 0: listed; 2: could not run.
    List(list::ListArgs),
    /// Put a revision from a running node's store in force.
    ///
    /// Exit code 0: it is in force; 1: the node refused; 2: could not run.
    Activate(activate::ActivateArgs),
    /// Evaluate a candidate beside the bundle in force of a running node, on live attempts.
    #[command(subcommand)]
    Shadow(shadow::ShadowCommand),
    /// Put the candidate of the shadow in force.
    ///
    /// Exit code 0: it is in force; 1: the node refused; 2: could not run.
    Promote(promote::PromoteArgs),
    /// Go back to the content of an earlier revision, under a new and higher one.
    ///
    /// With a packed bundle it makes a new one to sign and publish; with --node a running node goes back by itself.
    /// Exit code 0: done; 1: refused; 2: could not run.
    Rollback(rollback::RollbackArgs),
}

pub(super) fn run(command: &BundleCommand) -> ExitCode {
    match command {
        BundleCommand::Init(args) => init::run(args),
        BundleCommand::Check(args) => check::run(args),
        BundleCommand::Fmt(args) => fmt::run(args),
        BundleCommand::Test(args) => test::run(args),
        BundleCommand::Matrix(args) => matrix::run(args),
        BundleCommand::Diff(args) => diff::run(args),
        BundleCommand::Build(args) => build::run(args),
        BundleCommand::Keygen(args) => keygen::run(args),
        BundleCommand::Sign(args) => sign::run(args),
        BundleCommand::Verify(args) => verify::run(args),
        BundleCommand::Inspect(args) => inspect::run(args),
        BundleCommand::Push(args) => push::run(args),
        BundleCommand::Pull(args) => pull::run(args),
        BundleCommand::List(args) => list::run(args),
        BundleCommand::Activate(args) => activate::run(args),
        BundleCommand::Shadow(args) => shadow::run(args),
        BundleCommand::Promote(args) => promote::run(args),
        BundleCommand::Rollback(args) => rollback::run(args),
    }
}

/// Reads a bundle in either form, without asking who signed it.
pub(in crate::cli) fn open(path: &Path) -> Result<Files, Faults> {
    if !path.is_file() {
        return load::read_directory(path);
    }
    let unpacked = packed(path)?.unpack().map_err(|error| Fault::new(path, error.to_string()))?;
    Ok(unpacked.files)
}

/// Says why a bundle cannot be used, and ends the command.
#[expect(clippy::print_stderr, reason = "a command speaks on its standard streams")]
pub(in crate::cli) fn cannot_open(path: &Path, faults: &Faults) -> ExitCode {
    for fault in faults.list() {
        eprint!("{}", drawn(fault));
    }
    eprintln!("{}: {} faults; the bundle cannot be used", path.display(), faults.list().len());
    ExitCode::from(exit::COULD_NOT_RUN)
}

/// Reads a packed bundle, without unpacking it.
pub(in crate::cli) fn packed(path: &Path) -> Result<Packed, Fault> {
    let unreadable = |error: std::io::Error| {
        Fault::new(path, format!("cannot be read: {error}"))
            .help("name a packed bundle; `cardea bundle build` makes one of a directory")
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > PACKED_BYTES_MAX as u64 {
        return Err(Fault::new(path, format!("has {size} bytes, too many for a packed bundle")));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    Packed::from_bytes(bytes).map_err(|error| Fault::new(path, error.to_string()))
}
