//! `cardea bundle check`: everything that is wrong with a bundle, and what it surely does not mean.
#![expect(clippy::print_stderr, reason = "a command speaks on its standard streams")]

mod github;
mod sarif;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cardea_policy_store::fault::{Fault, Severity};
use cardea_policy_store::lint::rules::{self, Rule};
use cardea_policy_store::lint::{self, Report, Summary};
use cardea_policy_store::observing;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::drawn::{drawn, say};
use crate::cli::exit;
use crate::cli::words::now_ms;

/// Most findings that are drawn for people: nobody reads more in one go.
const DRAWN_MAX: usize = 100;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea bundle check examples/agents
  cardea bundle check --deny warnings --format github policies/*/
  cardea bundle check --format sarif . > check.sarif
  cardea bundle check --list

A policy, or an action or entity type of the schema, can carry `@allow(\"rule, rule\")`: its findings of these rules are
not reported. An `@allow` that silences nothing is a finding.")]
pub(in crate::cli) struct CheckArgs {
    /// Bundles to check: directories with bundle.toml, schema.cedarschema, policies/*.cedar, entities.json, routes.toml, or
    /// packed bundles.
    #[arg(value_name = "PATH", default_value = ".")]
    paths: Vec<PathBuf>,
    /// How findings are printed.
    #[arg(long, value_enum, default_value_t)]
    format: CheckFormat,
    /// Make findings errors: `warnings` for all warnings, or the id of a rule; again for more.
    #[arg(long, value_name = "warnings|RULE", value_parser = denied)]
    deny: Vec<Denied>,
    /// Leave out findings of a rule that does not keep a bundle from serving; again for more.
    #[arg(long, value_name = "RULE", value_parser = allowed)]
    allow: Vec<&'static Rule>,
    /// Print every rule with its weight and meaning, and check nothing.
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    /// For people, with the lines of source.
    #[default]
    Human,
    /// For programs: one object.
    Json,
    /// SARIF 2.1.0, for code scanning services.
    Sarif,
    /// Workflow commands that put annotations on a pull request.
    Github,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denied {
    Warnings,
    Rule(&'static Rule),
}

fn named(id: &str) -> Result<&'static Rule, String> {
    Rule::named(id).ok_or_else(|| format!("`{id}` is no rule; `cardea bundle check --list` prints them"))
}

fn denied(text: &str) -> Result<Denied, String> {
    if text == "warnings" { Ok(Denied::Warnings) } else { named(text).map(Denied::Rule) }
}

fn allowed(text: &str) -> Result<&'static Rule, String> {
    let rule = named(text)?;
    if rule.can_be_allowed() {
        Ok(rule)
    } else {
        Err(format!("`{text}` keeps a bundle from serving, so it cannot be left out"))
    }
}

/// One bundle and what was found in it.
struct Checked<'p> {
    path: &'p Path,
    /// Whether it could be read at all.
    opened: bool,
    /// Files as seen from here, not from within the bundle.
    report: Report,
}

pub(super) fn run(args: &CheckArgs) -> ExitCode {
    if args.list {
        return list(args.format);
    }
    let checked: Vec<Checked<'_>> = args.paths.iter().map(|path| check(path, args)).collect();
    match args.format {
        CheckFormat::Human => human(&checked),
        CheckFormat::Json => print_json(&json(&checked)),
        CheckFormat::Sarif => print_json(&sarif::log(findings(&checked))),
        CheckFormat::Github => {
            for finding in findings(&checked) {
                say(&github::annotation(finding));
            }
        }
    }
    let failed = checked.iter().any(|checked| checked.report.errors > 0);
    ExitCode::from(match checked.iter().all(|checked| checked.opened) {
        false => exit::COULD_NOT_RUN,
        true if failed => exit::FINDINGS,
        true => exit::FINE,
    })
}

fn check<'p>(path: &'p Path, args: &CheckArgs) -> Checked<'p> {
    // A command line says `.`, and readers of findings want `policies/a.cedar`.
    let shown = path.strip_prefix("./").unwrap_or(path);
    let shown = if shown == Path::new(".") { Path::new("") } else { shown };
    let (opened, report) = match super::open(path) {
        Ok(files) => {
            let Report { mut findings, summary, .. } = lint::check(&files);
            findings.extend(observing::check(&files, now_ms()));
            (true, Report::of(findings, summary))
        }
        Err(faults) => (false, Report::of(faults.list().to_vec(), None)),
    };
    let report = report.weighed(|fault| weight(fault, args));
    let inside = |fault: Fault| if opened && path.is_dir() { fault.below(shown) } else { fault };
    let findings = report.findings.into_iter().map(inside).collect();
    Checked { path, opened, report: Report { findings, ..report } }
}

fn weight(fault: &Fault, args: &CheckArgs) -> Option<Severity> {
    let denied = args.deny.iter().any(|denied| match denied {
        Denied::Warnings => fault.severity == Severity::Warning,
        Denied::Rule(rule) => rule.id == fault.id,
    });
    if args.allow.iter().any(|rule| rule.id == fault.id) {
        None
    } else if denied {
        Some(Severity::Error)
    } else {
        Some(fault.severity)
    }
}

fn findings<'c>(checked: &'c [Checked<'_>]) -> impl Iterator<Item = &'c Fault> {
    checked.iter().flat_map(|checked| &checked.report.findings)
}

fn human(checked: &[Checked<'_>]) {
    let all = findings(checked).count();
    for fault in findings(checked).take(DRAWN_MAX) {
        eprint!("{}", drawn(fault));
    }
    if all > DRAWN_MAX {
        eprintln!("… and {} more findings; `--format json` prints all", all - DRAWN_MAX);
    }
    for Checked { path, report, .. } in checked {
        let counts = counts(report);
        match &report.summary {
            Some(bundle) => say(&format!(
                "{} revision {}: {}, {} policies, {} entities, {counts}\ndigest {}",
                bundle.name,
                bundle.revision,
                if report.errors == 0 { "fine" } else { "not fine" },
                bundle.policies,
                bundle.entities,
                bundle.digest
            )),
            None => eprintln!("{}: {counts}; the bundle cannot serve", path.display()),
        }
    }
}

fn counts(report: &Report) -> String {
    let counted = |number: usize, what: &str| {
        (number > 0).then(|| format!("{number} {what}{}", if number == 1 { "" } else { "s" }))
    };
    let counts: Vec<String> = [
        counted(report.errors, "error"),
        Some(counted(report.warnings, "warning").unwrap_or_else(|| "0 warnings".to_owned())),
        counted(report.notes, "note"),
    ]
    .into_iter()
    .flatten()
    .collect();
    counts.join(", ")
}

#[derive(Serialize)]
struct Json<'c> {
    ok: bool,
    errors: usize,
    warnings: usize,
    notes: usize,
    bundles: Vec<JsonBundle<'c>>,
    findings: Vec<JsonFinding<'c>>,
}

#[derive(Serialize)]
struct JsonBundle<'c> {
    path: String,
    errors: usize,
    warnings: usize,
    notes: usize,
    #[serde(flatten)]
    bundle: Option<JsonSummary<'c>>,
}

#[derive(Serialize)]
struct JsonSummary<'c> {
    name: &'c str,
    revision: u64,
    digest: &'c str,
    policies: usize,
    entities: usize,
}

#[derive(Serialize)]
struct JsonFinding<'c> {
    id: &'c str,
    severity: &'static str,
    file: String,
    line: Option<usize>,
    column: Option<usize>,
    end_line: Option<usize>,
    end_column: Option<usize>,
    message: &'c str,
    help: Option<&'c str>,
}

fn json<'c>(checked: &'c [Checked<'_>]) -> Json<'c> {
    let sum = |of: fn(&Report) -> usize| checked.iter().map(|checked| of(&checked.report)).sum();
    let errors = sum(|report| report.errors);
    Json {
        ok: errors == 0,
        errors,
        warnings: sum(|report| report.warnings),
        notes: sum(|report| report.notes),
        bundles: checked.iter().map(json_bundle).collect(),
        findings: findings(checked).map(json_finding).collect(),
    }
}

fn json_bundle<'c>(checked: &'c Checked<'_>) -> JsonBundle<'c> {
    let report = &checked.report;
    let summary = |Summary { name, revision, digest, policies, entities }: &'c Summary| JsonSummary {
        name,
        revision: *revision,
        digest,
        policies: *policies,
        entities: *entities,
    };
    JsonBundle {
        path: checked.path.display().to_string(),
        errors: report.errors,
        warnings: report.warnings,
        notes: report.notes,
        bundle: report.summary.as_ref().map(summary),
    }
}

fn json_finding(fault: &Fault) -> JsonFinding<'_> {
    JsonFinding {
        id: fault.id,
        severity: fault.severity.name(),
        file: fault.file().display().to_string(),
        line: fault.line(),
        column: fault.column(),
        end_line: fault.end().map(|end| end.line),
        end_column: fault.end().map(|end| end.column),
        message: &fault.message,
        help: fault.help.as_deref(),
    }
}

#[derive(Serialize)]
struct JsonRule {
    id: &'static str,
    severity: &'static str,
    meaning: &'static str,
    help: Option<&'static str>,
    can_be_allowed: bool,
}

fn list(format: CheckFormat) -> ExitCode {
    if format == CheckFormat::Human {
        for rule in rules::ALL {
            say(&format!("{:<24} {:<8} {}", rule.id, rule.severity.name(), rule.meaning));
        }
    } else {
        let rules: Vec<JsonRule> = rules::ALL
            .iter()
            .map(|rule| JsonRule {
                id: rule.id,
                severity: rule.severity.name(),
                meaning: rule.meaning,
                help: rule.help,
                can_be_allowed: rule.can_be_allowed(),
            })
            .collect();
        print_json(&rules);
    }
    ExitCode::from(exit::FINE)
}

fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => say(&text),
        Err(error) => eprintln!("the report cannot be written: {error}"),
    }
}
