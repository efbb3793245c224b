//! An address of another party: `https://…`, or `http://…` on loopback.
//!
//! Limits: [`limits::LOCATION_BYTES_MAX`]. Never does: holding a secret (no user, no fragment), looking anything up.

use std::fmt;

use reqwest::Url;

use crate::limits;
use crate::remote::is_loopback;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    url: Url,
    text: String,
}

/// Why a text is no such address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// No URL.
    #[error("it is no URL of at most {} bytes", limits::LOCATION_BYTES_MAX)]
    NoUrl,
    /// Another scheme, or plain text to another machine.
    #[error("it does not begin with https:// (http:// is for loopback only)")]
    Scheme,
    /// It has a user, a password or a fragment.
    #[error("it has a user, a password or a fragment")]
    Parts,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, AddressFault> {
        let is_plain =
            text.len() <= limits::LOCATION_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        let url = Url::parse(text).ok().filter(|_| is_plain).ok_or(AddressFault::NoUrl)?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            _ => return Err(AddressFault::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(AddressFault::Parts);
        }
        Ok(Self { url, text: text.to_owned() })
    }

    /// Reads an address that the party at this one tells. Only who is on this machine can lead to it in plain text: nobody
    /// elsewhere is to make requests to what listens on loopback.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn told(&self, text: &str) -> Result<Self, AddressFault> {
        let address = Self::parse(text)?;
        if address.url.scheme() == "https" || is_loopback(&self.url) {
            return Ok(address);
        }
        Err(AddressFault::Scheme)
    }

    /// As a client takes it.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn server(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Where a transmitter with this issuer tells about itself: the well-known path stands between host and path.
    #[must_use]
    pub fn metadata(&self) -> Url {
        let mut url = self.url.clone();
        let path = format!("/.well-known/ssf-configuration{}", self.url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_goes_to_loopback_only() {
        for good in
            ["https://idp.example/", "https://idp.example/a?b=c", "http://127.0.0.1:9/x", "http://[::1]/"]
        {
            assert_eq!(Address::parse(good).unwrap().text(), good);
        }
        for bad in [
            "",
            "idp.example",
            "http://idp.example/",
            "http://127.0.0.1.idp.example/",
            "https://u@idp.example/",
            "https://u:p@idp.example/",
            "https://idp.example/#a",
            "https://idp.example/a b",
            "file:///etc/passwd",
            "https://",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn metadata_stands_between_host_and_path() {
        for (issuer, at) in [
            ("https://t.example", "https://t.example/.well-known/ssf-configuration"),
            ("https://t.example/", "https://t.example/.well-known/ssf-configuration"),
            ("https://t.example:8443/one", "https://t.example:8443/.well-known/ssf-configuration/one"),
            ("https://t.example/one/", "https://t.example/.well-known/ssf-configuration/one"),
        ] {
            assert_eq!(Address::parse(issuer).unwrap().metadata().as_str(), at);
        }
    }
}
