//! A real OCI registry: Debian's `docker-registry`, with its blobs in a directory that a test can reach into.
//!
//! It binds port 0 and tells the real one in its log.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::certs::Files;
use crate::process::Process;
use crate::registry_tokens::{ISSUER, SERVICE};
use crate::wait;

/// The user that a registry with a password knows.
pub const USER: &str = "ci";
/// The user's password.
pub const PASSWORD: &str = "geheim";
/// The line of `htpasswd -B` for [`USER`] and [`PASSWORD`].
const HTPASSWD: &str = "ci:$2b$05$abcdefghijklmnopqrstuuVWu8RjbNovPZWAMRdd7iqaaG0mI53Uu\n";

/// How to start it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Its certificate; without, it speaks plain HTTP.
    pub tls: Option<Files>,
    /// Whether it wants a password.
    pub password: bool,
    /// Realm and certificate of the token server whose tokens it wants.
    pub tokens: Option<(String, PathBuf)>,
}

/// See the module.
#[derive(Debug)]
pub struct Registry {
    /// Where it listens.
    pub address: SocketAddr,
    /// The process.
    pub process: Process,
    scheme: &'static str,
    dir: TempDir,
}

impl Registry {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// If it is not installed or does not start.
    pub async fn start(options: &Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("registry-").tempdir()?;
        let config = dir.path().join("config.yml");
        fs::write(&config, configuration(dir.path(), options)?)?;
        let mut command = Command::new(program("docker-registry")?);
        command.arg("serve").arg(&config);
        let mut process = Process::start("docker-registry", &mut command)?;
        let address = wait::until("the registry to listen", async || {
            process.must_run()?;
            let log = process.stderr();
            let listening = log.lines().find_map(|line| line.split("msg=\"listening on ").nth(1));
            let address = listening.and_then(|rest| rest.split([',', '"']).next());
            Ok(address.map(str::parse).transpose()?)
        })
        .await?;
        let scheme = if options.tls.is_some() { "oci" } else { "oci+http" };
        Ok(Self { address, process, scheme, dir })
    }

    /// The address of an artifact in it.
    #[must_use]
    pub fn location(&self, artifact: &str) -> String {
        format!("{}://{}/{artifact}", self.scheme, self.address)
    }

    /// The file in which it keeps the blob with this digest (`sha256:…`).
    ///
    /// # Errors
    /// If that is no digest.
    pub fn blob(&self, digest: &str) -> Result<PathBuf> {
        let hex = digest.strip_prefix("sha256:").context("a digest")?;
        let prefix = hex.get(..2).context("a digest")?;
        Ok(self.dir.path().join("data/docker/registry/v2/blobs/sha256").join(prefix).join(hex).join("data"))
    }
}

fn configuration(dir: &Path, options: &Options) -> Result<String> {
    let mut text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n  secret: tests\n",
        dir.join("data").display()
    );
    if let Some(files) = &options.tls {
        let (cert, key) = (files.cert.display(), files.key.display());
        text.push_str(&format!("  tls:\n    certificate: {cert}\n    key: {key}\n"));
    }
    if options.password {
        let users = dir.join("htpasswd");
        fs::write(&users, HTPASSWD)?;
        text.push_str(&format!("auth:\n  htpasswd:\n    realm: tests\n    path: {}\n", users.display()));
    }
    if let Some((realm, certificate)) = &options.tokens {
        text.push_str(&format!(
            "auth:\n  token:\n    realm: {realm}\n    service: {SERVICE}\n    issuer: {ISSUER}\n    rootcertbundle: {}\n",
            certificate.display()
        ));
    }
    Ok(text)
}

/// A program of the system, which `tests/run` installs.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    match places.map(|dir| dir.join(name)).find(|program| program.exists()) {
        Some(program) => Ok(program),
        None => bail!("there is no {name} on this machine: run tests/run, which installs it"),
    }
}
