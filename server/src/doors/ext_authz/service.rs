//! The gRPC service: maps, asks the pipeline, answers.

use std::cell::OnceCell;
use std::sync::Arc;

use cardea_core::ask::AskDigest;
use cardea_core::attempt::{Attempt, NotAnAttempt, Parts, Token};
use cardea_core::reason::ReasonCode;
use cardea_core::verdict::Decision;
use cardea_policy_store::engine::{Record, Value};
use cardea_policy_store::routes::RawValue;
use cardea_policy_store::settings::Requirement;
use cardea_policy_store::snapshot::Snapshot;
use envoy_types::ext_authz::v3::pb::{CheckRequest, CheckResponse};
use envoy_types::pb::envoy::service::auth::v3::authorization_server::Authorization;
use smallvec::SmallVec;
use smol_str::{SmolStr, ToSmolStr};
use tonic::{Request, Response, Status};

use super::{
    Answer, AnswerDecision, EntityName, ExtAuthzConfig, Mapped, RefusedReason, StepUpKind, StepUpNeed,
    TokenClaims, check_response, map,
};
use crate::pipeline::{Door, Judgement, Pipeline, Refused, Seen, reason_text};

/// `envoy.service.auth.v3.Authorization`.
#[derive(Clone, Debug)]
pub struct ExtAuthzDoor {
    pipeline: Arc<Pipeline>,
    config: ExtAuthzConfig,
}

/// What the answer needs to know of the request beside the verdict.
#[derive(Default)]
struct Asked {
    principal: Option<EntityName>,
    route: Option<SmolStr>,
    is_unidentified: bool,
}

impl ExtAuthzDoor {
    /// In front of this pipeline.
    #[must_use]
    pub fn new(pipeline: Arc<Pipeline>, config: ExtAuthzConfig) -> Self {
        Self { pipeline, config }
    }

    async fn judge(&self, request: &CheckRequest) -> CheckResponse {
        let asked = OnceCell::new();
        let judged = self.pipeline.judge(
            Door::ExtAuthz,
            |snapshot| self.attempt(request, snapshot, &asked),
            |judgement| say(judgement, asked.get(), request),
        );
        let asked = asked.into_inner();
        self.pipeline.release(judged, |judgement| say(judgement, asked.as_ref(), request)).await
    }

    fn attempt(
        &self,
        request: &CheckRequest,
        snapshot: &Snapshot,
        asked: &OnceCell<Asked>,
    ) -> Result<Attempt, Box<Refused>> {
        let Some(routes) = snapshot.routes() else {
            return Err(refused(ReasonCode::NoRoute, "the bundle has no routes", Seen::default()));
        };
        let mapped = match map(request, routes, &self.config) {
            Ok(mapped) => mapped,
            Err(fault) => {
                let seen = Seen {
                    principal: fault
                        .principal
                        .as_ref()
                        .map(|name| (name.entity_type.clone(), name.id.clone())),
                    attempt_id: fault.request_id.clone().unwrap_or_default(),
                    ..Seen::default()
                };
                let is_unidentified = fault.reason.is_unidentified();
                let _first = asked.set(Asked { principal: fault.principal, route: None, is_unidentified });
                return Err(refused(code(&fault.reason), fault.reason.message(), seen));
            }
        };
        let attempt = read(&mapped, snapshot);
        let seen = |mapped: &Mapped| Seen {
            principal: Some((mapped.principal.entity_type.clone(), mapped.principal.id.clone())),
            action: Some((mapped.action.entity_type.clone(), mapped.action.id.clone())),
            resource: Some((mapped.resource.entity_type.clone(), mapped.resource.id.clone())),
            attempt_id: mapped.request_id.clone().unwrap_or_default(),
            session_id: mapped.session_id.clone().unwrap_or_default(),
        };
        let attempt = attempt.map_err(|fault| Box::new(Refused { fault, seen: seen(&mapped) }));
        let Mapped { principal, route, .. } = mapped;
        let _first =
            asked.set(Asked { principal: Some(principal), route: Some(route), is_unidentified: false });
        attempt
    }
}

#[tonic::async_trait]
impl Authorization for ExtAuthzDoor {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        Ok(Response::new(self.judge(request.get_ref()).await))
    }
}

fn say(judgement: &Judgement<'_>, asked: Option<&Asked>, request: &CheckRequest) -> CheckResponse {
    let nothing = Asked::default();
    check_response(&answer(judgement, asked.unwrap_or(&nothing)), request)
}

fn refused(code: ReasonCode, message: &str, seen: Seen) -> Box<Refused> {
    Box::new(Refused { fault: NotAnAttempt { code, message: message.to_owned() }, seen })
}

fn code(reason: &RefusedReason) -> ReasonCode {
    match reason {
        RefusedReason::Identity(_) => ReasonCode::NoIdentity,
        RefusedReason::NoRoute => ReasonCode::NoRoute,
        RefusedReason::NotHttp
        | RefusedReason::TooLong
        | RefusedReason::Headers(_)
        | RefusedReason::Target(_)
        | RefusedReason::ResourceIdTooLong
        | RefusedReason::Context { .. } => ReasonCode::Malformed,
    }
}

fn read(mapped: &Mapped, snapshot: &Snapshot) -> Result<Attempt, NotAnAttempt> {
    fn pair(name: &EntityName) -> (&str, &str) {
        (&name.entity_type, &name.id)
    }
    let delegation: SmallVec<[(&str, &str); 4]> = mapped.delegation.iter().map(pair).collect();
    let value = |value: &RawValue| match value {
        RawValue::String(text) => Value::from(text.clone()),
        RawValue::Long(number) => Value::from(*number),
        RawValue::Bool(flag) => Value::from(*flag),
    };
    let request: Record = mapped.context.iter().map(|(name, raw)| (name.clone(), value(raw))).collect();
    Attempt::new(
        snapshot,
        Parts {
            id: mapped.request_id.as_deref().unwrap_or_default(),
            principal: pair(&mapped.principal),
            action: pair(&mapped.action),
            resource: pair(&mapped.resource),
            request,
            session_id: mapped.session_id.as_deref().unwrap_or_default(),
            delegation: &delegation,
            token: mapped.token.as_ref().map(token),
            at_least_version: 0,
            task_id: "",
        },
    )
}

fn token(claims: &TokenClaims) -> Token {
    let ms = |seconds: Option<i64>| seconds.map(|seconds| seconds.saturating_mul(1000));
    Token {
        issuer: claims.issuer.clone().unwrap_or_default(),
        issued_ms: ms(claims.issued_at_s),
        expires_ms: ms(claims.expires_at_s),
        scopes: claims.scopes.clone(),
        // Nothing in a CheckRequest proves possession of a key.
        bound: false,
        authenticated_ms: ms(claims.auth_time_s),
        acr: claims.acr.clone().unwrap_or_default(),
        amr: claims.amr.clone(),
    }
}

fn answer(judgement: &Judgement<'_>, asked: &Asked) -> Answer {
    let Judgement { verdict, snapshot, .. } = *judgement;
    let decision = match verdict.decision() {
        Decision::Allow => {
            let obligation = |at: &u32| snapshot?.policy(*at)?.obligation.clone();
            AnswerDecision::Allow {
                obligations: verdict.obligations().iter().filter_map(obligation).collect(),
            }
        }
        Decision::StepUp => {
            let needed = |at: &u16| {
                let review = judgement.reviews.iter().find(|(of, _)| of == at).map(|(_, review)| review);
                Some(need(snapshot?.requirement(*at)?, review))
            };
            AnswerDecision::StepUp(verdict.requirements().iter().filter_map(needed).collect())
        }
        Decision::Deny if asked.is_unidentified => AnswerDecision::DenyUnidentified,
        Decision::Deny => AnswerDecision::Deny,
    };
    let (reason, message) = match verdict.reasons().first() {
        Some(reason) => (reason.code.name(), reason_text(*reason, verdict, snapshot)),
        None => ("allowed", "allowed"),
    };
    Answer {
        decision,
        reason: SmolStr::new_static(reason),
        message: message.into(),
        decision_id: judgement.id.hyphenated().to_smolstr(),
        principal: asked.principal.clone(),
        risk: judgement.risk,
        route: asked.route.clone(),
    }
}

fn need((name, requirement): &(SmolStr, Requirement), review: Option<&AskDigest>) -> StepUpNeed {
    let kind = match requirement {
        Requirement::Authentication { acr_values, max_age_s } => {
            StepUpKind::Authentication { acr_values: acr_values.clone(), max_age_s: *max_age_s }
        }
        Requirement::Approval { .. } => StepUpKind::Approval,
        Requirement::Attestation {} => StepUpKind::Attestation,
    };
    StepUpNeed { name: name.clone(), kind, review_id: review.map(|digest| digest.0.to_smolstr()) }
}
