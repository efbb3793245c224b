//! How well behaviour monitoring tells abuse from work, on recorded attempts of others, and what it costs.
//!
//! Prints one table. Data that is absent is left out, with a word.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool speaks on its streams")]

use std::path::PathBuf;
use std::process::ExitCode;

use cardea_benches::monitoring::data::Places;
use cardea_benches::monitoring::table::Row;
use cardea_benches::monitoring::{agents, burst, machines};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Quality and cost of behaviour monitoring, each with its bar beside it.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Directory of the recorded attempts
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// End with exit code 1 when a bar is missed
    #[arg(long)]
    gate: bool,
}

type Measure = fn(&Places) -> Result<Option<Vec<Row>>, String>;

const PARTS: [(&str, Measure); 5] = [
    ("agentdojo", agents::measure),
    ("tau_airline", agents::airline),
    ("k8s_audit", machines::kubernetes),
    ("cloudtrail", machines::cloudtrail),
    ("darpa_edges", burst::measure),
];

fn main() -> ExitCode {
    let args = Args::parse();
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let places = Places {
        data: args.data.unwrap_or_else(|| here.join("../../shared/data/monitoring")),
        examples: here.join("../examples/monitoring"),
    };
    let mut missed = 0;
    println!("| what | measured | bar | of |\n|---|---|---|---|");
    for (name, measure) in PARTS {
        match measure(&places) {
            Ok(Some(rows)) => {
                missed += rows.iter().filter(|row| !row.is_met()).count();
                rows.iter().for_each(|row| println!("{row}"));
            }
            Ok(None) => eprintln!("{name}: no data in {}; left out", places.data.display()),
            Err(why) => {
                eprintln!("{name}: {why}");
                return ExitCode::from(2);
            }
        }
    }
    if args.gate && missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
