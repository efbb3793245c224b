//! Policy coverage: which policies were ever satisfied, and which ever were in scope and not satisfied.
//!
//! A policy with a condition has two sides, one without has the first only. An error shows neither.

use std::path::PathBuf;

use cardea_core::decide::Outcome;
use cardea_policy_store::index::PolicyIndex;
use cardea_policy_store::load::Files;
use cardea_policy_store::snapshot::Snapshot;
use serde::Serialize;

use super::policies;

/// What the tests saw of one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Covered {
    /// Its id.
    pub id: String,
    /// The file that it stands in.
    pub file: PathBuf,
    /// The line in it, from 1; 0 if it is not known.
    pub line: usize,
    /// Whether it has a condition beside its scope.
    pub conditional: bool,
    /// How often it was satisfied.
    pub satisfied: u64,
    /// How often it was in scope and not satisfied.
    pub unsatisfied: u64,
    /// How often it could not be evaluated.
    pub errored: u64,
}

impl Covered {
    /// Whether the tests never saw it satisfied.
    #[must_use]
    pub fn never_satisfied(&self) -> bool {
        self.satisfied == 0
    }

    /// Whether the tests never saw its condition fail.
    #[must_use]
    pub fn never_failed(&self) -> bool {
        self.conditional && self.unsatisfied == 0
    }
}

/// What the tests saw of all policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Sides that were seen, in tenths of a percent of all sides, cut; 1000 for a bundle without policies.
    pub permille: u32,
    /// Sides that were seen.
    pub sides_seen: u64,
    /// All sides.
    pub sides: u64,
    /// The policies, in the order of the bundle.
    pub policies: Vec<Covered>,
}

impl Coverage {
    /// Nothing was seen yet.
    #[must_use]
    pub fn of(files: &Files, snapshot: &Snapshot) -> Self {
        let written = policies::written(files, snapshot);
        let policies = snapshot.policies().iter().map(|policy| {
            let (file, line) = written.get(&policy.id).map_or_else(
                || (PathBuf::from("policies"), 0),
                |written| (written.file.clone(), written.line),
            );
            Covered {
                id: policy.id.to_string(),
                file,
                line,
                conditional: !policy.condition.is_empty(),
                satisfied: 0,
                unsatisfied: 0,
                errored: 0,
            }
        });
        let mut coverage = Self { policies: policies.collect(), ..Self::default() };
        coverage.count();
        coverage
    }

    /// Takes in what the candidates of an attempt said.
    pub fn see(&mut self, hops: &[Vec<(PolicyIndex, Outcome)>]) {
        for (index, outcome) in hops.iter().flatten() {
            let policy = usize::try_from(*index).ok().and_then(|at| self.policies.get_mut(at));
            let Some(policy) = policy else { continue };
            match outcome {
                Ok(true) => policy.satisfied += 1,
                Ok(false) => policy.unsatisfied += 1,
                Err(_) => policy.errored += 1,
            }
        }
    }

    /// Works out the share that was seen.
    pub fn count(&mut self) {
        let sides = |policy: &Covered| 1 + u64::from(policy.conditional);
        let missing =
            |policy: &Covered| u64::from(policy.never_satisfied()) + u64::from(policy.never_failed());
        self.sides = self.policies.iter().map(sides).sum();
        self.sides_seen = self.sides - self.policies.iter().map(missing).sum::<u64>();
        self.permille = match self.sides {
            0 => 1000,
            sides => u32::try_from(self.sides_seen * 1000 / sides).unwrap_or(1000),
        };
    }

    /// As a percentage with one decimal, `93.7`.
    #[must_use]
    pub fn percent(&self) -> String {
        format!("{}.{}", self.permille / 10, self.permille % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(policies: &str) -> Coverage {
        let files: Files = [
            ("bundle.toml", "name = \"t\""),
            (
                "schema.cedarschema",
                "entity A; action a appliesTo { principal: A, resource: A, context: {} };",
            ),
            ("policies/p.cedar", policies),
        ]
        .into_iter()
        .map(|(name, text)| (name.into(), text.into()))
        .collect();
        let loaded = cardea_policy_store::load::files(&files).unwrap();
        Coverage::of(&files, &loaded.snapshot)
    }

    #[test]
    fn a_condition_has_two_sides_and_a_bare_scope_one() {
        let mut coverage = bundle(
            "@id(\"all\") permit (principal, action, resource);\n\n@id(\"none\") forbid (principal, action, resource) when { principal == resource };",
        );
        assert_eq!((coverage.permille, coverage.sides), (0, 3));
        coverage.see(&[vec![(0, Ok(true)), (1, Ok(true))]]);
        coverage.count();
        assert_eq!((coverage.percent().as_str(), coverage.sides_seen), ("66.6", 2));
        coverage.see(&[vec![(1, Ok(false))]]);
        coverage.count();
        assert_eq!(coverage.percent(), "100.0");
        let places: Vec<_> =
            coverage.policies.iter().map(|policy| (policy.id.as_str(), policy.line)).collect();
        assert_eq!(places, [("all", 1), ("none", 3)]);
        assert_eq!(bundle("").permille, 1000);
    }
}
