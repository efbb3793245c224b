//! Hashes of the Merkle tree (RFC 6962 section 2.1), over SHA-256.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256, digest};
use thiserror::Error;

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;

const LEAF: u8 = 0;
const NODE: u8 = 1;

/// A hash of the tree. Its text is base64, with padding.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; HASH_BYTES]);

/// A text that is no hash.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no SHA-256 in base64")]
pub struct BadHash(String);

impl Hash {
    /// The root of a tree without leaves.
    #[must_use]
    pub fn empty() -> Self {
        Self::from_digest(digest(&SHA256, &[]))
    }

    /// The hash of a leaf with these bytes.
    #[must_use]
    pub fn leaf(bytes: &[u8]) -> Self {
        Self::of(LEAF, [bytes, &[]])
    }

    /// The hash of a node above these two.
    #[must_use]
    pub fn node(left: &Self, right: &Self) -> Self {
        Self::of(NODE, [&left.0, &right.0])
    }

    fn of(domain: u8, parts: [&[u8]; 2]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[domain]);
        parts.into_iter().for_each(|part| context.update(part));
        Self::from_digest(context.finish())
    }

    fn from_digest(digest: ring::digest::Digest) -> Self {
        // SHA-256 has 32 bytes.
        Self(digest.as_ref().try_into().unwrap_or_default())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, BadHash> {
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        // Base64 that is not canonical is refused by the decoder.
        bytes.map(Self).ok_or_else(|| BadHash(text.chars().take(64).collect()))
    }
}
