//! The holds themselves, each at a place that keeps its number as long as the hold lives.

use std::sync::Arc;

use cardea_core::attempt::Attempt;
use cardea_core::verdict::Decision;

use super::Cause;

/// One hold.
#[derive(Debug)]
pub(super) struct Hold {
    /// Number of its stream.
    pub(super) stream: u64,
    /// The caller's own name for it.
    pub(super) hold_id: u64,
    /// As the snapshot of `revision` reads it.
    pub(super) attempt: Box<Attempt>,
    pub(super) revision: u64,
    /// What it takes on the wire.
    pub(super) bytes: u64,
    /// The round of judging everything that it was last judged in or after.
    pub(super) epoch: u64,
    /// What was told last.
    pub(super) told: Option<Told>,
    /// It is looked at again and again.
    pub(super) is_polled: bool,
}

/// What an enforcement point was told last.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) decision: Decision,
    /// Of everything in the answer that matters to who acts on it; `None` for one that had no place in the audit.
    pub(super) fingerprint: Option<u64>,
    /// Its number on the stream.
    pub(super) sequence: u64,
    pub(super) cause: Option<Arc<Cause>>,
    /// The last answer that was really put into an outbox: while the stream is lost `decision` goes on without it.
    pub(super) last_told: Option<Decision>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Book {
    places: Vec<Option<Hold>>,
    free: Vec<u32>,
}

impl Book {
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// How many places there are, empty ones included.
    pub(super) fn places(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn insert(&mut self, hold: Hold) -> u32 {
        if let Some(place) = self.free.pop() {
            if let Some(free) = self.slot(place) {
                *free = Some(hold);
            }
            return place;
        }
        let place = self.places();
        self.places.push(Some(hold));
        place
    }

    pub(super) fn remove(&mut self, place: u32) -> Option<Hold> {
        let removed = self.slot(place)?.take()?;
        self.free.push(place);
        Some(removed)
    }

    pub(super) fn get(&self, place: u32) -> Option<&Hold> {
        self.places.get(usize::try_from(place).ok()?)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut Hold> {
        self.slot(place)?.as_mut()
    }

    fn slot(&mut self, place: u32) -> Option<&mut Option<Hold>> {
        self.places.get_mut(usize::try_from(place).ok()?)
    }
}
