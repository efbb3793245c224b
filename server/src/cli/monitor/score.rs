//! `cardea monitor score`: attempts against baselines, one JSON line each.
#![expect(clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Progress;
use crate::cli::exit;
use crate::hidden::printable;
use crate::monitor::attempts::Attempts;
use crate::monitor::config::Config;
use crate::monitor::declared::Declared;
use crate::monitor::score::Scorer;
use crate::monitor::{Fault, fresh_key, read_kept};

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea monitor score --baseline baseline.json --attempts new.jsonl.gz \\
      --config examples/monitoring/agentdojo.toml --tasks tasks.json

A line is {\"session\", \"n\", \"flags\", \"assessment\", \"confidence\", \"response\", \"evidence\"}; n is the attempt's place in its session.")]
pub(in crate::cli) struct ScoreArgs {
    /// Baselines, from `cardea monitor learn`.
    #[arg(long, value_name = "FILE")]
    baseline: PathBuf,
    /// Attempts as JSON Lines, plain or gzip; - reads standard input.
    #[arg(long, value_name = "FILE")]
    attempts: PathBuf,
    /// How attempts are read and judged; see docs/monitoring.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What tasks were declared for, their words and their time windows.
    #[arg(long, value_name = "FILE")]
    tasks: Option<PathBuf>,
}

/// Why scoring ended early.
enum End {
    Fault(Fault),
    Output(io::Error),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

pub(super) fn run(args: &ScoreArgs) -> ExitCode {
    match score(args, BufWriter::new(io::stdout().lock())) {
        Ok(0) => ExitCode::from(exit::FINE),
        Ok(forgotten) => {
            eprintln!("{forgotten} sessions were forgotten for lack of room and begin anew where they go on");
            ExitCode::from(exit::FINE)
        }
        // Whoever read the lines has seen enough.
        Err(End::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(exit::FINE),
        Err(End::Output(error)) => {
            eprintln!("standard output: cannot be written: {error}");
            ExitCode::from(exit::COULD_NOT_RUN)
        }
        Err(End::Fault(fault)) => {
            eprintln!("{}", printable(&fault.to_string()));
            ExitCode::from(exit::COULD_NOT_RUN)
        }
    }
}

fn score(args: &ScoreArgs, mut out: impl Write) -> Result<u64, End> {
    let config = Config::read(&args.config)?;
    let key = fresh_key()?;
    let baselines = read_kept(&args.baseline)?.compile(&key, &config.rules);
    let declared = args.tasks.as_deref().map(Declared::read).transpose()?;
    let mut scorer = Scorer::new(&config, key, baselines, declared);
    let mut progress = Progress::new("scored");
    for recorded in Attempts::open(&args.attempts)? {
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(fault) => {
                // What came before the fault is scored and stands.
                out.flush().map_err(End::Output)?;
                return Err(End::Fault(fault));
            }
        };
        serde_json::to_writer(&mut out, &scorer.score(&recorded))
            .map_err(|error| End::Output(error.into()))?;
        out.write_all(b"\n").map_err(End::Output)?;
        progress.step();
    }
    out.flush().map_err(End::Output)?;
    progress.end();
    Ok(scorer.forgotten())
}
