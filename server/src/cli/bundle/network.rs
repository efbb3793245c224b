//! What `push` and `pull` have in common: options, the runtime, and how a failure is told.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cardea_policy_store::pack::Packed;
use clap::Args;
use serde::Serialize;

use crate::cli::{Format, exit};
use crate::limits;
use crate::remote::{Location, Options, RemoteError};

/// How the other side is reached. There is no option for a password itself: command lines are seen by everybody.
#[derive(Debug, Args)]
pub(super) struct NetworkArgs {
    /// Authorities that may sign the server's certificate beside those of the system, as PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Certificate to show to the server, as PEM.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Key of the client certificate, as PEM.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// File with a bearer token.
    #[arg(long, value_name = "FILE", conflicts_with = "username")]
    token_file: Option<PathBuf>,
    /// User name. For a registry also CARDEA_REGISTRY_USERNAME with CARDEA_REGISTRY_PASSWORD, or `docker login`.
    #[arg(long, value_name = "NAME", requires = "password_file")]
    username: Option<String>,
    /// File with the user's password.
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// Seconds for moving the whole bundle.
    #[arg(long, value_name = "SECONDS", default_value_t = limits::REMOTE_FETCH_TIMEOUT.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl NetworkArgs {
    pub(super) fn options(&self) -> Options {
        Options {
            ca: self.ca.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
            token_file: self.token_file.clone(),
            username: self.username.clone(),
            password_file: self.password_file.clone(),
            timeout: Duration::from_secs(self.timeout),
            ..Options::default()
        }
    }
}

/// What a command did.
#[derive(Debug, Serialize)]
pub(super) struct Moved {
    /// The bundle's address; pinned to its content, where the source has such addresses.
    pub(super) reference: String,
    /// The bundle's digest, which signing does not change.
    pub(super) digest: String,
    pub(super) bytes: usize,
    /// Whether it carries a signature. Whose it is was not looked at.
    pub(super) signed: bool,
    /// Where it was written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<PathBuf>,
}

impl Moved {
    /// What is known of a packed bundle before it is moved to or from `reference`.
    pub(super) fn of(reference: String, bundle: &Packed) -> Self {
        Self {
            reference,
            digest: bundle.digest().to_string(),
            bytes: bundle.bytes().len(),
            signed: bundle.envelope().is_ok_and(|envelope| envelope.is_some()),
            file: None,
        }
    }
}

/// Why a command could not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error("{message}")]
    Local { message: String, help: Option<&'static str> },
}

#[derive(Serialize)]
struct Told<'f> {
    error: String,
    help: Option<&'f str>,
}

impl Failure {
    pub(super) fn local(message: String) -> Self {
        Self::Local { message, help: None }
    }

    fn help(&self) -> Option<&'static str> {
        match self {
            Self::Remote(error) => error.help(),
            Self::Local { help, .. } => *help,
        }
    }
}

/// Parses an address. Not a job for clap, which would print it with the password that it may hold.
pub(super) fn location(text: &str) -> Result<Location, Failure> {
    text.parse().map_err(|error: crate::remote::LocationError| Failure::local(error.to_string()))
}

/// Runs a command's work to its end.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::local(format!("no runtime: {error}")))?.block_on(work)
}

/// Tells what came of it.
pub(super) fn told(outcome: &Result<Moved, Failure>, format: Format) -> ExitCode {
    match (outcome, format) {
        (Ok(moved), Format::Human) => {
            println!("{}", moved.reference);
            let signed = if moved.signed { "signed" } else { "not signed" };
            let file = moved.file.as_ref().map(|file| format!(" in {}", file.display())).unwrap_or_default();
            eprintln!("bundle {}, {} bytes{file}, {signed}", moved.digest, moved.bytes);
        }
        (Err(failure), Format::Human) => {
            eprintln!("error: {failure}");
            if let Some(help) = failure.help() {
                eprintln!("  help: {help}");
            }
        }
        (Ok(moved), Format::Json) => print_json(moved),
        (Err(failure), Format::Json) => {
            print_json(&Told { error: failure.to_string(), help: failure.help() });
        }
    }
    ExitCode::from(if outcome.is_ok() { exit::FINE } else { exit::COULD_NOT_RUN })
}

fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("the report cannot be written: {error}"),
    }
}
