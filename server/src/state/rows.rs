//! The state as rows of the ledger: keys, and values as protobuf messages.
//!
//! Fields are only ever added; a tag is never used for something else. Unknown fields of a later version are lost when
//! this one writes the row again, which is why the format number rises with each change that matters.

use std::collections::BTreeSet;
use std::str::FromStr as _;
use std::sync::Arc;

use cardea_core::behavior::SessionBehavior;
use cardea_core::delegation::Parent;
use cardea_core::facts::Behavior;
use cardea_core::posture::Posture;
use cardea_core::risk::{Risk, RiskKind, Slot};
use cardea_core::session::{Ended, EventTimes, Session};
use cardea_core::subject::{Standing, Subject};
use cardea_core::task::{ResourcePattern, Task};
use cardea_policy_store::engine::{TypeName, Uid};
use prost::Message;
use smol_str::SmolStr;

use crate::ledger::LedgerFault;

/// A row that does not hold what its table should.
pub(super) fn unreadable(what: &str) -> LedgerFault {
    LedgerFault::NotRead(Arc::from(format!("a row of {what} does not hold what it should")))
}

/// The key of an entity: its type, a zero byte, its id.
pub(super) fn uid_key(uid: &Uid) -> Vec<u8> {
    let mut key = uid.type_text().into_bytes();
    key.push(0);
    key.extend_from_slice(uid.id().as_bytes());
    key
}

/// The entity of a key.
pub(super) fn uid(key: &[u8]) -> Option<Uid> {
    let at = key.iter().position(|byte| *byte == 0)?;
    let (type_name, id) = key.split_at_checked(at)?;
    entity(std::str::from_utf8(type_name).ok()?, std::str::from_utf8(id.get(1..)?).ok()?)
}

pub(super) fn entity(type_name: &str, id: &str) -> Option<Uid> {
    let name = cedar_policy::EntityTypeName::from_str(type_name).ok()?;
    Some(Uid::new(&TypeName::from(&name), id))
}

#[derive(Clone, PartialEq, Message)]
struct SessionRow {
    #[prost(string, tag = "1")]
    principal_type: String,
    #[prost(string, tag = "2")]
    principal_id: String,
    #[prost(int64, tag = "3")]
    opened_ms: i64,
    #[prost(int64, tag = "4")]
    expires_ms: i64,
    #[prost(int64, optional, tag = "5")]
    authenticated_ms: Option<i64>,
    #[prost(string, tag = "6")]
    acr: String,
    #[prost(string, repeated, tag = "7")]
    amr: Vec<String>,
    #[prost(uint32, tag = "8")]
    aal: u32,
    #[prost(bool, optional, tag = "9")]
    device_compliant: Option<bool>,
    #[prost(string, repeated, tag = "10")]
    networks: Vec<String>,
    #[prost(string, repeated, tag = "11")]
    labels: Vec<String>,
    #[prost(message, optional, tag = "12")]
    task: Option<TaskRow>,
    #[prost(bool, tag = "13")]
    credential_changed: bool,
    #[prost(int64, tag = "14")]
    refreshed_ms: i64,
    #[prost(int64, optional, tag = "15")]
    ended_ms: Option<i64>,
    #[prost(string, tag = "16")]
    ended_reason: String,
    #[prost(int64, optional, tag = "17")]
    credential_event_ms: Option<i64>,
    #[prost(int64, optional, tag = "18")]
    device_event_ms: Option<i64>,
    #[prost(int64, optional, tag = "19")]
    assurance_event_ms: Option<i64>,
    #[prost(string, optional, tag = "20")]
    device_id: Option<String>,
    #[prost(string, optional, tag = "21")]
    tenant: Option<String>,
    #[prost(string, optional, tag = "22")]
    task_id: Option<String>,
    #[prost(message, optional, tag = "23")]
    parent: Option<ParentRow>,
    /// The end of each of `labels`, in their order; nothing: none of them ends.
    #[prost(int64, repeated, tag = "24")]
    label_ends_ms: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct ParentRow {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(int64, tag = "2")]
    opened_ms: i64,
    #[prost(uint32, tag = "3")]
    depth: u32,
}

#[derive(Clone, PartialEq, Message)]
struct TaskRow {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    purpose: String,
    #[prost(int64, optional, tag = "3")]
    not_before_ms: Option<i64>,
    #[prost(int64, optional, tag = "4")]
    not_after_ms: Option<i64>,
    #[prost(string, repeated, tag = "5")]
    actions: Vec<String>,
    #[prost(string, repeated, tag = "6")]
    resources: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct BehaviorRow {
    #[prost(string, tag = "1")]
    previous_action: String,
    #[prost(uint64, tag = "2")]
    attempts: u64,
    #[prost(uint64, tag = "3")]
    denials: u64,
    #[prost(int64, tag = "4")]
    last_seen_ms: i64,
    /// `SessionBehavior::to_words`; empty: its attempts were not compared.
    #[prost(fixed64, repeated, tag = "5")]
    monitored: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct SubjectRow {
    #[prost(message, repeated, tag = "1")]
    risk: Vec<RiskRow>,
    #[prost(int64, optional, tag = "2")]
    standing_ms: Option<i64>,
    /// 0 enabled, 1 disabled, 2 purged.
    #[prost(uint32, tag = "3")]
    standing: u32,
    #[prost(int64, optional, tag = "4")]
    cutoff_ms: Option<i64>,
    #[prost(int64, optional, tag = "5")]
    credential_ms: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct RiskRow {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(uint32, tag = "2")]
    weight: u32,
    #[prost(uint32, tag = "3")]
    half_life_s: u32,
    #[prost(int64, tag = "4")]
    event_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
struct PostureRow {
    #[prost(bool, tag = "1")]
    compliant: bool,
    #[prost(int64, tag = "2")]
    event_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
struct InstantRow {
    #[prost(int64, tag = "1")]
    at_ms: i64,
}

pub(super) fn session(session: &Session) -> Vec<u8> {
    let texts = |set: &BTreeSet<SmolStr>| set.iter().map(ToString::to_string).collect();
    SessionRow {
        principal_type: session.principal.type_text(),
        principal_id: session.principal.id().to_owned(),
        opened_ms: session.opened_ms,
        expires_ms: session.expires_ms,
        authenticated_ms: session.authenticated_ms,
        acr: session.acr.to_string(),
        amr: texts(&session.amr),
        aal: session.aal.into(),
        device_compliant: session.device_compliant,
        networks: texts(&session.networks),
        labels: session.labels.keys().map(ToString::to_string).collect(),
        task: session.task.as_deref().map(task_row),
        credential_changed: session.credential_changed,
        refreshed_ms: session.refreshed_ms,
        ended_ms: session.ended.as_ref().map(|ended| ended.at_ms),
        ended_reason: session.ended.as_ref().map(|ended| ended.reason.to_string()).unwrap_or_default(),
        credential_event_ms: session.times.credential_ms,
        device_event_ms: session.times.device_ms,
        assurance_event_ms: session.times.assurance_ms,
        device_id: session.device_id.as_ref().map(ToString::to_string),
        tenant: session.tenant.as_ref().map(ToString::to_string),
        task_id: session.task_id.as_ref().map(ToString::to_string),
        parent: session.parent.as_ref().map(|parent| ParentRow {
            id: parent.id.to_string(),
            opened_ms: parent.opened_ms,
            depth: parent.depth.into(),
        }),
        label_ends_ms: match session.labels.values().all(|until_ms| *until_ms == i64::MAX) {
            true => Vec::new(),
            false => session.labels.values().copied().collect(),
        },
    }
    .encode_to_vec()
}

pub(super) fn to_session(id: &str, bytes: &[u8]) -> Option<Session> {
    let row = SessionRow::decode(bytes).ok()?;
    let texts = |texts: Vec<String>| texts.into_iter().map(SmolStr::from).collect();
    let reason = row.ended_reason;
    Some(Session {
        id: id.into(),
        principal: entity(&row.principal_type, &row.principal_id)?,
        opened_ms: row.opened_ms,
        expires_ms: row.expires_ms,
        authenticated_ms: row.authenticated_ms,
        acr: row.acr.into(),
        amr: texts(row.amr),
        aal: u8::try_from(row.aal).ok()?,
        device_compliant: row.device_compliant,
        networks: texts(row.networks),
        labels: {
            let ends_ms = row.label_ends_ms.into_iter().chain(std::iter::repeat(i64::MAX));
            row.labels.into_iter().map(SmolStr::from).zip(ends_ms).collect()
        },
        task: match row.task {
            Some(row) => Some(Arc::new(to_task(row)?)),
            None => None,
        },
        device_id: row.device_id.map(SmolStr::from),
        tenant: row.tenant.map(SmolStr::from),
        task_id: row.task_id.map(SmolStr::from),
        parent: match row.parent {
            Some(row) => Some(Parent {
                id: row.id.into(),
                opened_ms: row.opened_ms,
                depth: u8::try_from(row.depth).ok()?,
            }),
            None => None,
        },
        credential_changed: row.credential_changed,
        refreshed_ms: row.refreshed_ms,
        ended: row.ended_ms.map(|at_ms| Ended { at_ms, reason: reason.into() }),
        times: EventTimes {
            credential_ms: row.credential_event_ms,
            device_ms: row.device_event_ms,
            assurance_ms: row.assurance_event_ms,
        },
    })
}

fn task_row(task: &Task) -> TaskRow {
    TaskRow {
        id: task.id.to_string(),
        purpose: task.purpose.to_string(),
        not_before_ms: task.not_before_ms,
        not_after_ms: task.not_after_ms,
        actions: task.actions.iter().map(ToString::to_string).collect(),
        resources: task.resources.iter().map(ToString::to_string).collect(),
    }
}

fn to_task(row: TaskRow) -> Option<Task> {
    let resources = row.resources.iter().map(|text| ResourcePattern::parse(text).ok());
    Some(Task {
        id: row.id.into(),
        purpose: row.purpose.into(),
        not_before_ms: row.not_before_ms,
        not_after_ms: row.not_after_ms,
        actions: row.actions.into_iter().map(SmolStr::from).collect(),
        resources: resources.collect::<Option<_>>()?,
    })
}

pub(super) fn behavior(behavior: &Behavior, monitored: Option<&SessionBehavior>) -> Vec<u8> {
    BehaviorRow {
        previous_action: behavior.previous_action.to_string(),
        attempts: behavior.attempts,
        denials: behavior.denials,
        last_seen_ms: behavior.last_seen_ms,
        monitored: monitored.map(|monitored| monitored.to_words().to_vec()).unwrap_or_default(),
    }
    .encode_to_vec()
}

pub(super) fn to_behavior(bytes: &[u8]) -> Option<(Behavior, Option<SessionBehavior>)> {
    let row = BehaviorRow::decode(bytes).ok()?;
    let behavior = Behavior {
        previous_action: row.previous_action.into(),
        attempts: row.attempts,
        denials: row.denials,
        last_seen_ms: row.last_seen_ms,
    };
    let monitored = match &*row.monitored {
        [] => None,
        words => Some(SessionBehavior::from_words(words.try_into().ok()?)),
    };
    Some((behavior, monitored))
}

pub(super) fn subject(subject: &Subject) -> Vec<u8> {
    let slot = |(kind, slot): (RiskKind, Slot)| RiskRow {
        kind: kind.name().to_owned(),
        weight: slot.weight.into(),
        half_life_s: slot.half_life_s,
        event_ms: slot.event_ms,
    };
    SubjectRow {
        risk: subject.risk.iter().flat_map(|risk| risk.slots()).map(slot).collect(),
        standing_ms: subject.standing.map(|(at, _)| at),
        standing: match subject.standing {
            None | Some((_, Standing::Enabled)) => 0,
            Some((_, Standing::Disabled)) => 1,
            Some((_, Standing::Purged)) => 2,
        },
        cutoff_ms: subject.cutoff_ms,
        credential_ms: subject.credential_ms,
    }
    .encode_to_vec()
}

pub(super) fn to_subject(bytes: &[u8]) -> Option<Subject> {
    let row = SubjectRow::decode(bytes).ok()?;
    let slot = |row: &RiskRow| {
        let kind = RiskKind::ALL.into_iter().find(|kind| kind.name() == row.kind)?;
        let weight = u16::try_from(row.weight).ok()?;
        Some((kind, Slot { weight, half_life_s: row.half_life_s, event_ms: row.event_ms }))
    };
    let slots = row.risk.iter().map(slot).collect::<Option<Vec<_>>>()?;
    let standing = match row.standing {
        0 => Standing::Enabled,
        1 => Standing::Disabled,
        2 => Standing::Purged,
        _ => return None,
    };
    Some(Subject {
        risk: (!slots.is_empty()).then(|| Arc::new(Risk::from_slots(slots))),
        standing: row.standing_ms.map(|at| (at, standing)),
        cutoff_ms: row.cutoff_ms,
        credential_ms: row.credential_ms,
    })
}

pub(super) fn posture(posture: Posture) -> Vec<u8> {
    PostureRow { compliant: posture.compliant, event_ms: posture.event_ms }.encode_to_vec()
}

pub(super) fn to_posture(bytes: &[u8]) -> Option<Posture> {
    let row = PostureRow::decode(bytes).ok()?;
    Some(Posture { compliant: row.compliant, event_ms: row.event_ms })
}

pub(super) fn instant(at_ms: i64) -> Vec<u8> {
    InstantRow { at_ms }.encode_to_vec()
}

pub(super) fn to_instant(bytes: &[u8]) -> Option<i64> {
    InstantRow::decode(bytes).ok().map(|row| row.at_ms)
}
