//! Where events may be pushed to.
//!
//! A receiver names the address itself, so it is held to the hosts that the configuration names for that receiver: a
//! transmitter must not be made to send requests to whatever it can reach. Plain http only to loopback, and only where
//! loopback is named.
//! Never does: following a redirect, or resolving names (the operator vouches for the hosts).

use reqwest::Url;

use crate::limits;
use crate::remote::is_loopback;

/// A host, and the port if it is not 443, that events may be pushed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushHost {
    host: String,
    port: u16,
}

/// Why events are not pushed there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EndpointFault {
    #[error(
        "`delivery.endpoint_url` is not a URL of at most {} bytes without user and fragment",
        limits::LOCATION_BYTES_MAX
    )]
    Form,
    #[error("`delivery.endpoint_url` must begin with https:// (http:// only for loopback)")]
    Scheme,
    #[error(
        "events may not be pushed to `{0}`: ask the operator to add it to the `push_hosts` of this receiver"
    )]
    Host(String),
}

/// An address that events may be pushed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint(Url);

impl PushHost {
    /// Reads `host` or `host:port`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains(['/', '@', '?', '#', ' ', '*']) {
            return None;
        }
        let url = Url::parse(&format!("https://{text}/")).ok()?;
        Some(Self { host: host_of(&url)?, port: url.port().unwrap_or(443) })
    }
}

impl Endpoint {
    /// The address, if events may be pushed there.
    pub(super) fn allowed(text: &str, hosts: &[PushHost]) -> Result<Self, EndpointFault> {
        if text.len() > limits::LOCATION_BYTES_MAX {
            return Err(EndpointFault::Form);
        }
        let url = Url::parse(text).map_err(|_| EndpointFault::Form)?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(EndpointFault::Form);
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            _ => return Err(EndpointFault::Scheme),
        }
        let host = host_of(&url).ok_or(EndpointFault::Form)?;
        let port = url.port_or_known_default().unwrap_or(443);
        if !hosts.iter().any(|allowed| allowed.host == host && allowed.port == port) {
            let named = if port == 443 { host } else { format!("{host}:{port}") };
            return Err(EndpointFault::Host(named));
        }
        Ok(Self(url))
    }

    /// The address.
    pub(super) fn url(&self) -> &Url {
        &self.0
    }

    /// The address as text.
    pub(super) fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some(host.trim_start_matches('[').trim_end_matches([']', '.']).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(url: &str, hosts: &[&str]) -> Result<Endpoint, EndpointFault> {
        let hosts: Vec<PushHost> = hosts.iter().map(|host| PushHost::parse(host).unwrap()).collect();
        Endpoint::allowed(url, &hosts)
    }

    #[test]
    fn only_named_hosts_are_allowed() {
        let hosts = ["rp.example", "rp.example:8443", "127.0.0.1:9000", "[::1]:9000"];
        for url in [
            "https://rp.example/events",
            "https://RP.example:443/events?a=b",
            "https://rp.example./events",
            "https://rp.example:8443/",
            "http://127.0.0.1:9000/",
            "http://[::1]:9000/x",
        ] {
            assert!(allowed(url, &hosts).is_ok(), "{url}");
        }
        for url in [
            "https://other.example/",
            "https://rp.example:444/",
            "https://rp.example.evil.example/",
            "https://xrp.example/",
            "https://rp.example@evil.example/",
            "https://evil.example/#rp.example",
            "http://rp.example/",
            "http://169.254.169.254/latest/meta-data",
            "https://169.254.169.254/latest/meta-data",
            "http://127.0.0.1:9001/",
            "http://127.0.0.1/",
            "http://0x7f000001:9001/",
            "file:///etc/passwd",
            "gopher://rp.example/",
            "https://",
            "rp.example",
            "",
        ] {
            assert!(allowed(url, &hosts).is_err(), "{url}");
        }
        assert!(allowed("https://rp.example/", &[]).is_err(), "nobody is allowed unless named");
        let long = format!("https://rp.example/{}", "x".repeat(limits::LOCATION_BYTES_MAX));
        assert_eq!(allowed(&long, &hosts), Err(EndpointFault::Form));
    }

    #[test]
    fn wildcards_and_urls_are_no_hosts() {
        for text in
            ["", "*.example", "https://rp.example", "rp.example/", "u@rp.example", "rp.example:99999", "a b"]
        {
            assert_eq!(PushHost::parse(text), None, "{text}");
        }
    }
}
