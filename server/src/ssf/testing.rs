//! An issuer for tests: keys of each kind, and tokens that are right or wrong in one place.
#![expect(clippy::needless_pass_by_value, reason = "literals of JSON are handed over as they stand")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use super::address::Address;
use super::event::EventType;

pub(crate) const ISSUER: &str = "https://idp.example/";
pub(crate) const AUDIENCE: &str = "https://pdp.example/ssf";
/// When the tokens of tests are issued, Unix seconds.
pub(crate) const IAT_S: i64 = 1_760_000_000;

/// Made for tests with `openssl genpkey`; it protects nothing.
const RSA: &[u8] = include_bytes!("testing/rsa2048.pk8");

pub(crate) struct Issuer {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
    random: SystemRandom,
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self {
            rsa: RsaKeyPair::from_pkcs8(RSA).unwrap(),
            p256: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
            ed25519: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            random,
        }
    }

    /// `rsa`, `p256` and `ed`, as they are published.
    pub(crate) fn jwks(&self) -> Value {
        let rsa = self.rsa_components();
        let point = self.p256.public_key().as_ref();
        json!({"keys": [
            {"kty": "RSA", "kid": "rsa", "use": "sig", "n": encode(&rsa.n), "e": encode(&rsa.e)},
            {"kty": "EC", "crv": "P-256", "kid": "p256", "x": encode(&point[1..33]), "y": encode(&point[33..])},
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "alg": "EdDSA", "x": encode(self.ed25519.public_key())},
        ]})
    }

    fn rsa_components(&self) -> RsaPublicKeyComponents<Vec<u8>> {
        RsaPublicKeyComponents::from(self.rsa.public())
    }

    pub(crate) fn signature(&self, alg: &str, signed: &[u8]) -> Vec<u8> {
        let rsa = |padding: &'static dyn ring::signature::RsaEncoding| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(padding, &self.random, signed, &mut signature).unwrap();
            signature
        };
        match alg {
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "ES256" => self.p256.sign(&self.random, signed).unwrap().as_ref().to_vec(),
            "EdDSA" | "Ed25519" => self.ed25519.sign(signed).as_ref().to_vec(),
            // With what everybody can read: the public key, as a shared secret.
            "HS256" => {
                let secret = self.rsa_components().n;
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
                ring::hmac::sign(&key, signed).as_ref().to_vec()
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let alg = header["alg"].as_str().unwrap_or_default();
        let signature = self.signature(alg, signed.as_bytes());
        format!("{signed}.{}", encode(signature))
    }

    /// As a good transmitter signs.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.token(&header(), claims)
    }
}

pub(crate) fn header() -> Value {
    json!({"typ": "secevent+jwt", "alg": "RS256", "kid": "rsa"})
}

/// The claims of a good token.
pub(crate) fn claims(jti: &str, subject: Value, kind: EventType, event: Value) -> Value {
    json!({
        "iss": ISSUER,
        "jti": jti,
        "iat": IAT_S,
        "aud": AUDIENCE,
        "txn": "c-17",
        "sub_id": subject,
        "events": {kind.uri(): event},
    })
}

/// What a server of tests does with a request for a path.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// 200 with this body.
    Body(String),
    /// Another status, with a header.
    Status(u16, String),
    /// Nothing, ever.
    Hang,
    /// 200, and bytes without end.
    Flood,
}

/// A plain HTTP/1.1 server on loopback that counts what it is asked.
pub(crate) struct Server {
    pub(crate) at: SocketAddr,
    asked: Arc<AtomicUsize>,
    reply: Arc<Mutex<Reply>>,
}

impl Server {
    pub(crate) fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (asked, reply) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(reply)));
        let (counted, replies) = (Arc::clone(&asked), Arc::clone(&reply));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let reply = replies.lock().clone();
                std::thread::spawn(move || serve(stream, &reply));
            }
        });
        Self { at, asked, reply }
    }

    pub(crate) fn address(&self, path: &str) -> Address {
        Address::parse(&format!("http://{}{path}", self.at)).unwrap()
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn now_replies(&self, reply: Reply) {
        *self.reply.lock() = reply;
    }
}

fn serve(mut stream: TcpStream, reply: &Reply) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
    }
    let answer = match reply {
        Reply::Body(body) => {
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        }
        Reply::Status(status, header) => {
            format!("HTTP/1.1 {status} X\r\n{header}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        }
        Reply::Hang => {
            std::thread::sleep(Duration::from_secs(60));
            return;
        }
        Reply::Flood => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
    };
    let _gone = stream.write_all(answer.as_bytes());
    if matches!(reply, Reply::Flood) {
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        while stream.write_all(chunk.as_bytes()).is_ok() {}
    }
}
