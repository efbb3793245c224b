//! `cardea bundle`: one file per command.

mod check;
mod fmt;
mod init;

use std::path::Path;
use std::process::ExitCode;

use cardea_policy_store::fault::Faults;
use cardea_policy_store::load::{self, Files};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum BundleCommand {
    /// Write a small working bundle with tests and a CI file.
    ///
    /// Exit code 0: written; 2: something is in the way.
    Init(init::InitArgs),
    /// Validate a bundle strictly and lint it: say what is wrong, where, and what to do.
    ///
    /// Exit code 0: fine; 1: findings; 2: could not run.
    Check(check::CheckArgs),
    /// Format the policies of a bundle.
    ///
    /// Exit code 0: done, or with --check nothing to do; 1: findings; 2: could not run.
    Fmt(fmt::FmtArgs),
}

pub(super) fn run(command: &BundleCommand) -> ExitCode {
    match command {
        BundleCommand::Init(args) => init::run(args),
        BundleCommand::Check(args) => check::run(args),
        BundleCommand::Fmt(args) => fmt::run(args),
    }
}

/// Opens a bundle in any form.
pub(super) fn open(path: &Path) -> Result<Files, Faults> {
    load::read_directory(path)
}
