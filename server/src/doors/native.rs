//! The native door: `cardea.v1.DecisionService`.
//!
//! Limits: [`limits::BATCH_ATTEMPTS_MAX`] attempts per message. A message that cannot be read as a whole is refused with
//! INVALID_ARGUMENT; an attempt in it that cannot be read gets its own deny, and the others their answers.

use std::sync::Arc;

use cardea_core::attempt::{Attempt, NotAnAttempt, Parts};
use cardea_core::reason::ReasonCode;
use cardea_policy_store::snapshot::Snapshot;
use cardea_proto::v1;
use cardea_proto::v1::decision_service_server::DecisionService;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use smallvec::SmallVec;
use tonic::{Request, Response, Status, Streaming};

use super::hold::{self, HoldStream, WireHolds};
use super::wire;
use crate::limits;
use crate::pipeline::{Door, Judged, Pipeline, Refused, Seen};
use crate::state::NotSettled;

/// The service.
#[derive(Clone, Debug)]
pub struct NativeDoor {
    pipeline: Arc<Pipeline>,
    holds: WireHolds,
}

impl NativeDoor {
    /// In front of the pipeline of these holds.
    #[must_use]
    pub fn new(holds: WireHolds) -> Self {
        Self { pipeline: Arc::clone(holds.pipeline()), holds }
    }

    fn judge(&self, attempt: &v1::Attempt) -> Judged<v1::Verdict> {
        self.pipeline.judge(
            Door::Grpc,
            |snapshot| {
                read(attempt, snapshot).map_err(|fault| Box::new(Refused { fault, seen: seen(attempt) }))
            },
            |judgement| wire::verdict(judgement, &attempt.id),
        )
    }

    async fn release(&self, judged: Judged<v1::Verdict>, attempt: &v1::Attempt) -> v1::Verdict {
        self.pipeline.release(judged, |judgement| wire::verdict(judgement, &attempt.id)).await
    }

    async fn judge_all(&self, attempts: &[v1::Attempt]) -> Result<Vec<v1::Verdict>, Status> {
        if attempts.len() > limits::BATCH_ATTEMPTS_MAX {
            let count = attempts.len();
            return Err(Status::invalid_argument(format!(
                "{count} attempts in one message; send at most {}",
                limits::BATCH_ATTEMPTS_MAX
            )));
        }
        // All are judged before any is waited for, so that they share what they wait for.
        let judged: Vec<_> = attempts.iter().map(|attempt| self.judge(attempt)).collect();
        let mut verdicts = Vec::with_capacity(attempts.len());
        for (judged, attempt) in judged.into_iter().zip(attempts) {
            verdicts.push(self.release(judged, attempt).await);
        }
        Ok(verdicts)
    }
}

#[tonic::async_trait]
impl DecisionService for NativeDoor {
    async fn decide(
        &self,
        request: Request<v1::DecideRequest>,
    ) -> Result<Response<v1::DecideResponse>, Status> {
        let Some(attempt) = &request.get_ref().attempt else {
            return Err(Status::invalid_argument("`attempt` is missing"));
        };
        let verdict = self.release(self.judge(attempt), attempt).await;
        Ok(Response::new(v1::DecideResponse { verdict: Some(verdict) }))
    }

    async fn decide_batch(
        &self,
        request: Request<v1::DecideBatchRequest>,
    ) -> Result<Response<v1::DecideBatchResponse>, Status> {
        let verdicts = self.judge_all(&request.get_ref().attempts).await?;
        Ok(Response::new(v1::DecideBatchResponse { verdicts }))
    }

    type DecideStreamStream = BoxStream<'static, Result<v1::DecideStreamResponse, Status>>;

    async fn decide_stream(
        &self,
        request: Request<Streaming<v1::DecideStreamRequest>>,
    ) -> Result<Response<Self::DecideStreamStream>, Status> {
        let door = self.clone();
        // Each message is answered before the next is read, so a caller that does not read holds back only itself.
        let answers = request.into_inner().then(move |message| {
            let door = door.clone();
            async move {
                let verdicts = door.judge_all(&message?.attempts).await?;
                Ok(v1::DecideStreamResponse { verdicts })
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn settle(
        &self,
        request: Request<v1::SettleRequest>,
    ) -> Result<Response<v1::SettleResponse>, Status> {
        use v1::settle_request::Outcome;
        let request = request.get_ref();
        let is_done = match request.outcome() {
            Outcome::Committed => true,
            Outcome::Released => false,
            Outcome::Unspecified => {
                return Err(Status::invalid_argument(
                    "`outcome` is missing: say whether the action was done",
                ));
            }
        };
        let settled = self.pipeline.state().counters().settle(&request.token, is_done, self.pipeline.now());
        settled.map_err(|fault| match fault {
            NotSettled::Unknown => Status::not_found(fault.to_string()),
            NotSettled::Otherwise => Status::failed_precondition(fault.to_string()),
        })?;
        Ok(Response::new(v1::SettleResponse {}))
    }

    type HoldStream = HoldStream;

    async fn hold(
        &self,
        request: Request<Streaming<v1::HoldRequest>>,
    ) -> Result<Response<Self::HoldStream>, Status> {
        hold::serve(&self.holds, request).await
    }
}

pub(crate) fn read(attempt: &v1::Attempt, snapshot: &Snapshot) -> Result<Attempt, NotAnAttempt> {
    let malformed = |message: String| NotAnAttempt { code: ReasonCode::Malformed, message };
    if attempt.context.len() > cardea_core::attempt::FIELDS_MAX {
        return Err(malformed(format!("at most {} context fields", cardea_core::attempt::FIELDS_MAX)));
    }
    let delegation: SmallVec<[(&str, &str); 4]> =
        attempt.delegation.iter().map(|hop| wire::pair(Some(hop))).collect();
    let parts = Parts {
        id: &attempt.id,
        principal: wire::pair(attempt.principal.as_ref()),
        action: wire::pair(attempt.action.as_ref()),
        resource: wire::pair(attempt.resource.as_ref()),
        request: wire::record(&attempt.context, snapshot).map_err(malformed)?,
        session_id: &attempt.session_id,
        delegation: &delegation,
        token: wire::token(attempt.token.as_ref()).map_err(malformed)?,
        at_least_version: attempt.at_least_version,
        task_id: &attempt.task_id,
    };
    Attempt::new(snapshot, parts)
}

pub(super) fn seen(attempt: &v1::Attempt) -> Seen {
    Seen {
        principal: Seen::reference(wire::pair(attempt.principal.as_ref())),
        action: Seen::reference(wire::pair(attempt.action.as_ref())),
        resource: Seen::reference(wire::pair(attempt.resource.as_ref())),
        attempt_id: Seen::text(&attempt.id),
        session_id: Seen::text(&attempt.session_id),
    }
}
