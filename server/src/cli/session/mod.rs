//! `cardea session`: what a running node knows of sessions, and ending them.
#![expect(clippy::print_stdout, reason = "a command speaks on its standard streams")]

mod view;

use std::process::ExitCode;

use cardea_client::v1;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::Format;
use super::bundle::node::{self, Failure, NodeArgs, PAGE};
use super::words::{When, now_ms};
use crate::proving::words::Named;

#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// Open a session; the next decision knows it.
    ///
    /// Exit code 0: opened; 1: the node refused, for example because the id is taken; 2: could not run.
    Open(Box<OpenArgs>),
    /// List the sessions that a node keeps, by id.
    ///
    /// Exit code 0: listed; 2: could not run.
    List(ListArgs),
    /// Show one session.
    ///
    /// Exit code 0: shown; 1: the node does not know it; 2: could not run.
    Show(ShowArgs),
    /// End a session, or every session of a principal, for good. In force when the command returns.
    ///
    /// Exit code 0: ended; 1: the node refused; 2: could not run, so sessions may go on.
    End(EndArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea session open --node http://127.0.0.1:7411 run-7 --principal 'Agent::\"sync\"' --expires 1h --task sync-7")]
pub(super) struct OpenArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Its id; not guessable where it doubles as a credential.
    id: String,
    /// Whose session it is.
    #[arg(long, value_name = "ENTITY")]
    principal: Named,
    /// Its end: a span from now such as 8h, or RFC 3339; the bundle's maximum if it is later or unset.
    #[arg(long, value_name = "WHEN")]
    expires: Option<When>,
    /// The last login: '5m ago', or RFC 3339. Unset: never.
    #[arg(long, value_name = "WHEN")]
    authenticated: Option<When>,
    /// Authentication context class of that login.
    #[arg(long, value_name = "TEXT", default_value = "")]
    acr: String,
    /// A method of that login (RFC 8176); again for more.
    #[arg(long = "amr", value_name = "METHOD")]
    amr: Vec<String>,
    /// A label that policies can read; again for more.
    #[arg(long = "label", value_name = "TEXT")]
    labels: Vec<String>,
    /// The approved task that it is for.
    #[arg(long, value_name = "ID", default_value = "")]
    task: String,
    /// The session that it runs below: ending that one ends it.
    #[arg(long, value_name = "ID", default_value = "")]
    parent: String,
    /// The device that it runs on, as signals name it.
    #[arg(long, value_name = "ID", default_value = "")]
    device: String,
    /// The tenant that it belongs to, as signals name it.
    #[arg(long, value_name = "NAME", default_value = "")]
    tenant: String,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea session list --node http://127.0.0.1:7411 --principal 'Agent::\"sync\"' --limit 50")]
pub(super) struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Only this principal's.
    #[arg(long, value_name = "ENTITY")]
    principal: Option<Named>,
    /// At most so many; 0: all.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    /// How sessions are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea session show --node http://127.0.0.1:7411 run-7")]
pub(super) struct ShowArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The session.
    id: String,
    /// How the session is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("whose").required(true))]
#[command(after_help = "\
Examples:
  cardea session end --node http://127.0.0.1:7411 run-7 --reason 'wrong target'
  cardea session end --node http://127.0.0.1:7411 --principal 'Agent::\"sync\"' --reason 'key leaked'")]
pub(super) struct EndArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The session, known to the node or not.
    #[arg(group = "whose")]
    id: Option<String>,
    /// Every session that this principal opened up to now.
    #[arg(long, value_name = "ENTITY", group = "whose")]
    principal: Option<Named>,
    /// Why; goes into the record.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(command: &SessionCommand) -> ExitCode {
    match command {
        SessionCommand::Open(args) => node::run(args.format, open(args)),
        SessionCommand::List(args) => node::run(args.format, list(args)),
        SessionCommand::Show(args) => node::run(args.format, show(args)),
        SessionCommand::End(args) => node::run(args.format, end(args)),
    }
}

async fn open(args: &OpenArgs) -> Result<bool, Failure> {
    let now_ms = now_ms();
    let session = v1::Session {
        id: args.id.clone(),
        principal: Some(args.principal.reference()),
        expires_at: args.expires.map(|when| when.message(now_ms)),
        authenticated_at: args.authenticated.map(|when| when.message(now_ms)),
        acr: args.acr.clone(),
        amr: args.amr.clone(),
        labels: args.labels.clone(),
        task_id: args.task.clone(),
        parent_session_id: args.parent.clone(),
        device_id: args.device.clone(),
        tenant: args.tenant.clone(),
        ..v1::Session::default()
    };
    let answer = args.node.connect().await?.open_session(session).await?;
    let session = answer.session.unwrap_or_default();
    match args.format {
        Format::Json => {
            let session = view::SessionView::from(&session);
            node::print_json(&view::Opened { ok: true, session, state_version: answer.state_version });
        }
        Format::Human => print!("{}", view::details(&session)),
    }
    Ok(true)
}

async fn list(args: &ListArgs) -> Result<bool, Failure> {
    let mut client = args.node.connect().await?;
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let (sessions, has_more) = node::pages(limit, async |page_token| {
        let principal = args.principal.as_ref().map(Named::reference);
        let request = v1::ListSessionsRequest { principal, page_size: PAGE, page_token };
        let page = client.sessions(request).await?;
        Ok((page.sessions, page.next_page_token))
    })
    .await?;
    match args.format {
        Format::Json => {
            let sessions = sessions.iter().map(Into::into).collect();
            node::print_json(&view::Sessions { sessions, has_more });
        }
        Format::Human if sessions.is_empty() => println!("the node keeps no such session"),
        Format::Human => {
            print!("{}", view::table(&sessions));
            if has_more {
                println!("… and more; raise --limit");
            }
        }
    }
    Ok(true)
}

async fn show(args: &ShowArgs) -> Result<bool, Failure> {
    let session = args.node.connect().await?.session(args.id.as_str()).await?;
    match args.format {
        Format::Json => node::print_json(&view::SessionView::from(&session)),
        Format::Human => print!("{}", view::details(&session)),
    }
    Ok(true)
}

#[derive(Serialize)]
struct Ended {
    ok: bool,
    ended: u64,
    state_version: u64,
}

async fn end(args: &EndArgs) -> Result<bool, Failure> {
    let mut client = args.node.connect().await?;
    let reason = args.reason.as_str();
    let answer = match (&args.id, &args.principal) {
        (Some(id), None) => client.end_session(id, reason).await?,
        (None, Some(principal)) => client.end_sessions_of(principal.reference(), reason).await?,
        (None, None) | (Some(_), Some(_)) => {
            return Err(Failure::Here("name a session, or a principal with --principal".to_owned()));
        }
    };
    match args.format {
        Format::Json => {
            node::print_json(&Ended { ok: true, ended: answer.ended, state_version: answer.state_version })
        }
        Format::Human => println!(
            "{} ended that the node knew; none counts from state version {} on",
            answer.ended, answer.state_version
        ),
    }
    Ok(true)
}
