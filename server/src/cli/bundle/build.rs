//! `cardea bundle build`: a directory into one packed file.

use std::path::PathBuf;
use std::process::ExitCode;

use cardea_policy_store::fault::{Fault, Faults};
use cardea_policy_store::load;
use cardea_policy_store::manifest::Manifest;
use cardea_policy_store::pack::{self, Packed};
use cardea_policy_store::stamp::Stamp;
use clap::Args;
use serde::Serialize;

use super::output::{End, end, write};
use crate::cli::Format;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea bundle build policy --revision 7
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) cardea bundle build policy --revision $CI_PIPELINE_IID -o out/

It is not signed yet: go on with `cardea bundle sign`.")]
pub(in crate::cli) struct BuildArgs {
    /// Directory of the bundle.
    dir: PathBuf,
    #[command(flatten)]
    says: Says,
    /// Where to write: a file, or a directory for NAME-REVISION.cardea in it.
    #[arg(short, long, value_name = "PATH", default_value = ".")]
    output: PathBuf,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What a manifest says beyond its content.
#[derive(Debug, Args)]
pub(super) struct Says {
    /// Revision, at least 1; nodes refuse one that is lower than any they had. Without it, the one in bundle.toml counts.
    #[arg(long, value_name = "N")]
    pub(super) revision: Option<u64>,
    /// When the content was made, as 2026-11-25T18:00:00Z. Without it, SOURCE_DATE_EPOCH counts, if it is set.
    #[arg(long, value_name = "TIME")]
    created: Option<Stamp>,
    /// First instant at which it may serve.
    #[arg(long, value_name = "TIME")]
    not_before: Option<Stamp>,
    /// Instant from which on it is stale.
    #[arg(long, value_name = "TIME")]
    expires: Option<Stamp>,
}

/// What was built.
#[derive(Debug, Serialize)]
pub(super) struct Built {
    file: PathBuf,
    name: String,
    revision: u64,
    digest: String,
    bytes: usize,
    files: usize,
}

pub(super) fn run(args: &BuildArgs) -> ExitCode {
    end(&build(args).unwrap_or_else(|end| end), args.format, Built::human)
}

fn build(args: &BuildArgs) -> Result<End<Built>, End<Built>> {
    if !args.dir.is_dir() {
        return Err(End::Failed(format!(
            "`{}` is not a directory: name the one that holds bundle.toml",
            args.dir.display()
        )));
    }
    let files = load::read_directory(&args.dir)?;
    let loaded = load::files(&files)?;
    let settings = loaded.snapshot.settings();
    let revision = match args.says.revision.unwrap_or(settings.revision) {
        0 => {
            return Err(End::Failed(
                "the bundle has no revision: give --revision, higher than any before, or set `revision` in bundle.toml".to_owned(),
            ));
        }
        revision => revision,
    };
    let manifest =
        args.says.manifest(pack::manifest_for(&settings.name, revision, &files)).map_err(End::Failed)?;
    written(&manifest, &files, &args.output)
}

impl Says {
    /// The manifest with the times that were given.
    pub(super) fn manifest(&self, manifest: Manifest) -> Result<Manifest, String> {
        let created = match self.created {
            Some(created) => Some(created),
            None => source_date()?,
        };
        let manifest = Manifest { created, not_before: self.not_before, expires: self.expires, ..manifest };
        manifest.check().map_err(|error| error.to_string())?;
        Ok(manifest)
    }
}

/// <https://reproducible-builds.org/specs/source-date-epoch/>
fn source_date() -> Result<Option<Stamp>, String> {
    let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let stamp = text.parse().ok().and_then(Stamp::from_unix_s);
    stamp.map(Some).ok_or_else(|| format!("SOURCE_DATE_EPOCH is `{text}`; it must be seconds since 1970"))
}

/// Packs and writes.
pub(super) fn written(
    manifest: &Manifest,
    files: &load::Files,
    output: &std::path::Path,
) -> Result<End<Built>, End<Built>> {
    let packed = Packed::new(manifest.clone(), files)
        .map_err(|error| End::Found(Faults::from(Fault::new("bundle", error.to_string()))))?;
    let file = if output.is_dir() { output.join(pack::file_name(manifest)) } else { output.to_owned() };
    write(&file, packed.bytes())
        .map_err(|error| End::Failed(format!("`{}` cannot be written: {error}", file.display())))?;
    Ok(End::Done(Built {
        name: manifest.name.to_string(),
        revision: manifest.revision,
        digest: packed.digest().to_string(),
        bytes: packed.bytes().len(),
        files: files.len(),
        file,
    }))
}

impl Built {
    pub(super) fn human(&self) -> String {
        format!(
            "{}\n{} revision {}: {} files, {} bytes packed, not signed yet\ndigest {}",
            self.file.display(),
            self.name,
            self.revision,
            self.files,
            self.bytes,
            self.digest
        )
    }
}
