//! The transmitter as its receivers meet it, with a real ledger, a real audit and real sockets.

mod attacks;
mod managing;
mod model;
mod polling;
mod pushing;

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use cardea_policy_store::engine::Uid;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::conclusion::{About, Cause, Initiator, What};
use super::*;
use crate::audit::AuditConfig;
use crate::pipeline;
use crate::ssf::http::Part as _;
use crate::ssf::jwk::KeySet;
use crate::ssf::set::{Expected, Set, Unverified};
use crate::supervise::{Deaths, Ended};

const START_MS: i64 = 1_790_000_000_000;
const ISSUER: &str = "https://t.example/";
const RP: &str = "the-token-of-the-first-receiver";
const OTHER: &str = "the-token-of-the-second-receiver";
const READER: &str = "the-token-of-one-that-only-reads";

/// A transmitter with what is around it.
struct Node {
    transmitter: Arc<Transmitter>,
    clock: Clock,
    ledger: Ledger,
    writing: Option<JoinHandle<Result<(), LedgerFault>>>,
    supervisor: Supervisor,
    running: Mutex<Option<Ended>>,
    _deaths: Deaths,
    dir: PathBuf,
}

fn options(dir: &Path) -> Options {
    let receiver = |name: &str, token: &str, read, manage| {
        let token_file = dir.join(name);
        std::fs::write(&token_file, token).unwrap();
        Receiver {
            name: name.to_owned(),
            token_file,
            audience: format!("https://{name}.example/"),
            scopes: Scopes { read, manage },
            push_hosts: vec![PushHost::parse("push.example").unwrap()],
            transmits_as: (name == "rp").then(|| "https://idp.example/".to_owned()),
        }
    };
    Options {
        urls: Urls::new(ISSUER).unwrap(),
        key_days: 30,
        subject: Template::parse(TEMPLATE_DEFAULT).unwrap(),
        outbox_max: 100,
        min_verification_interval_s: 30,
        ca: None,
        receivers: vec![
            receiver("rp", RP, true, true),
            receiver("other", OTHER, true, true),
            receiver("reader", READER, true, false),
        ],
    }
}

impl Node {
    fn open(dir: &Path, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = options(dir);
        change(&mut options);
        let (ledger, writer) = Ledger::open(&dir.join("state")).unwrap();
        let writing = std::thread::spawn(move || writer.run());
        let clock = Clock::standing_at(START_MS);
        let audit = Audit::open(&AuditConfig::in_dir(dir.join("audit")), Box::new(|| 0)).unwrap();
        let shutdown = Shutdown::new();
        let metrics = Arc::new(Metrics::new(pipeline::labels(1)));
        let (supervisor, deaths) = Supervisor::new(shutdown.clone(), metrics.panics.clone());
        let around = Around {
            ledger: ledger.clone(),
            keys_dir: dir.join("keys"),
            audit: Arc::new(audit),
            metrics,
            clock: clock.clone(),
            shutdown,
        };
        let transmitter = Arc::new(Transmitter::open(options, around).unwrap());
        Self {
            transmitter,
            clock,
            ledger,
            writing: Some(writing),
            supervisor,
            running: Mutex::default(),
            _deaths: deaths,
            dir: dir.to_owned(),
        }
    }

    /// Lets it run, as `serve` does.
    fn run(&self) {
        let running = Arc::clone(&self.transmitter).run(self.supervisor.clone());
        *self.running.lock() = Some(self.supervisor.task("ssf-transmit", running));
    }

    /// Ends it as a good stop does, and returns what it recorded.
    async fn close(mut self) -> Vec<String> {
        self.transmitter.around.shutdown.abort();
        let running = self.running.lock().take();
        if let Some(running) = running {
            running.wait().await;
        }
        self.ledger.close();
        self.writing.take().unwrap().join().unwrap().unwrap();
        self.transmitter.around.audit.close().unwrap();
        let audit = self.dir.join("audit");
        let records = crate::audit::stored::Stored::open(&[audit]).unwrap();
        records.map(|record| serde_json::to_string(&record.unwrap()).unwrap()).collect()
    }

    async fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> (StatusCode, Value, HeaderMap) {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json; charset=utf-8");
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let body = bytes::Bytes::copy_from_slice(body.as_bytes());
        let answer = self.transmitter.handle(&parts, async { Ok(body) }).await;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        (parts.status, value, parts.headers)
    }

    async fn get(&self, path: &str) -> Value {
        let (status, value, _) = self.ask("GET", path, RP, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {value}");
        value
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let (status, value, _) = self.ask("POST", path, RP, &body.to_string()).await;
        (status, value)
    }

    /// Makes a stream of the first receiver and returns its id.
    async fn stream(&self, body: Value) -> String {
        let (status, stream) = self.post("/ssf/streams", body).await;
        assert_eq!(status, StatusCode::CREATED, "{stream}");
        stream["stream_id"].as_str().unwrap().to_owned()
    }

    async fn poll(&self, id: &str, body: Value) -> Value {
        let (status, answer) = self.post(&format!("/ssf/poll/{id}"), body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    fn conclude(&self, conclusion: Conclusion) {
        self.transmitter.conclude(conclusion, self.clock.now());
    }

    /// Verifies a token as a receiver of this project does.
    fn verified(&self, token: &str, audience: &str) -> Set {
        let keys = KeySet::parse(self.transmitter.signer.jwks().to_string().as_bytes()).unwrap();
        let expected = Expected { issuer: ISSUER, audience: &[audience.into()], oldest_iat_ms: 0 };
        Unverified::read(token.as_bytes())
            .and_then(|unverified| unverified.verify(&keys, &expected, self.clock.now().wall_ms))
            .unwrap()
    }
}

/// The end of a session.
fn revoked(id: &str, session: &str) -> Conclusion {
    let uid: cedar_policy::EntityUid = format!("User::{id:?}").parse().unwrap();
    Conclusion {
        about: About { principal: Some(Uid::from(&uid)), session: Some(session.into()) },
        what: What::SessionRevoked { reason: "an operator ended it".into() },
        initiator: Initiator::Admin,
        at_ms: START_MS,
        cause: None,
    }
}

/// The claims of a token, believed as they are.
fn claims(token: &Value) -> Value {
    let payload = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&B64.decode(payload).unwrap()).unwrap()
}

/// The sessions that the events of a poll are about, in their order.
fn sessions(answer: &Value) -> Vec<String> {
    let session = |token: &Value| claims(token)["sub_id"]["session"]["id"].as_str().unwrap_or("-").to_owned();
    answer["sets"].as_object().unwrap().values().map(session).collect()
}

fn jtis(answer: &Value) -> Vec<String> {
    answer["sets"].as_object().unwrap().keys().cloned().collect()
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come to pass within ten seconds: {what}");
}

fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}
