//! `cardea audit verify`: a log, or a receipt, held against the key that signed it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cardea_proto::v1::{self, record::Entry};
use cardea_tlog::{Hash, Receipt, VerifierKey};
use clap::Args;
use prost::Message as _;
use serde::Serialize;

use super::{could_not_run, shown, verifier};
use crate::audit::stored::Stored;
use crate::audit::{Verified, verify};
use crate::cli::drawn::say;
use crate::cli::{Format, exit};

/// Findings that people are shown; programs get all.
const SHOWN_MAX: usize = 50;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea audit verify .cardea/audit --key audit.vkey
  cardea audit verify --proof 019a….tlog-proof --key node-1/audit+9c1f21d5+AZ…

The key is the one that `cardea serve` logs as vkey when it starts, and that Status tells. Take it from where the node cannot write:
whoever can change the log and the key beside it can sign another log.
A log that was cut back to an older signed state is in itself what was signed; keep a checkpoint elsewhere to tell.")]
pub(in crate::cli) struct VerifyArgs {
    /// Directory of the log.
    #[arg(default_value = "audit")]
    dir: PathBuf,
    /// Public key of the log, or the file that holds it; again for others that may have signed.
    #[arg(long, value_name = "VKEY", required = true)]
    key: Vec<String>,
    /// Verify this receipt, and print the record that it proves.
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    proof: Option<PathBuf>,
    /// How the outcome is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The outcome, for programs.
#[derive(Debug, Serialize)]
struct Outcome {
    ok: bool,
    origin: String,
    first: u64,
    records: u64,
    signed: u64,
    unsigned: u64,
    findings: Vec<String>,
    more_findings: u64,
}

pub(super) fn run(args: &VerifyArgs) -> ExitCode {
    let keys: Result<Vec<VerifierKey>, String> = args.key.iter().map(|text| verifier(text)).collect();
    let keys = match keys {
        Ok(keys) => keys,
        Err(why) => return could_not_run(why),
    };
    match &args.proof {
        Some(file) => receipt(file, &keys, args.format),
        None => log(&args.dir, &keys, args.format),
    }
}

fn log(dir: &Path, keys: &[VerifierKey], format: Format) -> ExitCode {
    if !dir.is_dir() {
        return could_not_run(format_args!(
            "{}: no such directory; name `audit.dir` of a node",
            dir.display()
        ));
    }
    let verified = match verify(dir, keys) {
        Ok(verified) => verified,
        Err(error) => return could_not_run(format_args!("{}: cannot be read: {error}", dir.display())),
    };
    let Verified { origin, records, first, signed, unsigned, findings, more } = verified;
    let mut findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
    if first > 1 && !is_said_to_be_gone(dir, first) {
        findings.push(format!(
            "records 1 to {}: not there, and no record says that they were let go of",
            first - 1
        ));
    }
    let ok = findings.is_empty() && more == 0;
    match format {
        Format::Json => {
            let outcome =
                Outcome { ok, origin, first, records, signed, unsigned, findings, more_findings: more };
            say(&serde_json::to_string_pretty(&outcome).unwrap_or_default());
        }
        Format::Human if ok => {
            let behind = match unsigned {
                0 => String::new(),
                count => format!(
                    "; {count} behind them are covered by no signature: a running node signs within a second, after a kill \
                     they stay as they are"
                ),
            };
            say(&format!("{origin}: {signed} records are what was signed, from record {first} on{behind}"));
        }
        Format::Human => {
            findings.iter().take(SHOWN_MAX).for_each(|finding| say(finding));
            let beyond = more + findings.len().saturating_sub(SHOWN_MAX) as u64;
            if beyond > 0 {
                say(&format!("and {beyond} more"));
            }
            say(&format!("{}: NOT what was signed; {records} of {signed} records are", dir.display()));
        }
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::from(exit::FINDINGS) }
}

/// Whether a record says that those before this one were let go of.
fn is_said_to_be_gone(dir: &Path, first: u64) -> bool {
    let records = Stored::open(&[dir.to_owned()]).into_iter().flatten().map_while(Result::ok);
    let mut entries = records.filter_map(|record| record.entry);
    entries.any(|entry| matches!(entry, Entry::Retention(retention) if retention.kept_from >= first))
}

fn receipt(file: &Path, keys: &[VerifierKey], format: Format) -> ExitCode {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return could_not_run(format_args!("{}: cannot be read: {error}", file.display())),
    };
    let proven = || -> Result<(v1::Record, String), String> {
        let receipt = Receipt::parse(&text).map_err(|why| why.to_string())?;
        let record = receipt.extra.as_deref().ok_or("it does not hold the record that it is for")?;
        let checkpoint = receipt.verify(&Hash::leaf(record), keys).map_err(|why| why.to_string())?;
        let record =
            v1::Record::decode(record).map_err(|why| format!("what it proves is no record: {why}"))?;
        if record.sequence != receipt.index.saturating_add(1) {
            return Err("the record has another number than its place in the log".to_owned());
        }
        Ok((record, checkpoint.origin))
    };
    match proven() {
        Ok((record, origin)) => {
            match format {
                Format::Human => {
                    say(&shown::line(&record, false));
                    say(&format!("record {} of {origin}: proven", record.sequence));
                }
                Format::Json => say(&serde_json::to_string(&record).unwrap_or_default()),
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            say(&format!("{}: NOT proven: {why}", file.display()));
            ExitCode::from(exit::FINDINGS)
        }
    }
}
