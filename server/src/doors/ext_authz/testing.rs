//! Builders of `CheckRequest`s for the tests of this door.

use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderMap, HeaderValue, Metadata},
        service::auth::v3::{
            AttributeContext, CheckRequest,
            attribute_context::{HttpRequest, Peer, Request},
        },
    },
    google::protobuf::{ListValue, Struct, Value, value::Kind},
};

pub(super) fn raw_headers(headers: &[(&str, &[u8])]) -> HeaderMap {
    let headers = headers.iter().map(|(name, value)| HeaderValue {
        key: (*name).to_owned(),
        value: String::new(),
        raw_value: value.to_vec(),
    });
    HeaderMap { headers: headers.collect() }
}

/// `claims` go where `jwt_authn` puts them.
pub(super) fn attributes(
    http: HttpRequest,
    principal: &str,
    claims: Option<serde_json::Value>,
) -> AttributeContext {
    let payload = claims.map(|claims| {
        let fields = [("jwt_payload".to_owned(), value(claims))].into();
        let filter_metadata = [("envoy.filters.http.jwt_authn".to_owned(), Struct { fields })].into();
        Metadata { filter_metadata, ..Default::default() }
    });
    AttributeContext {
        source: Some(Peer { principal: principal.to_owned(), ..Default::default() }),
        request: Some(Request { http: Some(http), ..Default::default() }),
        metadata_context: payload,
        ..Default::default()
    }
}

pub(super) fn check(http: HttpRequest, principal: &str) -> CheckRequest {
    CheckRequest { attributes: Some(attributes(http, principal, None)) }
}

pub(super) fn value(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.into_iter().map(value).collect() }),
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(name, field)| (name, value(field))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

pub(super) fn identity_toml(sources: &str) -> String {
    let mut text = format!("[identity]\nsources = [{sources}]\n");
    if sources.contains("mtls") {
        text.push_str("[identity.mtls]\ntype = \"Workload\"\n");
    }
    if sources.contains("xfcc") {
        text.push_str("[identity.xfcc]\ntype = \"Workload\"\n");
    }
    if sources.contains("jwt") {
        text.push_str(
            "[identity.jwt]\npayload = \"jwt_payload\"\ntype = \"Agent\"\nclaim = \"sub\"\nsession_claim = \"sid\"\n\
             delegation_type = \"User\"\n",
        );
    }
    text
}
