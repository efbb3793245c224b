//! Tasks and reviews as rows of the ledger: keys, and values as protobuf messages.
//!
//! Fields are only ever added; a tag is never used for something else.

mod asked;

use cardea_core::ask::Ask;
use cardea_core::named::Named;
use cardea_core::review::{self, Opening, Rejection, Review};
use cardea_core::task::life::{Approval, Change, Life, Narrowing, Step};
use cardea_core::task::{ResourcePattern, Task};
use cardea_policy_store::engine::Uid;
use cardea_proto::v1;
use prost::Message;
use smol_str::SmolStr;

use super::rows::entity;
use crate::pipeline::{recorded, unrecorded};
use asked::{AskedRow, asked_row, to_asked};

#[derive(Clone, PartialEq, Message)]
struct NameRow {
    #[prost(string, tag = "1")]
    type_name: String,
    #[prost(string, tag = "2")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct LifeRow {
    #[prost(string, tag = "1")]
    purpose: String,
    #[prost(int64, optional, tag = "2")]
    not_before_ms: Option<i64>,
    #[prost(int64, optional, tag = "3")]
    not_after_ms: Option<i64>,
    #[prost(string, repeated, tag = "4")]
    actions: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    resources: Vec<String>,
    #[prost(message, required, tag = "6")]
    agent: NameRow,
    #[prost(message, optional, tag = "7")]
    on_behalf_of: Option<NameRow>,
    #[prost(message, required, tag = "8")]
    approved_by: NameRow,
    #[prost(int64, tag = "9")]
    approved_ms: i64,
    #[prost(int64, tag = "10")]
    latest_end_ms: i64,
    #[prost(message, repeated, tag = "11")]
    changes: Vec<ChangeRow>,
}

#[derive(Clone, PartialEq, Message)]
struct ChangeRow {
    #[prost(int64, tag = "1")]
    at_ms: i64,
    #[prost(message, required, tag = "2")]
    by: NameRow,
    #[prost(string, tag = "3")]
    reason: String,
    #[prost(oneof = "StepRow", tags = "4, 5, 6")]
    step: Option<StepRow>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum StepRow {
    /// The new end.
    #[prost(int64, tag = "4")]
    Extended(i64),
    #[prost(message, tag = "5")]
    Narrowed(NarrowingRow),
    #[prost(bool, tag = "6")]
    Ended(bool),
}

#[derive(Clone, PartialEq, Message)]
struct NarrowingRow {
    #[prost(message, optional, tag = "1")]
    actions: Option<TextsRow>,
    #[prost(message, optional, tag = "2")]
    resources: Option<TextsRow>,
    #[prost(int64, optional, tag = "3")]
    not_before_ms: Option<i64>,
    #[prost(int64, optional, tag = "4")]
    not_after_ms: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct TextsRow {
    #[prost(string, repeated, tag = "1")]
    texts: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ReviewRow {
    #[prost(message, required, tag = "1")]
    principal: NameRow,
    #[prost(message, repeated, tag = "2")]
    delegation: Vec<NameRow>,
    #[prost(message, required, tag = "3")]
    action: NameRow,
    #[prost(message, required, tag = "4")]
    resource: NameRow,
    /// The arguments as records show them, in JSON.
    #[prost(bytes = "vec", tag = "5")]
    arguments: Vec<u8>,
    #[prost(string, tag = "6")]
    requirement: String,
    #[prost(uint32, tag = "7")]
    round: u32,
    #[prost(message, optional, tag = "8")]
    opened: Option<OpeningRow>,
    #[prost(message, optional, tag = "9")]
    approved: Option<DecidedRow>,
    #[prost(message, optional, tag = "10")]
    rejected: Option<DecidedRow>,
    /// How often it was asked, and when last.
    #[prost(uint64, tag = "11")]
    asked: u64,
    #[prost(int64, tag = "12")]
    asked_ms: i64,
    /// Whether it was said that the round has expired.
    #[prost(bool, tag = "13")]
    told_expired: bool,
    /// When the grant was used up that opens one attempt only.
    #[prost(int64, optional, tag = "14")]
    used_ms: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct OpeningRow {
    #[prost(int64, tag = "1")]
    at_ms: i64,
    #[prost(string, tag = "2")]
    decision_id: String,
    #[prost(string, optional, tag = "3")]
    session_id: Option<String>,
    #[prost(message, optional, tag = "4")]
    asked: Option<AskedRow>,
}

#[derive(Clone, PartialEq, Message)]
struct DecidedRow {
    #[prost(int64, tag = "1")]
    at_ms: i64,
    /// The end of the grant, or of the rejection.
    #[prost(int64, tag = "2")]
    until_ms: i64,
    #[prost(message, required, tag = "3")]
    by: NameRow,
    #[prost(string, tag = "4")]
    reason: String,
    #[prost(string, optional, tag = "5")]
    session_id: Option<String>,
    #[prost(bool, tag = "6")]
    once: bool,
    #[prost(bool, tag = "7")]
    into_baseline: bool,
}

pub(super) fn life(life: &Life) -> Vec<u8> {
    let Approval { task, agent, on_behalf_of, approved_by, approved_ms, latest_end_ms } = life.approval();
    LifeRow {
        purpose: task.purpose.to_string(),
        not_before_ms: task.not_before_ms,
        not_after_ms: task.not_after_ms,
        actions: texts(&task.actions),
        resources: texts(&task.resources),
        agent: uid_row(agent),
        on_behalf_of: on_behalf_of.as_ref().map(uid_row),
        approved_by: name_row(approved_by),
        approved_ms: *approved_ms,
        latest_end_ms: *latest_end_ms,
        changes: life.changes().iter().map(change_row).collect(),
    }
    .encode_to_vec()
}

pub(super) fn to_life(id: &str, bytes: &[u8]) -> Option<Life> {
    let row = LifeRow::decode(bytes).ok()?;
    let task = Task {
        id: id.into(),
        purpose: row.purpose.into(),
        not_before_ms: row.not_before_ms,
        not_after_ms: row.not_after_ms,
        actions: row.actions.into_iter().map(SmolStr::from).collect(),
        resources: patterns(&row.resources)?,
    };
    let on_behalf_of = match row.on_behalf_of {
        Some(row) => Some(uid(&row)?),
        None => None,
    };
    let mut life = Life::new(Approval {
        task,
        agent: uid(&row.agent)?,
        on_behalf_of,
        approved_by: named(row.approved_by),
        approved_ms: row.approved_ms,
        latest_end_ms: row.latest_end_ms,
    });
    for row in row.changes {
        life.apply(to_change(row)?);
    }
    Some(life)
}

fn change_row(change: &Change) -> ChangeRow {
    let step = match &change.step {
        Step::Extended(end_ms) => StepRow::Extended(*end_ms),
        Step::Narrowed(left) => StepRow::Narrowed(NarrowingRow {
            actions: left.actions.as_ref().map(|actions| TextsRow { texts: texts(actions) }),
            resources: left.resources.as_ref().map(|resources| TextsRow { texts: texts(resources) }),
            not_before_ms: left.not_before_ms,
            not_after_ms: left.not_after_ms,
        }),
        Step::Ended => StepRow::Ended(true),
    };
    ChangeRow {
        at_ms: change.at_ms,
        by: name_row(&change.by),
        reason: change.reason.to_string(),
        step: Some(step),
    }
}

fn to_change(row: ChangeRow) -> Option<Change> {
    let step = match row.step? {
        StepRow::Extended(end_ms) => Step::Extended(end_ms),
        StepRow::Narrowed(row) => Step::Narrowed(Narrowing {
            actions: row.actions.map(|row| row.texts.into_iter().map(SmolStr::from).collect()),
            resources: match row.resources {
                Some(row) => Some(patterns(&row.texts)?),
                None => None,
            },
            not_before_ms: row.not_before_ms,
            not_after_ms: row.not_after_ms,
        }),
        StepRow::Ended(_) => Step::Ended,
    };
    Some(Change { at_ms: row.at_ms, step, by: named(row.by), reason: row.reason.into() })
}

pub(super) fn review(review: &Review, asked: u64, asked_ms: i64, told_expired: bool) -> Vec<u8> {
    let Ask { principal, delegation, action, resource, arguments, requirement } = &review.ask;
    let arguments: std::collections::BTreeMap<&SmolStr, _> =
        arguments.iter().map(|(name, value)| (name, recorded(&value))).collect();
    let mut row = ReviewRow {
        principal: uid_row(principal),
        delegation: delegation.iter().map(uid_row).collect(),
        action: uid_row(action),
        resource: uid_row(resource),
        // A map of texts to values: there is nothing in it that JSON could not hold.
        arguments: serde_json::to_vec(&arguments).unwrap_or_default(),
        requirement: requirement.to_string(),
        round: review.round(),
        opened: None,
        approved: None,
        rejected: None,
        asked,
        asked_ms,
        told_expired,
        used_ms: None,
    };
    for event in review.events().into_iter().flatten() {
        match event {
            review::Event::Opened(one) => {
                row.opened = Some(OpeningRow {
                    at_ms: one.at_ms,
                    decision_id: one.decision_id.to_string(),
                    session_id: one.session_id.map(String::from),
                    asked: one.asked.map(|asked| asked_row(&asked)),
                });
            }
            review::Event::Approved(one) => {
                row.approved = Some(DecidedRow {
                    at_ms: one.at_ms,
                    until_ms: one.ends_ms,
                    by: name_row(&one.by),
                    reason: one.reason.to_string(),
                    session_id: one.session_id.map(String::from),
                    once: one.once,
                    into_baseline: one.into_baseline,
                });
            }
            review::Event::Used(at_ms) => row.used_ms = Some(at_ms),
            review::Event::Rejected(one) => {
                row.rejected = Some(DecidedRow {
                    at_ms: one.at_ms,
                    until_ms: one.until_ms,
                    by: name_row(&one.by),
                    reason: one.reason.to_string(),
                    ..DecidedRow::default()
                });
            }
        }
    }
    row.encode_to_vec()
}

/// The review, how often it was asked, when last, and whether it was said that it has expired.
pub(super) fn to_review(bytes: &[u8]) -> Option<(Review, u64, i64, bool)> {
    let row = ReviewRow::decode(bytes).ok()?;
    let arguments: std::collections::BTreeMap<SmolStr, v1::Value> =
        serde_json::from_slice(&row.arguments).ok()?;
    let mut review = Review::new(Ask {
        principal: uid(&row.principal)?,
        delegation: row.delegation.iter().map(uid).collect::<Option<_>>()?,
        action: uid(&row.action)?,
        resource: uid(&row.resource)?,
        arguments: arguments
            .iter()
            .map(|(name, value)| Some((name.clone(), unrecorded(value, &entity)?)))
            .collect::<Option<_>>()?,
        requirement: row.requirement.into(),
    });
    if let Some(one) = row.opened {
        let session_id = one.session_id.map(SmolStr::from);
        let asked = one.asked.map(|asked| Box::new(to_asked(asked)));
        let opening = Opening { at_ms: one.at_ms, decision_id: one.decision_id.into(), session_id, asked };
        review.apply(row.round, review::Event::Opened(opening));
    }
    if let Some(one) = row.approved {
        let approval = review::Approval {
            at_ms: one.at_ms,
            ends_ms: one.until_ms,
            session_id: one.session_id.map(SmolStr::from),
            once: one.once,
            into_baseline: one.into_baseline,
            by: named(one.by),
            reason: one.reason.into(),
        };
        review.apply(row.round, review::Event::Approved(approval));
    }
    if let Some(one) = row.rejected {
        let rejection = Rejection {
            until_ms: one.until_ms,
            at_ms: one.at_ms,
            by: named(one.by),
            reason: one.reason.into(),
        };
        review.apply(row.round, review::Event::Rejected(rejection));
    }
    if let Some(used_ms) = row.used_ms {
        review.apply(row.round, review::Event::Used(used_ms));
    }
    Some((review, row.asked, row.asked_ms, row.told_expired))
}

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

fn patterns(texts: &[String]) -> Option<Vec<ResourcePattern>> {
    texts.iter().map(|text| ResourcePattern::parse(text).ok()).collect()
}

fn uid_row(uid: &Uid) -> NameRow {
    NameRow { type_name: uid.type_text(), id: uid.id().to_owned() }
}

fn uid(row: &NameRow) -> Option<Uid> {
    entity(&row.type_name, &row.id)
}

fn name_row(named: &Named) -> NameRow {
    NameRow { type_name: named.type_name.to_string(), id: named.id.to_string() }
}

fn named(row: NameRow) -> Named {
    Named { type_name: row.type_name.into(), id: row.id.into() }
}

#[cfg(test)]
mod tests;
