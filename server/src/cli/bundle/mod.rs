//! `cardea bundle`: one file per command.

mod check;
mod diff;
mod matrix;
mod test;

use std::path::Path;
use std::process::ExitCode;

use cardea_policy_store::fault::Faults;
use cardea_policy_store::load::{self, Files};
use clap::Subcommand;

use super::drawn::drawn;
use super::exit;

#[derive(Debug, Subcommand)]
pub(super) enum BundleCommand {
    /// Validate a bundle strictly against its schema and say what is wrong, where, and what to do.
    ///
    /// Exit code 0: fine; 1: findings; 2: could not run.
    Check(check::CheckArgs),
    /// Play the bundle's scenarios (tests/**/*.yaml) and say what came out otherwise than expected.
    ///
    /// Also tells which policies the scenarios never saw satisfied, and never saw fail. Exit code 0: everything as
    /// expected; 1: findings, or no tests; 2: could not run.
    Test(test::TestArgs),
    /// Print the table of verdicts, principal × action × resource, or hold it to its snapshot file.
    ///
    /// Exit code 0: fine; 1: a cell differs from the snapshot; 2: could not run.
    Matrix(matrix::MatrixArgs),
    /// Say what changes between two bundles, in words and in verdicts, over the matrix and over recorded decisions.
    ///
    /// Exit code 0: fine; 1: something changes that --fail-on names; 2: could not run.
    Diff(diff::DiffArgs),
}

pub(super) fn run(command: &BundleCommand) -> ExitCode {
    match command {
        BundleCommand::Check(args) => check::run(args),
        BundleCommand::Test(args) => test::run(args),
        BundleCommand::Matrix(args) => matrix::run(args),
        BundleCommand::Diff(args) => diff::run(args),
    }
}

/// The files of a bundle in either form.
pub(super) fn open(path: &Path) -> Result<Files, Faults> {
    load::read_directory(path)
}

/// Says why a bundle cannot be used, and ends the command.
fn cannot_open(path: &Path, faults: &Faults) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "a command speaks on its standard streams")]
    for fault in faults.list() {
        eprint!("{}", drawn(fault));
    }
    #[expect(clippy::print_stderr, reason = "a command speaks on its standard streams")]
    {
        eprintln!("{}: {} faults; the bundle cannot be used", path.display(), faults.list().len());
    }
    ExitCode::from(exit::COULD_NOT_RUN)
}
