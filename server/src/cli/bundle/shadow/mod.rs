//! `cardea bundle shadow`: a candidate evaluated beside the bundle in force, on live attempts.
#![expect(clippy::print_stdout, reason = "a command speaks on its standard streams")]

pub(super) mod view;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use cardea_client::{Candidate, Client, v1};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use self::view::ShadowView;
use super::node::{self, Failure, NodeArgs, print_json};
use crate::cli::Format;
use crate::limits;
use crate::shadow::SAMPLE_WHOLE;

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Example:
  cardea bundle shadow start --node http://127.0.0.1:7411 agents-18.cardea --sample 0.1 --watch
  cardea bundle shadow status --node http://127.0.0.1:7411 --fail-on widening
  cardea bundle promote --node http://127.0.0.1:7411 DIGEST")]
pub(in crate::cli) enum ShadowCommand {
    /// Evaluate a candidate beside the bundle in force. Nobody is told its answers, and no call waits for it.
    Start(StartArgs),
    /// Show what the candidate would have changed so far.
    ///
    /// Exit code 0: fine; 1: no shadow is on, or it found what --fail-on names; 2: could not run.
    Status(StatusArgs),
    /// Print each recorded difference as it happens, until interrupted.
    Watch(WatchArgs),
    /// End the shadow and show what it found.
    Stop(StopArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StartArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Packed bundle to evaluate.
    #[arg(value_name = "FILE", required_unless_present = "revision", conflicts_with = "revision")]
    file: Option<PathBuf>,
    /// Revision in the node's store to evaluate.
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
    /// Share of the attempts that are evaluated, above 0 and at most 1; in steps of 0.0001.
    #[arg(long, value_name = "SHARE", default_value = "1", value_parser = share)]
    sample: u32,
    /// Why; goes into the audit.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Take the place of a shadow that is on.
    #[arg(long)]
    replace: bool,
    /// Go on to print each recorded difference, until interrupted. The shadow stays on.
    #[arg(long)]
    watch: bool,
    /// How the result is printed; with --watch, JSON is one line for each difference.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Findings that make the exit code 1.
    #[arg(long, value_enum, value_name = "WHAT")]
    fail_on: Option<FailOn>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum FailOn {
    /// An answer that became more open.
    Widening,
    /// Any difference.
    Difference,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct WatchArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// How differences are printed; JSON is one line for each.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StopArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Why; goes into the audit.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(command: &ShadowCommand) -> ExitCode {
    match command {
        ShadowCommand::Start(args) => node::run(args.format, start(args)),
        ShadowCommand::Status(args) => node::run(args.format, status(args)),
        ShadowCommand::Watch(args) => node::run(args.format, async {
            let mut client = args.node.connect().await?;
            let differences = watch::differences(&mut client).await?;
            watch::print_all(differences, args.format).await
        }),
        ShadowCommand::Stop(args) => node::run(args.format, async {
            let shadow = args.node.connect().await?.stop_shadow(&args.reason).await?;
            print_shadow(args.format, &shadow);
            Ok(true)
        }),
    }
}

async fn start(args: &StartArgs) -> Result<bool, Failure> {
    let candidate = match (&args.file, args.revision) {
        (Some(file), _) => packed(file)?,
        (None, Some(revision)) => Candidate::Revision(revision),
        (None, None) => return Err(Failure::Here("name a FILE or a --revision".to_owned())),
    };
    let start = v1::ShadowStart {
        candidate: None,
        sample_per_10000: args.sample,
        reason: args.reason.clone(),
        replace: args.replace,
    };
    let mut client: Client = args.node.connect().await?;
    // Opened first, so that no difference is missed.
    let differences = if args.watch { Some(watch::differences(&mut client).await?) } else { None };
    let shadow = client.start_shadow(candidate, start).await?;
    let Some(differences) = differences else {
        print_shadow(args.format, &shadow);
        return Ok(true);
    };
    if args.format == Format::Human {
        println!("{}\n", view::head(&shadow));
    }
    watch::print_all(differences, args.format).await
}

fn packed(file: &std::path::Path) -> Result<Candidate, Failure> {
    if file.is_dir() {
        return Err(Failure::Here(format!(
            "`{}` is a directory; pack it first with `cardea bundle build`",
            file.display()
        )));
    }
    let bytes = node::read(file)?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if !(1..=limits::CANDIDATE_BYTES_MAX).contains(&length) {
        let max = limits::CANDIDATE_BYTES_MAX;
        let shown = file.display();
        return Err(Failure::Here(format!("`{shown}` has {length} bytes; a packed bundle has 1 to {max}")));
    }
    Ok(Candidate::Packed(bytes.into()))
}

async fn status(args: &StatusArgs) -> Result<bool, Failure> {
    let shadow = args.node.connect().await?.shadow().await?;
    let Some(shadow) = shadow else {
        print_none(args.format);
        return Ok(false);
    };
    print_shadow(args.format, &shadow);
    let found = |effect: Option<v1::ShadowEffect>| {
        let of = |change: &&v1::ShadowChange| effect.is_none_or(|effect| change.effect() == effect);
        shadow.changes.iter().filter(of).any(|change| change.count > 0)
    };
    Ok(match args.fail_on {
        None => true,
        Some(FailOn::Widening) => !found(Some(v1::ShadowEffect::Widened)),
        Some(FailOn::Difference) => !found(None),
    })
}

#[derive(Serialize)]
struct Answer<'a> {
    shadow: Option<ShadowView<'a>>,
}

fn print_shadow(format: Format, shadow: &v1::Shadow) {
    match format {
        Format::Json => print_json(&Answer { shadow: Some(shadow.into()) }),
        Format::Human => print!("{}", view::whole(shadow)),
    }
}

fn print_none(format: Format) {
    match format {
        Format::Json => print_json(&Answer { shadow: None }),
        Format::Human => println!("no shadow is on; start one with `cardea bundle shadow start`"),
    }
}

/// A share from 0.0001 to 1, in parts of [`SAMPLE_WHOLE`].
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be from 0 to 1")]
fn share(text: &str) -> Result<u32, String> {
    let wanted = || "write a share above 0 and at most 1, such as 0.1".to_owned();
    let share: f64 = text.parse().map_err(|_| wanted())?;
    if !(share > 0.0 && share <= 1.0) {
        return Err(wanted());
    }
    let parts = (share * f64::from(SAMPLE_WHOLE)).round() as u32;
    if parts == 0 { Err("the smallest share is 0.0001".to_owned()) } else { Ok(parts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_read_in_steps_and_within_its_bounds() {
        assert_eq!(share("1"), Ok(10_000));
        assert_eq!(share("0.1"), Ok(1_000));
        assert_eq!(share("0.0001"), Ok(1));
        for bad in ["0", "-0.5", "1.01", "NaN", "half", "0.00001"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
