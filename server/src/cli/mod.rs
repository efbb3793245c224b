//! The command line: one file per command.

mod audit;
mod baseline;
mod bundle;
pub mod demo;
mod drawn;
mod eval;
mod hold;
mod monitor;
mod records;
mod replay;
mod review;
mod serve;
mod session;
mod signal;
mod task;
mod watch;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Zero Trust decision point: Cedar policy joined with live session, risk and behaviour facts.
///
/// Gateways, service meshes and agent runtimes ask Cardea about every access attempt and get allow, step-up or deny.
#[derive(Debug, Parser)]
#[command(
    name = "cardea",
    version,
    arg_required_else_help = true,
    after_help = "\
Start here:
  cardea demo                          watch the example bundle decide, over real gRPC
  cardea bundle check examples/agents  check a bundle
  cardea serve --bundle examples/agents --allow-unsigned
  cardea eval --policies p.cedar --requests r.jsonl"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve decisions over gRPC (native and Envoy ext_authz).
    Serve(ServeArgs),
    /// Play the stories of the example bundle, over real gRPC, and go on serving it.
    ///
    /// Exit code 0: every verdict was the one that its story tells; 1: one was not; 2: could not run.
    Demo(DemoArgs),
    /// Work with bundles of policy.
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// See and end sessions on a running node.
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Tell a running node that a fact changed: risk, a revocation, a disabled principal.
    #[command(subcommand)]
    Signal(signal::SignalCommand),
    /// Approve pieces of work on a running node, and take them back.
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// See what waits for an approval on a running node, and decide about it.
    #[command(subcommand)]
    Review(review::ReviewCommand),
    /// Look at the allows that enforcement points hold.
    #[command(subcommand)]
    Hold(hold::HoldCommand),
    /// Learn what approved runs of an identity did, and score recorded attempts against it.
    #[command(subcommand)]
    Monitor(monitor::MonitorCommand),
    /// Look at files of approved behaviour, compare them, and drop what is unused.
    #[command(subcommand)]
    Baseline(baseline::BaselineCommand),
    /// Read the audit log, and verify that it is what was signed.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Judge recorded decisions again: as they were, or as another bundle would have.
    ///
    /// Exit code 0: judged; 1: a decision of this very bundle comes out otherwise; 2: could not run.
    Replay(replay::ReplayArgs),
    /// Show what changes on a node as it happens: answers that are taken back, sessions, signals, bundles.
    ///
    /// Follows the audit stream until Ctrl-C. Exit code 0: interrupted; 2: could not run, or the node ended the stream.
    Watch(watch::WatchArgs),
    /// Evaluate requests against Cedar policies, one JSON line each.
    ///
    /// Reads one request per line, `{"principal":P,"action":A,"resource":R,"context":{…}}`, with P, A and R either
    /// {"type":"T","id":"x"} or "T::\"x\"", and prints one line per request in the same order. Runs the same index and the
    /// same decision function as the server. A line that cannot be read gets a deny with its error.
    Eval(EvalArgs),
}

/// How output looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// For programs.
    Json,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Configuration file; see docs/cardea.toml. Flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where bundles come from: a directory, a packed bundle, `https://…` or `oci://…`.
    #[arg(long, value_name = "SOURCE")]
    bundle: Option<String>,
    /// trust.toml: whose signatures count, and what must have been proven.
    #[arg(long, value_name = "FILE", conflicts_with = "allow_unsigned")]
    trust: Option<PathBuf>,
    /// Load bundles without asking for a signature. For development.
    #[arg(long)]
    allow_unsigned: bool,
    /// Directory of the bundles that this node keeps; the last good one serves at the next start.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Address for gRPC, again for more; port 0 picks a free one. Beyond loopback TLS must be configured.
    #[arg(long = "listen", value_name = "ADDR")]
    grpc: Vec<String>,
    /// Unix socket for gRPC.
    #[arg(long, value_name = "PATH")]
    uds: Option<PathBuf>,
    /// Address for /metrics, /healthz and /readyz.
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Directory of the audit records.
    #[arg(long, value_name = "DIR")]
    audit_dir: Option<PathBuf>,
    /// Directory of the sessions, revocations and risk that survive a restart.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Threads that serve; 0: one per core.
    #[arg(long, value_name = "N")]
    workers: Option<u64>,
    /// How the log looks: text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// What is logged, as tracing's filter: info, cardea_server=debug, …
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
    /// With json: one line on standard output when ready, with the addresses.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// End after the stories instead of serving until Ctrl-C.
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Args)]
struct EvalArgs {
    /// Cedar policies: a file, or a directory whose *.cedar files are read in the order of their paths.
    #[arg(long, value_name = "FILE_OR_DIR")]
    policies: PathBuf,
    /// Cedar schema (JSON if the name ends in .json); policies, entities and requests are checked against it.
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Entities in Cedar's JSON form.
    #[arg(long, value_name = "FILE")]
    entities: Option<PathBuf>,
    /// Requests, one JSON object per line; - reads standard input.
    #[arg(long, value_name = "FILE|-")]
    requests: PathBuf,
    /// What an erroring policy does: deny (Cardea's rule) or skip (Cedar's).
    #[arg(long, value_name = "RULE", value_enum, default_value_t = OnPolicyError::Deny)]
    on_policy_error: OnPolicyError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnPolicyError {
    /// An erroring forbid denies; an erroring permit does not count.
    Deny,
    /// An erroring policy is skipped.
    Skip,
}

/// Runs the command line.
#[must_use]
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bundle(command) => bundle::run(&command),
        Command::Session(command) => session::run(&command),
        Command::Signal(command) => signal::run(&command),
        Command::Task(command) => task::run(&command),
        Command::Review(command) => review::run(&command),
        Command::Hold(command) => hold::run(&command),
        Command::Monitor(command) => monitor::run(&command),
        Command::Baseline(command) => baseline::run(&command),
        Command::Audit(command) => audit::run(&command),
        Command::Replay(args) => replay::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Eval(args) => eval::run(&args),
    }
}

/// What exit codes mean.
mod exit {
    /// Fine.
    pub(super) const FINE: u8 = 0;
    /// Findings.
    pub(super) const FINDINGS: u8 = 1;
    /// Could not run.
    pub(super) const COULD_NOT_RUN: u8 = 2;
}
