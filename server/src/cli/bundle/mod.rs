//! `cardea bundle`: one file per command.

mod check;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum BundleCommand {
    /// Validate a bundle strictly against its schema and say what is wrong, where, and what to do.
    ///
    /// Exit code 0: fine; 1: findings; 2: could not run.
    Check(check::CheckArgs),
}

pub(super) fn run(command: &BundleCommand) -> ExitCode {
    match command {
        BundleCommand::Check(args) => check::run(args),
    }
}
