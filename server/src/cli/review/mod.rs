//! `cardea review`: just-in-time approvals on a running node.
#![expect(clippy::print_stdout, reason = "a command speaks on its standard streams")]

mod view;

use std::process::ExitCode;

use cardea_client::v1;
use clap::{Args, Subcommand, ValueEnum};

use super::Format;
use super::bundle::node::{self, Failure, NodeArgs, PAGE};
use super::words::{When, now_ms};
use crate::proving::words::Named;

#[derive(Debug, Subcommand)]
pub(super) enum ReviewCommand {
    /// List the reviews that a node knows, the oldest first; those that wait for somebody unless told otherwise.
    ///
    /// Exit code 0: listed; 2: could not run.
    List(ListArgs),
    /// Show one review: who wants to do what, with which arguments, and how that deviates from what was approved.
    ///
    /// Exit code 0: shown; 1: the node does not know it; 2: could not run.
    Show(ShowArgs),
    /// Approve a review: exactly that attempt succeeds, once or until the end.
    ///
    /// Exit code 0: approved; 1: the node refused; 2: could not run.
    Approve(ApproveArgs),
    /// Reject a review, or take an approval back.
    ///
    /// Exit code 0: rejected; 1: the node refused; 2: could not run.
    Reject(RejectArgs),
}

/// Which reviews are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Which {
    /// Those that wait for a reviewer.
    #[default]
    Pending,
    /// Those whose grant counts.
    Approved,
    /// Those that were rejected.
    Rejected,
    /// Those that nobody decided in time.
    Expired,
    /// Those whose grant is past its end, or opened the one attempt that it was for.
    UsedUp,
    /// All of them.
    All,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea review list --node http://127.0.0.1:7411 --status pending")]
pub(super) struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Which reviews.
    #[arg(long, value_enum, default_value_t)]
    status: Which,
    /// Only those of this principal, as 'Type::"id"'.
    #[arg(long, value_name = "ENTITY")]
    principal: Option<Named>,
    /// How reviews are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea review show --node http://127.0.0.1:7411 4f6c…")]
pub(super) struct ShowArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The review's id.
    id: String,
    /// How the review is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea review approve --node http://127.0.0.1:7411 4f6c… --as 'Team::\"security\"' --for 15m --reason 'as planned'
  cardea review approve --node http://127.0.0.1:7411 4f6c… --as 'Team::\"security\"' --once
  cardea review approve --node http://127.0.0.1:7411 4f6c… --as 'Team::\"security\"' --once --into-baseline --reason 'a new customer'

What is approved with --into-baseline is taken up by the next `cardea baseline learn`, and counts once somebody promotes that.")]
pub(super) struct ApproveArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The review's id.
    id: String,
    /// The round that you looked at. Unset: the one that is there now.
    #[arg(long, value_name = "N")]
    round: Option<u32>,
    /// Who approves, as the bundle names its reviewers: 'Type::"id"'.
    #[arg(long = "as", value_name = "ENTITY")]
    reviewer: Named,
    /// When the grant ends: a span from now, or RFC 3339. Unset: as long as the requirement allows, which is also the most.
    #[arg(long, visible_alias = "for", value_name = "WHEN")]
    ends: Option<When>,
    /// The grant opens one attempt only: the next that is allowed uses it up.
    #[arg(long)]
    once: bool,
    /// What was asked is to be in the next baseline.
    #[arg(long)]
    into_baseline: bool,
    /// The grant counts only in the session of the attempt that opened the review.
    #[arg(long)]
    this_session_only: bool,
    /// Why; goes into the record.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cardea review reject --node http://127.0.0.1:7411 4f6c… --as 'Team::\"security\"' --reason 'not this table'")]
pub(super) struct RejectArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The review's id.
    id: String,
    /// The round that you looked at. Unset: the one that is there now.
    #[arg(long, value_name = "N")]
    round: Option<u32>,
    /// Who rejects, as the bundle names its reviewers: 'Type::"id"'.
    #[arg(long = "as", value_name = "ENTITY")]
    reviewer: Named,
    /// Until when the same thing opens no other review: a span from now, or RFC 3339. Unset: 24 hours.
    #[arg(long, value_name = "WHEN")]
    until: Option<When>,
    /// Why; goes into the record.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(command: &ReviewCommand) -> ExitCode {
    match command {
        ReviewCommand::List(args) => node::run(args.format, list(args)),
        ReviewCommand::Show(args) => node::run(args.format, show(args)),
        ReviewCommand::Approve(args) => node::run(args.format, approve(args)),
        ReviewCommand::Reject(args) => node::run(args.format, reject(args)),
    }
}

async fn list(args: &ListArgs) -> Result<bool, Failure> {
    let mut client = args.node.connect().await?;
    let status = match args.status {
        Which::Pending => v1::ReviewStatus::Pending,
        Which::Approved => v1::ReviewStatus::Approved,
        Which::Rejected => v1::ReviewStatus::Rejected,
        Which::Expired => v1::ReviewStatus::Expired,
        Which::UsedUp => v1::ReviewStatus::UsedUp,
        Which::All => v1::ReviewStatus::Unspecified,
    };
    let (reviews, _) = node::pages(usize::MAX, async |page_token| {
        let principal = args.principal.as_ref().map(Named::reference);
        let request =
            v1::ListReviewsRequest { status: status.into(), principal, page_size: PAGE, page_token };
        let page = client.reviews(request).await?;
        Ok((page.reviews, page.next_page_token))
    })
    .await?;
    match args.format {
        Format::Json => {
            node::print_json(&view::Reviews { reviews: reviews.iter().map(Into::into).collect() });
        }
        Format::Human if reviews.is_empty() => println!("no such review"),
        Format::Human => print!("{}", view::table(&reviews)),
    }
    Ok(true)
}

async fn show(args: &ShowArgs) -> Result<bool, Failure> {
    let review = args.node.connect().await?.review(args.id.as_str()).await?;
    match args.format {
        Format::Json => node::print_json(&view::ReviewView::from(&review)),
        Format::Human => print!("{}", view::details(&review)),
    }
    Ok(true)
}

async fn approve(args: &ApproveArgs) -> Result<bool, Failure> {
    let mut client = args.node.connect().await?;
    let round = match args.round {
        Some(round) => round,
        None => client.review(args.id.as_str()).await?.round,
    };
    let scope =
        args.this_session_only.then(|| v1::ReviewScope { this_session_only: true, ..Default::default() });
    let request = v1::ApproveReviewRequest {
        id: args.id.clone(),
        round,
        reviewer: Some(args.reviewer.reference()),
        ends_at: args.ends.map(|when| when.message(now_ms())),
        scope,
        reason: args.reason.clone(),
        once: args.once,
        into_baseline: args.into_baseline,
    };
    let answer = client.approve_review(request).await?;
    Ok(told(args.format, answer.review.as_ref(), answer.state_version))
}

async fn reject(args: &RejectArgs) -> Result<bool, Failure> {
    let mut client = args.node.connect().await?;
    let round = match args.round {
        Some(round) => round,
        None => client.review(args.id.as_str()).await?.round,
    };
    let request = v1::RejectReviewRequest {
        id: args.id.clone(),
        round,
        reviewer: Some(args.reviewer.reference()),
        until: args.until.map(|when| when.message(now_ms())),
        reason: args.reason.clone(),
    };
    let answer = client.reject_review(request).await?;
    Ok(told(args.format, answer.review.as_ref(), answer.state_version))
}

fn told(format: Format, review: Option<&v1::Review>, state_version: u64) -> bool {
    let Some(review) = review else { return false };
    match format {
        Format::Json => node::print_json(&view::Changed { ok: true, review: review.into(), state_version }),
        Format::Human => print!("{}", view::details(review)),
    }
    true
}
