//! What receivers ask for: reads their requests strictly, and writes the answers.
//!
//! A request that cannot be read gets a reason that says what to do. Members that are not known are ignored, as the
//! framework asks.
//! Limits: [`limits::SSF_REQUEST_BYTES_MAX`] and those of each text.
//! Never does: deciding who may ask.

use std::collections::BTreeSet;

use http::HeaderValue;
use serde_json::{Map, Value};

use super::conclusion::SUPPORTED;
use super::endpoint::Endpoint;
use super::options::Receiver;
use super::streams::{Delivery, Secret, Stream};
use super::subject::Subject;
use super::urls::Urls;
use crate::limits;
use crate::ssf::event::{EventType, StreamStatus};

/// Delivery by push.
pub(super) const PUSH: &str = "urn:ietf:rfc:8935";
/// Delivery by poll.
pub(super) const POLL: &str = "urn:ietf:rfc:8936";

/// What a receiver wants of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Event types; all when it named none.
    pub(super) events: Option<Vec<String>>,
    /// Its own words.
    pub(super) description: Option<String>,
    /// How events reach it.
    pub(super) delivery: Delivery,
}

impl Wanted {
    /// Whether events of this type are delivered.
    pub(super) fn has(&self, event_type: EventType) -> bool {
        let uri = event_type.uri();
        self.events.as_ref().is_none_or(|events| events.contains(&uri))
    }

    fn delivered(&self) -> Vec<String> {
        SUPPORTED.into_iter().filter(|event| self.has(*event)).map(|event| event.uri()).collect()
    }
}

/// Why a request cannot be read, in words for the receiver.
pub(super) type Fault = String;

/// An object of JSON.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, Fault> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("the body must be a JSON object".to_owned()),
        Err(error) => Err(format!("the body is not JSON: {error}")),
    }
}

/// The stream that a request is about.
pub(super) fn stream_id(object: &Map<String, Value>) -> Result<&str, Fault> {
    object
        .get("stream_id")
        .and_then(Value::as_str)
        .filter(|id| !id.is_empty())
        .ok_or_else(|| "`stream_id` is missing: give the id of the stream as a text".to_owned())
}

/// Reads the members that a receiver supplies, over `before`: what is not named stays, and what is null goes.
pub(super) fn wanted(
    object: &Map<String, Value>,
    before: Wanted,
    receiver: &Receiver,
    poll_url: Option<&str>,
) -> Result<Wanted, Fault> {
    let mut wanted = before;
    match object.get("events_requested") {
        None => {}
        Some(Value::Null) => wanted.events = None,
        Some(value) => wanted.events = Some(events(value)?),
    }
    match object.get("description") {
        None => {}
        Some(Value::Null) => wanted.description = None,
        Some(_) => wanted.description = text(object, "description")?,
    }
    match object.get("delivery") {
        None => {}
        Some(Value::Null) => wanted.delivery = Delivery::Poll,
        Some(value) => wanted.delivery = delivery(value, receiver, poll_url)?,
    }
    Ok(wanted)
}

fn events(value: &Value) -> Result<Vec<String>, Fault> {
    let wrong = || "`events_requested` must be a list of event types, as texts".to_owned();
    let all = value.as_array().ok_or_else(wrong)?;
    if all.len() > limits::SSF_EVENTS_REQUESTED_MAX {
        return Err(format!("`events_requested` has at most {} entries", limits::SSF_EVENTS_REQUESTED_MAX));
    }
    let mut seen = BTreeSet::new();
    let mut events = Vec::with_capacity(all.len());
    for event in all {
        let event = event.as_str().ok_or_else(wrong)?;
        if event.len() > limits::SSF_TEXT_BYTES_MAX {
            return Err(format!("an event type has at most {} bytes", limits::SSF_TEXT_BYTES_MAX));
        }
        if seen.insert(event) {
            events.push(event.to_owned());
        }
    }
    Ok(events)
}

fn delivery(value: &Value, receiver: &Receiver, poll_url: Option<&str>) -> Result<Delivery, Fault> {
    let object = value.as_object().ok_or("`delivery` must be an object with a `method`")?;
    let url = match object.get("endpoint_url") {
        None | Some(Value::Null) => None,
        Some(url) => Some(url.as_str().ok_or("`delivery.endpoint_url` must be a text")?),
    };
    match object.get("method").and_then(Value::as_str) {
        Some(POLL) => match url {
            Some(url) if Some(url) != poll_url => Err(
                "`delivery.endpoint_url` is given by the transmitter when the method is poll: leave it out"
                    .to_owned(),
            ),
            _ => Ok(Delivery::Poll),
        },
        Some(PUSH) => {
            let url = url.ok_or("`delivery.endpoint_url` is missing: push needs to know where to")?;
            let endpoint = Endpoint::allowed(url, &receiver.push_hosts).map_err(|fault| fault.to_string())?;
            let authorization = match object.get("authorization_header") {
                None | Some(Value::Null) => None,
                Some(value) => Some(authorization(value)?),
            };
            Ok(Delivery::Push { endpoint: endpoint.as_str().to_owned(), authorization })
        }
        _ => Err(format!("`delivery.method` must be \"{PUSH}\" (push) or \"{POLL}\" (poll)")),
    }
}

fn authorization(value: &Value) -> Result<Secret, Fault> {
    let text = value.as_str().unwrap_or_default();
    if text.is_empty() || text.len() > limits::SSF_AUTHORIZATION_BYTES_MAX {
        return Err(format!(
            "`delivery.authorization_header` must be a text of 1 to {} bytes",
            limits::SSF_AUTHORIZATION_BYTES_MAX
        ));
    }
    match HeaderValue::from_str(text) {
        Ok(_) => Ok(Secret(text.to_owned())),
        Err(_) => Err("`delivery.authorization_header` holds characters that no header can carry".to_owned()),
    }
}

/// Checks that what the transmitter supplies is as it is, where a receiver repeats it.
pub(super) fn supplied_matches(object: &Map<String, Value>, current: &Value) -> Result<(), Fault> {
    let sets = |value: &Value| -> Option<BTreeSet<String>> {
        value.as_array()?.iter().map(|entry| entry.as_str().map(str::to_owned)).collect()
    };
    for name in [
        "iss",
        "aud",
        "events_supported",
        "events_delivered",
        "min_verification_interval",
        "inactivity_timeout",
    ] {
        let Some(theirs) = object.get(name) else { continue };
        let ours = current.get(name).unwrap_or(&Value::Null);
        let is_same = match (sets(theirs), sets(ours)) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => theirs == ours,
        };
        if !is_same {
            return Err(format!(
                "`{name}` is given by the transmitter and is {ours}: leave it out or repeat it"
            ));
        }
    }
    Ok(())
}

/// Reads a status and its reason.
pub(super) fn status(object: &Map<String, Value>) -> Result<(StreamStatus, Option<String>), Fault> {
    let status = object.get("status").and_then(Value::as_str).and_then(StreamStatus::of_word);
    let status = status.ok_or("`status` must be \"enabled\", \"paused\" or \"disabled\"")?;
    Ok((status, text(object, "reason")?))
}

/// Reads the subject of a request.
pub(super) fn subject(object: &Map<String, Value>) -> Result<Subject, Fault> {
    if !matches!(object.get("verified"), None | Some(Value::Bool(_))) {
        return Err("`verified` must be true or false".to_owned());
    }
    let subject = object.get("subject").ok_or("`subject` is missing")?;
    Subject::read(subject).map_err(|fault| format!("`subject`: {fault}"))
}

/// An optional text of bounded length.
pub(super) fn text(object: &Map<String, Value>, name: &str) -> Result<Option<String>, Fault> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() <= limits::SSF_TEXT_BYTES_MAX => Ok(Some(text.clone())),
        Some(_) => Err(format!("`{name}` must be a text of at most {} bytes", limits::SSF_TEXT_BYTES_MAX)),
    }
}

/// A poll.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PollRequest {
    /// Most events to answer with.
    pub(super) most: usize,
    /// Whether to answer without waiting.
    pub(super) at_once: bool,
    /// Events that the receiver has.
    pub(super) acknowledged: Vec<String>,
    /// Events that it has and cannot use, with its words.
    pub(super) refused: Vec<(String, String)>,
}

/// Reads a poll.
pub(super) fn poll(object: &Map<String, Value>) -> Result<PollRequest, Fault> {
    let most = match object.get("maxEvents") {
        None => limits::SSF_POLL_EVENTS_MAX,
        Some(most) => {
            let most = most.as_u64().ok_or("`maxEvents` must be a whole number from 0 on")?;
            usize::try_from(most).unwrap_or(usize::MAX).min(limits::SSF_POLL_EVENTS_MAX)
        }
    };
    let at_once = match object.get("returnImmediately") {
        None => false,
        Some(value) => value.as_bool().ok_or("`returnImmediately` must be true or false")?,
    };
    let wrong = || "`ack` must be a list of the `jti`s of events".to_owned();
    let acknowledged = match object.get("ack") {
        None => Vec::new(),
        Some(value) => value
            .as_array()
            .ok_or_else(wrong)?
            .iter()
            .map(|jti| jti.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
    };
    let wrong = || "`setErrs` must be an object from `jti` to an object with `err`".to_owned();
    let refused = match object.get("setErrs") {
        None => Vec::new(),
        Some(value) => value
            .as_object()
            .ok_or_else(wrong)?
            .iter()
            .map(|(jti, error)| {
                let code = error.get("err").and_then(Value::as_str).ok_or_else(wrong)?;
                let words = error.get("description").and_then(Value::as_str).unwrap_or_default();
                Ok((jti.clone(), tidy(&format!("{code}: {words}"))))
            })
            .collect::<Result<_, Fault>>()?,
    };
    Ok(PollRequest { most, at_once, acknowledged, refused })
}

/// Words of somebody else, for records and logs: one short line.
pub(super) fn tidy(words: &str) -> String {
    let line = words.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(limits::REMOTE_MESSAGE_CHARS_MAX).collect::<String>().trim_end_matches([' ', ':']).to_owned()
}

/// The configuration of a stream as its receiver sees it. `with_secret` only for whoever may set it.
pub(super) fn described(
    stream: &Stream,
    receiver: &Receiver,
    urls: &Urls,
    verification_interval_s: u64,
    with_secret: bool,
) -> Value {
    let mut delivery = Map::new();
    match &stream.wanted.delivery {
        Delivery::Poll => {
            delivery.insert("method".into(), POLL.into());
            delivery.insert("endpoint_url".into(), urls.poll(&stream.id).into());
        }
        Delivery::Push { endpoint, authorization } => {
            delivery.insert("method".into(), PUSH.into());
            delivery.insert("endpoint_url".into(), endpoint.as_str().into());
            if let (true, Some(secret)) = (with_secret, authorization) {
                delivery.insert("authorization_header".into(), secret.0.as_str().into());
            }
        }
    }
    let mut described = Map::new();
    described.insert("stream_id".into(), stream.id.as_str().into());
    described.insert("iss".into(), urls.issuer().into());
    described.insert("aud".into(), receiver.audience.as_str().into());
    described.insert("events_supported".into(), SUPPORTED.map(EventType::uri).to_vec().into());
    described.insert("events_delivered".into(), stream.wanted.delivered().into());
    described.insert("delivery".into(), delivery.into());
    described.insert("min_verification_interval".into(), verification_interval_s.into());
    if let Some(events) = &stream.wanted.events {
        described.insert("events_requested".into(), events.clone().into());
    }
    if let Some(description) = &stream.wanted.description {
        described.insert("description".into(), description.as_str().into());
    }
    described.into()
}

/// Where a stream stands, as its receiver sees it.
pub(super) fn described_status(stream: &Stream) -> Value {
    let mut described = Map::new();
    described.insert("stream_id".into(), stream.id.as_str().into());
    described.insert("status".into(), stream.status.word().into());
    if let Some(reason) = &stream.reason {
        described.insert("reason".into(), reason.as_str().into());
    }
    described.into()
}
