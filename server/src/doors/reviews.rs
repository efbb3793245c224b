//! `cardea.v1.ReviewService`: just-in-time approvals are read and decided.
//!
//! A decision is acknowledged once it is durable. The reviewer is the one that the request names; what the connection
//! proves stands beside it in the record. Limits: those of `cardea_core::review`; [`wire::page_size`] reviews on a page.
//! Never does: opening reviews; verdicts do.

use std::sync::Arc;

use cardea_core::ask::{AskDigest, argument_digest};
use cardea_core::grant::Scope;
use cardea_core::review::{Approval, REJECTED_MS, Rejection, Review, ReviewFault, Status as Stands};
use cardea_core::task::{ResourcePattern, SCOPE_MAX};
use cardea_core::time::Now;
use cardea_policy_store::digest::Digest;
use cardea_policy_store::settings::Requirement;
use cardea_policy_store::snapshot::Snapshot;
use cardea_proto::v1::review_service_server::ReviewService;
use cardea_proto::v1::{self, record::Entry};
use smol_str::SmolStr;
use tonic::{Request, Response, Status};

use super::admin::peer_name;
use super::{sessions, wire};
use crate::pipeline::{Pipeline, observed_record, recorded};
use crate::reviews::{deviation, record};
use crate::state::{Known, NotDecided, Settled};

/// The service.
#[derive(Clone, Debug)]
pub struct ReviewDoor(Arc<Pipeline>);

impl ReviewDoor {
    /// Changes the state of this pipeline.
    #[must_use]
    pub fn new(pipeline: Arc<Pipeline>) -> Self {
        Self(pipeline)
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, Status> {
        let current = self.0.policy().snapshot();
        current.ok_or_else(|| Status::unavailable("no policy bundle is in force, so reviewers are not known"))
    }

    /// Decides, and waits until the decision is durable.
    async fn settle(
        &self,
        settle: impl FnOnce() -> Result<Settled, NotDecided>,
        peer: SmolStr,
        now: Now,
    ) -> Result<(v1::Review, u64), Status> {
        let (known, version) = {
            let _recorded_first = self.0.state().feed().keep_back();
            self.recorded(settle().map_err(|refusal| refuse(&refusal))?, peer, now)
        };
        self.0.state().durable().await.map_err(|fault| sessions::not_durable(&fault))?;
        Ok((self.message(&known, now), version))
    }

    /// Writes the record.
    fn recorded(&self, settled: Settled, peer: SmolStr, now: Now) -> (Known, u64) {
        let Settled { known, version, changed, before } = settled;
        if changed {
            let word = match (known.review.status(now), before) {
                (Stands::Rejected, Stands::Approved) => "revoked",
                (Stands::Rejected, _) => "rejected",
                _ => "approved",
            };
            let mut body = record(&known, word, version);
            if let Entry::Review(record) = &mut body {
                record.asked_by = peer.into();
            }
            self.0.record(body, now);
        }
        (known, version)
    }

    fn message(&self, known: &Known, now: Now) -> v1::Review {
        let snapshot = self.0.policy().snapshot();
        let requirement = |name: &SmolStr| snapshot.as_ref()?.settings().step_up.get(name).cloned();
        let reviewers = match requirement(&known.review.ask.requirement) {
            Some(Requirement::Approval { reviewers, .. }) => {
                reviewers.iter().map(ToString::to_string).collect()
            }
            Some(Requirement::Authentication { .. } | Requirement::Attestation {}) | None => Vec::new(),
        };
        v1::Review { reviewers, ..message(known, now) }
    }
}

#[tonic::async_trait]
impl ReviewService for ReviewDoor {
    async fn list(
        &self,
        request: Request<v1::ListReviewsRequest>,
    ) -> Result<Response<v1::ListReviewsResponse>, Status> {
        let now = self.0.now();
        let asked = request.into_inner();
        let status = v1::ReviewStatus::try_from(asked.status)
            .map_err(|_| Status::invalid_argument("`status` is none of the known ones"))?;
        let principal = match &asked.principal {
            Some(reference) => Some(wire::uid("principal", Some(reference), &*self.snapshot()?)?),
            None => None,
        };
        let size = wire::page_size(asked.page_size)?;
        let after = match asked.page_token.as_str() {
            "" => None,
            token => Some(
                place(token).ok_or_else(|| Status::invalid_argument("`page_token` is not one of ours"))?,
            ),
        };
        let state = Arc::clone(self.0.state());
        let wanted = move |review: &Review| {
            principal.as_ref().is_none_or(|uid| review.ask.principal == *uid)
                && (status == v1::ReviewStatus::Unspecified || status_message(review.status(now)) == status)
        };
        // Walks the whole table, so off the thread that decides.
        let all = tokio::task::spawn_blocking(move || state.reviews_where(wanted))
            .await
            .map_err(|_| Status::internal("the table could not be read"))?;
        let at =
            |digest: &AskDigest, known: &Known| (known.review.opened().map_or(0, |one| one.at_ms), *digest);
        let rest = all
            .into_iter()
            .skip_while(|(digest, known)| after.is_some_and(|after| at(digest, known) <= after));
        let (page, next_page_token) = wire::page(rest, size, |(digest, known)| {
            let (opened_ms, digest) = at(digest, known);
            format!("{opened_ms}.{}", digest.0)
        });
        let reviews = page.iter().map(|(_, known)| self.message(known, now)).collect();
        Ok(Response::new(v1::ListReviewsResponse { reviews, next_page_token }))
    }

    async fn get(
        &self,
        request: Request<v1::GetReviewRequest>,
    ) -> Result<Response<v1::GetReviewResponse>, Status> {
        let known = self
            .0
            .state()
            .review(&digest(&request.get_ref().id)?)
            .ok_or_else(|| refuse(&NotDecided::Unknown))?;
        Ok(Response::new(v1::GetReviewResponse { review: Some(self.message(&known, self.0.now())) }))
    }

    async fn approve(
        &self,
        request: Request<v1::ApproveReviewRequest>,
    ) -> Result<Response<v1::ApproveReviewResponse>, Status> {
        let now = self.0.now();
        let peer = peer_name(&request);
        let asked = request.into_inner();
        let snapshot = self.snapshot()?;
        let id = digest(&asked.id)?;
        let by = wire::named("reviewer", asked.reviewer.as_ref())?;
        wire::may_approve(&by, &snapshot, self.0.state())?;
        let ends_ms = wire::optional_ms(asked.ends_at.as_ref()).map_err(Status::invalid_argument)?;
        let known = self.0.state().review(&id).ok_or_else(|| refuse(&NotDecided::Unknown))?;
        let only_session = match &asked.scope {
            None => false,
            Some(message) => {
                let ask = &known.review.ask;
                let wider = scope(message)?.within(&ask.action, &ask.resource);
                wider.map_err(|wider| Status::invalid_argument(wider.to_string()))?;
                message.this_session_only
            }
        };
        sessions::can_keep(self.0.state())?;
        let approval = |review: &Review, grant_s: u64| {
            let life_ms = i64::try_from(grant_s).unwrap_or(i64::MAX).saturating_mul(1000);
            let session_id = match only_session {
                false => None,
                true => {
                    let session = review.opened().and_then(|opened| opened.session_id.clone());
                    Some(session.ok_or(ReviewFault::NoSession)?)
                }
            };
            Ok(Approval {
                at_ms: now.wall_ms,
                ends_ms: ends_ms.unwrap_or_else(|| now.wall_ms.saturating_add(life_ms)),
                session_id,
                once: asked.once,
                into_baseline: asked.into_baseline,
                by,
                reason: asked.reason.as_str().into(),
            })
        };
        let settle = || self.0.state().approve_review(&id, asked.round, approval, snapshot.settings(), now);
        let (review, state_version) = self.settle(settle, peer, now).await?;
        Ok(Response::new(v1::ApproveReviewResponse { review: Some(review), state_version }))
    }

    async fn reject(
        &self,
        request: Request<v1::RejectReviewRequest>,
    ) -> Result<Response<v1::RejectReviewResponse>, Status> {
        let now = self.0.now();
        let peer = peer_name(&request);
        let asked = request.into_inner();
        let snapshot = self.snapshot()?;
        let until_ms = wire::optional_ms(asked.until.as_ref()).map_err(Status::invalid_argument)?;
        let rejection = Rejection {
            until_ms: until_ms.unwrap_or_else(|| now.wall_ms.saturating_add(REJECTED_MS)),
            at_ms: now.wall_ms,
            by: wire::named("reviewer", asked.reviewer.as_ref())?,
            reason: asked.reason.as_str().into(),
        };
        let id = digest(&asked.id)?;
        let settle = || self.0.state().reject_review(&id, asked.round, rejection, snapshot.settings(), now);
        let (review, state_version) = self.settle(settle, peer, now).await?;
        Ok(Response::new(v1::RejectReviewResponse { review: Some(review), state_version }))
    }
}

fn digest(id: &str) -> Result<AskDigest, Status> {
    let digest = id.parse::<Digest>();
    digest
        .map(AskDigest)
        .map_err(|_| Status::invalid_argument("a review's id is 64 lower-case hexadecimal digits"))
}

/// The place in the list that a page token names.
fn place(token: &str) -> Option<(i64, AskDigest)> {
    let (opened_ms, digest) = token.split_once('.')?;
    Some((opened_ms.parse().ok()?, AskDigest(digest.parse().ok()?)))
}

fn scope(message: &v1::ReviewScope) -> Result<Scope, Status> {
    if message.actions.len() > SCOPE_MAX || message.resources.len() > SCOPE_MAX {
        return Err(Status::invalid_argument(format!(
            "a scope has at most {SCOPE_MAX} actions and resources"
        )));
    }
    let resources: Result<Vec<_>, _> =
        message.resources.iter().map(|text| ResourcePattern::parse(text)).collect();
    Ok(Scope {
        actions: message.actions.iter().map(SmolStr::from).collect(),
        resources: resources.map_err(|fault| Status::invalid_argument(fault.to_string()))?,
    })
}

fn status_message(status: Stands) -> v1::ReviewStatus {
    match status {
        Stands::Pending => v1::ReviewStatus::Pending,
        Stands::Approved => v1::ReviewStatus::Approved,
        Stands::Rejected => v1::ReviewStatus::Rejected,
        Stands::Expired => v1::ReviewStatus::Expired,
        Stands::UsedUp => v1::ReviewStatus::UsedUp,
    }
}

fn message(known: &Known, now: Now) -> v1::Review {
    let review = &known.review;
    let ask = &review.ask;
    let (decided, reason) = match (review.rejected(), review.approved()) {
        (Some(no), _) => (Some((&no.by, no.at_ms)), no.reason.to_string()),
        (None, Some(yes)) => (Some((&yes.by, yes.at_ms)), yes.reason.to_string()),
        (None, None) => (None, String::new()),
    };
    let opened = review.opened();
    let shown = opened.and_then(|opened| opened.asked.as_deref());
    v1::Review {
        id: wire::review_id(&ask.digest()),
        round: review.round(),
        ask: Some(v1::ReviewAsk {
            principal: Some(wire::entity_ref(&ask.principal)),
            delegation: ask.delegation.iter().map(wire::entity_ref).collect(),
            action: Some(wire::entity_ref(&ask.action)),
            resource: Some(wire::entity_ref(&ask.resource)),
            arguments: ask
                .arguments
                .iter()
                .map(|(name, value)| (name.to_string(), recorded(&value)))
                .collect(),
            argument_digest: argument_digest(&ask.arguments).to_string(),
            requirement: ask.requirement.to_string(),
        }),
        status: status_message(review.status(now)).into(),
        opened_at: opened.map(|opened| wire::timestamp(opened.at_ms)),
        expires_at: opened.map(|_| wire::timestamp(review.expires_ms())),
        attempts: known.asked,
        last_attempt_at: Some(wire::timestamp(known.asked_ms)),
        decision_id: opened.map(|opened| opened.decision_id.to_string()).unwrap_or_default(),
        session_id: opened
            .and_then(|opened| opened.session_id.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
        reviewers: Vec::new(),
        decided_by: decided.map(|(by, _)| wire::named_message(by)),
        decided_at: decided.map(|(_, at_ms)| wire::timestamp(at_ms)),
        reason,
        grant: review.approved().filter(|_| review.rejected().is_none()).map(|yes| v1::Grant {
            ends_at: Some(wire::timestamp(yes.ends_ms)),
            session_id: yes.session_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            once: yes.once,
            used_at: review.used_ms().map(wire::timestamp),
        }),
        rejected_until: review.rejected().map(|no| wire::timestamp(no.until_ms)),
        deviation: shown.map(deviation),
        learnable: shown.and_then(|asked| asked.named.as_ref()).map(observed_record),
        into_baseline: review.approved().is_some_and(|yes| yes.into_baseline) && review.rejected().is_none(),
    }
}

fn refuse(refusal: &NotDecided) -> Status {
    let text = refusal.to_string();
    match refusal {
        NotDecided::Unknown => Status::not_found(
            "this node does not know the review; it is opened shortly after the verdict that asks for it",
        ),
        NotDecided::NotReviewer(..) | NotDecided::Fault(ReviewFault::OwnAttempt(_)) => {
            Status::permission_denied(text)
        }
        NotDecided::NoRequirement(_)
        | NotDecided::Fault(
            ReviewFault::OtherRound { .. } | ReviewFault::NotPending | ReviewFault::NothingToLearn,
        ) => Status::failed_precondition(text),
        NotDecided::Fault(ReviewFault::BadEnd(_) | ReviewFault::NoSession | ReviewFault::TooWordy) => {
            Status::invalid_argument(text)
        }
    }
}
