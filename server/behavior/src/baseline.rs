//! A baseline: what was approved, compiled for looking up. Immutable; a promotion makes a new one.
//!
//! All entries of all kinds lie in one open-addressing table of 64-bit fingerprints, at most two thirds full, with a few bits beside
//! each. The names that evidence cites are kept once, in at most [`NAMES_BYTES_MAX`] bytes. A task of the measured agents takes
//! about 1.5 KB, all in.

use smol_str::SmolStr;

use super::approved::{Approved, Done, Names};
use super::fingerprint::{Fingerprint, Key, Kind};
use super::rules::Rules;

/// Most bytes of names that evidence can cite.
pub const NAMES_BYTES_MAX: usize = 2_048;
/// Longest name that evidence cites, in bytes.
const NAME_BYTES_MAX: usize = 96;
/// Most names that evidence cites for one action, and of references.
const CITED_MAX: usize = 8;
/// Before the first action of a run.
const START: Fingerprint = Fingerprint(0x5354_4152_5421_0001);

/// See the module.
#[derive(Clone, Debug)]
pub struct Baseline {
    version: SmolStr,
    runs: u32,
    mature: bool,
    knows_networks: bool,
    slots: Box<[u64]>,
    bits: Box<[u8]>,
    /// Lines of an action and its targets, separated by tabs; the line of references begins with a tab.
    names: Box<str>,
}

/// What is noted beside an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits(u8);

impl Bits {
    /// Of an action: its targets vary from run to run.
    const OPEN: u8 = 1;
    /// Of an action: it was done without a target.
    const BARE: u8 = 2;
    /// Of a reference: enough tasks used it.
    const SHARED: u8 = 4;
    /// Of an action: enough runs used it to say that the task needs it, whatever was declared.
    const NEEDED: u8 = 8;

    pub(super) const fn is_open(self) -> bool {
        self.0 & Self::OPEN != 0
    }

    pub(super) const fn is_bare(self) -> bool {
        self.0 & Self::BARE != 0
    }

    pub(super) const fn is_needed(self) -> bool {
        self.0 & Self::NEEDED != 0
    }

    pub(super) const fn is_shared(self) -> bool {
        self.0 & Self::SHARED != 0
    }
}

impl Baseline {
    /// Compiles what was approved. `version` is how evidence names it.
    #[must_use]
    pub fn compile(version: impl Into<SmolStr>, approved: &Approved, key: &Key, rules: &Rules) -> Self {
        let mut table = Table::with_room(entries(approved));
        for (action, done) in &approved.actions {
            let a = key.text(action);
            let bits = [
                (Bits::OPEN, is_open(done, rules)),
                (Bits::BARE, done.bare),
                (Bits::NEEDED, done.seen.runs >= rules.scope_runs),
            ];
            let bits = bits.iter().filter(|(_, is_set)| *is_set).fold(0, |all, (bit, _)| all | bit);
            table.put(a.of(Kind::Action), bits);
            for target in done.targets.keys() {
                let t = key.text(target);
                table.put(a.with(t, Kind::Target), 0);
                table.put(t.of(Kind::Value), 0);
            }
        }
        for (previous, after) in &approved.transitions {
            let from = if previous.is_empty() { START } else { key.text(previous) };
            for action in after.keys() {
                table.put(from.with(key.text(action), Kind::Transition), 0);
            }
        }
        for (reference, seen) in &approved.references {
            let is_shared = seen.tasks >= rules.reference_tasks;
            table.put(key.folded(reference).of(Kind::Reference), if is_shared { Bits::SHARED } else { 0 });
        }
        for network in approved.networks.keys() {
            table.put(key.text(network).of(Kind::Network), 0);
        }
        Self {
            version: version.into(),
            runs: approved.runs,
            mature: approved.runs >= rules.mature_runs,
            knows_networks: !approved.networks.is_empty(),
            slots: table.slots.into(),
            bits: table.bits.into(),
            names: cited(approved).into(),
        }
    }

    /// How evidence names it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Approved runs that it rests on.
    #[must_use]
    pub const fn runs(&self) -> u32 {
        self.runs
    }

    /// Whether it rests on enough runs to be held against somebody.
    #[must_use]
    pub const fn is_mature(&self) -> bool {
        self.mature
    }

    /// Bytes that it takes, all in.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let version = if self.version.is_heap_allocated() { self.version.len() } else { 0 };
        size_of::<Self>() + self.slots.len() * size_of::<u64>() + self.bits.len() + self.names.len() + version
    }

    pub(super) fn action(&self, action: Fingerprint) -> Option<Bits> {
        self.find(action.of(Kind::Action))
    }

    pub(super) fn has_target(&self, action: Fingerprint, target: Fingerprint) -> bool {
        self.find(action.with(target, Kind::Target)).is_some()
    }

    /// Whether anything was ever done to it.
    pub(super) fn has_value(&self, target: Fingerprint) -> bool {
        self.find(target.of(Kind::Value)).is_some()
    }

    pub(super) fn reference(&self, reference: Fingerprint) -> Option<Bits> {
        self.find(reference.of(Kind::Reference))
    }

    /// `previous` is `None` before the first action of a session.
    pub(super) fn has_transition(&self, previous: Option<Fingerprint>, action: Fingerprint) -> bool {
        self.find(previous.unwrap_or(START).with(action, Kind::Transition)).is_some()
    }

    pub(super) fn has_network(&self, network: Fingerprint) -> bool {
        self.find(network.of(Kind::Network)).is_some()
    }

    /// Whether it says anything about networks.
    pub(super) const fn knows_networks(&self) -> bool {
        self.knows_networks
    }

    /// Targets of an action that evidence can cite; of the references with an empty one.
    pub(super) fn cited(&self, action: &str) -> impl Iterator<Item = &str> {
        let line = self.names.lines().find_map(|line| {
            let (head, rest) = line.split_once('\t')?;
            (head == action).then_some(rest)
        });
        line.into_iter().flat_map(|line| line.split('\t'))
    }

    fn find(&self, entry: Fingerprint) -> Option<Bits> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = first(entry.0, mask);
        loop {
            match *self.slots.get(at)? {
                0 => return None,
                found if found == taken(entry.0) => return self.bits.get(at).map(|bits| Bits(*bits)),
                _ => at = (at + 1) & mask,
            }
        }
    }
}

/// While it is filled. Its length is a power of two, and it always keeps an empty slot, so a search ends.
struct Table {
    slots: Vec<u64>,
    bits: Vec<u8>,
}

impl Table {
    fn with_room(entries: usize) -> Self {
        let length = (entries + entries / 2 + 1).next_power_of_two();
        Self { slots: vec![0; length], bits: vec![0; length] }
    }

    fn put(&mut self, entry: Fingerprint, bits: u8) {
        let mask = self.slots.len() - 1;
        let mut at = first(entry.0, mask);
        while let (Some(slot), Some(noted)) = (self.slots.get_mut(at), self.bits.get_mut(at)) {
            if *slot == 0 || *slot == taken(entry.0) {
                *slot = taken(entry.0);
                *noted |= bits;
                return;
            }
            at = (at + 1) & mask;
        }
    }
}

/// The high bits choose the slot: a product's are the better mixed.
const fn first(entry: u64, mask: usize) -> usize {
    (entry >> 32) as usize & mask
}

/// 0 marks an empty slot.
const fn taken(entry: u64) -> u64 {
    if entry == 0 { 1 } else { entry }
}

/// How many slots can be taken: each target counts as a pair and as a value.
fn entries(approved: &Approved) -> usize {
    let targets: usize = approved.actions.values().map(|done| done.targets.len()).sum();
    approved.entries() + targets
}

/// Whether an action's targets are open: the share of sightings that were the only one of their target estimates how
/// likely the next is a new one (Good and Turing).
fn is_open(done: &Done, rules: &Rules) -> bool {
    let once = done.targets.values().filter(|seen| seen.runs == 1).count();
    let all: u64 = done.targets.values().map(|seen| u64::from(seen.runs)).sum();
    #[expect(clippy::cast_precision_loss, reason = "counts of runs, and a threshold")]
    let share = once as f64 / all.max(1) as f64;
    share > rules.open_share
}

fn cited(approved: &Approved) -> String {
    let lines = approved.actions.iter().map(|(action, done)| line(action, &done.targets));
    let mut text = String::new();
    for line in lines.chain([line("", &approved.references)]).flatten() {
        if text.len() + line.len() <= NAMES_BYTES_MAX {
            text.push_str(&line);
        }
    }
    text
}

/// The most used names, most used first.
fn line(head: &str, names: &Names) -> Option<String> {
    let is_plain = |text: &str| text.len() <= NAME_BYTES_MAX && !text.contains(['\t', '\n', '\r']);
    let mut chosen: Vec<_> = names.iter().filter(|(name, _)| is_plain(name)).collect();
    chosen.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.runs));
    if chosen.is_empty() || !is_plain(head) {
        return None;
    }
    let names: Vec<&str> = chosen.iter().take(CITED_MAX).map(|(name, _)| name.as_str()).collect();
    Some(format!("{head}\t{}\n", names.join("\t")))
}
