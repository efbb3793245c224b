//! A `CheckRequest` in, the parts of an attempt out.
//!
//! Owns the order of the questions: is it HTTP within the limits, who is calling, which route, what does the route
//! read. Identity comes before the route, so that somebody unknown cannot learn which routes exist. Pure; allocates
//! only what it returns. Never yields [`Mapped`] without an identity and a route.

use std::borrow::Cow;

use cardea_policy_store::routes::{
    ConvertError, MatchError, QueryError, RawValue, RouteMatch, RouteTable, TargetError, ValueSource, convert,
};
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, attribute_context::HttpRequest};
use smol_str::SmolStr;

use super::{
    EntityName, ExtAuthzConfig, TokenClaims,
    headers::{HeaderError, Headers},
    identity::{ENTITY_ID_BYTES_MAX, IdentityError, identify},
};

/// Longest request id that is carried on, in bytes; as long as an attempt's own id may be.
const REQUEST_ID_BYTES_MAX: usize = 128;
const METHOD_BYTES_MAX: usize = 64;
const HOST_BYTES_MAX: usize = 512;

/// The parts of an attempt, each within the limits of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// Who acts: the immediate actor.
    pub principal: EntityName,
    /// What it does.
    pub action: EntityName,
    /// What it does it to.
    pub resource: EntityName,
    /// What the route reads of the request, typed by the bundle's schema. A field whose source the request does not
    /// carry is absent.
    pub context: Vec<(SmolStr, RawValue)>,
    /// The caller's session.
    pub session_id: Option<SmolStr>,
    /// Claims of the caller's token.
    pub token: Option<TokenClaims>,
    /// Those for whom the caller acts, root first.
    pub delegation: Vec<EntityName>,
    /// The proxy's own id of the request; not to be trusted for more than correlation.
    pub request_id: Option<SmolStr>,
    /// Path pattern of the route: a low-cardinality name.
    pub route: SmolStr,
    /// Position of the route in the table.
    pub route_index: usize,
}

/// A request that is no attempt; the answer to it is deny.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// Why.
    pub reason: RefusedReason,
    /// Who asked, if that much is known.
    pub principal: Option<EntityName>,
    /// The proxy's own id of the request.
    pub request_id: Option<SmolStr>,
}

/// Why a request is no attempt. `Display` is for logs and records, [`RefusedReason::message`] for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedReason {
    /// No HTTP request inside: a network filter asks, or nothing at all.
    #[error("check request carries no http request")]
    NotHttp,
    /// Method or host beyond a limit.
    #[error("method or host is too long")]
    TooLong,
    /// Headers beyond a limit.
    #[error(transparent)]
    Headers(HeaderError),
    /// Nobody, or nobody who can be believed.
    #[error(transparent)]
    Identity(IdentityError),
    /// The path is not in normal form.
    #[error(transparent)]
    Target(TargetError),
    /// No route matches.
    #[error("no route matches")]
    NoRoute,
    /// The resource's id would be longer than an id may be.
    #[error("resource id is longer than {ENTITY_ID_BYTES_MAX} bytes")]
    ResourceIdTooLong,
    /// A value that the route reads cannot be read.
    #[error("context field `{field}`: {why}")]
    Context {
        /// Name of the field.
        field: SmolStr,
        /// What is wrong.
        why: ContextError,
    },
}

/// Why a context value cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// Its query parameter.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Its header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Its type.
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

impl RefusedReason {
    /// Stable word for metrics, records and the caller.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Identity(_) => "no_identity",
            Self::NoRoute => "no_route",
            Self::NotHttp
            | Self::TooLong
            | Self::Headers(_)
            | Self::Target(_)
            | Self::ResourceIdTooLong
            | Self::Context { .. } => "malformed",
        }
    }

    /// Fixed sentence for the caller: tells no configuration and repeats no input.
    #[must_use]
    pub fn message(&self) -> &'static str {
        match self {
            Self::Identity(IdentityError::Absent) => "the request does not say who is calling",
            Self::Identity(IdentityError::Invalid { .. }) => "the identity in the request is not valid",
            Self::NoRoute => "no route allows this request",
            Self::Target(_) => "the path is not in normal form",
            Self::NotHttp
            | Self::TooLong
            | Self::Headers(_)
            | Self::ResourceIdTooLong
            | Self::Context { .. } => "the request is malformed",
        }
    }

    /// True if the request carries no identity at all: a challenge to log in is then the right answer.
    #[must_use]
    pub fn is_unidentified(&self) -> bool {
        matches!(self, Self::Identity(IdentityError::Absent))
    }
}

impl From<MatchError> for RefusedReason {
    fn from(error: MatchError) -> Self {
        match error {
            MatchError::Target(error) => Self::Target(error),
            MatchError::NoRoute => Self::NoRoute,
        }
    }
}

/// Reads a request as the table says.
///
/// # Errors
/// If the request is no attempt. Boxed because it is the rare case and the larger value.
pub fn map(
    request: &CheckRequest,
    table: &RouteTable,
    config: &ExtAuthzConfig,
) -> Result<Mapped, Box<Refused>> {
    let attributes = request.attributes.as_ref();
    let http = attributes.and_then(|attributes| attributes.request.as_ref()?.http.as_ref());
    let (Some(attributes), Some(http)) = (attributes, http) else {
        return Err(Box::new(Refused { reason: RefusedReason::NotHttp, principal: None, request_id: None }));
    };
    let request_id = request_id(http);
    let refuse = |reason: RefusedReason, principal: Option<EntityName>| {
        Box::new(Refused { reason, principal, request_id: request_id.clone() })
    };

    let headers = Headers::new(http, config).map_err(|error| refuse(RefusedReason::Headers(error), None))?;
    let identity = identify(attributes, &headers, table.identity(), config)
        .map_err(|error| refuse(RefusedReason::Identity(error), None))?;
    let parts =
        parts(http, &headers, table).map_err(|reason| refuse(reason, Some(identity.principal.clone())))?;
    Ok(Mapped {
        principal: identity.principal,
        action: parts.action,
        resource: parts.resource,
        context: parts.context,
        session_id: identity.session_id,
        token: identity.token,
        delegation: identity.delegation,
        request_id,
        route: parts.route,
        route_index: parts.route_index,
    })
}

/// What the route makes of a request.
struct Parts {
    action: EntityName,
    resource: EntityName,
    context: Vec<(SmolStr, RawValue)>,
    route: SmolStr,
    route_index: usize,
}

fn parts(http: &HttpRequest, headers: &Headers<'_>, table: &RouteTable) -> Result<Parts, RefusedReason> {
    if http.method.len() > METHOD_BYTES_MAX || http.host.len() > HOST_BYTES_MAX {
        return Err(RefusedReason::TooLong);
    }
    let found = table.find(&http.method, &http.host, &http.path)?;
    let route = found.route;
    let id = found.resource_id();
    if id.len() > ENTITY_ID_BYTES_MAX {
        return Err(RefusedReason::ResourceIdTooLong);
    }
    let mut context = Vec::with_capacity(route.context().len());
    for field in route.context() {
        let refuse = |why| RefusedReason::Context { field: field.name.clone(), why };
        if let Some(text) = text(&found, http, headers, &field.source).map_err(refuse)? {
            let value = convert(&text, field.field_type).map_err(|error| refuse(error.into()))?;
            context.push((field.name.clone(), value));
        }
    }
    let action = route.action();
    Ok(Parts {
        action: EntityName { entity_type: action.action_type.clone(), id: action.id.clone() },
        resource: EntityName { entity_type: route.resource_type().clone(), id },
        context,
        route: route.path().clone(),
        route_index: route.index(),
    })
}

fn text<'v, 'r>(
    found: &'v RouteMatch<'_, 'r>,
    http: &'r HttpRequest,
    headers: &Headers<'r>,
    source: &ValueSource,
) -> Result<Option<Cow<'v, str>>, ContextError> {
    Ok(match source {
        ValueSource::PathParam { index, .. } => {
            found.params().get(*index).map(|param| Cow::Borrowed(param.as_ref()))
        }
        ValueSource::Query(name) => found.query(name)?,
        ValueSource::Header(name) => headers.get(name)?.map(Cow::Borrowed),
        ValueSource::Method => Some(Cow::Borrowed(http.method.as_str())),
        ValueSource::Host => Some(Cow::Borrowed(found.host())),
        ValueSource::Path => Some(Cow::Borrowed(found.path())),
    })
}

/// Only for correlation: an odd one is dropped, never a reason to refuse.
fn request_id(http: &HttpRequest) -> Option<SmolStr> {
    let id = http.id.as_str();
    let plain =
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then(|| SmolStr::new(id))
}

#[cfg(test)]
mod tests;
