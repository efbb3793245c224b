//! TLS of the gRPC listeners: client certificates required, files reloaded when they change.
//!
//! Each connection takes the configuration that is current when its handshake begins; a change swaps the whole
//! configuration, and with it the session cache, so a session of the old authorities cannot be resumed. Files that cannot
//! be used are refused with a log line and a metric, and the old stay in force. The files are watched by looking at them
//! every [`limits::TLS_POLL_INTERVAL`] through symbolic links, which also sees a swapped link or a renamed directory.
//! Limits: [`limits::TLS_FILE_BYTES_MAX`] per file.
//! Never does: logging key material, asking outside for revocation.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::{config, limits};

/// Why certificate files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A file cannot be read.
    #[error("`{path}` cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file is larger than any of its kind.
    #[error("`{path}` is larger than {} bytes", limits::TLS_FILE_BYTES_MAX)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file does not hold what it should.
    #[error("`{path}` holds no {wanted} in PEM form: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// What the reader says.
        source: PemError,
    },
    /// An authority cannot be used.
    #[error("an authority in `{path}` cannot be used: {source}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The authorities cannot verify clients.
    #[error("the authorities in `{path}` cannot verify clients: {source}")]
    Verifier {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        source: VerifierBuilderError,
    },
    /// Certificate and key do not fit or are of an unknown kind.
    #[error("`{cert}` and `{key}` cannot be used together: {source}")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
}

/// The TLS configuration in force.
#[derive(Debug)]
pub struct Tls {
    files: config::Tls,
    current: ArcSwap<ServerConfig>,
    without_clients: ArcSwap<ServerConfig>,
    metrics: Arc<Metrics>,
}

/// What tells a changed file from an unchanged one, without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fingerprint([Option<FileStamp>; 3]);

/// Device, inode, length in bytes, modification time in seconds and nanoseconds.
type FileStamp = (u64, u64, u64, i64, i64);

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be used; the service must not start then.
    pub fn load(files: &config::Tls, metrics: Arc<Metrics>) -> Result<Self, TlsFault> {
        let (config, without_clients, not_after) = read(files)?;
        metrics.tls_not_after.set(not_after);
        Ok(Self {
            files: files.clone(),
            current: ArcSwap::from_pointee(config),
            without_clients: ArcSwap::from_pointee(without_clients),
            metrics,
        })
    }

    /// The configuration for a handshake that begins now.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// As [`Tls::current`], for HTTP/1.1 with callers who show no certificate.
    #[must_use]
    pub fn without_clients(&self) -> Arc<ServerConfig> {
        self.without_clients.load_full()
    }

    /// Watches the files until the process drains.
    pub async fn watch(self: Arc<Self>, shutdown: Shutdown) {
        let mut seen = Fingerprint::take(&self.files);
        loop {
            tokio::select! {
                () = tokio::time::sleep(limits::TLS_POLL_INTERVAL) => {}
                () = shutdown.draining() => return,
            }
            let found = Fingerprint::take(&self.files);
            if found != seen {
                // Taken before the files are read: a change that comes during the reading is seen in the next round.
                seen = self.settled(found).await;
                self.reload();
            }
        }
    }

    /// Waits until the files stay as they are, so that a pair is not read half replaced.
    async fn settled(&self, mut last: Fingerprint) -> Fingerprint {
        for _ in 0..limits::TLS_SETTLE_ROUNDS_MAX {
            tokio::time::sleep(limits::TLS_SETTLE).await;
            let found = Fingerprint::take(&self.files);
            if found == last {
                break;
            }
            last = found;
        }
        last
    }

    fn reload(&self) {
        match read(&self.files) {
            Ok((config, without_clients, not_after)) => {
                self.current.store(Arc::new(config));
                self.without_clients.store(Arc::new(without_clients));
                self.metrics.tls_not_after.set(not_after);
                self.metrics.tls_reloads.ok.increment(1);
                tracing::info!(cert = %self.files.cert.display(), "certificates reloaded");
            }
            Err(fault) => {
                self.metrics.tls_reloads.refused.increment(1);
                tracing::error!(%fault, "changed certificates refused; the old stay in force");
            }
        }
    }
}

impl Fingerprint {
    fn take(files: &config::Tls) -> Self {
        Self([&files.cert, &files.key, &files.client_ca].map(|path| {
            let found = fs::metadata(path).ok()?;
            Some((found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
        }))
    }
}

/// The three files to a configuration with client certificates and one without, and the end of the leaf's life in Unix
/// seconds.
fn read(files: &config::Tls) -> Result<(ServerConfig, ServerConfig, f64), TlsFault> {
    let chain = certificates(&files.cert)?;
    let key_pem = bytes(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|source| TlsFault::Pem {
        path: files.key.clone(),
        wanted: "private key",
        source,
    })?;
    let not_after = chain.first().map_or(0.0, not_after);

    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.client_ca)? {
        roots
            .add(authority)
            .map_err(|source| TlsFault::Authority { path: files.client_ca.clone(), source })?;
    }
    let pair = |source| TlsFault::Pair { cert: files.cert.clone(), key: files.key.clone(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|source| TlsFault::Verifier { path: files.client_ca.clone(), source })?;
    let without_clients = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain.clone(), key.clone_key());
    let mut without_clients = without_clients.map_err(pair)?;
    without_clients.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((config, without_clients, not_after))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let fault = |source| TlsFault::Pem { path: path.to_owned(), wanted: "certificate", source };
    let pem = bytes(path)?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(fault)?;
    if found.is_empty() { Err(fault(PemError::NoItemsFound)) } else { Ok(found) }
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsFault> {
    let fault = |source| TlsFault::Read { path: path.to_owned(), source };
    let mut found = Vec::new();
    let file = fs::File::open(path).map_err(fault)?;
    file.take(limits::TLS_FILE_BYTES_MAX + 1).read_to_end(&mut found).map_err(fault)?;
    if found.len() as u64 > limits::TLS_FILE_BYTES_MAX {
        return Err(TlsFault::TooLarge { path: path.to_owned() });
    }
    Ok(found)
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a float for thousands of years")]
fn not_after(leaf: &CertificateDer<'_>) -> f64 {
    X509Certificate::from_der(leaf).map_or(0.0, |(_, leaf)| leaf.validity().not_after.timestamp() as f64)
}
