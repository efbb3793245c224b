//! Events from JSON and to JSON: one place for both directions.

use serde_json::{Map, Number, Value};
use smol_str::SmolStr;

use super::{
    Common, Compliance, CredentialChange, Direction, Event, EventFault, EventType, Initiator, LANGUAGES_MAX,
    METHODS_MAX, Reasons, RiskLevel, StreamStatus, TEXT_BYTES_MAX, What,
};

/// The last second of the year 9999: who sends more means milliseconds.
const SECONDS_MAX: f64 = 253_402_300_799.0;

pub(super) fn event(kind: EventType, value: &Value) -> Result<Event, EventFault> {
    let object = value.as_object().ok_or_else(|| EventFault::NotAnObject(kind.name()))?;
    let members = Members { event: kind.name(), object };
    let what = what(kind, &members)?;
    let common = match kind.is_of_stream() {
        true => Common::default(),
        false => members.common()?,
    };
    Ok(Event { what, common })
}

fn what(kind: EventType, members: &Members<'_>) -> Result<What, EventFault> {
    Ok(match kind {
        EventType::SessionRevoked => What::SessionRevoked,
        EventType::TokenClaimsChange => What::TokenClaimsChange { claims: members.object("claims")?.clone() },
        EventType::CredentialChange => What::CredentialChange {
            credential_type: members.text("credential_type")?,
            change_type: members.word("change_type", CredentialChange::of_word)?,
            friendly_name: members.optional_text("friendly_name")?,
            x509_issuer: members.optional_text("x509_issuer")?,
            x509_serial: members.optional_text("x509_serial")?,
            fido2_aaguid: members.optional_text("fido2_aaguid")?,
        },
        EventType::AssuranceLevelChange => What::AssuranceLevelChange {
            namespace: members.text("namespace")?,
            current_level: members.text("current_level")?,
            previous_level: members.optional_text("previous_level")?,
            change_direction: members.optional_word("change_direction", Direction::of_word)?,
        },
        EventType::DeviceComplianceChange => What::DeviceComplianceChange {
            previous_status: members.word("previous_status", Compliance::of_word)?,
            current_status: members.word("current_status", Compliance::of_word)?,
        },
        EventType::SessionEstablished => What::SessionEstablished {
            fp_ua: members.optional_text("fp_ua")?,
            acr: members.optional_text("acr")?,
            amr: members.texts("amr")?,
            ext_id: members.optional_text("ext_id")?,
        },
        EventType::SessionPresented => What::SessionPresented {
            fp_ua: members.optional_text("fp_ua")?,
            ext_id: members.optional_text("ext_id")?,
        },
        EventType::RiskLevelChange => What::RiskLevelChange {
            principal: members.text("principal")?,
            current_level: members.word("current_level", RiskLevel::of_word)?,
            previous_level: members.optional_word("previous_level", RiskLevel::of_word)?,
            risk_reason: members.optional_text("risk_reason")?,
        },
        EventType::AccountDisabled => What::AccountDisabled { reason: members.optional_text("reason")? },
        EventType::IdentifierChanged => {
            What::IdentifierChanged { new_value: members.optional_text("new-value")? }
        }
        EventType::CredentialCompromise => {
            What::CredentialCompromise { credential_type: members.text("credential_type")? }
        }
        EventType::Verification => What::Verification { state: members.optional_text("state")? },
        EventType::StreamUpdated => What::StreamUpdated {
            status: members.word("status", StreamStatus::of_word)?,
            reason: members.optional_text("reason")?,
        },
        EventType::AccountCredentialChangeRequired => What::AccountCredentialChangeRequired,
        EventType::AccountPurged => What::AccountPurged,
        EventType::AccountEnabled => What::AccountEnabled,
        EventType::IdentifierRecycled => What::IdentifierRecycled,
        EventType::OptIn => What::OptIn,
        EventType::OptOutInitiated => What::OptOutInitiated,
        EventType::OptOutCancelled => What::OptOutCancelled,
        EventType::OptOutEffective => What::OptOutEffective,
        EventType::RecoveryActivated => What::RecoveryActivated,
        EventType::RecoveryInformationChanged => What::RecoveryInformationChanged,
        EventType::SessionsRevoked => What::SessionsRevoked,
    })
}

/// The members of one event, with its name for errors.
struct Members<'v> {
    event: &'static str,
    object: &'v Map<String, Value>,
}

impl Members<'_> {
    fn common(&self) -> Result<Common, EventFault> {
        Ok(Common {
            event_ms: self.seconds("event_timestamp")?,
            initiating_entity: self.optional_word("initiating_entity", Initiator::of_word)?,
            reason_admin: self.reasons("reason_admin")?,
            reason_user: self.reasons("reason_user")?,
        })
    }

    fn text(&self, member: &'static str) -> Result<SmolStr, EventFault> {
        self.optional_text(member)?.ok_or(EventFault::Missing { event: self.event, member })
    }

    fn optional_text(&self, member: &'static str) -> Result<Option<SmolStr>, EventFault> {
        let Some(value) = self.object.get(member) else { return Ok(None) };
        text(value).map(Some).map_err(|why| self.fault(member, why))
    }

    fn texts(&self, member: &'static str) -> Result<Vec<SmolStr>, EventFault> {
        let Some(value) = self.object.get(member) else { return Ok(Vec::new()) };
        let list = value.as_array().filter(|list| list.len() <= METHODS_MAX);
        let list = list.ok_or_else(|| self.fault(member, "is no list, or has more than 16 entries"))?;
        let read: Result<Vec<_>, _> = list.iter().map(text).collect();
        read.map_err(|why| self.fault(member, why))
    }

    fn word<T>(&self, member: &'static str, of: fn(&str) -> Option<T>) -> Result<T, EventFault> {
        self.optional_word(member, of)?.ok_or(EventFault::Missing { event: self.event, member })
    }

    fn optional_word<T>(
        &self,
        member: &'static str,
        of: fn(&str) -> Option<T>,
    ) -> Result<Option<T>, EventFault> {
        let Some(value) = self.object.get(member) else { return Ok(None) };
        let word = value.as_str().and_then(of);
        word.map(Some).ok_or_else(|| self.fault(member, "is none of the words that are defined for it"))
    }

    fn object(&self, member: &'static str) -> Result<&Map<String, Value>, EventFault> {
        let value = self.object.get(member).ok_or(EventFault::Missing { event: self.event, member })?;
        value.as_object().ok_or_else(|| self.fault(member, "is no object"))
    }

    fn seconds(&self, member: &'static str) -> Result<Option<i64>, EventFault> {
        let Some(value) = self.object.get(member) else { return Ok(None) };
        seconds(value).map(Some).ok_or_else(|| self.fault(member, "is no time in seconds since 1970"))
    }

    fn reasons(&self, member: &'static str) -> Result<Reasons, EventFault> {
        let Some(value) = self.object.get(member) else { return Ok(Reasons::new()) };
        let why = "is no object that gives a text for a language, such as {\"en\": \"…\"}";
        let reasons = value.as_object().filter(|all| (1..=LANGUAGES_MAX).contains(&all.len()));
        let reasons = reasons.ok_or_else(|| self.fault(member, why))?;
        let read: Option<Reasons> =
            reasons.iter().map(|(tag, value)| Some((language(tag)?, text(value).ok()?))).collect();
        read.ok_or_else(|| self.fault(member, why))
    }

    fn fault(&self, member: &'static str, why: &'static str) -> EventFault {
        EventFault::Member { event: self.event, member, why }
    }
}

fn text(value: &Value) -> Result<SmolStr, &'static str> {
    let text = value.as_str().ok_or("is no text")?;
    match text {
        "" => Err("is empty"),
        text if text.len() > TEXT_BYTES_MAX => Err("is longer than 2048 bytes"),
        text => Ok(text.into()),
    }
}

fn language(tag: &str) -> Option<SmolStr> {
    let is_tag = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let fits = (1..=35).contains(&tag.len()) && tag.bytes().all(is_tag);
    fits.then(|| tag.into())
}

/// A time in seconds since 1970, perhaps with a fraction, as Unix milliseconds.
#[expect(clippy::cast_possible_truncation, reason = "the range was looked at")]
pub(crate) fn seconds(value: &Value) -> Option<i64> {
    let seconds = value.as_f64().filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds))?;
    Some((seconds * 1000.0).round() as i64)
}

/// Unix milliseconds as the number that [`seconds`] reads back.
#[expect(clippy::cast_precision_loss, reason = "a time of this side of the year 9999 has 48 bits")]
fn of_ms(ms: i64) -> Value {
    if ms % 1000 == 0 {
        return (ms / 1000).into();
    }
    Number::from_f64(ms as f64 / 1000.0).map_or(Value::Null, Value::Number)
}

pub(super) fn to_json(event: &Event) -> Value {
    let mut object = said(&event.what);
    let common = &event.common;
    if let Some(ms) = common.event_ms {
        object.insert("event_timestamp".to_owned(), of_ms(ms));
    }
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            object.insert(name.to_owned(), value);
        }
    };
    put("initiating_entity", common.initiating_entity.map(|who| who.word().into()));
    put("reason_admin", reasons_json(&common.reason_admin));
    put("reason_user", reasons_json(&common.reason_user));
    Value::Object(object)
}

fn reasons_json(reasons: &Reasons) -> Option<Value> {
    let object: Map<String, Value> =
        reasons.iter().map(|(tag, text)| (tag.to_string(), text.as_str().into())).collect();
    (!object.is_empty()).then_some(Value::Object(object))
}

/// What the event itself says.
fn said(what: &What) -> Map<String, Value> {
    type Said<'w> = (&'static str, Option<&'w str>);
    fn optional(text: &Option<SmolStr>) -> Option<&str> {
        text.as_deref()
    }
    let texts: Vec<Said<'_>> = match what {
        What::TokenClaimsChange { claims } => {
            return Map::from_iter([("claims".to_owned(), Value::Object(claims.clone()))]);
        }
        What::CredentialChange {
            credential_type,
            change_type,
            friendly_name,
            x509_issuer,
            x509_serial,
            fido2_aaguid,
        } => vec![
            ("credential_type", Some(credential_type)),
            ("change_type", Some(change_type.word())),
            ("friendly_name", optional(friendly_name)),
            ("x509_issuer", optional(x509_issuer)),
            ("x509_serial", optional(x509_serial)),
            ("fido2_aaguid", optional(fido2_aaguid)),
        ],
        What::AssuranceLevelChange { namespace, current_level, previous_level, change_direction } => vec![
            ("namespace", Some(namespace)),
            ("current_level", Some(current_level)),
            ("previous_level", optional(previous_level)),
            ("change_direction", change_direction.map(Direction::word)),
        ],
        What::DeviceComplianceChange { previous_status, current_status } => vec![
            ("previous_status", Some(previous_status.word())),
            ("current_status", Some(current_status.word())),
        ],
        What::SessionEstablished { fp_ua, acr, amr, ext_id } => {
            let texts = [("fp_ua", optional(fp_ua)), ("acr", optional(acr)), ("ext_id", optional(ext_id))];
            return with_methods(present(texts), amr);
        }
        What::SessionPresented { fp_ua, ext_id } => {
            vec![("fp_ua", optional(fp_ua)), ("ext_id", optional(ext_id))]
        }
        What::RiskLevelChange { principal, current_level, previous_level, risk_reason } => vec![
            ("principal", Some(principal)),
            ("current_level", Some(current_level.word())),
            ("previous_level", previous_level.map(RiskLevel::word)),
            ("risk_reason", optional(risk_reason)),
        ],
        What::AccountDisabled { reason } => vec![("reason", optional(reason))],
        What::IdentifierChanged { new_value } => vec![("new-value", optional(new_value))],
        What::CredentialCompromise { credential_type } => vec![("credential_type", Some(credential_type))],
        What::Verification { state } => vec![("state", optional(state))],
        What::StreamUpdated { status, reason } => {
            vec![("status", Some(status.word())), ("reason", optional(reason))]
        }
        What::SessionRevoked
        | What::AccountCredentialChangeRequired
        | What::AccountPurged
        | What::AccountEnabled
        | What::IdentifierRecycled
        | What::OptIn
        | What::OptOutInitiated
        | What::OptOutCancelled
        | What::OptOutEffective
        | What::RecoveryActivated
        | What::RecoveryInformationChanged
        | What::SessionsRevoked => Vec::new(),
    };
    present(texts)
}

fn with_methods(mut object: Map<String, Value>, amr: &[SmolStr]) -> Map<String, Value> {
    if !amr.is_empty() {
        let methods = amr.iter().map(|method| method.as_str().into()).collect();
        object.insert("amr".to_owned(), Value::Array(methods));
    }
    object
}

fn present<'w>(texts: impl IntoIterator<Item = (&'static str, Option<&'w str>)>) -> Map<String, Value> {
    let said = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into())));
    said.collect()
}
