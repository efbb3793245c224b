//! A file of baselines: what was approved for each identity and task, with who approved it.
//!
//! JSON with sorted names, so that the same approved runs give the same bytes, and so that a bundle can carry and sign it. It holds
//! names, never fingerprints: the key of those is drawn when the file is compiled.

use std::collections::BTreeMap;
use std::path::Path;

use cardea_core::behavior::approved::Merge;
use cardea_core::behavior::{Approved, Baseline, Key, Rules};
use serde::{Deserialize, Serialize};

use super::Fault;

/// What the file says it is.
const FORMAT: &str = "cardea-baselines/1";
/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    format: String,
    /// Rises by one with each promotion; evidence names it.
    pub version: u32,
    /// Who approved the runs.
    pub approved_by: String,
    /// Attempts that it rests on.
    pub attempts: u64,
    /// What was approved, by identity and then by task; the empty task holds what named none.
    pub baselines: BTreeMap<String, BTreeMap<String, Approved>>,
}

impl Kept {
    /// One that approves nothing.
    #[must_use]
    pub fn new(approved_by: &str) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: 1,
            approved_by: approved_by.to_owned(),
            attempts: 0,
            baselines: BTreeMap::new(),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is no file of baselines that this version knows.
    pub fn read(path: &Path) -> Result<Self, Fault> {
        let unread = |error| Fault::of(path, format!("cannot be read: {error}"));
        let length = std::fs::metadata(path).map_err(unread)?.len();
        if length > FILE_BYTES_MAX {
            return Err(Fault::of(path, format!("has more than {FILE_BYTES_MAX} bytes")));
        }
        let bytes = std::fs::read(path).map_err(unread)?;
        let kept: Self = serde_json::from_slice(&bytes)
            .map_err(|error| Fault::of(path, format!("{error}; make it with `cardea monitor learn`")))?;
        if kept.format != FORMAT {
            let what = format!("is `{}`, and this version reads `{FORMAT}`; learn it again", kept.format);
            return Err(Fault::of(path, what));
        }
        Ok(kept)
    }

    /// Its bytes; the same for the same content.
    ///
    /// # Errors
    ///
    /// None that can happen: maps of texts can be written.
    pub fn bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Compiles it for looking up.
    #[must_use]
    pub fn compile(&self, key: &Key, rules: &Rules) -> Compiled {
        let version = format!("{} (approved by {})", self.version, self.approved_by);
        let identities = self.baselines.iter().map(|(principal, tasks)| {
            let mut all = Approved::default();
            for approved in tasks.values() {
                all.merge(approved, Merge::OtherTask);
            }
            let named = tasks.iter().filter(|(task, _)| !task.is_empty());
            let tasks = named.map(|(task, approved)| {
                (task.clone(), Baseline::compile(version.as_str(), approved, key, rules))
            });
            let identity = Baseline::compile(version.as_str(), &all, key, rules);
            (principal.clone(), Identity { identity, tasks: tasks.collect() })
        });
        Compiled { identities: identities.collect() }
    }
}

/// Baselines to look up.
#[derive(Debug)]
pub struct Compiled {
    identities: BTreeMap<String, Identity>,
}

/// What was approved for one identity.
#[derive(Debug)]
pub struct Identity {
    /// In whatever task.
    pub identity: Baseline,
    /// In each.
    pub tasks: BTreeMap<String, Baseline>,
}

impl Compiled {
    /// What was approved for an identity.
    #[must_use]
    pub fn identity(&self, principal: &str) -> Option<&Identity> {
        self.identities.get(principal)
    }

    /// Every baseline of a task.
    pub fn tasks(&self) -> impl Iterator<Item = &Baseline> {
        self.identities.values().flat_map(|identity| identity.tasks.values())
    }
}
