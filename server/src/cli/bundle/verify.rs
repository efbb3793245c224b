//! `cardea bundle verify`: what a node would say of a packed bundle.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cardea_policy_store::fault::{Fault, Faults};
use cardea_policy_store::load;
use cardea_policy_store::stamp::Stamp;
use cardea_policy_store::statement::Evidence;
use cardea_policy_store::trust::{Expiry, Trust};
use clap::Args;
use serde::Serialize;

use super::output::{End, end};
use crate::cli::Format;
use crate::clock::Clock;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea bundle verify agents-7.cardea --trust trust.toml")]
pub(in crate::cli) struct VerifyArgs {
    /// The packed bundle.
    file: PathBuf,
    /// Whose signatures count, and what must have been proven.
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// The instant to verify for; now, if it is not given.
    #[arg(long, value_name = "TIME")]
    at: Option<Stamp>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Good {
    name: String,
    revision: u64,
    digest: String,
    signed_by: Vec<String>,
    evidence: Option<Evidence>,
    policies: usize,
    entities: usize,
}

pub(super) fn run(args: &VerifyArgs) -> ExitCode {
    end(&verify(args).unwrap_or_else(|end| end), args.format, |good| {
        let evidence = good.evidence.as_ref().map_or_else(String::new, |evidence| {
            let tests = evidence.tests.map_or_else(
                || "no tests".to_owned(),
                |tests| {
                    let coverage = f64::from(tests.coverage_permille) / 10.0;
                    format!("{} tests passed, {} failed, {coverage} % coverage", tests.passed, tests.failed)
                },
            );
            format!(
                "\nevidence: {} errors, {} warnings, {tests}",
                evidence.check.errors, evidence.check.warnings
            )
        });
        format!(
            "{} revision {} may serve: {} policies, {} entities\nsigned by {}{evidence}\ndigest {}",
            good.name,
            good.revision,
            good.policies,
            good.entities,
            good.signed_by.join(", "),
            good.digest
        )
    })
}

fn verify(args: &VerifyArgs) -> Result<End<Good>, End<Good>> {
    let text = std::fs::read_to_string(&args.trust)
        .map_err(|error| End::Failed(format!("`{}` cannot be read: {error}", args.trust.display())))?;
    let trust = Trust::parse(&args.trust.display().to_string(), &text)
        .map_err(|faults| End::Failed(format!("trust cannot be told: {faults}")))?;
    if !args.file.is_file() {
        return Err(End::Failed(format!("`{}` is no file: name a packed bundle", args.file.display())));
    }
    let now_ms = args.at.map_or_else(|| Clock::machine().now().wall_ms, Stamp::unix_ms);
    let packed = super::packed(&args.file).map_err(Faults::from)?;
    let verified = trust
        .verify(&packed, now_ms, Expiry::Refuse)
        .map_err(|refusal| refused(&args.file, refusal.rule(), &refusal.to_string()))?;
    let loaded = load::files(&verified.files)?;
    Ok(End::Done(Good {
        name: verified.manifest.name.to_string(),
        revision: verified.manifest.revision,
        digest: verified.digest.to_string(),
        signed_by: verified.signed_by.iter().map(ToString::to_string).collect(),
        evidence: verified.evidence,
        policies: loaded.snapshot.policies().len(),
        entities: loaded.snapshot.world().len(),
    }))
}

fn refused<T>(file: &Path, rule: &str, why: &str) -> End<T> {
    End::Found(Fault::new(file, format!("{why} [{rule}]")).into())
}
