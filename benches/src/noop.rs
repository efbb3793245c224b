//! The yardstick: a service that does nothing. It decodes the same requests as Cardea, returns a constant answer of
//! the same shape and size, and uses the same transport: a hyper HTTP/2 connection without a router in front of
//! tonic's generated services, `TCP_NODELAY`, one current-thread runtime for each worker.
//!
//! What it never does: read the request's content (but for the attempt's id, which answers must carry), keep state,
//! write anything.

use std::{
    convert::Infallible, future::Future, io, net::TcpListener as StdListener, pin::Pin, sync::Arc,
    time::Duration,
};

use cardea_proto::v1::{
    Attempt, Basis, DecideBatchRequest, DecideBatchResponse, DecideRequest, DecideResponse,
    DecideStreamRequest, DecideStreamResponse, Decision, Evidence, FactAge, HoldRequest, HoldResponse, Lease,
    SettleRequest, SettleResponse, Value, Verdict,
    decision_service_server::{DecisionService, DecisionServiceServer},
    value::Kind,
};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderValue, HeaderValueOption},
        service::auth::v3::{
            CheckRequest, CheckResponse, OkHttpResponse,
            authorization_server::{Authorization, AuthorizationServer},
            check_response::HttpResponse,
        },
    },
    google::rpc::Status as RpcStatus,
};
use futures_util::{Stream, StreamExt as _};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message as _;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tonic::{Request, Response, Status, Streaming, body::Body};
use tower::Service as _;

/// Most connections that one worker serves at once; further ones wait in the kernel.
pub const CONNECTIONS_MAX: usize = 4096;

/// The constant answers.
#[derive(Clone, Debug)]
pub struct Answers {
    verdict: Verdict,
    check: CheckResponse,
}

impl Answers {
    /// Answers of the usual shape, the verdict's answer (`DecideResponse`, with an attempt id of 9 bytes) and the
    /// `CheckResponse` brought to the given sizes in bytes as near as their shape allows.
    #[must_use]
    pub fn sized(verdict_bytes: Option<usize>, check_bytes: Option<usize>) -> Self {
        let mut verdict = usual_verdict();
        if let Some(target) = verdict_bytes {
            fit_verdict(&mut verdict, target);
        }
        let mut check = usual_check();
        if let Some(target) = check_bytes {
            fit_check(&mut check, target);
        }
        Self { verdict, check }
    }

    /// The same with this lease, which makes the verdict a few bytes longer.
    #[must_use]
    pub fn leased(mut self, lease: Lease) -> Self {
        self.verdict.lease = Some(lease);
        self
    }

    /// Sizes of the answers in bytes, as [`Self::sized`] takes them.
    #[must_use]
    pub fn bytes(&self) -> (usize, usize) {
        (answer_bytes(&self.verdict), self.check.encoded_len())
    }
}

/// Serves connections from `listener` on a current-thread runtime of its own until the listener fails.
///
/// # Errors
/// When the runtime cannot be started or the listener cannot be used.
pub fn serve(listener: StdListener, answers: &Answers) -> io::Result<Infallible> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let doors = Doors::new(answers);
        let mut connections = JoinSet::new();
        loop {
            while connections.len() >= CONNECTIONS_MAX {
                connections.join_next().await;
            }
            while connections.try_join_next().is_some() {}
            let (socket, _peer) = listener.accept().await?;
            connections.spawn(serve_connection(socket, doors.clone()));
        }
    })
}

async fn serve_connection(socket: TcpStream, doors: Doors) {
    if socket.set_nodelay(true).is_ok() {
        // The peer sees its connection end; a do-nothing service has nobody else to tell.
        let _ = transport().serve_connection(TokioIo::new(socket), doors).await;
    }
}

/// The settings of Cardea's own listeners (`server/src/limits.rs`), repeated because a yardstick that followed its
/// subject's code would also follow its mistakes.
fn transport() -> http2::Builder<TokioExecutor> {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(1024)
        .max_header_list_size(16 << 10)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20)
        .max_send_buf_size(400 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .auto_date_header(false);
    http2
}

/// Both services behind one match on the path.
#[derive(Clone)]
struct Doors {
    decisions: DecisionServiceServer<Noop>,
    checks: AuthorizationServer<Noop>,
}

impl Doors {
    fn new(answers: &Answers) -> Self {
        let noop = Arc::new(Noop { answers: answers.clone() });
        Self {
            decisions: DecisionServiceServer::from_arc(Arc::clone(&noop)),
            checks: AuthorizationServer::from_arc(noop),
        }
    }
}

impl hyper::service::Service<http::Request<Incoming>> for Doors {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let path = request.uri().path();
        if path.starts_with("/cardea.v1.DecisionService/") {
            self.decisions.clone().call(request)
        } else if path.starts_with("/envoy.service.auth.v3.Authorization/") {
            self.checks.clone().call(request)
        } else {
            Box::pin(async { Ok(Status::unimplemented("no such service").into_http()) })
        }
    }
}

struct Noop {
    answers: Answers,
}

impl Noop {
    fn verdict(&self, attempt: Attempt) -> Verdict {
        Verdict { attempt_id: attempt.id, ..self.answers.verdict.clone() }
    }
}

#[tonic::async_trait]
impl DecisionService for Noop {
    async fn settle(&self, _request: Request<SettleRequest>) -> Result<Response<SettleResponse>, Status> {
        Err(Status::unimplemented("no counters"))
    }

    async fn decide(&self, request: Request<DecideRequest>) -> Result<Response<DecideResponse>, Status> {
        let attempt = request.into_inner().attempt.unwrap_or_default();
        Ok(Response::new(DecideResponse { verdict: Some(self.verdict(attempt)) }))
    }

    async fn decide_batch(
        &self,
        request: Request<DecideBatchRequest>,
    ) -> Result<Response<DecideBatchResponse>, Status> {
        let attempts = request.into_inner().attempts;
        let verdicts = attempts.into_iter().map(|attempt| self.verdict(attempt)).collect();
        Ok(Response::new(DecideBatchResponse { verdicts }))
    }

    type DecideStreamStream = Pin<Box<dyn Stream<Item = Result<DecideStreamResponse, Status>> + Send>>;

    async fn decide_stream(
        &self,
        request: Request<Streaming<DecideStreamRequest>>,
    ) -> Result<Response<Self::DecideStreamStream>, Status> {
        let noop = Self { answers: self.answers.clone() };
        let answers = request.into_inner().map(move |message| {
            let attempts = message?.attempts;
            let verdicts = attempts.into_iter().map(|attempt| noop.verdict(attempt)).collect();
            Ok(DecideStreamResponse { verdicts })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type HoldStream = Pin<Box<dyn Stream<Item = Result<HoldResponse, Status>> + Send>>;

    async fn hold(
        &self,
        _request: Request<Streaming<HoldRequest>>,
    ) -> Result<Response<Self::HoldStream>, Status> {
        Err(Status::unimplemented("nothing is held by a service that does nothing"))
    }
}

#[tonic::async_trait]
impl Authorization for Noop {
    async fn check(&self, _request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        Ok(Response::new(self.answers.check.clone()))
    }
}

/// An allow as Cardea words it: one determining policy, three facts as evidence, basis with two ages.
fn usual_verdict() -> Verdict {
    let evidence = |fact: &str, value: i64| Evidence {
        fact: fact.to_owned(),
        value: Some(Value { kind: Some(Kind::Long(value)) }),
        why: String::new(),
    };
    let age = |fact: &str, age_ms: u64| FactAge { fact: fact.to_owned(), age_ms };
    Verdict {
        decision: Decision::Allow.into(),
        determining_policies: vec!["agents-read-documents".to_owned()],
        evidence: vec![
            evidence("risk.score", 12),
            evidence("session.age_s", 340),
            evidence("token.age_s", 41),
        ],
        basis: Some(Basis {
            revision: 7,
            digest: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0".to_owned(),
            state_version: 123_456,
            ages: vec![age("session", 340_000), age("risk", 5_000)],
        }),
        decision_id: "01940000-0000-7000-8000-000000000000".to_owned(),
        lease: Some(Lease::default()),
        ..Verdict::default()
    }
}

fn usual_check() -> CheckResponse {
    let header = |key: &str, value: &str| HeaderValueOption {
        header: Some(HeaderValue { key: key.to_owned(), value: value.to_owned(), ..HeaderValue::default() }),
        ..HeaderValueOption::default()
    };
    let ok = OkHttpResponse {
        headers: vec![
            header("x-cardea-decision-id", "01940000-0000-7000-8000-000000000000"),
            header("x-cardea-principal", "Bench::Agent::\"agent-0\""),
        ],
        ..OkHttpResponse::default()
    };
    CheckResponse {
        status: Some(RpcStatus::default()),
        http_response: Some(HttpResponse::OkResponse(ok)),
        ..CheckResponse::default()
    }
}

/// Length of the `DecideResponse` that carries `verdict` with an attempt id of 9 bytes, as `attempt-0`.
fn answer_bytes(verdict: &Verdict) -> usize {
    let verdict = Verdict { attempt_id: "attempt-0".to_owned(), ..verdict.clone() };
    DecideResponse { verdict: Some(verdict) }.encoded_len()
}

/// Leaves out evidence while the answer is too long, then pads a text until it is long enough.
fn fit_verdict(verdict: &mut Verdict, target: usize) {
    while answer_bytes(verdict) > target && verdict.evidence.pop().is_some() {}
    while answer_bytes(verdict) < target {
        match verdict.evidence.last_mut() {
            Some(last) => last.why.push('.'),
            None => verdict.determining_policies.iter_mut().for_each(|id| id.push('.')),
        }
    }
}

/// Leaves out headers while the answer is too long, then pads the last one's value.
fn fit_check(check: &mut CheckResponse, target: usize) {
    loop {
        let length = check.encoded_len();
        let Some(HttpResponse::OkResponse(ok)) = &mut check.http_response else { return };
        if length > target && ok.headers.len() > 1 {
            ok.headers.pop();
        } else if length < target {
            let Some(header) = ok.headers.last_mut().and_then(|option| option.header.as_mut()) else {
                return;
            };
            header.value.push('.');
        } else {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_brought_to_the_size_asked_for() {
        let (usual_verdict, usual_check) = Answers::sized(None, None).bytes();
        for more in [1, 40, 300] {
            let sized = Answers::sized(Some(usual_verdict + more), Some(usual_check + more)).bytes();
            // A length prefix that grows by a byte may step over the target.
            assert!((more..=more + 2).contains(&(sized.0 - usual_verdict)), "{sized:?} for +{more}");
            assert!((more..=more + 2).contains(&(sized.1 - usual_check)), "{sized:?} for +{more}");
        }
        let (smaller, _) = Answers::sized(Some(usual_verdict - 30), None).bytes();
        assert!(smaller.abs_diff(usual_verdict - 30) <= 2, "{smaller}");
    }
}
