//! Keyed 64-bit fingerprints of what attempts name.
//!
//! SipHash-1-3 under a secret key, so that two names with the same fingerprint cannot be searched for; one that is met by
//! accident has probability n / 2^64 for a baseline of n entries, below 10^-15 for the largest. Pairs are joined from
//! the fingerprints of their parts: to someone without the key these are random numbers, so joining them needs no key.

use siphasher::sip::SipHasher13;
use std::hash::Hasher as _;

/// Bytes that are folded to lower case at a time.
const CHUNK: usize = 64;

/// The key of fingerprints; whoever compiles baselines draws it at random and keeps it nowhere.
#[derive(Clone)]
pub struct Key(SipHasher13);

/// Not even a log tells it.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub(super) u64);

/// What a fingerprint stands for; the same text has another fingerprint in each.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(super) enum Kind {
    Action = 0x243f_6a88_85a3_08d3,
    Target = 0x1319_8a2e_0370_7344,
    Value = 0xa409_3822_299f_31d0,
    Reference = 0x082e_fa98_ec4e_6c89,
    Network = 0x4528_21e6_38d0_1377,
    Transition = 0xbe54_66cf_34e9_0c6c,
    Edge = 0xc0ac_29b7_c97c_50dd,
}

impl Key {
    /// A key from 16 random bytes.
    #[must_use]
    pub fn new(random: [u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(&random))
    }

    /// Of a text as it is.
    #[must_use]
    pub fn text(&self, text: &str) -> Fingerprint {
        Fingerprint(self.0.hash(text.as_bytes()))
    }

    /// Of a text in whatever ASCII case.
    #[must_use]
    pub(super) fn folded(&self, text: &str) -> Fingerprint {
        let bytes = text.as_bytes();
        let mut buffer = [0; CHUNK];
        if let Some(head) = buffer.get_mut(..bytes.len()) {
            head.copy_from_slice(bytes);
            head.make_ascii_lowercase();
            return Fingerprint(self.0.hash(head));
        }
        let mut hasher = self.0;
        for chunk in bytes.chunks(CHUNK) {
            if let Some(head) = buffer.get_mut(..chunk.len()) {
                head.copy_from_slice(chunk);
                head.make_ascii_lowercase();
                hasher.write(head);
            }
        }
        Fingerprint(hasher.finish())
    }
}

impl Fingerprint {
    /// As a number.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    pub(super) const fn of(self, kind: Kind) -> Self {
        Self(self.0 ^ kind as u64)
    }

    /// Joins two in this order.
    pub(super) const fn with(self, other: Self, kind: Kind) -> Self {
        let product =
            widened(self.0 ^ kind as u64) * widened(other.0.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15);
        #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
        Self((product as u64) ^ ((product >> 64) as u64))
    }
}

const fn widened(half: u64) -> u128 {
    half as u128
}

/// A target without the white space and quotes that callers put around it; `7.0` is the number `7`.
#[must_use]
pub fn target_name(text: &str) -> &str {
    let is_around = |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'"' | b'\'');
    let text = between(text, is_around, is_around);
    match text.strip_suffix(".0") {
        Some(whole) if !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit()) => whole,
        _ => text,
    }
}

/// The host of a reference in its short form.
pub(super) fn host(reference: &str) -> &str {
    reference.split(['/', '?', '#', '\\']).next().unwrap_or_default()
}

/// A reference without what different callers write differently: brackets and marks around it, the scheme, `www.`, a
/// slash at the end. Case is folded when it is compared.
#[must_use]
pub fn reference_name(text: &str) -> &str {
    let is_around = |byte| {
        matches!(
            byte,
            b' ' | b'\t'
                | b'\n'
                | b'\r'
                | b'"'
                | b'\''
                | b'['
                | b']'
                | b'{'
                | b'}'
                | b'('
                | b')'
                | b'<'
                | b'>'
        )
    };
    let is_mark = |byte| matches!(byte, b'.' | b',' | b';' | b':' | b'!' | b'?');
    let text = between(text, is_around, |byte| is_around(byte) || is_mark(byte));
    let text = without_prefix(text, "https://").or_else(|| without_prefix(text, "http://")).unwrap_or(text);
    without_prefix(text, "www.").unwrap_or(text).trim_end_matches('/')
}

/// What is left of a text once bytes of a kind are cut off its beginning and its end.
fn between(text: &str, before: impl Fn(u8) -> bool, after: impl Fn(u8) -> bool) -> &str {
    let start = text.bytes().position(|byte| !before(byte)).unwrap_or(text.len());
    let end = text.bytes().rposition(|byte| !after(byte)).map_or(start, |last| last + 1);
    // Only ASCII is cut off, so both ends lie between characters.
    text.get(start..end).unwrap_or_default()
}

/// The rest after a prefix in whatever ASCII case.
fn without_prefix<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_the_same_however_callers_write_them() {
        for text in ["www.a.com/x", "http://www.a.com/x/", "HTTPS://a.com/x\"}", " (a.com/x). "] {
            assert_eq!(reference_name(text), "a.com/x", "{text}");
        }
        assert_eq!([" '7.0'", "7.01", ".0", "a.0"].map(target_name), ["7", "7.01", ".0", "a.0"]);
        let key = Key::new([7; 16]);
        assert_eq!(key.folded("SE355"), key.folded("se355"));
        let long = "A".repeat(200);
        assert_eq!(key.folded(&long), key.folded(&long.to_ascii_lowercase()));
        assert_ne!(key.folded(&long), key.folded(&"A".repeat(199)));
    }

    #[test]
    fn kinds_keys_and_order_make_different_fingerprints() {
        let (key, other) = (Key::new([1; 16]), Key::new([2; 16]));
        let (a, b) = (key.text("a"), key.text("b"));
        assert_ne!(a, other.text("a"));
        assert_ne!(a.of(Kind::Action), a.of(Kind::Value));
        assert_ne!(a.with(b, Kind::Target), b.with(a, Kind::Target));
        assert_ne!(a.with(b, Kind::Target), a.with(b, Kind::Transition));
    }
}
