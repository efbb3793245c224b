//! Cases: incidents of the same identity and task that say the same, folded into one with counts.
//!
//! Limit: [`CASES_KEPT`] are held; when one more comes, the less severe half goes and its incidents are counted in `dropped`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use cardea_core::behavior::{ActionClass, Assessment, Response};
use jiff::Timestamp;

use super::clipped;
use super::told::Told;
use crate::monitor::attempts::Recorded;

/// Most cases that are held at the same time.
pub(super) const CASES_KEPT: usize = 2_000;
/// Most sentences of evidence of a case.
const SENTENCES_MAX: usize = 12;

/// What makes two incidents the same case; the most severe sorts first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) assessment: Reverse<Assessment>,
    pub(super) response: Reverse<Response>,
    pub(super) principal: String,
    pub(super) task: String,
    pub(super) action: String,
    /// The sentence of its evidence that names what it was done to, or the first.
    headline: String,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) class: ActionClass,
    pub(super) incidents: u64,
    pub(super) repeats: u64,
    /// The highest of any, 0 to 1.
    pub(super) confidence: f64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// Of the first attempt.
    pub(super) session: String,
    /// Of the first attempt, the headline first.
    pub(super) evidence: Vec<String>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Cases {
    cases: BTreeMap<Key, Case>,
    /// Incidents of cases for which there was no room.
    pub(super) dropped: u64,
}

impl Cases {
    pub(super) fn note(&mut self, recorded: &Recorded, task: &str, class: ActionClass, told: &Told) {
        let names = format!("{} → ", recorded.action);
        let headline =
            told.evidence.iter().find(|line| line.starts_with(&names)).or_else(|| told.evidence.first());
        let key = Key {
            assessment: Reverse(told.assessment),
            response: Reverse(told.response),
            principal: clipped(&recorded.principal),
            task: clipped(task),
            action: clipped(&recorded.action),
            headline: headline.map(|line| clipped(line)).unwrap_or_default(),
        };
        if self.cases.len() >= CASES_KEPT && !self.cases.contains_key(&key) {
            self.make_room();
        }
        let case = self.cases.entry(key).or_insert_with(|| Case {
            class,
            incidents: 0,
            repeats: 0,
            confidence: 0.0,
            first: recorded.ts,
            last: recorded.ts,
            session: clipped(&recorded.session),
            evidence: headline
                .into_iter()
                .chain(told.evidence.iter().filter(|line| Some(*line) != headline))
                .take(SENTENCES_MAX)
                .map(|line| clipped(line))
                .collect(),
        });
        case.incidents += u64::from(!told.is_again());
        case.repeats += u64::from(told.is_again());
        case.confidence = case.confidence.max(told.confidence);
        case.first = case.first.min(recorded.ts);
        case.last = case.last.max(recorded.ts);
    }

    /// The most severe first; of the same severity the more frequent.
    pub(super) fn ranked(&self) -> Vec<(&Key, &Case)> {
        let mut cases: Vec<_> = self.cases.iter().collect();
        cases.sort_by(|(key, case), (other_key, other)| {
            (key.assessment, key.response)
                .cmp(&(other_key.assessment, other_key.response))
                .then(other.confidence.total_cmp(&case.confidence))
                .then(other.incidents.cmp(&case.incidents))
                .then(key.cmp(other_key))
        });
        cases
    }

    fn make_room(&mut self) {
        let gone: Vec<Key> =
            self.ranked().into_iter().skip(CASES_KEPT / 2).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.dropped += self.cases.remove(&key).map_or(0, |case| case.incidents);
        }
    }
}
