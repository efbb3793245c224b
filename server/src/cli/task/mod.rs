//! `cardea task`: approved pieces of work on a running node.
#![expect(clippy::print_stdout, reason = "a command speaks on its standard streams")]

mod view;

use std::process::ExitCode;

use cardea_client::v1;
use clap::{Args, Subcommand};

use super::Format;
use super::bundle::node::{self, Failure, NodeArgs, PAGE};
use super::words::{By, When, now_ms};
use crate::proving::words::Named;

#[derive(Debug, Subcommand)]
pub(super) enum TaskCommand {
    /// Approve a piece of work: who may do what, on which resources, until when.
    ///
    /// Exit code 0: approved; 1: the node refused; 2: could not run.
    Approve(Box<ApproveArgs>),
    /// Take actions, resources or time away from a task. In force at once for everybody who uses it.
    ///
    /// Exit code 0: narrowed; 1: the node refused, for example because something was not in the task; 2: could not run.
    Narrow(Box<NarrowArgs>),
    /// Move the end of a task's window, at most to its latest end.
    ///
    /// Exit code 0: extended; 1: the node refused; 2: could not run.
    Extend(ExtendArgs),
    /// End a task for good. In force at once for everybody who uses it.
    ///
    /// Exit code 0: ended; 1: the node does not know it; 2: could not run.
    End(EndArgs),
    /// List the tasks that a node knows.
    ///
    /// Exit code 0: listed; 2: could not run.
    List(ListArgs),
    /// Show one task with its history.
    ///
    /// Exit code 0: shown; 1: the node does not know it; 2: could not run.
    Show(ShowArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea task approve --node http://127.0.0.1:7411 sync-7 --agent 'Agent::\"sync\"' --action read \\
      --resource 'Table::\"sales/*\"' --ends 8h --purpose 'nightly sync' --by 'Person::\"ann\"'")]
pub(super) struct ApproveArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The task's id; sessions and attempts name it.
    id: String,
    /// Who may use it, as 'Type::"id"'.
    #[arg(long, value_name = "ENTITY")]
    agent: Named,
    /// On whose behalf: attempts then need this entity above the agent in their delegation chain.
    #[arg(long, value_name = "ENTITY")]
    on_behalf_of: Option<Named>,
    /// An action that it may use, by id; again for more.
    #[arg(long = "action", value_name = "ID", required = true)]
    actions: Vec<String>,
    /// A resource that it may touch, 'Type::"id"' or 'Type::"prefix*"'; again for more. None: every resource.
    #[arg(long = "resource", value_name = "PATTERN")]
    resources: Vec<String>,
    /// When its window opens: a span from now, or RFC 3339. Unset: at once.
    #[arg(long, value_name = "WHEN")]
    starts: Option<When>,
    /// When its window closes: a span from now such as 8h, or RFC 3339.
    #[arg(long, value_name = "WHEN")]
    ends: When,
    /// How far its end can be moved later. Unset: 90 days after the approval.
    #[arg(long, value_name = "WHEN")]
    latest_end: Option<When>,
    /// What the work is for.
    #[arg(long, value_name = "TEXT", default_value = "")]
    purpose: String,
    /// Who approves it, as 'Type::"id"'; not the agent.
    #[arg(long, value_name = "ENTITY")]
    by: Named,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea task narrow --node http://127.0.0.1:7411 sync-7 --resource 'Table::\"sales/eu*\"' --by 'Person::\"ann\"'")]
pub(super) struct NarrowArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The task.
    id: String,
    /// An action that is left; again for more. None: all of them.
    #[arg(long = "action", value_name = "ID")]
    actions: Vec<String>,
    /// A resource that is left, within those of the task; again for more. None: all of them.
    #[arg(long = "resource", value_name = "PATTERN")]
    resources: Vec<String>,
    /// A later start.
    #[arg(long, value_name = "WHEN")]
    starts: Option<When>,
    /// An earlier end.
    #[arg(long, value_name = "WHEN")]
    ends: Option<When>,
    #[command(flatten)]
    by: By,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea task extend --node http://127.0.0.1:7411 sync-7 --ends 4h --by 'Person::\"ann\"' --reason 'not done yet'")]
pub(super) struct ExtendArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The task.
    id: String,
    /// The new end: a span from now, or RFC 3339.
    #[arg(long, value_name = "WHEN")]
    ends: When,
    #[command(flatten)]
    by: By,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea task end --node http://127.0.0.1:7411 sync-7 --by 'Person::\"ann\"' --reason 'wrong data'")]
pub(super) struct EndArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The task.
    id: String,
    #[command(flatten)]
    by: By,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea task list --node http://127.0.0.1:7411 --agent 'Agent::\"sync\"'")]
pub(super) struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Only the tasks of this agent.
    #[arg(long, value_name = "ENTITY")]
    agent: Option<Named>,
    /// How tasks are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea task show --node http://127.0.0.1:7411 sync-7")]
pub(super) struct ShowArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The task.
    id: String,
    /// How the task is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(command: &TaskCommand) -> ExitCode {
    match command {
        TaskCommand::Approve(args) => node::run(args.format, approve(args)),
        TaskCommand::Narrow(args) => node::run(args.format, narrow(args)),
        TaskCommand::Extend(args) => node::run(args.format, extend(args)),
        TaskCommand::End(args) => node::run(args.format, end(args)),
        TaskCommand::List(args) => node::run(args.format, list(args)),
        TaskCommand::Show(args) => node::run(args.format, show(args)),
    }
}

async fn approve(args: &ApproveArgs) -> Result<bool, Failure> {
    let now_ms = now_ms();
    let at = |when: When| when.message(now_ms);
    let request = v1::ApproveTaskRequest {
        task: Some(v1::Task {
            id: args.id.clone(),
            purpose: args.purpose.clone(),
            not_before: args.starts.map(at),
            not_after: Some(at(args.ends)),
            actions: args.actions.clone(),
            resources: args.resources.clone(),
        }),
        agent: Some(args.agent.reference()),
        on_behalf_of: args.on_behalf_of.as_ref().map(Named::reference),
        approved_by: Some(args.by.reference()),
        latest_end: args.latest_end.map(at),
    };
    let answer = args.node.connect().await?.approve_task(request).await?;
    Ok(told(args.format, answer.task.as_ref(), answer.state_version))
}

async fn narrow(args: &NarrowArgs) -> Result<bool, Failure> {
    let now_ms = now_ms();
    let request = v1::NarrowTaskRequest {
        id: args.id.clone(),
        actions: args.actions.clone(),
        resources: args.resources.clone(),
        not_before: args.starts.map(|when| when.message(now_ms)),
        not_after: args.ends.map(|when| when.message(now_ms)),
        by: args.by.reference(),
        reason: args.by.reason.clone(),
    };
    let answer = args.node.connect().await?.narrow_task(request).await?;
    Ok(told(args.format, answer.task.as_ref(), answer.state_version))
}

async fn extend(args: &ExtendArgs) -> Result<bool, Failure> {
    let request = v1::ExtendTaskRequest {
        id: args.id.clone(),
        not_after: Some(args.ends.message(now_ms())),
        by: args.by.reference(),
        reason: args.by.reason.clone(),
    };
    let answer = args.node.connect().await?.extend_task(request).await?;
    Ok(told(args.format, answer.task.as_ref(), answer.state_version))
}

async fn end(args: &EndArgs) -> Result<bool, Failure> {
    let request =
        v1::EndTaskRequest { id: args.id.clone(), by: args.by.reference(), reason: args.by.reason.clone() };
    let answer = args.node.connect().await?.end_task(request).await?;
    Ok(told(args.format, answer.task.as_ref(), answer.state_version))
}

async fn list(args: &ListArgs) -> Result<bool, Failure> {
    let mut client = args.node.connect().await?;
    let (tasks, _) = node::pages(usize::MAX, async |page_token| {
        let agent = args.agent.as_ref().map(Named::reference);
        let page = client.tasks(v1::ListTasksRequest { agent, page_size: PAGE, page_token }).await?;
        Ok((page.tasks, page.next_page_token))
    })
    .await?;
    match args.format {
        Format::Json => node::print_json(&view::Tasks { tasks: tasks.iter().map(Into::into).collect() }),
        Format::Human if tasks.is_empty() => println!("the node knows no task"),
        Format::Human => print!("{}", view::table(&tasks)),
    }
    Ok(true)
}

async fn show(args: &ShowArgs) -> Result<bool, Failure> {
    let task = args.node.connect().await?.task(args.id.as_str()).await?;
    match args.format {
        Format::Json => node::print_json(&view::TaskView::from(&task)),
        Format::Human => print!("{}", view::details(&task)),
    }
    Ok(true)
}

fn told(format: Format, task: Option<&v1::ApprovedTask>, state_version: u64) -> bool {
    let Some(task) = task else { return false };
    match format {
        Format::Json => node::print_json(&view::Changed { ok: true, task: task.into(), state_version }),
        Format::Human => print!("{}", view::details(task)),
    }
    true
}
