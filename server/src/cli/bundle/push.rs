//! `cardea bundle push`: a packed bundle into an OCI registry or onto an HTTPS server.
//!
//! Limits: [`limits::PACKED_BYTES_MAX`]. Never does: building, signing or judging a bundle.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;

use super::network::{Failure, Moved, NetworkArgs, block_on, is_signed, location, told};
use crate::cli::Format;
use crate::limits;
use crate::remote::{Digest, Https, Location, Oci};

/// Annotation with the name of the file, by the image specification.
const TITLE: &str = "org.opencontainers.image.title";

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea bundle push web-7.cardea oci://registry.example/policy/web:7
  cardea bundle push web-7.cardea https://files.example/policy/web.cardea --overwrite --token-file token
  cardea bundle push web-7.cardea oci+http://127.0.0.1:5000/policy/web:7    a registry without TLS, on loopback only

A registry moves the tag and keeps the artifact that it named before. On an HTTPS server, which has to take PUT, what is
there is replaced only with --overwrite, and then only if it has not changed since it was looked at.")]
pub(in crate::cli) struct PushArgs {
    /// The packed bundle, from `cardea bundle build`.
    file: PathBuf,
    /// Where to: oci://registry[:port]/repository[:tag] or https://host[:port]/path.
    destination: String,
    /// Push a bundle without a signature, which nodes refuse unless they are told otherwise.
    #[arg(long)]
    allow_unsigned: bool,
    /// Replace the file that an HTTPS server has there.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    network: NetworkArgs,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &PushArgs) -> ExitCode {
    told(&push(args), args.format)
}

fn push(args: &PushArgs) -> Result<Moved, Failure> {
    let location = location(&args.destination)?;
    let bytes = read(&args.file)?;
    let signed = is_signed(&bytes);
    if !signed && !args.allow_unsigned {
        return Err(Failure::Local {
            message: format!("`{}` is not signed", args.file.display()),
            help: Some("sign it with `cardea bundle sign`, or push it with --allow-unsigned"),
        });
    }
    let options = args.network.options();
    let moved = Moved {
        reference: location.to_string(),
        digest: Digest::of(&bytes).to_string(),
        bytes: bytes.len(),
        signed,
        file: None,
    };
    block_on(async move {
        let reference = match &location {
            Location::Https(url) => {
                Https::for_push(url, &options)?.push(bytes, args.overwrite).await?;
                location.to_string()
            }
            Location::Oci(reference) => {
                let digest =
                    Oci::new(reference, &options).await?.push(bytes, annotations(&args.file)).await?;
                reference.pinned(digest).to_string()
            }
        };
        Ok(Moved { reference, ..moved })
    })
}

fn read(path: &Path) -> Result<Bytes, Failure> {
    let fault =
        |error: std::io::Error| Failure::local(format!("`{}` cannot be read: {error}", path.display()));
    if path.is_dir() {
        return Err(Failure::Local {
            message: format!("`{}` is a directory, not a packed bundle", path.display()),
            help: Some("pack it with `cardea bundle build`"),
        });
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(fault)?;
    file.take(limits::PACKED_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(fault)?;
    match bytes.len() as u64 {
        0 => Err(Failure::local(format!("`{}` is empty", path.display()))),
        length if length > limits::PACKED_BYTES_MAX => {
            let max = limits::PACKED_BYTES_MAX;
            Err(Failure::local(format!(
                "`{}` is larger than {max} bytes, which no node takes",
                path.display()
            )))
        }
        _ => Ok(bytes.into()),
    }
}

/// What tools show beside the artifact.
fn annotations(file: &Path) -> BTreeMap<String, String> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    name.map(|name| (TITLE.to_owned(), name)).into_iter().collect()
}
