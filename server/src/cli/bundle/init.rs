//! `cardea bundle init`: a small bundle that works, with its tests and the file that runs them in CI.
//!
//! Owns the template in `init/template`, which is in the binary. Never overwrites: if anything is in the way, nothing is
//! written.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::{Format, exit};

macro_rules! template {
    ($name:literal) => {
        ($name, include_str!(concat!("init/template/", $name)))
    };
}

/// Every file of the template, by its path within the bundle.
const FILES: [(&str, &str); 8] = [
    template!("bundle.toml"),
    template!("schema.cedarschema"),
    template!("entities.json"),
    template!("routes.toml"),
    template!("policies/access.cedar"),
    template!("policies/guards.cedar"),
    template!("tests/services.yaml"),
    template!("tests/agents.yaml"),
];
const GITHUB: &str = include_str!("../../../../examples/ci/github/policy.yml");
const GITLAB: &str = include_str!("../../../../examples/ci/gitlab/.gitlab-ci.yml");
/// Longest name of a bundle, in bytes, as bundle.toml takes it.
const NAME_BYTES_MAX: usize = 128;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea bundle init policies
  cardea bundle init policies --name payments --ci gitlab

Writes service accounts and agents with sessions, risk, tasks, step-ups, an obligation and HTTP routes, scenarios that cover
every policy, and the file that checks, tests, signs and publishes the bundle in CI. Nothing is ever overwritten.")]
pub(in crate::cli) struct InitArgs {
    /// Directory of the new bundle; it may exist.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Name of the bundle [default: that of the directory].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// For which CI system a file is written.
    #[arg(long, value_enum, default_value_t)]
    ci: Ci,
    /// How the outcome is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Ci {
    /// .github/workflows/policy.yml
    #[default]
    Github,
    /// .gitlab-ci.yml
    Gitlab,
    /// None.
    None,
}

#[derive(Serialize)]
struct Json<'f> {
    ok: bool,
    written: Vec<&'f str>,
    /// What is in the way of a file; then nothing was written.
    in_the_way: Vec<&'f str>,
    error: Option<String>,
}

pub(super) fn run(args: &InitArgs) -> ExitCode {
    let outcome = name(args).and_then(|name| write(args, &files(&name, args.ci)));
    match (&outcome, args.format) {
        (_, Format::Json) => match serde_json::to_string_pretty(&json(&outcome)) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("the report cannot be written: {error}"),
        },
        (Ok(written), Format::Human) => {
            for file in written {
                println!("wrote {}", args.dir.join(file).display());
            }
            println!("\n{}", next_steps(&args.dir, args.ci));
        }
        (Err(failure), Format::Human) => eprintln!("{failure}"),
    }
    ExitCode::from(if outcome.is_ok() { exit::FINE } else { exit::COULD_NOT_RUN })
}

/// Why nothing, or not everything, was written.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("`{0}` is no name for a bundle: give 1 to {NAME_BYTES_MAX} printable characters with --name")]
    Name(String),
    #[error("these are in the way, so nothing was written; name another directory, or move them:\n  {}", .0.join("\n  "))]
    InTheWay(Vec<&'static str>),
    #[error("`{}` cannot be written: {error}", path.display())]
    Unwritable { path: PathBuf, error: io::Error },
}

fn json(outcome: &Result<Vec<&'static str>, Failure>) -> Json<'static> {
    let (written, in_the_way, error) = match outcome {
        Ok(written) => (written.clone(), Vec::new(), None),
        Err(Failure::InTheWay(files)) => (Vec::new(), files.clone(), Some("files are in the way".to_owned())),
        Err(failure) => (Vec::new(), Vec::new(), Some(failure.to_string())),
    };
    Json { ok: outcome.is_ok(), written, in_the_way, error }
}

fn name(args: &InitArgs) -> Result<String, Failure> {
    let name = args.name.clone().unwrap_or_else(|| {
        let dir = std::path::absolute(&args.dir).unwrap_or_else(|_| args.dir.clone());
        dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    });
    let printable = !name.chars().any(|character| character.is_control() || "\"\\".contains(character));
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && printable { Ok(name) } else { Err(Failure::Name(name)) }
}

fn files(name: &str, ci: Ci) -> Vec<(&'static str, String)> {
    let mut files: Vec<(&str, String)> =
        FILES.iter().map(|(path, text)| (*path, text.replace("\"NAME\"", &format!("\"{name}\"")))).collect();
    let here = |text: &str| text.replace("BUNDLE: policies", "BUNDLE: .");
    match ci {
        Ci::Github => files.push((".github/workflows/policy.yml", here(GITHUB))),
        Ci::Gitlab => files.push((".gitlab-ci.yml", here(GITLAB))),
        Ci::None => {}
    }
    files
}

fn write(args: &InitArgs, files: &[(&'static str, String)]) -> Result<Vec<&'static str>, Failure> {
    let there = |name: &&'static str| fs::symlink_metadata(args.dir.join(name)).is_ok();
    let in_the_way: Vec<&'static str> = files.iter().map(|(name, _)| *name).filter(there).collect();
    if !in_the_way.is_empty() {
        return Err(Failure::InTheWay(in_the_way));
    }
    for (name, text) in files {
        let path = args.dir.join(name);
        write_new(&path, text).map_err(|error| Failure::Unwritable { path, error })?;
    }
    Ok(files.iter().map(|(name, _)| *name).collect())
}

/// Writes a file that is not there; one that came meanwhile is not touched.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

fn next_steps(dir: &Path, ci: Ci) -> String {
    let dir = dir.display();
    let mut text = format!(
        "Next:
  cardea bundle check {dir}             what is wrong, and what surely is not meant
  cardea bundle test {dir}              play tests/*.yaml; add yours
  cardea bundle matrix {dir} --write    the table of verdicts, for reviews to read
  cardea serve --bundle {dir} --allow-unsigned
  cardea bundle keygen                  a key to sign with; its public half goes into trust.toml"
    );
    match ci {
        Ci::Github => text.push_str(
            "\n\nThe workflow takes this directory for the root of the repository. If it is not, move .github there and set\n\
             BUNDLE in the workflow. It says at its head which variables and secrets it needs.",
        ),
        Ci::Gitlab => text.push_str(
            "\n\nThe pipeline takes this directory for the root of the repository. If it is not, move .gitlab-ci.yml there and\n\
             set BUNDLE in it. It says at its head which variables it needs.",
        ),
        Ci::None => {}
    }
    text
}
