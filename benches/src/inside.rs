//! A pipeline in this process, without transport: policy, state and audit as in the service, and attempts to judge.
#![expect(clippy::unwrap_used, reason = "a bench that cannot set itself up has nothing to say")]

use std::path::Path;
use std::sync::Arc;

use cardea_core::attempt::{Attempt, Parts, Token};
use cardea_core::verdict::Decision;
use cardea_policy_store::engine::{Record, Value};
use cardea_policy_store::load;
use cardea_policy_store::snapshot::Snapshot;
use cardea_policy_store::store::PolicyStore;
use cardea_server::audit::{Audit, AuditConfig};
use cardea_server::clock::Clock;
use cardea_server::config::WhenStale;
use cardea_server::metrics::Metrics;
use cardea_server::pipeline::{self, Door, Pipeline, Refused, Seen};
use cardea_server::state::{Capacity, State};
use futures_util::FutureExt as _;

/// A pipeline with the benches' bundle and this audit.
#[must_use]
pub fn pipeline(audit: &AuditConfig) -> Pipeline {
    let policy = Arc::new(PolicyStore::default());
    let bundle = load::directory(&Path::new(env!("CARGO_MANIFEST_DIR")).join("bundle")).unwrap();
    policy.activate(Arc::new(bundle.snapshot)).unwrap();
    let clock = Clock::machine();
    let wall = Box::new(move || u64::try_from(clock.now().wall_ms).unwrap_or(0));
    let audit = Audit::open(audit, wall).unwrap();
    let state = State::new(Capacity {
        sessions: 1_000,
        stored_sessions: 1_000,
        subjects: 1_000,
        revocations: 1_000,
        tasks: 10,
        reviews: 10,
        counters: 10,
    });
    let metrics = Arc::new(Metrics::new(pipeline::labels(1)));
    let pipeline =
        Pipeline::new(policy, Arc::new(state), Arc::new(audit), metrics, Clock::machine(), WhenStale::Serve);
    pipeline.label_actions(&pipeline.policy().snapshot().unwrap());
    pipeline
}

/// Judges one of ten attempts in turn.
pub fn judge(pipeline: &Pipeline, at: usize) -> Decision {
    let agent = format!("agent-{}", at % 10);
    let report = format!("report-{}", at % 10);
    let session = format!("session-{}", at % 10);
    let judged = pipeline.judge(
        Door::Grpc,
        |snapshot| {
            attempt(snapshot, &agent, &report, &session)
                .map_err(|fault| Box::new(Refused { fault, seen: Seen::default() }))
        },
        |judgement| judgement.verdict.decision(),
    );
    // Nothing is durable here, so nothing is waited for.
    pipeline
        .release(judged, |judgement| judgement.verdict.decision())
        .now_or_never()
        .unwrap_or(Decision::Deny)
}

fn attempt(
    snapshot: &Snapshot,
    agent: &str,
    report: &str,
    session: &str,
) -> Result<Attempt, cardea_core::attempt::NotAnAttempt> {
    let fields: [(&str, Value); 5] = [
        ("amount", 250.into()),
        ("channel", "api".into()),
        ("region", "eu-west-1".into()),
        ("source", "payments".into()),
        ("urgent", false.into()),
    ];
    let parts = Parts {
        principal: ("Bench::Agent", agent),
        action: ("Bench::Action", "read"),
        resource: ("Bench::Document", report),
        request: fields.into_iter().collect::<Record>(),
        session_id: session,
        token: Some(Token {
            issuer: "https://id.bench.example".into(),
            issued_ms: Some(1_700_000_000_000),
            expires_ms: Some(4_102_444_800_000),
            bound: true,
            ..Token::default()
        }),
        ..Parts::default()
    };
    Attempt::new(snapshot, parts)
}
