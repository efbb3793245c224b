//! `cardea bundle keygen`: a key that signs bundles.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cardea_policy_store::keys::PrivateKey;
use clap::Args;
use serde::Serialize;

use super::output::{End, end};
use crate::cli::Format;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea bundle keygen ci-2026 -o keys/

Writes keys/ci-2026.key (private, readable by you alone: give it to CI as a secret) and keys/ci-2026.pub, and prints
the [[key]] entry for trust.toml. Never overwrites. The files are PEM, as openssl reads and writes them.")]
pub(in crate::cli) struct KeygenArgs {
    /// What people call the key; also the name of its files.
    name: String,
    /// Directory for the two files.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Made {
    private_key: PathBuf,
    public_key: PathBuf,
    key_id: String,
    trust: String,
}

pub(super) fn run(args: &KeygenArgs) -> ExitCode {
    let made = match make(args) {
        Ok(made) => End::Done(made),
        Err(why) => End::Failed(why),
    };
    end(&made, args.format, |made| {
        format!(
            "private key {} (keep it secret)\npublic key  {}\nkey id      {}\n\nfor trust.toml:\n\n{}",
            made.private_key.display(),
            made.public_key.display(),
            made.key_id,
            made.trust
        )
    })
}

fn make(args: &KeygenArgs) -> Result<Made, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if args.name.is_empty() || args.name.starts_with('.') || !args.name.bytes().all(plain) {
        return Err(format!("`{}` is no name for a key: use letters, digits, `-`, `_` and `.`", args.name));
    }
    let place = |extension: &str| args.output.join(format!("{}.{extension}", args.name));
    let (private_key, public_key) = (place("key"), place("pub"));
    let (key, pem) = PrivateKey::generate().map_err(|error| error.to_string())?;
    fs::create_dir_all(&args.output)
        .map_err(|error| format!("`{}` cannot be made: {error}", args.output.display()))?;
    new_file(&private_key, 0o600, pem.as_bytes())?;
    if let Err(why) = new_file(&public_key, 0o644, key.public().to_pem().as_bytes()) {
        // Without its public half nobody can trust the key.
        let _left = fs::remove_file(&private_key);
        return Err(why);
    }
    let trust = format!("[[key]]\nname = \"{}\"\npublic_key = \"{}\"\n", args.name, key.public().to_base64());
    Ok(Made { private_key, public_key, key_id: key.public().id().to_string(), trust })
}

fn new_file(path: &Path, mode: u32, content: &[u8]) -> Result<(), String> {
    let written =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        });
    written.map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            format!("`{}` is there already and is not overwritten: choose another name", path.display())
        } else {
            format!("`{}` cannot be written: {error}", path.display())
        }
    })
}
