//! What the bundle says about who is calling: the sources of identity and their order.
//!
//! Plain data; a door reads the request by it. The first source that the request carries decides. A source that
//! is carried but invalid ends the search without an identity, so that a caller cannot fall back to a weaker one.

use smol_str::SmolStr;

/// The `[identity]` table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdentityConfig {
    /// In the order in which they are asked.
    pub sources: Vec<IdentitySource>,
}

impl IdentityConfig {
    /// The entity types that callers can have.
    pub fn entity_types(&self) -> impl Iterator<Item = &SmolStr> {
        self.sources.iter().flat_map(|source| {
            let (own, behind) = match source {
                IdentitySource::Jwt(jwt) => (&jwt.entity_type, jwt.delegation_type.as_ref()),
                IdentitySource::Xfcc(of) | IdentitySource::Mtls(of) => (&of.entity_type, None),
            };
            std::iter::once(own).chain(behind)
        })
    }
}

/// One place to learn who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// Claims that the proxy verified (`[identity.jwt]`).
    Jwt(JwtIdentity),
    /// The `x-forwarded-client-cert` header (`[identity.xfcc]`).
    Xfcc(CertIdentity),
    /// The client certificate of the connection to the proxy (`[identity.mtls]`).
    Mtls(CertIdentity),
}

/// How a certificate's URI becomes an entity: the whole URI is the id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertIdentity {
    /// Entity type.
    pub entity_type: SmolStr,
    /// SPIFFE trust domains that are believed. Empty: any, and other URIs than SPIFFE IDs too.
    pub trust_domains: Vec<SmolStr>,
}

/// How the claims of a verified token become an entity, a session and a delegation chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtIdentity {
    /// Key under the `envoy.filters.http.jwt_authn` metadata that holds the claims (`payload_in_metadata`).
    pub payload: SmolStr,
    /// Entity type of the caller: of `claim` without an `act` claim, of every actor with one.
    pub entity_type: SmolStr,
    /// Claim that names the token's subject.
    pub claim: SmolStr,
    /// Claim that names the session.
    pub session_claim: Option<SmolStr>,
    /// Entity type of the subject when an `act` claim says that another acts for it. `None`: such a token is
    /// refused, because the bundle does not say what its subject is.
    pub delegation_type: Option<SmolStr>,
    /// `iss` values that are believed. Empty: any that the proxy let through.
    pub issuers: Vec<SmolStr>,
}
