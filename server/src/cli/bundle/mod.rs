//! `cardea bundle`: one file per command.

mod activate;
mod check;
mod list;
mod node;
mod promote;
mod rollback;
mod shadow;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum BundleCommand {
    /// Validate a bundle strictly against its schema and say what is wrong, where, and what to do.
    ///
    /// Exit code 0: fine; 1: findings; 2: could not run.
    Check(check::CheckArgs),
    /// List the revisions that a running node has.
    List(list::ListArgs),
    /// Put a revision from a running node's store in force.
    ///
    /// Exit code 0: it is in force; 1: the node refused; 2: could not run.
    Activate(activate::ActivateArgs),
    /// Go back to the content of an earlier revision, under a new and higher one.
    ///
    /// Exit code 0: it is in force; 1: the node refused; 2: could not run.
    Rollback(rollback::RollbackArgs),
    /// Evaluate a candidate beside the bundle in force of a running node, on live attempts.
    #[command(subcommand)]
    Shadow(shadow::ShadowCommand),
    /// Put the candidate of the shadow in force.
    ///
    /// Exit code 0: it is in force; 1: the node refused; 2: could not run.
    Promote(promote::PromoteArgs),
}

pub(super) fn run(command: &BundleCommand) -> ExitCode {
    match command {
        BundleCommand::Check(args) => check::run(args),
        BundleCommand::List(args) => list::run(args),
        BundleCommand::Activate(args) => activate::run(args),
        BundleCommand::Rollback(args) => rollback::run(args),
        BundleCommand::Shadow(command) => shadow::run(command),
        BundleCommand::Promote(args) => promote::run(args),
    }
}
