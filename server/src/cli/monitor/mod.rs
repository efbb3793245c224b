//! `cardea monitor`: behaviour monitoring on recorded attempts.

mod learn;
mod report;
mod score;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Subcommand;

use super::exit;
use crate::hidden::printable;
use crate::monitor::Fault;
pub(super) use learn::recorded;

/// Attempts between two words of progress.
const PROGRESS_EVERY: u64 = 20_000;

#[derive(Debug, Subcommand)]
pub(super) enum MonitorCommand {
    /// Learn what approved runs did: one file of baselines, the same bytes from the same runs.
    ///
    /// Exit code 0: written; 2: could not run.
    Learn(learn::LearnArgs),
    /// Compare attempts with baselines and print one JSON line for each, in the same order.
    ///
    /// Exit code 0: all scored, whatever was found; 2: could not run.
    Score(score::ScoreArgs),
    /// Show people what was found: one HTML page with pictures and evidence, from a scored file and its attempts.
    ///
    /// Exit code 0: written, whatever was found; 2: could not run.
    Report(Box<report::ReportArgs>),
}

pub(super) fn run(command: &MonitorCommand) -> ExitCode {
    match command {
        MonitorCommand::Learn(args) => learn::run(args),
        MonitorCommand::Score(args) => score::run(args),
        MonitorCommand::Report(args) => report::run(args),
    }
}

/// Says what a command came to.
#[expect(clippy::print_stderr, reason = "a command speaks on its standard streams")]
fn ended(told: Result<String, Fault>) -> ExitCode {
    match told {
        Ok(told) => {
            eprintln!("{told}");
            ExitCode::from(exit::FINE)
        }
        Err(fault) => {
            eprintln!("{}", printable(&fault.to_string()));
            ExitCode::from(exit::COULD_NOT_RUN)
        }
    }
}

/// Tells on a terminal how far a command is.
struct Progress {
    what: &'static str,
    count: u64,
    is_shown: bool,
}

impl Progress {
    fn new(what: &'static str) -> Self {
        Self { what, count: 0, is_shown: std::io::stderr().is_terminal() }
    }

    #[expect(clippy::print_stderr, reason = "progress is for the person at the terminal")]
    fn step(&mut self) {
        self.count += 1;
        if self.is_shown && self.count.is_multiple_of(PROGRESS_EVERY) {
            eprint!("\r{} attempts {}", self.count, self.what);
        }
    }

    #[expect(clippy::print_stderr, reason = "progress is for the person at the terminal")]
    fn end(&self) {
        if self.is_shown && self.count >= PROGRESS_EVERY {
            eprintln!();
        }
    }
}
