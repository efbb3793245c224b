//! A transmitter of shared signals on HTTPS: metadata, keys, tokens, streams, polls, and what a test makes it sign.
//!
//! It remembers what it was asked, and can behave badly with its keys. Serves until it is dropped.

#![expect(
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "indexing of JSON gives null where nothing is, and literals of JSON are handed over as they stand"
)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// The id and the secret of the client that may manage streams.
pub const CLIENT: (&str, &str) = ("cardea", "geheim+&");
/// What its tokens name as their audience.
pub const AUDIENCE: &str = "https://pdp.example/ssf";
/// The token that it gives out.
const TOKEN: &str = "short-lived";

/// How the keys are published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publishing {
    /// As they should be.
    Well,
    /// Never an answer.
    Hanging,
    /// An answer without end.
    Flooding,
    /// A redirect to elsewhere.
    Elsewhere(String),
}

/// One request that it got.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method, path and query.
    pub line: String,
    /// Body, if it was JSON.
    pub body: Value,
}

/// See the module.
#[derive(Debug)]
pub struct Transmitter {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    stop: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Shared {
    issuer: String,
    kid: String,
    key: EcdsaKeyPair,
    publishing: Publishing,
    streams: BTreeMap<String, Value>,
    status: String,
    pending: BTreeMap<String, String>,
    asked: Vec<Asked>,
    made: u32,
}

type Body = BoxBody<Bytes, Infallible>;

impl Transmitter {
    /// Starts on a free port.
    ///
    /// # Errors
    /// If no port can be bound or no key made.
    pub fn start(config: ServerConfig) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared {
            issuer: format!("https://{address}/"),
            kid: "k1".to_owned(),
            key: key()?,
            publishing: Publishing::Well,
            streams: BTreeMap::new(),
            status: "enabled".to_owned(),
            pending: BTreeMap::new(),
            asked: Vec::new(),
            made: 0,
        }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let (served, acceptor) = (Arc::clone(&shared), TlsAcceptor::from(Arc::new(config)));
        thread::spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = serve(listener, acceptor, served) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, shared, stop: Some(stop) })
    }

    /// Its issuer.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("https://{}/", self.address)
    }

    /// The claims of a good token about a subject.
    #[must_use]
    pub fn claims(&self, jti: &str, subject: Value, event: &str, says: Value) -> Value {
        json!({
            "iss": self.issuer(), "jti": jti, "iat": now_s(), "aud": AUDIENCE, "txn": "cause-1",
            "sub_id": subject, "events": {event: says},
        })
    }

    /// Signs claims.
    ///
    /// # Errors
    /// If the key refuses.
    pub fn sign(&self, claims: &Value) -> Result<String> {
        self.lock().sign(claims)
    }

    /// Signs with another key from now on, and publishes that one alone.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn roll(&self, kid: &str) -> Result<()> {
        let mut shared = self.lock();
        shared.key = key()?;
        shared.kid = kid.to_owned();
        Ok(())
    }

    /// Publishes its keys otherwise.
    pub fn publish(&self, how: Publishing) {
        self.lock().publishing = how;
    }

    /// Holds a token for the next poll.
    pub fn hold(&self, jti: &str, token: String) {
        self.lock().pending.insert(jti.to_owned(), token);
    }

    /// Names of tokens that wait to be fetched or acknowledged.
    #[must_use]
    pub fn waiting(&self) -> Vec<String> {
        self.lock().pending.keys().cloned().collect()
    }

    /// Every request so far whose line begins like this.
    #[must_use]
    pub fn asked(&self, start: &str) -> Vec<Asked> {
        self.lock().asked.iter().filter(|asked| asked.line.starts_with(start)).cloned().collect()
    }

    /// The streams that there are.
    #[must_use]
    pub fn streams(&self) -> Vec<Value> {
        self.lock().streams.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Transmitter {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Fails only if the thread has ended.
            let _ = stop.send(());
        }
    }
}

impl Shared {
    fn sign(&self, claims: &Value) -> Result<String> {
        let header = json!({"typ": "secevent+jwt", "alg": "ES256", "kid": self.kid});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature =
            self.key.sign(&SystemRandom::new(), signed.as_bytes()).ok().context("no signature")?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn jwks(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let (x, y) = point.split_at_checked(33).unwrap_or_default();
        let x = x.strip_prefix(&[4]).unwrap_or_default();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.kid, "x": encode(x), "y": encode(y)}]})
    }

    fn metadata(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        json!({
            "spec_version": "1_0", "issuer": self.issuer, "jwks_uri": at("jwks"),
            "configuration_endpoint": at("streams"), "status_endpoint": at("status"),
            "verification_endpoint": at("verify"), "critical_subject_members": ["org_unit"],
        })
    }

    /// Every call to a stream's addresses, by method, path and the stream that is named.
    fn manage(&mut self, method: &str, path: &str, id: &str, body: &Value) -> (StatusCode, Value) {
        match (method, path) {
            ("GET", "/streams") if id.is_empty() => {
                (StatusCode::OK, self.streams.values().cloned().collect::<Vec<_>>().into())
            }
            ("POST", "/streams") => {
                self.made += 1;
                let id = format!("stream-{}", self.made);
                let mut stream = body.clone();
                stream["stream_id"] = json!(id);
                stream["iss"] = json!(self.issuer);
                stream["aud"] = json!([AUDIENCE]);
                if stream["delivery"]["method"] == "urn:ietf:rfc:8936" {
                    stream["delivery"]["endpoint_url"] = json!(format!("{}poll", self.issuer));
                }
                self.streams.insert(id, stream.clone());
                (StatusCode::CREATED, stream)
            }
            ("POST", "/verify") => {
                let id = body["stream_id"].as_str().unwrap_or_default().to_owned();
                let says =
                    body.get("state").map(|state| json!({"state": state})).unwrap_or_else(|| json!({}));
                self.tell_of(&id, "verification", says);
                (StatusCode::NO_CONTENT, Value::Null)
            }
            ("GET", "/status") => (StatusCode::OK, json!({"stream_id": id, "status": self.status})),
            ("PATCH", "/streams") => {
                match self.streams.get_mut(body["stream_id"].as_str().unwrap_or_default()) {
                    Some(stream) => {
                        stream["events_requested"] = body["events_requested"].clone();
                        (StatusCode::OK, stream.clone())
                    }
                    None => (StatusCode::NOT_FOUND, Value::Null),
                }
            }
            ("GET", "/streams") => match self.streams.get(id) {
                Some(stream) => (StatusCode::OK, stream.clone()),
                None => (StatusCode::NOT_FOUND, Value::Null),
            },
            ("DELETE", "/streams") => match self.streams.remove(id) {
                Some(_) => (StatusCode::NO_CONTENT, Value::Null),
                None => (StatusCode::NOT_FOUND, Value::Null),
            },
            _ => (StatusCode::NOT_FOUND, Value::Null),
        }
    }

    fn tell_of(&mut self, stream: &str, event: &str, says: Value) {
        let jti = format!("{event}-{}", self.asked.len());
        let uri = format!("https://schemas.openid.net/secevent/ssf/event-type/{event}");
        let claims = json!({
            "iss": self.issuer, "jti": jti, "iat": now_s(), "aud": AUDIENCE,
            "sub_id": {"format": "opaque", "id": stream}, "events": {uri: says},
        });
        if let Ok(token) = self.sign(&claims) {
            self.pending.insert(jti, token);
        }
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Mutex<Shared>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { return };
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let service = hyper::service::service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(answer(request, &shared).await) }
            });
            // A peer that goes away is what some of the tests are for.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>, shared: &Mutex<Shared>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let path = head.uri.path();
    let authorization =
        head.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    lock().asked.push(Asked { line: format!("{} {}", head.method, head.uri), body: body.clone() });
    match path {
        "/.well-known/ssf-configuration" => return said(StatusCode::OK, &lock().metadata()),
        "/jwks" => return jwks(shared).await,
        "/token" => {
            let (id, secret) = (CLIENT.0, "geheim%2B%26");
            let basic = base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}"));
            let fits = authorization == format!("Basic {basic}")
                && bytes.as_ref() == b"grant_type=client_credentials&scope=ssf.manage";
            return match fits {
                true => said(
                    StatusCode::OK,
                    &json!({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 600}),
                ),
                false => said(StatusCode::UNAUTHORIZED, &json!({"error": "invalid_client"})),
            };
        }
        _ => {}
    }
    if authorization != format!("Bearer {TOKEN}") {
        return said(StatusCode::UNAUTHORIZED, &json!({"error": "invalid_token"}));
    }
    if path == "/poll" {
        return poll(shared, &body).await;
    }
    let id = head.uri.query().and_then(|query| query.strip_prefix("stream_id=")).unwrap_or_default();
    let (status, value) = lock().manage(head.method.as_str(), path, id, &body);
    said(status, &value)
}

/// Forgets what is acknowledged or refused, and waits up to a second for something to say.
async fn poll(shared: &Mutex<Shared>, body: &Value) -> Response<Body> {
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    let told = body["ack"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let refused = body["setErrs"].as_object().into_iter().flatten().map(|(jti, _)| jti.clone());
    for jti in told.chain(refused) {
        lock().pending.remove(&jti);
    }
    for _ in 0..20 {
        if !lock().pending.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pending = lock().pending.clone();
    said(StatusCode::OK, &json!({"sets": pending}))
}

async fn jwks(shared: &Mutex<Shared>) -> Response<Body> {
    let (how, keys) = {
        let shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        (shared.publishing.clone(), shared.jwks())
    };
    match how {
        Publishing::Well => said(StatusCode::OK, &keys),
        Publishing::Hanging => std::future::pending().await,
        Publishing::Flooding => {
            let chunk = Bytes::from(vec![b' '; 64 * 1024]);
            // 100 MB, as far as anybody reads them.
            let chunks = (0..1600).map(move |_| Ok(Frame::data(chunk.clone())));
            Response::new(StreamBody::new(tokio_stream::iter(chunks)).boxed())
        }
        Publishing::Elsewhere(to) => {
            let mut answer = said(StatusCode::FOUND, &Value::Null);
            if let Ok(to) = to.parse() {
                answer.headers_mut().insert("location", to);
            }
            answer
        }
    }
}

fn said(status: StatusCode, value: &Value) -> Response<Body> {
    let body = if value.is_null() { Bytes::new() } else { value.to_string().into() };
    let mut answer = Response::new(Full::new(body).boxed());
    *answer.status_mut() = status;
    answer
}

fn key() -> Result<EcdsaKeyPair> {
    let random = SystemRandom::new();
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).ok().context("no key")?;
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).ok().context("no key")
}

fn now_s() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map(|since| since.as_secs()).unwrap_or_default()
}
