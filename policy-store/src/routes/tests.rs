//! The table as a whole: files in, routes or faults out, and the promise that a doubtful path never matches.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const IDENTITY: &str = "[identity]\nsources = [\"mtls\"]\n[identity.mtls]\ntype = \"Workload\"\n";

const FULL: &str = r#"
[identity]
sources = ["jwt", "xfcc", "mtls"]
[identity.mtls]
type = "Workload"
[identity.xfcc]
type = "Acme::Workload"
trust_domains = ["example.org"]
[identity.jwt]
payload = "jwt_payload"
type = "Agent"
claim = "sub"
session_claim = "sid"
delegation_type = "User"
issuers = ["https://idp.example"]

[[route]]
method = "GET"
path = "/db/{database}/tables/{table}"
host = "api.example.com"
action = "read"
resource = { type = "Table", id = "{database}/{table}" }
context = { database = "path.database", limit = "query.limit", tenant = "header.X-Tenant", how = "request.method" }

[[route]]
method = ["POST", "PUT"]
path = "/files/{path...}"
action = { type = "Acme::Action", id = "write" }
resource = { type = "Acme::File", id = "{path}" }

[[route]]
method = "*"
path = "/health"
action = "probe"
resource = { type = "Service", id = "self" }
"#;

fn table(routes: &str) -> RouteTable {
    RouteTable::parse("routes.toml", &format!("{IDENTITY}{routes}")).unwrap_or_else(|error| panic!("{error}"))
}

fn route(method: &str, path: &str) -> String {
    format!(
        "[[route]]\nmethod = {method}\npath = \"{path}\"\naction = \"a\"\nresource = {{ type = \"T\", id = \"x\" }}\n"
    )
}

fn faults(text: &str) -> Vec<RouteFault> {
    RouteTable::parse("routes.toml", text).expect_err(text).faults
}

fn kinds(text: &str) -> Vec<FaultKind> {
    faults(text).into_iter().map(|fault| fault.kind).collect()
}

#[test]
fn a_full_file_becomes_a_table() {
    let table = RouteTable::parse("routes.toml", FULL).unwrap();
    let [IdentitySource::Jwt(jwt), IdentitySource::Xfcc(xfcc), IdentitySource::Mtls(mtls)] =
        table.identity().sources.as_slice()
    else {
        panic!("order of sources");
    };
    assert_eq!((jwt.claim.as_str(), jwt.delegation_type.as_deref()), ("sub", Some("User")));
    assert_eq!(xfcc.trust_domains, ["example.org"]);
    assert_eq!(mtls.entity_type, "Workload");

    let found = table.find("GET", "API.example.com.:8443", "/db/Sales/tables/2024%20q1?limit=10").unwrap();
    assert_eq!(found.resource_id(), "Sales/2024 q1");
    assert_eq!(found.route.action().action_type, "Action");
    assert_eq!(found.param("table"), Some("2024 q1"));
    assert_eq!(found.query("limit").unwrap().as_deref(), Some("10"));
    assert_eq!(found.query("other").unwrap(), None);
    assert_eq!(found.host(), "api.example.com");
    assert_eq!(found.path(), "/db/Sales/tables/2024%20q1");

    let found = table.find("PUT", "", "/files/a/b.txt").unwrap();
    assert_eq!(found.resource_id(), "a/b.txt");
    assert_eq!(found.route.action(), &ActionName { action_type: "Acme::Action".into(), id: "write".into() });
    assert_eq!(table.find("BREW", "any", "/health").unwrap().resource_id(), "self");
}

#[test]
fn no_route_is_an_error_and_a_bad_path_says_why() {
    let table = RouteTable::parse("routes.toml", FULL).unwrap();
    let find = |method, host, target| table.find(method, host, target).map(|found| found.route.index());
    assert_eq!(find("GET", "other", "/db/a/tables/b"), Err(MatchError::NoRoute));
    assert_eq!(find("DELETE", "", "/files/a"), Err(MatchError::NoRoute));
    assert_eq!(find("GET", "", "/health/"), Err(MatchError::NoRoute));
    assert_eq!(find("GET", "", "/x/../health"), Err(MatchError::Target(TargetError::DotSegment)));
    assert_eq!(find("GET", "", "/Health"), Err(MatchError::NoRoute));
}

#[test]
fn a_doubled_query_parameter_is_refused_only_where_it_is_read() {
    let table = RouteTable::parse("routes.toml", FULL).unwrap();
    let found = table.find("GET", "api.example.com", "/db/a/tables/b?limit=1&limit=2&x=1&x=2").unwrap();
    assert_eq!(found.query("limit"), Err(QueryError::Duplicate));
    assert!(table.find("GET", "", "/health?x=1&x=2").is_ok());
}

#[test]
fn every_fault_of_a_file_is_reported_with_its_place() {
    let text = r#"[identity]
sources = ["mtls", "ldap", "mtls"]
[identity.mtls]
type = "Bad Type"
[identity.jwt]
payload = "p"
[[route]]
method = "get"
path = "/a/*"
action = 7
resource = { type = "if", id = "{x}" }
context = { a = "path.x", b = "cookie.c", c = "header.Authorization" }
colour = "red"
[[route]]
path = "/b"
method = []
host = "https://h"
action = { type = "Do", id = "x" }
resource = { type = "T", id = "{x}" }
"#;
    let found: Vec<(usize, String)> =
        faults(text).into_iter().map(|fault| (fault.line, fault.kind.to_string())).collect();
    let expected = [
        (2, "`ldap` is not a source of identity"),
        (2, "source `mtls` is listed twice"),
        (4, "`Bad Type` is not an entity type name"),
        (5, "`[identity.jwt]` is not listed in `sources`"),
        (8, "`get` is not a method"),
        (9, "`*` looks like a parameter of another router"),
        (10, "expected a table, found integer"),
        (11, "`if` is not an entity type name"),
        (12, "`cookie.c` is not a source of a context value"),
        (12, "header `authorization` carries secrets, and what policy reads is recorded"),
        (13, "unknown key `colour`"),
        (16, "`` is not a method"),
        (17, "`https://h` is not a host name"),
        (18, "`Do` is not an action type"),
        (19, "path has no parameter `x`"),
    ];
    assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
}

#[test]
fn a_fault_prints_file_line_column_and_what_to_do() {
    let text = format!("{IDENTITY}{}", route("\"GET\"", "a"));
    let error = RouteTable::parse("bundle/routes.toml", &text).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bundle/routes.toml:7:8: path does not start with `/` (begin the path with `/`, without scheme or host; a \
         host goes into `host = \"…\"`)"
    );
    let fault = &error.faults[0];
    assert_eq!(text.get(fault.span.clone()), Some("\"a\""));
}

#[test]
fn toml_mistakes_are_reported_all_and_alone() {
    let found = kinds("[identity\nsources = = 3\n[[route]\n");
    assert!(found.len() >= 2, "{found:?}");
    assert!(found.iter().all(|kind| matches!(kind, FaultKind::Toml(_))), "{found:?}");
    assert!(matches!(kinds("a = 1\na = 2")[..], [FaultKind::Toml(_)]));
}

#[test]
fn a_table_without_identity_is_refused() {
    assert_eq!(kinds(""), [FaultKind::NoIdentity]);
    assert_eq!(
        kinds("[identity]\nsources = []\n"),
        [FaultKind::Source("`sources` names no source of identity".to_owned())]
    );
    assert_eq!(
        kinds("[identity]\nsources = [\"jwt\"]\n"),
        [FaultKind::Source("source `jwt` has no `[identity.jwt]` table".to_owned())]
    );
    let jwt = "[identity]\nsources = [\"jwt\"]\n[identity.jwt]\n";
    assert_eq!(
        kinds(jwt),
        [FaultKind::MissingKey("payload"), FaultKind::MissingKey("type"), FaultKind::MissingKey("claim")]
    );
    let domain =
        "[identity]\nsources = [\"mtls\"]\n[identity.mtls]\ntype = \"W\"\ntrust_domains = [\"spiffe://x\"]\n";
    assert_eq!(kinds(domain), [FaultKind::TrustDomain("spiffe://x".to_owned())]);
}

#[test]
fn missing_and_mistyped_parts_of_a_route_are_named() {
    let text = format!("{IDENTITY}[[route]]\n");
    let missing = ["method", "path", "action", "resource"].map(FaultKind::MissingKey);
    assert_eq!(kinds(&text), missing);
    assert_eq!(
        kinds(&format!("route = 1\n{IDENTITY}")),
        [FaultKind::WrongType { expected: "`[[route]]` tables", found: "integer" }]
    );
    assert_eq!(
        kinds(&format!("route = [1]\n{IDENTITY}")),
        [FaultKind::WrongType { expected: "a table", found: "integer" }]
    );
}

#[test]
fn ambiguous_routes_are_refused_naming_both_places() {
    for (first, second) in [
        (route("\"GET\"", "/a/{x}"), route("\"GET\"", "/a/{y}")),
        (route("[\"GET\", \"PUT\"]", "/a/{x...}"), route("[\"PUT\", \"POST\"]", "/a/{y...}")),
        (route("\"*\"", "/"), route("\"*\"", "/")),
    ] {
        let text = format!("{IDENTITY}{first}{second}");
        let found = faults(&text);
        let [fault] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(fault.kind, FaultKind::Duplicate { line: 5 });
        assert_eq!(fault.line, 10);
        let other = fault.other.clone().unwrap();
        assert_eq!(other.start, IDENTITY.len());
    }
    let apart =
        [route("\"GET\"", "/a"), route("\"*\"", "/a"), route("\"GET\"", "/a/"), route("\"GET\"", "/{a}")];
    assert_eq!(table(&apart.concat()).routes().len(), 4);
}

#[test]
fn limits_on_routes_and_fields_hold() {
    let fields: Vec<String> = (0..=CONTEXT_FIELDS_MAX).map(|n| format!("f{n} = \"request.path\"")).collect();
    let text = format!("{IDENTITY}{}context = {{ {} }}\n", route("\"GET\"", "/a"), fields.join(", "));
    assert_eq!(kinds(&text), [FaultKind::TooMany { what: "context fields", max: CONTEXT_FIELDS_MAX }]);
    let big = " ".repeat(ROUTES_FILE_BYTES_MAX + 1);
    assert_eq!(kinds(&big), [FaultKind::TooMany { what: "bytes", max: ROUTES_FILE_BYTES_MAX }]);
    let noisy: String = (0..500).map(|n| format!("k{n} = 1\n")).collect();
    assert_eq!(faults(&noisy).len(), FAULTS_MAX);
}

struct Schema;

impl SchemaCheck for Schema {
    fn principal_type(&mut self, entity_type: &str) -> Result<(), String> {
        if entity_type == "Workload" { Ok(()) } else { Err(format!("`{entity_type}` is not in the schema")) }
    }

    fn route(&mut self, route: &Route) -> Result<(), String> {
        if route.action().id == "a" { Ok(()) } else { Err("no such action".to_owned()) }
    }

    fn field(&mut self, _: &Route, field: &ContextField) -> Result<FieldType, String> {
        match field.name.as_str() {
            "limit" => Ok(FieldType::Long),
            "tenant" => Ok(FieldType::String),
            other => Err(format!("no field `{other}`")),
        }
    }
}

#[test]
fn the_schema_types_the_fields() {
    let text = route("\"GET\"", "/a") + "context = { limit = \"query.limit\", tenant = \"header.t\" }\n";
    let table = table(&text).check(&mut Schema).unwrap();
    let types: Vec<_> = table.routes()[0].context().iter().map(|field| field.field_type).collect();
    assert_eq!(types, [FieldType::Long, FieldType::String]);
    assert!(!table.routes()[0].context()[0].source.always_present());
}

#[test]
fn the_schema_refuses_with_every_place() {
    let error = RouteTable::parse("routes.toml", FULL).unwrap().check(&mut Schema).unwrap_err();
    let lines: Vec<_> = error.faults.iter().map(|fault| fault.line).collect();
    // Two unknown principal types, the type behind a delegation, and three routes with unknown actions.
    assert_eq!(lines, [7, 11, 14, 17, 25, 31]);
    let text = format!("{IDENTITY}{}context = {{ odd = \"query.x\" }}\n", route("\"GET\"", "/a"));
    let error = RouteTable::parse("routes.toml", &text).unwrap().check(&mut Schema).unwrap_err();
    assert_eq!(error.faults[0].kind, FaultKind::Schema("no field `odd`".to_owned()));
    assert_eq!(text.get(error.faults[0].span.clone()), Some("\"query.x\""));
}

#[test]
fn the_longest_chain_of_competing_patterns_stays_cheap() {
    // Every request segment fits both a literal and a parameter, and all branches die at the end.
    let mut text = String::new();
    for bits in 0..(1_u32 << 10) {
        let path: String = (0..10)
            .map(|bit| if bits >> bit & 1 == 1 { "/a".to_owned() } else { format!("/{{p{bit}}}") })
            .collect();
        text.push_str(&route("\"GET\"", &format!("{path}/end")));
    }
    let table = table(&text);
    assert!(table.find("GET", "", &("/a".repeat(10) + "/other")).is_err());
    assert!(table.find("GET", "", &("/a".repeat(10) + "/end")).is_ok());
}

#[test]
fn the_documented_example_does_what_the_page_says() {
    let page = include_str!("../../../docs/ext_authz.md");
    let example = page.split("```toml\n").nth(1).and_then(|after| after.split("```").next()).unwrap();
    let table = RouteTable::parse("routes.toml", example).unwrap_or_else(|error| panic!("{error}"));
    let found = table.find("GET", "any", "/db/sales/tables/orders?limit=10").unwrap();
    assert_eq!(
        (found.route.resource_type().as_str(), found.resource_id().as_str()),
        ("Table", "sales/orders")
    );
    assert_eq!(found.query("limit").unwrap().as_deref(), Some("10"));
    assert_eq!(table.find("PUT", "files.example.com:443", "/files/a/b").unwrap().resource_id(), "a/b");
    assert!(table.find("PUT", "elsewhere", "/files/a/b").is_err());
}

// ---- properties ----

/// A second, independent reading of the rules: true if the path must never match.
fn doubtful(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let lower = path.to_ascii_lowercase();
    let bad_letter = path.bytes().any(|byte| byte <= b' ' || byte >= 0x7f || byte == b'\\' || byte == b';');
    let bad_escape = ["%2f", "%5c", "%00", "%0a", "%0d", "%7f", "%3b", "%252e", "%252f", "%c0%ae", "%ff"]
        .iter()
        .any(|escape| lower.contains(escape));
    let dots: BTreeSet<&str> = [".", ".."].into();
    let dot_segment = lower.split('/').any(|segment| dots.contains(segment.replace("%2e", ".").as_str()));
    let broken = path.match_indices('%').any(|(at, _)| {
        !path.as_bytes().get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    !path.starts_with('/')
        || path.contains("//")
        || target.contains('#')
        || path.len() > PATH_BYTES_MAX
        || bad_letter
        || bad_escape
        || dot_segment
        || broken
}

/// Matches every path that is in normal form.
fn catch_all() -> RouteTable {
    table(&[route("\"*\"", "/"), route("\"*\"", "/{r...}"), route("\"*\"", "/{r...}/")].concat())
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z]{1,4}",
        3 => prop::sample::select(vec![
            "/", "//", ".", "..", "%2e", "%2E", "%2f", "%5C", "\\", ";", ";x=1", "%", "%4", "%zz", "%00", "%0a", "\0",
            "\n", " ", "é", "%C3%A9", "%ff", "%c0%ae", "%25", "%252e", "%61", "?", "#", "?a=b", "%3b", "%7f", "..."
        ])
        .prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_doubtful_path_never_matches(pieces in prop::collection::vec(piece(), 0..12), rooted: bool) {
        let target = format!("{}{}", if rooted { "/" } else { "" }, pieces.concat());
        let table = catch_all();
        let found = table.find("GET", "h", &target);
        if doubtful(&target) {
            prop_assert!(found.is_err(), "{target:?}");
        } else if let Err(error) = found {
            // The independent reading is coarser; what it lets through may still fall to these finer rules.
            prop_assert!(
                matches!(error, MatchError::Target(TargetError::EncodedTwice | TargetError::NotUtf8 | TargetError::Control)),
                "{target:?}: {error}"
            );
        }
    }

    #[test]
    fn captured_values_hold_nothing_that_could_be_read_twice(pieces in prop::collection::vec(piece(), 1..8)) {
        let table = table(&route("\"*\"", "/{only}"));
        let target = format!("/{}", pieces.concat());
        if let Ok(found) = table.find("GET", "", &target) {
            let value = found.param("only").unwrap();
            prop_assert!(!value.is_empty() && value != "." && value != "..");
            prop_assert!(!value.contains(['/', '\\', ';']) && !value.contains(char::is_control));
        }
    }

    #[test]
    fn find_and_query_never_panic(method: String, host: String, target: String, name: String) {
        let table = catch_all();
        if let Ok(found) = table.find(&method, &host, &target) {
            let _ = (found.resource_id(), found.query(&name));
        }
        let _ = query_value(&target, &name);
    }

    #[test]
    fn parse_never_panics_and_faults_have_places(text in "(\\[+[a-z.]{0,8}\\]+|[a-z]{1,8} = (\"[^\"\n]{0,12}\"|\\[\\]|1|\\{\\}))(\n(\\[+(identity|route|identity\\.jwt)\\]+|(sources|method|path|action|resource|context|type) = (\"[^\"\n]{0,12}\"|\\[\"[a-z*]{0,4}\"\\]|1|\\{ type = \"[A-Z:]{0,4}\", id = \"[a-z{}/]{0,6}\" \\}))){0,12}") {
        if let Err(error) = RouteTable::parse("routes.toml", &text) {
            prop_assert!(!error.faults.is_empty());
            for fault in error.faults {
                prop_assert!(fault.span.end <= text.len() && fault.line >= 1 && fault.column >= 1);
            }
        }
    }

    #[test]
    fn the_most_specific_route_wins_whatever_the_order(seed in prop::collection::vec(any::<u32>(), 6), target in "(/[ab]){1,4}") {
        let patterns = ["/a/b", "/a/{x}", "/{x}/b", "/{x}/{y}", "/a/{r...}", "/{r...}"];
        let mut order: Vec<usize> = (0..patterns.len()).collect();
        order.sort_by_key(|&index| seed[index]);
        let shuffled: String = order.iter().map(|&index| route("\"GET\"", patterns[index])).collect();
        let straight: String = patterns.iter().map(|path| route("\"GET\"", path)).collect();
        let (shuffled, straight) = (table(&shuffled), table(&straight));
        let path = |table: &RouteTable| table.find("GET", "", &target).map(|found| found.route.path().clone());
        prop_assert_eq!(path(&shuffled), path(&straight));
        // The list above is written in order of rank: the first that fits is the winner.
        let fits = |pattern: &str| {
            let segments: Vec<_> = target.split('/').skip(1).collect();
            let wanted: Vec<_> = pattern.split('/').skip(1).collect();
            let rest = wanted.last().is_some_and(|last| last.ends_with("...}"));
            (segments.len() == wanted.len() || rest && segments.len() >= wanted.len())
                && wanted.iter().zip(&segments).all(|(want, have)| want.starts_with('{') || want == have)
        };
        let first = patterns.iter().find(|pattern| fits(pattern)).unwrap();
        let won = path(&straight).unwrap();
        prop_assert_eq!(won.as_str(), *first);
    }
}
