//! Where Cardea listens, and how to get there: TCP, a Unix socket, or TLS with a client certificate.
//!
//! INVARIANT (no silent plaintext): TLS settings go with `https://` addresses and only with these.

use std::fmt;
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use crate::Error;

/// Longest wait for the connection, unless told otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer, unless told otherwise; what waits longer is better denied.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that is silent for so long is probed, so that a dead peer is noticed before the next attempt.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// See the module.
///
/// ```no_run
/// use std::time::Duration;
/// use cardea_client::{Client, Endpoint, Tls};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let over_tcp = Endpoint::new("http://127.0.0.1:7411");
/// let over_unix_socket = Endpoint::new("unix:/run/cardea/grpc.sock");
/// let over_mutual_tls = Endpoint::new("https://cardea.internal:7443")
///     .with_tls(Tls::new(std::fs::read("ca.pem")?).with_identity(std::fs::read("me.pem")?, std::fs::read("me.key")?))
///     .with_call_timeout(Duration::from_millis(200));
/// let mut cardea = Client::connect(over_mutual_tls).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Endpoint {
    address: String,
    tls: Option<Tls>,
    connect_timeout: Duration,
    pub(crate) call_timeout: Duration,
}

/// TLS towards the service. Only the given authorities are trusted, never those of the system.
#[derive(Clone)]
pub struct Tls(ClientTlsConfig);

impl Endpoint {
    /// `http://host:port`, `unix:/path` or `https://host:port`.
    pub fn new(address: impl Into<String>) -> Self {
        let address = address.into();
        Self { address, tls: None, connect_timeout: CONNECT_TIMEOUT, call_timeout: CALL_TIMEOUT }
    }

    /// Adds what `https://` needs.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// How long to wait for the connection; default 5 s.
    #[must_use]
    pub fn with_connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// How long to wait for an answer; default 2 s. Streams have no such limit.
    #[must_use]
    pub fn with_call_timeout(self, call_timeout: Duration) -> Self {
        Self { call_timeout, ..self }
    }

    pub(crate) async fn connect(&self) -> Result<Channel, Error> {
        let refused = |fault| Error::Endpoint { address: self.address.clone(), fault };
        let failed = |cause| Error::Connect { address: self.address.clone(), cause };
        let known = ["http://", "https://", "unix:"].iter().any(|scheme| self.address.starts_with(scheme));
        if !known {
            return Err(refused("has no known scheme; write `http://`, `https://` or `unix:`"));
        }
        match (self.address.starts_with("https://"), &self.tls) {
            (true, None) => {
                return Err(refused("needs TLS settings: the authorities to trust, such as `--ca FILE`"));
            }
            (false, Some(_)) => return Err(refused("has TLS settings, which only `https://` uses")),
            (true, Some(_)) | (false, None) => {}
        }
        let mut endpoint = tonic::transport::Endpoint::from_shared(self.address.clone())
            .map_err(failed)?
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.0.clone()).map_err(failed)?;
        }
        endpoint.connect().await.map_err(failed)
    }
}

impl<A: Into<String>> From<A> for Endpoint {
    fn from(address: A) -> Self {
        Self::new(address)
    }
}

impl Tls {
    /// Trusts the authorities of this PEM text.
    pub fn new(authorities_pem: impl AsRef<[u8]>) -> Self {
        Self(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authorities_pem)))
    }

    /// Presents this certificate chain and its key, both PEM.
    #[must_use]
    pub fn with_identity(self, chain_pem: impl AsRef<[u8]>, key_pem: impl AsRef<[u8]>) -> Self {
        Self(self.0.identity(Identity::from_pem(chain_pem, key_pem)))
    }

    /// Expects this name in the service's certificate, instead of the host of the address.
    #[must_use]
    pub fn with_server_name(self, name: impl Into<String>) -> Self {
        Self(self.0.domain_name(name))
    }
}

impl fmt::Debug for Tls {
    /// Holds a private key, so it shows nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}
