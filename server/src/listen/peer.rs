//! Who is at the other end of a connection, as far as the connection itself proves it.
//!
//! Made once per connection and put into the extensions of each of its requests. A certificate stands here only after
//! rustls has verified it against `tls.client_ca`.
//! Limits: [`limits::PEER_NAMES_MAX`] names of a kind, [`limits::PEER_NAME_BYTES_MAX`] bytes each; a certificate beyond
//! them has no names at all, for a part of its names could be mistaken for the whole.
//! Never does: deciding what a peer may do; believing headers.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::limits;

/// The other end of a connection; cheap to clone.
#[derive(Debug, Clone)]
pub struct Peer(Arc<Transport>);

/// How the peer is connected, and what that proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// Plain TCP; only on loopback.
    Tcp {
        /// Where it comes from.
        from: SocketAddr,
    },
    /// TLS with a verified client certificate.
    Tls {
        /// Where it comes from.
        from: SocketAddr,
        /// The certificate it proved to hold.
        certificate: ClientCertificate,
    },
    /// Unix socket; the file's permissions let it in.
    Unix {
        /// User id of the peer's process, from the kernel.
        uid: Option<u32>,
    },
}

/// A verified client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The leaf, DER.
    pub der: CertificateDer<'static>,
    /// URI names (SPIFFE ids), in the order of the certificate.
    pub uris: Vec<String>,
    /// DNS names, in the order of the certificate.
    pub dns: Vec<String>,
    /// Distinguished name of the subject, as text; for logs and records, not for decisions.
    pub subject: String,
}

impl Peer {
    pub(crate) fn new(transport: Transport) -> Self {
        Self(Arc::new(transport))
    }

    /// How it is connected.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        &self.0
    }

    /// Its verified certificate, if it came with one.
    #[must_use]
    pub fn certificate(&self) -> Option<&ClientCertificate> {
        match self.transport() {
            Transport::Tls { certificate, .. } => Some(certificate),
            Transport::Tcp { .. } | Transport::Unix { .. } => None,
        }
    }
}

impl ClientCertificate {
    /// Reads the names out of a leaf that rustls has verified. One that this parser cannot read has no names.
    pub(crate) fn read(der: CertificateDer<'static>) -> Self {
        let (mut uris, mut dns, mut subject) = (Vec::new(), Vec::new(), String::new());
        if let Ok((_, parsed)) = X509Certificate::from_der(&der) {
            subject = parsed.subject().to_string();
            if let Ok(Some(names)) = parsed.subject_alternative_name() {
                for name in &names.value.general_names {
                    if let GeneralName::URI(uri) = name {
                        uris.push((*uri).to_owned());
                    } else if let GeneralName::DNSName(name) = name {
                        dns.push((*name).to_owned());
                    }
                }
            }
        }
        if !(bounded(&uris) && bounded(&dns) && subject.len() <= limits::PEER_NAME_BYTES_MAX) {
            (uris, dns, subject) = (Vec::new(), Vec::new(), String::new());
        }
        Self { der, uris, dns, subject }
    }
}

fn bounded(names: &[String]) -> bool {
    names.len() <= limits::PEER_NAMES_MAX
        && names.iter().all(|name| name.len() <= limits::PEER_NAME_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(names: Vec<SanType>) -> ClientCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "gateway");
        params.subject_alt_names = names;
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        ClientCertificate::read(made.der().clone())
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn names_are_read_by_kind() {
        let read = certificate(vec![uri("spiffe://a/b"), SanType::DnsName("a.test".try_into().unwrap())]);
        assert_eq!(read.uris, ["spiffe://a/b"]);
        assert_eq!(read.dns, ["a.test"]);
        assert!(read.subject.contains("CN=gateway"), "{}", read.subject);
    }

    #[test]
    fn a_certificate_with_too_many_or_too_long_names_has_none() {
        let many = (0..=limits::PEER_NAMES_MAX).map(|number| uri(&format!("spiffe://a/{number}"))).collect();
        assert!(certificate(many).uris.is_empty());
        let long = format!("spiffe://a/{}", "x".repeat(limits::PEER_NAME_BYTES_MAX));
        assert!(certificate(vec![uri(&long)]).uris.is_empty());
    }

    #[test]
    fn bytes_that_are_no_certificate_have_no_names() {
        let read = ClientCertificate::read(CertificateDer::from(vec![0x30, 0x82, 0xff, 0xff, 1]));
        assert_eq!((read.uris.len(), read.dns.len(), read.subject.as_str()), (0, 0, ""));
    }
}
