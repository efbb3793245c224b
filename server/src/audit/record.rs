//! Records as they are written: `cardea.v1.Record` in protobuf, each within the log's bounds.
//!
//! Owns: the bounds. At most `VALUE_DEPTH_MAX` levels of nesting in a value, at most `RECORD_BYTES_MAX` bytes; what does not fit is left out by
//! whole fields, and the record names them.
//! Never does: reading the clock (times come with the entry).

use cardea_proto::v1::{self, record::Entry, value::Kind};
use prost::Message as _;

use super::log::RECORD_BYTES_MAX;
use super::mask::Masker;

/// Deepest nesting of a value, in levels. Each level is up to three of protobuf, whose readers stop at 100: a record that is written
/// must be readable again.
pub const VALUE_DEPTH_MAX: usize = 24;

/// What an entry of the audit queue is turned into, on the writer's thread, away from the hot path.
pub trait IntoEntry: Send {
    /// Writes the record straight at the end of `out`, as it would be encoded, if that can be done and nothing of it is to be hidden; false:
    /// it is to be built, and `out` holds nothing of worth.
    fn encode(&self, sequence: u64, time_ms: u64, out: &mut Vec<u8>) -> bool {
        let _ = (sequence, time_ms, out);
        false
    }

    /// Does all the formatting that the record needs, and hides what it must not tell.
    fn into_entry(self: Box<Self>, masker: &mut Masker) -> Entry;
}

impl IntoEntry for Entry {
    fn into_entry(mut self: Box<Self>, masker: &mut Masker) -> Entry {
        masker.hide(&mut self);
        *self
    }
}

/// The kind, as the wire's filter names it.
#[must_use]
pub const fn kind(entry: &Entry) -> v1::RecordKind {
    match entry {
        Entry::Decision(_) => v1::RecordKind::Decision,
        Entry::Signal(_) => v1::RecordKind::Signal,
        Entry::Session(_) => v1::RecordKind::Session,
        Entry::Bundle(_) => v1::RecordKind::Bundle,
        Entry::Gap(_) => v1::RecordKind::Gap,
        Entry::Shadow(_) => v1::RecordKind::Shadow,
        Entry::Task(_) => v1::RecordKind::Task,
        Entry::Review(_) => v1::RecordKind::Review,
        Entry::Stream(_) => v1::RecordKind::Stream,
        Entry::Withheld(_) => v1::RecordKind::Withheld,
        Entry::Retention(_) => v1::RecordKind::Retention,
    }
}

/// A gap: records that are not here, and why.
#[must_use]
pub fn gap(lost: u64, cause: v1::gap_record::Cause) -> Entry {
    Entry::Gap(v1::GapRecord { lost, cause: cause.into(), ..v1::GapRecord::default() })
}

/// Puts the record into `out`, which is emptied first. What makes it too long is left out, field by field; one that is still too long becomes
/// a gap of one, so that the order stays whole. Returns false in that last case.
pub(super) fn encode(mut record: v1::Record, out: &mut Vec<u8>) -> bool {
    out.clear();
    if let Some(Entry::Decision(decision)) = &mut record.entry {
        cut_deep_values(decision);
    }
    // Writing into memory cannot fail. Its length is known once it is written: working it out beforehand costs as much.
    let _infallible = record.encode(out);
    if out.len() <= RECORD_BYTES_MAX {
        return true;
    }
    let mut fits = false;
    for leave_out in LEFT_OUT {
        if fits {
            break;
        }
        if let Some(Entry::Decision(decision)) = &mut record.entry {
            let left_out = leave_out(decision);
            decision.left_out.extend(left_out.map(str::to_owned));
        }
        fits = record.encoded_len() <= RECORD_BYTES_MAX;
    }
    if !fits {
        let is_decision = matches!(record.entry, Some(Entry::Decision(_)));
        record.entry = Some(Entry::Gap(v1::GapRecord {
            lost: 1,
            lost_decisions: u64::from(is_decision),
            lost_changes: u64::from(!is_decision),
            cause: v1::gap_record::Cause::TooLong.into(),
            ..v1::GapRecord::default()
        }));
    }
    out.clear();
    let _infallible = record.encode(out);
    fits
}

/// What a decision can be told without, what is missed least first. Each tells the field, if there was something in it.
const LEFT_OUT: [fn(&mut v1::DecisionRecord) -> Option<&'static str>; 4] = [
    |decision| decision.replay.take().map(|_| "replay"),
    |decision| {
        // Whoever learns must not take it for one that named nothing.
        let observed = decision.observed.as_deref_mut().filter(|observed| !observed.unusable)?;
        let (task, observing) = (std::mem::take(&mut observed.task), observed.observing);
        *observed = v1::ObservedRecord { task, observing, unusable: true, ..v1::ObservedRecord::default() };
        Some("observed")
    },
    |decision| (!std::mem::take(&mut decision.evidence).is_empty()).then_some("evidence"),
    |decision| {
        decision
            .deviation
            .as_deref_mut()
            .map(|deviation| std::mem::take(&mut deviation.evidence))
            .map(|_| "deviation.evidence")
    },
];

fn cut_deep_values(decision: &mut v1::DecisionRecord) {
    let of_evidence = decision.evidence.iter_mut().filter_map(|evidence| evidence.value.as_mut());
    let of_request = decision.replay.iter_mut().flat_map(|replay| replay.request.values_mut());
    of_evidence.chain(of_request).for_each(|value| cut_deep(value, VALUE_DEPTH_MAX));
}

fn cut_deep(value: &mut v1::Value, levels_left: usize) {
    if levels_left == 0 {
        let note = format!("left out: nested deeper than {VALUE_DEPTH_MAX} levels");
        value.kind = Some(Kind::String(note));
        return;
    }
    match &mut value.kind {
        Some(Kind::Set(set)) => set.values.iter_mut().for_each(|inner| cut_deep(inner, levels_left - 1)),
        Some(Kind::Record(record)) => {
            record.fields.values_mut().for_each(|inner| cut_deep(inner, levels_left - 1));
        }
        Some(
            Kind::Bool(_)
            | Kind::Long(_)
            | Kind::String(_)
            | Kind::Entity(_)
            | Kind::Decimal(_)
            | Kind::Ip(_)
            | Kind::Datetime(_)
            | Kind::Duration(_),
        )
        | None => {}
    }
}

/// A time in milliseconds since 1970, as records have it.
#[must_use]
pub fn timestamp(ms: i64) -> prost_types::Timestamp {
    let nanos = i32::try_from(ms.rem_euclid(1_000) * 1_000_000).unwrap_or_default();
    prost_types::Timestamp { seconds: ms.div_euclid(1_000), nanos }
}

/// A span in milliseconds, as records have it: seconds and nanoseconds carry the same sign.
#[must_use]
pub fn duration(ms: i64) -> prost_types::Duration {
    let nanos = i32::try_from(ms % 1_000 * 1_000_000).unwrap_or_default();
    prost_types::Duration { seconds: ms / 1_000, nanos }
}

/// Milliseconds since 1970 of a record's time.
#[must_use]
pub fn unix_ms(time: &prost_types::Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos / 1_000_000))
}
