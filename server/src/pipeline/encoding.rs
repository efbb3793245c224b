//! A decision written straight as the bytes of its record: what [`Decided::into_entry`](super::entry) builds, without building it.
//!
//! INVARIANT (same bytes): it writes what the built record encodes to, to the byte. Where assertions are checked, as in every test, the writer
//! of the audit holds each record against the built one.
//! Never does: what is rare. That is built here as well; and what is masked, told to a hold, judged by no bundle or nested too deep is left to the
//! other way as a whole.

use cardea_core::attempt::Attempt;
use cardea_core::facts::Reading;
use cardea_core::verdict::{FactValue, Verdict};
use cardea_policy_store::engine::{Plain, Record, Uid, Value};
use cardea_policy_store::fragment::Fact;
use cardea_policy_store::snapshot::Snapshot;
use smol_str::SmolStr;
use uuid::fmt::Hyphenated;

use super::entry::{self, Decided};
use crate::audit::record::{VALUE_DEPTH_MAX, duration, timestamp};
use crate::audit::wire::Wire;
use crate::doors::decision;

/// A value that is nested deeper than a record may show.
struct TooDeep;

/// Writes a record with this number and time; false: it is to be built instead.
pub(super) fn encode(decided: &Decided, sequence: u64, time_ms: u64, out: &mut Vec<u8>) -> bool {
    let tells_all = decided.snapshot.as_deref().is_some_and(|snapshot| snapshot.declared().masks.is_empty());
    if decided.hold.is_some() || !tells_all {
        return false;
    }
    let mut written = Ok(());
    let mut record = Wire::new(out);
    record.number(1, sequence);
    record.built(2, &timestamp(i64::try_from(time_ms).unwrap_or(i64::MAX)));
    record.message(3, |wire| written = decision_record(decided, wire));
    written.is_ok()
}

fn decision_record(decided: &Decided, wire: &mut Wire<'_>) -> Result<(), TooDeep> {
    let Decided { id, door, snapshot, attempt, verdict, .. } = decided;
    let (snapshot, attempt) = (snapshot.as_deref(), attempt.as_ref());
    wire.text(1, id.hyphenated().encode_lower(&mut [0; Hyphenated::LENGTH]));
    wire.text(2, door.name());
    parties(decided, wire);
    answer(verdict, snapshot, wire);
    for evidence in verdict.evidence() {
        wire.message(14, |wire| {
            wire.text(1, evidence.fact.path());
            wire.message(2, |value| fact_value(&evidence.value, value));
            wire.text(3, &evidence.why);
        });
    }
    entry::counted(verdict, snapshot).for_each(|evidence| wire.built(14, &evidence));
    basis(decided, wire);
    wire.number(16, decided.elapsed_ns);
    for (uid, hop) in attempt.iter().flat_map(|attempt| attempt.hops()).zip(verdict.hops()) {
        wire.message(17, |wire| {
            wire.message(1, |entity| entity_ref(uid, entity));
            wire.number(2, enumerated(decision(hop.decision)));
            policies(3, &hop.determining, snapshot, wire);
        });
    }
    wire.text(18, attempt.map_or(&decided.seen.attempt_id, |attempt| &attempt.id));
    let severity = verdict.determining().iter().find_map(|at| snapshot?.policy(*at)?.severity.as_ref());
    wire.text(19, severity.map_or("", SmolStr::as_str));
    let written = replay(decided, wire);
    if let Some(deviation) = verdict.deviated().and_then(entry::deviation) {
        wire.built(25, &*deviation);
    }
    entry::counters(verdict, snapshot).iter().for_each(|counter| wire.built(26, counter));
    entry::responses(verdict, snapshot).iter().for_each(|name| wire.text_always(27, name));
    entry::would_have(verdict, snapshot).iter().for_each(|would| wire.built(28, would));
    if let Some(observed) = entry::observed(verdict, attempt, snapshot, false) {
        wire.built(29, &*observed);
    }
    written
}

/// Who wanted to do what to what.
fn parties(decided: &Decided, wire: &mut Wire<'_>) {
    let Some(attempt) = &decided.attempt else {
        let seen = &decided.seen;
        for (tag, raw) in [(3, &seen.principal), (4, &seen.action), (5, &seen.resource)] {
            if let Some((type_name, id)) = raw {
                wire.message(tag, |entity| {
                    entity.text(1, type_name);
                    entity.text(2, id);
                });
            }
        }
        return wire.text(6, &seen.session_id);
    };
    for (tag, uid) in [(3, &attempt.principal), (4, &attempt.action.uid), (5, &attempt.resource)] {
        wire.message(tag, |entity| entity_ref(uid, entity));
    }
    wire.text(6, attempt.session_id.as_deref().unwrap_or_default());
    attempt.delegation.iter().for_each(|uid| wire.message(7, |entity| entity_ref(uid, entity)));
}

/// What was answered, and which policies say so.
fn answer(verdict: &Verdict, snapshot: Option<&Snapshot>, wire: &mut Wire<'_>) {
    wire.number(8, enumerated(decision(verdict.decision())));
    for reason in verdict.reasons() {
        wire.message(9, |wire| {
            wire.number(1, enumerated(crate::doors::reason_code(reason.code)));
            wire.text(2, entry::reason_text(*reason, verdict, snapshot));
        });
    }
    policies(10, verdict.determining(), snapshot, wire);
    let errored = verdict.errors().iter().filter_map(|(at, _)| Some(&snapshot?.policy(*at)?.id));
    errored.for_each(|id| wire.text_always(11, id));
    let requirements = verdict.requirements().iter().filter_map(|at| Some(&snapshot?.requirement(*at)?.0));
    requirements.for_each(|name| wire.text_always(12, name));
    let obligations =
        verdict.obligations().iter().filter_map(|at| snapshot?.policy(*at)?.obligation.as_ref());
    obligations.for_each(|name| wire.text_always(13, name));
}

fn basis(decided: &Decided, wire: &mut Wire<'_>) {
    let snapshot = decided.snapshot.as_deref();
    wire.message(15, |wire| {
        wire.number(1, snapshot.map_or(0, |snapshot| snapshot.settings().revision));
        wire.text(2, snapshot.map_or("", |snapshot| snapshot.digest().as_str()));
        wire.number(3, decided.state_version);
        for (group, age_ms) in &decided.ages {
            wire.message(4, |wire| {
                wire.text(1, group.name());
                wire.number(2, *age_ms);
            });
        }
    });
}

/// What it takes to judge the attempt again.
fn replay(decided: &Decided, wire: &mut Wire<'_>) -> Result<(), TooDeep> {
    let Decided { snapshot, attempt, verdict, facts, .. } = decided;
    let (Some((facts, now)), Some(attempt), Some(snapshot)) = (facts, attempt, snapshot) else {
        return Ok(());
    };
    let mut written = Ok(());
    wire.message(20, |wire| {
        written = request(attempt, wire);
        let comparison = verdict.deviated().map(|deviated| &deviated.read);
        for hop in 0..attempt.hops().count() {
            let reading = Reading { attempt, settings: snapshot.settings(), comparison, hop, now: *now };
            let told = verdict.needs().facts().filter(|fact| hop == 0 || fact.group().is_of_hop());
            for fact in told {
                wire.message(2, |wire| replay_fact(fact, hop, &facts.value(fact, &reading), wire));
            }
        }
    });
    written
}

fn enumerated(value: impl Into<i32>) -> u64 {
    i64::from(value.into()).cast_unsigned()
}

fn policies(tag: u32, policies: &[u32], snapshot: Option<&Snapshot>, wire: &mut Wire<'_>) {
    policies
        .iter()
        .filter_map(|at| Some(&snapshot?.policy(*at)?.id))
        .for_each(|id| wire.text_always(tag, id));
}

fn entity_ref(uid: &Uid, wire: &mut Wire<'_>) {
    uid.with_type_text(|type_name| wire.text(1, type_name));
    wire.text(2, uid.id());
}

fn replay_fact(fact: Fact, hop: usize, value: &FactValue, wire: &mut Wire<'_>) {
    wire.text(1, fact.path());
    wire.number(2, hop as u64);
    wire.message(3, |wire| fact_value(value, wire));
}

fn fact_value(value: &FactValue, wire: &mut Wire<'_>) {
    match value {
        FactValue::Bool(value) => wire.number_always(1, u64::from(*value)),
        FactValue::Long(value) => wire.number_always(2, value.cast_unsigned()),
        FactValue::Text(text) => wire.text_always(3, text),
        FactValue::Texts(texts) => wire.message(5, |set| {
            texts.iter().for_each(|text| set.message(1, |value| value.text_always(3, text)));
        }),
    }
}

fn request(attempt: &Attempt, wire: &mut Wire<'_>) -> Result<(), TooDeep> {
    fields(1, &attempt.request, VALUE_DEPTH_MAX, wire)
}

/// A map from names to values, whose entries are messages of their own.
fn fields(tag: u32, fields: &Record, levels_left: usize, wire: &mut Wire<'_>) -> Result<(), TooDeep> {
    let mut written = Ok(());
    for (name, field) in fields.iter() {
        wire.message(tag, |entry| {
            entry.text(1, name);
            entry.message(2, |inner| written = value(&field, levels_left, inner));
        });
        if written.is_err() {
            break;
        }
    }
    written
}

fn value(value: &Value, levels_left: usize, wire: &mut Wire<'_>) -> Result<(), TooDeep> {
    let Some(levels_below) = levels_left.checked_sub(1) else { return Err(TooDeep) };
    let mut written = Ok(());
    match value.plain() {
        Plain::Bool(value) => wire.number_always(1, u64::from(value)),
        Plain::Long(value) => wire.number_always(2, value.cast_unsigned()),
        Plain::String(text) => wire.text_always(3, &text),
        Plain::Entity(uid) => wire.message(4, |entity| entity_ref(&uid, entity)),
        Plain::Set(values) => wire.message(5, |set| {
            for one in &values {
                set.message(1, |inner| written = self::value(one, levels_below, inner));
                if written.is_err() {
                    break;
                }
            }
        }),
        Plain::Record(record) => wire.message(6, |inner| written = fields(1, &record, levels_below, inner)),
        Plain::Decimal(text) => wire.text_always(7, &text),
        Plain::Ip(text) => wire.text_always(8, &text),
        Plain::Datetime(ms) => wire.built(9, &timestamp(ms)),
        Plain::Duration(ms) => wire.built(10, &duration(ms)),
    }
    written
}
