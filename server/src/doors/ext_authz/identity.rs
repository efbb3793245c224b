//! Who is calling, read from a `CheckRequest` as the bundle's `[identity]` says.
//!
//! The first source that the request carries decides; if what it carries is invalid there is no identity, so that
//! nobody falls back to a weaker source by spoiling a stronger one. Limits: ids 1024 bytes, session ids 128 bytes,
//! 8 in a delegation chain, 128 scopes. Believes only what the proxy vouches for: the connection's certificate, the
//! claims that `jwt_authn` verified, and XFCC where this node is told to. Checks no signature and no time.

use std::collections::HashMap;

use cardea_policy_store::routes::{CertIdentity, IdentityConfig, IdentitySource, JwtIdentity};
use envoy_types::pb::{
    envoy::service::auth::v3::AttributeContext,
    google::protobuf::{Struct, Value, value::Kind},
};
use smol_str::SmolStr;

use super::{
    EntityName, ExtAuthzConfig,
    headers::{Commas, HeaderError, Headers},
    spiffe::{SpiffeError, SpiffeId},
    xfcc::{XfccError, last_element},
};

/// Longest entity id, in bytes; as long as an attempt may carry.
pub const ENTITY_ID_BYTES_MAX: usize = 1024;
/// Most entries of a delegation, without the caller itself; as many as an attempt may carry.
pub const DELEGATION_MAX: usize = 7;
const SESSION_ID_BYTES_MAX: usize = 128;
const CLAIM_BYTES_MAX: usize = 2048;
const LIST_MAX: usize = 128;
/// Largest whole number that a double holds exactly.
const SAFE_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;
const JWT_NAMESPACE: &str = "envoy.filters.http.jwt_authn";
const XFCC_HEADER: &str = "x-forwarded-client-cert";

/// Who is calling, and what came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The caller: the immediate actor.
    pub principal: EntityName,
    /// Those for whom it acts, root first. Empty: it acts for itself.
    pub delegation: Vec<EntityName>,
    /// Its session.
    pub session_id: Option<SmolStr>,
    /// Claims of its token.
    pub token: Option<TokenClaims>,
}

/// Claims of a token that the proxy verified. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenClaims {
    /// `iss`.
    pub issuer: Option<SmolStr>,
    /// `iat`.
    pub issued_at_s: Option<i64>,
    /// `exp`.
    pub expires_at_s: Option<i64>,
    /// `auth_time`: when the person last logged in.
    pub auth_time_s: Option<i64>,
    /// `acr`: how.
    pub acr: Option<SmolStr>,
    /// `amr`: by which methods.
    pub amr: Vec<SmolStr>,
    /// `scope` (or `scp`), split at spaces.
    pub scopes: Vec<SmolStr>,
}

/// Why there is no identity. The caller's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The request carries none of the sources.
    #[error("no source of identity in the request")]
    Absent,
    /// It carries one, but not a valid one.
    #[error("identity from `{from}` is invalid: {fault}")]
    Invalid {
        /// `mtls`, `xfcc` or `jwt`.
        from: &'static str,
        /// What is wrong.
        fault: IdentityFault,
    },
}

/// What is wrong with a source that is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityFault {
    /// A `spiffe:` URI that is not a SPIFFE ID.
    #[error("not a SPIFFE ID: {0}")]
    Spiffe(#[from] SpiffeError),
    /// Not a URI: a DNS name or a subject, which name no workload reliably.
    #[error("not a URI")]
    NotUri,
    /// No URI at all.
    #[error("no URI")]
    NoUri,
    /// More than one URI: which one is meant?
    #[error("more than one URI")]
    SeveralUris,
    /// A trust domain that the bundle does not list.
    #[error("trust domain is not among those of the bundle")]
    TrustDomain,
    /// This node does not believe the header.
    #[error("header is not believed by this node (`trust_xfcc`)")]
    NotTrusted,
    /// Malformed XFCC.
    #[error("malformed header: {0}")]
    Xfcc(#[from] XfccError),
    /// Unreadable header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A claim that must be there.
    #[error("claim `{0}` is missing")]
    MissingClaim(String),
    /// A claim of the wrong type, size or content.
    #[error("claim `{0}` is malformed")]
    MalformedClaim(String),
    /// An issuer that the bundle does not list, or an actor of another issuer.
    #[error("issuer is not among those of the bundle")]
    Issuer,
    /// An `act` claim, but the bundle does not say what the subject then is.
    #[error("token is delegated, and the bundle has no `delegation_type`")]
    DelegationNotConfigured,
    /// More actors than [`DELEGATION_MAX`].
    #[error("delegation chain is longer than {DELEGATION_MAX}")]
    DelegationTooLong,
}

/// Finds out who is calling.
///
/// # Errors
/// If no source is there, or the first that is there is invalid.
pub fn identify(
    attributes: &AttributeContext,
    headers: &Headers<'_>,
    config: &IdentityConfig,
    node: &ExtAuthzConfig,
) -> Result<Identity, IdentityError> {
    for source in &config.sources {
        let (from, answer) = match source {
            IdentitySource::Jwt(jwt) => ("jwt", from_jwt(attributes, jwt)),
            IdentitySource::Xfcc(cert) => ("xfcc", from_xfcc(headers, cert, node)),
            IdentitySource::Mtls(cert) => ("mtls", from_mtls(attributes, cert)),
        };
        match answer {
            Ok(None) => {}
            Ok(Some(identity)) => return Ok(identity),
            Err(fault) => return Err(IdentityError::Invalid { from, fault }),
        }
    }
    Err(IdentityError::Absent)
}

// ---- certificates ----

fn from_mtls(attributes: &AttributeContext, cert: &CertIdentity) -> Result<Option<Identity>, IdentityFault> {
    let principal = attributes.source.as_ref().map(|peer| peer.principal.as_str());
    match principal {
        None | Some("") => Ok(None),
        Some(uri) => from_uri(uri, cert).map(Some),
    }
}

fn from_xfcc(
    headers: &Headers<'_>,
    cert: &CertIdentity,
    node: &ExtAuthzConfig,
) -> Result<Option<Identity>, IdentityFault> {
    let Some(header) = headers.get_with(XFCC_HEADER, Commas::Allow)? else { return Ok(None) };
    if !node.trust_xfcc {
        return Err(IdentityFault::NotTrusted);
    }
    let element = last_element(header)?;
    match element.uris.as_slice() {
        [] => Err(IdentityFault::NoUri),
        [uri] => from_uri(uri, cert).map(Some),
        _ => Err(IdentityFault::SeveralUris),
    }
}

fn from_uri(uri: &str, cert: &CertIdentity) -> Result<Identity, IdentityFault> {
    let scheme = uri.split_once(':').map(|(scheme, _)| scheme).ok_or(IdentityFault::NotUri)?;
    if scheme.eq_ignore_ascii_case("spiffe") {
        let spiffe = SpiffeId::parse(uri)?;
        if !cert.trust_domains.is_empty()
            && !cert.trust_domains.iter().any(|name| name == spiffe.trust_domain())
        {
            return Err(IdentityFault::TrustDomain);
        }
    } else if !cert.trust_domains.is_empty() {
        return Err(IdentityFault::TrustDomain);
    } else if !is_plain_uri(uri, scheme) {
        return Err(IdentityFault::NotUri);
    }
    if uri.len() > ENTITY_ID_BYTES_MAX {
        return Err(SpiffeError::TooLong.into());
    }
    let principal = EntityName { entity_type: cert.entity_type.clone(), id: SmolStr::new(uri) };
    Ok(Identity { principal, delegation: Vec::new(), session_id: None, token: None })
}

/// An absolute URI in visible ASCII. Envoy falls back to DNS names (`a.b`) and subjects (`CN=…`): neither fits.
fn is_plain_uri(uri: &str, scheme: &str) -> bool {
    let begins = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
    let letters = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let visible = uri.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\<>^`{|}".contains(&byte));
    begins && letters && visible && uri.len() > scheme.len() + 1
}

// ---- tokens ----

fn from_jwt(attributes: &AttributeContext, jwt: &JwtIdentity) -> Result<Option<Identity>, IdentityFault> {
    let metadata = attributes.metadata_context.as_ref();
    let Some(payload) = metadata
        .and_then(|metadata| metadata.filter_metadata.get(JWT_NAMESPACE))
        .and_then(|namespace| namespace.fields.get(jwt.payload.as_str()))
    else {
        return Ok(None);
    };
    let Some(Kind::StructValue(Struct { fields })) = &payload.kind else {
        return Err(IdentityFault::MalformedClaim(jwt.payload.to_string()));
    };
    let claims = Claims { fields };
    let token = claims.token()?;
    if !jwt.issuers.is_empty() && !token.issuer.as_ref().is_some_and(|issuer| jwt.issuers.contains(issuer)) {
        return Err(IdentityFault::Issuer);
    }
    let (principal, delegation) = claims.chain(jwt, token.issuer.as_deref())?;
    let session_id = match &jwt.session_claim {
        Some(name) => claims.text(name, SESSION_ID_BYTES_MAX)?,
        None => None,
    };
    Ok(Some(Identity { principal, delegation, session_id, token: Some(token) }))
}

struct Claims<'r> {
    fields: &'r HashMap<String, Value>,
}

impl<'r> Claims<'r> {
    /// A claim that is there. One with a null is malformed, not absent.
    fn get(&self, name: &str) -> Option<Option<&'r Kind>> {
        self.fields.get(name).map(|value| value.kind.as_ref())
    }

    fn text(&self, name: &str, bytes_max: usize) -> Result<Option<SmolStr>, IdentityFault> {
        let malformed = || IdentityFault::MalformedClaim(name.to_owned());
        match self.get(name) {
            None => Ok(None),
            Some(Some(Kind::StringValue(text))) => {
                plain_text(text, bytes_max).map(Some).ok_or_else(malformed)
            }
            Some(_) => Err(malformed()),
        }
    }

    fn required_text(&self, name: &str) -> Result<SmolStr, IdentityFault> {
        let text = self.text(name, ENTITY_ID_BYTES_MAX)?;
        text.ok_or_else(|| IdentityFault::MissingClaim(name.to_owned()))
    }

    /// Whole seconds. Envoy hands every number over as a double.
    fn seconds(&self, name: &str) -> Result<Option<i64>, IdentityFault> {
        match self.get(name) {
            None => Ok(None),
            Some(Some(Kind::NumberValue(number)))
                if number.fract() == 0.0 && (0.0..=SAFE_INTEGER_MAX).contains(number) =>
            {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "whole and within 2^53, checked just above"
                )]
                let seconds = *number as i64;
                Ok(Some(seconds))
            }
            Some(_) => Err(IdentityFault::MalformedClaim(name.to_owned())),
        }
    }

    /// A text split at spaces, or a list of texts.
    fn words(&self, name: &str) -> Result<Vec<SmolStr>, IdentityFault> {
        let words: Option<Vec<SmolStr>> = match self.get(name) {
            None => Some(Vec::new()),
            Some(Some(Kind::StringValue(text))) => text
                .split(' ')
                .filter(|word| !word.is_empty())
                .map(|word| plain_text(word, CLAIM_BYTES_MAX))
                .collect(),
            Some(Some(Kind::ListValue(list))) => list
                .values
                .iter()
                .map(|value| match &value.kind {
                    Some(Kind::StringValue(word)) => plain_text(word, CLAIM_BYTES_MAX),
                    _ => None,
                })
                .collect(),
            Some(_) => None,
        };
        let malformed = || IdentityFault::MalformedClaim(name.to_owned());
        words.filter(|words| words.len() <= LIST_MAX).ok_or_else(malformed)
    }

    fn token(&self) -> Result<TokenClaims, IdentityFault> {
        let scopes = if self.get("scope").is_some() { self.words("scope")? } else { self.words("scp")? };
        Ok(TokenClaims {
            issuer: self.text("iss", CLAIM_BYTES_MAX)?,
            issued_at_s: self.seconds("iat")?,
            expires_at_s: self.seconds("exp")?,
            auth_time_s: self.seconds("auth_time")?,
            acr: self.text("acr", CLAIM_BYTES_MAX)?,
            amr: self.words("amr")?,
            scopes,
        })
    }

    /// The caller and those for whom it acts (RFC 8693): the subject is the root, the outermost `act` is the caller,
    /// deeper ones are earlier actors, the deepest next to the root. Every one of them becomes a hop that must be
    /// permitted.
    fn chain(
        &self,
        jwt: &JwtIdentity,
        issuer: Option<&str>,
    ) -> Result<(EntityName, Vec<EntityName>), IdentityFault> {
        let entity = |entity_type: &SmolStr, id| EntityName { entity_type: entity_type.clone(), id };
        let subject = self.required_text(&jwt.claim)?;
        let mut actors: Vec<EntityName> = Vec::new();
        let mut act = self.get("act");
        while let Some(kind) = act {
            let Some(Kind::StructValue(Struct { fields })) = kind else {
                return Err(IdentityFault::MalformedClaim("act".to_owned()));
            };
            if actors.len() == DELEGATION_MAX {
                return Err(IdentityFault::DelegationTooLong);
            }
            let actor = Claims { fields };
            // An actor of another issuer is named in that issuer's words: the same text may be somebody else here.
            let foreign = actor.text("iss", CLAIM_BYTES_MAX)?.is_some_and(|own| Some(own.as_str()) != issuer);
            if foreign {
                return Err(IdentityFault::Issuer);
            }
            actors.push(entity(&jwt.entity_type, actor.required_text("sub")?));
            act = actor.get("act");
        }
        let mut actors = actors.into_iter();
        let Some(principal) = actors.next() else {
            return Ok((entity(&jwt.entity_type, subject), Vec::new()));
        };
        let root_type = jwt.delegation_type.as_ref().ok_or(IdentityFault::DelegationNotConfigured)?;
        let delegation = std::iter::once(entity(root_type, subject)).chain(actors.rev()).collect();
        Ok((principal, delegation))
    }
}

fn plain_text(text: &str, bytes_max: usize) -> Option<SmolStr> {
    let plain = (1..=bytes_max).contains(&text.len()) && !text.contains(char::is_control);
    plain.then(|| SmolStr::new(text))
}

#[cfg(test)]
mod tests;
