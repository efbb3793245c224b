//! Grants, by the digest of the attempt that each is for: what decisions look up.
//!
//! A grant is a part of its review and is kept with it; this is the index. It holds what the reviews say, changed under
//! their lock, and is empty most of the time: then no attempt is digested.

use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::AHashMap;
use cardea_core::ask::{self, AskDigest, AttemptDigest};
use cardea_core::attempt::Attempt;
use cardea_core::grant::{Grant, Grants};
use parking_lot::RwLock;

use super::State;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct GrantIndex {
    of_attempts: RwLock<AHashMap<AttemptDigest, Grants>>,
    count: AtomicUsize,
}

impl GrantIndex {
    /// What a review gives from now on; nothing, if it gives none.
    pub(super) fn set(&self, attempt: AttemptDigest, review: AskDigest, grant: Option<Grant>) {
        let mut of_attempts = self.of_attempts.write();
        let mut grants = of_attempts.remove(&attempt).unwrap_or_default();
        let before = grants.len();
        grants.retain(|known| known.review != review);
        grants.extend(grant);
        // Counted before it can be looked for: 0 must mean that there is nothing to find.
        self.count.fetch_add(grants.len(), Ordering::SeqCst);
        self.count.fetch_sub(before, Ordering::SeqCst);
        if !grants.is_empty() {
            of_attempts.insert(attempt, grants);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    fn of(&self, attempt: &Attempt) -> Grants {
        if self.len() == 0 {
            return Grants::default();
        }
        let Some(digest) = ask::digest(attempt) else { return Grants::default() };
        self.of_attempts.read().get(&digest).cloned().unwrap_or_default()
    }
}

impl State {
    /// The grants for exactly this attempt, whether they still count or not.
    pub(super) fn grants_for(&self, attempt: &Attempt) -> Grants {
        self.grants.of(attempt)
    }
}
