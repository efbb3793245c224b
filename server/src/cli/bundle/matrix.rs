//! `cardea bundle matrix`: the table of verdicts, as a snapshot that a review can read.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cardea_policy_store::load;
use clap::Args;
use serde::Serialize;

use crate::cli::bundle::{cannot_open, open};
use crate::cli::{Format, exit};
use crate::proving::matrix::snap::{self, Changed};
use crate::proving::matrix::{self, Answer, Filters, Key, Situations};

/// The snapshot beside bundle.toml; the loader ignores it, so it is no part of the bundle's content.
const SNAPSHOT: &str = "matrix.snap";

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea bundle matrix policies/            print the table
  cardea bundle matrix policies/ --write    write it to policies/matrix.snap; commit that file
  cardea bundle matrix policies/ --check    in CI: fail when the file does not say what the bundle does,
                                            and print each changed cell as old -> new
  cardea bundle matrix policies/ --principal stranger
                                            what somebody gets whom the bundle does not list

Each line is one verdict in one situation. `unknown` is an attempt without a session and without a token; `calm` one
against which nothing speaks. tests/matrix.yaml can add situations; docs/testing.md shows how.")]
pub(in crate::cli) struct MatrixArgs {
    /// The bundle: its directory, or a packed file.
    path: PathBuf,
    /// Write the snapshot.
    #[arg(long, conflicts_with = "check")]
    write: bool,
    /// Compare with the snapshot, and fail when a cell differs.
    #[arg(long)]
    check: bool,
    /// The snapshot file [default: matrix.snap in the bundle's directory].
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
    /// Only principals whose name (`Type::"id"`) contains this text.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    principal: String,
    /// Only actions whose name contains this text.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    action: String,
    /// Only resources whose name (`Type::"id"`) contains this text.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    resource: String,
    /// How the table and its changes are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Cell<'c> {
    situation: &'c str,
    principal: String,
    action: String,
    resource: String,
    #[serde(flatten)]
    answer: &'c Answer,
}

#[derive(Serialize)]
struct Report<'c> {
    ok: bool,
    cells: Vec<Cell<'c>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<&'c [Changed]>,
}

pub(super) fn run(args: &MatrixArgs) -> ExitCode {
    let files = match open(&args.path) {
        Ok(files) => files,
        Err(faults) => return cannot_open(&args.path, &faults),
    };
    let loaded = match load::files(&files) {
        Ok(loaded) => loaded,
        Err(faults) => return cannot_open(&args.path, &faults),
    };
    let situations = match Situations::of(&files, &loaded.snapshot) {
        Ok(situations) => situations,
        Err(fault) => return cannot_open(&args.path, &fault.into()),
    };
    let filters = Filters {
        principal: args.principal.clone(),
        action: args.action.clone(),
        resource: args.resource.clone(),
    };
    let cells = matrix::keys(&[&loaded.snapshot], &situations, &filters)
        .map_err(|many| format!("{many}; choose with --principal, --action and --resource"))
        .and_then(|keys| matrix::judge(&loaded.snapshot, &situations, &keys));
    match cells.and_then(|cells| act(args, &cells, &filters)) {
        Ok(code) => ExitCode::from(code),
        Err(fault) => {
            eprintln!("error: {fault}");
            ExitCode::from(exit::COULD_NOT_RUN)
        }
    }
}

fn act(args: &MatrixArgs, cells: &BTreeMap<Key, Answer>, filters: &Filters) -> Result<u8, String> {
    if args.write {
        let path = snapshot_path(args)?;
        let written = std::fs::write(&path, snap::text(cells, filters));
        written.map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        println!("{}: {} cells", path.display(), cells.len());
        return Ok(exit::FINE);
    }
    if args.check {
        let path = snapshot_path(args)?;
        let text = std::fs::read_to_string(&path).map_err(|error| {
            format!("{} cannot be read: {error}; write it with --write and commit it", path.display())
        })?;
        let changed = snap::changes(&text, cells, filters);
        let changed = changed.map_err(|fault| format!("{}: {fault}", path.display()))?;
        tell_changes(args, cells, &changed, &path);
        return Ok(if changed.is_empty() { exit::FINE } else { exit::FINDINGS });
    }
    match args.format {
        Format::Human => print!("{}", snap::text(cells, filters)),
        Format::Json => print_json(&Report { ok: true, cells: listed(cells), changed: None }),
    }
    Ok(exit::FINE)
}

fn snapshot_path(args: &MatrixArgs) -> Result<PathBuf, String> {
    match &args.snapshot {
        Some(path) => Ok(path.clone()),
        None if args.path.is_dir() => Ok(args.path.join(SNAPSHOT)),
        None => Err("a packed bundle has no snapshot beside it; name one with --snapshot FILE".to_owned()),
    }
}

fn tell_changes(args: &MatrixArgs, cells: &BTreeMap<Key, Answer>, changed: &[Changed], path: &Path) {
    if args.format == Format::Json {
        print_json(&Report { ok: changed.is_empty(), cells: listed(cells), changed: Some(changed) });
        return;
    }
    for one in changed {
        let side = |side: &Option<String>, without: &str| side.clone().unwrap_or_else(|| without.to_owned());
        println!("{}", one.cell);
        println!("    {} -> {}", side(&one.old, "(new cell)"), side(&one.new, "(gone)"));
    }
    match changed.len() {
        0 => println!("{}: all {} cells are as written", path.display(), cells.len()),
        count => eprintln!(
            "{}: {count} of {} cells differ; if that is meant, write it anew with --write",
            path.display(),
            cells.len()
        ),
    }
}

fn listed(cells: &BTreeMap<Key, Answer>) -> Vec<Cell<'_>> {
    cells
        .iter()
        .map(|(key, answer)| Cell {
            situation: &key.situation,
            principal: key.principal.to_string(),
            action: key.action.to_string(),
            resource: key.resource.to_string(),
            answer,
        })
        .collect()
}

fn print_json(report: &Report<'_>) {
    match serde_json::to_string_pretty(report) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("the report cannot be written: {error}"),
    }
}
