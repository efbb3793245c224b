//! `cardea hold`: the allows that enforcement points hold.
#![expect(clippy::print_stdout, reason = "a command speaks on its standard streams")]

use std::process::ExitCode;

use cardea_client::v1;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::Format;
use super::bundle::node::{self, NodeArgs, print_json, table, time};
use super::watch::{cause_text, decision};
use super::words::entity;
use crate::hidden::printable;

#[derive(Debug, Subcommand)]
pub(super) enum HoldCommand {
    /// List the streams of enforcement points, and the holds of one of them.
    ///
    /// Exit code 0: done; 1: there is no such stream; 2: could not run.
    List(ListArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cardea hold list --node http://127.0.0.1:7411
  cardea hold list --node http://127.0.0.1:7411 --stream 3
  cardea hold list --node http://127.0.0.1:7411 --stream 3 --after 1000 --format json")]
pub(super) struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Number of one stream, to list its holds too; the list of all streams tells the numbers.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    stream: Option<u64>,
    /// Only holds after this one: the last one of the page before.
    #[arg(long, value_name = "HOLD", default_value_t = 0, requires = "stream")]
    after: u64,
    /// Most holds to list.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// How they are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct List<'a> {
    streams: Vec<StreamView<'a>>,
    more: bool,
}

#[derive(Serialize)]
struct StreamView<'a> {
    stream: u64,
    enforcement_point: &'a str,
    peer: &'a str,
    connected: bool,
    opened_at: Option<String>,
    holds: u64,
    not_allowed: u64,
    waiting: u64,
    held: Vec<HeldView<'a>>,
}

#[derive(Serialize)]
struct HeldView<'a> {
    hold_id: u64,
    principal: String,
    action: String,
    resource: String,
    session_id: &'a str,
    decision: &'static str,
    cause: Option<String>,
}

pub(super) fn run(command: &HoldCommand) -> ExitCode {
    let HoldCommand::List(args) = command;
    node::run(args.format, async {
        let request = v1::ListHoldStreamsRequest {
            stream_id: args.stream.unwrap_or(0),
            after_hold_id: args.after,
            page_size: args.limit,
        };
        let listed = args.node.connect().await?.hold_streams(request).await?;
        match args.format {
            Format::Json => {
                print_json(&List { streams: listed.streams.iter().map(view).collect(), more: listed.more });
            }
            Format::Human if listed.streams.is_empty() => println!("no enforcement point has a Hold stream"),
            Format::Human => {
                print!("{}", streams_text(&listed.streams));
                if args.stream.is_some() {
                    print!("\n{}", held_text(&listed));
                }
            }
        }
        Ok(true)
    })
}

fn view(stream: &v1::HoldStream) -> StreamView<'_> {
    StreamView {
        stream: stream.stream_id,
        enforcement_point: &stream.enforcement_point,
        peer: &stream.peer,
        connected: stream.connected,
        opened_at: time(stream.opened_at.as_ref()),
        holds: stream.holds,
        not_allowed: stream.not_allowed,
        waiting: stream.waiting,
        held: stream.held.iter().map(held_view).collect(),
    }
}

fn held_view(held: &v1::HeldAttempt) -> HeldView<'_> {
    HeldView {
        hold_id: held.hold_id,
        principal: entity(held.principal.as_ref()),
        action: entity(held.action.as_ref()),
        resource: entity(held.resource.as_ref()),
        session_id: &held.session_id,
        decision: decision(held.decision()),
        cause: held.cause.as_ref().map(cause_text),
    }
}

fn streams_text(streams: &[v1::HoldStream]) -> String {
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { printable(text) };
    let row = |stream: &v1::HoldStream| {
        vec![
            stream.stream_id.to_string(),
            printable(&stream.enforcement_point),
            dash(&stream.peer),
            if stream.connected { "connected" } else { "lost" }.to_owned(),
            time(stream.opened_at.as_ref()).unwrap_or_default(),
            stream.holds.to_string(),
            stream.not_allowed.to_string(),
            stream.waiting.to_string(),
        ]
    };
    let head = ["STREAM", "ENFORCEMENT POINT", "PEER", "STATE", "OPENED", "HOLDS", "NOT ALLOWED", "WAITING"];
    table(&head, &streams.iter().map(row).collect::<Vec<_>>())
}

fn held_text(listed: &v1::ListHoldStreamsResponse) -> String {
    let held = listed.streams.iter().flat_map(|stream| &stream.held);
    let row = |held: &v1::HeldAttempt| {
        vec![
            held.hold_id.to_string(),
            decision(held.decision()).to_owned(),
            printable(&entity(held.principal.as_ref())),
            printable(&entity(held.action.as_ref())),
            printable(&entity(held.resource.as_ref())),
            printable(if held.session_id.is_empty() { "-" } else { &held.session_id }),
            held.cause.as_ref().map_or_else(|| "-".to_owned(), |cause| printable(&cause_text(cause))),
        ]
    };
    let head = ["HOLD", "ANSWER", "PRINCIPAL", "ACTION", "RESOURCE", "SESSION", "BECAUSE"];
    let mut text = table(&head, &held.map(row).collect::<Vec<_>>());
    let last = listed.streams.iter().flat_map(|stream| &stream.held).last();
    if let (true, Some(last)) = (listed.more, last) {
        text.push_str(&format!("there are more: --after {}\n", last.hold_id));
    }
    text
}
