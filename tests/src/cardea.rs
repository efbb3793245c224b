//! `cardea serve` as a child process.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::bundle;
use crate::clients::Clients;
use crate::http::{Answer, Request};
use crate::process::{Finished, Process, cardea_program, run_cardea};
use crate::remote;

/// How to start it.
#[derive(Debug, Clone)]
pub struct Options {
    /// More of `cardea.toml`, in TOML.
    pub config: String,
    /// TCP address of gRPC.
    pub listen: &'static str,
    /// Edits of the bundle before the start: file, old text, new text.
    pub edits: Vec<(&'static str, String, String)>,
    /// Where bundles come from; without, its own copy of the bundle `web`.
    pub source: Option<String>,
    /// `trust.toml`; without, unsigned bundles serve.
    pub trust: Option<PathBuf>,
    /// Threads that serve.
    pub workers: usize,
    /// Largest file that it can write, in bytes: beyond it, writing fails as on a full disk.
    pub file_bytes_max: Option<u64>,
    /// Where its audit is, if not beside everything else.
    pub audit_dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config: String::new(),
            listen: "127.0.0.1:0",
            edits: Vec::new(),
            source: None,
            trust: None,
            workers: 1,
            file_bytes_max: None,
            audit_dir: None,
        }
    }
}

impl Options {
    /// With a configuration.
    #[must_use]
    pub fn config(mut self, toml: impl Into<String>) -> Self {
        self.config = toml.into();
        self
    }

    /// With several threads that serve.
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// With signed bundles from elsewhere.
    #[must_use]
    pub fn signed(mut self, source: impl Into<String>, trust: impl Into<PathBuf>) -> Self {
        self.source = Some(source.into());
        self.trust = Some(trust.into());
        self
    }

    /// With a second table of sales, `invoices`.
    #[must_use]
    pub fn with_invoices(self) -> Self {
        let salaries = r#"{ "uid": { "type": "Table", "id": "salaries" }, "attrs": {}, "parents": [] }"#;
        let invoices = r#"{ "uid": { "type": "Table", "id": "invoices" }, "attrs": {}, "parents": [{ "type": "Schema", "id": "sales" }] }"#;
        self.edit("entities.json", salaries, format!("{salaries},\n  {invoices}"))
    }

    /// With an edit of the bundle.
    #[must_use]
    pub fn edit(mut self, file: &'static str, old: impl Into<String>, new: impl Into<String>) -> Self {
        self.edits.push((file, old.into(), new.into()));
        self
    }
}

/// A running service with its own copy of the bundle `web`, its own audit directory and its own socket.
#[derive(Debug)]
pub struct Cardea {
    /// The process.
    pub process: Process,
    /// TCP address of gRPC.
    pub grpc: SocketAddr,
    /// Address of metrics and health.
    pub http: SocketAddr,
    /// Address of signals over HTTP, if it takes them.
    pub ssf: Option<SocketAddr>,
    options: Options,
    dir: TempDir,
}

impl Cardea {
    /// Starts with defaults and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start_with(options: Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("cardea-").tempdir()?;
        bundle::copy_web(&dir.path().join("bundle"))?;
        for (file, old, new) in &options.edits {
            bundle::edit(&dir.path().join("bundle"), file, old, new)?;
        }
        let (process, grpc, http, ssf) = launch(dir.path(), &options).await?;
        Ok(Self { process, grpc, http, ssf, options, dir })
    }

    /// Starts again on the same bundle, audit directory and socket, after the process has ended.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start_again(&mut self) -> Result<()> {
        (self.process, self.grpc, self.http, self.ssf) = launch(self.dir.path(), &self.options).await?;
        Ok(())
    }

    /// With another configuration from the next start on.
    pub fn configure(&mut self, toml: impl Into<String>) {
        self.options.config = toml.into();
    }

    /// Clients over TCP.
    ///
    /// # Errors
    /// If the address makes no URI.
    pub fn clients(&self) -> Result<Clients> {
        Clients::tcp(self.grpc)
    }

    /// The Unix socket of gRPC.
    #[must_use]
    pub fn uds(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// Its copy of the bundle.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    /// The directory of the bundles that it keeps.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("bundle-store")
    }

    /// `cardea bundle` with arguments, about this node.
    ///
    /// # Errors
    /// If it cannot be run.
    pub async fn command(&self, words: &[&str]) -> Result<Finished> {
        let node = format!("http://{}", self.grpc);
        remote::cardea(&[words, &["--node", &node]].concat()).await
    }

    /// `cardea` with arguments, about this node.
    ///
    /// # Errors
    /// If it cannot be run.
    pub async fn run(&self, words: &[&str]) -> Result<Finished> {
        let node = format!("http://{}", self.grpc);
        let all: Vec<String> =
            words.iter().copied().chain(["--node", node.as_str()]).map(ToOwned::to_owned).collect();
        // From another thread, so that this one's runtime goes on.
        tokio::task::spawn_blocking(move || run_cardea(&all, b"")).await?
    }

    /// The directory of what it knows.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Its audit directory.
    #[must_use]
    pub fn audit_dir(&self) -> PathBuf {
        self.options.audit_dir.clone().unwrap_or_else(|| self.dir.path().join("audit"))
    }

    /// GET on the port for metrics and health.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn page(&self, path: &str) -> Result<Answer> {
        Request::get(path).send(self.http).await
    }
}

/// The command line, with everything in `dir`.
///
/// # Errors
/// If the program is missing or the configuration cannot be written.
pub fn serve_command(dir: &Path, options: &Options) -> Result<Command> {
    let config = dir.join("cardea.toml");
    fs::write(&config, &options.config)?;
    let mut command = Command::new(cardea_program()?);
    command.arg("serve").arg("--config").arg(config);
    match &options.source {
        Some(source) => command.arg("--bundle").arg(source),
        None => command.arg("--bundle").arg(dir.join("bundle")),
    };
    match &options.trust {
        Some(trust) => command.arg("--trust").arg(trust),
        None => command.arg("--allow-unsigned"),
    };
    command.args(["--listen", options.listen]).arg("--uds").arg(dir.join("s"));
    let audit_dir = options.audit_dir.clone().unwrap_or_else(|| dir.join("audit"));
    command.args(["--http", "127.0.0.1:0"]).arg("--audit-dir").arg(audit_dir);
    command.args(["--workers", &options.workers.to_string(), "--format", "json"]);
    Ok(command)
}

/// The same command with a soft limit on the size of files. The signal that tells of it is ignored, so that writing fails.
fn with_small_files(command: &Command, bytes: u64) -> Command {
    let mut limited = Command::new("sh");
    // The shell counts in blocks of 512 bytes.
    let script = format!("trap '' XFSZ; ulimit -S -f {}; exec \"$@\"", bytes / 512);
    limited.arg("-c").arg(script).arg("sh").arg(command.get_program()).args(command.get_args());
    limited
}

async fn launch(
    dir: &Path,
    options: &Options,
) -> Result<(Process, SocketAddr, SocketAddr, Option<SocketAddr>)> {
    let mut command = serve_command(dir, options)?;
    if let Some(bytes) = options.file_bytes_max {
        command = with_small_files(&command, bytes);
    }
    let mut process = Process::start("cardea", &mut command)?;
    let ready = process
        .stdout_line(|line| {
            let event: Value = serde_json::from_str(line).ok()?;
            (event.get("event")? == "ready").then_some(event)
        })
        .await?;
    let address = |value: Option<&Value>| -> Result<SocketAddr> {
        let text = value.and_then(Value::as_str).context("an address is missing")?;
        Ok(text.parse()?)
    };
    let grpc = address(ready.get("grpc").and_then(|list| list.get(0)))
        .with_context(|| format!("the ready line `{ready}`"))?;
    let http = address(ready.get("http")).with_context(|| format!("the ready line `{ready}`"))?;
    let ssf = ready.get("ssf").and_then(Value::as_str).map(str::parse).transpose()?;
    Ok((process, grpc, http, ssf))
}
