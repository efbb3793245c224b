//! The keys that an issuer publishes (RFC 7517), and checking a signature with one of them.
//!
//! A key serves one algorithm family and no other, so that a token cannot choose how its key is read. What cannot be used
//! is left out of the set and counted: shared secrets, other curves, RSA below [`RSA_BITS_MIN`] bits, keys for
//! encryption, and keys whose private half was published with them.
//! Limits: [`SET_BYTES_MAX`], [`KEYS_MAX`] keys, [`KID_BYTES_MAX`] for a name, RSA up to [`RSA_BITS_MAX`] bits.
//! Never does: following `x5u`, or believing `x5c`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::json;

/// Largest set of keys, in bytes. Large providers publish below 16 KiB.
pub const SET_BYTES_MAX: u64 = 256 * 1024;
/// Most keys of a set. Providers publish two to ten.
pub const KEYS_MAX: usize = 64;
/// Longest name of a key, in bytes: a thumbprint has 43.
pub const KID_BYTES_MAX: usize = 256;
/// Shortest RSA key, in bits.
pub const RSA_BITS_MIN: usize = 2048;
/// Longest RSA key, in bits; verifying takes time that grows with its square.
pub const RSA_BITS_MAX: usize = 8192;

/// How a token may be signed. Never `none`, and nothing with a shared secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Those that are accepted, for messages.
    pub const NAMES: &str = "RS256, PS256, ES256 and EdDSA";

    /// The one with this name, to the letter.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "PS256" => Self::Ps256,
            "ES256" => Self::Es256,
            // RFC 9864 gives the second name to the same thing.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    fn family(self) -> Family {
        match self {
            Self::Rs256 | Self::Ps256 => Family::Rsa,
            Self::Es256 => Family::P256,
            Self::EdDsa => Family::Ed25519,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    Rsa,
    P256,
    Ed25519,
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    material: Material,
    /// The only algorithm that it is published for.
    only: Option<Algorithm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The point, uncompressed.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// The keys of an issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    keys: BTreeMap<(SmolStr, Family), Key>,
    left_out: usize,
}

/// Why something is not a set of keys.
#[derive(Debug, thiserror::Error)]
pub enum KeySetFault {
    /// Not JSON.
    #[error("the keys are not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// No list of keys.
    #[error("the keys have no list `keys`")]
    NoList,
    /// Too many.
    #[error("the issuer publishes more than {KEYS_MAX} keys")]
    TooMany,
    /// None that can be used.
    #[error(
        "none of the {0} keys can be used: there must be RSA of at least {RSA_BITS_MIN} bits, P-256 or Ed25519, for signatures"
    )]
    NoneUsable(usize),
}

impl KeySet {
    /// Reads a set.
    ///
    /// # Errors
    /// When it is none, or no key in it can be used.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeySetFault> {
        let set = json::parse(bytes)?;
        let list = set.get("keys").and_then(Value::as_array).ok_or(KeySetFault::NoList)?;
        if list.len() > KEYS_MAX {
            return Err(KeySetFault::TooMany);
        }
        let mut keys = BTreeMap::new();
        for key in list {
            if let Some((kid, key)) = key.as_object().and_then(read) {
                // Of two keys with one name the first counts, whatever is appended later.
                keys.entry((kid, key.family())).or_insert(key);
            }
        }
        if keys.is_empty() {
            return Err(KeySetFault::NoneUsable(list.len()));
        }
        let left_out = list.len() - keys.len();
        Ok(Self { keys, left_out })
    }

    /// The key that a token names, if it serves the algorithm. A token that names none can mean only the only one.
    #[must_use]
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let family = algorithm.family();
        let key = match kid {
            Some(kid) => self.keys.get(&(SmolStr::from(kid), family)),
            None => {
                let mut fitting = self.keys.iter().filter(|((_, of), _)| *of == family).map(|(_, key)| key);
                fitting.next().filter(|_| fitting.next().is_none())
            }
        };
        key.filter(|key| key.only.is_none_or(|only| only == algorithm))
    }

    /// How many keys can be used, and how many were left out.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.keys.len(), self.left_out)
    }
}

impl Key {
    fn family(&self) -> Family {
        match self.material {
            Material::Rsa { .. } => Family::Rsa,
            Material::P256(_) => Family::P256,
            Material::Ed25519(_) => Family::Ed25519,
        }
    }

    /// Whether this key signed the message.
    #[must_use]
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if self.only.is_some_and(|only| only != algorithm) {
            return false;
        }
        match (&self.material, algorithm) {
            (Material::Rsa { n, e }, Algorithm::Rs256) => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            (Material::Rsa { n, e }, Algorithm::Ps256) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PSS_2048_8192_SHA256, message, signature).is_ok()
            }
            (Material::P256(point), Algorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            (Material::Ed25519(key), Algorithm::EdDsa) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// A key with its name; none for what cannot be used.
fn read(key: &Map<String, Value>) -> Option<(SmolStr, Key)> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let is_for_signatures = key.get("use").is_none_or(|it| it.as_str() == Some("sig"));
    let verifies = key.get("key_ops").is_none_or(|ops| {
        ops.as_array().is_some_and(|ops| ops.iter().any(|op| op.as_str() == Some("verify")))
    });
    // Whoever reads the set could sign with a private half.
    if !is_for_signatures || !verifies || key.contains_key("d") {
        return None;
    }
    let kid = match key.get("kid") {
        None => "",
        Some(kid) => kid.as_str().filter(|kid| kid.len() <= KID_BYTES_MAX)?,
    };
    let only = match key.get("alg") {
        None => None,
        Some(name) => Some(Algorithm::of_name(name.as_str()?)?),
    };
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => rsa(&bytes("n")?, bytes("e")?)?,
        ("EC", Some("P-256")) => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == 32 && y.len() == 32).then(|| Material::P256([&[4][..], &x, &y].concat()))?
        }
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
        _ => return None,
    };
    let key = Key { material, only };
    only.is_none_or(|only| only.family() == key.family()).then(|| (kid.into(), key))
}

fn rsa(n: &[u8], e: Vec<u8>) -> Option<Material> {
    let n = n.strip_prefix(&[0]).unwrap_or(n).to_vec();
    let bits = n.len() * 8 - usize::try_from(n.first()?.leading_zeros()).ok()?;
    let e_is_odd = e.last().is_some_and(|last| last % 2 == 1) && e.len() <= 5;
    ((RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) && e_is_odd).then_some(Material::Rsa { n, e })
}

#[cfg(test)]
mod tests;
