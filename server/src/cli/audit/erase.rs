//! `cardea audit pseudonym` and `cardea audit erase`: what a value is called in a log, and the end of that.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::could_not_run;
use crate::audit::salts::Salts;
use crate::cli::{Format, exit};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea audit pseudonym ann@example.com --audit .cardea/audit
  cardea audit query .cardea/audit --principal \"Person::\\\"$(cardea audit pseudonym ann --audit .cardea/audit)\\\"\"")]
pub(in crate::cli) struct PseudonymArgs {
    /// The value: the id of an entity, or what stood in a field.
    value: String,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A node that runs notices within a second. Erased values have new pseudonyms from then on.

Examples:
  cardea audit erase ann@example.com --audit .cardea/audit
  cardea audit erase ann +43123456 'Ann Doe' --audit .cardea/audit --format json")]
pub(in crate::cli) struct EraseArgs {
    /// The values: ids of entities, and what stood in fields.
    #[arg(required = true, num_args = 1..)]
    values: Vec<String>,
    #[command(flatten)]
    at: At,
    /// How the outcome is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
struct At {
    /// The directory of the log; its salts lie beside it.
    #[arg(long, value_name = "DIR", default_value = "audit")]
    audit: PathBuf,
}

impl At {
    fn salts(&self) -> Result<Salts, String> {
        let path = Salts::path(&self.audit);
        Salts::read(&path).map_err(|why| {
            let cause = std::error::Error::source(&why).map(|cause| format!(": {cause}")).unwrap_or_default();
            format!(
                "{why}{cause}; a node makes them once its bundle has `\"…\" = \"hash\"` below [audit.mask]"
            )
        })
    }
}

pub(super) fn pseudonym(args: &PseudonymArgs) -> ExitCode {
    match args.at.salts().map(|salts| salts.known(&args.value)) {
        Ok(Some(pseudonym)) => {
            println!("{pseudonym}");
            ExitCode::SUCCESS
        }
        Ok(None) => {
            eprintln!("`{}` has no pseudonym in this log: it was never masked, or was erased", args.value);
            ExitCode::from(exit::FINDINGS)
        }
        Err(why) => could_not_run(why),
    }
}

pub(super) fn erase(args: &EraseArgs) -> ExitCode {
    let erased =
        args.at.salts().and_then(|mut salts| salts.erase(&args.values).map_err(|why| why.to_string()));
    match erased {
        Ok(erased) => {
            match args.format {
                Format::Human => println!(
                    "{erased} of {} values had a pseudonym; nobody can link it to them any more",
                    args.values.len()
                ),
                Format::Json => {
                    println!("{}", serde_json::json!({"asked": args.values.len(), "erased": erased}))
                }
            }
            if erased > 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::FINDINGS) }
        }
        Err(why) => could_not_run(why),
    }
}
