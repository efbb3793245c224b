//! Who a request comes from: bearer tokens, compared by their digests.
//!
//! Tokens stand in files, one a line, and are read again every [`limits::SSF_UPKEEP_INTERVAL`]: a token that is taken out
//! of its file no longer counts, and while a file cannot be read nobody is its receiver.
//! Limits: [`limits::SECRET_FILE_BYTES_MAX`] per file, [`limits::SSF_TOKENS_MAX`] tokens of at least
//! [`limits::SSF_TOKEN_BYTES_MIN`] bytes.
//! Never does: keeping or showing a token, or taking one from anywhere but the `Authorization` header.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::digest::{SHA256, digest};

use super::options::Receiver;
use crate::limits;

/// A digest of a token.
type Digest = [u8; 32];

/// See the module.
pub(super) struct Receivers {
    all: Vec<Arc<Receiver>>,
    /// Digests of the tokens of each.
    tokens: ArcSwap<Vec<Vec<Digest>>>,
}

/// Why a request is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// It shows no token.
    NoToken,
    /// It shows one that does not count.
    WrongToken,
}

/// Why the tokens of a receiver cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{}` {why}", path.display())]
pub struct TokenFault {
    path: std::path::PathBuf,
    why: String,
}

impl Receivers {
    /// Reads the tokens of all.
    pub(super) fn open(receivers: &[Receiver]) -> Result<Self, TokenFault> {
        let all: Vec<Arc<Receiver>> = receivers.iter().cloned().map(Arc::new).collect();
        let tokens = all.iter().map(|receiver| read(&receiver.token_file)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { all, tokens: ArcSwap::from_pointee(tokens) })
    }

    /// Reads the tokens of all again. Returns what is wrong; whoever's tokens cannot be read has none.
    pub(super) fn refresh(&self) -> Vec<TokenFault> {
        let mut faults = Vec::new();
        let mut tokens = Vec::with_capacity(self.all.len());
        for receiver in &self.all {
            tokens.push(read(&receiver.token_file).unwrap_or_else(|fault| {
                faults.push(fault);
                Vec::new()
            }));
        }
        self.tokens.store(Arc::new(tokens));
        faults
    }

    /// The receiver of that name.
    pub(super) fn named(&self, name: &str) -> Option<&Arc<Receiver>> {
        self.all.iter().find(|receiver| receiver.name == name)
    }

    /// Whose request this is.
    pub(super) fn who(&self, headers: &HeaderMap) -> Result<&Arc<Receiver>, Unknown> {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (Some(header), None) = (given.next(), given.next()) else {
            return Err(if headers.contains_key(AUTHORIZATION) {
                Unknown::WrongToken
            } else {
                Unknown::NoToken
            });
        };
        let token = header.as_bytes().split_at_checked(7);
        let Some((_, token)) = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer ")) else {
            return Err(Unknown::NoToken);
        };
        let shown = digest_of(token.trim_ascii());
        // Digests are compared, and of all tokens: how long it takes tells nothing of any token.
        let tokens = self.tokens.load();
        let mut found = None;
        for (receiver, digests) in self.all.iter().zip(tokens.iter()) {
            if digests.contains(&shown) {
                found = Some(receiver);
            }
        }
        found.ok_or(Unknown::WrongToken)
    }
}

fn read(path: &Path) -> Result<Vec<Digest>, TokenFault> {
    let fault = |why: String| TokenFault { path: path.to_owned(), why };
    let cannot = |error: std::io::Error| fault(format!("cannot be read: {error}"));
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(limits::SECRET_FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(cannot)?;
    if text.len() as u64 > limits::SECRET_FILE_BYTES_MAX {
        return Err(fault(format!("is larger than {} bytes", limits::SECRET_FILE_BYTES_MAX)));
    }
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let mut digests = Vec::new();
    for token in lines {
        if token.len() < limits::SSF_TOKEN_BYTES_MIN {
            return Err(fault(format!(
                "holds a token of less than {} bytes; `openssl rand -base64 32` makes a good one",
                limits::SSF_TOKEN_BYTES_MIN
            )));
        }
        digests.push(digest_of(token));
    }
    if digests.is_empty() || digests.len() > limits::SSF_TOKENS_MAX {
        return Err(fault(format!("must hold from 1 to {} tokens, one a line", limits::SSF_TOKENS_MAX)));
    }
    Ok(digests)
}

fn digest_of(token: &[u8]) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::ssf::transmit::options::Scopes;

    const TOKEN: &str = "a-token-that-is-long-enough";

    fn receiver(token_file: &Path) -> Receiver {
        Receiver {
            name: "rp".into(),
            token_file: token_file.to_owned(),
            audience: "https://rp.example".into(),
            scopes: Scopes { read: true, manage: true },
            push_hosts: Vec::new(),
            transmits_as: None,
        }
    }

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn only_a_token_of_the_file_in_one_bearer_header_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, format!("{TOKEN}\n\nthe-next-token-of-this-receiver\n")).unwrap();
        let receivers = Receivers::open(&[receiver(&file)]).unwrap();
        for good in [format!("Bearer {TOKEN}"), "bearer the-next-token-of-this-receiver".to_owned()] {
            assert_eq!(receivers.who(&headers(&[&good])).unwrap().name, "rp");
        }
        let good = format!("Bearer {TOKEN}");
        for (given, why) in [
            (vec![], Unknown::NoToken),
            (vec!["Basic YTpi"], Unknown::NoToken),
            (vec![TOKEN], Unknown::NoToken),
            (vec!["Bearer"], Unknown::NoToken),
            (vec!["Bearer "], Unknown::WrongToken),
            (vec!["Bearer a-token-that-is-long-enoug"], Unknown::WrongToken),
            (vec!["Bearer a-token-that-is-long-enoughh"], Unknown::WrongToken),
            (vec![&good, &good], Unknown::WrongToken),
        ] {
            assert_eq!(receivers.who(&headers(&given)).unwrap_err(), why, "{given:?}");
        }
    }

    #[test]
    fn a_token_that_leaves_its_file_no_longer_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, TOKEN).unwrap();
        let receivers = Receivers::open(&[receiver(&file)]).unwrap();
        let shown = headers(&[&format!("Bearer {TOKEN}")]);
        assert!(receivers.who(&shown).is_ok());
        std::fs::write(&file, "another-token-of-this-receiver").unwrap();
        assert!(receivers.refresh().is_empty());
        assert_eq!(receivers.who(&shown).unwrap_err(), Unknown::WrongToken);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(receivers.refresh().len(), 1);
        assert!(receivers.who(&headers(&["Bearer another-token-of-this-receiver"])).is_err());
    }

    #[test]
    fn files_with_no_short_or_too_many_tokens_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let many = format!("{TOKEN}\n").repeat(limits::SSF_TOKENS_MAX + 1);
        let large = "x".repeat(usize::try_from(limits::SECRET_FILE_BYTES_MAX).unwrap() + 1);
        for content in ["", "\n\n", "short", &many, &large] {
            std::fs::write(&file, content).unwrap();
            assert!(Receivers::open(&[receiver(&file)]).is_err());
        }
    }
}
