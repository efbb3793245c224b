//! `cardea bundle`: one file per command.

mod check;
mod network;
mod pull;
mod push;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum BundleCommand {
    /// Validate a bundle strictly against its schema and say what is wrong, where, and what to do.
    ///
    /// Exit code 0: fine; 1: findings; 2: could not run.
    Check(check::CheckArgs),
    /// Store a packed bundle in an OCI registry or on an HTTPS server.
    ///
    /// Prints the address that names exactly this content. Exit code 0: stored; 2: could not run.
    Push(push::PushArgs),
    /// Fetch a packed bundle from an OCI registry or an HTTPS server.
    ///
    /// The digests of a registry are verified, signatures are not: `cardea bundle verify` does that. Exit code 0:
    /// fetched; 2: could not run.
    Pull(pull::PullArgs),
}

pub(super) fn run(command: &BundleCommand) -> ExitCode {
    match command {
        BundleCommand::Check(args) => check::run(args),
        BundleCommand::Push(args) => push::run(args),
        BundleCommand::Pull(args) => pull::run(args),
    }
}
