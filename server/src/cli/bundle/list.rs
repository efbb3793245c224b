//! `cardea bundle list`: the revisions that a node has.
#![expect(clippy::print_stdout, reason = "a command speaks on its standard streams")]

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::node::{self, NodeArgs, RevisionView, print_json, table, time};
use crate::cli::Format;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea bundle list --node http://127.0.0.1:7411")]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// How revisions are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct List<'a> {
    revisions: Vec<RevisionView<'a>>,
}

pub(super) fn run(args: &ListArgs) -> ExitCode {
    node::run(args.format, async {
        let revisions = args.node.connect().await?.revisions().await?;
        match args.format {
            Format::Json => print_json(&List { revisions: revisions.iter().map(Into::into).collect() }),
            Format::Human if revisions.is_empty() => println!("the node has no bundle"),
            Format::Human => {
                let dash = || "-".to_owned();
                let row = |revision: &cardea_client::v1::Revision| {
                    vec![
                        revision.revision.to_string(),
                        node::state(revision.state()).to_owned(),
                        revision.name.clone(),
                        time(revision.created.as_ref()).unwrap_or_else(dash),
                        time(revision.activated_at.as_ref()).unwrap_or_else(dash),
                        match revision.signed_by.is_empty() {
                            true => "unsigned".to_owned(),
                            false => revision.signed_by.join(","),
                        },
                        revision.digest.clone(),
                    ]
                };
                let rows: Vec<_> = revisions.iter().map(row).collect();
                let head = ["REVISION", "STATE", "NAME", "CREATED", "ACTIVATED", "SIGNED BY", "DIGEST"];
                print!("{}", table(&head, &rows));
            }
        }
        Ok(true)
    })
}
