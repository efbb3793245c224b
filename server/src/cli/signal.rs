//! `cardea signal`: tell a running node that a fact changed.
#![expect(clippy::print_stdout, reason = "a command speaks on its standard streams")]

use std::process::ExitCode;

use cardea_client::v1::{self, signal::Change};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::Format;
use super::bundle::node::{self, Failure, NodeArgs};
use super::words::{When, now_ms};
use crate::proving::words::{Named, Span};

#[derive(Debug, Subcommand)]
pub(super) enum SignalCommand {
    /// Report risk that was seen: a kind, how bad, how sure.
    ///
    /// Exit code 0: applied; 1: refused, or newer knowledge stays; 2: could not run.
    Risk(RiskArgs),
    /// End a session, every session of a principal, or every session of a tenant.
    ///
    /// Exit code 0: applied; 1: refused, or already so; 2: could not run.
    Revoke(RevokeArgs),
    /// Disable a principal: it and whoever acts for it are denied.
    ///
    /// Exit code 0: applied; 1: refused, or newer knowledge stays; 2: could not run.
    Disable(WhomArgs),
    /// Let a disabled principal act again.
    ///
    /// Exit code 0: applied; 1: refused, or newer knowledge stays; 2: could not run.
    Enable(SubjectArgs),
    /// Disable a principal for good: nothing enables it again.
    ///
    /// Exit code 0: applied; 1: refused, or already so; 2: could not run.
    Purge(WhomArgs),
    /// A credential of a principal changed: logins from before count as outdated.
    ///
    /// Exit code 0: applied; 1: refused, or newer knowledge stays; 2: could not run.
    Credential(SubjectArgs),
    /// A device meets its owner's rules, or does not.
    ///
    /// Exit code 0: applied; 1: refused, or newer knowledge stays; 2: could not run.
    Device(DeviceArgs),
}

/// Kinds of risk.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    AnomalousBehavior,
    CredentialCompromise,
    WorkloadCompromise,
    NetworkAnomaly,
    PromptInjection,
    DataExfiltration,
    VendorScore,
    Operator,
}

/// What every signal has.
#[derive(Debug, Args)]
struct Told {
    #[command(flatten)]
    node: NodeArgs,
    /// Who says so; goes into the record and the evidence.
    #[arg(long, value_name = "TEXT", default_value = "cardea signal")]
    source: String,
    /// When it happened: '5m ago', or RFC 3339. Unset: now. Older events never overwrite newer ones.
    #[arg(long, value_name = "WHEN")]
    at: Option<When>,
    /// How the outcome is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea signal risk --node http://127.0.0.1:7411 'Agent::\"sync\"' --kind data-exfiltration --severity 80")]
pub(super) struct RiskArgs {
    #[command(flatten)]
    told: Told,
    /// Whom it is about.
    subject: Named,
    /// What was seen.
    #[arg(long, value_enum, default_value = "operator")]
    kind: Kind,
    /// How bad it is if true, 0 to 100; 0 clears the kind.
    #[arg(long, value_name = "0-100", value_parser = clap::value_parser!(u32).range(0..=100))]
    severity: u32,
    /// How sure the source is, 0 to 100.
    #[arg(long, value_name = "0-100", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100))]
    confidence: u32,
    /// Time after which the weight has halved, such as 10m. Unset: the bundle's.
    #[arg(long, value_name = "SPAN")]
    half_life: Option<Span>,
    /// Why.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea signal revoke --node http://127.0.0.1:7411 --session run-7
  cardea signal revoke --node http://127.0.0.1:7411 --principal 'Agent::\"sync\"' --reason 'key leaked'
  cardea signal revoke --node http://127.0.0.1:7411 --tenant acme")]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    told: Told,
    #[command(flatten)]
    target: Target,
    /// Why; goes into the record.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// This session.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Every session that this principal opened up to the event.
    #[arg(long, value_name = "ENTITY")]
    principal: Option<Named>,
    /// Every session of this tenant that was opened up to the event.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea signal disable --node http://127.0.0.1:7411 'Agent::\"sync\"' --reason 'left the project'")]
pub(super) struct WhomArgs {
    #[command(flatten)]
    told: Told,
    /// The principal.
    subject: Named,
    /// Why; goes into the record.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea signal enable --node http://127.0.0.1:7411 'Agent::\"sync\"'
  cardea signal credential --node http://127.0.0.1:7411 'User::\"ann\"' --at 2026-01-01T12:00:00Z")]
pub(super) struct SubjectArgs {
    #[command(flatten)]
    told: Told,
    /// The principal.
    subject: Named,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea signal device --node http://127.0.0.1:7411 --device laptop-7 --compliant false")]
pub(super) struct DeviceArgs {
    #[command(flatten)]
    told: Told,
    /// The device, as sessions name it.
    #[arg(long, value_name = "ID", required_unless_present = "session", conflicts_with = "session")]
    device: Option<String>,
    /// The device of this session.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Whether it meets the rules: true or false.
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    compliant: bool,
}

pub(super) fn run(command: &SignalCommand) -> ExitCode {
    let (told, subject, change) = match command {
        SignalCommand::Risk(args) => (&args.told, Some(&args.subject), risk(args)),
        SignalCommand::Revoke(args) => (&args.told, args.target.principal.as_ref(), revoke(args)),
        SignalCommand::Disable(args) => {
            let reason = args.reason.clone();
            let change = Change::PrincipalDisabled(v1::PrincipalDisabled { reason });
            (&args.told, Some(&args.subject), change)
        }
        SignalCommand::Enable(args) => {
            (&args.told, Some(&args.subject), Change::PrincipalEnabled(v1::PrincipalEnabled {}))
        }
        SignalCommand::Purge(args) => {
            let change = Change::PrincipalPurged(v1::PrincipalPurged { reason: args.reason.clone() });
            (&args.told, Some(&args.subject), change)
        }
        SignalCommand::Credential(args) => {
            let change = Change::CredentialChanged(v1::CredentialChanged { session_id: String::new() });
            (&args.told, Some(&args.subject), change)
        }
        SignalCommand::Device(args) => {
            let change = v1::DeviceComplianceChanged {
                session_id: args.session.clone().unwrap_or_default(),
                device_id: args.device.clone().unwrap_or_default(),
                compliant: args.compliant,
            };
            (&args.told, None, Change::DeviceCompliance(change))
        }
    };
    node::run(told.format, report(told, subject, change))
}

fn risk(args: &RiskArgs) -> Change {
    let kind = match args.kind {
        Kind::AnomalousBehavior => v1::RiskKind::AnomalousBehavior,
        Kind::CredentialCompromise => v1::RiskKind::CredentialCompromise,
        Kind::WorkloadCompromise => v1::RiskKind::WorkloadCompromise,
        Kind::NetworkAnomaly => v1::RiskKind::NetworkAnomaly,
        Kind::PromptInjection => v1::RiskKind::PromptInjection,
        Kind::DataExfiltration => v1::RiskKind::DataExfiltration,
        Kind::VendorScore => v1::RiskKind::VendorScore,
        Kind::Operator => v1::RiskKind::Operator,
    };
    Change::Risk(v1::RiskObserved {
        kind: kind.into(),
        severity: args.severity,
        confidence: args.confidence,
        half_life: args.half_life.map(|span| prost_types::Duration { seconds: span.ms / 1000, nanos: 0 }),
        reason: args.reason.clone(),
    })
}

fn revoke(args: &RevokeArgs) -> Change {
    let reason = args.reason.clone();
    match &args.target.tenant {
        Some(tenant) => Change::TenantRevoked(v1::TenantRevoked { tenant: tenant.clone(), reason }),
        None => Change::SessionRevoked(v1::SessionRevoked {
            session_id: args.target.session.clone().unwrap_or_default(),
            reason,
        }),
    }
}

#[derive(Serialize)]
struct Outcome {
    ok: bool,
    outcome: &'static str,
    state_version: u64,
}

async fn report(told: &Told, subject: Option<&Named>, change: Change) -> Result<bool, Failure> {
    let signal = v1::Signal {
        subject: subject.map(Named::reference),
        event_time: told.at.map(|when| when.message(now_ms())),
        source: told.source.clone(),
        change: Some(change),
    };
    let answer = told.node.connect().await?.report(vec![signal]).await?;
    let state_version = answer.state_version;
    let outcome = answer.outcomes.first().and_then(|outcome| v1::SignalOutcome::try_from(*outcome).ok());
    let (ok, outcome, sentence) = match outcome {
        Some(v1::SignalOutcome::Applied) => (true, "applied", "in force and durable"),
        Some(v1::SignalOutcome::Superseded) => {
            (false, "superseded", "nothing changed: newer knowledge stays, and nothing undoes a purge")
        }
        Some(v1::SignalOutcome::UnknownSubject) => {
            (false, "unknown_subject", "nothing changed: the node does not know the session")
        }
        Some(v1::SignalOutcome::Refused) => {
            (false, "refused", "nothing changed: the node has no place to remember it; send it again later")
        }
        Some(v1::SignalOutcome::Unspecified) | None => {
            (false, "unknown", "the node did not say what became of it")
        }
    };
    match told.format {
        Format::Json => node::print_json(&Outcome { ok, outcome, state_version }),
        Format::Human => println!("{sentence} (state version {state_version})"),
    }
    Ok(ok)
}
