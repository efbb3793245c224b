//! `cardea bundle sign`: proves a packed bundle, and signs what was proven of exactly this content.
//!
//! The evidence is made here and now, of the files in the archive: nobody can sign a report about something else. A second
//! signer makes it again, and signs only if it comes out the same.

use std::path::PathBuf;
use std::process::ExitCode;

use cardea_policy_store::dsse::{Envelope, SIGNATURES_MAX, Signature, pae};
use cardea_policy_store::fault::{Fault, Faults};
use cardea_policy_store::keys::PrivateKey;
use cardea_policy_store::lint;
use cardea_policy_store::load::Files;
use cardea_policy_store::manifest::Manifest;
use cardea_policy_store::pack::Packed;
use cardea_policy_store::statement::{CheckEvidence, Evidence, PAYLOAD_TYPE, Statement, TestEvidence, Tool};
use clap::Args;
use serde::Serialize;

use super::output::{End, end, write};
use crate::cli::Format;
use crate::proving;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea bundle sign agents-7.cardea --key keys/ci-2026.key
  CARDEA_SIGNING_KEY=\"$SECRET\" cardea bundle sign agents-7.cardea --key-env CARDEA_SIGNING_KEY

Runs `bundle check` and `bundle test` on the content first, and signs the results with it: a node's trust.toml can
require them. Sign again with another key to add its signature.")]
pub(in crate::cli) struct SignArgs {
    /// The packed bundle; it is replaced by the signed one.
    file: PathBuf,
    /// The private key, PEM.
    #[arg(long, value_name = "FILE", required_unless_present = "key_env", conflicts_with = "key_env")]
    key: Option<PathBuf>,
    /// Environment variable that holds the private key, PEM.
    #[arg(long, value_name = "VARIABLE")]
    key_env: Option<String>,
    /// Write the signed bundle here and leave the file as it is.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Sign although tests fail or the check found errors; the evidence says so, and a node may refuse it.
    #[arg(long)]
    allow_failing: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Signed {
    file: PathBuf,
    name: String,
    revision: u64,
    digest: String,
    key_id: String,
    signatures: usize,
    evidence: Evidence,
}

pub(super) fn run(args: &SignArgs) -> ExitCode {
    end(&sign(args).unwrap_or_else(|end| end), args.format, |signed| {
        let tests = signed.evidence.tests.map_or_else(
            || "no tests".to_owned(),
            |tests| {
                let coverage = f64::from(tests.coverage_permille) / 10.0;
                format!("{} tests passed, {} failed, {coverage} % coverage", tests.passed, tests.failed)
            },
        );
        let check = signed.evidence.check;
        format!(
            "{}\n{} revision {} signed, {} signatures\nevidence: {} errors, {} warnings, {tests}\nkey {}\ndigest {}",
            signed.file.display(),
            signed.name,
            signed.revision,
            signed.signatures,
            check.errors,
            check.warnings,
            signed.key_id,
            signed.digest
        )
    })
}

fn sign(args: &SignArgs) -> Result<End<Signed>, End<Signed>> {
    let key = key(args).map_err(End::Failed)?;
    if !args.file.is_file() {
        return Err(End::Failed(format!("`{}` is no file: name a packed bundle", args.file.display())));
    }
    let packed = super::packed(&args.file).map_err(Faults::from)?;
    let fault = |why: String| End::Found(Fault::new(&args.file, why).into());
    let unpacked = packed.unpack().map_err(|error| fault(error.to_string()))?;
    let evidence = evidence(&unpacked.manifest, &unpacked.files)?;
    let failing = evidence.check.errors > 0 || evidence.tests.is_some_and(|tests| tests.failed > 0);
    if failing && !args.allow_failing {
        return Err(fault(
            "its check finds errors or its tests fail: run `cardea bundle check` and `cardea bundle test` on it".to_owned(),
        ));
    }
    let payload = Statement::about(packed.digest(), &unpacked.manifest, evidence.clone()).to_json();
    let envelope = joined(&packed, &payload, &key).map_err(fault)?;
    let signed = packed.with_envelope(&envelope.to_json());
    let file = args.output.as_ref().unwrap_or(&args.file);
    write(file, signed.bytes())
        .map_err(|error| End::Failed(format!("`{}` cannot be written: {error}", file.display())))?;
    Ok(End::Done(Signed {
        file: file.clone(),
        name: unpacked.manifest.name.to_string(),
        revision: unpacked.manifest.revision,
        digest: packed.digest().to_string(),
        key_id: key.public().id().to_string(),
        signatures: envelope.signatures.len(),
        evidence,
    }))
}

fn key(args: &SignArgs) -> Result<PrivateKey, String> {
    let (shown, text) = match (&args.key, &args.key_env) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path);
            (
                format!("`{}`", path.display()),
                text.map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?,
            )
        }
        (None, Some(name)) => {
            let text =
                std::env::var(name).map_err(|_| format!("the environment variable `{name}` is not set"))?;
            (format!("the content of `{name}`"), text)
        }
        (None, None) => return Err("give --key or --key-env".to_owned()),
    };
    text.parse().map_err(|error| format!("{shown} {error}"))
}

fn evidence(manifest: &Manifest, files: &Files) -> Result<Evidence, Faults> {
    let check = lint::check(files);
    let outcome = if check.errors > 0 { None } else { Some(proving::run(files)?) };
    let tests = outcome.filter(|outcome| outcome.tests > 0).map(|outcome| TestEvidence {
        passed: outcome.passed,
        failed: outcome.failed,
        coverage_permille: outcome.coverage.permille,
    });
    Ok(Evidence {
        name: manifest.name.clone(),
        revision: manifest.revision,
        tool: Tool { name: "cardea".into(), version: env!("CARGO_PKG_VERSION").into() },
        check: CheckEvidence { errors: check.errors, warnings: check.warnings },
        tests,
    })
}

/// The envelope with this key's signature; others stay if they signed the same.
fn joined(packed: &Packed, payload: &[u8], key: &PrivateKey) -> Result<Envelope, String> {
    let key_id = key.public().id().to_string();
    let before = packed.envelope().map_err(|error| error.to_string())?;
    let mut signatures = match before.map(Envelope::parse).transpose().map_err(|error| error.to_string())? {
        Some(envelope) if envelope.payload == payload && envelope.payload_type == PAYLOAD_TYPE => {
            envelope.signatures
        }
        Some(_) => {
            return Err("it is signed with other evidence than this program finds: sign with the same version of Cardea, or build it again".to_owned());
        }
        None => Vec::new(),
    };
    signatures.retain(|signature| signature.key_id != key_id);
    if signatures.len() >= SIGNATURES_MAX {
        return Err(format!("it has {SIGNATURES_MAX} signatures already"));
    }
    signatures.push(Signature { key_id, bytes: key.sign(&pae(PAYLOAD_TYPE, payload)) });
    Ok(Envelope { payload_type: PAYLOAD_TYPE.to_owned(), payload: payload.to_vec(), signatures })
}
