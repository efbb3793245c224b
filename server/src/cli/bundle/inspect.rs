//! `cardea bundle inspect`: what a packed bundle holds, without believing any of it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use cardea_policy_store::dsse::Envelope;
use cardea_policy_store::fault::{Fault, Faults};
use cardea_policy_store::load;
use cardea_policy_store::manifest::Manifest;
use clap::Args;
use serde::Serialize;

use super::output::{End, end};
use crate::cli::Format;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea bundle inspect agents-7.cardea")]
pub(in crate::cli) struct InspectArgs {
    /// The packed bundle.
    file: PathBuf,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Seen {
    digest: String,
    /// As `bundle check` gives it for a directory with this content.
    content_digest: String,
    manifest: Manifest,
    signature: Option<Signed>,
}

#[derive(Debug, Serialize)]
struct Signed {
    payload_type: String,
    key_ids: Vec<String>,
    statement: serde_json::Value,
}

pub(super) fn run(args: &InspectArgs) -> ExitCode {
    let seen = match inspect(args) {
        Ok(seen) => End::Done(seen),
        Err(_) if !args.file.is_file() => {
            End::Failed(format!("`{}` is no file: name a packed bundle", args.file.display()))
        }
        Err(faults) => End::Found(faults),
    };
    end(&seen, args.format, human)
}

fn inspect(args: &InspectArgs) -> Result<Seen, Faults> {
    let packed = super::packed(&args.file)?;
    let fault = |error: String| Fault::new(&args.file, error);
    let unpacked = packed.unpack().map_err(|error| fault(error.to_string()))?;
    let json = packed.envelope().map_err(|error| fault(error.to_string()))?;
    let envelope = json.map(Envelope::parse).transpose().map_err(|error| fault(error.to_string()))?;
    let signature = envelope.map(|envelope| Signed {
        payload_type: envelope.payload_type,
        key_ids: envelope.signatures.into_iter().map(|signature| signature.key_id).collect(),
        statement: serde_json::from_slice(&envelope.payload).unwrap_or_default(),
    });
    Ok(Seen {
        digest: packed.digest().to_string(),
        content_digest: load::digest(&unpacked.files).to_string(),
        manifest: unpacked.manifest,
        signature,
    })
}

fn human(seen: &Seen) -> String {
    let manifest = &seen.manifest;
    let mut text = format!("{} revision {}\n", manifest.name, manifest.revision);
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _infallible = writeln!(text, "  {name:15} {value}");
        }
    };
    line("digest", Some(seen.digest.clone()));
    line("content", Some(seen.content_digest.clone()));
    line("created", manifest.created.map(|at| at.to_string()));
    line("not before", manifest.not_before.map(|at| at.to_string()));
    line("expires", manifest.expires.map(|at| at.to_string()));
    line("rollback of", manifest.rollback_of.map(|revision| revision.to_string()));
    let with = &manifest.validated_with;
    line("validated with", Some(format!("cardea {}, cedar {}", with.cardea, with.cedar)));
    match &seen.signature {
        None => line("signature", Some("none".to_owned())),
        Some(signed) => {
            for key_id in &signed.key_ids {
                line("signed by", Some(format!("key {key_id} (not verified)")));
            }
            let predicate = signed.statement.get("predicate").map(ToString::to_string);
            line("evidence", predicate);
        }
    }
    for (path, entry) in &manifest.files {
        let _infallible = writeln!(text, "  {:>10}  {path}", entry.bytes);
    }
    text
}
