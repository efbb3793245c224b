//! What an answer from the client's memory costs: `CachedClient::reuse`, and `CachedClient::decide` on a hit.
//!
//! The question: does an allow that is reused cost under 200 ns? The allows come over a real connection from the do-nothing
//! service, which leases them for an hour. The attempts are those of `request.json`: five context values, a session and a
//! token, all of which are compared. Each row times whole rounds over all attempts, so the clock is read once for each
//! round; the median of the rounds counts.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot set itself up has nothing to say")]

use std::hint::black_box;
use std::net::TcpListener;
use std::thread;
use std::time::Instant;

use cardea_benches::noop::{Answers, serve};
use cardea_benches::request::{self, Overrides};
use cardea_client::{CachedClient, Client, VerdictExt as _};
use cardea_proto::v1::{Attempt, Lease};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What an answer from the client's memory costs.
#[derive(Parser)]
struct Args {
    /// Different attempts, each with an allow in memory
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 10_000])]
    allows: Vec<u32>,
    /// Threads that ask at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Answers in a round, about
    #[arg(long, default_value_t = 100_000)]
    answers: usize,
    /// Rounds; the median counts
    #[arg(long, default_value_t = 21)]
    rounds: usize,
}

/// Places for each allow: so many that no set is ever full, and every attempt finds its allow.
const PLACES: usize = 16;
/// An hour: longer than any run.
const LEASE_MS: u32 = 3_600_000;

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("budget: 200 ns for each answer");
    println!("{:>7} {:>8} {:>8} {:>12} {:>12}", "allows", "threads", "context", "reuse ns", "decide ns");
    for on_context in [true, false] {
        let address = service(on_context);
        let client = runtime.block_on(Client::connect(format!("http://{address}"))).unwrap();
        for &allows in &args.allows {
            let attempts: Vec<Attempt> = (0..allows).map(attempt).collect();
            let cached = CachedClient::new(client.clone(), PLACES * attempts.len());
            for attempt in &attempts {
                let answer = runtime.block_on(cached.decide(attempt.clone())).unwrap();
                assert!(answer.verdict.is_allowed() && !answer.reused);
            }
            for &threads in &args.threads {
                let reuse_ns =
                    measured(&args, threads, &attempts, |attempt| black_box(cached.reuse(attempt)).is_some());
                let decide_ns = measured(&args, threads, &attempts, |attempt| {
                    // An answer from memory is there at the first poll.
                    let deciding = std::pin::pin!(cached.decide(attempt));
                    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                    matches!(deciding.poll(&mut context), std::task::Poll::Ready(Ok(answer)) if answer.reused)
                });
                let context = if on_context { "compared" } else { "left out" };
                println!("{allows:>7} {threads:>8} {context:>8} {reuse_ns:>12.0} {decide_ns:>12.0}");
            }
        }
    }
}

fn attempt(n: u32) -> Attempt {
    request::variant(include_str!("../../request.json"), n, &Overrides::default()).unwrap().attempt
}

/// Starts the do-nothing service on a thread; it ends with the process.
fn service(on_context: bool) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let lease = Lease { lease_ms: LEASE_MS, held_lease_ms: LEASE_MS, on_context, ..Lease::default() };
    let answers = Answers::sized(None, None).leased(lease);
    thread::spawn(move || serve(listener, &answers).map(drop));
    address
}

/// Nanoseconds for each answer, the median of the rounds, of the slowest thread in each.
fn measured(args: &Args, threads: usize, attempts: &[Attempt], ask: impl Fn(&Attempt) -> bool + Sync) -> f64 {
    let passes = args.answers.div_ceil(attempts.len()).max(1);
    let round = || {
        let start = Instant::now();
        for _ in 0..passes {
            for attempt in attempts {
                assert!(ask(attempt), "an allow that was kept is not reused");
            }
        }
        start.elapsed().as_secs_f64() * 1e9 / (passes * attempts.len()) as f64
    };
    let mut rounds: Vec<f64> = (0..args.rounds)
        .map(|_| {
            thread::scope(|scope| {
                let running: Vec<_> = (0..threads).map(|_| scope.spawn(round)).collect();
                running.into_iter().map(|thread| thread.join().unwrap()).fold(0.0, f64::max)
            })
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}
