//! What a bundle costs from its files to its swap, and what decisions notice of it.
//!
//! `swap stages` times each step in process and reads the peak memory; `swap live` starts a real node on a signed, packed
//! bundle, puts it under half of the load that it can take, and renames new revisions over the bundle: how long until each is
//! in force, how many calls fail, and the p99 beside the p99 without swaps.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench that cannot set itself up has nothing to say"
)]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cardea_benches::answer::Expect;
use cardea_benches::call::{Calls, Mode};
use cardea_benches::load::{self, Plan};
use cardea_benches::record::{Report, Shape};
use cardea_benches::request::{DEFAULT_REQUEST, Overrides, variant};
use cardea_policy_store::disk::{Disk, InForce};
use cardea_policy_store::dsse::{Envelope, Signature, pae};
use cardea_policy_store::keys::PrivateKey;
use cardea_policy_store::load::Files;
use cardea_policy_store::pack::{self, Packed};
use cardea_policy_store::statement::{CheckEvidence, Evidence, PAYLOAD_TYPE, Statement, Tool};
use cardea_policy_store::store::PolicyStore;
use cardea_policy_store::trust::{Expiry, Trust};
use clap::{Args, Parser};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a bundle costs from its files to its swap.
#[derive(Parser)]
enum Cli {
    /// Time each stage in process.
    Stages(Size),
    /// Swap revisions under a real node at half load.
    Live(Live),
}

#[derive(Args)]
struct Size {
    /// Policies beside those of benches/bundle.
    #[arg(long, default_value_t = 10_000)]
    policies: usize,
    /// Entities beside those of benches/bundle.
    #[arg(long, default_value_t = 100_000)]
    entities: usize,
}

#[derive(Args)]
struct Live {
    #[command(flatten)]
    size: Size,
    /// Swaps under load.
    #[arg(long, default_value_t = 5)]
    swaps: u64,
    /// The program.
    #[arg(long, default_value = "target/release/cardea")]
    cardea: PathBuf,
}

fn main() {
    match Cli::parse() {
        Cli::Stages(size) => stages(&size),
        Cli::Live(live) => run_live(&live),
    }
}

/// The bench's bundle with more policies and entities; `revision` makes each content its own.
fn files(size: &Size, revision: u64) -> Files {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("bundle");
    let mut files = cardea_policy_store::load::read_directory(&dir).unwrap();
    let mut policies = format!("// revision {revision}\n");
    for at in 0..size.policies {
        write!(
            policies,
            "@id(\"gen-{at}\")\npermit (principal in Bench::Team::\"t{at}\", action == Bench::Action::\"read\", resource in \
             Bench::Folder::\"f{at}\")\nwhen {{ context.session.known && context.risk.score < {} }};\n",
            at % 90 + 1
        )
        .unwrap();
    }
    files.insert("policies/generated.cedar".into(), policies.into_bytes());
    let own: serde_json::Value = serde_json::from_slice(&files[Path::new("entities.json")]).unwrap();
    let mut entities = own.as_array().unwrap().clone();
    let groups = size.policies.max(1);
    for at in 0..size.entities {
        let (kind, parent, group) =
            if at % 2 == 0 { ("Agent", "Team", "t") } else { ("Document", "Folder", "f") };
        entities.push(serde_json::json!({
            "uid": { "type": format!("Bench::{kind}"), "id": format!("gen-{at}") }, "attrs": {},
            "parents": [{ "type": format!("Bench::{parent}"), "id": format!("{group}{}", at / 2 % groups) }]
        }));
    }
    files.insert("entities.json".into(), serde_json::to_vec(&entities).unwrap());
    files
}

fn packed(files: &Files, revision: u64) -> Packed {
    Packed::new(pack::manifest_for("bench", revision, files), files).unwrap()
}

/// Signed without evidence of tests: what it costs to prove a bundle is CI's time, not the node's.
fn signed(packed: &Packed, revision: u64, key: &PrivateKey) -> Packed {
    let evidence = Evidence {
        name: "bench".into(),
        revision,
        tool: Tool { name: "cardea".into(), version: "bench".into() },
        check: CheckEvidence::default(),
        tests: None,
    };
    let payload = Statement::about(packed.digest(), &packed.manifest().unwrap(), evidence).to_json();
    let bytes = key.sign(&pae(PAYLOAD_TYPE, &payload));
    let signatures = vec![Signature { key_id: key.public().id().to_string(), bytes }];
    packed.with_envelope(&Envelope { payload_type: PAYLOAD_TYPE.into(), payload, signatures }.to_json())
}

fn trust(key: &PrivateKey) -> String {
    format!("[[key]]\nname = \"bench\"\npublic_key = \"{}\"\n", key.public().to_base64())
}

fn stages(size: &Size) {
    let files = files(size, 1);
    let bytes: usize = files.values().map(Vec::len).sum();
    let key = PrivateKey::generate().unwrap().0;
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(dir.path()).unwrap();
    let trust = Trust::parse("trust.toml", &trust(&key)).unwrap();
    let started = Instant::now();
    let mut last = started;
    let mut lap = |what: &str| {
        let now = Instant::now();
        println!("{what:32} {:>9.1} ms", (now - last).as_secs_f64() * 1e3);
        last = now;
    };
    let packed = packed(&files, 1);
    drop(files);
    lap("build (hash, tar, zstd)");
    let signed = signed(&packed, 1, &key);
    lap("sign");
    let read = Packed::from_bytes(signed.bytes().to_vec()).unwrap();
    let verified = trust.verify(&read, 0, Expiry::Refuse).unwrap();
    lap("verify (signature, unpack)");
    let loaded = cardea_policy_store::load::files(&verified.files).unwrap();
    lap("parse, validate, index");
    let snapshot = loaded.snapshot.identified(&verified.manifest, verified.digest);
    snapshot.warm();
    lap("warm");
    disk.keep(&read).unwrap();
    disk.commit(InForce { revision: 1, digest: verified.digest, rollback_of: None }).unwrap();
    lap("keep on disk");
    let store = PolicyStore::default();
    store.activate(Arc::new(snapshot)).unwrap();
    lap("swap");
    println!("{:32} {:>9.1} ms", "all", started.elapsed().as_secs_f64() * 1e3);
    println!(
        "{} policies, {} entities, {:.1} MB of files, {:.2} MB packed, peak memory {} MiB",
        size.policies,
        size.entities,
        bytes as f64 / 1e6,
        signed.bytes().len() as f64 / 1e6,
        peak_mib()
    );
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
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
    fn start(program: &Path, dir: &Path) -> Self {
        let mut child = Command::new(program)
            .args([
                "serve",
                "--format",
                "json",
                "--listen",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
                "--workers",
                "1",
            ])
            .args(["--log-filter", "error", "--bundle"])
            .arg(dir.join("bench.cardea"))
            .arg("--trust")
            .arg(dir.join("trust.toml"))
            .arg("--store")
            .arg(dir.join("store"))
            .arg("--audit-dir")
            .arg(dir.join("audit"))
            .arg("--state-dir")
            .arg(dir.join("state"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = |value: &serde_json::Value| value.as_str().unwrap().parse().unwrap();
        Self { grpc: address(&ready["grpc"][0]), http: address(&ready["http"]), child }
    }

    fn revision(&self) -> u64 {
        let mut socket = TcpStream::connect(self.http).unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        socket.read_to_string(&mut page).unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix("cardea_snapshot_revision "));
        value.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
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

fn run_live(live: &Live) {
    let dir = tempfile::tempdir().unwrap();
    let key = PrivateKey::generate().unwrap().0;
    let place = |revision: u64| dir.path().join(format!("{revision}.next"));
    std::fs::write(dir.path().join("trust.toml"), trust(&key)).unwrap();
    for revision in 1..=live.swaps + 1 {
        let packed = packed(&files(&live.size, revision), revision);
        std::fs::write(place(revision), signed(&packed, revision, &key).bytes()).unwrap();
    }
    let bundle = dir.path().join("bench.cardea");
    std::fs::rename(place(1), &bundle).unwrap();
    let started = Instant::now();
    let node = Node::start(&live.cardea, dir.path());
    println!("start to ready: {:.0} ms", started.elapsed().as_secs_f64() * 1e3);
    let most = node.load(Shape::InFlight(16), 2.0);
    let rate = (most.calls_per_s / 2.0) as u32;
    println!("closed loop {:.0} calls/s; half load {rate} calls/s", most.calls_per_s);
    let seconds = 4.0 * live.swaps as f64;
    let quiet = node.load(Shape::PerSecond(rate), seconds);
    let (busy, took) = std::thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            let mut took = Vec::new();
            for revision in 2..=live.swaps + 1 {
                std::thread::sleep(Duration::from_millis(800));
                let started = Instant::now();
                std::fs::rename(place(revision), &bundle).unwrap();
                while node.revision() < revision {
                    assert!(
                        started.elapsed() < Duration::from_secs(30),
                        "revision {revision} is not in force"
                    );
                    std::thread::sleep(Duration::from_millis(10));
                }
                took.push(started.elapsed().as_secs_f64() * 1e3);
            }
            took
        });
        (node.load(Shape::PerSecond(rate), seconds), swapping.join().unwrap())
    });
    for (name, report) in [("quiet", &quiet), ("swapping", &busy)] {
        let us = &report.latency_us;
        println!(
            "{name:9} calls {:>7}  failed {}  p50 {:>7.0} us  p99 {:>7.0} us  p99.9 {:>7.0} us  max {:>8.0} us  steal {:.1} %",
            report.calls,
            report.faults.total(),
            us.p50,
            us.p99,
            us.p99_9,
            us.max,
            report.steal_percent
        );
    }
    let took: Vec<String> = took.iter().map(|ms| format!("{ms:.0}")).collect();
    println!("rename to in force, ms: {} (200 ms of it wait for the file to rest)", took.join(", "));
    println!("p99 while swapping / quiet: {:.2}", busy.latency_us.p99 / quiet.latency_us.p99);
}
