//! `cardea bundle promote`: puts the candidate of the shadow in force.
#![expect(clippy::print_stdout, reason = "a command speaks on its standard streams")]

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::node::{self, NodeArgs, RevisionView, print_json};
use super::shadow::view::{ShadowView, summary};
use crate::cli::Format;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea bundle shadow status --node http://127.0.0.1:7411      # shows the digest and what would change
  cardea bundle promote --node http://127.0.0.1:7411 DIGEST --reason 'no widening in 100000 attempts'")]
pub(in crate::cli) struct PromoteArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Whole digest of the candidate that you looked at; another one is not promoted.
    #[arg(value_name = "DIGEST")]
    digest: String,
    /// Why; goes into the audit.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Promoted<'a> {
    ok: bool,
    revision: Option<RevisionView<'a>>,
    shadow: Option<ShadowView<'a>>,
}

pub(super) fn run(args: &PromoteArgs) -> ExitCode {
    node::run(args.format, async {
        let answer = args.node.connect().await?.promote(&args.digest, &args.reason).await?;
        match args.format {
            Format::Json => print_json(&Promoted {
                ok: true,
                revision: answer.revision.as_ref().map(Into::into),
                shadow: answer.shadow.as_ref().map(Into::into),
            }),
            Format::Human => {
                if let Some(revision) = &answer.revision {
                    node::print_in_force(args.format, revision);
                }
                if let Some(shadow) = &answer.shadow {
                    println!("the shadow is off: {}", summary(shadow));
                }
            }
        }
        Ok(true)
    })
}
