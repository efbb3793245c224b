//! The keys that events are signed with: RS256, made here, rolled here.
//!
//! A private key never leaves this machine: it is made here and kept in a file that only its owner may read, as PKCS#8.
//! INVARIANT (known before used): a key is published for [`limits::SSF_KEY_AHEAD`] before it signs; the very first one, and
//! one that takes the place of keys that were lost, signs at once. INVARIANT (known after use): a key that signed stays
//! published for [`limits::SSF_KEY_KEEP`] after it did so for the last time.
//! Limits: [`limits::SSF_KEY_BITS`] bits.
//! Never does: showing a private key in `Debug`, logs or errors; reading a clock.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use parking_lot::RwLock;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair, PublicKeyComponents};
use ring::signature::RSA_PKCS1_SHA256;
use rsa::pkcs8::EncodePrivateKey as _;
use serde_json::{Value, json};
use smol_str::SmolStr;

use super::outbox::Signed;
use crate::limits;

/// Largest key file, in bytes; one of 4096 bits has 2.4 KiB.
const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// The file system refused.
    #[error("cannot {action} `{}`: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("`{}` may be read by others than its owner: set its mode to 0600, or remove it to have a new key made", .0.display())]
    Open(PathBuf),
    /// It is not what was written there.
    #[error("`{}` is not a private key of this service: restore it, or remove it to have a new key made", .0.display())]
    Content(PathBuf),
    /// No key could be made.
    #[error("no RSA key could be made: {0}")]
    Make(String),
    /// A token could not be signed.
    #[error("a token could not be signed")]
    Sign,
}

/// When a key began and ended to sign, Unix milliseconds. What the store keeps of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// Name of the key, and of its file.
    pub(super) kid: SmolStr,
    /// Since when it is published.
    pub(super) made_ms: i64,
    /// Since when it signs.
    pub(super) signs_ms: Option<i64>,
    /// Until when it signed.
    pub(super) ended_ms: Option<i64>,
}

/// What is to be done about the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make the next key.
    Make,
    /// Let the next key sign.
    Promote,
    /// Forget a key that is old enough.
    Forget(SmolStr),
}

/// The next step, if any is due. `signs_ms` is how long a key signs.
pub(super) fn due(keys: &[Life], signs_ms: i64, now_ms: i64) -> Option<Step> {
    let ahead = millis(limits::SSF_KEY_AHEAD);
    let current = keys.iter().find(|key| key.signs_ms.is_some() && key.ended_ms.is_none());
    let next = keys.iter().find(|key| key.signs_ms.is_none());
    match (current, next) {
        (None, None) => return Some(Step::Make),
        (None, Some(_)) => return Some(Step::Promote),
        (Some(current), next) => {
            let age = now_ms.saturating_sub(current.signs_ms.unwrap_or(now_ms));
            match next {
                None if age >= signs_ms.saturating_sub(ahead) => return Some(Step::Make),
                Some(next) if age >= signs_ms && now_ms.saturating_sub(next.made_ms) >= ahead => {
                    return Some(Step::Promote);
                }
                _ => {}
            }
        }
    }
    let keep = millis(limits::SSF_KEY_KEEP);
    let old = keys.iter().find(|key| key.ended_ms.is_some_and(|end| now_ms.saturating_sub(end) >= keep));
    old.map(|key| Step::Forget(key.kid.clone()))
}

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A key that can sign.
pub(super) struct Key {
    pub(super) life: Life,
    pair: Arc<KeyPair>,
    jwk: Value,
}

/// The keys in force; cheap to share.
pub(super) struct Signer {
    dir: PathBuf,
    keys: RwLock<Vec<Arc<Key>>>,
    random: SystemRandom,
}

impl Signer {
    /// Opens the directory, and the keys that the store tells of. A key whose file is gone is left out and told: its events
    /// can no longer be verified, but those to come can.
    pub(super) fn open(dir: &Path, lives: Vec<Life>) -> Result<(Self, Vec<Life>), KeyFault> {
        make_dir(dir)?;
        let (mut keys, mut gone) = (Vec::new(), Vec::new());
        for life in lives {
            let path = path_of(dir, &life.kid);
            match read(&path)? {
                Some(der) => match Key::new(&der, &life) {
                    Some(key) => keys.push(Arc::new(key)),
                    None => return Err(KeyFault::Content(path)),
                },
                None => gone.push(life),
            }
        }
        let signer = Self { dir: dir.to_owned(), keys: RwLock::new(keys), random: SystemRandom::new() };
        Ok((signer, gone))
    }

    /// What the store keeps of the keys.
    pub(super) fn lives(&self) -> Vec<Life> {
        self.keys.read().iter().map(|key| key.life.clone()).collect()
    }

    /// Makes a key and keeps it in its file; it is not published yet. Takes up to seconds.
    pub(super) fn make(&self, now_ms: i64) -> Result<Key, KeyFault> {
        let fault = |error: &dyn std::fmt::Display| KeyFault::Make(error.to_string());
        let mut random = Random(&self.random);
        let key = rsa::PrivateKey::new(&mut random, limits::SSF_KEY_BITS).map_err(|error| fault(&error))?;
        let der = key.to_pkcs8_der().map_err(|error| fault(&error))?;
        let life = Life { kid: SmolStr::default(), made_ms: now_ms, signs_ms: None, ended_ms: None };
        let mut key = Key::new(der.as_bytes(), &life).ok_or_else(|| fault(&"it cannot be read again"))?;
        key.life.kid = key.jwk.get("kid").and_then(Value::as_str).unwrap_or_default().into();
        write(&path_of(&self.dir, &key.life.kid), der.as_bytes())?;
        Ok(key)
    }

    /// Publishes a key.
    pub(super) fn publish(&self, key: Key) {
        self.keys.write().push(Arc::new(key));
    }

    /// Lets the next key sign, and returns both that changed.
    pub(super) fn promote(&self, now_ms: i64) -> Vec<Life> {
        let mut keys = self.keys.write();
        let mut changed = Vec::new();
        for slot in keys.iter_mut() {
            let mut life = slot.life.clone();
            match (life.signs_ms, life.ended_ms) {
                (None, _) => life.signs_ms = Some(now_ms),
                (Some(_), None) => life.ended_ms = Some(now_ms),
                (Some(_), Some(_)) => continue,
            }
            changed.push(life.clone());
            *slot = Arc::new(Key { life, pair: Arc::clone(&slot.pair), jwk: slot.jwk.clone() });
        }
        changed
    }

    /// Takes a key out of the published ones and removes its file.
    pub(super) fn forget(&self, kid: &str) {
        self.keys.write().retain(|key| key.life.kid != kid);
        if let Err(error) = fs::remove_file(path_of(&self.dir, kid)) {
            tracing::warn!(%kid, %error, "the file of an old signing key could not be removed");
        }
    }

    /// The key that signs.
    pub(super) fn current(&self) -> Option<Arc<Key>> {
        let keys = self.keys.read();
        keys.iter().find(|key| key.life.signs_ms.is_some() && key.life.ended_ms.is_none()).cloned()
    }

    /// The public keys, as receivers fetch them.
    pub(super) fn jwks(&self) -> Value {
        json!({ "keys": self.keys.read().iter().map(|key| key.jwk.clone()).collect::<Vec<_>>() })
    }

    /// Signs claims. Takes about a millisecond.
    pub(super) fn sign(&self, claims: &str) -> Result<Signed, KeyFault> {
        let key = self.current().ok_or(KeyFault::Sign)?;
        let header = json!({ "alg": "RS256", "kid": key.life.kid.as_str(), "typ": "secevent+jwt" });
        let mut token = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims));
        let mut signature = vec![0; key.pair.public().modulus_len()];
        key.pair
            .sign(&RSA_PKCS1_SHA256, &self.random, token.as_bytes(), &mut signature)
            .map_err(|_| KeyFault::Sign)?;
        token.push('.');
        token.push_str(&B64.encode(&signature));
        Ok(Signed { kid: key.life.kid.clone(), token: token.into() })
    }
}

impl Key {
    fn new(der: &[u8], life: &Life) -> Option<Self> {
        let pair = KeyPair::from_pkcs8(der).ok()?;
        let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
        let (n, e) = (B64.encode(&public.n), B64.encode(&public.e));
        // The thumbprint of RFC 7638: members in the order of the alphabet, no spaces.
        let thumb = digest(&SHA256, format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#).as_bytes());
        let kid = B64.encode(thumb.as_ref());
        if !life.kid.is_empty() && life.kid != kid {
            return None;
        }
        let jwk = json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": e });
        Some(Self { life: Life { kid: kid.into(), ..life.clone() }, pair: Arc::new(pair), jwk })
    }
}

/// ring's random numbers for the maker of keys, so that there is one source of them.
struct Random<'r>(&'r SystemRandom);

/// The system gave no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random numbers")]
struct NoRandom;

impl rsa::rand_core::TryRng for Random<'_> {
    type Error = NoRandom;

    fn try_next_u32(&mut self) -> Result<u32, NoRandom> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, NoRandom> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), NoRandom> {
        use ring::rand::SecureRandom as _;
        self.0.fill(bytes).map_err(|_| NoRandom)
    }
}

impl rsa::rand_core::TryCryptoRng for Random<'_> {}

fn path_of(dir: &Path, kid: &str) -> PathBuf {
    dir.join(format!("{kid}.p8"))
}

fn make_dir(dir: &Path) -> Result<(), KeyFault> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| KeyFault::Io { action: "make", path: dir.to_owned(), source })
}

/// The content of a key file; none if there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, KeyFault> {
    use std::io::Read as _;
    let fault = |source| KeyFault::Io { action: "read", path: path.to_owned(), source };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(error)),
    };
    if file.metadata().map_err(fault)?.permissions().mode() & 0o077 != 0 {
        return Err(KeyFault::Open(path.to_owned()));
    }
    let mut der = Vec::new();
    file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut der).map_err(fault)?;
    Ok(Some(der))
}

/// Writes a key file that is whole or not there, and durable.
fn write(path: &Path, der: &[u8]) -> Result<(), KeyFault> {
    let fault = |source| KeyFault::Io { action: "write", path: path.to_owned(), source };
    let half = path.with_extension("new");
    let _ = fs::remove_file(&half);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half).map_err(fault)?;
    file.write_all(der).and_then(|()| file.sync_all()).map_err(fault)?;
    fs::rename(&half, path).map_err(fault)?;
    if let Some(dir) = path.parent() {
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(fault)?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
