//! `cardea bundle test`: the bundle's scenarios, played.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use quick_junit::{NonSuccessKind, Report as JUnit, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use crate::cli::bundle::{cannot_open, open};
use crate::cli::drawn::drawn;
use crate::cli::{Format, exit};
use crate::proving::case::Case;
use crate::proving::coverage::Coverage;
use crate::proving::{self, Outcome, Played};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea bundle test policies/                       play every scenario under tests/
  cardea bundle test policies/ --filter export       those whose file or name contains `export`
  cardea bundle test policies/ --min-coverage 90 --junit report.xml
                                                     in CI: fail below 90 %, and report to the pipeline

A scenario, tests/reading.yaml:
  name: A reader in a session
  steps:
    - session: {id: s1, principal: 'User::\"ann\"'}
    - attempt: {principal: 'User::\"ann\"', action: read, resource: 'Note::\"plan\"', session: s1, expect: allow}

docs/testing.md has every key.")]
pub(in crate::cli) struct TestArgs {
    /// The bundle: its directory, or a packed file.
    path: PathBuf,
    /// Play only scenarios whose file or name contains this text.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
    /// Fail when less than this percentage of the policies' sides was seen.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100), conflicts_with = "filter")]
    min_coverage: Option<u32>,
    /// Print how often each policy was satisfied and not.
    #[arg(long)]
    coverage: bool,
    /// Write a JUnit report: one suite for each file, one case for each attempt.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What makes the run fail.
#[derive(Serialize)]
struct Report<'o> {
    ok: bool,
    /// What is wrong beside failed tests: no tests, coverage too low.
    findings: &'o [String],
    coverage_percent: String,
    #[serde(flatten)]
    outcome: &'o Outcome,
}

pub(super) fn run(args: &TestArgs) -> ExitCode {
    let files = match open(&args.path) {
        Ok(files) => files,
        Err(faults) => return cannot_open(&args.path, &faults),
    };
    let shows = std::io::stderr().is_terminal() && args.format == Format::Human;
    let mut progress = |done: usize, total: usize| {
        if shows {
            eprint!("\r{done} of {total} scenarios ");
        }
    };
    let outcome = match proving::run_some(&files, &args.filter, &mut progress) {
        Ok(outcome) => outcome,
        Err(faults) => return cannot_open(&args.path, &faults),
    };
    if shows {
        eprint!("\r{:40}\r", "");
    }
    let findings = findings(args, &outcome);
    if let Some(path) = &args.junit
        && let Err(fault) = write_junit(path, &outcome)
    {
        eprintln!("{}: the JUnit report cannot be written: {fault}", path.display());
        return ExitCode::from(exit::COULD_NOT_RUN);
    }
    let ok = findings.is_empty() && outcome.failed == 0;
    match args.format {
        Format::Json => {
            let coverage_percent = outcome.coverage.percent();
            let report = Report { ok, findings: &findings, coverage_percent, outcome: &outcome };
            match serde_json::to_string_pretty(&report) {
                Ok(text) => println!("{text}"),
                Err(error) => eprintln!("the report cannot be written: {error}"),
            }
        }
        Format::Human => human(args, &outcome, &findings),
    }
    ExitCode::from(if ok { exit::FINE } else { exit::FINDINGS })
}

fn findings(args: &TestArgs, outcome: &Outcome) -> Vec<String> {
    let mut findings = Vec::new();
    if outcome.scenarios.is_empty() && args.filter.is_empty() {
        findings.push("no tests: write scenarios under tests/, such as tests/first.yaml".to_owned());
    } else if outcome.tests == 0 {
        let which =
            if args.filter.is_empty() { "no scenario" } else { "no scenario that the filter lets pass" };
        findings.push(format!("no tests: {which} attempts anything"));
    }
    if let Some(least) = args.min_coverage.filter(|least| outcome.coverage.permille < least * 10) {
        findings
            .push(format!("coverage is {} %, and must be {least} % at least", outcome.coverage.percent()));
    }
    findings
}

fn human(args: &TestArgs, outcome: &Outcome, findings: &[String]) {
    for played in &outcome.scenarios {
        let name = if played.name.is_empty() { "cannot be read" } else { played.name.as_str() };
        let place = format!("{}:{}", played.file.display(), played.line);
        match played.passed() {
            true => println!("ok      {place}  {name}, {} attempts", played.cases.len()),
            false => println!("FAILED  {place}  {name}"),
        }
        for case in &played.cases {
            for error in case.got.errors.iter().filter(|_| case.passed) {
                println!(
                    "        {}:{} policy `{}` failed: {}",
                    case.line, case.column, error.code, error.message
                );
            }
            if !case.passed {
                print!("{}", failed(case, &outcome.coverage));
            }
        }
        for fault in &played.faults {
            eprint!("{}", drawn(fault));
        }
    }
    uncovered(&outcome.coverage);
    if args.coverage {
        table(&outcome.coverage);
    }
    for finding in findings {
        eprintln!("error: {finding}");
    }
    println!(
        "{} tests, {} passed, {} failed; coverage {} % ({} of {} sides of {} policies)",
        outcome.tests,
        outcome.passed,
        outcome.failed,
        outcome.coverage.percent(),
        outcome.coverage.sides_seen,
        outcome.coverage.sides,
        outcome.coverage.policies.len(),
    );
}

/// What was expected, what came out, what it rests on, and what to change.
fn failed(case: &Case, coverage: &Coverage) -> String {
    let mut lines = vec![format!("  {}:{} {}", case.line, case.column, case.name)];
    for difference in &case.differences {
        let (key, expected, got) = (difference.key, &difference.expected, &difference.got);
        lines.push(format!("    {key}: expected {expected}, got {got}"));
    }
    for reason in &case.got.reasons {
        lines.push(format!("    reason {}: {}", reason.code, reason.message));
    }
    for id in &case.got.policies {
        let place = coverage.policies.iter().find(|policy| policy.id == *id);
        let place =
            place.map_or_else(String::new, |policy| format!("  {}:{}", policy.file.display(), policy.line));
        lines.push(format!("    settled by {id}{place}"));
    }
    for fact in &case.got.evidence {
        let why = if fact.why.is_empty() { String::new() } else { format!(" ({})", fact.why) };
        lines.push(format!("    {} = {}{why}", fact.fact, fact.value));
    }
    for error in &case.got.errors {
        lines.push(format!("    policy `{}` failed: {}", error.code, error.message));
    }
    lines.push(format!("    {}", case.advice));
    lines.join("\n") + "\n"
}

fn uncovered(coverage: &Coverage) {
    for policy in &coverage.policies {
        let place = format!("{}:{}", policy.file.display(), policy.line);
        if policy.never_satisfied() {
            println!("never satisfied  {}  {place}", policy.id);
        }
        if policy.never_failed() {
            println!("never failed     {}  {place}", policy.id);
        }
    }
}

fn table(coverage: &Coverage) {
    let width = coverage.policies.iter().map(|policy| policy.id.chars().count()).max().unwrap_or(0).max(6);
    println!("{:width$}  satisfied  not satisfied  errors  place", "policy");
    for policy in &coverage.policies {
        let unsatisfied = if policy.conditional { policy.unsatisfied.to_string() } else { "-".to_owned() };
        println!(
            "{:width$}  {:>9}  {unsatisfied:>13}  {:>6}  {}:{}",
            policy.id,
            policy.satisfied,
            policy.errored,
            policy.file.display(),
            policy.line
        );
    }
}

fn write_junit(path: &Path, outcome: &Outcome) -> Result<(), String> {
    let mut report = JUnit::new("cardea bundle test");
    let mut rest: &[Played] = &outcome.scenarios;
    while let Some(first) = rest.first() {
        let of_file = rest.iter().take_while(|played| played.file == first.file).count();
        let (own, after) = rest.split_at_checked(of_file).unwrap_or((rest, &[]));
        let mut suite = TestSuite::new(first.file.display().to_string());
        for played in own {
            suite.add_test_cases(played.cases.iter().map(|case| junit_case(played, case, &outcome.coverage)));
            for fault in &played.faults {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                status.set_message(fault.message.clone()).set_description(fault.to_string());
                let mut case = TestCase::new(format!("{} (line {})", played.name, played.line), status);
                case.set_classname(played.name.clone());
                suite.add_test_case(case);
            }
        }
        report.add_test_suite(suite);
        rest = after;
    }
    let text = report.to_string().map_err(|error| error.to_string())?;
    std::fs::write(path, text).map_err(|error| error.to_string())
}

fn junit_case(played: &Played, case: &Case, coverage: &Coverage) -> TestCase {
    let status = if case.passed {
        TestCaseStatus::success()
    } else {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        let expected = cardea_core::verdict::Decision::from(case.expected).name();
        status.set_message(format!("expected {expected}, got {}", case.got.decision));
        status.set_description(failed(case, coverage));
        status
    };
    let mut test = TestCase::new(format!("{} (line {})", case.name, case.line), status);
    test.set_classname(played.name.clone());
    test
}
