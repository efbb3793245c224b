//! Recorded decisions, judged again: under the old bundle, to see that the record says enough, and under the new one.
//!
//! Records that the node wrote as replayable hold the request and every fact that a candidate read. Others hold only the
//! evidence; they are judged from that and counted apart. A record whose decision does not come out again under the old
//! bundle proves nothing about the new one: it is counted as not reproducible. Nothing is dropped without a count.
//! Limits: one record is held at a time.

use std::collections::BTreeSet;

use cardea_core::attempt::{Attempt, Parts};
use cardea_core::counters::CounterFact;
use cardea_core::decide::{Question, decide};
use cardea_core::facts::{Facts, SessionFacts, Told};
use cardea_core::time::Now;
use cardea_core::verdict::FactValue;
use cardea_policy_store::counters::Counter;
use cardea_policy_store::engine::{Record as Fields, Uid, Value};
use cardea_policy_store::fragment::{Fact, Group};
use cardea_policy_store::snapshot::Snapshot;
use cardea_proto::v1::{self, record::Entry, value::Kind};
use serde::Serialize;
use smol_str::SmolStr;

use super::Side;
use super::effects::Effects;
use crate::audit::record::unix_ms;
use crate::doors::decision;
use crate::pipeline::unrecorded;
use crate::proving::case::Got;
use crate::proving::matrix::Answer;
use crate::proving::words::{ActionNamed, Named};

/// How many records there were of each kind, and what the new bundle makes of those that can be judged again.
#[derive(Debug, Default, Serialize)]
pub struct Replayed {
    /// Records of decisions.
    pub decisions: u64,
    /// Decisions that were judged again from the request and all facts.
    pub from_facts: u64,
    /// Decisions that were judged again from their evidence alone.
    pub from_evidence: u64,
    /// Decisions without policy: ended sessions, expired tokens, what was no attempt. They are not judged again.
    pub before_policy: u64,
    /// Decisions that do not come out again under the old bundle, so they say nothing about the new one.
    pub not_reproducible: u64,
    /// Decisions of which the record hides something, and that therefore come out otherwise under the bundle that judged them; they say nothing.
    #[serde(skip_serializing_if = "is_zero")]
    pub masked: u64,
    /// Decisions of the same bundle that came out again as they were.
    #[serde(skip_serializing_if = "is_zero")]
    pub reproduced: u64,
    /// Decisions for which the new bundle reads facts that were never recorded; they count as unknown.
    pub with_unknown_facts: u64,
    /// Other records.
    pub others: u64,
    /// Records that were lost when they should have been written.
    pub lost: u64,
    /// Records of kinds that this version does not know.
    pub unreadable: u64,
    /// The changes.
    pub effects: Effects,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Replayed {
    /// Judges a record again.
    pub fn read(&mut self, old: &Side, new: &Side, record: &v1::Record) {
        match &record.entry {
            Some(Entry::Decision(decision)) => {
                self.decisions += 1;
                self.judge(old, new, decision, record.time.as_ref().map_or(0, unix_ms));
            }
            Some(Entry::Gap(gap)) => self.lost = self.lost.saturating_add(gap.lost),
            Some(_) => self.others += 1,
            None => self.unreadable += 1,
        }
    }

    /// Judges a record again under one bundle, beside the answer that it tells. Under the bundle that judged it then, which `is_by_this` tells by
    /// the digest in the record, the answer must be the same; under another one the difference is what the bundle would have changed.
    pub fn read_beside(&mut self, side: &Side, is_by_this: &dyn Fn(&str) -> bool, record: &v1::Record) {
        match &record.entry {
            Some(Entry::Decision(decision)) => {
                self.decisions += 1;
                self.judge_beside(side, is_by_this, decision, record.time.as_ref().map_or(0, unix_ms));
            }
            Some(Entry::Gap(gap)) => self.lost = self.lost.saturating_add(gap.lost),
            Some(_) => self.others += 1,
            None => self.unreadable += 1,
        }
    }

    fn judge_beside(
        &mut self,
        side: &Side,
        is_by_this: &dyn Fn(&str) -> bool,
        decision: &v1::DecisionRecord,
        time_ms: i64,
    ) {
        let Some(recorded) = Recorded::of(decision, time_ms) else {
            self.before_policy += 1;
            return;
        };
        match decision.replay {
            Some(_) => self.from_facts += 1,
            None => self.from_evidence += 1,
        }
        let (answer, unknown) = recorded.judge(side.snapshot());
        self.with_unknown_facts += u64::from(unknown);
        let was = Answer::recorded(decision);
        let is_by_this = decision.basis.as_ref().is_some_and(|basis| is_by_this(&basis.digest));
        if is_by_this && answer == was {
            self.reproduced += 1;
        } else if is_by_this && !decision.masked.is_empty() {
            self.masked += 1;
            return;
        } else if is_by_this && decision.replay.is_some() {
            self.not_reproducible += 1;
        }
        let example = || format!("{} (decision {})", recorded.title(), decision.decision_id);
        self.effects.note(&was, &answer, &recorded.action(), unknown, example);
    }

    /// All records are in.
    #[must_use]
    pub fn done(mut self) -> Self {
        self.effects = self.effects.ordered();
        self
    }

    fn judge(&mut self, old: &Side, new: &Side, decision: &v1::DecisionRecord, time_ms: i64) {
        let Some(recorded) = Recorded::of(decision, time_ms) else {
            self.before_policy += 1;
            return;
        };
        let (before, _) = recorded.judge(old.snapshot());
        if !recorded.is_told_by(&before) {
            if decision.masked.is_empty() {
                self.not_reproducible += 1;
            } else {
                self.masked += 1;
            }
            return;
        }
        match decision.replay {
            Some(_) => self.from_facts += 1,
            None => self.from_evidence += 1,
        }
        let (after, unknown) = recorded.judge(new.snapshot());
        self.with_unknown_facts += u64::from(unknown);
        let example = || format!("{} (decision {})", recorded.title(), decision.decision_id);
        self.effects.note(&before, &after, &recorded.action(), unknown, example);
    }
}

/// What a record says of one attempt that policy was asked about.
struct Recorded<'r> {
    record: &'r v1::DecisionRecord,
    principal: &'r v1::EntityRef,
    action: &'r v1::EntityRef,
    resource: &'r v1::EntityRef,
    now: Now,
    told: Told,
    /// Facts that were told.
    known: BTreeSet<Fact>,
}

impl<'r> Recorded<'r> {
    /// `None` if policy was not asked.
    fn of(record: &'r v1::DecisionRecord, time_ms: i64) -> Option<Self> {
        use v1::ReasonCode::{Forbidden, NoPermit, PolicyErrored, StepUpRequired};
        let by_policy = |reason: &v1::Reason| {
            matches!(reason.code(), Forbidden | NoPermit | PolicyErrored | StepUpRequired)
        };
        if !record.reasons.iter().all(by_policy) {
            return None;
        }
        let hops = record.delegation.len() + 1;
        let (mut told, mut known) = (Told::default(), BTreeSet::new());
        let mut tell = |path: &str, hop: Option<u32>, value: Option<&v1::Value>| {
            let Some((fact, value)) = fact(path).zip(value.and_then(fact_value)) else { return };
            known.insert(fact);
            match hop.filter(|_| fact.group().is_of_hop()) {
                Some(hop) => told.tell(fact, usize::try_from(hop).unwrap_or(usize::MAX), value),
                None => (0..hops).for_each(|hop| told.tell(fact, hop, value.clone())),
            }
        };
        match &record.replay {
            Some(replay) => {
                replay.facts.iter().for_each(|one| tell(&one.fact, Some(one.hop), one.value.as_ref()));
            }
            None => record.evidence.iter().for_each(|one| tell(&one.fact, None, one.value.as_ref())),
        }
        Some(Self {
            record,
            principal: record.principal.as_ref()?,
            action: record.action.as_ref()?,
            resource: record.resource.as_ref()?,
            now: Now { mono_ns: 0, wall_ms: time_ms },
            told,
            known,
        })
    }

    /// The answer of a bundle, and whether it reads facts that were never recorded.
    fn judge(&self, snapshot: &Snapshot) -> (Answer, bool) {
        let pair = |entity: &'r v1::EntityRef| (entity.r#type.as_str(), entity.id.as_str());
        let delegation: Vec<(&str, &str)> = self.record.delegation.iter().map(pair).collect();
        let sent = self.record.replay.iter().flat_map(|replay| &replay.request);
        let request = sent.filter_map(|(name, sent)| Some((name.clone(), value(sent, snapshot)?)));
        let parts = Parts {
            principal: pair(self.principal),
            action: pair(self.action),
            resource: pair(self.resource),
            request: request.collect::<Fields>(),
            session_id: &self.record.session_id,
            delegation: &delegation,
            ..Parts::default()
        };
        let attempt = match Attempt::new(snapshot, parts) {
            Ok(attempt) => attempt,
            Err(not) => return (Answer::refused(not.code), false),
        };
        let question = Question::new(snapshot, &attempt);
        let session = SessionFacts::Told(std::sync::Arc::new(self.told.clone()));
        let counters = self.counters(snapshot);
        let uncounted = question.needs().counters().numbers().any(|number| {
            let counter = snapshot.counter(number);
            !counter.is_some_and(|of| self.record.counters.iter().any(|known| known.name == of.name))
        });
        let facts = Facts { session, counters, ..Facts::default() };
        let verdict = decide(&question, &facts, self.now);
        let needs = question.needs();
        let computed = |fact: &Fact| fact.group() == Group::Actor;
        let unknown = needs.facts().any(|fact| !self.known.contains(&fact) && !computed(&fact))
            || uncounted
            || !self.record.masked.is_empty()
            || (needs.reads_any(Group::Request) && self.record.replay.is_none());
        (Answer::of(Got::of(&verdict, snapshot)), unknown)
    }

    /// How the counters stood, by the names that the bundle has for them.
    fn counters(&self, snapshot: &Snapshot) -> Vec<CounterFact> {
        let recorded = |counter: &Counter| {
            let known = self.record.counters.iter().find(|known| known.name == counter.name);
            let beginning = CounterFact::beginning(counter, self.now.wall_ms);
            known.map_or(beginning, |known| CounterFact {
                count: known.count,
                is_warm: known.warm,
                ..beginning
            })
        };
        snapshot.counters().iter().map(recorded).collect()
    }

    /// Whether an answer is the one that was recorded, settled by the same policies.
    fn is_told_by(&self, answer: &Answer) -> bool {
        let verdicts = [
            cardea_core::verdict::Decision::Allow,
            cardea_core::verdict::Decision::StepUp,
            cardea_core::verdict::Decision::Deny,
        ];
        let recorded = verdicts.into_iter().find(|one| decision(*one) == self.record.decision());
        let settled: BTreeSet<&str> = self.record.determining_policies.iter().map(String::as_str).collect();
        let settles: BTreeSet<&str> = answer.policies.iter().map(String::as_str).collect();
        recorded.is_some_and(|recorded| recorded.name() == answer.verdict) && settled == settles
    }

    fn action(&self) -> String {
        ActionNamed(named(self.action)).to_string()
    }

    fn title(&self) -> String {
        format!("{} {}", named(self.principal), named(self.resource))
    }
}

fn named(entity: &v1::EntityRef) -> Named {
    Named { type_name: entity.r#type.clone(), id: entity.id.clone() }
}

fn fact(path: &str) -> Option<Fact> {
    let (group, name) = path.split_once('.')?;
    Group::named(group)?.fact(name)
}

fn fact_value(value: &v1::Value) -> Option<FactValue> {
    match value.kind.as_ref()? {
        Kind::Bool(value) => Some(FactValue::Bool(*value)),
        Kind::Long(value) => Some(FactValue::Long(*value)),
        Kind::String(text) => Some(FactValue::Text(text.into())),
        Kind::Set(set) => {
            let text = |value: &v1::Value| match &value.kind {
                Some(Kind::String(text)) => Some(SmolStr::new(text)),
                _ => None,
            };
            set.values.iter().map(text).collect::<Option<_>>().map(FactValue::Texts)
        }
        Kind::Entity(_)
        | Kind::Record(_)
        | Kind::Decimal(_)
        | Kind::Ip(_)
        | Kind::Datetime(_)
        | Kind::Duration(_) => None,
    }
}

/// A recorded value, in the types of a bundle; `None` if it does not have the type of an entity in it.
fn value(recorded: &v1::Value, snapshot: &Snapshot) -> Option<Value> {
    unrecorded(recorded, &|type_name, id| Some(Uid::new(snapshot.type_name(type_name)?, id)))
}

#[cfg(test)]
mod tests {
    use cardea_policy_store::engine::Extension;

    use super::*;
    use crate::pipeline::recorded;

    fn snapshot() -> Snapshot {
        let files: cardea_policy_store::load::Files = [
            ("bundle.toml", "name = \"t\""),
            (
                "schema.cedarschema",
                "entity A; action a appliesTo { principal: A, resource: A, context: {} };",
            ),
        ]
        .into_iter()
        .map(|(name, text)| (name.into(), text.into()))
        .collect();
        cardea_policy_store::load::files(&files).unwrap().snapshot
    }

    #[test]
    fn a_value_comes_back_from_its_record() {
        let snapshot = snapshot();
        let extension = |kind, text| Value::extension(kind, text).unwrap();
        let values = [
            true.into(),
            (-5_i64).into(),
            "a \"b\"".into(),
            Value::from(&Uid::new(snapshot.type_name("A").unwrap(), "x")),
            Value::strings(["b", "a"]),
            extension(Extension::Decimal, "12.3400"),
            extension(Extension::Ip, "10.0.0.0/8"),
            extension(Extension::Ip, "::1"),
            extension(Extension::Datetime, "2026-01-02T03:04:05.678Z"),
            extension(Extension::Duration, "-1h30m7ms"),
            Value::datetime(-86_400_001),
        ];
        let fields = values.iter().enumerate().map(|(at, one)| (at.to_string(), one.clone()));
        let all = Value::from(fields.collect::<Fields>());
        for one in values.iter().chain([&all]) {
            let line = serde_json::to_string(&recorded(one)).unwrap();
            let read: v1::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value(&read, &snapshot).as_ref(), Some(one), "{line}");
        }
        let stranger = Kind::Entity(v1::EntityRef { r#type: "Gone".into(), id: "x".into() });
        assert_eq!(value(&v1::Value { kind: Some(stranger) }, &snapshot), None);
    }
}
