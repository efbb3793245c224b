//! `cardea audit tiles`: a log as static files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::could_not_run;
use crate::audit::publish::publish;
use crate::cli::drawn::say;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea audit tiles .cardea/audit --out /srv/www/audit
                                     then any web server makes it a log for tools that read C2SP tlog-tiles

Run it again to add what is new; what is full never changes. A node may go on writing meanwhile.")]
pub(in crate::cli) struct TilesArgs {
    /// Directory of the log.
    #[arg(default_value = "audit")]
    audit: PathBuf,
    /// Where the files go; made if missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(args: &TilesArgs) -> ExitCode {
    match publish(&args.audit, &args.out) {
        Ok(done) => {
            say(&format!(
                "{} records: {} new tiles, {} new bundles of entries, in {}",
                done.size,
                done.tiles,
                done.bundles,
                args.out.display()
            ));
            ExitCode::SUCCESS
        }
        Err(why) => could_not_run(why),
    }
}
