//! The do-nothing service: decodes the requests that Cardea decodes and returns a constant answer.
//!
//! Prints one JSON line when it listens, in the form that `cardea serve` prints, and serves until it is killed.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool speaks on its streams")]

use std::{
    convert::Infallible,
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    process::ExitCode,
    sync::mpsc::sync_channel,
    thread,
};

use cardea_benches::noop::{Answers, serve};
use clap::{Parser, ValueEnum};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A service that does nothing: the yardstick for Cardea's cost of a call.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Worker threads, each with a runtime of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Size of the answer to one attempt, in bytes
    #[arg(long)]
    answer_bytes: Option<usize>,
    /// Size of the answer to one Envoy check, in bytes
    #[arg(long)]
    check_bytes: Option<usize>,
    /// Form of the line that tells the address
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Human,
    Json,
}

fn main() -> ExitCode {
    let Err(error) = run(&Args::parse());
    eprintln!("noop: {error}");
    ExitCode::FAILURE
}

fn run(args: &Args) -> io::Result<Infallible> {
    let listener = TcpListener::bind(args.listen)?;
    let addr = listener.local_addr()?;
    let answers = Answers::sized(args.answer_bytes, args.check_bytes);
    // A worker serves until its listener fails; the first failure ends the process.
    let (failed, failure) = sync_channel(1);
    for worker in 0..args.workers {
        let (listener, answers, failed) = (listener.try_clone()?, answers.clone(), failed.clone());
        let body = move || {
            let Err(error) = serve(listener, &answers);
            let _ = failed.send(error);
        };
        thread::Builder::new().name(format!("worker-{worker}")).spawn(body)?;
    }
    drop(failed);
    match args.format {
        Format::Human => {
            let (verdict, check) = answers.bytes();
            println!("listening on {addr}; answers of {verdict} bytes, checks of {check} bytes");
        }
        Format::Json => println!("{}", serde_json::json!({ "event": "ready", "grpc": [addr.to_string()] })),
    }
    io::stdout().flush()?;
    Err(failure.recv().unwrap_or_else(|_gone| io::Error::other("a worker panicked")))
}
