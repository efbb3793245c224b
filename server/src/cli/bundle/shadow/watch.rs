//! Differences as they happen, from the audit stream.

use std::io::{self, Write as _};

use cardea_client::v1::{self, record::Entry};
use cardea_client::{Client, Records};
use serde::Serialize;

use super::view::{decision, effect, entity, reason};
use crate::cli::Format;
use crate::cli::bundle::node::{Failure, time};

#[derive(Serialize)]
struct Difference<'a> {
    sequence: u64,
    time: Option<String>,
    effect: &'static str,
    decision_id: &'a str,
    door: &'a str,
    principal: String,
    action: String,
    resource: String,
    session_id: &'a str,
    in_force: AnswerView<'a>,
    candidate: AnswerView<'a>,
}

#[derive(Serialize)]
struct AnswerView<'a> {
    revision: u64,
    digest: &'a str,
    decision: &'static str,
    reasons: Vec<ReasonView<'a>>,
    determining_policies: &'a [String],
    step_up: &'a [String],
    obligations: &'a [String],
    lease_ms: u32,
}

#[derive(Serialize)]
struct ReasonView<'a> {
    code: String,
    message: &'a str,
}

/// Opens the stream of differences from now on.
pub(super) async fn differences(client: &mut Client) -> Result<Records, Failure> {
    let filter =
        v1::RecordFilter { kinds: vec![v1::RecordKind::Shadow.into()], ..v1::RecordFilter::default() };
    Ok(client.audit_from(0, Some(filter)).await?)
}

/// Prints each difference until interrupted, or until nobody reads any more.
pub(super) async fn print_all(mut records: Records, format: Format) -> Result<bool, Failure> {
    loop {
        let batch = tokio::select! {
            batch = records.receive() => batch?,
            _interrupted = tokio::signal::ctrl_c() => return Ok(true),
        };
        let Some(batch) = batch else {
            return Err(Failure::Here("the node ended the stream; it is stopping".to_owned()));
        };
        if print_batch(&batch, format).is_err() {
            // Whoever read the differences has seen enough.
            return Ok(true);
        }
    }
}

fn print_batch(batch: &[v1::Record], format: Format) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for record in batch {
        let Some(Entry::Shadow(shadow)) = &record.entry else { continue };
        match format {
            Format::Json => {
                serde_json::to_writer(&mut out, &difference(record, shadow))?;
                out.write_all(b"\n")?;
            }
            Format::Human => writeln!(out, "{}", line(record, shadow))?,
        }
    }
    out.flush()
}

fn line(record: &v1::Record, shadow: &v1::ShadowRecord) -> String {
    let answer = |answer: Option<&v1::ShadowAnswer>| match answer {
        Some(answer) => {
            let why = match (answer.determining_policies.is_empty(), answer.reasons.first()) {
                (false, _) => answer.determining_policies.join(","),
                (true, Some(first)) => reason(first.code()),
                (true, None) => "-".to_owned(),
            };
            format!("{} ({why})", decision(answer.decision()))
        }
        None => "-".to_owned(),
    };
    format!(
        "{}  {:<9}  {} -> {}  {} {} {}  {}",
        time(record.time.as_ref()).unwrap_or_default(),
        effect(shadow.effect()),
        answer(shadow.in_force.as_ref()),
        answer(shadow.candidate.as_ref()),
        entity(shadow.principal.as_ref()),
        entity(shadow.action.as_ref()),
        entity(shadow.resource.as_ref()),
        shadow.decision_id
    )
}

fn difference<'a>(record: &v1::Record, shadow: &'a v1::ShadowRecord) -> Difference<'a> {
    Difference {
        sequence: record.sequence,
        time: time(record.time.as_ref()),
        effect: effect(shadow.effect()),
        decision_id: &shadow.decision_id,
        door: &shadow.door,
        principal: entity(shadow.principal.as_ref()),
        action: entity(shadow.action.as_ref()),
        resource: entity(shadow.resource.as_ref()),
        session_id: &shadow.session_id,
        in_force: answer(shadow.in_force.as_ref()),
        candidate: answer(shadow.candidate.as_ref()),
    }
}

fn answer(answer: Option<&v1::ShadowAnswer>) -> AnswerView<'_> {
    let reasons = answer.map_or(&[][..], |answer| &answer.reasons);
    let code = |one: &v1::Reason| reason(one.code());
    AnswerView {
        revision: answer.map_or(0, |answer| answer.revision),
        digest: answer.map_or("", |answer| &answer.digest),
        decision: answer.map_or("unknown", |answer| decision(answer.decision())),
        reasons: reasons.iter().map(|one| ReasonView { code: code(one), message: &one.message }).collect(),
        determining_policies: answer.map_or(&[], |answer| &answer.determining_policies),
        step_up: answer.map_or(&[], |answer| &answer.step_up),
        obligations: answer.map_or(&[], |answer| &answer.obligations),
        lease_ms: answer.map_or(0, |answer| answer.lease_ms),
    }
}
