//! The comparison: what a call costs Cardea relative to a service that does nothing.
//!
//! Both servers run on the same core, the load generator on another. Runs alternate between the two, so that what
//! the machine does to one it does to the other. A run in which the machine was taken away (canary, steal) is made
//! again, at most [`Settings::reruns_max`] times; after that it counts, and its row says so.

pub mod process;
pub mod stats;
pub mod table;

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use thiserror::Error;

use self::{
    process::{ProcessError, Running, Server, canary_gap_us, run_load, start_spinner},
    stats::Spread,
};
use crate::{
    call::Mode,
    record::{Report, Shape},
};

/// Largest gap that the canary may see on a quiet machine, in microseconds. Throttling takes slices of 4 to 8 ms.
pub const CANARY_GAP_MAX_US: f64 = 1500.0;
/// Largest share of time that the hypervisor may take in a run, in percent.
pub const STEAL_MAX_PERCENT: f64 = 1.5;

/// Why there is no comparison.
#[derive(Debug, Error)]
pub enum CompareError {
    /// A process did not do its part.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// No place for logs and audit records.
    #[error("cannot make a temporary directory")]
    Directory(#[from] io::Error),
    /// No rounds were asked for.
    #[error("a comparison needs at least one round")]
    NoRounds,
}

/// What to compare, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `cardea` binary; `None` compares the do-nothing service with itself.
    pub cardea: Option<PathBuf>,
    /// The bundle that it serves.
    pub bundle: PathBuf,
    /// Further arguments for `cardea serve`.
    pub cardea_args: Vec<String>,
    /// The do-nothing service.
    pub noop: PathBuf,
    /// The load generator.
    pub load: PathBuf,
    /// This program, for its canary and its spinner.
    pub compare: PathBuf,
    /// Core of the servers.
    pub server_core: u32,
    /// Core of the load generator.
    pub client_core: u32,
    /// Whether to keep both cores from idling.
    pub spinners: bool,
    /// Runs of each server for each row.
    pub rounds: u32,
    /// How often a run on a disturbed machine is made again.
    pub reruns_max: u32,
    /// The doors to compare.
    pub modes: Vec<Mode>,
    /// Calls in flight, one row each.
    pub in_flight: Vec<u32>,
    /// Adds a row for unary calls at half the rate that Cardea sustains.
    pub half_load: bool,
    /// Further arguments for the load generator: request, batch, lengths, expected decision.
    pub load_args: Vec<String>,
}

/// What one server came to in one row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Side {
    /// Server CPU for each call, in microseconds.
    pub cpu_us_per_call: Spread,
    /// Median latency, in microseconds.
    pub p50_us: Spread,
    /// 99th percentile of latency, in microseconds.
    pub p99_us: Spread,
    /// Calls answered in a second.
    pub calls_per_s: Spread,
    /// Share of its core that the load generator used, at most; near 1 it is the limit of the calls per second.
    pub client_busy_max: f64,
    /// Length of an answer in bytes.
    pub answer_bytes: u64,
}

/// One row: the same load on both.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The door.
    pub mode: Mode,
    /// The shape of the load.
    pub shape: Shape,
    /// Attempts in each call.
    pub attempts_per_call: u32,
    /// Length of a request in bytes.
    pub request_bytes: u64,
    /// The service that does nothing.
    pub noop: Side,
    /// Cardea.
    pub cardea: Side,
    /// CPU of Cardea over CPU of the service that does nothing, round by round.
    pub cpu_ratio: Spread,
    /// 99th percentile of Cardea over that of the service that does nothing, round by round.
    pub p99_ratio: Spread,
    /// Runs that count although the machine was disturbed in them.
    pub disturbed_runs: u32,
    /// Runs in all.
    pub runs: u32,
}

/// The whole comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// Whether the do-nothing service was compared with itself.
    pub self_check: bool,
    /// Runs of each server for each row.
    pub rounds: u32,
    /// In the order in which they were measured.
    pub rows: Vec<Row>,
}

/// Starts both servers, measures every row, and stops everything again. `progress` is told what goes on.
///
/// # Errors
/// When a server does not become ready or a call fails.
pub fn run(settings: &Settings, progress: &dyn Fn(&str)) -> Result<Comparison, CompareError> {
    let dir = TempDir::new()?;
    let _spinners = spinners(settings)?;
    let cardea = start_subject(settings, &dir)?;
    let noop = start_noop(settings, &dir, &cardea, progress)?;
    let bench = Bench { settings, noop: &noop, cardea: &cardea, progress };
    let mut rows = Vec::new();
    for &mode in &settings.modes {
        for &in_flight in &settings.in_flight {
            rows.push(bench.row(mode, Shape::InFlight(in_flight))?);
        }
    }
    let most = |row: &Row| if row.mode == Mode::Unary { row.cardea.calls_per_s.median } else { 0.0 };
    let sustained = rows.iter().map(most).fold(0.0, f64::max);
    if settings.half_load && sustained > 0.0 {
        rows.push(bench.row(Mode::Unary, Shape::PerSecond(half_of(sustained)))?);
    }
    Ok(Comparison { self_check: settings.cardea.is_none(), rounds: settings.rounds, rows })
}

fn spinners(settings: &Settings) -> Result<Vec<Running>, CompareError> {
    if !settings.spinners {
        return Ok(Vec::new());
    }
    let cores = [settings.server_core, settings.client_core];
    Ok(cores.iter().map(|&core| start_spinner(core, &settings.compare)).collect::<Result<_, _>>()?)
}

fn start_subject(settings: &Settings, dir: &TempDir) -> Result<Server, CompareError> {
    let Some(program) = &settings.cardea else {
        return Ok(Server::start("subject", settings.server_core, &settings.noop, &[], dir.path())?);
    };
    let audit = dir.path().join("audit");
    let mut args: Vec<String> = ["serve", "--bundle", &settings.bundle.display().to_string()]
        .into_iter()
        .chain(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .chain(["--audit-dir", &audit.display().to_string()])
        .chain(["--state-dir", &audit.with_file_name("state").display().to_string()])
        .chain(["--workers", "1", "--allow-unsigned", "--format", "json"])
        .map(str::to_owned)
        .collect();
    args.extend_from_slice(&settings.cardea_args);
    Ok(Server::start("cardea", settings.server_core, program, &args, dir.path())?)
}

/// Asks Cardea once through each door, and starts the do-nothing service with answers of the same size.
fn start_noop(
    settings: &Settings,
    dir: &TempDir,
    cardea: &Server,
    progress: &dyn Fn(&str),
) -> Result<Server, CompareError> {
    let mut args = Vec::new();
    for (mode, flag) in [(Mode::Unary, "--answer-bytes"), (Mode::Check, "--check-bytes")] {
        let wanted = settings.modes.iter().any(|other| (*other == Mode::Check) == (mode == Mode::Check));
        if wanted {
            let shape =
                ["--in-flight", "1", "--seconds", "0.1", "--warm-up-seconds", "0", "--canary-ms", "0"];
            let report =
                run_load(settings.client_core, &settings.load, cardea, &load_args(settings, mode, &shape))?;
            progress(&format!("{} answers {} with {} bytes", cardea.name, mode.name(), report.answer_bytes));
            args.extend([flag.to_owned(), report.answer_bytes.to_string()]);
        }
    }
    Ok(Server::start("noop", settings.server_core, &settings.noop, &args, dir.path())?)
}

fn load_args(settings: &Settings, mode: Mode, last: &[&str]) -> Vec<String> {
    let mut args = settings.load_args.clone();
    args.extend(["--mode", mode.name()].iter().chain(last).map(|&arg| arg.to_owned()));
    args
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the target's range")]
fn half_of(calls_per_s: f64) -> u32 {
    (calls_per_s / 2.0).clamp(1.0, f64::from(u32::MAX)) as u32
}

struct Bench<'a> {
    settings: &'a Settings,
    noop: &'a Server,
    cardea: &'a Server,
    progress: &'a dyn Fn(&str),
}

impl Bench<'_> {
    fn row(&self, mode: Mode, shape: Shape) -> Result<Row, CompareError> {
        let (mut noop, mut cardea) = (Vec::new(), Vec::new());
        for round in 0..self.settings.rounds {
            // Which goes first alternates too: the first may find a colder machine.
            if round % 2 == 0 {
                noop.push(self.quiet_run(self.noop, mode, shape)?);
                cardea.push(self.quiet_run(self.cardea, mode, shape)?);
            } else {
                cardea.push(self.quiet_run(self.cardea, mode, shape)?);
                noop.push(self.quiet_run(self.noop, mode, shape)?);
            }
        }
        row_of(&noop, &cardea).ok_or(CompareError::NoRounds)
    }

    /// Runs once, and again while the machine was disturbed. True beside the report: it was, every time.
    fn quiet_run(&self, server: &Server, mode: Mode, shape: Shape) -> Result<(Report, bool), CompareError> {
        let settings = self.settings;
        let (flag, count) = match shape {
            Shape::InFlight(count) => ("--in-flight", count),
            Shape::PerSecond(rate) => ("--rate", rate),
        };
        let args = load_args(settings, mode, &[flag, &count.to_string()]);
        let mut reruns = 0;
        loop {
            let before = canary_gap_us(settings.server_core, &settings.compare)?;
            let report = run_load(settings.client_core, &settings.load, server, &args)?;
            let after = canary_gap_us(settings.server_core, &settings.compare)?;
            let gap = before.max(after).max(report.canary_gap_us);
            let disturbed = gap > CANARY_GAP_MAX_US || report.steal_percent > STEAL_MAX_PERCENT;
            (self.progress)(&format!(
                "{} {flag} {count} {:>7}: {:.2} us CPU a call, canary {gap:.0} us, steal {:.1} %{}",
                mode.name(),
                server.name,
                report.server_cpu_ns_per_call.unwrap_or(f64::NAN) / 1e3,
                report.steal_percent,
                if disturbed { ", disturbed" } else { "" }
            ));
            if !disturbed || reruns >= settings.reruns_max {
                return Ok((report, disturbed));
            }
            reruns += 1;
        }
    }
}

/// One row of the runs of both sides; `None` without runs.
fn row_of(noop: &[(Report, bool)], cardea: &[(Report, bool)]) -> Option<Row> {
    let (first, _) = cardea.first()?;
    let ratio = |value: fn(&Report) -> f64| {
        Spread::of(noop.iter().zip(cardea).map(|((noop, _), (cardea, _))| value(cardea) / value(noop)))
    };
    Some(Row {
        mode: first.mode,
        shape: first.shape,
        attempts_per_call: first.attempts_per_call,
        request_bytes: first.request_bytes,
        noop: side_of(noop)?,
        cardea: side_of(cardea)?,
        cpu_ratio: ratio(cpu_us)?,
        p99_ratio: ratio(|report| report.latency_us.p99)?,
        disturbed_runs: count(noop.iter().chain(cardea).filter(|(_, disturbed)| *disturbed).count()),
        runs: count(noop.len() + cardea.len()),
    })
}

fn side_of(runs: &[(Report, bool)]) -> Option<Side> {
    let spread = |value: fn(&Report) -> f64| Spread::of(runs.iter().map(|(report, _)| value(report)));
    Some(Side {
        cpu_us_per_call: spread(cpu_us)?,
        p50_us: spread(|report| report.latency_us.p50)?,
        p99_us: spread(|report| report.latency_us.p99)?,
        calls_per_s: spread(|report| report.calls_per_s)?,
        client_busy_max: spread(|report| report.client_busy)?.max,
        answer_bytes: runs.first()?.0.answer_bytes,
    })
}

/// Server CPU of a call; the comparison always names the server's process, so it is there.
fn cpu_us(report: &Report) -> f64 {
    report.server_cpu_ns_per_call.unwrap_or(f64::NAN) / 1e3
}

fn count(runs: usize) -> u32 {
    u32::try_from(runs).unwrap_or(u32::MAX)
}
