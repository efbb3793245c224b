//! The load generator: one core's worth of calls to a decision service, and what became of them.
//!
//! Exits with 1 when any call failed or was answered otherwise than expected: such a run is not a measurement.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool speaks on its streams")]

use std::{error::Error, fs, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use cardea_benches::{
    answer::Expect,
    call::{BATCH_MAX, Calls, Mode},
    load::{self, CONNECTIONS_MAX, Plan},
    record::{Report, Shape},
    request::{DEFAULT_REQUEST, Overrides, VARIANTS_MAX, variant},
};
use clap::{Parser, ValueEnum};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sends calls to a decision service and reports latency, faults and CPU per call.
#[derive(Debug, Parser)]
#[command(version, args_override_self = true)]
struct Args {
    /// The server's gRPC address
    #[arg(long)]
    connect: SocketAddr,
    /// The door to use
    #[arg(long, value_enum, default_value_t = Mode::Unary)]
    mode: Mode,
    /// Closed loop: this many calls in flight (the default, with 16)
    #[arg(long, conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    in_flight: Option<u32>,
    /// Open loop: this many calls a second; latency counts from when each call was due
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// Attempts in each call of the modes batch and stream
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_MAX)))]
    batch: u32,
    /// Connections to spread the calls over
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    connections: u32,
    /// Length of the measurement
    #[arg(long, default_value_t = 1.5, value_parser = seconds)]
    seconds: f64,
    /// Length of the warm-up before it
    #[arg(long, default_value_t = 0.3, value_parser = seconds)]
    warm_up_seconds: f64,
    /// The decision that every answer must have
    #[arg(long, value_enum, default_value_t = Expect::Allow)]
    expect: Expect,
    /// Process whose CPU time is read before and after
    #[arg(long)]
    server_pid: Option<u32>,
    /// Length of the canary before and after, in milliseconds; 0 for none
    #[arg(long, default_value_t = 60)]
    canary_ms: u16,
    /// JSON file with the request; the default is benches/request.json as it was built in
    #[arg(long)]
    request: Option<PathBuf>,
    /// Variants of the request, sent in turn; `{n}` in the request becomes the variant's number
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(VARIANTS_MAX)))]
    variants: u32,
    /// Replaces the request's principal: Type::"id"
    #[arg(long)]
    principal: Option<String>,
    /// Replaces the request's action: Type::"id"
    #[arg(long)]
    action: Option<String>,
    /// Replaces the request's resource: Type::"id"
    #[arg(long)]
    resource: Option<String>,
    /// Replaces the request's session id
    #[arg(long)]
    session: Option<String>,
    /// Form of the report
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Human,
    Json,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprint!("load: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprint!(": {error}");
                cause = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<bool, Box<dyn Error>> {
    let text = args.request.as_ref().map_or_else(|| Ok(DEFAULT_REQUEST.to_owned()), fs::read_to_string)?;
    let overrides = Overrides {
        principal: args.principal,
        action: args.action,
        resource: args.resource,
        session: args.session,
    };
    let variants =
        (0..args.variants).map(|n| variant(&text, n, &overrides)).collect::<Result<Vec<_>, _>>()?;
    let calls = Calls::encode(args.mode, args.batch, &variants).ok_or("no request to send")?;
    let plan = Plan {
        addr: args.connect,
        shape: args.rate.map_or_else(|| Shape::InFlight(args.in_flight.unwrap_or(16)), Shape::PerSecond),
        connections: args.connections,
        warm_up: Duration::from_secs_f64(args.warm_up_seconds),
        span: Duration::from_secs_f64(args.seconds),
        expect: args.expect,
        server_pid: args.server_pid,
        canary: Duration::from_millis(args.canary_ms.into()),
    };
    let report = load::run(&plan, calls)?;
    match args.format {
        Format::Human => print_human(&report),
        Format::Json => println!("{}", serde_json::to_string(&report)?),
    }
    Ok(report.faults.total() == 0 && report.calls > 0)
}

fn print_human(report: &Report) {
    let shape = match report.shape {
        Shape::InFlight(count) => format!("closed loop, {count} in flight"),
        Shape::PerSecond(rate) => format!("open loop, {rate} calls/s intended"),
    };
    println!("{} | {shape} | {} connection(s)", report.mode.name(), report.connections);
    println!(
        "calls      {} in {:.2} s: {:.0} calls/s, {} attempt(s) each; {} B asked, {} B answered",
        report.calls,
        report.seconds,
        report.calls_per_s,
        report.attempts_per_call,
        report.request_bytes,
        report.answer_bytes
    );
    let us = &report.latency_us;
    println!(
        "latency us p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1}",
        us.p50, us.p90, us.p99, us.p99_9, us.max
    );
    if let Some(ns) = report.server_cpu_ns_per_call {
        println!(
            "server CPU {:.2} us a call, {:.3} us an attempt",
            ns / 1e3,
            ns / 1e3 / f64::from(report.attempts_per_call)
        );
    }
    println!(
        "client CPU {:.2} us a call, {:.0} % of a core",
        report.client_cpu_ns_per_call / 1e3,
        report.client_busy * 100.0
    );
    println!("machine    canary gap {:.0} us, steal {:.1} %", report.canary_gap_us, report.steal_percent);
    let faults = report.faults;
    println!(
        "faults     {} transport, {} status, {} answer, {} unanswered{}",
        faults.transport,
        faults.status,
        faults.answer,
        faults.unanswered,
        report.first_fault.as_ref().map_or_else(String::new, |text| format!("; first: {text}"))
    );
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds from 0 to 3600".to_owned()),
    }
}
