//! A token server for a registry (docker's token protocol): gives signed tokens to who knows the password.
//!
//! The registry verifies them by the certificate of the key, like those of any token server.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair, SigningKey as _};
use rustls::ServerConfig;
use serde_json::json;

use crate::attempts::wall_time;
use crate::registry::{PASSWORD, USER};
use crate::scripted::{Scripted, Step};

/// Who the tokens are from.
pub const ISSUER: &str = "tokens.test";
/// Whom they are for.
pub const SERVICE: &str = "registry.test";
/// Life of a token, in seconds.
const LIFE_S: i64 = 300;
/// Bytes of each half of an ES256 signature.
const HALF_BYTES: usize = 32;

/// See the module. Serves until it is dropped.
#[derive(Debug)]
pub struct TokenServer {
    /// Where it gives tokens.
    pub realm: String,
    /// By which they are verified.
    pub certificate: PathBuf,
    /// The scope of each token that was asked for, percent-encoded.
    scopes: Arc<Mutex<Vec<String>>>,
    _server: Scripted,
}

impl TokenServer {
    /// Starts one; its certificate for signing goes into `dir`.
    ///
    /// # Errors
    /// If keys cannot be made or no port can be bound.
    pub fn start(dir: &Path, tls: ServerConfig) -> Result<Self> {
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(Vec::new())?.self_signed(&key)?;
        let certificate = dir.join("tokens.pem");
        fs::write(&certificate, leaf.pem())?;
        let chain = STANDARD.encode(leaf.der());
        let scopes: Arc<Mutex<Vec<String>>> = Arc::default();
        let memory = Arc::clone(&scopes);
        // The server hands out heads in lower case.
        let known = STANDARD.encode(format!("{USER}:{PASSWORD}")).to_ascii_lowercase();
        let server = Scripted::start(tls, move |head| {
            let scope = head.split_once("scope=").map_or("", |(_, rest)| rest);
            let scope = scope.split(['&', ' ']).next().unwrap_or_default();
            memory.lock().unwrap_or_else(PoisonError::into_inner).push(scope.to_owned());
            let token = head.contains(&format!("basic {known}")).then(|| token(&key, &chain, scope));
            let (status, body) = match token {
                Some(Ok(token)) => ("200 OK", json!({ "token": token }).to_string()),
                _ => ("401 Unauthorized", String::new()),
            };
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            vec![Step::Send((head + &body).into_bytes())]
        })?;
        Ok(Self { realm: server.location("token"), certificate, scopes, _server: server })
    }

    /// The scope of each token that was asked for so far, percent-encoded.
    #[must_use]
    pub fn scopes(&self) -> Vec<String> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A token for `repository:NAME:ACTIONS`.
fn token(key: &KeyPair, chain: &str, scope: &str) -> Result<String> {
    let scope = scope.replace("%3a", ":").replace("%2f", "/").replace("%2c", ",");
    let mut parts = scope.split(':').skip(1);
    let (name, actions) = (parts.next().context("a name")?, parts.next().context("actions")?);
    let actions: Vec<&str> = actions.split(',').collect();
    let now_s = wall_time(0)?.seconds;
    let claims = json!({
        "iss": ISSUER, "aud": SERVICE, "sub": USER, "jti": "1",
        "iat": now_s, "nbf": now_s - LIFE_S, "exp": now_s + LIFE_S,
        "access": [{ "type": "repository", "name": name, "actions": actions }],
    });
    let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [chain] });
    let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = halves(&key.sign(signed.as_bytes())?)?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// An ECDSA signature as JSON web tokens have it, from its DER form: SEQUENCE { INTEGER r, INTEGER s }.
fn halves(der: &[u8]) -> Result<Vec<u8>> {
    let mut rest = der.get(2..).context("a sequence")?;
    let mut raw = Vec::new();
    for _ in 0..2 {
        let [0x02, length, tail @ ..] = rest else { anyhow::bail!("no integer") };
        let (integer, after) = tail.split_at_checked(usize::from(*length)).context("a whole integer")?;
        let start = integer.iter().position(|byte| *byte != 0).unwrap_or(integer.len());
        let digits = integer.get(start..).unwrap_or_default();
        raw.extend(std::iter::repeat_n(0, HALF_BYTES.saturating_sub(digits.len())));
        raw.extend_from_slice(digits);
        rest = after;
    }
    Ok(raw)
}
