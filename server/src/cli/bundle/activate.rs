//! `cardea bundle activate`: puts a stored revision in force.

use std::process::ExitCode;

use clap::Args;

use super::node::{self, Failure, NodeArgs};
use crate::cli::Format;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea bundle activate --node http://127.0.0.1:7411 17 --reason 'after review 4711'")]
pub(in crate::cli) struct ActivateArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Revision in the node's store, or its whole digest; `cardea bundle list` shows both.
    #[arg(value_name = "REVISION|DIGEST")]
    which: String,
    /// Why; goes into the audit.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &ActivateArgs) -> ExitCode {
    node::run(args.format, async {
        let is_digest = args.which.len() == 64;
        let revision = match args.which.parse::<u64>() {
            _ if is_digest => None,
            Ok(revision) => Some(revision),
            Err(_) => {
                return Err(Failure::Here(format!(
                    "`{}` is neither a revision nor a digest of 64 hexadecimal digits",
                    args.which
                )));
            }
        };
        let mut client = args.node.connect().await?;
        let activated = match revision {
            Some(revision) => client.activate(revision, &args.reason).await?,
            None => client.activate_digest(&args.which, &args.reason).await?,
        };
        node::print_in_force(args.format, &activated);
        Ok(true)
    })
}
