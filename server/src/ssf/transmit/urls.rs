//! The addresses of the transmitter: what its metadata says, and which request goes where.
//!
//! All of them hang below the issuer. The metadata stands at `/.well-known/ssf-configuration`, with the path of the issuer
//! behind it. Never does: believing the `Host` header of a request.

use http::Method;
use reqwest::Url;
use serde_json::{Value, json};

use super::request::{POLL, PUSH};

/// Below the issuer's path.
const STREAMS: &str = "/ssf/streams";
const STATUS: &str = "/ssf/status";
const ADD: &str = "/ssf/subjects/add";
const REMOVE: &str = "/ssf/subjects/remove";
const VERIFY: &str = "/ssf/verify";
const JWKS: &str = "/ssf/jwks.json";
const POLLS: &str = "/ssf/poll/";
const WELL_KNOWN: &str = "/.well-known/ssf-configuration";

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    Metadata,
    Jwks,
    Streams,
    Status,
    AddSubject,
    RemoveSubject,
    Verify,
    Poll(&'p str),
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls {
    issuer: String,
    /// The issuer without the slash at its end.
    base: String,
    /// Path of the issuer without the slash at its end; empty for most.
    path: String,
}

impl Urls {
    /// The addresses below an issuer.
    ///
    /// # Errors
    /// Why it cannot be an issuer, in words.
    pub fn new(issuer: &str) -> Result<Self, String> {
        let url = Url::parse(issuer).map_err(|error| format!("is not a URL: {error}"))?;
        let is_loopback = crate::remote::is_loopback(&url);
        match url.scheme() {
            "https" => {}
            "http" if is_loopback => {}
            _ => return Err("must be an https URL (http only for loopback)".to_owned()),
        }
        if url.query().is_some()
            || url.fragment().is_some()
            || !url.username().is_empty()
            || url.password().is_some()
        {
            return Err("must have no user, query or fragment".to_owned());
        }
        let base = issuer.trim_end_matches('/').to_owned();
        let path = url.path().trim_end_matches('/').to_owned();
        if path.contains('%') || path.contains("//") {
            return Err("must have a plain path".to_owned());
        }
        Ok(Self { issuer: issuer.to_owned(), base, path })
    }

    /// The issuer as configured.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Where the events of a stream are fetched.
    pub(super) fn poll(&self, stream_id: &str) -> String {
        format!("{}{POLLS}{stream_id}", self.base)
    }

    /// Whether a request with this path is for the transmitter.
    #[must_use]
    pub fn owns(&self, path: &str) -> bool {
        self.route(path).is_some()
    }

    /// What a path is for.
    pub(super) fn route<'p>(&self, path: &'p str) -> Option<Route<'p>> {
        if let Some(behind) = path.strip_prefix(WELL_KNOWN) {
            return (behind.trim_end_matches('/') == self.path).then_some(Route::Metadata);
        }
        let path = path.strip_prefix(self.path.as_str())?;
        Some(match path {
            STREAMS => Route::Streams,
            STATUS => Route::Status,
            ADD => Route::AddSubject,
            REMOVE => Route::RemoveSubject,
            VERIFY => Route::Verify,
            JWKS => Route::Jwks,
            _ => Route::Poll(path.strip_prefix(POLLS).filter(|id| !id.is_empty() && !id.contains('/'))?),
        })
    }

    /// The metadata document.
    pub(super) fn metadata(&self) -> Value {
        let base = &self.base;
        json!({
            "spec_version": "1_0",
            "issuer": self.issuer,
            "jwks_uri": format!("{base}{JWKS}"),
            "delivery_methods_supported": [PUSH, POLL],
            "configuration_endpoint": format!("{base}{STREAMS}"),
            "status_endpoint": format!("{base}{STATUS}"),
            "add_subject_endpoint": format!("{base}{ADD}"),
            "remove_subject_endpoint": format!("{base}{REMOVE}"),
            "verification_endpoint": format!("{base}{VERIFY}"),
            "authorization_schemes": [{ "spec_urn": "urn:ietf:rfc:6749" }],
            "default_subjects": "ALL",
        })
    }
}

impl Route<'_> {
    /// The methods that it takes.
    pub(super) fn methods(self) -> &'static [Method] {
        match self {
            Self::Metadata | Self::Jwks => &[Method::GET],
            Self::Streams => &[Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE],
            Self::Status => &[Method::GET, Method::POST],
            Self::AddSubject | Self::RemoveSubject | Self::Verify | Self::Poll(_) => &[Method::POST],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_of_an_issuer_with_a_path_stands_before_that_path() {
        for (issuer, at) in [
            ("https://t.example", "/.well-known/ssf-configuration"),
            ("https://t.example/", "/.well-known/ssf-configuration"),
            ("https://t.example/one", "/.well-known/ssf-configuration/one"),
            ("https://t.example/one/", "/.well-known/ssf-configuration/one"),
        ] {
            let urls = Urls::new(issuer).unwrap();
            assert_eq!(urls.route(at), Some(Route::Metadata), "{issuer}");
            assert_eq!(urls.metadata()["issuer"], issuer);
        }
        let urls = Urls::new("https://t.example/one").unwrap();
        assert_eq!(urls.route("/.well-known/ssf-configuration"), None);
        assert_eq!(urls.route("/one/ssf/status"), Some(Route::Status));
        assert_eq!(urls.route("/ssf/status"), None);
    }

    #[test]
    fn every_address_of_the_metadata_leads_to_its_route() {
        let urls = Urls::new("https://t.example/one/").unwrap();
        let metadata = urls.metadata();
        for (name, route) in [
            ("jwks_uri", Route::Jwks),
            ("configuration_endpoint", Route::Streams),
            ("status_endpoint", Route::Status),
            ("add_subject_endpoint", Route::AddSubject),
            ("remove_subject_endpoint", Route::RemoveSubject),
            ("verification_endpoint", Route::Verify),
        ] {
            let url = Url::parse(metadata[name].as_str().unwrap()).unwrap();
            assert_eq!(urls.route(url.path()), Some(route), "{name}");
        }
        let url = Url::parse(&urls.poll("ab12")).unwrap();
        assert_eq!(urls.route(url.path()), Some(Route::Poll("ab12")));
        assert_eq!(urls.route("/one/ssf/poll/"), None);
        assert_eq!(urls.route("/one/ssf/poll/a/b"), None);
    }

    #[test]
    fn issuers_that_receivers_would_refuse_are_refused() {
        for issuer in [
            "",
            "t.example",
            "http://t.example",
            "https://u@t.example",
            "https://t.example/?a",
            "https://t.example/#a",
            "ftp://t.example",
        ] {
            assert!(Urls::new(issuer).is_err(), "{issuer}");
        }
        assert!(Urls::new("http://127.0.0.1:8080").is_ok());
    }
}
