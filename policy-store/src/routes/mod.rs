//! The route table: what an HTTP request means as an access attempt.
//!
//! Compiles a bundle's `routes.toml` into an immutable [`RouteTable`] and finds the one route of a request. Owns the
//! file's grammar, its precedence rules and the normal form of paths. Limits: file 4 MiB, 20,000 routes, 64 context
//! fields a route; more beside each part. Never normalises a request and never guesses: no route, or a request that
//! two readers could understand differently, is an error that the caller turns into deny. Uses no regular
//! expression; knows no transport: a door hands in method, host and target as text.

mod error;
mod identity;
mod parse;
mod pattern;
mod query;
mod reader;
mod target;
mod trie;
mod value;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, ops::Range};

use smallvec::SmallVec;
use smol_str::SmolStr;

use self::{
    error::Faultbook,
    pattern::{Pattern, Template},
    trie::Trie,
};
pub use self::{
    error::{FAULTS_MAX, FaultKind, RouteFault, RoutesError},
    identity::{CertIdentity, IdentityConfig, IdentitySource, JwtIdentity},
    pattern::{PATTERN_BYTES_MAX, PATTERN_SEGMENTS_MAX, PatternError},
    query::{QUERY_PARAMETERS_MAX, QueryError, query_value},
    target::{PATH_BYTES_MAX, QUERY_BYTES_MAX, TARGET_SEGMENTS_MAX, Target, TargetError},
    value::{ConvertError, FieldType, RawValue, VALUE_BYTES_MAX, convert},
};

/// Largest `routes.toml`, in bytes.
pub const ROUTES_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most routes in one table: ten times the largest public API descriptions.
pub const ROUTES_MAX: usize = 20_000;
/// Most context fields of one route; as many as an attempt may carry.
pub const CONTEXT_FIELDS_MAX: usize = 64;

/// Captured parameters, in the order of the path; up to 8 live on the stack.
pub type Params<'r> = SmallVec<[Cow<'r, str>; 8]>;

/// An immutable table of routes.
#[derive(Debug)]
pub struct RouteTable {
    identity: IdentityConfig,
    /// Entity types that `[identity]` names, with their places.
    identity_types: Vec<(SmolStr, Range<usize>)>,
    routes: Vec<Route>,
    trie: Trie,
    file: String,
    text: String,
}

/// One `[[route]]`.
#[derive(Debug, Clone)]
pub struct Route {
    index: usize,
    methods: SmallVec<[SmolStr; 2]>,
    path: SmolStr,
    pattern: Pattern,
    host: Option<SmolStr>,
    action: ActionName,
    resource_type: SmolStr,
    resource_id: Template,
    context: Vec<ContextField>,
    span: Range<usize>,
}

/// A Cedar action: `Acme::Action::"read"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionName {
    /// `Action`, or a namespace and `Action`.
    pub action_type: SmolStr,
    /// Id.
    pub id: SmolStr,
}

/// One field of the request context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextField {
    /// Name in Cedar's context.
    pub name: SmolStr,
    /// Where its value comes from.
    pub source: ValueSource,
    /// What the schema says it is; `String` until [`RouteTable::check`] has asked.
    pub field_type: FieldType,
    span: Range<usize>,
}

/// Where a context value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// A captured path parameter; always there.
    PathParam {
        /// Position among the parameters of the path.
        index: usize,
        /// As the path calls it.
        name: SmolStr,
    },
    /// A query parameter; may be missing.
    Query(SmolStr),
    /// A request header, name in lower case; may be missing.
    Header(SmolStr),
    /// The method.
    Method,
    /// The host, lower case, without port.
    Host,
    /// The path as it was sent, without the query.
    Path,
}

impl ValueSource {
    /// False if a request may match the route without carrying this value; the schema's field must then be optional.
    #[must_use]
    pub fn always_present(&self) -> bool {
        !matches!(self, Self::Query(_) | Self::Header(_))
    }
}

/// What a bundle's schema has to say about a table; asked once, at load.
pub trait SchemaCheck {
    /// Is this a declared entity type? It is what a caller will be.
    ///
    /// # Errors
    /// With a sentence for the bundle author.
    fn principal_type(&mut self, entity_type: &str) -> Result<(), String>;

    /// Are the action and the resource type declared, and do they go together?
    ///
    /// # Errors
    /// With a sentence for the bundle author.
    fn route(&mut self, route: &Route) -> Result<(), String>;

    /// What type has this field in the action's context?
    ///
    /// # Errors
    /// With a sentence for the bundle author, if the field is not declared or has a type that text cannot give.
    fn field(&mut self, route: &Route, field: &ContextField) -> Result<FieldType, String>;
}

/// Why a request has no route. The caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// The path is not in normal form.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// No route matches.
    #[error("no route matches")]
    NoRoute,
}

/// The route of one request, with what its path captured.
#[derive(Debug)]
pub struct RouteMatch<'t, 'r> {
    /// The route.
    pub route: &'t Route,
    params: Params<'r>,
    path: &'r str,
    query: Option<&'r str>,
    host: Cow<'r, str>,
}

impl RouteTable {
    /// Reads a `routes.toml`. `file` only names it in faults.
    ///
    /// # Errors
    /// With every fault of the file.
    pub fn parse(file: &str, text: &str) -> Result<Self, RoutesError> {
        parse::parse(file, text)
    }

    /// Checks the table against a schema and learns the type of each context field.
    ///
    /// # Errors
    /// With every disagreement and its place in the file.
    pub fn check(mut self, schema: &mut impl SchemaCheck) -> Result<Self, RoutesError> {
        let mut book = Faultbook::new(&self.file, &self.text);
        for (entity_type, span) in &self.identity_types {
            if let Err(why) = schema.principal_type(entity_type) {
                book.report(span.clone(), FaultKind::Schema(why));
            }
        }
        for route in &mut self.routes {
            if let Err(why) = schema.route(route) {
                book.report(route.span.clone(), FaultKind::Schema(why));
                continue;
            }
            let answers: Vec<_> = route.context.iter().map(|field| schema.field(route, field)).collect();
            for (field, answer) in route.context.iter_mut().zip(answers) {
                match answer {
                    Ok(field_type) => field.field_type = field_type,
                    Err(why) => book.report(field.span.clone(), FaultKind::Schema(why)),
                }
            }
        }
        book.close(self)
    }

    /// Who is calling, as the bundle says to find out.
    #[must_use]
    pub fn identity(&self) -> &IdentityConfig {
        &self.identity
    }

    /// The file that it was read from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The routes, in the order of the file.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Finds the most specific route of a request. `host` may carry a port; `target` may carry a query.
    ///
    /// # Errors
    /// If the target is not in normal form or no route matches.
    pub fn find<'t, 'r>(
        &'t self,
        method: &str,
        host: &'r str,
        target: &'r str,
    ) -> Result<RouteMatch<'t, 'r>, MatchError> {
        let target = Target::parse(target)?;
        let host = plain_host(host);
        let index = self.trie.find(target.segments(), target.trailing_slash(), method, &host);
        let route = index.and_then(|index| self.routes.get(index)).ok_or(MatchError::NoRoute)?;
        let params = route.pattern.capture(target.segments());
        Ok(RouteMatch { route, params, path: target.path(), query: target.query(), host })
    }
}

impl Route {
    /// Position in the file, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Methods it serves; empty: any.
    #[must_use]
    pub fn methods(&self) -> &[SmolStr] {
        &self.methods
    }

    /// Path pattern as written; a low-cardinality name of the route.
    #[must_use]
    pub fn path(&self) -> &SmolStr {
        &self.path
    }

    /// Host it serves; `None`: any.
    #[must_use]
    pub fn host(&self) -> Option<&SmolStr> {
        self.host.as_ref()
    }

    /// What the request does.
    #[must_use]
    pub fn action(&self) -> &ActionName {
        &self.action
    }

    /// Entity type of what it does it to.
    #[must_use]
    pub fn resource_type(&self) -> &SmolStr {
        &self.resource_type
    }

    /// Fields of the request context.
    #[must_use]
    pub fn context(&self) -> &[ContextField] {
        &self.context
    }

    /// Place in the file, in bytes.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}

impl<'r> RouteMatch<'_, 'r> {
    /// Id of the resource, from the route's template.
    #[must_use]
    pub fn resource_id(&self) -> SmolStr {
        self.route.resource_id.fill(&self.params)
    }

    /// Captured parameters, in the order of the path.
    #[must_use]
    pub fn params(&self) -> &[Cow<'r, str>] {
        &self.params
    }

    /// Captured parameter by name.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        let index = self.route.pattern.params().position(|param| param == name)?;
        self.params.get(index).map(AsRef::as_ref)
    }

    /// Query parameter by name.
    ///
    /// # Errors
    /// If two readers could disagree on its value.
    pub fn query(&self, name: &str) -> Result<Option<Cow<'r, str>>, QueryError> {
        self.query.map_or(Ok(None), |query| query_value(query, name))
    }

    /// Path as it was sent, without the query.
    #[must_use]
    pub fn path(&self) -> &'r str {
        self.path
    }

    /// Host in lower case, without port and final dot.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// Lower case, without port and without the final dot of a fully qualified name: `API.example.com.:8443` is the
/// same host as `api.example.com`, so that no spelling escapes from a host's own routes.
fn plain_host(host: &str) -> Cow<'_, str> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}
