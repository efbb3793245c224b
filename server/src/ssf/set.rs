//! Security event tokens (RFC 8417, as SSF 1.0 profiles them): from the bytes of a compact JWS to what may be believed.
//!
//! [`Unverified::read`] looks at the form and the header alone, so that the key can be looked up; [`Unverified::verify`]
//! is the one way to a [`Set`]. Order: size, form, type, algorithm, issuer, key, signature, audience, forbidden claims,
//! times, subject, event. Written on `ring` and not on a library for JOSE: what is needed is one form of one kind of
//! token, and every branch that is not there cannot be chosen by a token.
//! Limits: [`SET_BYTES_MAX`], [`NAME_BYTES_MAX`] for the names in it, [`SKEW_MAX_MS`].
//! Never does: reading a clock, fetching a key, following a header that brings its own key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::event::{Event, EventFault, seconds};
use super::json;
use super::jwk::{Algorithm, Key, KeySet};
use super::subject::Subject;

/// Largest token, in bytes. One event with a complex subject and reasons in some languages has 2 to 4 KiB.
pub const SET_BYTES_MAX: usize = 64 * 1024;
/// Longest `jti`, `txn` and `kid`, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// How far a time may lie ahead of ours, in milliseconds, as for every time that a caller sends.
pub const SKEW_MAX_MS: i64 = 60_000;
/// The type that a token must bear.
pub const TYPE: &str = "secevent+jwt";

/// What a refusal is called towards the transmitter (RFC 8935, and SSF for the last).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorCode {
    /// Cannot be read, or an event is not as it is defined.
    InvalidRequest,
    /// A key that is not known or not acceptable.
    InvalidKey,
    /// Not the issuer of this stream.
    InvalidIssuer,
    /// Not for us.
    InvalidAudience,
    /// Nobody can tell who sent it.
    AuthenticationFailed,
    /// The sender may not send this.
    AccessDenied,
    /// A verification with another state than was asked for.
    InvalidState,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 7] = [
        Self::InvalidRequest,
        Self::InvalidKey,
        Self::InvalidIssuer,
        Self::InvalidAudience,
        Self::AuthenticationFailed,
        Self::AccessDenied,
        Self::InvalidState,
    ];

    /// As it stands in an answer.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidKey => "invalid_key",
            Self::InvalidIssuer => "invalid_issuer",
            Self::InvalidAudience => "invalid_audience",
            Self::AuthenticationFailed => "authentication_failed",
            Self::AccessDenied => "access_denied",
            Self::InvalidState => "invalid_state",
        }
    }
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// What it is called towards the transmitter.
    pub code: ErrorCode,
    /// In words.
    pub why: String,
}

impl Refusal {
    /// A refusal in words.
    pub fn new(code: ErrorCode, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }
}

/// Whom a token must come from and be for.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'e> {
    /// The issuer, to the letter.
    pub issuer: &'e str,
    /// Names of ours; one of them must be among the audience.
    pub audience: &'e [SmolStr],
    /// Tokens that were issued before this are too old to be told from repeated ones, Unix milliseconds.
    pub oldest_iat_ms: i64,
}

/// A token of which only the form and the header were looked at.
#[derive(Debug)]
pub struct Unverified<'t> {
    algorithm: Algorithm,
    kid: Option<SmolStr>,
    /// Header and payload as they were signed.
    signed: &'t str,
    payload: &'t str,
    signature: Vec<u8>,
}

/// A token whose signature, issuer and audience hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Who issued it.
    pub issuer: SmolStr,
    /// Names it; unique for its issuer.
    pub jti: SmolStr,
    /// When it was issued, Unix milliseconds.
    pub iat_ms: i64,
    /// When what it tells of happened: as the event says, or the token, or when it was issued. Unix milliseconds.
    pub event_ms: i64,
    /// Joins tokens that have one cause.
    pub txn: Option<SmolStr>,
    /// Whom it speaks of.
    pub subject: Subject,
    /// What it tells.
    pub told: Told,
}

/// What a token tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// An event that is understood.
    Event(Event),
    /// The URI of one that is not.
    Unknown(SmolStr),
}

impl<'t> Unverified<'t> {
    /// Takes a token apart and looks at its header.
    ///
    /// # Errors
    /// When it is too large, no compact JWS, or of another type or algorithm.
    pub fn read(token: &'t [u8]) -> Result<Self, Refusal> {
        if token.len() > SET_BYTES_MAX {
            return Err(invalid(format!("the token is larger than {SET_BYTES_MAX} bytes")));
        }
        let no_jws =
            || invalid("this is no signed token in compact form: three parts of base64url, joined by dots");
        let text = std::str::from_utf8(token).map_err(|_| no_jws())?;
        let (signed, signature) = text.rsplit_once('.').ok_or_else(no_jws)?;
        let (header, payload) =
            signed.split_once('.').filter(|(_, rest)| !rest.contains('.')).ok_or_else(no_jws)?;
        let header = object(header, "header")?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| no_jws())?;
        let (algorithm, kid) = head(&header)?;
        Ok(Self { algorithm, kid, signed, payload, signature })
    }

    /// The name of the key that is said to have signed it.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The issuer that it claims, so that nobody need look up keys for a stranger.
    ///
    /// # Errors
    /// When it is not the one that is expected.
    pub fn check_issuer(&self, issuer: &str) -> Result<(), Refusal> {
        check_issuer(&object(self.payload, "payload")?, issuer).map(|_| ())
    }

    /// The key that signed it, if these hold it.
    #[must_use]
    pub fn key<'k>(&self, keys: &'k KeySet) -> Option<&'k Key> {
        keys.find(self.kid(), self.algorithm)
    }

    /// Verifies the whole token.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify(self, keys: &KeySet, expected: &Expected<'_>, now_ms: i64) -> Result<Set, Refusal> {
        let claims = object(self.payload, "payload")?;
        let issuer = check_issuer(&claims, expected.issuer)?;
        let key = self.key(keys).ok_or_else(|| {
            let kid = self
                .kid
                .as_deref()
                .map_or_else(|| "that it does not name".to_owned(), |kid| format!("`{kid}`"));
            refuse(ErrorCode::InvalidKey, format!("the issuer publishes no key {kid} for this algorithm"))
        })?;
        if !key.verifies(self.algorithm, self.signed.as_bytes(), &self.signature) {
            return Err(refuse(ErrorCode::AuthenticationFailed, "the signature does not hold"));
        }
        check_audience(&claims, expected.audience)?;
        for forbidden in ["sub", "exp"] {
            if claims.contains_key(forbidden) {
                let why = "a security event token must not have it; the subject is `sub_id`, and events do not expire";
                return Err(invalid(format!("the token has `{forbidden}`: {why}")));
            }
        }
        let iat_ms = issued(&claims, expected, now_ms)?;
        let jti = name(&claims, "jti")?.ok_or_else(|| invalid("the token has no `jti`"))?;
        let txn = name(&claims, "txn")?;
        let subject = subject(&claims)?;
        let (told, said_ms) = told(&claims, &subject)?;
        let toe_ms = time(&claims, "toe", now_ms)?;
        let event_ms = said_ms.or(toe_ms).unwrap_or(iat_ms);
        if event_ms > now_ms.saturating_add(SKEW_MAX_MS) {
            return Err(invalid("`event_timestamp` lies in the future"));
        }
        Ok(Set { issuer, jti, iat_ms, event_ms, txn, subject, told })
    }
}

fn head(header: &Map<String, Value>) -> Result<(Algorithm, Option<SmolStr>), Refusal> {
    let kind = header.get("typ").and_then(Value::as_str).unwrap_or_default();
    let kind = match kind.split_once('/') {
        Some((main, rest)) if main.eq_ignore_ascii_case("application") => rest,
        _ => kind,
    };
    if !kind.eq_ignore_ascii_case(TYPE) {
        return Err(invalid(format!("`typ` of the token is not `{TYPE}`")));
    }
    for critical in ["crit", "b64", "zip"] {
        if header.contains_key(critical) {
            return Err(invalid(format!(
                "the token has `{critical}` in its header, which is not understood here"
            )));
        }
    }
    let kid = match header.get("kid") {
        None => None,
        Some(kid) => {
            let kid = kid.as_str().filter(|kid| !kid.is_empty() && kid.len() <= NAME_BYTES_MAX);
            Some(kid.ok_or_else(|| refuse(ErrorCode::InvalidKey, "`kid` is no name of a key"))?.into())
        }
    };
    match header.get("alg").and_then(Value::as_str) {
        Some(alg) if alg.eq_ignore_ascii_case("none") => Err(refuse(
            ErrorCode::AuthenticationFailed,
            "the token is not signed; unsigned ones are never believed",
        )),
        alg => match alg.and_then(Algorithm::of_name) {
            Some(algorithm) => Ok((algorithm, kid)),
            None => {
                let why = format!("the algorithm of the token is none of {}", Algorithm::NAMES);
                Err(refuse(ErrorCode::InvalidKey, why))
            }
        },
    }
}

fn object(part: &str, what: &str) -> Result<Map<String, Value>, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| invalid(format!("the {what} is no base64url")))?;
    match json::parse(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(invalid(format!("the {what} is no JSON object"))),
        Err(error) => Err(invalid(format!("the {what} is no JSON object: {error}"))),
    }
}

fn check_issuer(claims: &Map<String, Value>, expected: &str) -> Result<SmolStr, Refusal> {
    match claims.get("iss").and_then(Value::as_str) {
        Some(issuer) if issuer == expected => Ok(issuer.into()),
        _ => Err(refuse(ErrorCode::InvalidIssuer, "`iss` is not the issuer of this stream")),
    }
}

fn check_audience(claims: &Map<String, Value>, ours: &[SmolStr]) -> Result<(), Refusal> {
    let is_ours = |value: &Value| value.as_str().is_some_and(|name| ours.iter().any(|our| our == name));
    let fits = match claims.get("aud") {
        Some(Value::Array(names)) => names.iter().all(Value::is_string) && names.iter().any(is_ours),
        Some(name) => is_ours(name),
        None => false,
    };
    fits.then_some(()).ok_or_else(|| refuse(ErrorCode::InvalidAudience, "the token is for somebody else"))
}

fn issued(claims: &Map<String, Value>, expected: &Expected<'_>, now_ms: i64) -> Result<i64, Refusal> {
    let iat_ms = time(claims, "iat", now_ms)?.ok_or_else(|| invalid("the token has no `iat`"))?;
    if iat_ms < expected.oldest_iat_ms {
        return Err(invalid(
            "the token was issued too long ago to be told from one that is sent again; issue it anew",
        ));
    }
    Ok(iat_ms)
}

/// A time in seconds, not in the future, as Unix milliseconds.
fn time(claims: &Map<String, Value>, member: &str, now_ms: i64) -> Result<Option<i64>, Refusal> {
    let Some(value) = claims.get(member) else { return Ok(None) };
    let ms = seconds(value).ok_or_else(|| invalid(format!("`{member}` is no time in seconds since 1970")))?;
    if ms > now_ms.saturating_add(SKEW_MAX_MS) {
        return Err(invalid(format!("`{member}` lies in the future; do the clocks agree?")));
    }
    Ok(Some(ms))
}

fn name(claims: &Map<String, Value>, member: &str) -> Result<Option<SmolStr>, Refusal> {
    let Some(value) = claims.get(member) else { return Ok(None) };
    let fits =
        |text: &&str| !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control);
    let text = value.as_str().filter(fits);
    let why = || invalid(format!("`{member}` is no text of 1 to {NAME_BYTES_MAX} bytes"));
    text.map(|text| Some(text.into())).ok_or_else(why)
}

fn subject(claims: &Map<String, Value>) -> Result<Subject, Refusal> {
    if let Some(value) = claims.get("sub_id") {
        return Subject::parse(value).map_err(|fault| invalid(format!("`sub_id`: {fault}")));
    }
    let events = claims.get("events").and_then(Value::as_object);
    let inner = events.and_then(|events| events.values().find_map(|event| event.get("subject")));
    Err(invalid(match inner {
        Some(subject) if subject.get("subject_type").is_some() => {
            "the event has a subject with `subject_type`, a form that is no longer understood; send `sub_id` with \
             `format`, as in RFC 9493"
        }
        Some(_) => "the subject stands in the event, as in drafts; send it as `sub_id` beside `events`",
        None => "the token has no `sub_id`",
    }))
}

/// The one event, with when it says that it happened.
fn told(claims: &Map<String, Value>, subject: &Subject) -> Result<(Told, Option<i64>), Refusal> {
    let events = claims.get("events").and_then(Value::as_object);
    let events = events.ok_or_else(|| invalid("the token has no object `events`"))?;
    let mut events = events.iter();
    let (Some((uri, value)), None) = (events.next(), events.next()) else {
        return Err(invalid("`events` must hold exactly one event; send one token for each"));
    };
    let event = match Event::parse(uri, value) {
        Ok(event) => event,
        Err(EventFault::Unknown(uri)) => return Ok((Told::Unknown(uri), None)),
        Err(fault) => return Err(invalid(fault.to_string())),
    };
    event.check_subject(subject).map_err(|fault| invalid(fault.to_string()))?;
    let said_ms = event.common.event_ms;
    Ok((Told::Event(event), said_ms))
}

fn refuse(code: ErrorCode, why: impl Into<String>) -> Refusal {
    Refusal::new(code, why)
}

fn invalid(why: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, why)
}

#[cfg(test)]
mod tests;
