//! Joins the parts into a running service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use cardea_policy_store::store::PolicyStore;
use cardea_proto::v1;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;

use crate::audit::sinks::{Running, Sinks};
use crate::audit::{Audit, AuditConfig, AuditStreams, FLUSH_INTERVAL_DEFAULT, Keep, WhenFull};
use crate::bundles::{Bundles, Keeper};
use crate::clock::Clock;
use crate::concluding::Concluding;
use crate::config::{Answer, Config};
use crate::doors::ext_authz::{ExtAuthzConfig, ExtAuthzDoor};
use crate::doors::{
    AdminDoor, NativeDoor, ReviewDoor, ScoreDoor, SessionDoor, SignalDoor, TaskDoor, WireHolds,
};
use crate::http::Pages;
use crate::ledger::{self, Ledger};
use crate::limits;
use crate::listen::{Listeners, Tls};
use crate::metrics::Metrics;
use crate::pipeline::{self, Durability, Pipeline};
use crate::router::Router;
use crate::run::{self, Parts};
use crate::shutdown::{Phase, Shutdown};
use crate::ssf::guard::Guard;
use crate::ssf::http::Part;
use crate::ssf::receive::Receivers;
use crate::ssf::transmit::{Around, Transmitter};
use crate::state::{Capacity, Kept, State};
use crate::supervise::{Deaths, Ended, Supervisor};
use crate::workers::Shared;

/// A service that is ready to run: everything is bound, loaded and open.
pub struct Service {
    /// Where gRPC is served.
    pub grpc: Vec<SocketAddr>,
    /// The Unix socket.
    pub uds: Option<PathBuf>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub http: Option<SocketAddr>,
    /// Where signals are taken in over HTTP.
    pub ssf: Option<SocketAddr>,
    /// Where the audit records are.
    pub audit_dir: PathBuf,
    /// Ends it.
    pub shutdown: Shutdown,
    parts: Joined,
}

struct Joined {
    config: Config,
    listeners: Listeners,
    http: Option<std::net::TcpListener>,
    ssf: Option<std::net::TcpListener>,
    receivers: Receivers,
    scores: Option<ScoreDoor>,
    transmitter: Option<Arc<Transmitter>>,
    sinks: Sinks,
    pipeline: Arc<Pipeline>,
    keeper: Keeper,
    ledger_writer: ledger::Writer,
    bundles: Arc<Bundles>,
    tls: Option<Arc<Tls>>,
    supervisor: Supervisor,
    deaths: Deaths,
}

impl Service {
    /// Loads the bundle, opens the audit, binds the listeners.
    ///
    /// A bundle that cannot be loaded does not keep the service from starting: it answers deny, is not ready, and
    /// goes on looking; the fault is in Status and in the log.
    ///
    /// # Errors
    /// What cannot be opened or bound.
    pub fn prepare(config: Config) -> anyhow::Result<Self> {
        anyhow::ensure!(
            config.bundle.trust.is_some() || config.bundle.allow_unsigned,
            "it is not said whose bundles to trust: give --trust trust.toml (`cardea bundle keygen` makes a key and its \
             entry), or --allow-unsigned to serve `{}` without asking for a signature",
            config.bundle.source
        );
        let shutdown = Shutdown::new();
        let metrics = Arc::new(Metrics::new(pipeline::labels(config.workers.threads())));
        let (supervisor, deaths) = Supervisor::new(shutdown.clone(), metrics.panics.clone());
        let clock = Clock::machine();
        let audit = open_audit(&config, &clock)?;
        let (sinks, sink_states) = Sinks::prepare(&config.audit.sinks, &audit, &metrics)?;
        audit.show_sinks(sink_states);
        let (ledger, ledger_writer) = Ledger::open(&config.state.dir)?;
        let state = Arc::new(State::restore(capacity(&config)?, ledger).context("the state cannot be read")?);
        restore_counters(&state, &config.state.dir, &clock);
        let policy = Arc::new(PolicyStore::default());
        let when_stale = config.bundle.when_stale;
        let pipeline = Arc::new(
            Pipeline::new(policy, state, audit, Arc::clone(&metrics), clock, when_stale)
                .replayable(config.audit.replayable)
                .durable(durability(&config.audit.durable)),
        );
        if config.bundle.allow_unsigned {
            tracing::warn!(
                "bundles are loaded without asking for a signature: whoever can change them sets the policy"
            );
        }
        let (keeper, bundles) = Keeper::open(&config.bundle, Arc::clone(&pipeline))?;
        if pipeline.policy().snapshot().is_none() {
            tracing::error!("no bundle is in force: every attempt is denied until one can be loaded");
        }
        let tls = config.tls.as_ref().map(|files| Tls::load(files, metrics)).transpose()?.map(Arc::new);
        let listeners = Listeners::bind(&config.listen)?;
        let http = config.listen.http.map(crate::http::bind).transpose()?;
        let ssf = config.ssf.listen.map(crate::listen::bind_tcp).transpose()?;
        let receivers = Receivers::new(&config.ssf.receivers, &pipeline)?;
        let scores = scores(&config, &pipeline)?;
        let transmitter = transmitter(&config, &pipeline, &shutdown)?;
        Ok(Self {
            grpc: listeners.addresses(),
            uds: config.listen.uds.clone(),
            http: http.as_ref().and_then(|listener| listener.local_addr().ok()),
            ssf: ssf.as_ref().and_then(|listener| listener.local_addr().ok()),
            audit_dir: config.audit.dir.clone(),
            shutdown,
            parts: Joined {
                config,
                listeners,
                http,
                ssf,
                receivers,
                scores,
                transmitter,
                sinks,
                pipeline,
                keeper,
                ledger_writer,
                bundles,
                tls,
                supervisor,
                deaths,
            },
        })
    }

    /// Lets SIGTERM and SIGINT drain the service, and a second one abort it. Needs a runtime.
    ///
    /// # Errors
    /// When the operating system refuses a signal handler.
    pub fn end_on_signals(&self) -> std::io::Result<()> {
        let heard = crate::shutdown::on_signals(self.shutdown.clone())?;
        self.parts.supervisor.task("signals", heard);
        Ok(())
    }

    /// Serves until the process drains or aborts, then writes the last records.
    ///
    /// # Errors
    /// With the first essential part that died.
    pub async fn run(self) -> anyhow::Result<()> {
        let Joined {
            config,
            listeners,
            http,
            ssf,
            receivers,
            scores,
            transmitter,
            sinks,
            pipeline,
            keeper,
            ledger_writer,
            bundles,
            tls,
            supervisor,
            mut deaths,
        } = self.parts;
        let shutdown = self.shutdown;
        let state = Arc::clone(pipeline.state());
        let sinks = sinks.start(&supervisor)?;
        let written = supervisor.thread("state".to_owned(), move || ledger_writer.run())?;
        supervisor.task("state-keeping", keeping(Arc::clone(&pipeline), shutdown.clone()));
        let until = shutdown.clone();
        let _keeping = supervisor.thread("bundles".to_owned(), move || keeper.run(&until))?;
        if let crate::config::Source::Remote(text) = &config.bundle.source {
            let polling =
                bundles.poll(text, &config.bundle.remote, pipeline.clock().clone(), shutdown.clone())?;
            supervisor.task("bundle-source", polling);
        }
        beside(&pipeline, &config.state.dir, &shutdown, &supervisor)?;
        if let Some(listener) = http {
            let pages = Arc::new(pages(Arc::clone(&pipeline), shutdown.clone()));
            supervisor.task("http", crate::http::serve(listener, pages, supervisor.clone()));
        }
        let transmitting =
            transmitter.as_ref().map(|transmitter| transmit(transmitter, &pipeline, &supervisor));
        let mut parts = vec![receivers.start(&supervisor)];
        parts.extend(scores.map(|door| -> Box<dyn Part> { Box::new(door) }));
        parts.extend(transmitter.clone().map(|transmitter| -> Box<dyn Part> { Box::new(transmitter) }));
        serve_signals(ssf, parts, tls.clone(), &supervisor);
        let audit = Arc::clone(pipeline.audit());
        let metrics = Arc::clone(pipeline.metrics());
        let (holds, watching) = crate::doors::holds(Arc::clone(&pipeline));
        let until = shutdown.clone();
        let _watching = supervisor.thread("holds".to_owned(), move || watching.run(&until))?;
        let admin = AdminDoor::new(holds.clone(), bundles);
        let trust_xfcc = config.ext_authz.trust_xfcc;
        let streams = Arc::new(AuditStreams::new(Arc::clone(&audit), shutdown.clone()));
        let health = health(Arc::clone(&pipeline), &supervisor).await;
        let parts = Parts {
            listeners,
            threads: config.workers.threads(),
            connections_max: limits::CONNECTIONS_MAX,
            make: move |_worker| router(&holds, &admin, &streams, &health, trust_xfcc),
            shared: Shared { tls, metrics, supervisor },
        };
        let ended = run::until_stopped(parts, &mut deaths).await;
        if let (Some(transmitter), Some(transmitting)) = (transmitter, transmitting) {
            shutdown.drain();
            transmitting.wait().await;
            transmitter.keep_rest();
        }
        state.snapshot();
        state.counters().keep(&config.state.dir, true, pipeline.now());
        state.ledger().inspect(|ledger| ledger.close());
        written.wait().await;
        close(&audit, sinks).await?;
        ended.map_err(anyhow::Error::from)
    }
}

/// Writes the last records, and lets sinks take them.
async fn close(audit: &Audit, sinks: Running) -> anyhow::Result<()> {
    let closed = audit.close().context("the last audit records could not be written");
    sinks.finish(limits::SINK_FINISH).await;
    closed
}

/// Starts what works beside the deciding threads: the keeping of counters, the shadow, and the opening of reviews.
fn beside(
    pipeline: &Arc<Pipeline>,
    dir: &std::path::Path,
    shutdown: &Shutdown,
    supervisor: &Supervisor,
) -> anyhow::Result<()> {
    supervisor.task("counters", counting(Arc::clone(pipeline), dir.to_owned(), shutdown.clone()));
    let shadowed = (Arc::clone(pipeline), shutdown.clone());
    supervisor.thread("shadow".to_owned(), move || {
        let (pipeline, shutdown) = shadowed;
        pipeline.shadow().run(&pipeline, &shutdown)
    })?;
    let desk = (Arc::clone(pipeline), shutdown.clone());
    supervisor.thread("reviews".to_owned(), move || {
        let (pipeline, shutdown) = desk;
        pipeline.reviews().run(&pipeline, &shutdown)
    })?;
    Ok(())
}

/// Starts the transmitter, and lets it hear what this node concludes.
fn transmit(transmitter: &Arc<Transmitter>, pipeline: &Arc<Pipeline>, supervisor: &Supervisor) -> Ended {
    pipeline.conclude_to(Concluding::new(Arc::clone(transmitter), pipeline));
    let watching = Arc::clone(pipeline).watch_fading(supervisor.shutdown().clone());
    supervisor.task("fading-risk", watching);
    supervisor.task("ssf-transmit", Arc::clone(transmitter).run(supervisor.clone()))
}

/// The door for scores, if somebody may report them.
fn scores(config: &Config, pipeline: &Arc<Pipeline>) -> anyhow::Result<Option<ScoreDoor>> {
    let Some(file) = &config.ssf.signals_token_file else { return Ok(None) };
    let guard = Guard::new(file.clone(), pipeline.clock().clone())
        .context("`ssf.signals_token_file` cannot be used")?;
    Ok(Some(ScoreDoor::new(SignalDoor::new(Arc::clone(pipeline)), guard)))
}

/// Serves the port of signals, if there is one.
fn serve_signals(
    listener: Option<std::net::TcpListener>,
    parts: Vec<Box<dyn Part>>,
    tls: Option<Arc<Tls>>,
    supervisor: &Supervisor,
) {
    let Some(listener) = listener else { return };
    // On loopback in plain text, so that a proxy beside it needs no certificates.
    let is_loopback = listener.local_addr().is_ok_and(|at| at.ip().to_canonical().is_loopback());
    let tls = tls.filter(|_| !is_loopback);
    let serving = crate::ssf::http::serve(listener, tls, parts.into(), supervisor.clone());
    supervisor.task("ssf", serving);
}

/// The transmitter of signals, if it is set up.
fn transmitter(
    config: &Config,
    pipeline: &Pipeline,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<Arc<Transmitter>>> {
    let (Some(options), Some(ledger)) = (&config.ssf.transmitter, pipeline.state().ledger()) else {
        return Ok(None);
    };
    let around = Around {
        ledger: ledger.clone(),
        keys_dir: config.state.dir.join("ssf-keys"),
        audit: Arc::clone(pipeline.audit()),
        metrics: Arc::clone(pipeline.metrics()),
        clock: pipeline.clock().clone(),
        shutdown: shutdown.clone(),
    };
    let transmitter =
        Transmitter::open(options.clone(), around).context("`ssf.transmitter` cannot be set up")?;
    Ok(Some(Arc::new(transmitter)))
}

fn capacity(config: &Config) -> anyhow::Result<Capacity> {
    Ok(Capacity {
        sessions: u64::try_from(config.state.sessions_max)?,
        stored_sessions: u64::try_from(config.state.stored_sessions_max)?,
        subjects: config.state.risk_subjects_max,
        revocations: config.state.revocations_max,
        tasks: config.state.tasks_max,
        reviews: config.state.reviews_max,
        counters: config.state.counters_max,
    })
}

/// Keeps what sessions did, and drops what is over, a part at a time.
async fn keeping(pipeline: Arc<Pipeline>, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
    let mut from = smol_str::SmolStr::default();
    while shutdown.phase() == Phase::Running {
        tokio::select! {
            () = tokio::time::sleep(limits::STATE_KEEPING_INTERVAL) => {}
            () = shutdown.draining() => break,
        }
        let (state, now) = (Arc::clone(pipeline.state()), pipeline.now());
        let Some(snapshot) = pipeline.policy().snapshot() else { continue };
        let life_ms = crate::state::life_ms(snapshot.settings());
        let step = tokio::task::spawn_blocking(move || {
            state.snapshot();
            state.sweep(&from, life_ms, now)
        });
        from = match step.await {
            Ok(Ok(next)) => next.unwrap_or_default(),
            Ok(Err(why)) => {
                tracing::warn!(%why, "sessions that are over cannot be dropped");
                smol_str::SmolStr::default()
            }
            Err(_panicked) => smol_str::SmolStr::default(),
        };
    }
    Ok(())
}

/// Goes on with what was counted before the process ended.
fn restore_counters(state: &State, dir: &std::path::Path, clock: &Clock) {
    match state.counters().restore(dir, clock.now()) {
        Ok(Kept::Nothing) => {}
        Ok(Kept::Everything(windows)) => tracing::info!(windows, "counters go on from where they stopped"),
        Ok(Kept::UpTo(windows, lost_ms)) => tracing::warn!(
            windows,
            lost_ms,
            "the process did not end in order: what was counted since the last snapshot is lost, and no counter is warm before \
             it has counted for a whole window"
        ),
        Err(why) => {
            tracing::error!(%why, "counters begin anew: no counter is warm before it has counted for a whole window")
        }
    }
}

/// Keeps what is counted, and drops what is over.
async fn counting(
    pipeline: Arc<Pipeline>,
    dir: PathBuf,
    shutdown: Shutdown,
) -> Result<(), std::convert::Infallible> {
    while shutdown.phase() == Phase::Running {
        tokio::select! {
            () = tokio::time::sleep(limits::COUNTERS_KEEPING_INTERVAL) => {}
            () = shutdown.draining() => break,
        }
        let (state, dir, now) = (Arc::clone(pipeline.state()), dir.clone(), pipeline.now());
        let step = tokio::task::spawn_blocking(move || {
            state.counters().sweep(now);
            state.counters().keep(&dir, false, now);
        });
        if step.await.is_err() {
            tracing::error!("keeping the counters panicked; this is a bug");
        }
    }
    Ok(())
}

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// The configuration bounds it far below.
fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn durability(answers: &[Answer]) -> Durability {
    Durability {
        allow: answers.contains(&Answer::Allow),
        step_up: answers.contains(&Answer::StepUp),
        deny: answers.contains(&Answer::Deny),
        ..Durability::default()
    }
}

fn open_audit(config: &Config, clock: &Clock) -> anyhow::Result<Arc<Audit>> {
    let clock = clock.clone();
    let audit = AuditConfig {
        dir: config.audit.dir.clone(),
        queue_max: config.audit.queue_max,
        when_full: match config.audit.when_full {
            crate::config::WhenFull::Deny => WhenFull::Deny,
            crate::config::WhenFull::CountGap => WhenFull::CountGap,
        },
        segment_bytes_max: config.audit.segment_mb.saturating_mul(1 << 20),
        flush_interval: FLUSH_INTERVAL_DEFAULT,
        sync_interval: std::time::Duration::from_millis(config.audit.sync_ms),
        key_file: config.audit.key(),
        origin: config.audit.name(),
        keep: Keep {
            bytes: (config.audit.keep_mb > 0).then(|| config.audit.keep_mb.saturating_mul(1 << 20)),
            age: (config.audit.keep_days > 0).then(|| DAY.saturating_mul(small(config.audit.keep_days))),
        },
    };
    let wall = Box::new(move || u64::try_from(clock.now().wall_ms).unwrap_or(0));
    let audit = Audit::open(&audit, wall)?;
    tracing::info!(dir = %config.audit.dir.display(), vkey = %audit.verifier(), "audit open; its checkpoints are signed by this key");
    Ok(Arc::new(audit))
}

fn pages(pipeline: Arc<Pipeline>, shutdown: Shutdown) -> Pages {
    let ready = Arc::clone(&pipeline);
    Pages {
        metrics: Box::new(move || {
            refresh(&pipeline);
            pipeline.metrics().render()
        }),
        ready: Box::new(move || match ready.policy().snapshot() {
            Some(_) if shutdown.phase() == Phase::Running => Ok(()),
            Some(_) => Err("the node is stopping; ask another one".to_owned()),
            None => Err("no policy bundle is in force; see the log for what is wrong with it".to_owned()),
        }),
    }
}

/// Gauges that are read, not counted.
#[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
fn refresh(pipeline: &Pipeline) {
    let usage = pipeline.state().usage();
    let metrics = pipeline.metrics();
    metrics.sessions.set(usage.sessions as f64);
    metrics.risk_subjects.set(usage.subjects as f64);
    metrics.revocations.set(usage.revocations as f64);
    metrics.reviews.tasks.set(usage.tasks as f64);
    metrics.counters.show(&pipeline.state().counters().usage());
    metrics.reviews.held.set(usage.reviews as f64);
    metrics.ledger.sessions.set(usage.stored_sessions as f64);
    if let Some(ledger) = usage.ledger {
        metrics.ledger.pending.set(ledger.pending as f64);
        metrics.ledger.fault.set(f64::from(u8::from(ledger.fault.is_some())));
        metrics.ledger.written.absolute(ledger.written);
        metrics.ledger.commits.absolute(ledger.commits);
        metrics.ledger.refused.absolute(ledger.refused);
    }
    let stats = pipeline.audit().stats();
    metrics.audit_queue_depth.set(stats.queued as f64);
    metrics.audit_records.absolute(stats.last_sequence);
    pipeline.audit().sinks().for_each(|sink| sink.show_lag(stats.last_sequence));
}

type HealthServer = tonic_health::pb::health_server::HealthServer<tonic_health::server::HealthService>;

/// Names that `grpc.health.v1` answers for; the empty one is the server as a whole.
const HEALTH_NAMES: [&str; 5] = [
    "",
    "cardea.v1.DecisionService",
    "cardea.v1.AuditService",
    "cardea.v1.AdminService",
    "envoy.service.auth.v3.Authorization",
];

/// Of those, the services that change the state: they serve only while changes can be kept.
const KEEPING_NAMES: [&str; 4] = [
    "cardea.v1.SessionService",
    "cardea.v1.SignalService",
    "cardea.v1.TaskService",
    "cardea.v1.ReviewService",
];

/// `grpc.health.v1`, one table for all workers: serving as long as a bundle is in force.
async fn health(pipeline: Arc<Pipeline>, supervisor: &Supervisor) -> HealthServer {
    let reporter = tonic_health::server::HealthReporter::new();
    let service = tonic_health::server::HealthService::from_health_reporter(reporter.clone());
    let mut told = report(&reporter, &pipeline).await;
    let shutdown = supervisor.shutdown().clone();
    supervisor.task("health", async move {
        while shutdown.phase() == Phase::Running {
            tokio::time::sleep(limits::HEALTH_INTERVAL).await;
            if health_of(&pipeline) != told {
                told = report(&reporter, &pipeline).await;
            }
        }
        Ok::<(), std::convert::Infallible>(())
    });
    HealthServer::new(service)
}

/// Whether it decides, and whether it can keep what it is told.
fn health_of(pipeline: &Pipeline) -> (bool, bool) {
    let serves = pipeline.policy().snapshot().is_some();
    (serves, serves && pipeline.state().fault().is_none())
}

async fn report(reporter: &tonic_health::server::HealthReporter, pipeline: &Pipeline) -> (bool, bool) {
    let (serves, keeps) = health_of(pipeline);
    let status = |is_well: bool| match is_well {
        true => tonic_health::ServingStatus::Serving,
        false => tonic_health::ServingStatus::NotServing,
    };
    for name in HEALTH_NAMES {
        reporter.set_service_status(name, status(serves)).await;
    }
    for name in KEEPING_NAMES {
        reporter.set_service_status(name, status(keeps)).await;
    }
    (serves, keeps)
}

fn router(
    holds: &WireHolds,
    admin: &AdminDoor,
    streams: &Arc<AuditStreams>,
    health: &HealthServer,
    trust_xfcc: bool,
) -> Router {
    let max = limits::GRPC_MESSAGE_BYTES_MAX;
    let pipeline = holds.pipeline();
    let native = v1::decision_service_server::DecisionServiceServer::new(NativeDoor::new(holds.clone()));
    let sessions =
        v1::session_service_server::SessionServiceServer::new(SessionDoor::new(Arc::clone(pipeline)));
    let signals = v1::signal_service_server::SignalServiceServer::new(SignalDoor::new(Arc::clone(pipeline)));
    let config = ExtAuthzConfig { trust_xfcc, ..ExtAuthzConfig::default() };
    let ext_authz = AuthorizationServer::new(ExtAuthzDoor::new(Arc::clone(pipeline), config));
    let router = Router::builder()
        .service(native.max_decoding_message_size(max))
        .service(ext_authz.max_decoding_message_size(max))
        .service(sessions.max_decoding_message_size(max))
        .service(signals.max_decoding_message_size(max))
        .service(
            v1::task_service_server::TaskServiceServer::new(TaskDoor::new(Arc::clone(pipeline)))
                .max_decoding_message_size(max),
        )
        .service(
            v1::review_service_server::ReviewServiceServer::new(ReviewDoor::new(Arc::clone(pipeline)))
                .max_decoding_message_size(max),
        )
        .service(
            v1::audit_service_server::AuditServiceServer::from_arc(Arc::clone(streams))
                .max_decoding_message_size(max),
        )
        .service(
            v1::admin_service_server::AdminServiceServer::new(admin.clone()).max_decoding_message_size(max),
        )
        .service(health.clone());
    // Built from the descriptors that this crate compiles; the two versions are the ones that tools ask for.
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(cardea_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => router.service(v1).service(v1alpha).build(),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "no server reflection");
            router.build()
        }
    }
}
