//! A running node, for the commands that talk to one: how to get there, and what its answers mean for the exit code.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cardea_client::{Client, Endpoint, Error, Tls, v1};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use tonic::Code;

use crate::cli::{Format, exit};
use crate::hidden::printable;

#[derive(Debug, Args)]
pub(in crate::cli) struct NodeArgs {
    /// The running node: http://127.0.0.1:7411, unix:/run/cardea/grpc.sock, or https://HOST:PORT with --ca, --cert and --key.
    #[arg(long = "node", value_name = "URL")]
    pub(in crate::cli) url: String,
    #[command(flatten)]
    pub(in crate::cli) tls: TlsArgs,
}

/// What `https://` needs.
#[derive(Clone, Debug, Default, Args)]
pub(in crate::cli) struct TlsArgs {
    /// Authorities that the node's certificate is checked against, PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our certificate chain, PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of our certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Name in the node's certificate, if it is not the host of the URL.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
}

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Failure {
    /// The call failed, or the node refused.
    #[error(transparent)]
    Node(#[from] Error),
    /// Something on this side.
    #[error("{0}")]
    Here(String),
}

impl Failure {
    fn code(&self) -> Option<Code> {
        match self {
            Self::Node(Error::Call(status)) => Some(status.code()),
            Self::Node(
                Error::Endpoint { .. } | Error::Connect { .. } | Error::Incomplete(_) | Error::Closed,
            )
            | Self::Here(_) => None,
        }
    }

    /// Whether the node understood and said no: a finding. Everything else means that the command could not run.
    fn is_refusal(&self) -> bool {
        let refusals = [
            Code::NotFound,
            Code::FailedPrecondition,
            Code::Aborted,
            Code::AlreadyExists,
            Code::InvalidArgument,
            Code::PermissionDenied,
            Code::ResourceExhausted,
        ];
        self.code().is_some_and(|code| refusals.contains(&code))
    }

    fn text(&self) -> String {
        match self {
            Self::Node(Error::Call(status)) if self.is_refusal() => status.message().to_owned(),
            // The node said it whole; only what broke below it has causes to tell.
            Self::Node(error @ Error::Call(status)) if std::error::Error::source(&**status).is_none() => {
                error.to_string()
            }
            Self::Node(error) => cardea_policy_store::load::chain(error),
            Self::Here(text) => text.clone(),
        }
    }

    fn help(&self) -> Option<&'static str> {
        match (self, self.code()) {
            (Self::Node(Error::Connect { .. }), _) => Some(
                "is a node serving there, and does it take this kind of connection? `cardea serve` logs its addresses",
            ),
            // What HTTP says where no gRPC service answers.
            (Self::Node(Error::Call(status)), Some(Code::Unimplemented))
                if status.message().contains("HTTP status code") =>
            {
                Some("what answers there is no node, or a proxy before it; `cardea serve` logs its addresses")
            }
            (_, Some(Code::Unimplemented)) => {
                Some("the node runs a version of Cardea without this call; update it")
            }
            (_, Some(Code::Unknown | Code::Internal)) => {
                Some("is this the address for gRPC? `cardea serve` logs it; metrics and signals have others")
            }
            (_, Some(Code::DeadlineExceeded | Code::Cancelled)) => {
                Some("the node may still be at it: look what is in force before you ask again")
            }
            _ => None,
        }
    }
}

#[derive(Serialize)]
struct Failed<'a> {
    ok: bool,
    refused: bool,
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
}

/// Runs the work of one command and says what became of it; `Ok(false)` is a finding.
pub(in crate::cli) fn run(format: Format, work: impl Future<Output = Result<bool, Failure>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::from(exit::COULD_NOT_RUN);
        }
    };
    match runtime.block_on(work) {
        Ok(true) => ExitCode::from(exit::FINE),
        Ok(false) => ExitCode::from(exit::FINDINGS),
        Err(failure) => {
            report(format, &failure);
            ExitCode::from(if failure.is_refusal() { exit::FINDINGS } else { exit::COULD_NOT_RUN })
        }
    }
}

fn report(format: Format, failure: &Failure) {
    let (error, help) = (failure.text(), failure.help());
    match format {
        Format::Json => {
            print_json(&Failed { ok: false, refused: failure.is_refusal(), error: &error, help });
        }
        Format::Human => {
            eprintln!("error: {error}");
            if let Some(help) = help {
                eprintln!("  help: {help}");
            }
        }
    }
}

/// Prints a value as indented JSON.
pub(in crate::cli) fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("error: the result cannot be written: {error}"),
    }
}

impl NodeArgs {
    /// Connects.
    pub(in crate::cli) async fn connect(&self) -> Result<Client, Failure> {
        connect(&self.url, &self.tls).await
    }
}

/// Connects to the node at `url`.
pub(in crate::cli) async fn connect(url: &str, tls: &TlsArgs) -> Result<Client, Failure> {
    let endpoint = Endpoint::new(url);
    let is_plain = tls.ca.is_none() && tls.cert.is_none() && tls.server_name.is_none();
    let endpoint = if is_plain { endpoint } else { endpoint.with_tls(tls.read()?) };
    Ok(Client::connect(endpoint).await?)
}

impl TlsArgs {
    fn read(&self) -> Result<Tls, Failure> {
        let ca = self.ca.as_deref().ok_or_else(|| {
            Failure::Here("name the authorities of the node's certificate with --ca".to_owned())
        })?;
        let mut tls = Tls::new(read(ca)?);
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            tls = tls.with_identity(read(cert)?, read(key)?);
        }
        Ok(match &self.server_name {
            Some(name) => tls.with_server_name(name),
            None => tls,
        })
    }
}

/// Entries asked for with one call.
pub(in crate::cli) const PAGE: u32 = 1000;

/// Reads page after page, each with the token of the next, until there is none or `limit` entries are there. Says whether
/// there is more.
pub(in crate::cli) async fn pages<T>(
    limit: usize,
    mut page: impl AsyncFnMut(String) -> Result<(Vec<T>, String), Failure>,
) -> Result<(Vec<T>, bool), Failure> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (entries, next) = page(token).await?;
        all.extend(entries);
        token = next;
        if token.is_empty() || all.len() >= limit {
            break;
        }
    }
    let has_more = all.len() > limit || !token.is_empty();
    all.truncate(limit);
    Ok((all, has_more))
}

/// Reads a file whole.
pub(in crate::cli) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::Here(format!("{}: cannot be read: {error}", path.display())))
}

/// One revision, for machines.
#[derive(Serialize)]
pub(in crate::cli) struct RevisionView<'a> {
    revision: u64,
    name: &'a str,
    digest: &'a str,
    state: &'static str,
    created: Option<String>,
    activated_at: Option<String>,
    expires_at: Option<String>,
    signed_by: &'a [String],
}

impl<'a> From<&'a v1::Revision> for RevisionView<'a> {
    fn from(revision: &'a v1::Revision) -> Self {
        Self {
            revision: revision.revision,
            name: &revision.name,
            digest: &revision.digest,
            state: state(revision.state()),
            created: time(revision.created.as_ref()),
            activated_at: time(revision.activated_at.as_ref()),
            expires_at: time(revision.expires_at.as_ref()),
            signed_by: &revision.signed_by,
        }
    }
}

/// A state as it is printed.
pub(in crate::cli) fn state(state: v1::RevisionState) -> &'static str {
    match state {
        v1::RevisionState::InForce => "in force",
        v1::RevisionState::Stored => "stored",
        v1::RevisionState::Shadow => "shadow",
        v1::RevisionState::Unspecified => "unknown",
    }
}

#[derive(Serialize)]
struct InForce<'a> {
    ok: bool,
    revision: RevisionView<'a>,
}

/// Tells that a revision came into force.
pub(in crate::cli) fn print_in_force(format: Format, revision: &v1::Revision) {
    match format {
        Format::Json => print_json(&InForce { ok: true, revision: revision.into() }),
        Format::Human => println!(
            "{} revision {} is in force\ndigest {}",
            revision.name, revision.revision, revision.digest
        ),
    }
}

/// A time as RFC 3339, to the second.
pub(in crate::cli) fn time(at: Option<&prost_types::Timestamp>) -> Option<String> {
    let at = at?;
    Some(format!("{:.0}", Timestamp::new(at.seconds, at.nanos).ok()?))
}

/// Adds a line that tells one thing about what is shown. A text from outside cannot move the cursor.
pub(in crate::cli) fn field(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:<10} {}", printable(value));
}

/// Rows under a head, with columns that begin under each other. A text from outside cannot move the cursor.
pub(in crate::cli) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(at, title)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
            cells.chain([title.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> =
            cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in &rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_begin_under_each_other_and_no_line_ends_in_blanks() {
        let rows = [vec!["1".to_owned(), "agents".to_owned()], vec!["1000".to_owned(), "…".to_owned()]];
        assert_eq!(table(&["rev", "name"], &rows), "rev   name\n1     agents\n1000  …\n");
    }

    #[test]
    fn texts_from_outside_cannot_move_the_cursor() {
        let text = "x\u{1b}[2J\nstatus     approved";
        let mut shown = table(&["a"], &[vec![text.to_owned()]]);
        field(&mut shown, "reason", text);
        assert_eq!(shown.lines().count(), 3, "{shown:?}");
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }

    #[test]
    fn a_node_that_says_no_is_a_finding_and_a_broken_call_is_not() {
        let failure = |status: tonic::Status| Failure::from(Error::from(status));
        assert!(failure(tonic::Status::failed_precondition("no")).is_refusal());
        assert!(failure(tonic::Status::aborted("no")).is_refusal());
        assert!(!failure(tonic::Status::unavailable("gone")).is_refusal());
        assert!(!Failure::Here("no file".to_owned()).is_refusal());
    }
}
