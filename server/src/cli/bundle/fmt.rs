//! `cardea bundle fmt`: Cedar's formatter over the policies of a bundle.
//!
//! Writes what `cedar format` writes with its defaults, so that editors and CI agree. A file is replaced as a whole or not
//! touched: one that does not parse, or whose comments would not all survive, keeps every byte. Never touches the schema:
//! Cedar has no formatter for it that keeps comments.
#![expect(clippy::print_stderr, reason = "a command speaks on its standard streams")]

mod difference;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cardea_policy_store::fault::{Fault, Faults};
use cardea_policy_store::load;
use cedar_policy_formatter::{Config, policies_str_to_pretty};
use clap::Args;
use serde::Serialize;

use crate::cli::drawn::{drawn, say};
use crate::cli::{Format, exit};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea bundle fmt examples/agents
  cardea bundle fmt --check policies/always.cedar

Formats as `cedar format` does: 80 columns, indented by 2. Comments stay; blank lines stay only between policies.")]
pub(in crate::cli) struct FmtArgs {
    /// Directory of a bundle, whose policies/**/*.cedar are formatted; or one file of policies.
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
    /// Write nothing; show what would change, and exit with 1 if anything would.
    #[arg(long)]
    check: bool,
    /// How the outcome is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What became of one file.
#[derive(Debug)]
enum Outcome {
    AsItWas,
    Changed { before: String, after: String },
    Faulty(Faults),
}

#[derive(Serialize)]
struct Json {
    ok: bool,
    /// Files that were formatted, or with `--check` would be.
    changed: Vec<String>,
    unchanged: usize,
    faults: Vec<String>,
}

pub(super) fn run(args: &FmtArgs) -> ExitCode {
    let files = match policy_files(&args.path) {
        Ok(files) => files,
        Err(fault) => {
            eprint!("{}", drawn(&fault));
            return ExitCode::from(exit::COULD_NOT_RUN);
        }
    };
    let mut outcomes = Vec::new();
    for path in files {
        let outcome = match fs::read(&path) {
            Ok(bytes) => formatted(&path, &bytes),
            Err(error) => return could_not(&path, "read", &error),
        };
        if let (Outcome::Changed { after, .. }, false) = (&outcome, args.check)
            && let Err(error) = replace(&path, after)
        {
            return could_not(&path, "written", &error);
        }
        outcomes.push((path, outcome));
    }
    match args.format {
        Format::Human => human(&outcomes, args.check),
        Format::Json => json(&outcomes, args.check),
    }
    ExitCode::from(if fine(&outcomes, args.check) { exit::FINE } else { exit::FINDINGS })
}

fn fine(outcomes: &[(PathBuf, Outcome)], check: bool) -> bool {
    outcomes.iter().all(|(_, outcome)| match outcome {
        Outcome::AsItWas => true,
        Outcome::Changed { .. } => !check,
        Outcome::Faulty(_) => false,
    })
}

fn could_not(path: &Path, done: &str, error: &io::Error) -> ExitCode {
    eprintln!("{} cannot be {done}: {error}", path.display());
    ExitCode::from(exit::COULD_NOT_RUN)
}

/// The policy files that a path means, in order.
fn policy_files(path: &Path) -> Result<Vec<PathBuf>, Fault> {
    if path.is_file() {
        return if path.extension().is_some_and(|extension| extension == "cedar") {
            Ok(vec![path.to_owned()])
        } else {
            Err(Fault::new(path, "is not a file of policies")
                .help("name a *.cedar file or the directory of a bundle"))
        };
    }
    if !path.join("bundle.toml").is_file() {
        return Err(Fault::new(path, "is not a bundle").help("name the directory that holds bundle.toml"));
    }
    let mut files = Vec::new();
    let root = path.join("policies");
    if root.is_dir() {
        walk(&root, &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Fault> {
    let unreadable = |error: io::Error| Fault::new(dir, format!("cannot be read: {error}"));
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        if path.is_dir() {
            walk(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "cedar") {
            files.push(path);
        }
    }
    Ok(())
}

fn formatted(path: &Path, bytes: &[u8]) -> Outcome {
    let outcome = load::on_deep_stack(|| {
        let before = load::policy_file(path, bytes)?;
        let after = pretty(path, before)?;
        Ok(if after == before {
            Outcome::AsItWas
        } else {
            Outcome::Changed { before: before.to_owned(), after }
        })
    });
    outcome.unwrap_or_else(Outcome::Faulty)
}

fn pretty(path: &Path, before: &str) -> Result<String, Fault> {
    // Of a file without a policy the formatter makes an empty line.
    if comments(before).len() == before.lines().filter(|line| !line.trim().is_empty()).count() {
        return Ok(before.to_owned());
    }
    let after = policies_str_to_pretty(before, &Config::default())
        .map_err(|error| Fault::new(path, format!("cannot be formatted: {error}")))?;
    if comments(before) == comments(&after) {
        Ok(after)
    } else {
        Err(Fault::new(path, "cannot be formatted without losing or moving a comment")
            .help("put comments on lines of their own, above what they are about"))
    }
}

/// The comments of a text, in order, without the space around them.
fn comments(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['"', '/']) {
        let (_, from) = rest.split_at(at);
        if let Some(comment) = from.strip_prefix("//") {
            let (line, after) = comment.split_once('\n').unwrap_or((comment, ""));
            found.push(line.trim());
            rest = after;
        } else if let Some(inside) = from.strip_prefix('"') {
            rest = after_string(inside);
        } else {
            rest = from.strip_prefix('/').unwrap_or("");
        }
    }
    found
}

fn after_string(inside: &str) -> &str {
    let mut escaped = false;
    for (at, character) in inside.char_indices() {
        match character {
            '"' if !escaped => return inside.get(at + 1..).unwrap_or(""),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    ""
}

/// Writes beside the file and renames: a reader sees the old or the new text, whole. A link stays one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let dir = path.parent().ok_or_else(|| io::Error::other("it has no directory"))?;
    let mut beside = tempfile::Builder::new().prefix(".cardea-fmt-").tempfile_in(dir)?;
    beside.write_all(text.as_bytes())?;
    beside.as_file().set_permissions(fs::metadata(&path)?.permissions())?;
    beside.as_file().sync_all()?;
    beside.persist(&path)?;
    Ok(())
}

fn human(outcomes: &[(PathBuf, Outcome)], check: bool) {
    let (mut changed, mut faulty) = (0, 0);
    for (path, outcome) in outcomes {
        match outcome {
            Outcome::AsItWas => {}
            Outcome::Changed { before, after } => {
                changed += 1;
                if check {
                    say(&format!("{} would change:\n{}", path.display(), difference::shown(before, after)));
                } else {
                    say(&format!("{} formatted", path.display()));
                }
            }
            Outcome::Faulty(faults) => {
                faulty += 1;
                for fault in faults.list() {
                    eprint!("{}", drawn(fault));
                }
            }
        }
    }
    let verb = if check { "would change" } else { "formatted" };
    say(&format!("{} files: {changed} {verb}, {faulty} with faults", outcomes.len()));
}

fn json(outcomes: &[(PathBuf, Outcome)], check: bool) {
    let mut report =
        Json { ok: fine(outcomes, check), changed: Vec::new(), unchanged: 0, faults: Vec::new() };
    for (path, outcome) in outcomes {
        match outcome {
            Outcome::AsItWas => report.unchanged += 1,
            Outcome::Changed { .. } => report.changed.push(path.display().to_string()),
            Outcome::Faulty(faults) => report.faults.extend(faults.list().iter().map(ToString::to_string)),
        }
    }
    match serde_json::to_string_pretty(&report) {
        Ok(text) => say(&text),
        Err(error) => eprintln!("the report cannot be written: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_found_and_strings_are_not_taken_for_them() {
        let text = "// a\npermit(principal == A::\"// no \\\" // no\", action, resource); // b\n/ //c";
        assert_eq!(comments(text), ["a", "b", "c"]);
    }

    #[test]
    fn comments_survive_wherever_they_stand() {
        let text = "// head\n\n// of the policy\n@id(\"a\") // id\npermit ( // scope\n  principal, // who\n  action, resource)\n\
            when { // why\n  // inside\n  context.a && // left\n  context.b // right\n}; // after\n// end\n";
        let after = pretty(Path::new("a.cedar"), text).unwrap();
        assert_eq!(comments(text), comments(&after));
        assert_eq!(pretty(Path::new("a.cedar"), &after).unwrap(), after, "formatting twice changes nothing");
    }

    #[test]
    fn a_file_without_policies_stays_as_it_is() {
        for text in ["", "\n\n", "// only\n\n// comments\n"] {
            assert_eq!(pretty(Path::new("a.cedar"), text).unwrap(), text);
        }
    }
}
