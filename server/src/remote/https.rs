//! A packed bundle on an HTTPS server: conditional GET, long poll, and PUT that overwrites only what was seen.
//!
//! `If-None-Match` (RFC 9110) saves the body of what is known; `Prefer: wait=N` (RFC 7240) asks the server to answer when
//! there is something new. Limits: [`BUNDLE_BYTES_MAX`], [`limits::ETAG_BYTES_MAX`].
//! Never does: believing what it fetched.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::credentials::Credentials;
use super::error::RemoteError;
use super::location::HttpsUrl;
use super::transport::{Redirects, Transport};
use super::{BUNDLE_BYTES_MAX, LAYER_MEDIA_TYPE, Options};
use crate::limits;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What a server calls a version of a file: opaque, strong or weak (`W/`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(HeaderValue);

/// What came of looking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// Still the known version.
    NotModified {
        /// The server says that it waited for a change.
        waited: bool,
    },
    /// A version.
    Body {
        /// The packed bundle.
        bytes: Bytes,
        /// What the server calls it, if it does.
        etag: Option<ETag>,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Https {
    location: HttpsUrl,
    transport: Transport,
    authorization: Option<HeaderValue>,
}

impl ETag {
    /// The one of an answer; what breaks the grammar of RFC 9110, or is too long to keep, counts as none.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(ETAG)?;
        let opaque = value.as_bytes().strip_prefix(b"W/").unwrap_or_else(|| value.as_bytes());
        let inner = opaque.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let well_formed = inner.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..));
        (well_formed && value.len() <= limits::ETAG_BYTES_MAX).then(|| Self(value.clone()))
    }

    /// As the server wrote it.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.0.as_bytes()).into_owned()
    }
}

impl Https {
    /// A client for one file.
    ///
    /// # Errors
    /// If a file of the options cannot be used.
    pub fn new(location: &HttpsUrl, options: &Options) -> Result<Self, RemoteError> {
        Self::with(location, options, Redirects::SameServer)
    }

    /// A client that uploads: it follows no redirect.
    ///
    /// # Errors
    /// If a file of the options cannot be used.
    pub fn for_push(location: &HttpsUrl, options: &Options) -> Result<Self, RemoteError> {
        Self::with(location, options, Redirects::Never)
    }

    fn with(location: &HttpsUrl, options: &Options, redirects: Redirects) -> Result<Self, RemoteError> {
        Ok(Self {
            location: location.clone(),
            transport: Transport::new(location.server(), options, redirects)?,
            authorization: Credentials::of_server(options)?.header()?,
        })
    }

    /// Looks whether there is another version than `known`; asks the server to wait for one, if `wait` is given.
    ///
    /// # Errors
    /// If there is no whole answer within the limits.
    pub async fn fetch(&self, known: Option<&ETag>, wait: Option<Duration>) -> Result<Fetched, RemoteError> {
        let mut request = self.request(http::Method::GET);
        if let Some(known) = known {
            request = request.header(IF_NONE_MATCH, &known.0);
            // Without a known version there is nothing to wait for.
            if let Some(wait) = wait {
                request = request.header(PREFER, format!("wait={}", wait.as_secs()));
            }
        }
        let what = self.location.to_string();
        let response = self.transport.send(request, wait.unwrap_or_default()).await?;
        let waited = waits(response.headers());
        match response.status() {
            StatusCode::NOT_MODIFIED if known.is_some() => Ok(Fetched::NotModified { waited }),
            StatusCode::NOT_MODIFIED => Err(self.breaks("304 to a request without a condition")),
            StatusCode::OK => {
                let etag = ETag::of(response.headers());
                // A server that ignores the condition: the body need not be read again.
                if etag.is_some() && etag.as_ref() == known {
                    return Ok(Fetched::NotModified { waited });
                }
                let bytes = self.transport.body(response, &what, BUNDLE_BYTES_MAX).await?;
                Ok(Fetched::Body { bytes, etag })
            }
            status if status.is_success() => Err(self.breaks(&format!("{status} to a GET"))),
            _ => Err(self.transport.refusal(response, &what, self.authorization.is_some()).await),
        }
    }

    /// What is there now.
    ///
    /// # Errors
    /// If there is no whole answer within the limits.
    pub async fn fetch_any(&self) -> Result<Bytes, RemoteError> {
        match self.fetch(None, None).await? {
            Fetched::Body { bytes, .. } => Ok(bytes),
            Fetched::NotModified { .. } => Err(self.breaks("304 to a request without a condition")),
        }
    }

    /// Stores a packed bundle. What is there already is replaced only with `overwrite`, and then only if it has not
    /// changed since it was looked at. A server that ignores conditions on PUT is protected by the look alone.
    ///
    /// # Errors
    /// If something is there and must not be overwritten, or the server refuses.
    pub async fn push(&self, bytes: Bytes, overwrite: bool) -> Result<(), RemoteError> {
        let what = self.location.to_string();
        let occupied = |why| RemoteError::Occupied { what: what.clone(), why };
        let seen = self.transport.send(self.request(http::Method::HEAD), Duration::ZERO).await?;
        let mut request = self.request(http::Method::PUT).header(CONTENT_TYPE, LAYER_MEDIA_TYPE).body(bytes);
        request = match seen.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => request.header(IF_NONE_MATCH, "*"),
            status if status.is_success() && !overwrite => return Err(occupied("exists already")),
            status if status.is_success() => match ETag::of(seen.headers()) {
                // Only a strong one can be a condition of a change.
                Some(etag) if !etag.0.as_bytes().starts_with(b"W/") => request.header(IF_MATCH, etag.0),
                _ => request,
            },
            _ => return Err(self.transport.refusal(seen, &what, self.authorization.is_some()).await),
        };
        let response = self.transport.upload(request).await?;
        match response.status() {
            StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            StatusCode::PRECONDITION_FAILED => Err(occupied("was changed by somebody else meanwhile")),
            status if status.is_success() => Err(self.breaks(&format!("{status} to a PUT"))),
            _ => Err(self.transport.refusal(response, &what, self.authorization.is_some()).await),
        }
    }

    fn request(&self, method: http::Method) -> reqwest::RequestBuilder {
        let request = self.transport.client().request(method, self.location.url().clone());
        match &self.authorization {
            Some(authorization) => request.header(http::header::AUTHORIZATION, authorization),
            None => request,
        }
    }

    fn breaks(&self, why: &str) -> RemoteError {
        RemoteError::Protocol { server: self.transport.server().to_owned(), why: why.to_owned() }
    }
}

/// Whether the server says that it honoured `wait`: `Preference-Applied: wait` or `wait=N`, among others.
fn waits(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFERENCE_APPLIED).iter().filter_map(|value| value.to_str().ok());
    let mut applied = values.flat_map(|value| value.split(','));
    applied.any(|one| one.split('=').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("wait")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn etags_are_kept_as_they_are_or_not_at_all() {
        for fine in ["\"abc\"", "W/\"abc\"", "\"\"", "\"65a-1\""] {
            assert_eq!(ETag::of(&headers(ETAG, fine)).unwrap().text(), fine);
        }
        for bad in ["abc", "\"abc", "abc\"", "w/\"abc\"", "\"a\"b\"", "\"a b\"", "\"", ""] {
            assert_eq!(ETag::of(&headers(ETAG, bad)), None, "{bad}");
        }
        let long = format!("\"{}\"", "x".repeat(limits::ETAG_BYTES_MAX));
        let long = HeaderMap::from_iter([(ETAG, HeaderValue::try_from(long).unwrap())]);
        assert_eq!(ETag::of(&long), None);
    }

    #[test]
    fn waiting_is_believed_only_when_the_server_says_so() {
        for yes in ["wait", "wait=30", "respond-async, Wait = 5"] {
            assert!(waits(&headers(PREFERENCE_APPLIED, yes)), "{yes}");
        }
        for no in ["", "respond-async", "await=3"] {
            assert!(!waits(&headers(PREFERENCE_APPLIED, no)), "{no}");
        }
        assert!(!waits(&HeaderMap::new()));
    }
}
