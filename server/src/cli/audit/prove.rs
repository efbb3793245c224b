//! `cardea audit prove`: a receipt for a decision.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::could_not_run;
use crate::audit::prove::{find, prove};
use crate::cli::drawn::say;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea audit prove 019a3f6e-7f2c-7c1e-8a52-0d4f6f9f3a10 --audit .cardea/audit
                                     writes 019a3f6e-7f2c-7c1e-8a52-0d4f6f9f3a10.tlog-proof
  cardea audit verify --proof 019a3f6e-7f2c-7c1e-8a52-0d4f6f9f3a10.tlog-proof --key VKEY

A receipt is a C2SP tlog-proof: the checkpoint, the path to it, and the record itself as extra data. It shows that the record is
in the log without the log.")]
pub(in crate::cli) struct ProveArgs {
    /// The decision's id, as the answer and the record have it.
    #[arg(required_unless_present = "sequence")]
    decision: Option<String>,
    /// A record by its number instead; records of other kinds have no id.
    #[arg(long, value_name = "NUMBER", conflicts_with = "decision")]
    sequence: Option<u64>,
    /// Directory of the log.
    #[arg(long, value_name = "DIR", default_value = "audit")]
    audit: PathBuf,
    /// Where the receipt is written; - for standard output. Without it: NAME.tlog-proof.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &ProveArgs) -> ExitCode {
    let sequence = match (&args.decision, args.sequence) {
        (Some(id), _) => find(&args.audit, id),
        (None, sequence) => Ok(sequence.unwrap_or(0)),
    };
    let receipt = match sequence.and_then(|sequence| prove(&args.audit, sequence)) {
        Ok(receipt) => receipt.print(),
        Err(why) => return could_not_run(why),
    };
    let name = args.decision.clone().unwrap_or_else(|| format!("record-{}", args.sequence.unwrap_or(0)));
    let out = args.out.clone().unwrap_or_else(|| format!("{name}.tlog-proof").into());
    if out.as_os_str() == "-" {
        say(receipt.trim_end());
        return ExitCode::SUCCESS;
    }
    match std::fs::write(&out, receipt) {
        Ok(()) => {
            say(&format!("{}", out.display()));
            ExitCode::SUCCESS
        }
        Err(error) => could_not_run(format_args!("{}: cannot be written: {error}", out.display())),
    }
}
