//! What a million sessions cost in memory and at the start, and how many changes of fact are made durable in a second.
//!
//! `state sessions` opens sessions in a node's state over a real store, in a process of its own that then ends without any
//! farewell, and starts on that store in another: bytes of memory per session, time until ready, and what reading a session
//! from disk costs. `state signals` reports signals to a real node at a fixed rate while decisions are asked for.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![expect(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a bench that cannot set itself up has nothing to say"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use cardea_core::session::Session;
use cardea_core::time::Now;
use cardea_policy_store::engine::{TypeName, Uid};
use cardea_proto::v1;
use cardea_proto::v1::decision_service_client::DecisionServiceClient;
use cardea_proto::v1::signal_service_client::SignalServiceClient;
use cardea_server::ledger::Ledger;
use cardea_server::state::{Capacity, State};
use clap::{Args, Parser};
use hdrhistogram::Histogram;
use tonic::transport::Channel;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the state costs.
#[derive(Parser)]
enum Cli {
    /// Memory per session, time to start, reading from disk.
    Sessions(Sessions),
    /// Signals made durable per second while decisions run.
    Signals(Signals),
    /// (one step of `sessions`) Opens sessions and ends without farewell.
    #[command(hide = true)]
    Fill(Step),
    /// (one step of `sessions`) Starts on what `fill` left.
    #[command(hide = true)]
    Start(Step),
}

#[derive(Args, Clone)]
struct Sessions {
    /// How many sessions.
    #[arg(long, default_value_t = 1_000_000)]
    sessions: u64,
    /// How many of them stay in memory; the default is that of the configuration.
    #[arg(long, default_value_t = 250_000)]
    in_memory: u64,
}

#[derive(Args)]
struct Step {
    #[command(flatten)]
    size: Sessions,
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Args)]
struct Signals {
    /// The program.
    #[arg(long, default_value = "target/release/cardea")]
    cardea: PathBuf,
    /// Signals a second.
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    /// For how long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Signals in one call.
    #[arg(long, default_value_t = 100)]
    batch: u64,
}

fn main() {
    match Cli::parse() {
        Cli::Sessions(size) => sessions(&size),
        Cli::Signals(signals) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(report(&signals));
        }
        Cli::Fill(step) => fill(&step),
        Cli::Start(step) => start(&step),
    }
}

fn sessions(size: &Sessions) {
    let dir = tempfile::tempdir().unwrap();
    for step in ["fill", "start"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(step).arg("--dir").arg(dir.path());
        command.args(["--sessions", &size.sessions.to_string(), "--in-memory", &size.in_memory.to_string()]);
        let status = command.status().unwrap();
        assert!(status.success() || step == "fill", "`{step}` failed");
    }
    let bytes = std::fs::metadata(dir.path().join("state.redb")).unwrap().len();
    println!("on disk      {:>9.1} MiB, {} bytes a session", mib(bytes), bytes / size.sessions);
}

fn capacity(size: &Sessions) -> Capacity {
    let large = 10_000_000;
    Capacity {
        sessions: size.in_memory,
        stored_sessions: u64::MAX,
        subjects: large,
        revocations: large,
        tasks: 1,
        reviews: 1,
        counters: 1,
    }
}

fn now() -> Now {
    let wall_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    Now { mono_ns: 0, wall_ms: i64::try_from(wall_ms).unwrap() }
}

/// As a gateway opens them: an id like a UUID, one of a hundred thousand principals, a login, a device.
fn session(number: u64, of: &TypeName, now: Now) -> Session {
    let id = id(number);
    let principal = Uid::new(of, &format!("workload-{:06}@prod.example", number % 100_000));
    let mut session = Session::open(id.as_str().into(), principal, now.wall_ms + 8 * 3600 * 1000, now);
    session.authenticate(now.wall_ms);
    session.acr = "urn:example:acr:mfa".into();
    session.amr = ["pwd".into(), "hwk".into()].into();
    session.device_id = Some(format!("device-{:06}", number % 100_000).into());
    session
}

fn id(number: u64) -> String {
    // Scattered over the key space, as random ids are.
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!("{mixed:016x}-4a7c-8f01-{number:012x}")
}

fn fill(step: &Step) {
    let agent = TypeName::from(&cedar_policy::EntityTypeName::from_str("Agent").unwrap());
    let (ledger, writer) = Ledger::open(&step.dir).unwrap();
    let state = State::restore(capacity(&step.size), ledger).unwrap();
    let empty = resident();
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.run());
        for number in 0..step.size.sessions {
            let mut next = session(number, &agent, now());
            while let Err(fault) = state.open(next.clone(), 0, now()) {
                // As many wait for the disk as may: let it catch up.
                assert!(fault.to_string().contains("wait"), "{fault}");
                std::thread::sleep(Duration::from_millis(1));
                next = session(number, &agent, now());
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(state.durable()).unwrap();
        let spent = started.elapsed();
        let count = step.size.sessions;
        println!(
            "open         {:>9.1} s for {count} sessions, all durable: {:.0} a second",
            spent.as_secs_f64(),
            count as f64 / spent.as_secs_f64()
        );
        tell_memory("memory after", empty, count);
        let usage = state.usage();
        println!(
            "             {} sessions in memory, {} commits",
            usage.sessions,
            usage.ledger.unwrap().commits
        );
        let _ended = std::io::stdout().flush();
        // As kill -9 would: nothing is closed.
        std::process::abort();
    });
}

fn start(step: &Step) {
    let empty = resident();
    let started = Instant::now();
    let (ledger, _writer) = Ledger::open(&step.dir).unwrap();
    let opened = started.elapsed();
    let state = State::restore(capacity(&step.size), ledger).unwrap();
    let ready = started.elapsed();
    println!(
        "start        {:>9.3} s until ready, of which {:.3} s opening the store",
        ready.as_secs_f64(),
        opened.as_secs_f64()
    );
    let count = step.size.sessions;
    assert_eq!(state.usage().stored_sessions, count);
    tell_memory("memory then", empty, count);
    let mut histogram = Histogram::<u64>::new(3).unwrap();
    let mut number = 1;
    for _ in 0..50_000_u64.min(count / 4) {
        number = number * 48_271 % 2_147_483_647;
        let id = id(number % count);
        let asked = Instant::now();
        assert!(state.session(&id).unwrap().is_some());
        histogram.record(u64::try_from(asked.elapsed().as_nanos()).unwrap()).unwrap();
    }
    println!(
        "read         {:>9.1} us a session that is not in memory (p50), {:.1} us (p99)",
        histogram.value_at_quantile(0.5) as f64 / 1000.0,
        histogram.value_at_quantile(0.99) as f64 / 1000.0
    );
    let asked = Instant::now();
    let unknown = 50_000;
    for number in 0..unknown {
        assert!(state.session(&format!("unknown-{number}")).unwrap().is_none());
    }
    println!(
        "unknown      {:>9.1} us an id that nobody opened",
        asked.elapsed().as_secs_f64() * 1e6 / f64::from(unknown)
    );
    tell_memory("memory after", empty, count);
}

fn tell_memory(what: &str, empty: u64, sessions: u64) {
    let used = resident();
    println!(
        "{what:<12} {:>9.1} MiB resident, {:.1} MiB before: {} bytes a session all in",
        mib(used),
        mib(empty),
        used.saturating_sub(empty) / sessions
    );
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

struct Node {
    child: Child,
    grpc: String,
    _dir: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Node {
    fn start(program: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("bundle");
        std::fs::create_dir_all(bundle.join("policies")).unwrap();
        std::fs::write(bundle.join("bundle.toml"), "name = \"bench\"\n").unwrap();
        std::fs::write(
            bundle.join("schema.cedarschema"),
            "entity Agent, Table; action read appliesTo { principal: Agent, resource: Table, context: { session: \
             Cardea::Session, risk: Cardea::Risk } };",
        )
        .unwrap();
        let policy = "permit(principal, action, resource) when { context.risk.score < 70 };";
        std::fs::write(bundle.join("policies/p.cedar"), policy).unwrap();
        let mut command = Command::new(program);
        command.args(["serve", "--allow-unsigned", "--format", "json", "--log-filter", "error"]);
        command.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]).arg("--bundle").arg(bundle);
        for (flag, name) in [("--store", "store"), ("--audit-dir", "audit"), ("--state-dir", "state")] {
            command.arg(flag).arg(dir.path().join(name));
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let grpc = ready.pointer("/grpc/0").and_then(serde_json::Value::as_str).unwrap();
        Self { child, grpc: format!("http://{grpc}"), _dir: dir }
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(self.grpc.clone()).unwrap().connect().await.unwrap()
    }
}

fn agent(number: u64) -> v1::EntityRef {
    v1::EntityRef { r#type: "Agent".to_owned(), id: format!("agent-{number}") }
}

fn batch(from: u64, size: u64) -> v1::ReportSignalsRequest {
    let signal = |number: u64| v1::Signal {
        subject: Some(agent(number % 200_000)),
        source: "bench".to_owned(),
        change: Some(v1::signal::Change::Risk(v1::RiskObserved {
            kind: v1::RiskKind::AnomalousBehavior.into(),
            severity: u32::try_from(number % 60).unwrap(),
            confidence: 100,
            ..v1::RiskObserved::default()
        })),
        ..v1::Signal::default()
    };
    v1::ReportSignalsRequest { signals: (from..from + size).map(signal).collect() }
}

async fn decisions(channel: Channel, until: Instant) -> Histogram<u64> {
    let mut client = DecisionServiceClient::new(channel);
    let mut histogram = Histogram::<u64>::new(3).unwrap();
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        let attempt = v1::Attempt {
            principal: Some(agent(number % 200_000)),
            action: Some(v1::EntityRef { r#type: String::new(), id: "read".to_owned() }),
            resource: Some(v1::EntityRef { r#type: "Table".to_owned(), id: "t".to_owned() }),
            ..v1::Attempt::default()
        };
        let asked = Instant::now();
        client.decide(v1::DecideRequest { attempt: Some(attempt) }).await.unwrap();
        histogram.record(u64::try_from(asked.elapsed().as_micros()).unwrap()).unwrap();
    }
    histogram
}

async fn report(options: &Signals) {
    let node = Node::start(&options.cardea);
    let quiet = decisions(node.channel().await, Instant::now() + Duration::from_secs(3)).await;
    let channel = node.channel().await;
    let until = Instant::now() + Duration::from_secs(options.seconds);
    let asking = tokio::task::LocalSet::new();
    let deciding = node.channel().await;
    let (disturbed, (acknowledged, latency, spent)) = asking
        .run_until(async move {
            let deciding = tokio::task::spawn_local(decisions(deciding, until));
            let reporting = reporting(options, channel).await;
            (deciding.await.unwrap(), reporting)
        })
        .await;
    println!(
        "signals      {acknowledged} durable in {:.2} s: {:.0} a second of {} asked for",
        spent.as_secs_f64(),
        acknowledged as f64 / spent.as_secs_f64(),
        options.rate
    );
    let ms = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "acknowledged {:.2} ms (p50), {:.2} ms (p99), of calls with {} signals",
        ms(&latency, 0.5),
        ms(&latency, 0.99),
        options.batch
    );
    for (what, histogram) in [("quiet", &quiet), ("with signals", &disturbed)] {
        println!(
            "decisions    {what}: {} answered one after the other, p50 {:.3} ms, p99 {:.3} ms",
            histogram.len(),
            ms(histogram, 0.5),
            ms(histogram, 0.99)
        );
    }
}

/// Sends calls when they are due, however long the answers take; gives how many signals were acknowledged, how long the calls
/// took since they were due, and how long all of it.
async fn reporting(options: &Signals, channel: Channel) -> (u64, Histogram<u64>, Duration) {
    let calls = options.rate * options.seconds / options.batch;
    let every = Duration::from_secs_f64(options.batch as f64 / options.rate as f64);
    let started = tokio::time::Instant::now();
    let mut sent = tokio::task::JoinSet::new();
    for call in 0..calls {
        let due = started + every * u32::try_from(call).unwrap();
        tokio::time::sleep_until(due).await;
        let mut client = SignalServiceClient::new(channel.clone());
        let request = batch(call * options.batch, options.batch);
        sent.spawn_local(async move {
            let answer = client.report(request).await.unwrap().into_inner();
            (answer.outcomes.len(), due.elapsed())
        });
    }
    let mut histogram = Histogram::<u64>::new(3).unwrap();
    let mut acknowledged = 0;
    while let Some(answer) = sent.join_next().await {
        let (count, took) = answer.unwrap();
        acknowledged += u64::try_from(count).unwrap();
        histogram.record(u64::try_from(took.as_micros()).unwrap()).unwrap();
    }
    (acknowledged, histogram, started.elapsed())
}
