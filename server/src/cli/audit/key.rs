//! `cardea audit key`: a key that signs checkpoints.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::could_not_run;
use crate::audit::key;
use crate::cli::drawn::say;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea audit key example.com/node-1/audit --out audit.key
                                     then `key_file = \"audit.key\"` under [audit] of the node

What is printed verifies the log; keep it where the node cannot write. The name is the log's origin in its checkpoints.")]
pub(in crate::cli) struct KeyArgs {
    /// Name of the log, without spaces and plus.
    name: String,
    /// Where the key is written, readable by its owner only; the file must not be there.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(args: &KeyArgs) -> ExitCode {
    match key::make(&args.out, &args.name) {
        Ok(signer) => {
            say(&signer.verifier().to_string());
            ExitCode::SUCCESS
        }
        Err(why) => {
            let cause =
                std::error::Error::source(&why).map(|source| format!(": {source}")).unwrap_or_default();
            could_not_run(format_args!("{why}{cause}"))
        }
    }
}
