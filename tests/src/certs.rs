//! Test certificates: an authority, servers for 127.0.0.1, and clients with a SPIFFE ID.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// An authority that signs certificates.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Identity {
    pem: String,
    key_pem: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

/// Where an [`Identity`] and its authority lie.
#[derive(Debug, Clone)]
pub struct Files {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Authority of the other side.
    pub ca: PathBuf,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// If keys cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let cert = params.self_signed(&key)?;
        Ok(Self { pem: cert.pem(), der: cert.der().clone(), issuer: Issuer::new(params, key) })
    }

    /// A certificate for a server on 127.0.0.1.
    ///
    /// # Errors
    /// If keys cannot be made.
    pub fn server(&self) -> Result<Identity> {
        let san = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        self.sign(san, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a client with a URI such as a SPIFFE ID.
    ///
    /// # Errors
    /// If keys cannot be made.
    pub fn client(&self, uri: &str) -> Result<Identity> {
        self.sign(vec![SanType::URI(uri.try_into()?)], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, san: Vec<SanType>, usage: ExtendedKeyUsagePurpose) -> Result<Identity> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.subject_alt_names = san;
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            pem: cert.pem(),
            key_pem: key.serialize_pem(),
            der: cert.der().clone(),
            key_der: key.serialize_der(),
        })
    }

    /// Writes an identity, and this authority as that of the other side.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, dir: &Path, identity: &Identity) -> Result<Files> {
        let files = Files { cert: dir.join("cert.pem"), key: dir.join("key.pem"), ca: dir.join("ca.pem") };
        fs::write(&files.cert, &identity.pem)?;
        fs::write(&files.key, &identity.key_pem)?;
        fs::write(&files.ca, &self.pem)?;
        Ok(files)
    }

    /// What a server with this identity needs; it asks nobody for a certificate.
    ///
    /// # Errors
    /// If the certificate is refused.
    pub fn server_config(&self, identity: &Identity) -> Result<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key_der.clone()));
        Ok(builder.with_single_cert(vec![identity.der.clone(), self.der.clone()], key)?)
    }

    /// What a client needs to reach servers of this authority, with or without a certificate of its own.
    ///
    /// # Errors
    /// If a certificate is refused.
    pub fn client_config(&self, identity: Option<&Identity>) -> Result<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key_der.clone()));
        Ok(builder.with_client_auth_cert(vec![identity.der.clone()], key)?)
    }
}
