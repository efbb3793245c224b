//! What can go wrong between a node and the source of its bundle, and what to do about it.
//!
//! Texts from servers are bounded and cleaned before they are repeated. Never holds a secret.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::limits;

/// Why bytes could not be fetched or pushed.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// A file of the options cannot be read.
    #[error("`{path}` cannot be read: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file of the options does not hold what it should.
    #[error("`{path}` {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Credentials are half given or cannot be got.
    #[error("{0}")]
    Credentials(String),
    /// The client cannot be made.
    #[error("no client can be made: {0}")]
    Client(String),
    /// No connection.
    #[error("`{server}` cannot be reached: {why}")]
    Unreachable {
        /// Host and port.
        server: String,
        /// The innermost reason.
        why: String,
    },
    /// No TLS connection.
    #[error("no TLS connection to `{server}`: {why}")]
    Tls {
        /// Host and port.
        server: String,
        /// The innermost reason.
        why: String,
    },
    /// It took too long.
    #[error("`{server}` took longer than {limit:?} to {what}")]
    Slow {
        /// Host and port.
        server: String,
        /// What it should have done.
        what: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// It sends us elsewhere.
    #[error("`{server}` redirects, which is not followed: {why}")]
    Redirect {
        /// Host and port.
        server: String,
        /// Where to and why not.
        why: String,
    },
    /// 401.
    #[error("`{server}` wants {} (401)", if *.sent { "other credentials than those that were sent" } else { "credentials" })]
    Unauthorized {
        /// Host and port.
        server: String,
        /// Credentials were sent.
        sent: bool,
    },
    /// 403.
    #[error("`{server}` does not let these credentials at `{what}` (403)")]
    Forbidden {
        /// Host and port.
        server: String,
        /// What was asked for.
        what: String,
    },
    /// 404 or 410.
    #[error("`{what}` does not exist")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// Any other answer that is not the one hoped for.
    #[error("`{server}` answers {code}{said}")]
    Answer {
        /// Host and port.
        server: String,
        /// HTTP status.
        code: u16,
        /// `: ` and its words, or nothing.
        said: String,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// Larger than allowed, announced or read.
    #[error("`{what}` is larger than {bytes_max} bytes")]
    TooLarge {
        /// What was read.
        what: String,
        /// The bound.
        bytes_max: u64,
    },
    /// Shorter than announced.
    #[error("`{what}` was cut off after {got} bytes{}", .announced.map(|all| format!(" of {all}")).unwrap_or_default())]
    Truncated {
        /// What was read.
        what: String,
        /// Bytes that came.
        got: u64,
        /// Bytes that were announced.
        announced: Option<u64>,
    },
    /// The bytes are not those that were asked for.
    #[error("`{what}` does not have its digest: expected {expected}, found {found}")]
    WrongDigest {
        /// What was read.
        what: String,
        /// The digest by which it was asked for.
        expected: String,
        /// The digest of what came.
        found: String,
    },
    /// Something else than a bundle.
    #[error("`{what}` is not a bundle: {why}")]
    NotABundle {
        /// What was read.
        what: String,
        /// What it is instead.
        why: String,
    },
    /// The server breaks the protocol.
    #[error("`{server}` breaks the protocol: {why}")]
    Protocol {
        /// Host and port.
        server: String,
        /// How.
        why: String,
    },
    /// There is a file already, or another one than was seen.
    #[error("`{what}` {why}")]
    Occupied {
        /// What should have been written.
        what: String,
        /// What is there.
        why: &'static str,
    },
}

impl RemoteError {
    /// What to do about it, where somebody can do something.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unreachable { .. } => "is the address right, and the server running?",
            Self::Tls { .. } => {
                "name the authority that signed the server's certificate with --ca, or the client's certificate with \
                 --client-cert and --client-key"
            }
            Self::Slow { .. } => "give it more time with --timeout",
            Self::Redirect { .. } => "use the address that it redirects to, if you trust it",
            Self::Unauthorized { .. } => {
                "give credentials: --token-file, --username with --password-file, or for a registry `docker login` or \
                 CARDEA_REGISTRY_USERNAME and CARDEA_REGISTRY_PASSWORD"
            }
            Self::Forbidden { .. } => "ask for the right to it, or use other credentials",
            Self::NotFound { .. } => "check the name and the tag",
            Self::Answer { code: 405 | 501, .. } => {
                "the server takes no uploads; it has to allow PUT at this address"
            }
            Self::Occupied { .. } => "push to another name, or replace what is there with --overwrite",
            Self::Client(_) => {
                "install the system's certificate authorities (package ca-certificates), or name one with --ca"
            }
            Self::NotABundle { .. } => "push it with `cardea bundle push`",
            Self::Truncated { .. } | Self::WrongDigest { .. } => {
                "try again; if it stays, the source or something on the way is broken or hostile"
            }
            Self::File { .. }
            | Self::Content { .. }
            | Self::Credentials(_)
            | Self::Answer { .. }
            | Self::TooLarge { .. }
            | Self::Protocol { .. } => return None,
        })
    }

    /// How long the server asks to be left alone, within [`limits::REMOTE_RETRY_AFTER_MAX`].
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let Self::Answer { retry_after, .. } = self else { return None };
        retry_after.map(|wait| wait.min(limits::REMOTE_RETRY_AFTER_MAX))
    }

    /// A request that brought no answer.
    pub(super) fn of_request(server: &str, error: reqwest::Error) -> Self {
        let server = server.to_owned();
        let is_tls = chain(&error).any(is_tls);
        // The address is in our own words already.
        let error = error.without_url();
        let why = tidy(&innermost(&error));
        if error.is_redirect() {
            Self::Redirect { server, why }
        } else if is_tls {
            Self::Tls { server, why }
        } else {
            Self::Unreachable { server, why }
        }
    }
}

fn is_tls(error: &(dyn Error + 'static)) -> bool {
    // An `io::Error` hides the error that it carries from `source`, and may carry another `io::Error`.
    let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>() || carried.is_some_and(|carried| is_tls(carried))
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| (**error).source())
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

/// A text from outside, short and without control characters, so that it can stand in a log and on a terminal.
pub(crate) fn tidy(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let clean: String = clean.take(limits::REMOTE_MESSAGE_CHARS_MAX).collect();
    clean.trim().to_owned()
}
