//! Bundles over networks: from and to HTTPS servers and OCI registries.
//!
//! This module moves bytes. Whether they are a bundle, signed, and newer is for their reader; nothing here is a reason to
//! trust them. `location.rs` says where, `credentials.rs` who, `transport.rs` how, `poll.rs` when.

pub mod backoff;
mod credentials;
mod error;
pub mod https;
mod location;
mod oci;
mod poll;
mod transport;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub(crate) use self::credentials::secret;
pub use self::error::RemoteError;
pub(crate) use self::error::tidy;
pub use self::https::Https;
pub(crate) use self::location::is_loopback;
pub use self::location::{HttpsUrl, Location, LocationError, OciDigest, OciReference};
pub use self::oci::Oci;
pub use self::poll::{Offered, SourceState, SourceStatus, Taken, poll};
pub(crate) use self::transport::{Redirects, Transport};
use crate::limits;

/// Type of the artifact that a bundle is in a registry.
pub const ARTIFACT_TYPE: &str = "application/vnd.cardea.bundle.v1";
/// Media type of a packed bundle.
pub use cardea_policy_store::pack::MEDIA_TYPE as LAYER_MEDIA_TYPE;
/// Largest packed bundle that is moved, in bytes.
pub const BUNDLE_BYTES_MAX: u64 = cardea_policy_store::pack::PACKED_BYTES_MAX as u64;

/// How to reach a source.
#[derive(Clone, Debug)]
pub struct Options {
    /// Authorities that count beside those of the system, in PEM form.
    pub ca: Option<PathBuf>,
    /// Certificate to show, in PEM form.
    pub client_cert: Option<PathBuf>,
    /// Its key.
    pub client_key: Option<PathBuf>,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// User name.
    pub username: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// Time for one whole body.
    pub timeout: Duration,
    /// Between two looks of [`poll`].
    pub poll_interval: Duration,
    /// What [`poll`] asks an HTTPS server to wait for a change.
    pub wait: Option<Duration>,
    /// Who is told how far a download is.
    pub progress: Option<Progress>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ca: None,
            client_cert: None,
            client_key: None,
            token_file: None,
            username: None,
            password_file: None,
            timeout: limits::REMOTE_FETCH_TIMEOUT,
            poll_interval: limits::REMOTE_POLL_INTERVAL,
            wait: None,
            progress: None,
        }
    }
}

/// Is told how far a download is: bytes so far, and all of them if known.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(u64, Option<u64>) + Send + Sync>);

impl Progress {
    /// Tells `hear`.
    pub fn new(hear: impl Fn(u64, Option<u64>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    fn tell(&self, bytes: u64, of: Option<u64>) {
        (self.0)(bytes, of);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// A client for one source.
#[derive(Debug)]
pub enum Remote {
    /// A file on an HTTPS server.
    Https(Https),
    /// An artifact in a registry.
    Oci(Box<Oci>),
}

impl Remote {
    /// A client for `location`.
    ///
    /// # Errors
    /// If credentials or a file of the options cannot be used.
    pub async fn new(location: &Location, options: &Options) -> Result<Self, RemoteError> {
        Ok(match location {
            Location::Https(url) => Self::Https(Https::new(url, options)?),
            Location::Oci(reference) => Self::Oci(Box::new(Oci::new(reference, options).await?)),
        })
    }

    /// What is there now, with the address that names exactly this content, if the source has such.
    ///
    /// # Errors
    /// If there is no whole answer within the limits.
    pub async fn fetch(&self) -> Result<(Bytes, Option<OciReference>), RemoteError> {
        match self {
            Self::Https(https) => Ok((https.fetch_any().await?, None)),
            Self::Oci(oci) => {
                let digest = oci.resolve().await?;
                let bytes = oci.pull(&digest).await?;
                Ok((bytes, Some(oci.reference().pinned(digest))))
            }
        }
    }
}
