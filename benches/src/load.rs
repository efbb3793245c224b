//! One run of the load generator: canary, connect, warm up, measure, canary, report.
//!
//! Runs on one current-thread runtime, so that it keeps to one core. Readings of CPU time are taken while no call
//! is in flight, where they are exact.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use thiserror::Error;
use tokio::task::JoinSet;

use crate::{
    answer::Expect,
    call::{Calls, Mode},
    drive::Run,
    link::{Link, LinkError},
    mono,
    procfs::{HostTicks, ProcError, cpu_ns},
    record::{Recorder, Report, Shape},
};

/// Most connections of one generator.
pub const CONNECTIONS_MAX: u32 = 1024;

/// Why a run left no report.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The runtime could not be started.
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    /// A connection failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The kernel's statistics could not be read.
    #[error(transparent)]
    Proc(#[from] ProcError),
    /// A call failed before the measurement began.
    #[error("a call failed in the warm-up: {0}")]
    WarmUp(String),
    /// The histogram refused its bounds.
    #[error("the histogram cannot hold the latencies")]
    Histogram,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub addr: SocketAddr,
    /// The shape of the load.
    pub shape: Shape,
    /// Connections, at least one, at most [`CONNECTIONS_MAX`].
    pub connections: u32,
    /// How long calls are sent before the measurement.
    pub warm_up: Duration,
    /// How long calls are sent in the measurement.
    pub span: Duration,
    /// What every answer must say.
    pub expect: Expect,
    /// The process whose CPU time is read.
    pub server_pid: Option<u32>,
    /// Length of the canary before and after; zero for none.
    pub canary: Duration,
}

/// Runs `plan` with `calls` on a runtime of its own.
///
/// # Errors
/// When nothing could be measured. A call that fails *during* the measurement is in the report.
pub fn run(plan: &Plan, calls: Calls) -> Result<Report, LoadError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LoadError::Runtime)?;
    let before = mono::largest_gap(plan.canary);
    let mut report = runtime.block_on(measure(plan, Arc::new(calls)))?;
    let gap = before.max(mono::largest_gap(plan.canary));
    report.canary_gap_us = gap.as_secs_f64() * 1e6;
    Ok(report)
}

async fn measure(plan: &Plan, calls: Arc<Calls>) -> Result<Report, LoadError> {
    let mut drivers = JoinSet::new();
    let mut links = Vec::new();
    for _ in 0..plan.connections.clamp(1, CONNECTIONS_MAX) {
        links.push(Link::open(plan.addr, calls.mode().path(), &mut drivers).await?);
    }
    let mut run = Run { links, calls, expect: plan.expect, span: plan.warm_up, recorder: new_recorder()? };
    if !plan.warm_up.is_zero() {
        send(&run, plan.shape).await;
        if let Some(fault) = run.recorder.lock().first_fault() {
            return Err(LoadError::WarmUp(fault.to_owned()));
        }
    }
    run.span = plan.span;
    run.recorder = new_recorder()?;

    let own_pid = std::process::id();
    let server_cpu = || plan.server_pid.map(cpu_ns).transpose();
    let (ticks, server_before, own_before, start) =
        (HostTicks::read()?, server_cpu()?, cpu_ns(own_pid)?, mono::now());
    send(&run, plan.shape).await;
    let seconds = mono::now().duration_since(start).as_secs_f64();
    let (own_after, server_after) = (cpu_ns(own_pid)?, server_cpu()?);
    let steal_percent = HostTicks::read()?.steal_percent_since(ticks);

    let recorder = run.recorder.lock();
    let calls = recorder.calls();
    let own_ns = own_after.saturating_sub(own_before) as f64;
    let server_ns = server_before.zip(server_after).map(|(before, after)| after.saturating_sub(before));
    let per_call = |ns: f64| ns / calls.max(1) as f64;
    Ok(Report {
        mode: run.calls.mode(),
        shape: plan.shape,
        attempts_per_call: run.calls.attempts_per_call(),
        connections: u32::try_from(run.links.len()).unwrap_or(CONNECTIONS_MAX),
        expect: plan.expect,
        calls,
        seconds,
        calls_per_s: calls as f64 / seconds,
        latency_us: recorder.latency_us(),
        faults: recorder.faults(),
        first_fault: recorder.first_fault().map(str::to_owned),
        server_cpu_ns_per_call: server_ns.map(|ns| per_call(ns as f64)),
        client_cpu_ns_per_call: per_call(own_ns),
        client_busy: own_ns / (seconds * 1e9),
        request_bytes: run.calls.message_bytes(),
        answer_bytes: recorder.answer_bytes(),
        canary_gap_us: 0.0,
        steal_percent,
    })
}

async fn send(run: &Run, shape: Shape) {
    match run.calls.mode() {
        Mode::Unary | Mode::Batch | Mode::Check => run.unary(shape).await,
        Mode::Stream => run.stream(shape).await,
    }
}

fn new_recorder() -> Result<Arc<Mutex<Recorder>>, LoadError> {
    Recorder::new().map(|recorder| Arc::new(Mutex::new(recorder))).ok_or(LoadError::Histogram)
}
