//! `cardea bundle push`: a packed bundle into an OCI registry or onto an HTTPS server.
//!
//! Limits: [`BUNDLE_BYTES_MAX`]. Never does: building or signing a bundle, or judging its signature.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use cardea_policy_store::manifest::Manifest;
use cardea_policy_store::pack::{self, PackError, Packed};
use clap::Args;

use super::network::{Failure, Moved, NetworkArgs, block_on, location, told};
use crate::cli::Format;
use crate::remote::{BUNDLE_BYTES_MAX, Https, Location, Oci};

// Annotations of the image specification.
const TITLE: &str = "org.opencontainers.image.title";
const VERSION: &str = "org.opencontainers.image.version";
const CREATED: &str = "org.opencontainers.image.created";

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
    let bundle = read(&args.file)?;
    let moved = Moved::of(location.to_string(), &bundle);
    if !moved.signed && !args.allow_unsigned {
        return Err(Failure::Local {
            message: format!("`{}` is not signed", args.file.display()),
            help: Some("sign it with `cardea bundle sign`, or push it with --allow-unsigned"),
        });
    }
    let annotations = annotations(&unpacked(&args.file, &bundle)?);
    let bytes = Bytes::copy_from_slice(bundle.bytes());
    let options = args.network.options();
    block_on(async move {
        let reference = match &location {
            Location::Https(url) => {
                Https::for_push(url, &options)?.push(bytes, args.overwrite).await?;
                location.to_string()
            }
            Location::Oci(reference) => {
                let digest = Oci::new(reference, &options).await?.push(bytes, annotations).await?;
                reference.pinned(digest).to_string()
            }
        };
        Ok(Moved { reference, ..moved })
    })
}

fn read(path: &Path) -> Result<Packed, Failure> {
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
    file.take(BUNDLE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(fault)?;
    Packed::from_bytes(bytes).map_err(|error| not_a_bundle(path, &error))
}

/// The manifest, of a bundle that is whole: what is damaged is noticed here and not by every node.
fn unpacked(path: &Path, bundle: &Packed) -> Result<Manifest, Failure> {
    bundle.unpack().map(|unpacked| unpacked.manifest).map_err(|error| not_a_bundle(path, &error))
}

fn not_a_bundle(path: &Path, error: &PackError) -> Failure {
    Failure::local(format!("`{}` is refused: {error}", path.display()))
}

/// What tools show beside the artifact.
fn annotations(manifest: &Manifest) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([
        (TITLE.to_owned(), pack::file_name(manifest)),
        (VERSION.to_owned(), manifest.revision.to_string()),
    ]);
    annotations.extend(manifest.created.map(|created| (CREATED.to_owned(), created.to_string())));
    annotations
}
