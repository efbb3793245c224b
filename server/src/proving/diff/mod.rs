//! What a change of bundle does: in words, over the matrix of both bundles, and over recorded decisions.

pub mod effects;
pub mod lines;
pub mod replay;
pub mod words;

use std::collections::BTreeMap;

use cardea_policy_store::fault::Faults;
use cardea_policy_store::load::{self, Files};
use cardea_policy_store::snapshot::Snapshot;
use serde::Serialize;

use super::matrix::{self, Answer, Filters, Key, Situations};
use effects::Effects;
use replay::Replayed;
use words::Words;

/// A bundle that loads, with its files.
#[derive(Debug)]
pub struct Side {
    files: Files,
    snapshot: Snapshot,
    situations: Situations,
}

impl Side {
    /// Loads a bundle.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn new(files: Files) -> Result<Self, Faults> {
        let snapshot = load::files(&files)?.snapshot;
        let situations = Situations::of(&files, &snapshot)?;
        Ok(Self { files, snapshot, situations })
    }

    /// The bundle, compiled.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// Everything that a change does.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What is written otherwise.
    pub words: Words,
    /// Verdicts over the matrix of both bundles.
    pub matrix: Effects,
    /// Verdicts over recorded decisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<Replayed>,
}

impl Report {
    /// How many verdicts change, and how many of them open more than before.
    #[must_use]
    pub fn changes(&self) -> (u64, u64) {
        let of_records = self
            .records
            .as_ref()
            .map_or((0, 0), |records| (records.effects.changed, records.effects.widening));
        (self.matrix.changed + of_records.0, self.matrix.widening + of_records.1)
    }
}

/// What is written otherwise.
#[must_use]
pub fn words(old: &Side, new: &Side) -> Words {
    Words::of((&old.files, &old.snapshot), (&new.files, &new.snapshot))
}

/// Judges the cells of both bundles under both. Each bundle judges the other's entities too: one that it does not
/// list is a stranger to it, as it would be in service.
///
/// # Errors
/// Too many cells, or a situation that a bundle does not take, in words.
pub fn matrix(old: &Side, new: &Side, filters: &Filters) -> Result<Effects, String> {
    let situations = new.situations.clone().with(old.situations.clone());
    let keys = matrix::keys(&[&old.snapshot, &new.snapshot], &situations, filters);
    let keys = keys.map_err(|many| format!("{many}; choose with --principal, --action and --resource"))?;
    let before: BTreeMap<Key, Answer> = matrix::judge(&old.snapshot, &situations, &keys)?;
    let after = matrix::judge(&new.snapshot, &situations, &keys)?;
    let mut effects = Effects::default();
    for ((key, old), new) in before.iter().zip(after.values()) {
        let example = || format!("{} {} ({})", key.principal, key.resource, key.situation);
        effects.note(old, new, &key.action.to_string(), false, example);
    }
    Ok(effects.ordered())
}
