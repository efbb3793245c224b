//! TLS with client certificates: who is let in, and certificates that change under a running service.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use cardea_server::config;
use cardea_server::listen::{Tls, TlsFault};
use cardea_server::metrics::{Labels, Metrics};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::harness::{PATIENCE, Running, Setup, check};

const SPIFFE_ID: &str = "spiffe://example.org/gateway";

/// A certificate with its key, both PEM.
struct Pair {
    cert: String,
    key: String,
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: SanType) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![name];
        Pair { cert: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }

    fn server(&self) -> Pair {
        self.issue(SanType::DnsName("localhost".try_into().unwrap()))
    }

    fn client(&self) -> Pair {
        self.issue(SanType::URI(SPIFFE_ID.try_into().unwrap()))
    }

    /// Writes what a server of this authority needs.
    fn write(&self, dir: &Path, server: &Pair) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("server.pem"), &server.cert).unwrap();
        fs::write(dir.join("server.key"), &server.key).unwrap();
        fs::write(dir.join("clients-ca.pem"), self.0.pem()).unwrap();
    }

    /// A client that trusts this authority and shows `pair`.
    fn config(&self, pair: Option<&Pair>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![der(pair)], key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

fn der(pair: &Pair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()
}

fn files(dir: &Path) -> config::Tls {
    config::Tls {
        cert: dir.join("server.pem"),
        key: dir.join("server.key"),
        client_ca: dir.join("clients-ca.pem"),
    }
}

async fn connect(at: SocketAddr, client: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(client).connect(name, TcpStream::connect(at).await?).await
}

async fn channel(at: SocketAddr, client: Arc<ClientConfig>) -> Result<Channel, tonic::transport::Error> {
    let connector = service_fn(move |_| {
        let client = Arc::clone(&client);
        async move { Ok::<_, io::Error>(TokioIo::new(connect(at, client).await?)) }
    });
    Endpoint::from_static("http://localhost").timeout(PATIENCE).connect_with_connector(connector).await
}

async fn call(at: SocketAddr, client: Arc<ClientConfig>) -> Result<i32, String> {
    let channel = channel(at, client).await.map_err(|error| format!("{error:?}"))?;
    check(channel).await.map_err(|status| format!("{status:?}"))
}

/// The certificate that the server shows to a new connection.
async fn shown(at: SocketAddr, client: &Arc<ClientConfig>) -> CertificateDer<'static> {
    let stream = connect(at, Arc::clone(client)).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn start(dir: &Path) -> Running {
    Setup { tls: Some(files(dir)), ..Setup::default() }.start()
}

#[tokio::test]
async fn only_a_certificate_of_the_authority_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), &authority.server());
    let running = start(dir.path());
    let at = running.at.unwrap();

    let stranger = Authority::new().client();
    call(at, authority.config(None)).await.unwrap_err();
    call(at, authority.config(Some(&stranger))).await.unwrap_err();
    check(Endpoint::from_shared(format!("http://{at}")).unwrap().connect_lazy()).await.unwrap_err();
    assert_eq!(running.calls(), 0, "nothing reached the service");
    running
        .until("they are counted", |running| {
            running.metric("cardea_connections_refused_total{reason=\"tls\"}") >= 3.0
        })
        .await;

    let client = authority.client();
    assert_eq!(call(at, authority.config(Some(&client))).await, Ok(1));
    let peer = running.behaviour.peers.lock().unwrap()[0].clone();
    let certificate = peer.certificate().expect("a verified certificate");
    assert_eq!(certificate.uris, [SPIFFE_ID]);
    assert_eq!(certificate.der, der(&client));
}

#[tokio::test]
async fn changed_files_are_taken_up_and_bad_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (first, second) = (authority.server(), authority.server());
    authority.write(&dir.path().join("v1"), &first);
    authority.write(&dir.path().join("v2"), &second);
    let current = dir.path().join("current");
    symlink("v1", &current).unwrap();
    let running = start(&current);
    let at = running.at.unwrap();
    let pair = authority.client();
    let client = authority.config(Some(&pair));
    assert_eq!(shown(at, &client).await, der(&first));
    let old_connection = channel(at, Arc::clone(&client)).await.unwrap();

    // As Kubernetes does it: the directory is a symbolic link that is swapped by a rename.
    symlink("v2", dir.path().join("next")).unwrap();
    fs::rename(dir.path().join("next"), &current).unwrap();
    running
        .until("the swap is seen", |running| running.metric("cardea_tls_reloads_total{result=\"ok\"}") == 1.0)
        .await;
    assert_eq!(shown(at, &client).await, der(&second));
    assert_eq!(check(old_connection).await.unwrap(), 1, "an open connection goes on");

    // A certificate without its key: refused, and the pair in force stays.
    fs::write(current.join("server.pem"), &first.cert).unwrap();
    running
        .until("it is refused", |running| {
            running.metric("cardea_tls_reloads_total{result=\"refused\"}") >= 1.0
        })
        .await;
    assert_eq!(shown(at, &client).await, der(&second));
    assert_eq!(call(at, Arc::clone(&client)).await, Ok(1));

    // The key follows: the pair fits again.
    fs::write(current.join("server.key"), &first.key).unwrap();
    running
        .until("it is taken up", |running| running.metric("cardea_tls_reloads_total{result=\"ok\"}") == 2.0)
        .await;
    assert_eq!(shown(at, &client).await, der(&first));

    // New authorities: the old client is a stranger now.
    fs::write(current.join("clients-ca.pem"), Authority::new().0.pem()).unwrap();
    running
        .until("they are taken up", |running| {
            running.metric("cardea_tls_reloads_total{result=\"ok\"}") == 3.0
        })
        .await;
    call(at, client).await.unwrap_err();
    assert_eq!(running.ended_after_drain().await, Ok(()));
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), &authority.server());
    let load = || {
        let metrics =
            Metrics::new(Labels { doors: &["grpc"], outcomes: &[("allow", "permitted")], shards: 1 });
        Tls::load(&files(dir.path()), Arc::new(metrics)).map(|_| ())
    };
    load().unwrap();
    let file = |name: &str| dir.path().join(name);

    let key = fs::read(file("server.key")).unwrap();
    fs::write(file("server.key"), &authority.server().key).unwrap();
    assert!(matches!(load(), Err(TlsFault::Pair { .. })));
    fs::write(file("server.key"), "not a key").unwrap();
    assert!(matches!(load(), Err(TlsFault::Pem { wanted: "private key", .. })));
    fs::write(file("server.key"), key).unwrap();

    fs::write(file("clients-ca.pem"), "").unwrap();
    assert!(matches!(load(), Err(TlsFault::Pem { wanted: "certificate", .. })));
    fs::remove_file(file("clients-ca.pem")).unwrap();
    let fault = load().unwrap_err().to_string();
    assert!(fault.contains("clients-ca.pem") && fault.contains("cannot be read"), "{fault}");
    fs::write(file("clients-ca.pem"), vec![b'\n'; 2 * 1024 * 1024]).unwrap();
    assert!(matches!(load(), Err(TlsFault::TooLarge { .. })));
}
