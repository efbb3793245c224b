//! How the commands that make files end: what they print, and how they write.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use cardea_policy_store::fault::Faults;
use serde::Serialize;

use crate::cli::drawn::drawn;
use crate::cli::{Format, exit};

/// How a command came to its end.
pub(super) enum End<T> {
    /// It did what it was asked to, with something to tell.
    Done(T),
    /// It found what must be changed first.
    Found(Faults),
    /// It could not run, with the reason and the remedy.
    Failed(String),
}

impl<T> From<Faults> for End<T> {
    fn from(faults: Faults) -> Self {
        Self::Found(faults)
    }
}

#[derive(Serialize)]
struct Said<'s, T> {
    ok: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    done: Option<&'s T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'s str>,
}

/// Prints the end of a command, as text by `human`, or as one JSON object; and gives its exit code.
pub(super) fn end<T: Serialize>(end: &End<T>, format: Format, human: impl FnOnce(&T) -> String) -> ExitCode {
    let code = match end {
        End::Done(_) => exit::FINE,
        End::Found(_) => exit::FINDINGS,
        End::Failed(_) => exit::COULD_NOT_RUN,
    };
    match (format, end) {
        (Format::Human, End::Done(done)) => println!("{}", human(done).trim_end()),
        (Format::Human, End::Found(faults)) => {
            faults.list().iter().for_each(|fault| eprint!("{}", drawn(fault)))
        }
        (Format::Human, End::Failed(error)) => eprintln!("{error}"),
        (Format::Json, end) => {
            let mut said = Said { ok: false, done: None, findings: Vec::new(), error: None };
            match end {
                End::Done(done) => (said.ok, said.done) = (true, Some(done)),
                End::Found(faults) => said.findings = faults.list().iter().map(ToString::to_string).collect(),
                End::Failed(error) => said.error = Some(error),
            }
            match serde_json::to_string_pretty(&said) {
                Ok(text) => println!("{text}"),
                Err(error) => eprintln!("the result cannot be written: {error}"),
            }
        }
    }
    ExitCode::from(code)
}

/// Writes a file so that its old content stays until the new one is whole.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".cardea-").tempfile_in(dir)?;
    file.write_all(bytes)?;
    // As another program would have made it, not only for its owner.
    let mode = fs::metadata(path).map_or_else(|_| ordinary_mode(), |meta| meta.permissions());
    file.as_file().set_permissions(mode)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(dir)?.sync_all()
}

fn ordinary_mode() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    fs::Permissions::from_mode(0o644)
}
