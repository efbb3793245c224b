//! How long until an allow is taken back, and what a new bundle costs those who hold some.
//!
//! A real node with many holds on a few streams. First a risk signal about one principal, whose one hold depends on it: from
//! the call that reports it to the push. Then new bundles under half of the load that the node can take: how long until all
//! holds were judged again, and the p99 of decisions beside the p99 without.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench that cannot set itself up has nothing to say"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cardea_benches::answer::Expect;
use cardea_benches::call::{Calls, Mode};
use cardea_benches::load::{self, Plan};
use cardea_benches::record::{Report, Shape};
use cardea_benches::request::{DEFAULT_REQUEST, Overrides, variant};
use cardea_proto::v1;
use cardea_proto::v1::decision_service_client::DecisionServiceClient;
use cardea_proto::v1::hold_request::Part as Asked;
use cardea_proto::v1::hold_response::Part as Said;
use cardea_proto::v1::signal_service_client::SignalServiceClient;
use clap::Parser;
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// Attempts in one message.
const MESSAGE: usize = 1024;
/// The hold that the signals are about.
const VICTIM: u64 = 1;

/// How long until an allow is taken back, and what a new bundle costs those who hold some.
#[derive(Parser)]
struct Cli {
    /// Holds of the node.
    #[arg(long, default_value_t = 100_000)]
    holds: u64,
    /// Streams that they are spread over.
    #[arg(long, default_value_t = 4)]
    streams: u64,
    /// Signals, each of which changes the answer to one hold.
    #[arg(long, default_value_t = 2000)]
    signals: u64,
    /// Rounds of load, each first without and then with new bundles.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// New bundles in a round.
    #[arg(long, default_value_t = 2)]
    swaps: u64,
    /// Seconds of load, without and with new bundles.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The program.
    #[arg(long, default_value = "target/release/cardea")]
    cardea: PathBuf,
}

fn main() {
    let cli = Cli::parse();
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("bundle"), &bundle);
    write_policy(&bundle, 0);
    let node = Node::start(&cli.cardea, dir.path(), &bundle);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut points, registering) = runtime.block_on(register(&cli, &node));
    println!(
        "{} holds on {} streams, registered in {:.2} s",
        cli.holds,
        cli.streams,
        registering.as_secs_f64()
    );
    println!("resident memory of the node: {} MiB", node.resident_mib());
    runtime.block_on(signals(&cli, &node, &mut points[0]));
    // Streams are read on, or their answers would pile up.
    let reading = std::thread::spawn(move || {
        runtime.block_on(async move {
            let mut set = tokio::task::JoinSet::new();
            for point in points {
                set.spawn(async move {
                    // The whole of it: a sending side that is dropped means that the caller is done.
                    let Point { asked, mut told } = point;
                    while told.message().await.is_ok_and(|message| message.is_some()) {}
                    drop(asked);
                });
            }
            set.join_all().await;
        });
    });
    swaps(&cli, &node, &bundle);
    drop(node);
    reading.join().unwrap();
}

struct Point {
    /// Kept open: closing it ends the stream.
    asked: mpsc::Sender<v1::HoldRequest>,
    told: Streaming<v1::HoldResponse>,
}

fn attempt(hold_id: u64) -> v1::Attempt {
    let mut attempt = variant(DEFAULT_REQUEST, 0, &Overrides::default()).unwrap().attempt;
    attempt.principal =
        Some(v1::EntityRef { r#type: "Bench::Agent".to_owned(), id: format!("hold-{hold_id}") });
    attempt.session_id = String::new();
    attempt
}

async fn register(cli: &Cli, node: &Node) -> (Vec<Point>, Duration) {
    let began = Instant::now();
    let mut points = Vec::new();
    let ids: Vec<u64> = (1..=cli.holds).collect();
    for ids in ids.chunks(ids.len().div_ceil(cli.streams as usize)) {
        let mut client = DecisionServiceClient::new(node.channel().await).max_decoding_message_size(16 << 20);
        let (asked, requests) = mpsc::channel(4);
        let open = v1::HoldOpen { enforcement_point: "bench".to_owned(), ..v1::HoldOpen::default() };
        asked.send(v1::HoldRequest { part: Some(Asked::Open(open)) }).await.unwrap();
        let mut told = client.hold(ReceiverStream::new(requests)).await.unwrap().into_inner();
        for ids in ids.chunks(MESSAGE) {
            let hold =
                |hold_id: &u64| v1::HoldAttempt { hold_id: *hold_id, attempt: Some(attempt(*hold_id)) };
            let holds = ids.iter().map(hold).collect();
            asked.send(v1::HoldRequest { part: Some(Asked::Add(v1::HoldAdd { holds })) }).await.unwrap();
            let mut answered = 0;
            while answered < ids.len() {
                if let Some(Said::Verdicts(verdicts)) = told.message().await.unwrap().unwrap().part {
                    let allowed = |answer: &v1::HoldVerdict| {
                        answer
                            .verdict
                            .as_ref()
                            .is_some_and(|verdict| verdict.decision() == v1::Decision::Allow)
                    };
                    assert!(verdicts.verdicts.iter().all(allowed), "{:?}", verdicts.verdicts[0]);
                    answered += verdicts.verdicts.len();
                }
            }
        }
        points.push(Point { asked, told });
    }
    (points, began.elapsed())
}

async fn signals(cli: &Cli, node: &Node, point: &mut Point) {
    let mut client = SignalServiceClient::new(node.channel().await);
    let mut latencies = Histogram::<u64>::new(3).unwrap();
    let mut acknowledged = Histogram::<u64>::new(3).unwrap();
    for number in 0..cli.signals {
        let observed = v1::RiskObserved {
            kind: v1::RiskKind::Operator.into(),
            severity: if number % 2 == 0 { 100 } else { 0 },
            confidence: 100,
            half_life: None,
            reason: String::new(),
        };
        let signal = v1::Signal {
            subject: attempt(VICTIM).principal,
            event_time: None,
            source: "bench".to_owned(),
            change: Some(v1::signal::Change::Risk(observed)),
        };
        // Two signals of one millisecond could count as one.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let began = Instant::now();
        let reported = client.report(v1::ReportSignalsRequest { signals: vec![signal] });
        let pushed = async {
            loop {
                match point.told.message().await.unwrap().unwrap().part {
                    Some(Said::Verdicts(verdicts)) if verdicts.verdicts[0].hold_id == VICTIM => {
                        return began.elapsed();
                    }
                    Some(Said::Forget(forget)) => panic!("{forget:?}"),
                    _ => {}
                }
            }
        };
        let reported = async {
            reported.await.unwrap();
            began.elapsed()
        };
        let (reported, pushed) = tokio::join!(reported, pushed);
        latencies.record(pushed.as_micros() as u64).unwrap();
        acknowledged.record(reported.as_micros() as u64).unwrap();
    }
    println!(
        "\n{:28} {:>9} {:>9} {:>9} {:>9}",
        format!("{} signals", cli.signals),
        "p50 us",
        "p99 us",
        "p99.9 us",
        "max us"
    );
    for (name, times) in [("reported to pushed", &latencies), ("reported to acknowledged", &acknowledged)] {
        println!(
            "{name:28} {:>9} {:>9} {:>9} {:>9}",
            times.value_at_quantile(0.5),
            times.value_at_quantile(0.99),
            times.value_at_quantile(0.999),
            times.max()
        );
    }
    println!("budget: pushed within 1000 us at p99");
}

fn swaps(cli: &Cli, node: &Node, bundle: &Path) {
    let most = node.load(Shape::InFlight(16), 2.0);
    let rate = (most.calls_per_s / 2.0) as u32;
    println!("\nclosed loop {:.0} calls/s; half load {rate} calls/s", most.calls_per_s);
    println!(
        "{:>5} {:>14} {:>14} {:>7} {:>7}  judged again, ms",
        "round", "quiet p99 us", "swaps p99 us", "ratio", "failed"
    );
    let (mut ratios, mut took) = (Vec::new(), Vec::new());
    for round in 1..=cli.rounds {
        let quiet = node.load(Shape::PerSecond(rate), cli.seconds);
        let (busy, of_round) = std::thread::scope(|scope| {
            let swapping = scope.spawn(|| {
                (1..=cli.swaps)
                    .map(|swap| swapped(cli, node, bundle, round * cli.swaps + swap))
                    .collect::<Vec<_>>()
            });
            (node.load(Shape::PerSecond(rate), cli.seconds), swapping.join().unwrap())
        });
        let (quiet_us, busy_us) = (quiet.latency_us.p99, busy.latency_us.p99);
        let ratio = busy_us / quiet_us;
        let failed = quiet.faults.total() + busy.faults.total();
        let texts: Vec<String> = of_round.iter().map(|ms| format!("{ms:.0}")).collect();
        println!(
            "{round:>5} {quiet_us:>14.0} {busy_us:>14.0} {ratio:>7.2} {failed:>7}  {}",
            texts.join(", ")
        );
        ratios.push(ratio);
        took.extend(of_round);
    }
    for (name, budget, of) in [
        ("p99 with new bundles / quiet", 2.0, &mut ratios),
        ("all holds judged again, ms", 1000.0, &mut took),
    ] {
        of.sort_by(f64::total_cmp);
        let at = |share: f64| of[((of.len() - 1) as f64 * share).round() as usize];
        println!("{name}: median {:.2}, from {:.2} to {:.2} (budget {budget})", at(0.5), at(0.0), at(1.0));
    }
}

/// Puts a new bundle in force; how long all holds took to be judged again, in milliseconds.
fn swapped(cli: &Cli, node: &Node, bundle: &Path, number: u64) -> f64 {
    std::thread::sleep(Duration::from_millis(500));
    let sweeps = node.metric("cardea_hold_sweeps_total");
    assert!((node.metric("cardea_holds") - cli.holds as f64).abs() < 0.5, "holds were lost");
    write_policy(bundle, number);
    let began = Instant::now();
    while node.metric("cardea_hold_sweeps_total") <= sweeps {
        assert!(began.elapsed() < Duration::from_secs(60), "not all holds were judged again");
        std::thread::sleep(Duration::from_millis(20));
    }
    node.metric("cardea_hold_sweep_seconds") * 1e3
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What lets the holds' principals in; each number makes another bundle of the same meaning.
fn write_policy(bundle: &Path, number: u64) {
    let policy = format!(
        "// {number}\n@id(\"holders-read\")\npermit (principal, action == Bench::Action::\"read\", resource in Bench::Folder::\"reports\");\n"
    );
    let beside = bundle.with_extension("next");
    fs::write(&beside, policy).unwrap();
    fs::rename(&beside, bundle.join("policies/holders.cedar")).unwrap();
}

/// A running node; dropping it ends it.
struct Node {
    child: Child,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Node {
    fn start(program: &Path, dir: &Path, bundle: &Path) -> Self {
        let program = fs::canonicalize(program)
            .expect("the program; build it with `cargo build --release -p cardea-server`");
        let mut child = Command::new(program)
            .args(["serve", "--format", "json", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(["--workers", "1", "--log-filter", "error", "--allow-unsigned", "--bundle"])
            .arg(bundle)
            .arg("--store")
            .arg(dir.join("store"))
            .arg("--audit-dir")
            .arg(dir.join("audit"))
            .current_dir(dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = |value: &serde_json::Value| value.as_str().unwrap().parse().unwrap();
        Self { grpc: address(&ready["grpc"][0]), http: address(&ready["http"]), child }
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await.unwrap()
    }

    fn metric(&self, name: &str) -> f64 {
        let mut socket = TcpStream::connect(self.http).unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        socket.read_to_string(&mut page).unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    fn resident_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    fn load(&self, shape: Shape, seconds: f64) -> Report {
        let variants: Vec<_> =
            (0..10).map(|n| variant(DEFAULT_REQUEST, n, &Overrides::default()).unwrap()).collect();
        let plan = Plan {
            addr: self.grpc,
            shape,
            connections: 1,
            warm_up: Duration::from_millis(300),
            span: Duration::from_secs_f64(seconds),
            expect: Expect::Allow,
            server_pid: Some(self.child.id()),
            canary: Duration::from_millis(60),
        };
        load::run(&plan, Calls::encode(Mode::Unary, 1, &variants).unwrap()).unwrap()
    }
}
