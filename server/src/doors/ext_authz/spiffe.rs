//! SPIFFE IDs, read strictly: `spiffe://trust-domain/path`.
//!
//! Limits: 2048 bytes in all, 255 for the trust domain. Never normalises: an ID in another spelling (upper-case
//! trust domain, percent escapes, trailing slash) is refused, so that one workload has one id.

/// Longest SPIFFE ID, in bytes; from the SPIFFE specification.
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// A valid SPIFFE ID of a workload, so with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpiffeId<'a> {
    trust_domain: &'a str,
    path: &'a str,
}

/// Why a text is not a SPIFFE ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// Longer than [`SPIFFE_ID_BYTES_MAX`].
    #[error("longer than {SPIFFE_ID_BYTES_MAX} bytes")]
    TooLong,
    /// Does not begin with `spiffe://`, in lower case.
    #[error("does not begin with `spiffe://`")]
    Scheme,
    /// Empty, over-long, or holds something else than `a-z`, `0-9`, `.`, `-`, `_`.
    #[error("malformed trust domain")]
    TrustDomain,
    /// No path: the ID names a trust domain, not a workload.
    #[error("no path, so it names no workload")]
    NoPath,
    /// Empty, `.` or `..` segment, trailing slash, or a letter that a path cannot hold.
    #[error("malformed path")]
    Path,
}

impl<'a> SpiffeId<'a> {
    /// Reads a workload's SPIFFE ID.
    ///
    /// # Errors
    /// If the text breaks any rule of the specification.
    pub fn parse(text: &'a str) -> Result<Self, SpiffeError> {
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(SpiffeError::TooLong);
        }
        let named = text.strip_prefix("spiffe://").ok_or(SpiffeError::Scheme)?;
        let (trust_domain, path) = match named.split_once('/') {
            Some((trust_domain, path)) => (trust_domain, Some(path)),
            None => (named, None),
        };
        let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if !(1..=TRUST_DOMAIN_BYTES_MAX).contains(&trust_domain.len()) || !trust_domain.bytes().all(lower) {
            return Err(SpiffeError::TrustDomain);
        }
        let path = path.ok_or(SpiffeError::NoPath)?;
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let segment = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(letter);
        if !path.split('/').all(segment) {
            return Err(SpiffeError::Path);
        }
        Ok(Self { trust_domain, path })
    }

    /// Without `spiffe://`.
    #[must_use]
    pub fn trust_domain(&self) -> &'a str {
        self.trust_domain
    }

    /// Without the leading slash.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.path
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_trust_domain_and_path() {
        let id = SpiffeId::parse("spiffe://example.org/ns/default/sa/Web_1").unwrap();
        assert_eq!((id.trust_domain(), id.path()), ("example.org", "ns/default/sa/Web_1"));
    }

    #[test]
    fn each_rule_has_its_refusal() {
        use SpiffeError as E;
        let table = [
            ("", E::Scheme),
            ("https://td/x", E::Scheme),
            ("SPIFFE://td/x", E::Scheme),
            ("spiffe:/td/x", E::Scheme),
            ("spiffe:///x", E::TrustDomain),
            ("spiffe://TD/x", E::TrustDomain),
            ("spiffe://td:8443/x", E::TrustDomain),
            ("spiffe://user@td/x", E::TrustDomain),
            ("spiffe://t%64/x", E::TrustDomain),
            ("spiffe://td?x/y", E::TrustDomain),
            ("spiffe://tdé/y", E::TrustDomain),
            ("spiffe://td", E::NoPath),
            ("spiffe://td/", E::Path),
            ("spiffe://td/x/", E::Path),
            ("spiffe://td//x", E::Path),
            ("spiffe://td/./x", E::Path),
            ("spiffe://td/x/..", E::Path),
            ("spiffe://td/x%2fy", E::Path),
            ("spiffe://td/x?y", E::Path),
            ("spiffe://td/x#y", E::Path),
            ("spiffe://td/x y", E::Path),
            ("spiffe://td/é", E::Path),
            ("spiffe://td/x\n", E::Path),
            ("spiffe://td/x,URI=spiffe://td/y", E::Path),
        ];
        for (text, error) in table {
            assert_eq!(SpiffeId::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn lengths_hold_at_the_edge() {
        let longest = format!("spiffe://td/{}", "a".repeat(SPIFFE_ID_BYTES_MAX - 12));
        assert!(SpiffeId::parse(&longest).is_ok());
        assert_eq!(SpiffeId::parse(&format!("{longest}a")), Err(SpiffeError::TooLong));
        assert!(SpiffeId::parse(&format!("spiffe://{}/x", "a".repeat(255))).is_ok());
        assert_eq!(
            SpiffeId::parse(&format!("spiffe://{}/x", "a".repeat(256))),
            Err(SpiffeError::TrustDomain)
        );
    }

    proptest! {
        #[test]
        fn what_is_accepted_prints_as_it_was_written(text in "(spiffe://)?[a-zA-Z0-9./%_-]{0,20}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(format!("spiffe://{}/{}", id.trust_domain(), id.path()), text);
            }
        }
    }
}
