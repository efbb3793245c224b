//! How the transmitter is set up: checked values, no secret among them.

use std::path::PathBuf;

use super::endpoint::PushHost;
use super::subject::Template;
use super::urls::Urls;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Who we are, and the addresses below it.
    pub urls: Urls,
    /// Days that a key signs.
    pub key_days: u64,
    /// How subjects are made.
    pub subject: Template,
    /// Events of one stream that wait.
    pub outbox_max: usize,
    /// Seconds between two verifications of one stream.
    pub min_verification_interval_s: u64,
    /// Authorities of receivers that count beside those of the system, PEM.
    pub ca: Option<PathBuf>,
    /// Who may have streams.
    pub receivers: Vec<Receiver>,
}

/// Somebody who may have streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// How it is called in records.
    pub name: String,
    /// File with its tokens, one a line.
    pub token_file: PathBuf,
    /// `aud` of its events.
    pub audience: String,
    /// What its tokens allow.
    pub scopes: Scopes,
    /// Where events may be pushed to.
    pub push_hosts: Vec<PushHost>,
    /// The issuer as which the same party sends signals to this node: what came from there is not sent back.
    pub transmits_as: Option<String>,
}

/// What the tokens of a receiver allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes {
    /// `ssf.read`: to see its streams and where they stand.
    pub read: bool,
    /// `ssf.manage`: to change them, to fetch events and to acknowledge them.
    pub manage: bool,
}
