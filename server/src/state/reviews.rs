//! Reviews: opened by verdicts, decided by reviewers, read by both.
//!
//! INVARIANT (one review): the same thing asked again finds the same review, however many ask at once; while its round is
//! not over only a counter rises. Reviews are never evicted: one that was over an hour ago makes room, and a full table, or
//! one principal with too many, gets no more. Limits: `state.reviews_max`, [`limits::REVIEWS_OF_ONE_MAX`] of one principal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use cardea_core::ask::{Ask, AskDigest};
use cardea_core::review::{Approval, Event, Opening, Rejection, Review, ReviewFault, Status};
use cardea_core::time::Now;
use cardea_policy_store::engine::Uid;
use cardea_policy_store::settings::{Requirement, Settings};
use parking_lot::RwLock;
use smol_str::SmolStr;

use super::{Key, State, work_rows};
use crate::ledger::Table;
use crate::limits;

/// How long a review that is over is kept, in milliseconds: its reader may poll, and its deciders may look.
const KEPT_MS: i64 = 3600 * 1000;

/// Room is looked for at most this often, in milliseconds: the search walks all reviews.
const SWEEP_INTERVAL_MS: i64 = 1000;

/// Why a review could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// There is no place.
    #[error("the table of reviews is full")]
    Full,
    /// Its principal has too many.
    #[error("the principal has {} reviews already", limits::REVIEWS_OF_ONE_MAX)]
    TooMany,
}

/// Why a review was not decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDecided {
    /// This node does not know it.
    #[error("the review is not known to this node")]
    Unknown,
    /// The bundle in force does not have its requirement.
    #[error("the bundle in force has no requirement `{0}` of kind approval; nobody can decide about it")]
    NoRequirement(SmolStr),
    /// He is not one of the reviewers.
    #[error("`{0}` is not a reviewer of `{1}` in the bundle in force")]
    NotReviewer(String, SmolStr),
    /// It cannot be decided like this.
    #[error(transparent)]
    Fault(#[from] ReviewFault),
}

/// A review as it is.
#[derive(Clone, Debug)]
pub struct Known {
    /// The review.
    pub review: Arc<Review>,
    /// How often it was asked in this round.
    pub asked: u64,
    /// When last, Unix milliseconds.
    pub asked_ms: i64,
}

/// A review after a call, and the state version from which decisions know it.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The review as it is now.
    pub known: Known,
    /// State version of the change.
    pub version: u64,
    /// Whether the call changed anything.
    pub changed: bool,
    /// Where it stood before.
    pub before: Status,
}

/// Reviews by digest, and how many each principal has.
#[derive(Debug, Default)]
pub(super) struct Reviews {
    pub(super) held: RwLock<Shelf>,
}

#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) reviews: BTreeMap<AskDigest, Held>,
    of_principals: BTreeMap<Uid, usize>,
    /// When room was last looked for, Unix milliseconds.
    swept_ms: Option<i64>,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) review: Arc<Review>,
    asked: AtomicU64,
    asked_ms: AtomicI64,
    /// Whether it was said that this round has expired.
    told_expired: bool,
}

impl Held {
    pub(super) fn known(&self) -> Known {
        Known {
            review: Arc::clone(&self.review),
            asked: self.asked.load(Ordering::Relaxed),
            asked_ms: self.asked_ms.load(Ordering::Relaxed),
        }
    }

    pub(super) fn row(&self) -> Vec<u8> {
        let Known { review, asked, asked_ms } = self.known();
        work_rows::review(&review, asked, asked_ms, self.told_expired)
    }
}

impl Reviews {
    pub(super) fn len(&self) -> usize {
        self.held.read().reviews.len()
    }

    /// Shows the row of each review.
    pub(super) fn each_row(&self, mut visit: impl FnMut(&AskDigest, Vec<u8>)) {
        for (digest, held) in &self.held.read().reviews {
            visit(digest, held.row());
        }
    }
}

impl Shelf {
    fn insert(&mut self, digest: AskDigest, held: Held) {
        let principal = held.review.ask.principal.clone();
        if self.reviews.insert(digest, held).is_none() {
            *self.of_principals.entry(principal).or_default() += 1;
        }
    }

    fn count_of(&self, principal: &Uid) -> usize {
        self.of_principals.get(principal).copied().unwrap_or(0)
    }
}

impl State {
    /// Counts that something is asked again; `false` if that takes a new round, or a new review. On the way of decisions:
    /// one look-up under a shared lock.
    #[must_use]
    pub fn ask_again(&self, digest: &AskDigest, now: Now) -> bool {
        let shelf = self.reviews.held.read();
        let Some(held) = shelf.reviews.get(digest).filter(|held| !held.review.is_over(now)) else {
            return false;
        };
        held.asked.fetch_add(1, Ordering::Relaxed);
        held.asked_ms.fetch_max(now.wall_ms, Ordering::Relaxed);
        true
    }

    /// Opens a review, or its next round; `None` if its round is not over, which only counts.
    ///
    /// # Errors
    /// When there is no place for it.
    pub fn open_review(&self, ask: &Ask, opening: Opening, now: Now) -> Result<Option<Known>, NotOpened> {
        let digest = ask.digest();
        if self.ask_again(&digest, now) {
            return Ok(None);
        }
        let mut shelf = self.reviews.held.write();
        if !shelf.reviews.contains_key(&digest) {
            if shelf.reviews.len() >= self.capacity.reviews
                || shelf.count_of(&ask.principal) >= limits::REVIEWS_OF_ONE_MAX
            {
                self.drop_over(&mut shelf, now);
            }
            if shelf.reviews.len() >= self.capacity.reviews {
                return Err(NotOpened::Full);
            }
            if shelf.count_of(&ask.principal) >= limits::REVIEWS_OF_ONE_MAX {
                return Err(NotOpened::TooMany);
            }
        }
        let known = shelf.reviews.get(&digest);
        // Somebody may have opened it between the two locks.
        if known.is_some_and(|held| !held.review.is_over(now)) {
            return Ok(None);
        }
        let mut review = known.map_or_else(|| Review::new(ask.clone()), |held| Review::clone(&held.review));
        review.apply(review.round().saturating_add(1), Event::Opened(opening));
        let held = Held {
            review: Arc::new(review),
            asked: AtomicU64::new(1),
            asked_ms: AtomicI64::new(now.wall_ms),
            told_expired: false,
        };
        let (known, row) = (held.known(), held.row());
        shelf.insert(digest, held);
        // What the round before gave is over.
        self.grants.set(ask.attempt_digest(), digest, None);
        self.keep(Table::Reviews, digest.0.as_bytes().to_vec(), row);
        Ok(Some(known))
    }

    /// Approves a review. Its grant counts from the version on that is returned.
    ///
    /// # Errors
    /// When it is not known, the reviewer may not decide, or it cannot be approved like this.
    pub fn approve_review(
        &self,
        digest: &AskDigest,
        round: u32,
        approval: impl FnOnce(&Review, u64) -> Result<Approval, ReviewFault>,
        settings: &Settings,
        now: Now,
    ) -> Result<Settled, NotDecided> {
        self.settle(digest, round, settings, now, |review, grant_s| {
            let mut approval = approval(review, grant_s)?;
            // After a clock was set back an approval still comes after its question.
            let opened_ms = review.opened().map_or(i64::MIN, |opened| opened.at_ms);
            approval.at_ms = approval.at_ms.max(opened_ms);
            review.check_approval(round, &approval, grant_s, now)?;
            Ok((approval.by.to_string(), Event::Approved(approval)))
        })
    }

    /// Rejects a review, approved or not.
    ///
    /// # Errors
    /// As [`State::approve_review`].
    pub fn reject_review(
        &self,
        digest: &AskDigest,
        round: u32,
        rejection: Rejection,
        settings: &Settings,
        now: Now,
    ) -> Result<Settled, NotDecided> {
        self.settle(digest, round, settings, now, |review, _| {
            review.check_rejection(round, &rejection, now)?;
            Ok((rejection.by.to_string(), Event::Rejected(rejection)))
        })
    }

    fn settle(
        &self,
        digest: &AskDigest,
        round: u32,
        settings: &Settings,
        now: Now,
        decide: impl FnOnce(&Review, u64) -> Result<(String, Event), ReviewFault>,
    ) -> Result<Settled, NotDecided> {
        let mut shelf = self.reviews.held.write();
        let held = shelf.reviews.get_mut(digest).ok_or(NotDecided::Unknown)?;
        let requirement = &held.review.ask.requirement;
        let Some(Requirement::Approval { reviewers, grant_s }) = settings.step_up.get(requirement) else {
            return Err(NotDecided::NoRequirement(requirement.clone()));
        };
        let before = held.review.status(now);
        let (by, event) = decide(&held.review, *grant_s)?;
        if !reviewers.iter().any(|reviewer| *reviewer == by) {
            return Err(NotDecided::NotReviewer(by, requirement.clone()));
        }
        let mut next = Review::clone(&held.review);
        let changed = next.apply(round, event);
        if !changed {
            let version = self.version();
            return Ok(Settled { known: held.known(), version, changed, before });
        }
        held.review = Arc::new(next);
        let (known, row) = (held.known(), held.row());
        let ask = &known.review.ask;
        self.grants.set(ask.attempt_digest(), *digest, known.review.grant(now));
        self.keep(Table::Reviews, digest.0.as_bytes().to_vec(), row);
        drop(shelf);
        let what = if known.review.grant(now).is_some() { "granted" } else { "rejected" };
        let version = self.advance(Key::Grants(ask.principal.clone()), what);
        Ok(Settled { known, version, changed, before })
    }

    /// One review.
    #[must_use]
    pub fn review(&self, digest: &AskDigest) -> Option<Known> {
        self.reviews.held.read().reviews.get(digest).map(Held::known)
    }

    /// Every review for which `wanted` holds, the oldest first. Walks the whole table: not for the hot path.
    #[must_use]
    pub fn reviews_where(&self, wanted: impl Fn(&Review) -> bool) -> Vec<(AskDigest, Known)> {
        let shelf = self.reviews.held.read();
        let mut found: Vec<(AskDigest, Known)> = shelf
            .reviews
            .iter()
            .filter(|(_, held)| wanted(&held.review))
            .map(|(digest, held)| (*digest, held.known()))
            .collect();
        drop(shelf);
        found.sort_by_key(|(digest, known)| (known.review.opened().map(|one| one.at_ms), *digest));
        found
    }

    /// Rounds that expired since this was asked last, each told once.
    #[must_use]
    pub fn expired_reviews(&self, now: Now) -> Vec<Known> {
        let is_new = |held: &Held| !held.told_expired && held.review.status(now) == Status::Expired;
        let found: Vec<AskDigest> = {
            let shelf = self.reviews.held.read();
            shelf.reviews.iter().filter(|(_, held)| is_new(held)).map(|(digest, _)| *digest).collect()
        };
        let mut expired = Vec::new();
        for digest in found {
            let mut shelf = self.reviews.held.write();
            let Some(held) = shelf.reviews.get_mut(&digest).filter(|held| is_new(held)) else { continue };
            held.told_expired = true;
            self.keep(Table::Reviews, digest.0.as_bytes().to_vec(), held.row());
            expired.push(held.known());
        }
        expired
    }

    /// Makes room: reviews that were over an hour ago, and their grants, go. Not more often than it is worth: whoever has too
    /// many must not make every attempt walk the table, while all others wait for its lock.
    fn drop_over(&self, shelf: &mut Shelf, now: Now) {
        let Shelf { reviews, of_principals, swept_ms } = shelf;
        // A clock that was set back must not keep the table full.
        if swept_ms.is_some_and(|at| (0..SWEEP_INTERVAL_MS).contains(&now.wall_ms.saturating_sub(at))) {
            return;
        }
        *swept_ms = Some(now.wall_ms);
        reviews.retain(|digest, held| {
            let is_kept = held.review.over_ms().saturating_add(KEPT_MS) > now.wall_ms;
            if !is_kept {
                let ask = &held.review.ask;
                self.grants.set(ask.attempt_digest(), *digest, None);
                if let Some(count) = of_principals.get_mut(&ask.principal) {
                    *count -= 1;
                }
                self.forget(Table::Reviews, digest.0.as_bytes().to_vec());
            }
            is_kept
        });
        of_principals.retain(|_, count| *count > 0);
    }

    /// Puts back a review that was kept on disk, with its grant.
    pub(super) fn restore_review(&self, bytes: &[u8]) -> Option<()> {
        let (review, asked, asked_ms, told_expired) = work_rows::to_review(bytes)?;
        let digest = review.ask.digest();
        // An end that has passed is seen when it is looked at; no time is needed here.
        let always = Now { mono_ns: 0, wall_ms: i64::MIN };
        self.grants.set(review.ask.attempt_digest(), digest, review.grant(always));
        self.reviews.held.write().insert(
            digest,
            Held {
                review: Arc::new(review),
                asked: AtomicU64::new(asked),
                asked_ms: AtomicI64::new(asked_ms),
                told_expired,
            },
        );
        Some(())
    }
}
