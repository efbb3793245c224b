//! Test tokens: JWTs signed with an Ed25519 key, and the JWKS that Envoy verifies them by.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};

use crate::attempts::wall_time;

/// The issuer in every token.
pub const ISSUER: &str = "https://idp.test";
/// Life of a token, in seconds.
const LIFE_S: i64 = 3600;
/// An Ed25519 public key is the last 32 bytes of its SubjectPublicKeyInfo.
const ED25519_KEY_BYTES: usize = 32;

/// Who signs tokens.
#[derive(Debug)]
pub struct Idp {
    key: KeyPair,
}

impl Idp {
    /// With a new key.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn new() -> Result<Self> {
        Ok(Self { key: KeyPair::generate_for(&PKCS_ED25519)? })
    }

    /// The key set.
    ///
    /// # Errors
    /// If the key has an unknown form.
    pub fn jwks(&self) -> Result<String> {
        let info = self.key.subject_public_key_info();
        let raw = info.last_chunk::<ED25519_KEY_BYTES>();
        let raw = raw.ok_or_else(|| anyhow::anyhow!("the public key is too short"))?;
        let x = URL_SAFE_NO_PAD.encode(raw);
        let key =
            json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "test", "x": x });
        Ok(json!({ "keys": [key] }).to_string())
    }

    /// A token of a subject within a session.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn token(&self, subject: &str, session_id: &str) -> Result<String> {
        self.token_with(json!({ "sub": subject, "sid": session_id }))
    }

    /// A token with these claims beside `iss`, `iat` and `exp`.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn token_with(&self, mut claims: Value) -> Result<String> {
        let map = claims.as_object_mut().ok_or_else(|| anyhow::anyhow!("claims are an object"))?;
        let now_s = wall_time(0)?.seconds;
        for (name, value) in [("iss", json!(ISSUER)), ("iat", json!(now_s)), ("exp", json!(now_s + LIFE_S))] {
            map.entry(name).or_insert(value);
        }
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": "test" }).to_string();
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.sign(signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
