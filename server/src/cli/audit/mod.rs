//! `cardea audit`: reading the audit log, and holding it against its signatures.

mod erase;
mod explain;
mod key;
mod output;
mod prove;
mod query;
mod shown;
mod tiles;
mod verify;

use std::path::Path;
use std::process::ExitCode;

use cardea_tlog::VerifierKey;
use clap::Subcommand;

use super::exit;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Verify that nothing in a log was altered, removed, reordered or inserted; or a receipt without its log.
    ///
    /// Exit code 0: it is what was signed; 1: it is not, with what and where; 2: could not run.
    Verify(verify::VerifyArgs),
    /// Make a receipt for a decision: what shows to anybody that its record is in the log.
    ///
    /// Exit code 0: written; 2: could not run, or it is not proven.
    Prove(prove::ProveArgs),
    /// Show records on disk: of a time, a principal, a decision, a policy; or write them as a table.
    ///
    /// Exit code 0: shown or written; 1: none fits; 2: could not run.
    Query(query::QueryArgs),
    /// Tell the whole story of a decision: what was asked and known, what settled it, what followed.
    ///
    /// Exit code 0: told; 1: it is not here; 2: could not run.
    Explain(explain::ExplainArgs),
    /// Show records of a running node as they are written, until Ctrl-C.
    ///
    /// Exit code 0: interrupted; 2: could not run, or the node ended the stream.
    Tail(query::TailArgs),
    /// Write the log as static files that public tools read: tiles of hashes and entries, and the checkpoint.
    ///
    /// Exit code 0: written; 2: could not run.
    Tiles(tiles::TilesArgs),
    /// Tell the pseudonym that a masked value has in a log, to find what it says of it.
    ///
    /// Exit code 0: told; 1: it has none; 2: could not run.
    Pseudonym(erase::PseudonymArgs),
    /// Erase what links values to their pseudonyms in a log: nobody can tell any more whom its records are about.
    ///
    /// Exit code 0: erased; 1: none had a pseudonym; 2: could not run.
    Erase(erase::EraseArgs),
    /// Make a key that signs a log, for nodes that shall not make their own.
    ///
    /// Exit code 0: written; 2: could not run.
    Key(key::KeyArgs),
}

pub(super) fn run(command: &AuditCommand) -> ExitCode {
    match command {
        AuditCommand::Verify(args) => verify::run(args),
        AuditCommand::Prove(args) => prove::run(args),
        AuditCommand::Query(args) => query::run(args),
        AuditCommand::Explain(args) => explain::run(args),
        AuditCommand::Tiles(args) => tiles::run(args),
        AuditCommand::Tail(args) => query::tail(args),
        AuditCommand::Pseudonym(args) => erase::pseudonym(args),
        AuditCommand::Erase(args) => erase::erase(args),
        AuditCommand::Key(args) => key::run(args),
    }
}

/// Tells why a command could not run.
#[expect(clippy::print_stderr, reason = "a command speaks on its standard streams")]
fn could_not_run(what: impl std::fmt::Display) -> ExitCode {
    eprintln!("{what}");
    ExitCode::from(exit::COULD_NOT_RUN)
}

/// A public key, given as itself or as the file that holds it.
fn verifier(text: &str) -> Result<VerifierKey, String> {
    let path = Path::new(text);
    let is_file = path.is_file();
    let read = if is_file {
        std::fs::read_to_string(path).map_err(|error| error.to_string())
    } else {
        Ok(text.to_owned())
    };
    let key = read.and_then(|text| VerifierKey::parse(text.trim()).map_err(|why| why.to_string()));
    key.map_err(|why| {
        let what = if is_file { "the file" } else { "the argument" };
        format!(
            "--key: {what} `{text}` is no public key: {why}; `cardea serve` logs it as vkey when it starts"
        )
    })
}
