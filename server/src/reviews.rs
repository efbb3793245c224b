//! The desk of reviews: what verdicts ask to have approved is opened here, away from the decisions.
//!
//! A verdict names the review by its digest, which follows from the attempt, so it waits for nothing. Asked again, the same
//! review counts one more under a shared lock. What needs a new round goes into a bounded queue; one thread opens it and
//! writes its record. What finds no place is counted, and a retry opens it. The same thread tells of reviews that expired.
//! Limits: [`limits::REVIEWS_WAITING_MAX`] step-ups wait. Never does: deciding, approving, holding up a verdict.

use std::convert::Infallible;
use std::sync::OnceLock;
use std::thread::{self, Thread};

use cardea_core::ask::{self, Ask, AskDigest};
use cardea_core::asked::Asked;
use cardea_core::attempt::Attempt;
use cardea_core::review::Opening;
use cardea_core::time::Now;
use cardea_core::verdict::{Decision, Verdict};
use cardea_policy_store::settings::Requirement;
use cardea_policy_store::snapshot::Snapshot;
use cardea_proto::v1::{self, record::Entry};
use crossbeam_queue::ArrayQueue;
use smallvec::SmallVec;
use smol_str::{SmolStr, ToSmolStr};
use uuid::Uuid;

use crate::audit::record::timestamp;
use crate::limits;
use crate::metrics::ReviewMetrics;
use crate::pipeline::{Pipeline, entity};
use crate::shutdown::{Phase, Shutdown};
use crate::state::{Known, NotOpened, State};

/// Reviews that a verdict names, each with the place of its requirement.
pub type Named = SmallVec<[(u16, AskDigest); 1]>;

/// See the module.
#[derive(Debug)]
pub struct Desk {
    waiting: ArrayQueue<Box<Waiting>>,
    thread: OnceLock<Thread>,
    metrics: ReviewMetrics,
}

/// A step-up whose review is not open yet.
#[derive(Debug)]
struct Waiting {
    ask: Ask,
    opening: Opening,
    now: Now,
}

impl Desk {
    /// Nothing waits.
    #[must_use]
    pub fn new(metrics: ReviewMetrics) -> Self {
        Self { waiting: ArrayQueue::new(limits::REVIEWS_WAITING_MAX), thread: OnceLock::new(), metrics }
    }

    /// Names the reviews of a step-up, and has those opened that are not there.
    #[inline]
    pub(crate) fn ask(
        &self,
        snapshot: &Snapshot,
        attempt: &Attempt,
        verdict: &Verdict,
        decision_id: Uuid,
        state: &State,
        now: Now,
    ) -> Named {
        if verdict.decision() != Decision::StepUp {
            Named::new()
        } else {
            self.name(snapshot, attempt, verdict, decision_id, state, now)
        }
    }

    #[cold]
    fn name(
        &self,
        snapshot: &Snapshot,
        attempt: &Attempt,
        verdict: &Verdict,
        decision_id: Uuid,
        state: &State,
        now: Now,
    ) -> Named {
        let approval = |at: &u16| match snapshot.requirement(*at)? {
            (name, Requirement::Approval { .. }) => Some((*at, name)),
            _ => None,
        };
        let asked: SmallVec<[(u16, &SmolStr); 2]> =
            verdict.requirements().iter().filter_map(approval).collect();
        if asked.is_empty() {
            return Named::new();
        }
        let Some(digest) = ask::digest(attempt) else {
            self.metrics.too_large.increment(1);
            return Named::new();
        };
        let mut named = Named::new();
        for (at, requirement) in asked {
            let review = digest.with(requirement);
            named.push((at, review));
            if !state.ask_again(&review, now) {
                let opening = Opening {
                    at_ms: now.wall_ms,
                    decision_id: decision_id.hyphenated().to_smolstr(),
                    session_id: attempt.session_id.clone(),
                    asked: verdict.deviated().map(|of| Box::new(Asked::of(attempt, snapshot, of))),
                };
                self.push(Box::new(Waiting { ask: Ask::of(attempt, requirement), opening, now }));
            }
        }
        named
    }

    fn push(&self, waiting: Box<Waiting>) {
        if self.waiting.push(waiting).is_err() {
            self.metrics.skipped.increment(1);
        } else if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Opens reviews until the process stops; what waits then is opened by its retry.
    ///
    /// # Errors
    /// Never.
    pub fn run(&self, pipeline: &Pipeline, shutdown: &Shutdown) -> Result<(), Infallible> {
        let _already_set = self.thread.set(thread::current());
        let mut looked = pipeline.now();
        while shutdown.phase() == Phase::Running {
            while let Some(waiting) = self.waiting.pop() {
                self.open(&waiting, pipeline);
            }
            let now = pipeline.now();
            if u128::from(now.since_ns(looked)) >= limits::REVIEWS_LOOK_INTERVAL.as_nanos() {
                looked = now;
                for known in pipeline.state().expired_reviews(now) {
                    pipeline.record(record(&known, "expired", pipeline.state().version()), now);
                }
            }
            thread::park_timeout(limits::REVIEWS_IDLE);
        }
        Ok(())
    }

    fn open(&self, waiting: &Waiting, pipeline: &Pipeline) {
        match pipeline.state().open_review(&waiting.ask, waiting.opening.clone(), waiting.now) {
            Ok(Some(known)) => {
                self.metrics.opened.increment(1);
                pipeline.record(record(&known, "opened", pipeline.state().version()), waiting.now);
            }
            Ok(None) => {}
            Err(NotOpened::Full) => self.metrics.full.increment(1),
            Err(NotOpened::TooMany) => self.metrics.too_many.increment(1),
        }
    }
}

/// The record of a change of a review.
pub(crate) fn record(known: &Known, change: &'static str, version: u64) -> Entry {
    let review = &known.review;
    let named = |named: &cardea_core::named::Named| v1::EntityRef {
        r#type: named.type_name.to_string(),
        id: named.id.to_string(),
    };
    let decided = match (review.rejected(), review.approved()) {
        (Some(no), _) => Some((&no.by, &no.reason)),
        (None, Some(yes)) => Some((&yes.by, &yes.reason)),
        (None, None) => None,
    };
    let yes = review.approved().filter(|_| review.rejected().is_none());
    let asked = review.opened().and_then(|opened| opened.asked.as_deref());
    let learned = yes.filter(|yes| yes.into_baseline).and_then(|_| asked?.named.as_ref());
    Entry::Review(v1::ReviewRecord {
        review_id: review.ask.digest().0.to_string(),
        round: review.round(),
        change: change.to_owned(),
        principal: Some(entity(&review.ask.principal)),
        delegation: review.ask.delegation.iter().map(entity).collect(),
        action: Some(entity(&review.ask.action)),
        resource: Some(entity(&review.ask.resource)),
        argument_digest: ask::argument_digest(&review.ask.arguments).to_string(),
        requirement: review.ask.requirement.to_string(),
        decision_id: review.opened().map(|opened| opened.decision_id.to_string()).unwrap_or_default(),
        reviewer: decided.map(|(by, _)| named(by)),
        grant_ends_at: yes.map(|yes| timestamp(yes.ends_ms)),
        state_version: version,
        reason: decided.map(|(_, reason)| reason.to_string()).unwrap_or_default(),
        asked_by: String::new(),
        deviation: asked.map(deviation),
        once: yes.is_some_and(|yes| yes.once),
        into_baseline: learned.map(crate::pipeline::observed_record),
    })
}

/// What the reviewer was shown, as records have it.
pub(crate) fn deviation(asked: &Asked) -> v1::DeviationRecord {
    let texts = |texts: &[SmolStr]| texts.iter().map(SmolStr::to_string).collect();
    v1::DeviationRecord {
        flags: texts(&asked.flags),
        assessment: asked.assessment.to_string(),
        confidence: asked.confidence.into(),
        evidence: texts(&asked.evidence),
        baseline: asked.baseline.to_string(),
        observed: false,
    }
}
