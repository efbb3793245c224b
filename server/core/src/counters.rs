//! Counters: how much of what an attempt is counted by was used before it, and the arithmetic of one sliding window.
//!
//! Pure: the service keeps the windows in its table and takes places in them; policies read what it found. What is missing
//! reads as the largest number, so that limits deny.

mod window;

use cardea_policy_store::counters::{Counter, Definition, On};
use cardea_policy_store::fragment::{CounterField, CounterSet};
use cardea_policy_store::snapshot::Snapshot;
use cardea_policy_store::stamp::Stamp;

pub use window::{PARTS, Part, SLOTS, Window};

use crate::facts::Facts;
use crate::verdict::{Decision, FactValue};

/// What is counted where nobody can say how much it is.
pub const UNKNOWN: i64 = i64::MAX;

/// A counter as it stood for one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterFact {
    /// What it counts, so that another bundle's policies find it too.
    pub definition: Definition,
    /// Attempts of the same subject before this one that count; [`UNKNOWN`] without a subject, or without a place for it.
    pub count: i64,
    /// Whether it has counted for a whole window.
    pub is_warm: bool,
    /// Since when it is, or when it will be, Unix milliseconds.
    pub warm_ms: i64,
    /// Whether the attempt took a place in it.
    pub is_taken: bool,
}

/// A counter in a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its number in the snapshot that judged.
    pub number: u8,
    /// How it stood.
    pub fact: CounterFact,
    /// Whether a determining policy reads it.
    pub is_evidence: bool,
}

/// What became of an attempt in a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is not counted by it: policies only read it.
    Read,
    /// It counts.
    Counted,
    /// It took a place and gave it back.
    Released,
    /// It counts unless the enforcement point gives it back in time.
    Reserved,
}

impl Outcome {
    /// What becomes of a place that was taken, by the answer.
    #[must_use]
    pub fn of(on: On, decision: Decision) -> Self {
        match (on, decision) {
            (On::Attempt, _) | (On::Allow, Decision::Allow) => Self::Counted,
            (On::Commit, Decision::Allow) => Self::Reserved,
            (On::Allow | On::Commit, Decision::StepUp | Decision::Deny) => Self::Released,
        }
    }

    /// Its name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Counted => "counted",
            Self::Released => "released",
            Self::Reserved => "reserved",
        }
    }
}

impl CounterFact {
    /// Of a counter about which nothing can be said.
    #[must_use]
    pub fn unknown(definition: Definition) -> Self {
        Self { definition, count: UNKNOWN, is_warm: false, warm_ms: i64::MAX, is_taken: false }
    }

    /// Of a counter that begins now: nothing was counted, and it is not warm.
    #[must_use]
    pub fn beginning(counter: &Counter, wall_ms: i64) -> Self {
        let window_ms = i64::try_from(counter.window_ms).unwrap_or(i64::MAX);
        Self { count: 0, warm_ms: wall_ms.saturating_add(window_ms), ..Self::unknown(counter.definition) }
    }

    /// The value of a field.
    #[must_use]
    pub fn value(&self, field: CounterField) -> FactValue {
        match field {
            CounterField::Count => FactValue::Long(self.count),
            CounterField::Warm => FactValue::Bool(self.is_warm),
        }
    }
}

impl Counted {
    /// What became of the attempt in it.
    #[must_use]
    pub fn outcome(&self, counter: &Counter, decision: Decision) -> Outcome {
        if self.fact.is_taken { Outcome::of(counter.on, decision) } else { Outcome::Read }
    }

    /// Where the value comes from, in words.
    #[must_use]
    pub fn why(&self, counter: &Counter) -> String {
        let CounterFact { count, is_warm, warm_ms, .. } = self.fact;
        let per = counter.per.name();
        if count == UNKNOWN {
            return format!("there is no {per} to count for, or no place to count it");
        }
        let window_s = counter.window_ms / 1000;
        let since = Stamp::from_unix_s(warm_ms.div_euclid(1000)).map(|at| at.to_string()).unwrap_or_default();
        let word = if is_warm { "since" } else { "at" };
        format!("{count} in {window_s} s per {per}, warm {word} {since}")
    }
}

impl Facts {
    /// How a counter stood.
    #[must_use]
    pub fn counter(&self, definition: Definition) -> CounterFact {
        let known = self.counters.iter().find(|fact| fact.definition == definition);
        known.copied().unwrap_or_else(|| CounterFact::unknown(definition))
    }

    /// How these counters of a snapshot stood, `evidence` among them read by determining policies.
    #[must_use]
    pub(crate) fn counted(
        &self,
        counters: CounterSet,
        evidence: CounterSet,
        snapshot: &Snapshot,
    ) -> Vec<Counted> {
        let of = |number| {
            let fact = self.counter(snapshot.counter(number)?.definition);
            Some(Counted { number, fact, is_evidence: evidence.has(number) })
        };
        counters.numbers().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests;
