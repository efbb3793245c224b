//! `cardea baseline`: how what was approved is learned, promoted and carried.

mod carry;
mod diff;
mod expire;
mod learn;
mod promote;
mod show;
mod view;

use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use super::Format;
use super::drawn::say;
use crate::hidden::printable;
use crate::monitor::Fault;

#[derive(Debug, Subcommand)]
pub(super) enum BaselineCommand {
    /// Learn a candidate: from the audit of nodes, live from one, or from recorded attempts.
    ///
    /// Exit code 0: written; 2: could not run, or nothing was learned.
    Learn(learn::LearnArgs),
    /// Approve a candidate: the next version of what is approved, with who approved it and why.
    ///
    /// Exit code 0: written; 2: could not run, or it cannot be promoted.
    Promote(promote::PromoteArgs),
    /// Put an approved file into the directory of a bundle, checked against its schema.
    ///
    /// Exit code 0: written; 1: refused; 2: could not run.
    Import(carry::ImportArgs),
    /// Take the file of baselines out of a bundle.
    ///
    /// Exit code 0: written; 2: could not run.
    Export(carry::ExportArgs),
    /// Show what is approved, for whom, by whom, and when it was last used.
    ///
    /// Exit code 0: shown; 2: could not run, or nothing fits.
    Show(show::ShowArgs),
    /// Show what a newer file approves that an older one does not, and the other way round.
    ///
    /// Exit code 0: compared; 1: something changed that --fail-on names; 2: could not run.
    Diff(diff::DiffArgs),
    /// Drop what no approved run used for long, and say who decided that.
    ///
    /// Exit code 0: written; 2: could not run.
    Expire(expire::ExpireArgs),
}

pub(super) fn run(command: &BaselineCommand) -> ExitCode {
    match command {
        BaselineCommand::Learn(args) => learn::run(args),
        BaselineCommand::Promote(args) => promote::run(args),
        BaselineCommand::Import(args) => carry::import(args),
        BaselineCommand::Export(args) => carry::export(args),
        BaselineCommand::Show(args) => show::run(args),
        BaselineCommand::Diff(args) => diff::run(args),
        BaselineCommand::Expire(args) => expire::run(args),
    }
}

/// Tells why a command could not run.
#[expect(clippy::print_stderr, reason = "a command speaks on its standard streams")]
fn could_not_run(fault: &Fault) -> ExitCode {
    eprintln!("{}", printable(&fault.to_string()));
    ExitCode::from(super::exit::COULD_NOT_RUN)
}

/// Prints a result for people or for programs.
fn tell(format: Format, human: &str, value: &impl Serialize) -> Result<(), Fault> {
    match format {
        Format::Human => say(human.trim_end()),
        Format::Json => say(&serde_json::to_string_pretty(value).map_err(|error| Fault {
            place: "standard output".to_owned(),
            what: format!("cannot be written: {error}"),
        })?),
    }
    Ok(())
}
