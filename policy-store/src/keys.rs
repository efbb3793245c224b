//! Ed25519 keys (RFC 8032) that sign bundles, in the forms that other tools read: PKCS #8 and SPKI in PEM (RFC 8410).
//!
//! `openssl genpkey -algorithm ed25519` makes a key that works here, and the other way round. The text of a private
//! key is never part of an error.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, de};

use crate::digest::Digest;

/// DER before the 32 bytes of an Ed25519 public key in SubjectPublicKeyInfo (RFC 8410 section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// DER before the 32 bytes of an Ed25519 private key in PKCS #8, version 1 (RFC 8410 section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// Longest text that is looked at: a PEM key has about 120 bytes.
const KEY_TEXT_BYTES_MAX: usize = 4096;

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not an Ed25519 public key.
    #[error(
        "is not an Ed25519 public key: give the PEM that `cardea bundle keygen` or `openssl pkey -pubout` writes, or its base64"
    )]
    NotPublic,
    /// Not an Ed25519 private key.
    #[error(
        "is not an Ed25519 private key in PEM: make one with `cardea bundle keygen` or `openssl genpkey -algorithm ed25519`"
    )]
    NotPrivate,
    /// The operating system gave no random bytes.
    #[error("no random bytes to make a key of")]
    NoRandom,
}

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Whether `signature` is this key's over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }

    /// Names the key: SHA-256 of its SubjectPublicKeyInfo, as other tools compute it.
    #[must_use]
    pub fn id(&self) -> Digest {
        Digest::of(&self.spki())
    }

    /// SubjectPublicKeyInfo in base64, on one line.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.spki())
    }

    /// SubjectPublicKeyInfo in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki())
    }

    fn spki(&self) -> Vec<u8> {
        [SPKI_PREFIX.as_slice(), &self.0].concat()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id().short())
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let der = unarmoured(text, "PUBLIC KEY").ok_or(KeyError::NotPublic)?;
        let key = der.strip_prefix(SPKI_PREFIX.as_slice()).ok_or(KeyError::NotPublic)?;
        key.try_into().map(Self).map_err(|_| KeyError::NotPublic)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A private key. `Debug` shows only which key it is.
pub struct PrivateKey(Ed25519KeyPair);

impl PrivateKey {
    /// Makes a new key, and its text in PEM, which is the only copy.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<(Self, String), KeyError> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| KeyError::NoRandom)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::NoRandom)?;
        let der = [PKCS8_PREFIX.as_slice(), &seed].concat();
        Ok((Self(pair), pem("PRIVATE KEY", &der)))
    }

    /// The signature over `message`; the same message always gets the same one.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(self.0.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        PublicKey(bytes)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {:?})", self.public())
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let der = unarmoured(text, "PRIVATE KEY").ok_or(KeyError::NotPrivate)?;
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map(Self).map_err(|_| KeyError::NotPrivate)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// The DER within PEM armour of this label, or within plain base64.
fn unarmoured(text: &str, label: &str) -> Option<Vec<u8>> {
    if text.len() > KEY_TEXT_BYTES_MAX {
        return None;
    }
    let text = text.trim();
    let inner = match text.strip_prefix(&format!("-----BEGIN {label}-----")) {
        Some(rest) => rest.strip_suffix(&format!("-----END {label}-----"))?,
        None => text,
    };
    let packed: String = inner.split_whitespace().collect();
    STANDARD.decode(packed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 8410 section 10.3, the first example: a private key in PKCS #8, and section 10.1: its public key.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn the_keys_of_rfc_8410_are_read() {
        let private: PrivateKey = PRIVATE.parse().unwrap();
        let public: PublicKey = PUBLIC.parse().unwrap();
        assert_eq!(private.public(), public);
        assert_eq!(public.to_pem(), PUBLIC);
        assert_eq!(public.to_base64().parse(), Ok(public));
    }

    #[test]
    fn a_new_key_signs_what_its_public_half_verifies() {
        let (private, pem) = PrivateKey::generate().unwrap();
        let again: PrivateKey = pem.parse().unwrap();
        let signature = private.sign(b"message");
        assert_eq!(signature, again.sign(b"message"));
        assert!(private.public().verifies(b"message", &signature));
        assert!(!private.public().verifies(b"massage", &signature));
        assert!(!format!("{private:?}").contains(pem.lines().nth(1).unwrap()));
    }

    #[test]
    fn other_texts_are_no_keys_and_do_not_leak() {
        assert_eq!(PRIVATE.parse::<PublicKey>(), Err(KeyError::NotPublic));
        assert_eq!(PUBLIC.parse::<PrivateKey>().unwrap_err(), KeyError::NotPrivate);
        for bad in ["", "AAAA", "-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----"] {
            assert!(bad.parse::<PublicKey>().is_err() && bad.parse::<PrivateKey>().is_err());
        }
    }
}
