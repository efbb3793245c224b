//! The configuration: `cardea.toml` and the flags over it, turned into a checked [`Config`] in one step.
//!
//! Every fault is reported at once, with its place and its remedy ([`Faults`]). The file is read from its
//! spanned syntax tree and not through serde derives, because those stop at the first wrong value. The commented
//! reference is `docs/cardea.toml`; a test holds it to the defaults here.
//! Paths in the file are relative to the file's directory; paths in flags to the working directory.
//! Limits: [`limits::CONFIG_BYTES_MAX`]; the bounds of each number are in `limits.rs`.
//! Never does: opening what it names (certificates, directories, sockets), changing after the start.

mod check;
mod fault;
mod read;
mod section;
mod sinks;
mod ssf;
mod transmitter;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

pub use fault::{Fault, Faults, Place};

use crate::limits;

/// Everything the process was told at its start, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[bundle]`
    pub bundle: Bundle,
    /// `[listen]`
    pub listen: Listen,
    /// `[tls]`; present as soon as a gRPC listener is not on loopback.
    pub tls: Option<Tls>,
    /// `[workers]`
    pub workers: Workers,
    /// `[audit]`
    pub audit: Audit,
    /// `[state]`
    pub state: State,
    /// `[ext_authz]`
    pub ext_authz: ExtAuthz,
    /// `[ssf]`
    pub ssf: Ssf,
    /// `[log]`
    pub log: Log,
}

/// Which policies are in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Where bundles come from.
    pub source: Source,
    /// Directory of the bundles that are kept.
    pub store: PathBuf,
    /// `trust.toml`: whose signatures count. None only where signatures are not asked for.
    pub trust: Option<PathBuf>,
    /// Whether a bundle without a signature is loaded.
    pub allow_unsigned: bool,
    /// What a bundle does that is past its end.
    pub when_stale: WhenStale,
    /// How many bundles stay in the store.
    pub keep: usize,
    /// How a source on the network is reached.
    pub remote: Remote,
}

/// How a source on the network is reached; paths only, no secret is ever in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Authorities that count beside those of the system, PEM.
    pub ca: Option<PathBuf>,
    /// Certificate to show, PEM.
    pub client_cert: Option<PathBuf>,
    /// Its key, PEM.
    pub client_key: Option<PathBuf>,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// User name.
    pub username: Option<String>,
    /// File with its password.
    pub password_file: Option<PathBuf>,
    /// Seconds between two looks.
    pub poll_s: u64,
    /// Seconds that an HTTPS server is asked to wait for a change; 0: it is not asked.
    pub wait_s: u64,
}

/// Where bundles come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory or a packed bundle in the file system.
    Local(PathBuf),
    /// `https://…` or `oci://…`.
    Remote(String),
}

/// The choice for a bundle that is past its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenStale {
    /// It goes on serving, and Status, metrics and log say so.
    Serve,
    /// Everything is denied.
    Deny,
}

/// Where the process listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// TCP addresses of gRPC (native and ext_authz share them).
    pub grpc: Vec<SocketAddr>,
    /// Unix socket of gRPC.
    pub uds: Option<PathBuf>,
    /// TCP address of `/metrics`, `/healthz` and `/readyz`; `None` when switched off with an empty string.
    pub http: Option<SocketAddr>,
}

/// Files of the gRPC listeners' TLS; paths only, no key material is ever in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain, PEM, leaf first.
    pub cert: PathBuf,
    /// Private key of the leaf, PEM.
    pub key: PathBuf,
    /// Authorities that client certificates must come from, PEM.
    pub client_ca: PathBuf,
}

/// The threads that serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    /// As configured; 0 means one per core.
    pub count: usize,
}

/// Where records go, and what happens when they cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Directory of the segments.
    pub dir: PathBuf,
    /// What happens to a verdict that has no place for its record.
    pub when_full: WhenFull,
    /// Records that wait for the writer.
    pub queue_max: usize,
    /// Size after which a new segment begins, in MiB.
    pub segment_mb: u64,
    /// Whether records hold what it takes to judge an attempt again.
    pub replayable: bool,
    /// How often records are made to survive a crash of the machine, in milliseconds.
    pub sync_ms: u64,
    /// Which answers leave only once their records do.
    pub durable: Vec<Answer>,
    /// MiB of closed segments that are kept; 0: all.
    pub keep_mb: u64,
    /// Days that closed segments are kept; 0: all.
    pub keep_days: u64,
    /// The key that signs checkpoints; `None`: beside the directory, with the extension `key`.
    pub key_file: Option<PathBuf>,
    /// Name of the log, for the key that is made for it; `None`: `HOSTNAME/audit`.
    pub origin: Option<String>,
    /// What records are sent to.
    pub sinks: Vec<crate::audit::sinks::SinkOptions>,
}

impl Audit {
    /// Where the key lies.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| self.dir.with_extension("key"))
    }

    fn sink_names(&self) -> String {
        let names: Vec<&str> = self.sinks.iter().map(|sink| sink.name.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(",") }
    }

    /// The name of a log that has no key yet.
    #[must_use]
    pub fn name(&self) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let is_name = |host: &String| !host.is_empty() && !host.contains(['+', ' ']);
        self.origin.clone().unwrap_or_else(|| {
            format!("{}/audit", Some(host()).filter(is_name).unwrap_or_else(|| "localhost".to_owned()))
        })
    }
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The action may run.
    Allow,
    /// It may run once the requirements are met.
    StepUp,
    /// It must not run.
    Deny,
}

impl Answer {
    /// Every answer.
    pub const ALL: [Self; 3] = [Self::Allow, Self::StepUp, Self::Deny];

    /// As the file says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::StepUp => "step_up",
            Self::Deny => "deny",
        }
    }
}

/// The choice for a full audit queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// No place, no verdict: deny.
    Deny,
    /// Answer, count the gap and record it.
    CountGap,
}

/// Where what is known of sessions and subjects is kept, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Directory of the store.
    pub dir: PathBuf,
    /// Sessions in memory.
    pub sessions_max: usize,
    /// Sessions on disk.
    pub stored_sessions_max: usize,
    /// Subjects with a risk above nothing.
    pub risk_subjects_max: usize,
    /// Revocations in force.
    pub revocations_max: usize,
    /// Approved tasks.
    pub tasks_max: usize,
    /// Reviews, with the grants that they give.
    pub reviews_max: usize,
    /// Subjects of which a counter counts something.
    pub counters_max: usize,
}

/// The Envoy door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtAuthz {
    /// Whether `x-forwarded-client-cert` is believed.
    pub trust_xfcc: bool,
}

/// Signals of other parties.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ssf {
    /// Where signals are taken in over HTTP.
    pub listen: Option<SocketAddr>,
    /// File with the token of those who may report scores over HTTP; none: nobody may.
    pub signals_token_file: Option<PathBuf>,
    /// Transmitters that are listened to.
    pub receivers: Vec<crate::ssf::receive::options::Receiver>,
    /// Signals to other parties; none: nobody is told.
    pub transmitter: Option<crate::ssf::transmit::Options>,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// `EnvFilter` directives.
    pub filter: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What the command line says over the file. Values are raw, so that their faults are reported together with
/// those of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--bundle SOURCE`
    pub bundle: Option<String>,
    /// `--store DIR`
    pub store: Option<PathBuf>,
    /// `--trust FILE`
    pub trust: Option<PathBuf>,
    /// `--allow-unsigned`
    pub allow_unsigned: bool,
    /// `--listen ADDR`, may be given several times; replaces the file's list.
    pub grpc: Vec<String>,
    /// `--uds PATH`
    pub uds: Option<PathBuf>,
    /// `--http ADDR`
    pub http: Option<String>,
    /// `--state-dir DIR`
    pub state_dir: Option<PathBuf>,
    /// `--workers N`
    pub workers: Option<u64>,
    /// `--audit-dir DIR`
    pub audit_dir: Option<PathBuf>,
    /// `--log-format FORMAT`
    pub log_format: Option<String>,
    /// `--log-filter FILTER`
    pub log_filter: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bundle: Bundle {
                source: Source::Local(PathBuf::from("bundle")),
                store: PathBuf::from("bundle-store"),
                trust: None,
                allow_unsigned: false,
                when_stale: WhenStale::Serve,
                keep: 10,
                remote: Remote {
                    ca: None,
                    client_cert: None,
                    client_key: None,
                    token_file: None,
                    username: None,
                    password_file: None,
                    poll_s: 30,
                    wait_s: 0,
                },
            },
            listen: Listen {
                grpc: vec![SocketAddr::from(([127, 0, 0, 1], 7411))],
                uds: None,
                http: Some(SocketAddr::from(([127, 0, 0, 1], 7412))),
            },
            tls: None,
            workers: Workers { count: 0 },
            audit: Audit {
                dir: PathBuf::from("audit"),
                when_full: WhenFull::Deny,
                queue_max: 65_536,
                segment_mb: 64,
                replayable: true,
                sync_ms: 20,
                durable: Vec::new(),
                keep_mb: 0,
                keep_days: 0,
                key_file: None,
                origin: None,
                sinks: Vec::new(),
            },
            state: State {
                dir: PathBuf::from("state"),
                sessions_max: 250_000,
                stored_sessions_max: 10_000_000,
                risk_subjects_max: 1_000_000,
                revocations_max: 1_000_000,
                tasks_max: 10_000,
                reviews_max: 10_000,
                counters_max: 250_000,
            },
            ext_authz: ExtAuthz { trust_xfcc: false },
            ssf: Ssf::default(),
            log: Log { format: LogFormat::Text, filter: "info".to_owned() },
        }
    }
}

impl Config {
    /// Reads the file at `path`, lays the flags over it and checks the whole.
    ///
    /// # Errors
    /// With every fault found.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, Faults> {
        let name = path.display().to_string();
        let text = read::file(path).map_err(|fault| Faults::new(&name, "", vec![fault]))?;
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        Self::parse(&name, &text, base, overrides)
    }

    /// As [`Config::load`], of a text that is in memory; `base` is what its paths are relative to.
    ///
    /// # Errors
    /// With every fault found.
    pub fn parse(name: &str, text: &str, base: &Path, overrides: &Overrides) -> Result<Self, Faults> {
        check::config(text, base, overrides).map_err(|faults| Faults::new(name, text, faults))
    }

    /// The defaults with the flags over them, for a start without a file.
    ///
    /// # Errors
    /// With every fault found.
    pub fn from_flags(overrides: &Overrides) -> Result<Self, Faults> {
        Self::parse("(no configuration file)", "", Path::new(""), overrides)
    }

    /// The values in force, `section.key` beside value, in the order of the reference file. Of secrets only paths
    /// are in here.
    #[must_use]
    pub fn effective(&self) -> Vec<(&'static str, String)> {
        let paths = |path: &Option<PathBuf>| path.as_deref().map_or_else(|| "none".to_owned(), show);
        let tls = |pick: fn(&Tls) -> &PathBuf| {
            self.tls.as_ref().map_or_else(|| "none".to_owned(), |tls| show(pick(tls)))
        };
        vec![
            ("bundle.source", self.bundle.source.to_string()),
            ("bundle.store", show(&self.bundle.store)),
            ("bundle.trust", paths(&self.bundle.trust)),
            ("bundle.allow_unsigned", self.bundle.allow_unsigned.to_string()),
            ("bundle.when_stale", self.bundle.when_stale.as_str().to_owned()),
            ("bundle.keep", self.bundle.keep.to_string()),
            ("bundle.ca", paths(&self.bundle.remote.ca)),
            ("bundle.client_cert", paths(&self.bundle.remote.client_cert)),
            ("bundle.client_key", paths(&self.bundle.remote.client_key)),
            ("bundle.token_file", paths(&self.bundle.remote.token_file)),
            ("bundle.username", self.bundle.remote.username.clone().unwrap_or_else(|| "none".to_owned())),
            ("bundle.password_file", paths(&self.bundle.remote.password_file)),
            ("bundle.poll_s", self.bundle.remote.poll_s.to_string()),
            ("bundle.wait_s", self.bundle.remote.wait_s.to_string()),
            ("listen.grpc", format!("{:?}", self.listen.grpc)),
            ("listen.uds", paths(&self.listen.uds)),
            ("listen.http", self.listen.http.map_or_else(|| "none".to_owned(), |at| at.to_string())),
            ("tls.cert", tls(|tls| &tls.cert)),
            ("tls.key", tls(|tls| &tls.key)),
            ("tls.client_ca", tls(|tls| &tls.client_ca)),
            ("workers.count", self.workers.threads().to_string()),
            ("audit.dir", show(&self.audit.dir)),
            ("audit.when_full", self.audit.when_full.as_str().to_owned()),
            ("audit.queue_max", self.audit.queue_max.to_string()),
            ("audit.segment_mb", self.audit.segment_mb.to_string()),
            ("audit.replayable", self.audit.replayable.to_string()),
            ("audit.sync_ms", self.audit.sync_ms.to_string()),
            (
                "audit.durable",
                self.audit.durable.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(", "),
            ),
            ("audit.keep_mb", self.audit.keep_mb.to_string()),
            ("audit.keep_days", self.audit.keep_days.to_string()),
            ("audit.key_file", show(&self.audit.key())),
            ("audit.origin", self.audit.name()),
            ("audit.sink", self.audit.sink_names()),
            ("state.dir", show(&self.state.dir)),
            ("state.sessions_max", self.state.sessions_max.to_string()),
            ("state.stored_sessions_max", self.state.stored_sessions_max.to_string()),
            ("state.risk_subjects_max", self.state.risk_subjects_max.to_string()),
            ("state.revocations_max", self.state.revocations_max.to_string()),
            ("state.tasks_max", self.state.tasks_max.to_string()),
            ("state.reviews_max", self.state.reviews_max.to_string()),
            ("state.counters_max", self.state.counters_max.to_string()),
            ("ext_authz.trust_xfcc", self.ext_authz.trust_xfcc.to_string()),
            ("ssf.listen", self.ssf.listen.map_or_else(|| "none".to_owned(), |at| at.to_string())),
            ("ssf.signals_token_file", paths(&self.ssf.signals_token_file)),
            ("ssf.receiver", self.ssf.names()),
            (
                "ssf.transmitter",
                self.ssf.transmitter.as_ref().map_or("none", |on| on.urls.issuer()).to_owned(),
            ),
            ("log.format", self.log.format.as_str().to_owned()),
            ("log.filter", self.log.filter.clone()),
        ]
    }

    /// Writes the values in force to the log, as one line.
    pub fn announce(&self) {
        let values: Vec<String> =
            self.effective().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        tracing::info!(config = %values.join(" "), "starting");
    }
}

impl Ssf {
    fn names(&self) -> String {
        let names: Vec<&str> = self.receivers.iter().map(|receiver| receiver.name.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(",") }
    }
}

impl Workers {
    /// Threads to start: as configured, or one per core.
    #[must_use]
    pub fn threads(self) -> usize {
        match self.count {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(limits::WORKERS_MAX),
            count => count,
        }
    }
}

impl Source {
    /// Reads a source; a path is relative to `base`.
    #[must_use]
    pub fn parse(text: &str, base: &Path) -> Self {
        match text.split_once("://") {
            Some((scheme, _))
                if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) =>
            {
                Self::Remote(text.to_owned())
            }
            _ => Self::Local(base.join(text)),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Remote(text) => f.write_str(text),
        }
    }
}

impl WhenStale {
    /// As it stands in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Deny => "deny",
        }
    }
}

impl WhenFull {
    /// As it stands in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::CountGap => "count_gap",
        }
    }
}

impl LogFormat {
    /// As it stands in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests;
