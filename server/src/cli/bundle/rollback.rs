//! `cardea bundle rollback`: back to the content of an earlier revision, under a new and higher one.
//!
//! With `--node` the node does it from its store.

use std::process::ExitCode;

use clap::Args;

use super::node::{self, TlsArgs};
use crate::cli::Format;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea bundle rollback --node http://127.0.0.1:7411 --to 16 --reason 'refunds were denied'")]
pub(in crate::cli) struct RollbackArgs {
    /// The running node that goes back: http://127.0.0.1:7411, unix:/run/cardea/grpc.sock, or https://HOST:PORT.
    #[arg(long, value_name = "URL", requires_all = ["to", "reason"])]
    node: String,
    #[command(flatten)]
    tls: TlsArgs,
    /// Revision in the node's store whose content comes into force again; `cardea bundle list` shows them.
    #[arg(long, value_name = "REVISION")]
    to: u64,
    /// Why; goes into the audit.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &RollbackArgs) -> ExitCode {
    node::run(args.format, async {
        let mut client = node::connect(&args.node, &args.tls).await?;
        let revision = client.roll_back(args.to, &args.reason).await?;
        node::print_in_force(args.format, &revision);
        Ok(true)
    })
}
