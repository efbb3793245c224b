//! A review: somebody is asked to approve one thing, and decides, or does not.
//!
//! A review goes through rounds: asked again after a round is over, the same thing starts the next one. INVARIANT (order):
//! what a review is follows from the set of things that happened, not from the order in which they arrive or how often.
//! Newer rounds replace older ones; of two openings, approvals or uses the earlier counts. INVARIANT (no beats yes): a rejection
//! holds whatever else is decided in its round, so it also takes an approval back.
//! Limits: a round waits [`WAIT_MS`] for a decision; a rejection holds for at most [`REJECTED_MAX_MS`].

use smol_str::SmolStr;

use crate::ask::Ask;
use crate::asked::Asked;
use crate::grant::Grant;
use crate::named::Named;
use crate::time::Now;

/// How long a round waits for a decision, in milliseconds: a day, so that every shift sees it once.
pub const WAIT_MS: i64 = 24 * 3600 * 1000;
/// How long a rejection holds that says nothing about it, in milliseconds.
pub const REJECTED_MS: i64 = 24 * 3600 * 1000;
/// How long a rejection may hold, in milliseconds: 90 days.
pub const REJECTED_MAX_MS: i64 = 90 * 24 * 3600 * 1000;
/// Longest reason of a reviewer, in bytes.
pub const REASON_BYTES_MAX: usize = 256;

/// How a round began.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opening {
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// The decision that asked for it.
    pub decision_id: SmolStr,
    /// The session of that attempt.
    pub session_id: Option<SmolStr>,
    /// How the attempt deviated from what was approved, where it was compared.
    pub asked: Option<Box<Asked>>,
}

/// A yes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Approval {
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// First instant at which the grant no longer counts, Unix milliseconds.
    pub ends_ms: i64,
    /// The grant counts in this session only.
    pub session_id: Option<SmolStr>,
    /// The grant opens one attempt only.
    pub once: bool,
    /// What was asked is to be in the next baseline, for whoever learns it from the records.
    pub into_baseline: bool,
    /// Who.
    pub by: Named,
    /// Why, in words.
    pub reason: SmolStr,
}

/// A no.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejection {
    /// Until when no other round is opened, Unix milliseconds. First, so that of two the longer one holds.
    pub until_ms: i64,
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// Who.
    pub by: Named,
    /// Why, in words.
    pub reason: SmolStr,
}

/// Something that happened to a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was opened.
    Opened(Opening),
    /// It was approved.
    Approved(Approval),
    /// It was rejected.
    Rejected(Rejection),
    /// Its grant, which opens one attempt only, did so at that time, Unix milliseconds.
    Used(i64),
}

/// Where a review stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It waits for a reviewer.
    Pending,
    /// Its grant counts.
    Approved,
    /// It was rejected.
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// Its grant is past its end, or opened the one attempt that it was for.
    UsedUp,
}

/// Why a decision about a review is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewFault {
    /// Somebody looked at another round.
    #[error("round {asked} was looked at, but the review is in round {current}; look at it again")]
    OtherRound {
        /// The round that was looked at.
        asked: u32,
        /// The round that there is.
        current: u32,
    },
    /// It was decided, or has expired.
    #[error("the review is not pending; the next attempt opens another round once this one is over")]
    NotPending,
    /// One of those who ask decides.
    #[error("`{0}` is part of the attempt; somebody else must decide about it")]
    OwnAttempt(Named),
    /// The end is out of bounds.
    #[error("the end must lie at most {0} s from now, and that of an approval ahead")]
    BadEnd(u64),
    /// The attempt that opened it named no session.
    #[error("the attempt that opened the review named no session to bind the grant to")]
    NoSession,
    /// There is nothing to take up.
    #[error(
        "the attempt was not compared with a baseline, or names more than a review keeps: nothing of it can be learned"
    )]
    NothingToLearn,
    /// The reason is too long.
    #[error("a reason has at most {REASON_BYTES_MAX} bytes")]
    TooWordy,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// What is asked.
    pub ask: Ask,
    round: u32,
    opened: Option<Opening>,
    approved: Option<Approval>,
    rejected: Option<Rejection>,
    used_ms: Option<i64>,
}

impl Review {
    /// A review that nothing has happened to yet.
    #[must_use]
    pub fn new(ask: Ask) -> Self {
        Self { ask, round: 0, opened: None, approved: None, rejected: None, used_ms: None }
    }

    /// The round that it is in, from 1; 0 before the first.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.round
    }

    /// How the round began; `None` if that has not been heard of yet.
    #[must_use]
    pub fn opened(&self) -> Option<&Opening> {
        self.opened.as_ref()
    }

    /// The approval of the round, if it came while the round was open.
    #[must_use]
    pub fn approved(&self) -> Option<&Approval> {
        let (opened, approved) = (self.opened.as_ref()?, self.approved.as_ref()?);
        (opened.at_ms <= approved.at_ms && approved.at_ms < self.expires_ms()).then_some(approved)
    }

    /// The rejection of the round.
    #[must_use]
    pub fn rejected(&self) -> Option<&Rejection> {
        self.rejected.as_ref()
    }

    /// When the grant was used up that opens one attempt only, Unix milliseconds.
    #[must_use]
    pub fn used_ms(&self) -> Option<i64> {
        self.used_ms.filter(|_| self.approved().is_some_and(|approved| approved.once))
    }

    /// What has happened in the round, approvals that came too late included: for whoever keeps it.
    #[must_use]
    pub fn events(&self) -> [Option<Event>; 4] {
        [
            self.opened.clone().map(Event::Opened),
            self.approved.clone().map(Event::Approved),
            self.rejected.clone().map(Event::Rejected),
            self.used_ms.map(Event::Used),
        ]
    }

    /// First instant at which nobody can approve any longer, Unix milliseconds.
    #[must_use]
    pub fn expires_ms(&self) -> i64 {
        self.opened.as_ref().map_or(i64::MIN, |opened| opened.at_ms.saturating_add(WAIT_MS))
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self, now: Now) -> Status {
        if self.rejected.is_some() {
            return Status::Rejected;
        }
        match self.approved() {
            Some(approved) if now.wall_ms < approved.ends_ms && self.used_ms().is_none() => Status::Approved,
            Some(_) => Status::UsedUp,
            None if now.wall_ms < self.expires_ms() => Status::Pending,
            None => Status::Expired,
        }
    }

    /// First instant at which asking again starts another round, Unix milliseconds.
    #[must_use]
    pub fn over_ms(&self) -> i64 {
        match (&self.rejected, self.approved()) {
            (Some(rejected), _) => rejected.until_ms,
            (None, Some(approved)) => {
                self.used_ms().map_or(approved.ends_ms, |used| used.min(approved.ends_ms))
            }
            (None, None) => self.expires_ms(),
        }
    }

    /// Whether asking again starts another round.
    #[must_use]
    pub fn is_over(&self, now: Now) -> bool {
        self.over_ms() <= now.wall_ms
    }

    /// The grant, while it counts.
    #[must_use]
    pub fn grant(&self, now: Now) -> Option<Grant> {
        let approved = self.approved().filter(|_| self.status(now) == Status::Approved)?;
        Some(Grant {
            review: self.ask.digest(),
            requirement: self.ask.requirement.clone(),
            ends_ms: approved.ends_ms,
            session_id: approved.session_id.clone(),
            once: approved.once,
        })
    }

    /// Whether it may be approved like this now; `grant_s` is how long a grant of the requirement may last.
    ///
    /// # Errors
    /// Why not.
    pub fn check_approval(
        &self,
        round: u32,
        approval: &Approval,
        grant_s: u64,
        now: Now,
    ) -> Result<(), ReviewFault> {
        self.check_reviewer(round, &approval.by, &approval.reason)?;
        // The answer to a call may get lost; its repetition asks for nothing new.
        let is_repeated = self.approved().is_some_and(|known| {
            (&known.by, &known.session_id, &known.reason, known.once, known.into_baseline)
                == (
                    &approval.by,
                    &approval.session_id,
                    &approval.reason,
                    approval.once,
                    approval.into_baseline,
                )
        });
        if self.status(now) != Status::Pending && !(is_repeated && self.status(now) == Status::Approved) {
            return Err(ReviewFault::NotPending);
        }
        let life_ms = i64::try_from(grant_s).unwrap_or(i64::MAX).saturating_mul(1000);
        if approval.ends_ms <= now.wall_ms || approval.ends_ms > now.wall_ms.saturating_add(life_ms) {
            return Err(ReviewFault::BadEnd(grant_s));
        }
        let opening_session = self.opened.as_ref().and_then(|opened| opened.session_id.as_ref());
        if approval.session_id.is_some() && approval.session_id.as_ref() != opening_session {
            return Err(ReviewFault::NoSession);
        }
        let asked = self.opened.as_ref().and_then(|opened| opened.asked.as_ref());
        if approval.into_baseline && asked.is_none_or(|asked| asked.named.is_none()) {
            return Err(ReviewFault::NothingToLearn);
        }
        Ok(())
    }

    /// Whether it may be rejected like this now.
    ///
    /// # Errors
    /// Why not.
    pub fn check_rejection(&self, round: u32, rejection: &Rejection, now: Now) -> Result<(), ReviewFault> {
        self.check_reviewer(round, &rejection.by, &rejection.reason)?;
        if matches!(self.status(now), Status::Expired | Status::UsedUp) {
            return Err(ReviewFault::NotPending);
        }
        let longest_ms = now.wall_ms.saturating_add(REJECTED_MAX_MS);
        // A time that has passed takes an approval back and lets the next attempt ask anew.
        if rejection.until_ms > longest_ms {
            return Err(ReviewFault::BadEnd(u64::try_from(REJECTED_MAX_MS / 1000).unwrap_or(0)));
        }
        Ok(())
    }

    fn check_reviewer(&self, round: u32, by: &Named, reason: &str) -> Result<(), ReviewFault> {
        if self.ask.hops().any(|hop| by.is(hop)) {
            return Err(ReviewFault::OwnAttempt(by.clone()));
        }
        if round != self.round {
            return Err(ReviewFault::OtherRound { asked: round, current: self.round });
        }
        if reason.len() > REASON_BYTES_MAX { Err(ReviewFault::TooWordy) } else { Ok(()) }
    }

    /// Takes in what happened to a round, whenever it arrives; `false` if it changes nothing.
    pub fn apply(&mut self, round: u32, event: Event) -> bool {
        if round < self.round || round == 0 {
            return false;
        }
        if round > self.round {
            *self = Self { round, ..Self::new(self.ask.clone()) };
        }
        match event {
            Event::Opened(new) => replace(&mut self.opened, new, |new, old| new < old),
            Event::Approved(new) => replace(&mut self.approved, new, |new, old| new < old),
            Event::Rejected(new) => replace(&mut self.rejected, new, |new, old| new > old),
            Event::Used(new) => replace(&mut self.used_ms, new, |new, old| new < old),
        }
    }
}

fn replace<T>(slot: &mut Option<T>, new: T, wins: impl FnOnce(&T, &T) -> bool) -> bool {
    let replaces = slot.as_ref().is_none_or(|old| wins(&new, old));
    if replaces {
        *slot = Some(new);
    }
    replaces
}

#[cfg(test)]
mod tests;
