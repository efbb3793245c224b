//! The door for Envoy's external authorization, `envoy.service.auth.v3.Authorization/Check`, over gRPC.
//!
//! Owns the translation of a `CheckRequest` into the parts of an attempt ([`map()`]) and of an answer into a
//! `CheckResponse` ([`check_response`]). Both are pure: values in, values out, no clock, no I/O. Limits stand beside
//! each part. Never lets a request through that has no identity or no route, never believes a header that the proxy
//! does not vouch for, never normalises what two readers could understand differently, never reads the body.

mod answer;
mod challenge;
mod headers;
mod identity;
mod map;
mod service;
mod spiffe;
mod xfcc;

#[cfg(test)]
mod testing;

use std::fmt;

use smol_str::SmolStr;

pub use self::{
    answer::{Answer, AnswerDecision, check_response},
    challenge::{StepUpKind, StepUpNeed},
    headers::{HeaderError, Headers},
    identity::{
        DELEGATION_MAX, ENTITY_ID_BYTES_MAX, Identity, IdentityError, IdentityFault, TokenClaims, identify,
    },
    map::{ContextError, Mapped, Refused, RefusedReason, map},
    service::ExtAuthzDoor,
    spiffe::{SPIFFE_ID_BYTES_MAX, SpiffeError, SpiffeId},
    xfcc::{XFCC_BYTES_MAX, XfccElement, XfccError, last_element},
};

/// What this node, not the bundle, says about the proxy in front of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtAuthzConfig {
    /// Believe `x-forwarded-client-cert`. Only safe when every proxy that can reach this door sets the header itself
    /// (`forward_client_cert_details: SANITIZE_SET`): otherwise any client may write it.
    pub trust_xfcc: bool,
    /// Most headers in one request.
    pub headers_max: usize,
    /// Most bytes of header names and values in one request.
    pub header_bytes_max: usize,
}

impl Default for ExtAuthzConfig {
    /// Envoy itself stops at 100 headers and 60 KiB unless told otherwise; these leave room for larger settings.
    fn default() -> Self {
        Self { trust_xfcc: false, headers_max: 256, header_bytes_max: 128 * 1024 }
    }
}

/// An entity by type and id, as Cedar writes it: `Acme::Agent::"7"`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityName {
    /// Type with its namespaces.
    pub entity_type: SmolStr,
    /// Id.
    pub id: SmolStr,
}

impl fmt::Display for EntityName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}::\"{}\"", self.entity_type, self.id.escape_debug())
    }
}
