//! The right to resume a stream: its number, to find it by, and 128 random bits that only its opener was told.

use std::fmt;
use std::hint::black_box;

use ring::rand::{SecureRandom as _, SystemRandom};

/// See the module. Its `Debug` shows the number alone; its `Display` is what the caller is told.
#[derive(Clone, Copy)]
pub struct ResumeToken {
    pub(super) stream: u64,
    secret: u128,
}

impl ResumeToken {
    /// A fresh one; `None` if the system has no randomness to give.
    pub(super) fn fresh(stream: u64) -> Option<Self> {
        let mut bytes = [0; 16];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(Self { stream, secret: u128::from_le_bytes(bytes) })
    }

    /// Reads what a caller was told; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (stream, secret) = text.split_once('-')?;
        let is_hex = |part: &str, digits: usize| {
            part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if !is_hex(stream, 16) || !is_hex(secret, 32) {
            return None;
        }
        let stream = u64::from_str_radix(stream, 16).ok()?;
        Some(Self { stream, secret: u128::from_str_radix(secret, 16).ok()? })
    }

    /// Compares in constant time: every bit, whatever the ones before were.
    pub(super) fn is(&self, other: &Self) -> bool {
        let difference = (self.secret ^ other.secret).to_le_bytes();
        let differs = difference.iter().fold(0, |differs, byte| black_box(differs | byte));
        differs == 0 && self.stream == other.stream
    }
}

impl fmt::Display for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:032x}", self.stream, self.secret)
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumeToken").field("stream", &self.stream).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_only_itself_counts() {
        let token = ResumeToken::fresh(7).unwrap();
        let read = ResumeToken::parse(&token.to_string()).unwrap();
        assert!(token.is(&read) && read.stream == 7);
        assert!(!token.is(&ResumeToken { stream: 8, ..token }));
        assert!(!token.is(&ResumeToken { secret: token.secret ^ 1, ..token }));
        assert!(!token.is(&ResumeToken { secret: token.secret ^ (1 << 127), ..token }));
        assert!(!format!("{token:?}").contains(&format!("{:032x}", token.secret)));
    }

    #[test]
    fn what_is_no_token_is_none() {
        for bad in ["", "-", "7-7", "0000000000000007", &format!("{:016x}-{:031x}+", 7, 7), "é"] {
            assert!(ResumeToken::parse(bad).is_none(), "{bad}");
        }
    }
}
