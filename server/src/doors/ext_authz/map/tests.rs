//! Requests through the whole of `map`, and ten thousand random ones.

use cardea_policy_store::routes::{ContextField, FieldType, Route, SchemaCheck};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderMap, HeaderValue, Metadata},
        service::auth::v3::{
            AttributeContext,
            attribute_context::{Peer, Request},
        },
    },
    google::protobuf::{ListValue, Struct, Value, value::Kind},
};
use proptest::prelude::*;

use super::{super::testing::*, *};

const ROUTES: &str = r#"
[[route]]
method = "GET"
path = "/db/{database}/tables/{table}"
action = "read"
resource = { type = "Table", id = "{database}/{table}" }
context = { database = "path.database", limit = "query.limit", dry = "query.dry", tenant = "header.x-tenant", how = "request.method", host = "request.host", path = "request.path" }

[[route]]
method = "*"
path = "/files/{path...}"
action = { type = "Acme::Action", id = "touch" }
resource = { type = "File", id = "{path}" }
"#;

struct Schema;

impl SchemaCheck for Schema {
    fn principal_type(&mut self, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn route(&mut self, _: &Route) -> Result<(), String> {
        Ok(())
    }

    fn field(&mut self, _: &Route, field: &ContextField) -> Result<FieldType, String> {
        Ok(match field.name.as_str() {
            "limit" => FieldType::Long,
            "dry" => FieldType::Bool,
            _ => FieldType::String,
        })
    }
}

fn table(sources: &str) -> RouteTable {
    RouteTable::parse("routes.toml", &(identity_toml(sources) + ROUTES)).unwrap().check(&mut Schema).unwrap()
}

fn http(method: &str, path: &str, headers: &[(&str, &[u8])]) -> HttpRequest {
    HttpRequest {
        id: "req-1".to_owned(),
        method: method.to_owned(),
        path: path.to_owned(),
        host: "API.example.com:443".to_owned(),
        header_map: Some(raw_headers(headers)),
        ..Default::default()
    }
}

fn ask(http: HttpRequest) -> Result<Mapped, RefusedReason> {
    let config = ExtAuthzConfig::default();
    map(&check(http, "spiffe://td/web"), &table("\"mtls\""), &config).map_err(|refused| {
        assert!(refused.principal.is_some());
        refused.reason
    })
}

#[test]
fn a_request_becomes_the_parts_of_an_attempt() {
    let mapped =
        ask(http("GET", "/db/sales/tables/t%201?limit=10&dry=true", &[("x-tenant", b"acme")])).unwrap();
    assert_eq!(mapped.principal.to_string(), "Workload::\"spiffe://td/web\"");
    assert_eq!(mapped.action.to_string(), "Action::\"read\"");
    assert_eq!(mapped.resource.to_string(), "Table::\"sales/t 1\"");
    assert_eq!(mapped.request_id.as_deref(), Some("req-1"));
    assert_eq!((mapped.route.as_str(), mapped.route_index), ("/db/{database}/tables/{table}", 0));
    let text = |text: &str| RawValue::String(text.into());
    let expected = [
        ("database", text("sales")),
        ("dry", RawValue::Bool(true)),
        ("host", text("api.example.com")),
        ("how", text("GET")),
        ("limit", RawValue::Long(10)),
        ("path", text("/db/sales/tables/t%201")),
        ("tenant", text("acme")),
    ];
    let mut context = mapped.context;
    context.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(context, expected.map(|(name, value)| (SmolStr::new(name), value)));
}

#[test]
fn what_the_request_does_not_carry_is_absent() {
    let mapped = ask(http("GET", "/db/a/tables/b", &[])).unwrap();
    let names: Vec<_> = mapped.context.iter().map(|(name, _)| name.as_str()).collect();
    assert!(!names.contains(&"limit") && !names.contains(&"tenant"), "{names:?}");
}

#[test]
fn doubtful_values_are_refused_where_the_route_reads_them() {
    let field = |path: &str, headers: &[(&str, &[u8])]| match ask(http("GET", path, headers)) {
        Err(RefusedReason::Context { field, why }) => (field.to_string(), why),
        other => panic!("{other:?}"),
    };
    let path = "/db/a/tables/b";
    let query = |query: &str| field(&format!("{path}?{query}"), &[]);
    assert_eq!(query("limit=1&limit=2"), ("limit".to_owned(), QueryError::Duplicate.into()));
    assert_eq!(query("limit=007"), ("limit".to_owned(), ConvertError::NotLong.into()));
    assert_eq!(query("dry=1"), ("dry".to_owned(), ConvertError::NotBool.into()));
    assert_eq!(query("a=1;limit=2").1, QueryError::Semicolon.into());
    let duplicate = HeaderError::Duplicate("x-tenant".to_owned());
    assert_eq!(field(path, &[("x-tenant", b"a"), ("x-tenant", b"b")]).1, duplicate.into());
    let broken = HeaderError::NotUtf8("x-tenant".to_owned());
    assert_eq!(field(path, &[("x-tenant", b"\xff")]).1, broken.into());
    // The other route reads none of these.
    assert!(
        ask(http("GET", "/files/a?limit=1&limit=2", &[("x-tenant", b"a"), ("x-tenant", b"\xff")])).is_ok()
    );
}

#[test]
fn paths_that_are_not_in_normal_form_are_refused() {
    for path in ["/files/../db", "/files//a", "/files/a%2fb", "/files/a;b", "/files/%zz", "", "*"] {
        assert!(matches!(ask(http("GET", path, &[])), Err(RefusedReason::Target(_))), "{path}");
    }
}

#[test]
fn no_route_is_refused_and_says_no_more() {
    let reason = ask(http("POST", "/db/a/tables/b", &[])).unwrap_err();
    assert_eq!((reason.code(), reason.message()), ("no_route", "no route allows this request"));
}

#[test]
fn nobody_learns_nothing_about_routes() {
    let (table, config) = (table("\"mtls\""), ExtAuthzConfig::default());
    for path in ["/db/a/tables/b", "/nowhere", "/../x"] {
        let refused = map(&check(http("GET", path, &[]), ""), &table, &config).unwrap_err();
        assert!(refused.reason.is_unidentified() && refused.reason.code() == "no_identity");
        assert_eq!(refused.request_id.as_deref(), Some("req-1"));
    }
    let refused = map(&check(http("GET", "/", &[]), "CN=web"), &table, &config).unwrap_err();
    assert!(!refused.reason.is_unidentified() && refused.reason.code() == "no_identity");
}

#[test]
fn a_request_without_http_is_refused() {
    let (table, config) = (table("\"mtls\""), ExtAuthzConfig::default());
    let bare = AttributeContext { request: Some(Request::default()), ..Default::default() };
    for request in [
        CheckRequest::default(),
        CheckRequest { attributes: Some(AttributeContext::default()) },
        CheckRequest { attributes: Some(bare) },
    ] {
        assert_eq!(map(&request, &table, &config).unwrap_err().reason, RefusedReason::NotHttp);
    }
}

#[test]
fn limits_hold() {
    let long_id = format!("/files/{}", vec!["a".repeat(100); 11].join("/"));
    assert_eq!(ask(http("GET", &long_id, &[])), Err(RefusedReason::ResourceIdTooLong));
    assert_eq!(ask(http(&"G".repeat(65), "/files/a", &[])), Err(RefusedReason::TooLong));
    let many: Vec<(&str, &[u8])> = vec![("a", b"b"); 257];
    let request = check(http("GET", "/files/a", &many), "spiffe://td/web");
    let refused = map(&request, &table("\"mtls\""), &ExtAuthzConfig::default()).unwrap_err();
    assert_eq!((refused.reason.code(), refused.principal), ("malformed", None));
}

#[test]
fn an_odd_request_id_is_dropped_not_refused() {
    for id in ["", "a b", "a\nb", "é", &"x".repeat(129)] {
        let request = HttpRequest { id: id.to_owned(), ..http("GET", "/files/a", &[]) };
        assert_eq!(ask(request).unwrap().request_id, None, "{id:?}");
    }
}

#[test]
fn the_body_is_never_looked_at() {
    let request = HttpRequest {
        body: "\0{".to_owned(),
        raw_body: vec![0xff; 100],
        size: -7,
        ..http("GET", "/files/a", &[("x-envoy-auth-partial-body", b"true")])
    };
    assert!(ask(request).is_ok());
}

#[test]
fn a_token_brings_session_claims_and_delegation() {
    let claims = serde_json::json!({"sub": "ann", "sid": "s", "exp": 9, "act": {"sub": "agent"}});
    let attributes = attributes(http("GET", "/files/a", &[]), "", Some(claims));
    let request = CheckRequest { attributes: Some(attributes) };
    let mapped = map(&request, &table("\"jwt\""), &ExtAuthzConfig::default()).unwrap();
    assert_eq!(mapped.principal.to_string(), "Agent::\"agent\"");
    assert_eq!(mapped.delegation[0].to_string(), "User::\"ann\"");
    assert_eq!(mapped.session_id.as_deref(), Some("s"));
    assert_eq!(mapped.token.unwrap().expires_at_s, Some(9));
}

// ---- ten thousand random requests ----

fn header_name() -> impl Strategy<Value = String> {
    let known = [
        "accept",
        "x-request-id",
        "cookie",
        "x-tenant",
        "X-Tenant",
        "x_tenant",
        "x-forwarded-client-cert",
        "x-cardea-principal",
        ":path",
        "",
    ];
    prop_oneof![3 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

fn header_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => prop::sample::select(vec!["URI=spiffe://td/x", "By=a,URI=spiffe://td/y", "URI=a;URI=b", "acme", "a,b", "\""])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn path() -> impl Strategy<Value = String> {
    let pieces = vec![
        "/db/a/tables/b",
        "/db/a/tables/b",
        "/files/a/b",
        "/files/",
        "/files/x",
        "/",
        "..",
        "%2e",
        "%2f",
        "%00",
        "?limit=1",
        "&limit=2",
        "?dry=x",
        ";",
        "#",
        "\\",
        "é",
        "a",
    ];
    let whole = vec!["/db/a/tables/b", "/db/a/tables/b?limit=1", "/files/a/b", "/nowhere", "/files"];
    prop_oneof![
        3 => prop::sample::select(whole).prop_map(str::to_owned),
        3 => prop::collection::vec(prop::sample::select(pieces), 0..5).prop_map(|pieces| pieces.concat()),
        1 => any::<String>(),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(None),
        Just(Some(Kind::NullValue(0))),
        any::<f64>().prop_map(|number| Some(Kind::NumberValue(number))),
        any::<bool>().prop_map(|flag| Some(Kind::BoolValue(flag))),
        "[a-z]{0,6}".prop_map(|text| Some(Kind::StringValue(text))),
        any::<String>().prop_map(|text| Some(Kind::StringValue(text))),
    ]
    .prop_map(|kind| Value { kind });
    leaf.prop_recursive(4, 24, 4, |inner| {
        let names =
            prop::sample::select(vec!["sub", "act", "iss", "iat", "exp", "scope", "sid", "acr", "amr", "x"]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|values| Kind::ListValue(ListValue { values })),
            prop::collection::hash_map(names.prop_map(str::to_owned), inner, 0..6)
                .prop_map(|fields| Kind::StructValue(Struct { fields })),
        ]
        .prop_map(|kind| Value { kind: Some(kind) })
    })
}

/// Claims that are sound but for one that is random.
fn any_claims() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec!["sub", "act", "iat", "sid", "x", "y", "z"]);
    (names, any_value()).prop_map(|(name, odd)| {
        let sound = value(serde_json::json!({"sub": "ann", "iat": 7, "sid": "s", "act": {"sub": "agent"}}));
        let Some(Kind::StructValue(mut claims)) = sound.kind else { panic!("an object") };
        claims.fields.insert(name.to_owned(), odd);
        Value { kind: Some(Kind::StructValue(claims)) }
    })
}

prop_compose! {
    fn any_http()(
        method in prop_oneof![3 => Just("GET".to_owned()), 1 => any::<String>()],
        path in path(),
        host: String,
        id: String,
        map in prop::collection::hash_map(header_name(), any::<String>(), 0..4),
        raw in prop::option::of(prop::collection::vec((header_name(), header_value(), any::<bool>()), 0..5)),
        body: String,
        raw_body: Vec<u8>,
        size: i64,
    ) -> HttpRequest {
        let header_map = raw.map(|headers| HeaderMap {
            headers: headers
                .into_iter()
                .map(|(key, raw_value, both)| HeaderValue { key, value: if both { "v".to_owned() } else { String::new() }, raw_value })
                .collect(),
        });
        HttpRequest { id, method, headers: map, header_map, path, host, body, raw_body, size, ..Default::default() }
    }
}

prop_compose! {
    fn any_request()(
        http in prop::option::weighted(0.95, any_http()),
        principal in prop_oneof![
            1 => Just(String::new()),
            4 => Just("spiffe://td/web".to_owned()),
            1 => "spiffe://[a-zA-Z./%]{0,9}",
            1 => any::<String>(),
        ],
        payload in prop::option::weighted(0.3, prop_oneof![any_claims(), any_value()]),
        stray in any_value(),
    ) -> CheckRequest {
        let mut fields: std::collections::HashMap<String, Value> = [("other".to_owned(), stray)].into();
        if let Some(payload) = payload {
            fields.insert("jwt_payload".to_owned(), payload);
        }
        let filter_metadata = [("envoy.filters.http.jwt_authn".to_owned(), Struct { fields })].into();
        CheckRequest { attributes: Some(AttributeContext {
            source: Some(Peer { principal, ..Default::default() }),
            request: Some(Request { http, ..Default::default() }),
            metadata_context: Some(Metadata { filter_metadata, ..Default::default() }),
            ..Default::default()
        }) }
    }
}

/// A second, plain reading of "carries an identity": some source of the three holds something.
fn carries_identity(request: &CheckRequest) -> bool {
    let Some(attributes) = &request.attributes else { return false };
    let principal = attributes.source.as_ref().is_some_and(|peer| !peer.principal.is_empty());
    let claims = attributes.metadata_context.as_ref().is_some_and(|metadata| {
        let namespace = metadata.filter_metadata.get("envoy.filters.http.jwt_authn");
        namespace.is_some_and(|namespace| namespace.fields.contains_key("jwt_payload"))
    });
    let http = attributes.request.as_ref().and_then(|request| request.http.as_ref());
    let header = http.is_some_and(|http| {
        let mut raw = http.header_map.iter().flat_map(|map| &map.headers);
        let name = "x-forwarded-client-cert";
        raw.any(|header| header.key == name) || http.headers.contains_key(name)
    });
    principal || claims || header
}

static TABLE: std::sync::LazyLock<RouteTable> =
    std::sync::LazyLock::new(|| table("\"jwt\", \"xfcc\", \"mtls\""));

#[test]
fn the_random_requests_reach_every_outcome() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let (mut runner, requests) = (TestRunner::deterministic(), any_request());
    let config = ExtAuthzConfig { trust_xfcc: true, ..ExtAuthzConfig::default() };
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..2000 {
        let request = requests.new_tree(&mut runner).unwrap().current();
        let outcome =
            map(&request, &TABLE, &config).map_or_else(|refused| refused.reason.code(), |_| "mapped");
        *seen.entry(outcome).or_insert(0) += 1;
    }
    for outcome in ["mapped", "no_identity", "no_route", "malformed"] {
        assert!(seen.get(outcome).is_some_and(|&count| count >= 20), "{seen:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn random_requests_never_panic_and_never_map_without_identity_and_route(request in any_request(), trust_xfcc: bool) {
        let config = ExtAuthzConfig { trust_xfcc, ..ExtAuthzConfig::default() };
        match map(&request, &TABLE, &config) {
            Ok(mapped) => {
                prop_assert!(carries_identity(&request));
                prop_assert!(!mapped.principal.id.is_empty() && !mapped.principal.id.contains(char::is_control));
                prop_assert!(["Workload", "Agent"].contains(&mapped.principal.entity_type.as_str()));
                let http = request.attributes.and_then(|attributes| attributes.request?.http).unwrap();
                let known = http.path.starts_with("/files/") || http.path.starts_with("/db/") && http.method == "GET";
                prop_assert!(known && !http.path.split('?').next().unwrap_or_default().contains(['#', '\\']) && !mapped.resource.id.is_empty());
                prop_assert!(mapped.delegation.len() <= super::super::DELEGATION_MAX);
            }
            Err(refused) => {
                prop_assert!(["no_identity", "no_route", "malformed"].contains(&refused.reason.code()));
                let _ = refused.to_string();
            }
        }
    }
}
