//! The request that the load generator sends, read from a JSON file (`request.json` beside this crate is the
//! default) and turned into wire messages.
//!
//! `{n}` anywhere in the file is replaced by the number of the variant, so that one file gives many callers.
//! Context values follow Cedar's JSON form: booleans, whole numbers, strings, arrays as sets, objects as records,
//! `{"__entity": {"type", "id"}}`, and `{"__extn": {"fn": "decimal" | "ip", "arg"}}`.

use std::collections::BTreeMap;

use cardea_proto::v1;
use envoy_types::pb::{
    envoy::{
        config::core::v3 as core,
        service::auth::v3::{AttributeContext, CheckRequest, attribute_context as attributes},
    },
    google::protobuf::{self as google, Struct},
};
use prost_types::Timestamp;
use serde::Deserialize;
use serde_json::Value as Json;
use thiserror::Error;

/// The request that is sent when no file is named.
pub const DEFAULT_REQUEST: &str = include_str!("../request.json");

/// Most variants that one file may give; each is held encoded, about 1 KiB.
pub const VARIANTS_MAX: u32 = 100_000;

/// Envoy's filter in whose metadata verified claims travel.
const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";
/// Key of the claims in that metadata (`payload_in_metadata` in Envoy's configuration).
const CLAIMS_KEY: &str = "claims";

/// Why a request file was refused.
#[derive(Debug, Error)]
pub enum RequestError {
    /// Not JSON, or not this file's form.
    #[error("request file: {0}")]
    Form(#[from] serde_json::Error),
    /// A context value that Cedar's data model lacks.
    #[error("request file: context field `{field}` is {what}")]
    Context {
        /// Name of the field.
        field: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Text that is not `Type::"id"`.
    #[error("`{0}` is not an entity; write Type::\"id\"")]
    Entity(String),
}

/// Parts of the attempt that replace those of the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `Type::"id"`.
    pub principal: Option<String>,
    /// `Type::"id"`.
    pub action: Option<String>,
    /// `Type::"id"`.
    pub resource: Option<String>,
    /// The session's id.
    pub session: Option<String>,
}

/// One variant of the request, as messages for each door.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// For the native door.
    pub attempt: v1::Attempt,
    /// For Envoy's door.
    pub check: CheckRequest,
}

/// Builds variant `n` of the request in `text`.
///
/// # Errors
/// When the file has another form, or a context value has no place in Cedar's data model.
pub fn variant(text: &str, n: u32, overrides: &Overrides) -> Result<Variant, RequestError> {
    let file: File = serde_json::from_str(&text.replace("{n}", &n.to_string()))?;
    let mut attempt = file.attempt.into_message()?;
    let entity = |text: &Option<String>| text.as_deref().map(|text| parse_entity(text, n)).transpose();
    if let Some(principal) = entity(&overrides.principal)? {
        attempt.principal = Some(principal);
    }
    if let Some(action) = entity(&overrides.action)? {
        attempt.action = Some(action);
    }
    if let Some(resource) = entity(&overrides.resource)? {
        attempt.resource = Some(resource);
    }
    if let Some(session) = &overrides.session {
        attempt.session_id = session.replace("{n}", &n.to_string());
    }
    Ok(Variant { attempt, check: file.http.into_message() })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    attempt: AttemptForm,
    http: HttpForm,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntityForm {
    r#type: String,
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AttemptForm {
    #[serde(default)]
    id: String,
    principal: EntityForm,
    action: EntityForm,
    resource: EntityForm,
    #[serde(default)]
    context: BTreeMap<String, Json>,
    #[serde(default)]
    session_id: String,
    #[serde(default)]
    delegation: Vec<EntityForm>,
    token: Option<TokenForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenForm {
    issuer: String,
    issued_at_s: Option<i64>,
    expires_at_s: Option<i64>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    bound: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpForm {
    method: String,
    scheme: String,
    host: String,
    path: String,
    protocol: String,
    source_principal: String,
    source_address: String,
    source_port: u16,
    headers: BTreeMap<String, String>,
    /// What Envoy's `jwt_authn` filter verified, under [`CLAIMS_KEY`] in its metadata.
    #[serde(default)]
    claims: serde_json::Map<String, Json>,
}

impl From<EntityForm> for v1::EntityRef {
    fn from(form: EntityForm) -> Self {
        Self { r#type: form.r#type, id: form.id }
    }
}

impl AttemptForm {
    fn into_message(self) -> Result<v1::Attempt, RequestError> {
        let fields = self.context.into_iter().map(|(name, json)| match value(json) {
            Ok(value) => Ok((name, value)),
            Err(what) => Err(RequestError::Context { field: name, what }),
        });
        Ok(v1::Attempt {
            id: self.id,
            principal: Some(self.principal.into()),
            action: Some(self.action.into()),
            resource: Some(self.resource.into()),
            context: fields.collect::<Result<_, _>>()?,
            session_id: self.session_id,
            delegation: self.delegation.into_iter().map(Into::into).collect(),
            token: self.token.map(TokenForm::into_message),
            at_least_version: 0,
            task_id: String::new(),
        })
    }
}

impl TokenForm {
    fn into_message(self) -> v1::Token {
        let time = |seconds| Timestamp { seconds, nanos: 0 };
        v1::Token {
            issuer: self.issuer,
            issued_at: self.issued_at_s.map(time),
            expires_at: self.expires_at_s.map(time),
            scopes: self.scopes,
            bound: self.bound,
            ..v1::Token::default()
        }
    }
}

impl HttpForm {
    /// Filled as Envoy fills it: source, destination and the request's own fields.
    fn into_message(self) -> CheckRequest {
        let source = attributes::Peer {
            address: Some(address(self.source_address, self.source_port)),
            principal: self.source_principal,
            ..attributes::Peer::default()
        };
        let destination = attributes::Peer {
            address: Some(address("10.0.0.1".to_owned(), 443)),
            ..attributes::Peer::default()
        };
        let http = attributes::HttpRequest {
            id: "1234567890123456789".to_owned(),
            method: self.method,
            headers: self.headers.into_iter().collect(),
            path: self.path,
            host: self.host,
            scheme: self.scheme,
            protocol: self.protocol,
            ..attributes::HttpRequest::default()
        };
        let claims = Struct { fields: [(CLAIMS_KEY.to_owned(), dynamic(Json::Object(self.claims)))].into() };
        let metadata = core::Metadata {
            filter_metadata: [(JWT_FILTER.to_owned(), claims)].into(),
            ..core::Metadata::default()
        };
        let request = attributes::Request { http: Some(http), ..attributes::Request::default() };
        CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(source),
                destination: Some(destination),
                request: Some(request),
                metadata_context: Some(metadata),
                ..AttributeContext::default()
            }),
        }
    }
}

fn address(host: String, port: u16) -> core::Address {
    let socket = core::SocketAddress {
        address: host,
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
        ..core::SocketAddress::default()
    };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

/// JSON as protobuf's dynamic value, in which every number is a 64-bit float.
fn dynamic(json: Json) -> google::Value {
    use google::value::Kind;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(flag) => Kind::BoolValue(flag),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => {
            Kind::ListValue(google::ListValue { values: items.into_iter().map(dynamic).collect() })
        }
        Json::Object(fields) => {
            let fields = fields.into_iter().map(|(name, json)| (name, dynamic(json))).collect();
            Kind::StructValue(Struct { fields })
        }
    };
    google::Value { kind: Some(kind) }
}

fn value(json: Json) -> Result<v1::Value, &'static str> {
    use v1::value::Kind;
    let kind = match json {
        Json::Null => return Err("null, which Cedar does not have"),
        Json::Bool(flag) => Kind::Bool(flag),
        Json::Number(number) => {
            Kind::Long(number.as_i64().ok_or("a number that is not a 64-bit whole number")?)
        }
        Json::String(text) => Kind::String(text),
        Json::Array(items) => {
            Kind::Set(v1::ValueSet { values: items.into_iter().map(value).collect::<Result<_, _>>()? })
        }
        Json::Object(fields) => match escape(&fields) {
            Some(escaped) => escaped?,
            None => Kind::Record(v1::ValueRecord {
                fields: fields.into_iter().map(|(name, json)| Ok((name, value(json)?))).collect::<Result<
                    _,
                    &'static str,
                >>(
                )?,
            }),
        },
    };
    Ok(v1::Value { kind: Some(kind) })
}

/// Cedar's escapes for what JSON cannot say; `None` for a plain object.
fn escape(fields: &serde_json::Map<String, Json>) -> Option<Result<v1::value::Kind, &'static str>> {
    use v1::value::Kind;
    let text = |object: &Json, name: &str| object.get(name).and_then(Json::as_str).map(str::to_owned);
    if let Some(entity) = fields.get("__entity") {
        let parts = text(entity, "type").zip(text(entity, "id"));
        let parts = parts.ok_or("an `__entity` without `type` and `id`");
        return Some(parts.map(|(r#type, id)| Kind::Entity(v1::EntityRef { r#type, id })));
    }
    let call = fields.get("__extn")?;
    let kind = match (text(call, "fn").as_deref(), text(call, "arg")) {
        (Some("decimal"), Some(arg)) => Ok(Kind::Decimal(arg)),
        (Some("ip"), Some(arg)) => Ok(Kind::Ip(arg)),
        _ => Err("an `__extn` other than `decimal` or `ip`"),
    };
    Some(kind)
}

fn parse_entity(text: &str, n: u32) -> Result<v1::EntityRef, RequestError> {
    let text = text.replace("{n}", &n.to_string());
    let parts = text.strip_suffix('"').and_then(|rest| rest.split_once("::\""));
    match parts {
        Some((r#type, id)) if !r#type.is_empty() => {
            Ok(v1::EntityRef { r#type: r#type.to_owned(), id: id.to_owned() })
        }
        _ => Err(RequestError::Entity(text)),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn the_default_request_is_of_the_size_that_the_benches_speak_of() {
        let built = variant(DEFAULT_REQUEST, 7, &Overrides::default()).unwrap();
        let attempt = built.attempt.encoded_len();
        let check = built.check.encoded_len();
        assert!((250..=400).contains(&attempt), "attempt of {attempt} bytes");
        assert!((600..=1100).contains(&check), "check of {check} bytes");
        assert_eq!(built.attempt.principal.unwrap().id, "agent-7");
    }

    #[test]
    fn overrides_replace_parts_of_the_file() {
        let overrides = Overrides {
            principal: Some("Acme::Agent::\"x-{n}\"".to_owned()),
            session: Some("s{n}".to_owned()),
            ..Overrides::default()
        };
        let built = variant(DEFAULT_REQUEST, 3, &overrides).unwrap();
        let principal = built.attempt.principal.unwrap();
        assert_eq!((principal.r#type.as_str(), principal.id.as_str()), ("Acme::Agent", "x-3"));
        assert_eq!(built.attempt.session_id, "s3");
        let bad = Overrides { action: Some("read".to_owned()), ..Overrides::default() };
        assert!(matches!(variant(DEFAULT_REQUEST, 0, &bad), Err(RequestError::Entity(_))));
    }

    #[test]
    fn every_kind_of_context_value_has_its_place() {
        let json = serde_json::json!({
            "b": true, "l": -3, "s": "x", "set": [1, 2], "r": {"in": "ner"},
            "e": {"__entity": {"type": "T", "id": "i"}},
            "d": {"__extn": {"fn": "decimal", "arg": "1.5"}},
        });
        let Some(v1::value::Kind::Record(record)) = value(json).unwrap().kind else { panic!("not a record") };
        assert_eq!(record.fields.len(), 7);
        assert_eq!(value(Json::Null), Err("null, which Cedar does not have"));
        assert!(value(serde_json::json!(1.5)).is_err());
        assert!(value(serde_json::json!({"__extn": {"fn": "nope", "arg": "1"}})).is_err());
    }
}
