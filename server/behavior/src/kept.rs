//! A file of baselines: what was approved for each identity and task, with who approved it.
//!
//! JSON with sorted names, so that the same approved runs give the same bytes, and so that a bundle can carry and sign it. It holds
//! names, never fingerprints: the key of those is drawn when the file is compiled.
//! Limits: [`BASELINES_MAX`] baselines of [`ENTRIES_MAX`] names each; whoever reads the file bounds its bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::approved::{Approved, ENTRIES_MAX, Merge};
use super::attempt::Baselines;
use super::baseline::Baseline;
use super::fingerprint::Key;
use super::promoted::{Learned, Promotion, REVIEWED_MAX, Reviewed};
use super::rules::Rules;

/// What the file says it is.
const FORMAT: &str = "cardea-baselines/1";
/// Most baselines of one file: ten tasks for each of ten thousand identities.
pub const BASELINES_MAX: usize = 100_000;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    format: String,
    /// Rises by one with each promotion; evidence names it.
    pub version: u32,
    /// Who approved the runs; empty: nobody, it is a candidate.
    pub approved_by: String,
    /// Attempts that it rests on.
    pub attempts: u64,
    /// How it came to be, the newest last; empty: it was learned from approved runs in one step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub promotions: Vec<Promotion>,
    /// Of a candidate: when its runs were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<Learned>,
    /// Of a candidate: attempts that reviewers approved into it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reviewed: Vec<Reviewed>,
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
            promotions: Vec::new(),
            learned: None,
            reviewed: Vec::new(),
            baselines: BTreeMap::new(),
        }
    }

    /// Reads the bytes of an approved file.
    ///
    /// # Errors
    ///
    /// As [`Kept::parse_any`], or nobody approved it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unkept> {
        let kept = Self::parse_any(bytes)?;
        if kept.is_candidate() { Err(Unkept::Unapproved) } else { Ok(kept) }
    }

    /// Reads the bytes of a file, approved or not: to look at it.
    ///
    /// # Errors
    ///
    /// It is no file of baselines that this version knows, or holds more than may be.
    pub fn parse_any(bytes: &[u8]) -> Result<Self, Unkept> {
        let kept: Self = serde_json::from_slice(bytes).map_err(|error| Unkept::Malformed {
            line: error.line(),
            column: error.column(),
            what: error.to_string(),
        })?;
        if kept.format != FORMAT {
            return Err(Unkept::Format(kept.format.chars().take(64).collect()));
        }
        if kept.baselines.values().map(BTreeMap::len).sum::<usize>() > BASELINES_MAX
            || kept.reviewed.len() > REVIEWED_MAX
        {
            return Err(Unkept::TooMany);
        }
        if !kept.has_whole_history() {
            return Err(Unkept::History);
        }
        let named =
            kept.baselines.iter().flat_map(|(identity, tasks)| tasks.iter().map(move |of| (identity, of)));
        for (identity, (task, approved)) in named {
            if approved.entries() > ENTRIES_MAX {
                return Err(Unkept::TooLarge { identity: identity.clone(), task: task.clone() });
            }
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

/// Why bytes are no file of baselines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unkept {
    /// Not JSON, or not in the form of the file.
    #[error("{what}; make it with `cardea monitor learn`")]
    Malformed {
        /// Where, from 1; 0: nowhere.
        line: usize,
        /// Where in the line, from 1; 0: nowhere.
        column: usize,
        /// What is wrong there.
        what: String,
    },
    /// Made by another version.
    #[error("is `{0}`, and this version reads `{FORMAT}`; learn it again")]
    Format(String),
    /// Nobody approved it.
    #[error(
        "is a candidate that nobody approved; look at it with `cardea baseline show`, and approve it with `cardea baseline promote`"
    )]
    Unapproved,
    /// Its history is not one that promoting writes.
    #[error(
        "has a history that does not lead to its version and approver; take the file that `cardea baseline promote` wrote"
    )]
    History,
    /// More baselines than may be.
    #[error("has more than {BASELINES_MAX} baselines; learn fewer identities or tasks into one file")]
    TooMany,
    /// One with more names than may be.
    #[error(
        "the baseline of `{identity}` in task `{task}` has more than {ENTRIES_MAX} names; learn it again"
    )]
    TooLarge {
        /// The identity.
        identity: String,
        /// The task.
        task: String,
    },
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

    /// Each identity with what was approved for it.
    #[must_use]
    pub fn into_identities(self) -> BTreeMap<String, Identity> {
        self.identities
    }

    /// Every baseline of a task.
    pub fn tasks(&self) -> impl Iterator<Item = &Baseline> {
        self.identities.values().flat_map(|identity| identity.tasks.values())
    }
}

impl Identity {
    /// What bears on an attempt in a task.
    #[must_use]
    pub fn baselines(&self, task: Option<&str>) -> Baselines<'_> {
        Baselines { task: task.and_then(|task| self.tasks.get(task)), identity: Some(&self.identity) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_of_baselines_is_refused_with_its_place() {
        let kept = Kept::new("ann");
        assert_eq!(Kept::parse(&kept.bytes().unwrap()), Ok(kept));
        let refused = |text: &str| Kept::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(refused("{\n\"format\": 1}"), Unkept::Malformed { line: 2, .. }));
        let other = r#"{"format":"x/2","version":1,"approved_by":"a","attempts":0,"baselines":{}}"#;
        assert_eq!(refused(other), Unkept::Format("x/2".into()));
        let names: Vec<String> = (0..=ENTRIES_MAX).map(|n| format!("\"{n}\":[1,1,0]")).collect();
        let large = format!(
            r#"{{"format":"{FORMAT}","version":1,"approved_by":"a","attempts":0,"baselines":
            {{"i":{{"t":{{"runs":1,"actions":{{}},"networks":{{{}}}}}}}}}}}"#,
            names.join(",")
        );
        assert_eq!(refused(&large), Unkept::TooLarge { identity: "i".into(), task: "t".into() });
    }
}
