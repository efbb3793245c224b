//! What can be wrong with a `routes.toml`: every fault with its place and what to do.
//!
//! All of these are the bundle author's fault. Faults are gathered, never only the first one; at most 100 are kept.

use std::{fmt, ops::Range, sync::Arc};

use miette::{Diagnostic, NamedSource, SourceSpan};

use super::pattern::PatternError;

/// Most faults reported for one file; beyond it the file is not worth listing.
pub const FAULTS_MAX: usize = 100;

/// A refused `routes.toml`: at least one fault, in the order of the file.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{}", self.summary())]
pub struct RoutesError {
    /// Every fault found.
    #[related]
    pub faults: Vec<RouteFault>,
}

/// One fault and its place.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}:{}:{}: {kind}", self.file(), self.line, self.column)]
pub struct RouteFault {
    /// What is wrong.
    pub kind: FaultKind,
    /// Where, in bytes from the start of the file.
    pub span: Range<usize>,
    /// Line of the start, from 1.
    pub line: usize,
    /// Column of the start in characters, from 1.
    pub column: usize,
    /// The earlier place that this one contradicts.
    pub other: Option<Range<usize>>,
    source_code: NamedSource<Arc<str>>,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// Not TOML.
    #[error("{0}")]
    Toml(String),
    /// A key that means nothing here.
    #[error("unknown key `{key}`")]
    UnknownKey {
        /// As written.
        key: String,
        /// Keys that would be understood.
        expected: String,
    },
    /// A key that must be there.
    #[error("missing key `{0}`")]
    MissingKey(&'static str),
    /// A value of another TOML type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What would be understood.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// `[identity]` is missing.
    #[error("no `[identity]` table, so no caller could ever be known")]
    NoIdentity,
    /// A source that does not exist, twice, or whose table is missing; or a table that no source uses.
    #[error("{0}")]
    Source(String),
    /// Not a Cedar type name.
    #[error("`{0}` is not an entity type name")]
    TypeName(String),
    /// An action type that is not `Action` or `Some::Namespace::Action`.
    #[error("`{0}` is not an action type")]
    ActionType(String),
    /// An empty, over-long or quoted id or name.
    #[error("`{0}` is not usable as {1}")]
    Text(String, &'static str),
    /// Not a method token.
    #[error("`{0}` is not a method")]
    Method(String),
    /// Not a host name.
    #[error("`{0}` is not a host name")]
    Host(String),
    /// Not a trust domain.
    #[error("`{0}` is not a SPIFFE trust domain")]
    TrustDomain(String),
    /// A faulty path or id template.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A context source that does not exist.
    #[error("`{0}` is not a source of a context value")]
    ContextSource(String),
    /// A header whose value must not reach records.
    #[error("header `{0}` carries secrets, and what policy reads is recorded")]
    SecretHeader(String),
    /// Two routes that would match the same requests with the same rank.
    #[error("same method, path and host as the route on line {line}")]
    Duplicate {
        /// Line of the earlier route.
        line: usize,
    },
    /// More than a limit allows.
    #[error("more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// The bundle's schema does not fit; the text comes from the caller of `resolve_types`.
    #[error("{0}")]
    Schema(String),
}

impl FaultKind {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Toml(_) => "correct the TOML syntax here".to_owned(),
            Self::UnknownKey { expected, .. } => format!("known here: {expected}"),
            Self::MissingKey(key) => format!("add `{key} = …`"),
            Self::WrongType { expected, .. } => format!("write {expected}"),
            Self::NoIdentity => "add `[identity]` with `sources = [\"mtls\"]` and `[identity.mtls]`".to_owned(),
            Self::Source(_) => {
                "list each of \"jwt\", \"xfcc\", \"mtls\" at most once, and give each its `[identity.NAME]` table"
                    .to_owned()
            }
            Self::TypeName(_) => "write names joined by `::`, for example `Acme::Agent`".to_owned(),
            Self::ActionType(_) => "an action's type ends in `Action`: `Action` or `Acme::Action`".to_owned(),
            Self::Text(_, what) => format!("give {what} of 1 to 256 bytes, without quotes or control characters"),
            Self::Method(_) => "write it in capitals, for example \"GET\", or \"*\" for any".to_owned(),
            Self::Host(_) => "write the name alone in lower case, without scheme, port or final dot".to_owned(),
            Self::TrustDomain(_) => "use `a-z`, `0-9`, `.`, `-` and `_`, without `spiffe://`".to_owned(),
            Self::Pattern(error) => error.help().to_owned(),
            Self::ContextSource(_) => "write `path.NAME`, `query.NAME`, `header.NAME`, `request.method`, \
                                       `request.host` or `request.path`"
                .to_owned(),
            Self::SecretHeader(_) => "read what you need from `[identity.jwt]` claims instead".to_owned(),
            Self::Duplicate { .. } => "remove one of the two, or tell them apart by method, path or host".to_owned(),
            Self::TooMany { .. } => "split or simplify the table".to_owned(),
            Self::Schema(_) => "make the route and the schema agree".to_owned(),
        }
    }
}

impl RoutesError {
    fn summary(&self) -> Faults<'_> {
        Faults(&self.faults)
    }
}

/// Prints every fault with its help, one per line.
struct Faults<'a>(&'a [RouteFault]);

impl fmt::Display for Faults<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{fault} ({})", fault.kind.help())?;
        }
        Ok(())
    }
}

impl RouteFault {
    /// The file as it was named to the parser.
    #[must_use]
    pub fn file(&self) -> &str {
        self.source_code.name()
    }
}

impl Diagnostic for RouteFault {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.kind.help()))
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source_code)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let here =
            miette::LabeledSpan::new_with_span(Some("here".to_owned()), SourceSpan::from(self.span.clone()));
        let there = self.other.clone().map(|other| {
            miette::LabeledSpan::new_with_span(Some("and here".to_owned()), SourceSpan::from(other))
        });
        Some(Box::new(std::iter::once(here).chain(there)))
    }
}

/// Gathers faults while a file is read.
#[derive(Debug)]
pub(super) struct Faultbook {
    source_code: NamedSource<Arc<str>>,
    text: Arc<str>,
    faults: Vec<RouteFault>,
}

impl Faultbook {
    pub(super) fn new(file: &str, text: &str) -> Self {
        let text: Arc<str> = Arc::from(text);
        Self { source_code: NamedSource::new(file, Arc::clone(&text)), text, faults: Vec::new() }
    }

    pub(super) fn report(&mut self, span: Range<usize>, kind: impl Into<FaultKind>) {
        self.push(span, kind.into(), None);
    }

    pub(super) fn report_pair(&mut self, span: Range<usize>, other: Range<usize>, kind: FaultKind) {
        self.push(span, kind, Some(other));
    }

    fn push(&mut self, span: Range<usize>, kind: FaultKind, other: Option<Range<usize>>) {
        if self.faults.len() < FAULTS_MAX {
            let (line, column) = self.place(span.start);
            let source_code = self.source_code.clone();
            self.faults.push(RouteFault { kind, span, line, column, other, source_code });
        }
    }

    /// Line and column of a byte offset, both from 1.
    pub(super) fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).map_or(0, |line| line.chars().count());
        (before.matches('\n').count() + 1, column + 1)
    }

    /// `value` if nothing was wrong.
    pub(super) fn close<T>(self, value: T) -> Result<T, RoutesError> {
        if self.faults.is_empty() { Ok(value) } else { Err(self.refuse()) }
    }

    /// The faults, in the order of the file.
    pub(super) fn refuse(mut self) -> RoutesError {
        self.faults.sort_by_key(|fault| fault.span.start);
        RoutesError { faults: self.faults }
    }
}
