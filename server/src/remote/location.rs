//! Where a packed bundle lies: `https://host[:port]/path`, `oci://registry[:port]/repository[:tag][@sha256:…]`.
//!
//! Parsed once, strictly, into types that cannot be wrong; what is displayed parses to the same location again. Plain
//! text (`http://`, `oci+http://`) goes to loopback only.
//! Limits: [`limits::LOCATION_BYTES_MAX`] bytes.
//! Never does: looking anything up, or holding a secret. A location is logged and shown in Status.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use cardea_policy_store::digest::Digest;
use reqwest::Url;

use crate::limits;

/// Longest name of a repository, in bytes: what clients of the distribution specification agree on.
const REPOSITORY_BYTES_MAX: usize = 255;
/// Longest tag, in bytes, by the distribution specification.
const TAG_BYTES_MAX: usize = 128;
/// The tag that is meant when neither tag nor digest is given, as everywhere with registries.
const TAG_DEFAULT: &str = "latest";

/// Where a packed bundle lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file on an HTTPS server.
    Https(HttpsUrl),
    /// An artifact in a registry.
    Oci(OciReference),
}

/// A file on a server: `https://host[:port]/path`; `http://` on loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsUrl {
    url: Url,
}

/// An artifact in a registry: `oci://registry[:port]/repository[:tag][@sha256:…]`; `oci+http://` on loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciReference {
    plain: bool,
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<OciDigest>,
}

/// A SHA-256 digest as registries write it: `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OciDigest(Digest);

/// Why a text is not a location.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LocationError {
    /// It is longer than any address.
    #[error("the address is longer than {} bytes", limits::LOCATION_BYTES_MAX)]
    TooLong,
    /// It begins with no scheme that is known.
    #[error("`{0}` is no address of a bundle: write https://host/path or oci://registry/repository:tag")]
    Scheme(String),
    /// It holds a character that two readers could understand differently.
    #[error("`{0}` holds a space, a backslash, a control character or one beyond ASCII: percent-encode it")]
    Character(String),
    /// Plain text to another machine.
    #[error(
        "`{0}` would travel in plain text: whoever is on the way could read the credentials and hold back newer \
         bundles; use {1}, plain text is for loopback addresses only"
    )]
    PlainText(String, &'static str),
    /// It carries a user name or password.
    #[error(
        "the address carries a user name or password, and addresses are logged: give a user name and a password file"
    )]
    Userinfo,
    /// It carries a query or fragment.
    #[error(
        "`{0}` has a query or a fragment, which often hold secrets, and addresses are logged: use a plain path"
    )]
    Query(String),
    /// The path names no file.
    #[error("`{0}` names no file: end it with the name of the packed bundle")]
    NoFile(String),
    /// The host and port cannot be read.
    #[error("`{0}` is no host with an optional port")]
    Host(String),
    /// The repository breaks the rules of registries.
    #[error(
        "`{0}` is no name of a repository: lower-case letters and digits, separated by `.`, `_`, `__`, `-` or `/`, at \
         most {REPOSITORY_BYTES_MAX} bytes"
    )]
    Repository(String),
    /// The tag breaks the rules of registries.
    #[error(
        "`{0}` is no tag: letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`, at most {TAG_BYTES_MAX} \
         bytes"
    )]
    Tag(String),
    /// The digest is not a SHA-256 digest.
    #[error("`{0}` is no digest: write sha256: and 64 lower-case hexadecimal digits")]
    Digest(String),
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        if text.len() > limits::LOCATION_BYTES_MAX {
            return Err(LocationError::TooLong);
        }
        if text.contains(|c: char| !c.is_ascii_graphic() || c == '\\') {
            return Err(LocationError::Character(text.escape_debug().to_string()));
        }
        match text.split_once("://") {
            Some(("https" | "http", rest)) => HttpsUrl::parse(text, rest).map(Self::Https),
            Some(("oci", rest)) => OciReference::parse(text, rest, false).map(Self::Oci),
            Some(("oci+http", rest)) => OciReference::parse(text, rest, true).map(Self::Oci),
            _ => Err(LocationError::Scheme(text.to_owned())),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Https(url) => write!(f, "{url}"),
            Self::Oci(reference) => write!(f, "{reference}"),
        }
    }
}

impl HttpsUrl {
    fn parse(text: &str, rest: &str) -> Result<Self, LocationError> {
        let url = Url::parse(text).map_err(|_| LocationError::Host(without_userinfo(rest)))?;
        // Before anything that shows the text: it may hold a password.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(LocationError::Userinfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(LocationError::Query(without_query(text)));
        }
        // `https:///host` would be read as `https://host`.
        if rest.starts_with('/') {
            return Err(LocationError::Host(text.to_owned()));
        }
        if url.scheme() != "https" && !is_loopback(&url) {
            return Err(LocationError::PlainText(text.to_owned(), "https://"));
        }
        if url.path().ends_with('/') {
            return Err(LocationError::NoFile(text.to_owned()));
        }
        Ok(Self { url })
    }

    /// As the client takes it.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// `host[:port]`, for messages.
    #[must_use]
    pub fn server(&self) -> String {
        authority(&self.url)
    }

    /// The last part of the path.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.url.path().rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str())
    }
}

impl OciReference {
    fn parse(text: &str, rest: &str, plain: bool) -> Result<Self, LocationError> {
        let (registry, path) = rest.split_once('/').ok_or_else(|| LocationError::NoFile(text.to_owned()))?;
        if registry.contains('@') {
            return Err(LocationError::Userinfo);
        }
        if path.contains(['?', '#']) {
            return Err(LocationError::Query(without_query(text)));
        }
        let host = || LocationError::Host(registry.to_owned());
        let url = Url::parse(&format!("https://{registry}/")).map_err(|_| host())?;
        if url.path() != "/" || url.host_str().is_none() || registry.contains(['?', '#']) {
            return Err(host());
        }
        if plain && !is_loopback(&url) {
            return Err(LocationError::PlainText(text.to_owned(), "oci://"));
        }
        let (name, digest) = match path.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (path, None),
        };
        let (repository, tag) = match name.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (name, None),
        };
        if !is_repository(repository) {
            return Err(LocationError::Repository(repository.to_owned()));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(LocationError::Tag(tag.to_owned()));
        }
        let tag = tag.or_else(|| digest.is_none().then_some(TAG_DEFAULT)).map(str::to_owned);
        Ok(Self { plain, registry: authority(&url), repository: repository.to_owned(), tag, digest })
    }

    /// The registry speaks plain HTTP; it is on loopback then.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// `host[:port]` of the registry.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Name of the repository.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; without a digest there is always one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest to which it is pinned.
    #[must_use]
    pub fn digest(&self) -> Option<&OciDigest> {
        self.digest.as_ref()
    }

    /// The same artifact, pinned.
    #[must_use]
    pub fn pinned(&self, digest: OciDigest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.plain { "oci+http" } else { "oci" };
        write!(f, "{scheme}://{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl OciDigest {
    /// The digest of bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Digest::of(bytes))
    }

    /// The first digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl FromStr for OciDigest {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let digits = text.strip_prefix("sha256:").and_then(|digits| digits.parse().ok());
        digits.map(Self).ok_or_else(|| LocationError::Digest(text.to_owned()))
    }
}

impl fmt::Display for OciDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Whether the connection stays on this machine. The host was normalized by the same parser that the client connects
/// with, so `127.1` and `2130706433` are what they will be connected to.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn without_userinfo(rest: &str) -> String {
    rest.rsplit('@').next().unwrap_or_default().to_owned()
}

fn without_query(text: &str) -> String {
    text.split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, several of them separated by `/`.
fn is_repository(name: &str) -> bool {
    name.len() <= REPOSITORY_BYTES_MAX && name.split('/').all(is_path_component)
}

fn is_path_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let begins_and_ends = component.starts_with(alphanumeric) && component.ends_with(alphanumeric);
    let mut separators = component.split(alphanumeric).filter(|between| !between.is_empty());
    let separates = |between: &str| matches!(between, "." | "_" | "__") || between.chars().all(|c| c == '-');
    begins_and_ends && separators.all(separates)
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= TAG_BYTES_MAX
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

#[cfg(test)]
mod tests;
