//! Builds the checked [`Config`]: file, then flags, then what only the whole can show.
//!
//! INVARIANT (no plain text beyond loopback): a `Config` whose gRPC listeners reach beyond loopback has `tls`.
//! Never does: opening what it names.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::read::{Located, Reader, choose};
use super::{
    Answer, Audit, Bundle, Config, ExtAuthz, Fault, Listen, Log, LogFormat, Overrides, Remote, Source, State,
    Tls, WhenFull, WhenStale, Workers,
};
use crate::limits;

const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
const WHEN_STALE: &[(&str, WhenStale)] = &[("serve", WhenStale::Serve), ("deny", WhenStale::Deny)];
const WHEN_FULL: &[(&str, WhenFull)] = &[("deny", WhenFull::Deny), ("count_gap", WhenFull::CountGap)];

/// File and flags to a configuration, or every fault.
pub(super) fn config(text: &str, base: &Path, flags: &Overrides) -> Result<Config, Vec<Fault>> {
    let mut reader = Reader::new(text);
    let defaults = Config::default();
    let bundle = bundle(&mut reader, base, flags, &defaults.bundle);
    let (listen, placed) = listen(&mut reader, base, flags, &defaults.listen);
    let tls = tls(&mut reader, base);
    beyond_loopback(&mut reader, &placed);
    let ssf = super::ssf::ssf(&mut reader, base, tls.is_some());
    let count = match flags.workers {
        Some(count) => worker_flag(&mut reader, count),
        None => reader.number("workers", "count", 0, 0..=limits::WORKERS_MAX as u64),
    };
    let config = Config {
        bundle,
        listen,
        tls,
        workers: Workers { count: size(count) },
        audit: audit(&mut reader, base, flags, &defaults.audit),
        state: state(&mut reader, base, flags, &defaults.state),
        ext_authz: ExtAuthz {
            trust_xfcc: reader.flag("ext_authz", "trust_xfcc", defaults.ext_authz.trust_xfcc),
        },
        ssf,
        log: log(&mut reader, flags, defaults.log),
    };
    if reader.faults.is_empty() { Ok(config) } else { Err(reader.faults) }
}

fn bundle(reader: &mut Reader<'_>, base: &Path, flags: &Overrides, default: &Bundle) -> Bundle {
    let in_file = reader.text("bundle", "source").map(|text| Source::parse(&text.value, base));
    let given = flags.bundle.as_deref().map(|text| Source::parse(text, Path::new("")));
    let store = path(reader, base, "bundle", "store").unwrap_or_else(|| base.join(&default.store));
    let trust = path(reader, base, "bundle", "trust");
    let trust = flags.trust.clone().or(trust);
    let allow_unsigned =
        reader.flag("bundle", "allow_unsigned", default.allow_unsigned) || flags.allow_unsigned;
    if trust.is_some() && allow_unsigned {
        let fault = Fault::new(
            "`bundle.trust` and `bundle.allow_unsigned` are both set",
            "keep `trust` to ask for signatures, or `allow_unsigned` for development: not both",
        );
        reader.faults.push(fault.at(reader.section_span("bundle"), "both"));
    }
    let keep = limits::BUNDLE_KEEP_RANGE;
    Bundle {
        source: given.or(in_file).unwrap_or_else(|| match &default.source {
            Source::Local(path) => Source::Local(base.join(path)),
            remote @ Source::Remote(_) => remote.clone(),
        }),
        store: flags.store.clone().unwrap_or(store),
        trust,
        allow_unsigned,
        when_stale: reader.word("bundle", "when_stale", default.when_stale, WHEN_STALE),
        keep: size(reader.number("bundle", "keep", default.keep as u64, keep)),
        remote: remote(reader, base, &default.remote),
    }
}

fn remote(reader: &mut Reader<'_>, base: &Path, default: &Remote) -> Remote {
    let mut file = |key| path(reader, base, "bundle", key);
    let (client_cert, client_key) = (file("client_cert"), file("client_key"));
    let (ca, token_file, password_file) = (file("ca"), file("token_file"), file("password_file"));
    if client_cert.is_some() != client_key.is_some() {
        let fault = Fault::new(
            "`bundle.client_cert` and `bundle.client_key` belong together",
            "set both, or none to show no certificate",
        );
        reader.faults.push(fault.at(reader.section_span("bundle"), "only one of them"));
    }
    Remote {
        ca,
        client_cert,
        client_key,
        token_file,
        username: reader.text("bundle", "username").map(|text| text.value),
        password_file,
        poll_s: reader.number("bundle", "poll_s", default.poll_s, limits::REMOTE_POLL_INTERVAL_RANGE),
        wait_s: reader.number("bundle", "wait_s", default.wait_s, 0..=*limits::REMOTE_WAIT_RANGE.end()),
    }
}

/// An address with the words for its place: a span of the file, or the flag it came from.
struct Placed {
    at: SocketAddr,
    span: Option<std::ops::Range<usize>>,
}

fn listen(
    reader: &mut Reader<'_>,
    base: &Path,
    flags: &Overrides,
    default: &Listen,
) -> (Listen, Vec<Placed>) {
    let in_file = reader.texts("listen", "grpc");
    let given = if flags.grpc.is_empty() {
        in_file
    } else {
        Some(flags.grpc.iter().map(|text| from_flag(text)).collect())
    };
    let grpc_name = if flags.grpc.is_empty() { "listen.grpc" } else { "--listen" };
    let mut placed: Vec<Placed> = Vec::new();
    match given {
        None => placed.extend(default.grpc.iter().map(|at| Placed { at: *at, span: None })),
        Some(texts) => {
            if texts.len() > limits::LISTENERS_MAX {
                let fault = Fault::new(
                    format!("`{grpc_name}` has more than {} addresses", limits::LISTENERS_MAX),
                    "bind fewer addresses, or one that covers them, such as [::]:7411",
                );
                reader.faults.push(fault.at(texts.last().and_then(|last| last.span.clone()), "one too many"));
            }
            for text in texts {
                let Some(at) = address(reader, grpc_name, &text) else { continue };
                if at.port() != 0 && placed.iter().any(|other| other.at == at) {
                    let fault = Fault::new(format!("`{grpc_name}` has `{at}` twice"), "remove one of them");
                    reader.faults.push(fault.at(text.span, "the second time"));
                    continue;
                }
                placed.push(Placed { at, span: text.span });
            }
        }
    }
    let http = http(reader, flags, default, &placed);
    let uds = socket_path(reader, base, flags);
    if placed.is_empty() && uds.is_none() && reader.faults.is_empty() {
        let fault = Fault::new(
            "there is nothing to listen on",
            "give `listen.grpc` an address such as \"127.0.0.1:7411\", or set `listen.uds`",
        );
        reader.faults.push(fault.at(reader.section_span("listen"), "neither `grpc` nor `uds`"));
    }
    let grpc = placed.iter().map(|placed| placed.at).collect();
    (Listen { grpc, uds, http }, placed)
}

/// The metrics port may be anywhere: it shows counters and never takes a request to judge.
fn http(reader: &mut Reader<'_>, flags: &Overrides, default: &Listen, grpc: &[Placed]) -> Option<SocketAddr> {
    let in_file = reader.text("listen", "http");
    let given = flags.http.as_deref().map(from_flag).or(in_file);
    let Some(text) = given else { return default.http };
    if text.value.is_empty() {
        return None;
    }
    let name = if flags.http.is_some() { "--http" } else { "listen.http" };
    let at = address(reader, name, &text)?;
    if at.port() != 0 && grpc.iter().any(|placed| placed.at == at) {
        let fault = Fault::new(
            format!("`{name}` and `listen.grpc` are both `{at}`"),
            "give them different ports: gRPC and the metrics page cannot share one",
        );
        reader.faults.push(fault.at(text.span, "taken by gRPC"));
    }
    Some(at)
}

fn address(reader: &mut Reader<'_>, name: &str, text: &Located<String>) -> Option<SocketAddr> {
    let parsed = text.value.parse().ok();
    if parsed.is_none() {
        let fault = Fault::new(
            format!("`{name}` has `{}`, which is not an address and port", text.value),
            "give an IP address and a port, such as \"127.0.0.1:7411\" or \"[::1]:7411\"; names are not resolved",
        );
        reader.faults.push(fault.at(text.span.clone(), "not an address"));
    }
    parsed
}

fn socket_path(reader: &mut Reader<'_>, base: &Path, flags: &Overrides) -> Option<PathBuf> {
    let span = reader.text("listen", "uds").and_then(|text| text.span);
    let in_file = path(reader, base, "listen", "uds");
    let (socket, span, name) = match &flags.uds {
        Some(flag) => (flag.clone(), None, "--uds"),
        None => (in_file?, span, "listen.uds"),
    };
    let bytes = socket.as_os_str().len();
    if bytes > limits::UDS_PATH_BYTES_MAX {
        let fault = Fault::new(
            format!("`{name}` is {bytes} bytes long"),
            format!(
                "choose a path of at most {} bytes; Unix sockets allow no more",
                limits::UDS_PATH_BYTES_MAX
            ),
        );
        reader.faults.push(fault.at(span, "too long"));
    }
    Some(socket)
}

fn tls(reader: &mut Reader<'_>, base: &Path) -> Option<Tls> {
    let cert = path(reader, base, "tls", "cert");
    let key = path(reader, base, "tls", "key");
    let client_ca = path(reader, base, "tls", "client_ca");
    if !reader.has("tls") {
        return None;
    }
    let span = reader.section_span("tls");
    for (name, missing) in
        [("cert", cert.is_none()), ("key", key.is_none()), ("client_ca", client_ca.is_none())]
    {
        if missing && !reader.faults.iter().any(|fault| fault.to_string().contains(&format!("`tls.{name}`")))
        {
            let fault = Fault::new(
                format!("`tls.{name}` is missing"),
                "give cert, key and client_ca: callers prove who they are with certificates of client_ca",
            );
            reader.faults.push(fault.at(span.clone(), "incomplete"));
        }
    }
    Some(Tls { cert: cert?, key: key?, client_ca: client_ca? })
}

/// Upholds INVARIANT (no plain text beyond loopback).
fn beyond_loopback(reader: &mut Reader<'_>, grpc: &[Placed]) {
    if reader.has("tls") {
        return;
    }
    for placed in grpc.iter().filter(|placed| !placed.at.ip().to_canonical().is_loopback()) {
        let fault = Fault::new(
            format!("gRPC on `{}` is beyond loopback and has no TLS", placed.at),
            "add a [tls] section with cert, key and client_ca, or listen on 127.0.0.1, [::1] or a Unix socket",
        );
        reader
            .faults
            .push(fault.at(placed.span.clone(), "anyone who reaches this address could ask and signal"));
    }
}

fn worker_flag(reader: &mut Reader<'_>, count: u64) -> u64 {
    if count > limits::WORKERS_MAX as u64 {
        reader.faults.push(Fault::new(
            format!("`--workers` is {count}"),
            format!("give at most {}; 0 means one per core", limits::WORKERS_MAX),
        ));
    }
    count
}

fn audit(reader: &mut Reader<'_>, base: &Path, flags: &Overrides, default: &Audit) -> Audit {
    let dir = path(reader, base, "audit", "dir").unwrap_or_else(|| base.join(&default.dir));
    let queue = reader.number("audit", "queue_max", default.queue_max as u64, limits::AUDIT_QUEUE_RANGE);
    Audit {
        dir: flags.audit_dir.clone().unwrap_or(dir),
        when_full: reader.word("audit", "when_full", default.when_full, WHEN_FULL),
        queue_max: size(queue),
        segment_mb: reader.number("audit", "segment_mb", default.segment_mb, limits::AUDIT_SEGMENT_MB_RANGE),
        replayable: reader.flag("audit", "replayable", default.replayable),
        sync_ms: reader.number("audit", "sync_ms", default.sync_ms, limits::AUDIT_SYNC_MS_RANGE),
        durable: answers(reader),
        keep_mb: reader.number("audit", "keep_mb", default.keep_mb, limits::AUDIT_KEEP_MB_RANGE),
        keep_days: reader.number("audit", "keep_days", default.keep_days, limits::AUDIT_KEEP_DAYS_RANGE),
        key_file: path(reader, base, "audit", "key_file"),
        origin: origin(reader),
        sinks: sinks(reader, base),
    }
}

fn sinks(reader: &mut Reader<'_>, base: &Path) -> Vec<crate::audit::sinks::SinkOptions> {
    let (root, faults) = reader.parts();
    super::sinks::sinks(root, faults, base)
}

fn answers(reader: &mut Reader<'_>) -> Vec<Answer> {
    let mut answers = Vec::new();
    for text in reader.texts("audit", "durable").unwrap_or_default() {
        match Answer::ALL.into_iter().find(|answer| answer.as_str() == text.value) {
            Some(answer) if answers.contains(&answer) => {}
            Some(answer) => answers.push(answer),
            None => {
                let fault = Fault::new(
                    format!("`{}` in `audit.durable` is no answer", text.value),
                    "list some of \"allow\", \"step_up\" and \"deny\"",
                );
                reader.faults.push(fault.at(text.span, "not an answer"));
            }
        }
    }
    answers
}

fn origin(reader: &mut Reader<'_>) -> Option<String> {
    let text = reader.text("audit", "origin")?;
    let is_bad = |one: char| one.is_whitespace() || one.is_control() || one == '+';
    if text.value.is_empty() || text.value.contains(is_bad) {
        let fault = Fault::new(
            "`audit.origin` is no name of a log",
            "give one without spaces and plus, as in \"example.com/audit\"",
        );
        reader.faults.push(fault.at(text.span, "not a name"));
        return None;
    }
    Some(text.value)
}

fn state(reader: &mut Reader<'_>, base: &Path, flags: &Overrides, default: &State) -> State {
    let dir = path(reader, base, "state", "dir").unwrap_or_else(|| base.join(&default.dir));
    let mut maximum =
        |key, default: usize| size(reader.number("state", key, default as u64, limits::STATE_ENTRIES_RANGE));
    State {
        dir: flags.state_dir.clone().unwrap_or(dir),
        sessions_max: maximum("sessions_max", default.sessions_max),
        stored_sessions_max: maximum("stored_sessions_max", default.stored_sessions_max),
        risk_subjects_max: maximum("risk_subjects_max", default.risk_subjects_max),
        revocations_max: maximum("revocations_max", default.revocations_max),
        tasks_max: maximum("tasks_max", default.tasks_max),
        reviews_max: maximum("reviews_max", default.reviews_max),
        counters_max: maximum("counters_max", default.counters_max),
    }
}

fn log(reader: &mut Reader<'_>, flags: &Overrides, default: Log) -> Log {
    let mut format = reader.word("log", "format", default.format, LOG_FORMATS);
    if let Some(flag) = &flags.log_format {
        match choose("`--log-format`", &from_flag(flag), LOG_FORMATS) {
            Ok(chosen) => format = chosen,
            Err(fault) => reader.faults.push(fault),
        }
    }
    let in_file = reader.text("log", "filter");
    let Some(filter) = flags.log_filter.as_deref().map(from_flag).or(in_file) else {
        return Log { format, filter: default.filter };
    };
    if let Err(fault) = crate::log::filter(&filter.value) {
        let fault = Fault::new(
            fault.to_string(),
            "give levels per target, such as \"info\" or \"info,cardea_server=debug\"",
        );
        reader.faults.push(fault.at(filter.span, "not a filter"));
    }
    Log { format, filter: filter.value }
}

/// A path of the file, below `base`; an empty one is a fault.
fn path(reader: &mut Reader<'_>, base: &Path, section: &str, key: &str) -> Option<PathBuf> {
    let text = reader.text(section, key)?;
    if text.value.is_empty() {
        let fault = Fault::new(format!("`{section}.{key}` is empty"), "give a path, or remove the line");
        reader.faults.push(fault.at(text.span, "empty"));
        return None;
    }
    Some(base.join(text.value))
}

fn from_flag(text: &str) -> Located<String> {
    Located { value: text.to_owned(), span: None }
}

/// Numbers were checked against bounds far below either type's maximum.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
