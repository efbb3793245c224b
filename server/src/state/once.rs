//! Grants that open one attempt only: used up by the attempt that is allowed, before anybody hears of the allow.
//!
//! INVARIANT (once): of all attempts that see such a grant one is allowed, however many are judged at the same time and whenever the
//! process ends: the grant is taken under the lock of its review, and the row that says so is on disk before the verdict leaves. What
//! cannot be made durable opens nothing. This is the one place where a decision waits for the disk; a reviewer stands before each.

use std::sync::Arc;

use cardea_core::attempt::Attempt;
use cardea_core::grant::{Grant, Grants};
use cardea_core::review::{Event, Review};
use cardea_core::time::Now;

use super::{Key, Known, State};
use crate::ledger::Table;
use crate::limits;

impl State {
    /// Uses up every grant among these that opens one attempt only and counts for it. `None`: one of them is gone, or the disk
    /// refuses; then none of them may be counted.
    #[cold]
    pub(crate) fn use_once(&self, attempt: &Attempt, grants: &Grants, now: Now) -> Option<Vec<Known>> {
        let counts = |grant: &&Grant| grant.once && grant.counts(attempt.session_id.as_ref(), now);
        let wanted: Vec<&Grant> = grants.iter().filter(counts).collect();
        let mut used = Vec::with_capacity(wanted.len());
        {
            let mut shelf = self.reviews.held.write();
            let is_there = |grant: &&Grant| {
                let held = shelf.reviews.get(&grant.review);
                held.and_then(|held| held.review.grant(now)).as_ref() == Some(*grant)
            };
            if !wanted.iter().all(is_there) {
                return None;
            }
            for grant in wanted {
                let Some(held) = shelf.reviews.get_mut(&grant.review) else { continue };
                let mut next = Review::clone(&held.review);
                next.apply(next.round(), Event::Used(now.wall_ms));
                self.grants.set(next.ask.attempt_digest(), grant.review, None);
                held.review = Arc::new(next);
                self.keep(Table::Reviews, grant.review.0.as_bytes().to_vec(), held.row());
                used.push(held.known());
            }
        }
        self.advance(Key::Grants(attempt.principal.clone()), "used");
        self.is_durable_now().then_some(used)
    }

    /// Waits, on this thread, until everything so far is on disk.
    fn is_durable_now(&self) -> bool {
        let Some(ledger) = &self.ledger else { return true };
        !self.is_behind() && ledger.wait(ledger.ticket(), limits::GRANT_DURABLE_MAX).is_ok()
    }
}
