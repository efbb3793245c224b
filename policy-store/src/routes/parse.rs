//! Reads `routes.toml`: TOML text in, [`RouteTable`] or every fault out.
//!
//! Walks the parsed document by hand instead of deserialising it, so that each fault has a place and none hides
//! another. Never keeps a route that has a fault.

use std::ops::Range;

use smallvec::SmallVec;
use smol_str::SmolStr;
use toml::de::{DeTable, DeValue};

use super::{
    ActionName, CONTEXT_FIELDS_MAX, CertIdentity, ContextField, FieldType, IdentityConfig, IdentitySource,
    JwtIdentity, ROUTES_FILE_BYTES_MAX, ROUTES_MAX, Route, RouteTable, RoutesError, ValueSource,
    error::{FaultKind, Faultbook},
    pattern::{Pattern, PatternError, Template},
    reader::{
        TEXT_BYTES_MAX, Table, is_header_name, is_plain_text, is_trust_domain, is_type_name, keep, text_of,
    },
    trie::Trie,
};

/// Headers that carry secrets; what policy reads ends up in records.
const SECRET_HEADERS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

pub(super) fn parse(file: &str, text: &str) -> Result<RouteTable, RoutesError> {
    let mut book = Faultbook::new(file, text);
    if text.len() > ROUTES_FILE_BYTES_MAX {
        book.report(0..0, FaultKind::TooMany { what: "bytes", max: ROUTES_FILE_BYTES_MAX });
        return Err(book.refuse());
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        book.report(error.span().unwrap_or(0..0), FaultKind::Toml(error.message().to_owned()));
    }
    if !errors.is_empty() {
        // What the author meant is unknown from here on; faults found in the remains would mislead.
        return Err(book.refuse());
    }
    let table = read_root(file, text, root.get_ref(), &mut book);
    book.close(table)
}

fn read_root(file: &str, text: &str, root: &DeTable<'_>, book: &mut Faultbook) -> RouteTable {
    let root = Table::root(root);
    root.only(&["identity", "route"], book);
    let mut identity_types = Vec::new();
    let identity = match root.table("identity", book) {
        Some(table) => read_identity(&table, &mut identity_types, book),
        None => {
            if root.get("identity").is_none() {
                book.report(0..0, FaultKind::NoIdentity);
            }
            IdentityConfig::default()
        }
    };
    let routes = read_routes(&root, book);
    let trie = index_routes(&routes, book);
    RouteTable { identity, identity_types, routes, trie, file: file.to_owned(), text: text.to_owned() }
}

// ---- identity ----

fn read_identity(
    table: &Table<'_, '_>,
    types: &mut Vec<(SmolStr, Range<usize>)>,
    book: &mut Faultbook,
) -> IdentityConfig {
    table.only(&["sources", "jwt", "xfcc", "mtls"], book);
    let listed = table.texts("sources", book).unwrap_or_default();
    if listed.is_empty() && table.get("sources").is_none_or(|value| value.get_ref().is_array()) {
        book.report(
            table.span.clone(),
            FaultKind::Source("`sources` names no source of identity".to_owned()),
        );
    }
    let mut sources = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (name, span) in listed {
        if seen.contains(&name) {
            book.report(span, FaultKind::Source(format!("source `{name}` is listed twice")));
            continue;
        }
        seen.push(name);
        if !matches!(name, "jwt" | "xfcc" | "mtls") {
            book.report(span, FaultKind::Source(format!("`{name}` is not a source of identity")));
            continue;
        }
        if table.get(name).is_none() {
            book.report(span, FaultKind::Source(format!("source `{name}` has no `[identity.{name}]` table")));
            continue;
        }
        let Some(own) = table.table(name, book) else { continue };
        sources.extend(match name {
            "jwt" => read_jwt(&own, types, book).map(IdentitySource::Jwt),
            "xfcc" => read_cert(&own, types, book).map(IdentitySource::Xfcc),
            _ => read_cert(&own, types, book).map(IdentitySource::Mtls),
        });
    }
    for name in ["jwt", "xfcc", "mtls"] {
        if let Some(value) = table.get(name).filter(|_| !seen.contains(&name)) {
            let what = format!("`[identity.{name}]` is not listed in `sources`");
            book.report(value.span(), FaultKind::Source(what));
        }
    }
    IdentityConfig { sources }
}

fn read_cert(
    table: &Table<'_, '_>,
    types: &mut Vec<(SmolStr, Range<usize>)>,
    book: &mut Faultbook,
) -> Option<CertIdentity> {
    table.only(&["type", "trust_domains"], book);
    let mut trust_domains = Vec::new();
    for (name, span) in table.texts("trust_domains", book).unwrap_or_default() {
        if is_trust_domain(name) {
            trust_domains.push(SmolStr::new(name));
        } else {
            book.report(span, FaultKind::TrustDomain(name.to_owned()));
        }
    }
    let entity_type = table.type_name("type", types, book)?;
    Some(CertIdentity { entity_type, trust_domains })
}

fn read_jwt(
    table: &Table<'_, '_>,
    types: &mut Vec<(SmolStr, Range<usize>)>,
    book: &mut Faultbook,
) -> Option<JwtIdentity> {
    table.only(&["payload", "type", "claim", "session_claim", "delegation_type", "issuers"], book);
    let payload = table.required_name("payload", "a metadata key", book);
    let entity_type = table.type_name("type", types, book);
    let claim = table.required_name("claim", "a claim name", book);
    let session_claim = table.name("session_claim", "a claim name", book);
    let delegation_type = match table.get("delegation_type") {
        Some(_) => table.type_name("delegation_type", types, book),
        None => None,
    };
    let issuers = table.texts("issuers", book).unwrap_or_default();
    Some(JwtIdentity {
        payload: payload?,
        entity_type: entity_type?,
        claim: claim?,
        session_claim,
        delegation_type,
        issuers: issuers.into_iter().map(|(issuer, _)| SmolStr::new(issuer)).collect(),
    })
}

// ---- routes ----

fn read_routes(root: &Table<'_, '_>, book: &mut Faultbook) -> Vec<Route> {
    let mut routes = Vec::new();
    let Some(value) = root.get("route") else { return routes };
    let DeValue::Array(array) = value.get_ref() else {
        let found = value.get_ref().type_str();
        book.report(value.span(), FaultKind::WrongType { expected: "`[[route]]` tables", found });
        return routes;
    };
    for (index, value) in array.iter().enumerate() {
        if index == ROUTES_MAX {
            book.report(value.span(), FaultKind::TooMany { what: "routes", max: ROUTES_MAX });
            break;
        }
        if let Some(table) = Table::of(value, book) {
            routes.extend(read_route(&table, routes.len(), book));
        }
    }
    routes
}

fn read_route(table: &Table<'_, '_>, index: usize, book: &mut Faultbook) -> Option<Route> {
    table.only(&["method", "path", "host", "action", "resource", "context"], book);
    let methods = read_methods(table, book);
    let path = table.required_text("path", book);
    let pattern = path.as_ref().and_then(|(text, span)| keep(Pattern::parse(text), span, book));
    let host = read_host(table, book);
    let action = read_action(table, book);
    let params: Option<Vec<SmolStr>> = pattern.as_ref().map(|pattern| pattern.params().cloned().collect());
    let resource = read_resource(table, params.as_deref(), book);
    let context = read_context(table, params.as_deref(), book);
    let (resource_type, resource_id) = resource?;
    Some(Route {
        index,
        methods: methods?,
        path: SmolStr::new(path?.0),
        pattern: pattern?,
        host: host?,
        action: action?,
        resource_type,
        resource_id,
        context: context?,
        span: table.span.clone(),
    })
}

/// An empty list means any method.
fn read_methods(table: &Table<'_, '_>, book: &mut Faultbook) -> Option<SmallVec<[SmolStr; 2]>> {
    let value = table.required("method", book)?;
    if value.get_ref().as_str() == Some("*") {
        return Some(SmallVec::new());
    }
    let listed = match value.get_ref().as_str() {
        Some(text) => vec![(text, value.span())],
        None => table.texts("method", book)?,
    };
    if listed.is_empty() {
        book.report(value.span(), FaultKind::Method(String::new()));
        return None;
    }
    let mut methods = SmallVec::new();
    let mut good = true;
    for (method, span) in listed {
        let plain = method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-' || byte == b'_');
        if method.is_empty() || method.len() > TEXT_BYTES_MAX || !plain {
            book.report(span, FaultKind::Method(method.to_owned()));
            good = false;
        }
        methods.push(SmolStr::new(method));
    }
    good.then_some(methods)
}

/// Outer `None`: there was a fault.
#[expect(clippy::option_option, reason = "absent and faulty are two things, and only here")]
fn read_host(table: &Table<'_, '_>, book: &mut Faultbook) -> Option<Option<SmolStr>> {
    if table.get("host").is_none() {
        return Some(None);
    }
    let (host, span) = table.text("host", book)?;
    let label =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_');
    let ipv6 = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let good = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => {
            !address.is_empty() && host == host.to_ascii_lowercase() && address.bytes().all(ipv6)
        }
        None => !host.is_empty() && host.bytes().all(label) && !host.ends_with('.'),
    };
    if !good || host.len() > TEXT_BYTES_MAX {
        book.report(span, FaultKind::Host(host.to_owned()));
        return None;
    }
    Some(Some(SmolStr::new(host)))
}

/// `action = "read"`, or `action = { type = "Acme::Action", id = "read" }`.
fn read_action(table: &Table<'_, '_>, book: &mut Faultbook) -> Option<ActionName> {
    let value = table.required("action", book)?;
    if value.get_ref().is_str() {
        let id = table.required_name("action", "an action id", book)?;
        return Some(ActionName { action_type: SmolStr::new_static("Action"), id });
    }
    let own = Table::of(value, book)?;
    own.only(&["type", "id"], book);
    let id = own.required_name("id", "an action id", book);
    let (action_type, span) = own.required_text("type", book)?;
    let last = action_type.rsplit("::").next();
    if last != Some("Action") || !is_type_name(action_type) {
        book.report(span, FaultKind::ActionType(action_type.to_owned()));
        return None;
    }
    Some(ActionName { action_type: SmolStr::new(action_type), id: id? })
}

/// `params`: what the path captures; `None` if the path is faulty, and then names are not held against it.
fn read_resource(
    table: &Table<'_, '_>,
    params: Option<&[SmolStr]>,
    book: &mut Faultbook,
) -> Option<(SmolStr, Template)> {
    let value = table.required("resource", book)?;
    let own = Table::of(value, book)?;
    own.only(&["type", "id"], book);
    let resource_type = own.type_name("type", &mut Vec::new(), book);
    let (id, span) = own.required_text("id", book)?;
    let template = keep(Template::parse(id, params?), &span, book)?;
    Some((resource_type?, template))
}

fn read_context(
    table: &Table<'_, '_>,
    params: Option<&[SmolStr]>,
    book: &mut Faultbook,
) -> Option<Vec<ContextField>> {
    let Some(value) = table.get("context") else { return Some(Vec::new()) };
    let own = Table::of(value, book)?;
    if own.table.len() > CONTEXT_FIELDS_MAX {
        book.report(own.span, FaultKind::TooMany { what: "context fields", max: CONTEXT_FIELDS_MAX });
        return None;
    }
    let mut fields = Vec::new();
    for (name, value) in own.table {
        let text = name.get_ref().as_ref();
        if !is_plain_text(text) {
            book.report(name.span(), FaultKind::Text(text.to_owned(), "a context field name"));
            continue;
        }
        let Some((source, span)) = text_of(value, book) else { continue };
        if let Some(source) = keep(read_source(source, params), &span, book) {
            fields.push(ContextField {
                name: SmolStr::new(text),
                source,
                field_type: FieldType::String,
                span,
            });
        }
    }
    (fields.len() == own.table.len()).then_some(fields)
}

fn read_source(text: &str, params: Option<&[SmolStr]>) -> Result<ValueSource, FaultKind> {
    match text.split_once('.') {
        Some(("path", name)) => {
            let index = match params {
                Some(params) => params.iter().position(|param| param == name),
                None => Some(0),
            };
            let unknown = || PatternError::UnknownParam(name.to_owned()).into();
            index.map(|index| ValueSource::PathParam { index, name: SmolStr::new(name) }).ok_or_else(unknown)
        }
        Some(("query", name)) if is_plain_text(name) => Ok(ValueSource::Query(SmolStr::new(name))),
        Some(("header", name)) if is_header_name(name) => {
            let name = name.to_ascii_lowercase();
            if SECRET_HEADERS.contains(&name.as_str()) {
                return Err(FaultKind::SecretHeader(name));
            }
            Ok(ValueSource::Header(SmolStr::new(name)))
        }
        Some(("request", "method")) => Ok(ValueSource::Method),
        Some(("request", "host")) => Ok(ValueSource::Host),
        Some(("request", "path")) => Ok(ValueSource::Path),
        _ => Err(FaultKind::ContextSource(text.to_owned())),
    }
}

fn index_routes(routes: &[Route], book: &mut Faultbook) -> Trie {
    let mut trie = Trie::default();
    for route in routes {
        let host = route.host.as_ref();
        let holder = if route.methods.is_empty() {
            trie.insert(&route.pattern, None, host, route.index).err()
        } else {
            let mut insert = |method| trie.insert(&route.pattern, Some(method), host, route.index).err();
            route.methods.iter().find_map(&mut insert)
        };
        if let Some(earlier) = holder.and_then(|holder| routes.get(holder)) {
            let (line, _) = book.place(earlier.span.start);
            book.report_pair(route.span.clone(), earlier.span.clone(), FaultKind::Duplicate { line });
        }
    }
    trie
}
