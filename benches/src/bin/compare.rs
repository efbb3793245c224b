//! What a call costs Cardea relative to a service that does nothing, in one command.
//!
//! Prints a table on stdout and its progress on stderr. Exits with 1 when a call failed or, under `--gate`, when a
//! budget of the design was missed.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool speaks on its streams")]

use std::{env, error::Error, path::PathBuf, process::ExitCode, time::Duration};

use cardea_benches::{
    answer::Expect,
    call::{BATCH_MAX, Mode},
    compare::{self, Settings, table},
    mono,
};
use clap::{Parser, Subcommand, ValueEnum};

/// Length of one canary.
const CANARY: Duration = Duration::from_millis(60);
/// Reruns unless told otherwise: a throttled host recovers in some seconds.
const RERUNS: u32 = 4;

/// Compares `cardea serve` with a service that does nothing: CPU for each call, p50, p99.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// The cardea binary; the default is the one beside this program
    #[arg(long)]
    cardea: Option<PathBuf>,
    /// Compare the do-nothing service with itself: every ratio should be 1
    #[arg(long, conflicts_with = "cardea")]
    self_check: bool,
    /// The bundle that cardea serves
    #[arg(long, default_value = "benches/bundle")]
    bundle: PathBuf,
    /// A further argument for `cardea serve`; may be given many times
    #[arg(long = "cardea-arg", allow_hyphen_values = true)]
    cardea_args: Vec<String>,
    /// JSON file with the request
    #[arg(long)]
    request: Option<PathBuf>,
    /// The decision that every answer must have
    #[arg(long, value_enum, default_value_t = Expect::Allow)]
    expect: Expect,
    /// The doors to compare
    #[arg(long, value_enum, value_delimiter = ',', default_value = "unary,batch,stream,check")]
    modes: Vec<Mode>,
    /// Calls in flight, a row each
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    in_flight: Vec<u32>,
    /// Attempts in each call of the modes batch and stream
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_MAX)))]
    batch: u32,
    /// Runs of each server for each row
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// How often a run on a disturbed machine is made again
    #[arg(long, default_value_t = RERUNS)]
    reruns: u32,
    /// Length of each run, in seconds
    #[arg(long, default_value = "1.5")]
    seconds: String,
    /// Core of the servers
    #[arg(long, default_value_t = 0)]
    server_core: u32,
    /// Core of the load generator
    #[arg(long, default_value_t = 1)]
    client_core: u32,
    /// Let idle cores sleep; each wake-up then costs tens of microseconds on a virtual machine
    #[arg(long)]
    no_spinners: bool,
    /// Leave out the row at half load
    #[arg(long)]
    no_half_load: bool,
    /// Exit with 1 when a budget was missed
    #[arg(long)]
    gate: bool,
    /// Form of the result
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Keep this core busy until the parent process ends (used by the comparison itself)
    #[command(hide = true)]
    Spin,
    /// Print the largest gap between two clock reads, in microseconds (used by the comparison itself)
    #[command(hide = true)]
    Canary,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Human,
    Json,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.part {
        Some(Part::Spin) => mono::spin_while_parent_lives(),
        Some(Part::Canary) => println!("{:.1}", mono::largest_gap(CANARY).as_secs_f64() * 1e6),
        None => match run(args) {
            Ok(true) => {}
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => {
                eprintln!("compare: {error}");
                return ExitCode::FAILURE;
            }
        },
    }
    ExitCode::SUCCESS
}

/// Compares and prints. False when a gate was missed.
fn run(args: Args) -> Result<bool, Box<dyn Error>> {
    let (gate, format) = (args.gate, args.format);
    let comparison = compare::run(&settings(args)?, &|text| eprintln!("{text}"))?;
    match format {
        Format::Human => print!("{}", table::render(&comparison)),
        Format::Json => println!("{}", serde_json::to_string_pretty(&comparison)?),
    }
    Ok(!gate || table::budgets(&comparison).iter().all(|budget| budget.met))
}

fn settings(args: Args) -> Result<Settings, Box<dyn Error>> {
    let compare = env::current_exe()?;
    let beside = |name: &str| compare.with_file_name(name);
    let expect = args.expect.to_possible_value().ok_or("a decision without a name")?;
    let mut load_args: Vec<String> = ["--expect", expect.get_name(), "--seconds", &args.seconds]
        .into_iter()
        .chain(["--batch", &args.batch.to_string()])
        .map(str::to_owned)
        .collect();
    if let Some(request) = &args.request {
        load_args.extend(["--request".to_owned(), request.display().to_string()]);
    }
    Ok(Settings {
        cardea: if args.self_check { None } else { Some(args.cardea.unwrap_or_else(|| beside("cardea"))) },
        bundle: args.bundle,
        cardea_args: args.cardea_args,
        noop: beside("noop"),
        load: beside("load"),
        server_core: args.server_core,
        client_core: args.client_core,
        spinners: !args.no_spinners,
        rounds: args.rounds,
        reruns_max: args.reruns,
        modes: args.modes,
        in_flight: args.in_flight,
        half_load: !args.no_half_load,
        load_args,
        compare,
    })
}
