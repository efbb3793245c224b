//! `cardea bundle check`: every fault of a bundle at once.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::path::PathBuf;
use std::process::ExitCode;

use cardea_policy_store::fault::Fault;
use cardea_policy_store::load;
use clap::Args;
use serde::Serialize;

use crate::cli::drawn::drawn;
use crate::cli::{Format, exit};

#[derive(Debug, Args)]
pub(in crate::cli) struct CheckArgs {
    /// Directory of the bundle: bundle.toml, schema.cedarschema, policies/*.cedar, entities.json, routes.toml.
    dir: PathBuf,
    /// How findings are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Finding<'f> {
    severity: &'static str,
    file: String,
    line: Option<usize>,
    column: Option<usize>,
    message: &'f str,
    help: Option<&'f str>,
}

#[derive(Serialize)]
struct Report<'f> {
    ok: bool,
    findings: Vec<Finding<'f>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<Summary>,
}

#[derive(Serialize)]
struct Summary {
    name: String,
    revision: u64,
    digest: String,
    policies: usize,
    entities: usize,
}

pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let exists = args.dir.is_dir();
    let (faults, warnings, bundle) = match load::directory(&args.dir) {
        Ok(loaded) => {
            let snapshot = &loaded.snapshot;
            let summary = Summary {
                name: snapshot.settings().name.to_string(),
                revision: snapshot.settings().revision,
                digest: snapshot.digest().to_string(),
                policies: snapshot.policies().len(),
                entities: snapshot.world().len(),
            };
            (Vec::new(), loaded.warnings, Some(summary))
        }
        Err(faults) => (faults.list().to_vec(), Vec::new(), None),
    };
    match args.format {
        Format::Json => {
            let findings = faults.iter().map(|fault| ("error", fault));
            let findings = findings.chain(warnings.iter().map(|warning| ("warning", warning)));
            let findings = findings.map(|(severity, fault)| finding(severity, fault)).collect();
            let report = Report { ok: faults.is_empty(), findings, bundle };
            match serde_json::to_string_pretty(&report) {
                Ok(text) => println!("{text}"),
                Err(error) => eprintln!("the report cannot be written: {error}"),
            }
        }
        Format::Human => {
            for fault in faults.iter().chain(&warnings) {
                eprint!("{}", drawn(fault));
            }
            match &bundle {
                Some(bundle) => println!(
                    "{} revision {}: fine, {} policies, {} entities, {} warnings\ndigest {}",
                    bundle.name,
                    bundle.revision,
                    bundle.policies,
                    bundle.entities,
                    warnings.len(),
                    bundle.digest
                ),
                None => eprintln!("{}: {} faults; the bundle cannot serve", args.dir.display(), faults.len()),
            }
        }
    }
    ExitCode::from(match (exists, faults.is_empty()) {
        (false, _) => exit::COULD_NOT_RUN,
        (true, true) => exit::FINE,
        (true, false) => exit::FINDINGS,
    })
}

fn finding<'f>(severity: &'static str, fault: &'f Fault) -> Finding<'f> {
    Finding {
        severity,
        file: fault.file().display().to_string(),
        line: fault.line(),
        column: fault.column(),
        message: &fault.message,
        help: fault.help.as_deref(),
    }
}
