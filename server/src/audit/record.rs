//! The audit record: one line of JSON per record, the same fields as `cardea.v1.Record`.
//!
//! Owns: the shape of a line, its conversion to the wire, and the bounds that keep every line readable:
//! at most `VALUE_DEPTH_MAX` levels of nesting in a piece of evidence, at most `LINE_BYTES_MAX` bytes.
//! Strings are `SmolStr`, so that a record is made from shared names without copying them.
//! Never does: masking (that happens before a record is made) and reading the clock (times come with the entry).

mod counter;
mod deviation;
mod hold;
mod observed;
mod shadow;
mod stream;
mod work;

use std::collections::BTreeMap;

use cardea_proto::v1;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct as _};
use smol_str::SmolStr;

use super::text;
pub use counter::CounterRecord;
pub use deviation::DeviationRecord;
pub use hold::{HoldCause, HoldRecord};
pub use observed::ObservedRecord;
pub use shadow::{ShadowAnswer, ShadowRecord};
pub use stream::StreamRecord;
pub use work::{ReviewRecord, TaskRecord};

/// Deepest nesting of an evidence value, in levels. Each level is two levels of JSON, and the JSON reader
/// stops at 128: a line that is written must be readable again.
pub const VALUE_DEPTH_MAX: usize = 32;

/// Longest line, in bytes, its line end included. A decision with every field at its limit takes about 70 KB
/// without its evidence; the rest is room for evidence. Readers hold at most one line beyond their batch.
pub const LINE_BYTES_MAX: usize = 256 * 1024;

/// What an entry of the audit queue is turned into, on the writer's thread, away from the hot path.
pub trait IntoBody: Send {
    /// Does all the formatting that the record needs.
    fn into_body(self: Box<Self>) -> Body;
}

/// One line: what was decided or changed, when, and its place in the order of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Rises by one with each record of this node, across restarts; starts at 1.
    pub sequence: u64,
    /// Wall time, in milliseconds since 1970-01-01T00:00:00Z.
    pub time_ms: u64,
    /// What happened.
    pub body: Body,
}

/// What a record tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are decisions, and each is moved once or twice")]
pub enum Body {
    /// An attempt was judged.
    Decision(DecisionRecord),
    /// A signal came in.
    Signal(SignalRecord),
    /// A session was opened, changed or ended.
    Session(SessionRecord),
    /// A bundle came into force or was refused.
    Bundle(BundleRecord),
    /// Records were lost.
    Gap(GapRecord),
    /// A candidate bundle would have answered an attempt differently.
    Shadow(Box<ShadowRecord>),
    /// A task was approved, narrowed, extended or ended.
    Task(Box<TaskRecord>),
    /// A review was opened, approved, rejected, or has expired.
    Review(Box<ReviewRecord>),
    /// A stream of outgoing signals changed, or lost something.
    Stream(StreamRecord),
}

/// An entity: `type::"id"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// Type name with its namespaces.
    #[serde(rename = "type")]
    pub type_name: SmolStr,
    /// Id.
    pub id: SmolStr,
}

/// The record of one decision; fields as in `cardea.v1.DecisionRecord`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Names the decision (UUIDv7).
    pub decision_id: SmolStr,
    /// The caller's own id for the attempt.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub attempt_id: SmolStr,
    /// Name of the door the attempt came in by.
    pub door: SmolStr,
    /// Who acted; missing if the door could not learn it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Entity>,
    /// What it wanted to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Entity>,
    /// What it wanted to do it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Entity>,
    /// The session of the attempt; empty if none.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub session_id: SmolStr,
    /// Those on whose behalf the principal acted, root first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delegation: Vec<Entity>,
    /// The answer.
    #[serde(with = "text::decision")]
    pub decision: v1::Decision,
    /// Why it is not a plain allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// Policies that settled it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub determining_policies: Vec<SmolStr>,
    /// Policies that could not be evaluated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_errors: Vec<SmolStr>,
    /// Names of the step-up requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step_up: Vec<SmolStr>,
    /// Obligations of an allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub obligations: Vec<SmolStr>,
    /// Facts that determining policies read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// What the verdict rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
    /// From the attempt's arrival at the pipeline to its verdict, in nanoseconds.
    pub latency_ns: u64,
    /// The answer for each hop of the delegation chain, root first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<HopVerdict>,
    /// `@severity` of the first determining policy that has one.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub severity: SmolStr,
    /// What it takes to judge the attempt again; only where the configuration asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Box<Replay>>,
    /// Door `hold`: which hold it was told to, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Box<HoldRecord>>,
    /// How the attempt deviated from what was approved; only where a policy reads that and there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation: Option<Box<DeviationRecord>>,
    /// How the counters stood that a candidate policy read, or that counted the attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counters: Vec<CounterRecord>,
    /// Names of the responses that the policies which settled it ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub responses: Vec<SmolStr>,
    /// Policies in dry run without which the answer would have been another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub would_have: Vec<WouldHave>,
    /// What it named, for whoever learns; only where it was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Box<ObservedRecord>>,
}

/// What a policy in dry run would have answered; fields as in `cardea.v1.WouldHave`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WouldHave {
    /// Its id.
    pub policy: SmolStr,
    /// Its answer.
    #[serde(with = "text::decision")]
    pub decision: v1::Decision,
}

/// What it takes to judge an attempt again; fields as in `cardea.v1.Replay`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// What the enforcement point sent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub request: BTreeMap<SmolStr, Value>,
    /// Every fact that a candidate policy read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<ReplayFact>,
}

/// One fact that a candidate policy read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayFact {
    /// Path as policy writes it, without `context.`.
    pub fact: SmolStr,
    /// Whose it is: the place in the delegation chain, root first; 0 for facts of the whole attempt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hop: u32,
    /// The value that it had.
    pub value: Value,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Why a verdict is not a plain allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The wire's own list of codes.
    #[serde(with = "text::reason_code")]
    pub code: v1::ReasonCode,
    /// For the caller.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub message: SmolStr,
}

/// One fact that a determining policy read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Path as policy writes it, without `context.`.
    pub fact: SmolStr,
    /// The value that it had.
    pub value: Value,
    /// Where the value comes from, in words.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub why: SmolStr,
}

/// A value of Cedar's data model, tagged with its kind: `{"long": 72}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// Cedar's only number.
    Long(i64),
    /// Text.
    String(SmolStr),
    /// A reference to an entity.
    Entity(Entity),
    /// A set.
    Set(Vec<Self>),
    /// Named fields.
    Record(BTreeMap<SmolStr, Self>),
    /// Decimal number in text.
    Decimal(SmolStr),
    /// Address or CIDR range in text.
    Ip(SmolStr),
    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[serde(with = "text::time")]
    Datetime(i64),
    /// Milliseconds.
    #[serde(rename = "duration_ms")]
    Duration(i64),
}

/// What a verdict rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// Revision of the bundle in force.
    pub revision: u64,
    /// SHA-256 of the bundle, lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub digest: SmolStr,
    /// Version of this node's state.
    pub state_version: u64,
    /// Ages of the facts that were used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ages: Vec<FactAge>,
}

/// How old a group of facts was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactAge {
    /// `session`, `risk`, …
    pub fact: SmolStr,
    /// Milliseconds since the newest input that the fact rests on.
    pub age_ms: u64,
}

/// What one hop of a delegation chain came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopVerdict {
    /// Who the hop is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Entity>,
    /// The answer for it.
    #[serde(with = "text::decision")]
    pub decision: v1::Decision,
    /// Policies that settled it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub determining_policies: Vec<SmolStr>,
}

/// The record of one signal; fields as in `cardea.v1.SignalRecord`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalRecord {
    /// Whom it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Entity>,
    /// `risk/credential_compromise`, `session_revoked`, …
    pub kind: SmolStr,
    /// Who sent it.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub source: SmolStr,
    /// `applied`, `superseded`, `unknown_subject`.
    pub outcome: SmolStr,
    /// Version of this node's state after it.
    pub state_version: u64,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub reason: SmolStr,
    /// The session it is about; empty if none.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub session_id: SmolStr,
    /// Joins signals that have one cause; empty if their transmitter says nothing.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub txn: SmolStr,
    /// Names the security event token that brought it; empty if none did.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub token_id: SmolStr,
}

/// The record of one change of a session; fields as in `cardea.v1.SessionRecord`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The session.
    pub session_id: SmolStr,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Entity>,
    /// `opened`, `opened_from_token`, `updated`, `ended`.
    pub change: SmolStr,
    /// Version of this node's state after it.
    pub state_version: u64,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub reason: SmolStr,
}

/// The record of one change of the bundle; fields as in `cardea.v1.BundleRecord`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleRecord {
    /// `activated`, `refused`, `rolled_back`, `shadow_started`, `shadow_stopped` or `promoted`.
    pub change: SmolStr,
    /// Name of the bundle.
    pub name: SmolStr,
    /// Its revision.
    pub revision: u64,
    /// SHA-256, lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub digest: SmolStr,
    /// Refused: the first fault. Otherwise why, in the words of whoever asked.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub reason: SmolStr,
    /// Who asked, as the connection proves it; empty if nobody asked, or it proves nothing.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub asked_by: SmolStr,
    /// Version of the baselines in it; 0: it has none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub baseline_version: u32,
    /// Who approved them.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub baseline_approved_by: SmolStr,
}

/// Stands in the place of records that were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRecord {
    /// How many.
    pub lost: u64,
}

impl IntoBody for Body {
    fn into_body(self: Box<Self>) -> Body {
        *self
    }
}

impl Body {
    /// The kind, as the wire's filter names it.
    #[must_use]
    pub fn kind(&self) -> v1::RecordKind {
        match self {
            Self::Decision(_) => v1::RecordKind::Decision,
            Self::Signal(_) => v1::RecordKind::Signal,
            Self::Session(_) => v1::RecordKind::Session,
            Self::Bundle(_) => v1::RecordKind::Bundle,
            Self::Gap(_) => v1::RecordKind::Gap,
            Self::Shadow(_) => v1::RecordKind::Shadow,
            Self::Task(_) => v1::RecordKind::Task,
            Self::Review(_) => v1::RecordKind::Review,
            Self::Stream(_) => v1::RecordKind::Stream,
        }
    }
}

impl Record {
    /// Adds the record to `out` as one line, its line end included. A record beyond `LINE_BYTES_MAX` first loses what
    /// a replay needs, then its evidence, with a note in its place; one that is still too long becomes a gap of one,
    /// so that the order stays whole. Returns false in that last case.
    pub(super) fn write_line(mut self, out: &mut Vec<u8>) -> bool {
        self.cut_deep_evidence();
        let Err(bytes) = self.try_line(out) else { return true };
        if let Body::Decision(decision) = &mut self.body
            && decision.replay.take().is_some()
            && self.try_line(out).is_ok()
        {
            return true;
        }
        if let Body::Decision(decision) = &mut self.body {
            let note = format!("evidence left out: the record took {bytes} bytes");
            decision.evidence = vec![Evidence {
                fact: SmolStr::new_static("record"),
                value: Value::String(note.into()),
                why: SmolStr::default(),
            }];
            if self.try_line(out).is_ok() {
                return true;
            }
        }
        self.body = Body::Gap(GapRecord { lost: 1 });
        let _fits = self.try_line(out);
        false
    }

    /// Adds the line, or leaves `out` as it was and returns the length that did not fit.
    fn try_line(&self, out: &mut Vec<u8>) -> Result<(), usize> {
        let start = out.len();
        let written = serde_json::to_writer(&mut *out, self);
        out.push(b'\n');
        let bytes = out.len() - start;
        if written.is_ok() && bytes <= LINE_BYTES_MAX {
            return Ok(());
        }
        out.truncate(start);
        Err(bytes)
    }

    fn cut_deep_evidence(&mut self) {
        if let Body::Decision(decision) = &mut self.body {
            for evidence in &mut decision.evidence {
                cut_deep(&mut evidence.value, VALUE_DEPTH_MAX);
            }
            for value in decision.replay.iter_mut().flat_map(|replay| replay.request.values_mut()) {
                cut_deep(value, VALUE_DEPTH_MAX);
            }
        }
    }
}

fn cut_deep(value: &mut Value, levels_left: usize) {
    if levels_left == 0 {
        let note = format!("left out: nested deeper than {VALUE_DEPTH_MAX} levels");
        *value = Value::String(note.into());
        return;
    }
    match value {
        Value::Set(values) => values.iter_mut().for_each(|inner| cut_deep(inner, levels_left - 1)),
        Value::Record(fields) => fields.values_mut().for_each(|inner| cut_deep(inner, levels_left - 1)),
        Value::Bool(_)
        | Value::Long(_)
        | Value::String(_)
        | Value::Entity(_)
        | Value::Decimal(_)
        | Value::Ip(_)
        | Value::Datetime(_)
        | Value::Duration(_) => {}
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_struct("Record", 3)?;
        line.serialize_field("sequence", &self.sequence)?;
        line.serialize_field("time", &Time(i64::try_from(self.time_ms).unwrap_or(i64::MAX)))?;
        match &self.body {
            Body::Decision(body) => line.serialize_field("decision", body)?,
            Body::Signal(body) => line.serialize_field("signal", body)?,
            Body::Session(body) => line.serialize_field("session", body)?,
            Body::Bundle(body) => line.serialize_field("bundle", body)?,
            Body::Gap(body) => line.serialize_field("gap", body)?,
            Body::Shadow(body) => line.serialize_field("shadow", body)?,
            Body::Task(body) => line.serialize_field("task", body)?,
            Body::Review(body) => line.serialize_field("review", body)?,
            Body::Stream(body) => line.serialize_field("stream", body)?,
        }
        line.end()
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let line = Line::deserialize(deserializer)?;
        let bodies = [
            line.decision.map(|body| Body::Decision(*body)),
            line.signal.map(|body| Body::Signal(*body)),
            line.session.map(|body| Body::Session(*body)),
            line.bundle.map(|body| Body::Bundle(*body)),
            line.gap.map(Body::Gap),
            line.shadow.map(Body::Shadow),
            line.task.map(Body::Task),
            line.review.map(Body::Review),
            line.stream.map(|body| Body::Stream(*body)),
        ];
        let mut present = bodies.into_iter().flatten();
        let (Some(body), None) = (present.next(), present.next()) else {
            return Err(de::Error::custom("a record holds exactly one entry"));
        };
        let time_ms = u64::try_from(line.time.0).map_err(|_| de::Error::custom("the time is before 1970"))?;
        Ok(Self { sequence: line.sequence, time_ms, body })
    }
}

#[derive(Serialize, Deserialize)]
struct Time(#[serde(with = "text::time")] i64);

/// A line as it is read, before it is known to hold exactly one entry.
#[derive(Deserialize)]
struct Line {
    sequence: u64,
    time: Time,
    decision: Option<Box<DecisionRecord>>,
    signal: Option<Box<SignalRecord>>,
    session: Option<Box<SessionRecord>>,
    bundle: Option<Box<BundleRecord>>,
    gap: Option<GapRecord>,
    shadow: Option<Box<ShadowRecord>>,
    task: Option<Box<TaskRecord>>,
    review: Option<Box<ReviewRecord>>,
    stream: Option<Box<StreamRecord>>,
}
