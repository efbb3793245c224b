//! `cardea bundle pull`: a packed bundle from an OCI registry or an HTTPS server into a file.
//!
//! The file appears whole or not at all: it is written beside its place and renamed. Its name comes from the command line
//! or the address, never from the other side.
#![expect(clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cardea_policy_store::pack::Packed;
use clap::Args;

use super::network::{Failure, Moved, NetworkArgs, block_on, location, told};
use crate::cli::Format;
use crate::remote::{Location, OciDigest, Progress, Remote};

/// Rights of the file, before the umask.
const FILE_MODE: u32 = 0o666;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea bundle pull oci://registry.example/policy/web:7
  cardea bundle pull oci://registry.example/policy/web@sha256:44136fa3…  -o web.cardea
  cardea bundle pull https://files.example/policy/web.cardea --ca corporate-ca.pem")]
pub(in crate::cli) struct PullArgs {
    /// Where from: oci://registry[:port]/repository[:tag][@sha256:…] or https://host[:port]/path.
    source: String,
    /// File to write; without it, a name is made from the address, in this directory. A file that is there is replaced.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkArgs,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &PullArgs) -> ExitCode {
    told(&pull(args), args.format)
}

fn pull(args: &PullArgs) -> Result<Moved, Failure> {
    let location = location(&args.source)?;
    let file = match &args.output {
        Some(file) => file.clone(),
        None => file_name(&location)?.into(),
    };
    // Before anything is fetched.
    if file.is_dir() {
        return Err(Failure::local(format!("`{}` is a directory: name a file", file.display())));
    }
    let mut options = args.network.options();
    let shows = args.format == Format::Human && std::io::stderr().is_terminal();
    options.progress = shows.then(|| Progress::new(show));
    let fetched = block_on(async { Ok(Remote::new(&location, &options).await?.fetch().await?) });
    if shows {
        // Over the progress.
        eprint!("\r\x1b[K");
    }
    let (bytes, pinned) = fetched?;
    let reference = pinned.map_or_else(|| location.to_string(), |pinned| pinned.to_string());
    // Before anything is written: a page of a login or an error is no bundle.
    let bundle = Packed::from_bytes(bytes.into())
        .map_err(|error| Failure::local(format!("what lies at `{reference}` is refused: {error}")))?;
    write(&file, bundle.bytes())?;
    Ok(Moved { file: Some(file), ..Moved::of(reference, &bundle) })
}

fn show(bytes: u64, of: Option<u64>) {
    match of {
        Some(of) => eprint!("\r\x1b[K{} of {} KiB", bytes / 1024, of / 1024),
        None => eprint!("\r\x1b[K{} KiB", bytes / 1024),
    }
}

/// A name for the file, without any part that leads elsewhere.
fn file_name(location: &Location) -> Result<String, Failure> {
    match location {
        Location::Https(url) => Ok(url.file_name().to_owned()),
        Location::Oci(reference) => {
            let name = reference.repository().rsplit('/').next().unwrap_or_default();
            let digits = || reference.digest().map(OciDigest::short).unwrap_or_default();
            let version = reference.tag().map_or_else(digits, str::to_owned);
            Ok(format!("{name}-{version}.cardea"))
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let fault =
        |error: std::io::Error| Failure::local(format!("`{}` cannot be written: {error}", path.display()));
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut beside = tempfile::Builder::new()
        .prefix(".pull-")
        .permissions(fs::Permissions::from_mode(FILE_MODE))
        .tempfile_in(dir)
        .map_err(fault)?;
    beside.write_all(bytes).map_err(fault)?;
    beside.as_file().sync_all().map_err(fault)?;
    beside.persist(path).map_err(|error| fault(error.error))?;
    Ok(())
}
