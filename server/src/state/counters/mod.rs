//! What bundles count: places in windows, for whom they are counted, and since when.
//!
//! ```text
//! attempt -> places are taken, one lock each -> decide reads how many were there before -> kept, given back, or reserved
//! ```
//!
//! INVARIANT (no overshoot): a place is taken and the number of those before it is read under one lock, so of any attempts at
//! the same time exactly `limit` find fewer than `limit` before them. What dies between counts.
//! INVARIANT (never fewer): of a subject that has a place, no fewer are counted than there were; a window goes only when it is
//! over. Who has no place reads the largest number.
//! Time is this process's own: it goes on with the monotonic clock, so that no step of the wall clock empties a window. A
//! restart goes on from the wall clock, or from the last snapshot if that lies ahead.
//! Memory, with a snapshot now and then ([`file`]). Limits: [`Capacity::counters`](super::Capacity) subjects,
//! [`limits::RESERVATIONS_MAX`] reservations.
//! Never does: holding a lock while policy is asked; I/O on the way of a decision.

mod file;
mod reservations;
mod table;

#[cfg(test)]
mod tests;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use cardea_core::attempt::Attempt;
use cardea_core::counters::{CounterFact, Outcome, Part, UNKNOWN};
use cardea_core::decide::Question;
use cardea_core::facts::Facts;
use cardea_core::time::Now;
use cardea_core::verdict::Decision;
use cardea_policy_store::counters::{Counter, Definition, On, Per};
use cardea_policy_store::fragment::Needs;
use cardea_policy_store::snapshot::Snapshot;
use parking_lot::Mutex;
use smallvec::SmallVec;

pub use file::{Kept, Unreadable};
use reservations::Reservations;
pub use reservations::{NotSettled, Reservation};
use table::{Key, Subject, Table};

use crate::limits;

/// See the module.
#[derive(Debug)]
pub struct Counters {
    table: Table,
    reservations: Reservations,
    /// The counters of the bundle in force, with when each began to count.
    running: ArcSwap<Vec<Running>>,
    installing: Mutex<()>,
    /// What the monotonic clock lacks of this process's own time, in milliseconds.
    offset_ms: OnceLock<i64>,
    /// Whether anything changed since the last snapshot.
    changed: AtomicBool,
    tallies: Tallies,
}

/// A counter that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Running {
    definition: Definition,
    window_ms: u64,
    since_ms: u64,
}

/// What happened, since the start.
#[derive(Debug, Default)]
struct Tallies {
    refused: AtomicU64,
    unsettleable: AtomicU64,
    committed: AtomicU64,
    released: AtomicU64,
    lost: AtomicU64,
    unwritten: AtomicU64,
}

/// How much is counted, and what happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountersUsage {
    /// Subjects with a window.
    pub subjects: u64,
    /// Reservations that wait.
    pub reservations: u64,
    /// Attempts that found no place.
    pub refused: u64,
    /// Reservations without a place to be settled from: they count.
    pub unsettleable: u64,
    /// Reservations that were committed.
    pub committed: u64,
    /// Reservations that were released.
    pub released: u64,
    /// Starts that had to do without the newest counts.
    pub lost: u64,
    /// Snapshots that could not be written.
    pub unwritten: u64,
}

/// On which occasion counters are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// An attempt is made: it takes its places.
    Made,
    /// An attempt that was made is judged again: nothing is taken, and its own place is not held against it.
    Again,
}

/// The places that an attempt took. Dropping them leaves them counted.
#[derive(Debug, Default)]
#[must_use = "places that are not concluded stay counted"]
pub struct Taken(SmallVec<[Place; 1]>);

#[derive(Clone, Debug)]
struct Place {
    on: On,
    key: Key,
    part: Part,
    until_ms: u64,
}

impl Counters {
    pub(super) fn new(subjects_max: usize) -> Self {
        Self {
            table: Table::new(subjects_max),
            reservations: Reservations::default(),
            running: ArcSwap::default(),
            installing: Mutex::default(),
            offset_ms: OnceLock::new(),
            changed: AtomicBool::new(false),
            tallies: Tallies::default(),
        }
    }

    /// This bundle counts from now on. What it counts as the one before did goes on, all else begins. Before the bundle serves.
    pub fn install(&self, snapshot: &Snapshot, now: Now) {
        let _alone = self.installing.lock();
        let at_ms = self.at_ms(now);
        let before = self.running.load();
        let running = |counter: &Counter| {
            let known = before.iter().find(|known| known.definition == counter.definition).copied();
            known.unwrap_or(Running {
                definition: counter.definition,
                window_ms: counter.window_ms,
                since_ms: at_ms,
            })
        };
        let after: Vec<Running> = snapshot.counters().iter().map(running).collect();
        if **before != after {
            self.running.store(after.into());
            self.note_change();
        }
    }

    /// Tells the facts how the counters stand that the question or `also` reads, and takes the attempt's places in those that
    /// it is counted by. A bundle without counters pays one branch.
    pub fn count(
        &self,
        question: &Question<'_>,
        also: Needs,
        facts: &mut Facts,
        counting: Counting,
        now: Now,
    ) -> Taken {
        let (attempt, snapshot) = (question.attempt(), question.snapshot());
        if snapshot.counters().is_empty() {
            return Taken::default();
        }
        let counted = attempt.action.counted();
        let is_disqualified = || facts.disqualify(attempt, snapshot.settings(), now).is_some();
        let takes = counting == Counting::Made && !counted.is_empty() && !is_disqualified();
        let at_ms = self.at_ms(now);
        let mut taken = Taken::default();
        let mut told = Vec::new();
        for number in question.counters().with(also.counters()).numbers() {
            let Some(counter) = snapshot.counter(number) else { break };
            let is_counted = counted.has(number);
            let count = match subject(counter.per, attempt, facts) {
                None => None,
                Some(subject) => {
                    let key = Key { definition: counter.definition, subject };
                    if takes && is_counted {
                        self.take(counter, key, at_ms, &mut taken)
                    } else {
                        let own = u64::from(is_counted && counting == Counting::Again);
                        Some(self.table.look(&key, at_ms).saturating_sub(own))
                    }
                }
            };
            let is_taken = takes && is_counted && count.is_some();
            let count = count.map_or(UNKNOWN, |count| i64::try_from(count).unwrap_or(UNKNOWN));
            let (is_warm, warm_ms) = self.warmth(counter, at_ms, now);
            told.push(CounterFact { definition: counter.definition, count, is_warm, warm_ms, is_taken });
        }
        facts.counters = told;
        taken
    }

    fn take(&self, counter: &Counter, key: Key, at_ms: u64, taken: &mut Taken) -> Option<u64> {
        let until_ms = at_ms.saturating_add(counter.reserve_ms);
        let Some((before, part)) = self.table.take(&key, counter.window_ms, at_ms, until_ms) else {
            self.tallies.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.note_change();
        taken.0.push(Place { on: counter.on, key, part, until_ms });
        Some(before)
    }

    /// The attempt came to this: what does not count is given back, and what waits can be settled by whoever gets the
    /// reservation.
    pub fn conclude(&self, taken: Taken, decision: Decision, now: Now) -> Option<Reservation> {
        let mut reserved: SmallVec<[Place; 1]> = SmallVec::new();
        for place in taken.0 {
            match Outcome::of(place.on, decision) {
                Outcome::Counted | Outcome::Read => {}
                Outcome::Released => self.table.give_back(&place.key, place.part),
                Outcome::Reserved => reserved.push(place),
            }
        }
        if reserved.is_empty() {
            return None;
        }
        let opened = self.reservations.open(reserved, self.at_ms(now));
        if opened.is_none() {
            self.tallies.unsettleable.fetch_add(1, Ordering::Relaxed);
        }
        opened
    }

    /// What a reservation was for was done, or not. Saying the same again changes nothing.
    ///
    /// # Errors
    /// When nothing waits under that token any more, or the opposite was said.
    pub fn settle(&self, token: &str, is_done: bool, now: Now) -> Result<(), NotSettled> {
        let at_ms = self.at_ms(now);
        let places = self.reservations.settle(token, is_done, at_ms)?;
        if places.is_empty() {
            return Ok(());
        }
        for Place { key, part, .. } in &places {
            if is_done {
                self.table.settle(key, *part, at_ms);
            } else {
                self.table.give_back(key, *part);
            }
        }
        self.note_change();
        let tally = if is_done { &self.tallies.committed } else { &self.tallies.released };
        tally.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Drops windows and reservations that are over.
    pub fn sweep(&self, now: Now) {
        let at_ms = self.at_ms(now);
        self.table.sweep(at_ms);
        self.reservations.sweep(at_ms);
    }

    /// How much is counted, and what happened since the start.
    #[must_use]
    pub fn usage(&self) -> CountersUsage {
        let Tallies { refused, unsettleable, committed, released, lost, unwritten } = &self.tallies;
        let read = |tally: &AtomicU64| tally.load(Ordering::Relaxed);
        CountersUsage {
            subjects: self.table.len(),
            reservations: self.reservations.len(),
            refused: read(refused),
            unsettleable: read(unsettleable),
            committed: read(committed),
            released: read(released),
            lost: read(lost),
            unwritten: read(unwritten),
        }
    }

    /// Whether a counter has counted for a whole window, and the wall time from which that is so.
    fn warmth(&self, counter: &Counter, at_ms: u64, now: Now) -> (bool, i64) {
        let running = self.running.load();
        let known = running.iter().find(|running| running.definition == counter.definition);
        let warm_at_ms = known.map_or(at_ms, |running| running.since_ms).saturating_add(counter.window_ms);
        let ahead_ms = i64::try_from(warm_at_ms).unwrap_or(i64::MAX).saturating_sub(millis(at_ms));
        (ahead_ms <= 0, now.wall_ms.saturating_add(ahead_ms))
    }

    /// This process's own time.
    fn at_ms(&self, now: Now) -> u64 {
        let mono_ms = millis(now.mono_ns / 1_000_000);
        let offset_ms = self.offset_ms.get_or_init(|| now.wall_ms.saturating_sub(mono_ms));
        u64::try_from(offset_ms.saturating_add(mono_ms)).unwrap_or(0)
    }

    /// The flag is written only where it changes, so that deciding threads do not pass its cache line around.
    fn note_change(&self) {
        if !self.changed.load(Ordering::Relaxed) {
            self.changed.store(true, Ordering::Relaxed);
        }
    }
}

/// Whom an attempt is counted for. A session, and its tenant, must be known: whoever names another one each time would have as
/// many budgets.
fn subject(per: Per, attempt: &Attempt, facts: &Facts) -> Option<Subject> {
    let session = facts.session.session();
    match per {
        Per::Session => session.map(|session| Subject::Name(session.id.clone())),
        Per::Identity => Some(Subject::Entity(attempt.principal.clone())),
        Per::Root => attempt.hops().next().cloned().map(Subject::Entity),
        Per::Task => facts.task(session).map(|task| Subject::Name(task.id.clone())),
        Per::Tenant => session?.tenant.clone().map(Subject::Name),
    }
}

fn millis(of: u64) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}
