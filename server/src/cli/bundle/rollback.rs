//! `cardea bundle rollback`: back to the content of an earlier revision, under a new and higher one.
//!
//! With an old packed bundle it makes a new one, to be signed and published like any other. With `--node` a running node
//! goes back by itself, from its store.

use std::path::PathBuf;
use std::process::ExitCode;

use cardea_policy_store::load;
use cardea_policy_store::manifest::Manifest;
use cardea_policy_store::pack;
use clap::Args;

use super::build::{Built, Says, written};
use super::node::{self, TlsArgs};
use super::output::{End, end};
use crate::cli::Format;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea bundle rollback agents-6.cardea --revision 8 -o out/
  cardea bundle sign out/agents-8.cardea --key ci.key

  cardea bundle rollback --node http://127.0.0.1:7411 --to 6 --reason 'refunds were denied'")]
pub(in crate::cli) struct RollbackArgs {
    /// The packed bundle to go back to.
    #[arg(required_unless_present = "node", conflicts_with = "node")]
    old: Option<PathBuf>,
    #[command(flatten)]
    says: Says,
    /// Where to write: a file, or a directory for NAME-REVISION.cardea in it.
    #[arg(short, long, value_name = "PATH", default_value = ".")]
    output: PathBuf,
    /// The running node that goes back: http://127.0.0.1:7411, unix:/run/cardea/grpc.sock, or https://HOST:PORT.
    #[arg(long, value_name = "URL", requires_all = ["to", "reason"], conflicts_with_all = ["revision", "created", "not_before", "expires"])]
    node: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Revision in the node's store whose content comes into force again; `cardea bundle list` shows them.
    #[arg(long, value_name = "REVISION", requires = "node")]
    to: Option<u64>,
    /// Why; goes into the audit of the node.
    #[arg(long, value_name = "TEXT", requires = "node")]
    reason: Option<String>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &RollbackArgs) -> ExitCode {
    match &args.old {
        Some(old) => end(&rebuild(args, old).unwrap_or_else(|end| end), args.format, Built::human),
        None => on_node(args),
    }
}

fn on_node(args: &RollbackArgs) -> ExitCode {
    node::run(args.format, async {
        let mut client = node::connect(args.node.as_deref().unwrap_or(""), &args.tls).await?;
        let revision = client.roll_back(args.to.unwrap_or(0), args.reason.as_deref().unwrap_or("")).await?;
        node::print_in_force(args.format, &revision);
        Ok(true)
    })
}

fn rebuild(args: &RollbackArgs, old: &std::path::Path) -> Result<End<Built>, End<Built>> {
    let packed = super::packed(old).map_err(|fault| End::Failed(fault.to_string()))?;
    let content = packed.unpack().map_err(|error| End::Failed(format!("`{}`: {error}", old.display())))?;
    let before = content.manifest.revision;
    let revision = args.says.revision.filter(|revision| *revision > before).ok_or_else(|| {
        End::Failed(format!("give --revision, higher than any that nodes had since revision {before}"))
    })?;
    // What it was validated with may be another version than this one.
    load::files(&content.files)?;
    let manifest = pack::manifest_for(&content.manifest.name, revision, &content.files);
    let manifest = Manifest { rollback_of: Some(before), ..manifest };
    let manifest = args.says.manifest(manifest).map_err(End::Failed)?;
    written(&manifest, &content.files, &args.output)
}
