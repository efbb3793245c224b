//! What a shadow costs the caller: `Pipeline::judge` with no shadow, and with one on 1 %, 10 % and all attempts.
//!
//! The question: does a candidate that is evaluated on the side change the latency of live decisions? One thread decides,
//! the shadow's own thread evaluates the same bundle as candidate, the audit writes; as in the service. The variants take
//! turns in one run. Latency is of single calls and includes the cost of reading the clock.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot set itself up has nothing to say")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use cardea_benches::inside::{judge, pipeline};
use cardea_core::verdict::Decision;
use cardea_server::audit::{AuditConfig, WhenFull};
use cardea_server::bundle_admin::{Asked, Source};
use cardea_server::pipeline::Pipeline;
use cardea_server::shadow::Candidate;
use cardea_server::shutdown::Shutdown;
use clap::Parser;
use hdrhistogram::Histogram;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a shadow costs the caller.
#[derive(Parser)]
struct Args {
    /// Shares of the attempts that are evaluated, of 10,000; 0: no shadow.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100, 1_000, 10_000])]
    samples: Vec<u32>,
    /// Rounds of each variant.
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// Calls in a round.
    #[arg(long, default_value_t = 5_000)]
    calls: usize,
    /// Only decide this many times with the first share and no thread beside it, for callgrind.
    #[arg(long)]
    only: Option<usize>,
}

/// Rest between rounds: queues run empty, so that a round does not pay for the one before.
const REST: Duration = Duration::from_millis(50);

struct Variant {
    sample: u32,
    latency: Histogram<u64>,
    mean_ns: Vec<f64>,
    evaluated: u64,
    skipped: u64,
}

fn main() {
    let args = Args::parse();
    let dir = tempfile::tempdir().unwrap();
    let audit =
        AuditConfig { when_full: WhenFull::CountGap, ..AuditConfig::in_dir(dir.path().join("audit")) };
    let pipeline = pipeline(&audit);
    // The first attempt of each session opens it.
    (0..100).for_each(|at| assert_eq!(judge(&pipeline, at), Decision::Allow));
    if let Some(calls) = args.only {
        start(&pipeline, args.samples.first().copied().unwrap_or(0));
        for at in 0..calls {
            black_box(judge(&pipeline, at));
        }
        return;
    }
    let shutdown = Shutdown::new();
    let mut variants: Vec<Variant> = args
        .samples
        .iter()
        .map(|sample| Variant {
            sample: *sample,
            latency: Histogram::new(3).unwrap(),
            mean_ns: Vec::new(),
            evaluated: 0,
            skipped: 0,
        })
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| pipeline.shadow().run(&pipeline, &shutdown));
        for _ in 0..args.rounds {
            for variant in &mut variants {
                round(&pipeline, variant, args.calls);
            }
        }
        shutdown.drain();
    });
    print(&mut variants);
}

fn round(pipeline: &Pipeline, variant: &mut Variant, calls: usize) {
    start(pipeline, variant.sample);
    std::thread::sleep(REST);
    let begun = Instant::now();
    for at in 0..calls {
        let before = Instant::now();
        black_box(judge(pipeline, at));
        let _beyond = variant.latency.record(u64::try_from(before.elapsed().as_nanos()).unwrap());
    }
    let calls = f64::from(u32::try_from(calls).unwrap());
    variant.mean_ns.push(begun.elapsed().as_secs_f64() * 1e9 / calls);
    std::thread::sleep(REST);
    if let Some(run) = pipeline.shadow().stop(None) {
        let tally = run.tally();
        assert_eq!(tally.same, tally.evaluated, "a bundle differs from itself");
        variant.evaluated += tally.evaluated;
        variant.skipped += run.skipped();
    }
}

/// Starts the bundle in force as its own candidate.
fn start(pipeline: &Pipeline, sample: u32) {
    if sample == 0 {
        return;
    }
    let snapshot = pipeline.policy().snapshot().unwrap();
    let candidate = Candidate {
        source: Source::Digest(snapshot.digest().clone()),
        snapshot,
        sample_per_10000: sample,
        asked: Asked::default(),
        started_ms: 0,
    };
    pipeline.shadow().start(candidate, true).unwrap();
}

fn print(variants: &mut [Variant]) {
    println!("sampled    mean ns [min..max]          p50 ns  p99 ns  p99.9 ns  evaluated   skipped");
    for variant in variants {
        variant.mean_ns.sort_by(f64::total_cmp);
        let at = |share: usize| {
            let last = variant.mean_ns.len().saturating_sub(1);
            variant.mean_ns.get(last * share / 100).copied().unwrap_or_default()
        };
        let quantile = |of: f64| variant.latency.value_at_quantile(of);
        println!(
            "{:>6.2} %  {:>8.0} [{:>6.0}..{:>6.0}]  {:>13}  {:>6}  {:>8}  {:>9}  {:>8}",
            f64::from(variant.sample) / 100.0,
            at(50),
            at(0),
            at(100),
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            variant.evaluated,
            variant.skipped
        );
    }
}
