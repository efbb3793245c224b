//! What approved runs did, as plain data: it is learned, merged, shipped in a bundle, expires, and is compiled into a
//! [`Baseline`](super::Baseline).
//!
//! Names are kept as they were written, in sorted maps, so the same runs give the same bytes in whatever order they come.
//! INVARIANT (only what was approved): [`Approved::note`] is called for attempts of runs that somebody approved; attempts that
//! policy denied are left out by it, attempts that deviated must be left out by its caller until they are approved.
//! Limit: [`ENTRIES_MAX`] names; what comes after is counted in `left_out`, and deviates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::{SmolStr, ToSmolStr};

use super::attempt::{NAMES_BEYOND, Observed};
use super::fingerprint::{reference_name, target_name};

/// Most names of one baseline. An identity of the largest measured data set has 1,100.
pub const ENTRIES_MAX: usize = 16_384;
/// Longest name that is kept, in bytes; a longer one is left out, and deviates.
pub const NAME_BYTES_MAX: usize = 2_048;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approved {
    /// Approved runs that it rests on.
    pub runs: u32,
    /// What was done, by action.
    pub actions: BTreeMap<SmolStr, Done>,
    /// Which action came after which; the first of a run came after the empty one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub transitions: BTreeMap<SmolStr, Names>,
    /// External references in arguments, in their short form.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub references: Names,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: Names,
    /// Names that were left out because of the limits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

/// Names, and how each was used.
pub type Names = BTreeMap<SmolStr, Seen>;

/// What was done with one action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// The action as such.
    pub seen: Seen,
    /// Whether it was done without naming any target.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bare: bool,
    /// What it was done to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: Names,
}

/// How a name was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u32, i64)", into = "(u32, u32, i64)")]
pub struct Seen {
    /// Runs that used it.
    pub runs: u32,
    /// Tasks that used it.
    pub tasks: u32,
    /// When it was used last, Unix milliseconds.
    pub last_ms: i64,
}

impl From<(u32, u32, i64)> for Seen {
    fn from((runs, tasks, last_ms): (u32, u32, i64)) -> Self {
        Self { runs, tasks, last_ms }
    }
}

impl From<Seen> for (u32, u32, i64) {
    fn from(seen: Seen) -> Self {
        (seen.runs, seen.tasks, seen.last_ms)
    }
}

/// One attempt of an approved run.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The attempt.
    pub observed: Observed<'a>,
    /// The action before it in its run; empty: it is the first.
    pub previous: &'a str,
    /// When, Unix milliseconds.
    pub at_ms: i64,
}

impl Approved {
    /// Takes in one approved run.
    pub fn learn<'a>(&mut self, run: impl IntoIterator<Item = Step<'a>>) {
        let mut one = Self { runs: 1, ..Self::default() };
        for step in run {
            one.note(&step);
        }
        self.merge(&one, Merge::SameTask);
    }

    /// Takes an attempt into the run that this is. One that policy denied did not happen.
    pub fn note(&mut self, step: &Step<'_>) {
        let Observed { action, targets, references, network, is_denied, .. } = step.observed;
        if is_denied {
            return;
        }
        let seen = Seen { runs: 1, tasks: 1, last_ms: step.at_ms };
        let mut room = self.room();
        if let Some(after) = slot(&mut self.transitions, step.previous, &mut room) {
            put(after, action, seen, &mut room);
        }
        let is_known = |name: &&&str| **name != NAMES_BEYOND;
        room.left_out += u64::from(targets.iter().chain(references).any(|name| *name == NAMES_BEYOND));
        for reference in references.iter().filter(is_known) {
            // Case does not matter for references, so one spelling is kept.
            let name = reference_name(reference).to_ascii_lowercase();
            put(&mut self.references, &name, seen, &mut room);
        }
        if !network.is_empty() {
            put(&mut self.networks, network, seen, &mut room);
        }
        if let Some(done) = slot(&mut self.actions, action, &mut room) {
            done.seen.join(seen, Merge::SameRun);
            done.bare |= names_nothing(targets, references);
            for target in own_targets(targets, references).filter(|target| *target != NAMES_BEYOND) {
                put(&mut done.targets, target, seen, &mut room);
            }
        }
        self.left_out = self.left_out.saturating_add(room.left_out);
    }

    /// Leaves the names, as names that no run used: somebody approved them by themselves.
    pub fn forget_runs(&mut self) {
        self.runs = 0;
        let done = self.actions.values_mut();
        let done = done.flat_map(|done| std::iter::once(&mut done.seen).chain(done.targets.values_mut()));
        let after = self.transitions.values_mut().flat_map(BTreeMap::values_mut);
        let names = done.chain(after).chain(self.references.values_mut()).chain(self.networks.values_mut());
        names.for_each(|seen| seen.runs = 0);
    }

    /// Takes in what others learned.
    pub fn merge(&mut self, other: &Self, how: Merge) {
        self.runs = self.runs.saturating_add(other.runs);
        self.left_out = self.left_out.saturating_add(other.left_out);
        let mut room = self.room();
        for (previous, after) in &other.transitions {
            if let Some(mine) = slot(&mut self.transitions, previous, &mut room) {
                join(mine, after, how, &mut room);
            }
        }
        join(&mut self.references, &other.references, how, &mut room);
        join(&mut self.networks, &other.networks, how, &mut room);
        for (action, done) in &other.actions {
            if let Some(mine) = slot(&mut self.actions, action, &mut room) {
                mine.seen.join(done.seen, how);
                mine.bare |= done.bare;
                join(&mut mine.targets, &done.targets, how, &mut room);
            }
        }
        self.left_out = self.left_out.saturating_add(room.left_out);
    }

    fn room(&self) -> Room {
        Room { left: ENTRIES_MAX.saturating_sub(self.entries()), left_out: 0 }
    }

    /// Drops what was last used before then, Unix milliseconds, and says how many names that were. Runs stay counted.
    pub fn expire(&mut self, before_ms: i64) -> usize {
        let before = self.entries();
        let is_used = |seen: &Seen| seen.last_ms >= before_ms;
        self.references.retain(|_, seen| is_used(seen));
        self.networks.retain(|_, seen| is_used(seen));
        self.transitions.retain(|_, after| {
            after.retain(|_, seen| is_used(seen));
            !after.is_empty()
        });
        self.actions.retain(|_, done| {
            done.targets.retain(|_, seen| is_used(seen));
            is_used(&done.seen)
        });
        before.saturating_sub(self.entries())
    }

    /// What one has that the other lacks, in words: `+` came, `-` went. Sorted; nothing if both approve the same.
    #[must_use]
    pub fn diff(&self, newer: &Self) -> Vec<String> {
        let (old, new) = (self.lines(), newer.lines());
        let went = old.iter().filter(|line| !new.contains(*line)).map(|line| format!("- {line}"));
        let came = new.iter().filter(|line| !old.contains(*line)).map(|line| format!("+ {line}"));
        went.chain(came).collect()
    }

    fn lines(&self) -> std::collections::BTreeSet<String> {
        let actions = self.actions.iter().flat_map(|(action, done)| {
            let targets = done.targets.keys().map(move |target| format!("target {action} → {target}"));
            let bare = done.bare.then(|| format!("action {action} without a target"));
            std::iter::once(format!("action {action}")).chain(bare).chain(targets)
        });
        let transitions = self.transitions.iter().flat_map(|(previous, after)| {
            let previous = if previous.is_empty() { "(begin)" } else { previous };
            after.keys().map(move |action| format!("transition {previous} → {action}"))
        });
        let references = self.references.keys().map(|name| format!("reference {name}"));
        let networks = self.networks.keys().map(|name| format!("network {name}"));
        actions.chain(transitions).chain(references).chain(networks).collect()
    }

    /// When any of its names was used last, Unix milliseconds; `None`: it holds none.
    #[must_use]
    pub fn last_used_ms(&self) -> Option<i64> {
        let done =
            self.actions.values().flat_map(|done| std::iter::once(&done.seen).chain(done.targets.values()));
        let after = self.transitions.values().flat_map(BTreeMap::values);
        let seen = done.chain(after).chain(self.references.values()).chain(self.networks.values());
        seen.map(|seen| seen.last_ms).max()
    }

    /// How many names it holds.
    #[must_use]
    pub fn entries(&self) -> usize {
        let targets = self.actions.values().map(|done| 1 + done.targets.len());
        let after = self.transitions.values().map(BTreeMap::len);
        targets.chain(after).sum::<usize>() + self.references.len() + self.networks.len()
    }
}

/// Where what is merged comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The same run: nothing is counted twice.
    SameRun,
    /// Another run of the same task.
    SameTask,
    /// Another task.
    OtherTask,
}

impl Seen {
    fn join(&mut self, other: Self, how: Merge) {
        self.last_ms = if self.runs == 0 { other.last_ms } else { self.last_ms.max(other.last_ms) };
        self.runs = match how {
            Merge::SameRun => self.runs.max(other.runs),
            Merge::SameTask | Merge::OtherTask => self.runs.saturating_add(other.runs),
        };
        self.tasks = match how {
            Merge::SameRun | Merge::SameTask => self.tasks.max(other.tasks),
            Merge::OtherTask => self.tasks.saturating_add(other.tasks),
        };
    }
}

/// Whether neither targets nor references say to whom or what; a mere `?` does not.
pub(super) fn names_nothing(targets: &[&str], references: &[&str]) -> bool {
    references.is_empty() && own_targets(targets, references).next().is_none()
}

/// Targets that are not left to the references, each without what callers put around it.
pub(super) fn own_targets<'a>(targets: &'a [&str], references: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let is_reference = |target: &str| {
        let short = reference_name(target);
        references.iter().any(|reference| reference_name(reference).eq_ignore_ascii_case(short))
    };
    let names = targets.iter().map(|target| target_name(target));
    names.filter(move |target| {
        target.contains(char::is_alphanumeric) && (references.is_empty() || !is_reference(target))
    })
}

fn join(names: &mut Names, others: &Names, how: Merge, room: &mut Room) {
    for (name, seen) in others {
        if let Some(mine) = slot(names, name, room) {
            mine.join(*seen, how);
        }
    }
}

fn put(names: &mut Names, name: &str, seen: Seen, room: &mut Room) {
    if let Some(mine) = slot(names, name, room) {
        mine.join(seen, Merge::SameRun);
    }
}

fn slot<'m, T: Default>(map: &'m mut BTreeMap<SmolStr, T>, name: &str, room: &mut Room) -> Option<&'m mut T> {
    if !map.contains_key(name) {
        if name.len() > NAME_BYTES_MAX || room.left == 0 {
            room.left_out = room.left_out.saturating_add(1);
            return None;
        }
        room.left -= 1;
    }
    Some(map.entry(name.to_smolstr()).or_default())
}

/// For how many more names there is room.
struct Room {
    left: usize,
    left_out: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}
