//! An answer in, a `CheckResponse` out.
//!
//! Owns what the caller and the service behind the proxy get to see: status, body, challenge, `x-cardea-*` headers,
//! dynamic metadata. Limits: message 512 bytes. Never tells policy text, never lets a client's own `x-cardea-*`
//! header through, and never answers OK to anything but an allow.

use std::fmt::Write as _;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction},
        service::auth::v3::{
            CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse, check_response::HttpResponse,
        },
        r#type::v3::{HttpStatus, StatusCode},
    },
    google::{
        protobuf::{Struct, Value, value::Kind},
        rpc::Status,
    },
};
use serde::Serialize;
use smol_str::SmolStr;

use super::{
    EntityName, ExtAuthzConfig,
    challenge::{self, StepUpKind, StepUpNeed},
    headers::{Headers, begins_to_some_reader},
};

const MESSAGE_BYTES_MAX: usize = 512;
const HEADER_PREFIX: &str = "x-cardea-";
const DECISION_ID_HEADER: &str = "x-cardea-decision-id";
const PRINCIPAL_HEADER: &str = "x-cardea-principal";
const OBLIGATIONS_HEADER: &str = "x-cardea-obligations";
/// `google.rpc.Code`.
const RPC_OK: i32 = 0;
const RPC_PERMISSION_DENIED: i32 = 7;
const RPC_UNAUTHENTICATED: i32 = 16;

/// What this door says, whatever judged it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The decision.
    pub decision: AnswerDecision,
    /// Stable word for why: `forbidden`, `no_route`, …; `allowed` for an allow.
    pub reason: SmolStr,
    /// Sentence for the caller. Never policy text.
    pub message: SmolStr,
    /// Names the decision in the records.
    pub decision_id: SmolStr,
    /// Who acts, if known.
    pub principal: Option<EntityName>,
    /// Risk score 0 to 100, if one was read.
    pub risk: Option<u8>,
    /// Path pattern of the route, if there was one.
    pub route: Option<SmolStr>,
}

/// Allow, step-up, or one of two denials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerDecision {
    /// The request may go on.
    Allow {
        /// What the service behind the proxy must do along with it.
        obligations: Vec<SmolStr>,
    },
    /// It may go on once these needs are met.
    StepUp(Vec<StepUpNeed>),
    /// It must not go on.
    Deny,
    /// It must not go on, and it carries no identity at all: logging in may help.
    DenyUnidentified,
}

impl AnswerDecision {
    fn word(&self) -> &'static str {
        match self {
            Self::Allow { .. } => "allow",
            Self::StepUp(_) => "step_up",
            Self::Deny | Self::DenyUnidentified => "deny",
        }
    }
}

/// Writes the answer to `request`.
#[must_use]
pub fn check_response(answer: &Answer, request: &CheckRequest) -> CheckResponse {
    let (rpc_code, http_response) = match &answer.decision {
        AnswerDecision::Allow { obligations } => {
            (RPC_OK, HttpResponse::OkResponse(allowed(answer, obligations, request)))
        }
        AnswerDecision::StepUp(needs) => {
            let challenge = challenge::step_up(needs, &answer.message);
            (RPC_UNAUTHENTICATED, denied(answer, StatusCode::Unauthorized, needs, Some(&challenge)))
        }
        AnswerDecision::Deny => (RPC_PERMISSION_DENIED, denied(answer, StatusCode::Forbidden, &[], None)),
        AnswerDecision::DenyUnidentified => {
            (RPC_UNAUTHENTICATED, denied(answer, StatusCode::Unauthorized, &[], Some(challenge::IDENTIFY)))
        }
    };
    CheckResponse {
        status: Some(Status { code: rpc_code, ..Default::default() }),
        dynamic_metadata: Some(metadata(answer)),
        http_response: Some(http_response),
    }
}

// ---- allow ----

fn allowed(answer: &Answer, obligations: &[SmolStr], request: &CheckRequest) -> OkHttpResponse {
    let mut headers = vec![overwrite(DECISION_ID_HEADER, header_text(&answer.decision_id, ""))];
    if let Some(principal) = &answer.principal {
        headers.push(overwrite(PRINCIPAL_HEADER, header_text(&principal.to_string(), "")));
    }
    if !obligations.is_empty() {
        let each: Vec<String> = obligations.iter().map(|obligation| header_text(obligation, ",")).collect();
        headers.push(overwrite(OBLIGATIONS_HEADER, each.join(", ")));
    }
    let headers_to_remove = headers_to_remove(&headers, request);
    OkHttpResponse { headers, headers_to_remove, ..Default::default() }
}

/// Every `x-cardea-*` header that is not overwritten: those that the request shows, in any spelling that some service
/// reads as one of ours, and our own names even if the proxy did not show them (`allowed_headers` hides headers from
/// us, not from the service). A name that is overwritten must not be listed: Envoy removes last.
fn headers_to_remove(overwritten: &[HeaderValueOption], request: &CheckRequest) -> Vec<String> {
    let overwritten: Vec<&str> = overwritten
        .iter()
        .filter_map(|option| option.header.as_ref())
        .map(|header| header.key.as_str())
        .collect();
    let http = request.attributes.as_ref().and_then(|attributes| attributes.request.as_ref()?.http.as_ref());
    // Without a bound on purpose: a header that is counted out must be removed all the same.
    let unbounded =
        ExtAuthzConfig { headers_max: usize::MAX, header_bytes_max: usize::MAX, ..ExtAuthzConfig::default() };
    let headers = http.and_then(|http| Headers::new(http, &unbounded).ok());
    let mut names: Vec<String> =
        [DECISION_ID_HEADER, PRINCIPAL_HEADER, OBLIGATIONS_HEADER].map(str::to_owned).into();
    if let Some(headers) = &headers {
        let ours = headers.names().filter(|name| begins_to_some_reader(name, HEADER_PREFIX));
        names.extend(ours.map(str::to_ascii_lowercase));
    }
    names.retain(|name| !overwritten.contains(&name.as_str()));
    names.sort_unstable();
    names.dedup();
    names
}

/// Visible ASCII and space; everything else, `%` and the letters of `also` percent-encoded.
fn header_text(text: &str, also: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        let plain = (letter == ' ' || letter.is_ascii_graphic()) && letter != '%' && !also.contains(letter);
        if plain {
            safe.push(letter);
            continue;
        }
        for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
            let _ = write!(safe, "%{byte:02X}");
        }
    }
    safe
}

// ---- deny and step-up ----

#[derive(Serialize)]
struct Body<'a> {
    decision: &'static str,
    decision_id: &'a str,
    reason: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    requirements: Vec<BodyNeed<'a>>,
}

#[derive(Serialize)]
struct BodyNeed<'a> {
    name: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    acr_values: &'a [SmolStr],
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    review_id: Option<&'a str>,
}

fn denied(
    answer: &Answer,
    status: StatusCode,
    needs: &[StepUpNeed],
    challenge: Option<&str>,
) -> HttpResponse {
    let mut headers = vec![
        overwrite("content-type", "application/json".to_owned()),
        overwrite("cache-control", "no-store".to_owned()),
        overwrite(DECISION_ID_HEADER, header_text(&answer.decision_id, "")),
    ];
    headers.extend(challenge.map(|challenge| overwrite("www-authenticate", challenge.to_owned())));
    HttpResponse::DeniedResponse(DeniedHttpResponse {
        status: Some(HttpStatus { code: status.into() }),
        headers,
        body: body(answer, needs),
    })
}

fn body(answer: &Answer, needs: &[StepUpNeed]) -> String {
    let body = Body {
        decision: answer.decision.word(),
        decision_id: &answer.decision_id,
        reason: &answer.reason,
        message: shortened(&answer.message),
        requirements: needs.iter().map(body_need).collect(),
    };
    // Only texts, numbers and lists: serialising them cannot fail. If it did, the status alone still denies.
    serde_json::to_string(&body).unwrap_or_default()
}

fn body_need(need: &StepUpNeed) -> BodyNeed<'_> {
    let (acr_values, max_age_s): (&[SmolStr], _) = match &need.kind {
        StepUpKind::Authentication { acr_values, max_age_s } => (acr_values, *max_age_s),
        StepUpKind::Approval | StepUpKind::Attestation => (&[], None),
    };
    let review_id = need.review_id.as_deref();
    BodyNeed { name: &need.name, kind: need.kind.word(), acr_values, max_age_s, review_id }
}

fn shortened(message: &str) -> &str {
    let cut = (0..=MESSAGE_BYTES_MAX).rev().find_map(|end| message.get(..end));
    if message.len() <= MESSAGE_BYTES_MAX { message } else { cut.unwrap_or_default() }
}

// ---- both ----

fn overwrite(name: &str, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value, ..Default::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..Default::default()
    }
}

/// Lands under `envoy.filters.http.ext_authz` for access logs and later filters.
fn metadata(answer: &Answer) -> Struct {
    let text = |text: &str| Some(Kind::StringValue(text.to_owned()));
    let review = match &answer.decision {
        AnswerDecision::StepUp(needs) => needs.iter().find_map(|need| need.review_id.as_deref()),
        AnswerDecision::Allow { .. } | AnswerDecision::Deny | AnswerDecision::DenyUnidentified => None,
    };
    let fields = [
        ("review_id", review.and_then(text)),
        ("decision_id", text(&answer.decision_id)),
        ("decision", text(answer.decision.word())),
        ("reason", text(&answer.reason)),
        ("risk", answer.risk.map(|risk| Kind::NumberValue(f64::from(risk)))),
        ("route", answer.route.as_deref().and_then(text)),
    ];
    let known = fields.into_iter().filter(|(_, kind)| kind.is_some());
    Struct { fields: known.map(|(name, kind)| (name.to_owned(), Value { kind })).collect() }
}

#[cfg(test)]
mod tests;
