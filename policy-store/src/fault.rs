//! What is wrong with a bundle: the rule that it breaks, the place, the fault, and what to do about it.
//!
//! A finding among thousands must cost no more than one alone: findings in the same file share its text, and lines are
//! found by search ([`SourceText`]).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};
use smol_str::SmolStr;

use crate::lint::rules::{self, Rule};

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The bundle cannot serve.
    Error,
    /// It can serve, and surely does not mean this.
    Warning,
    /// Worth a look.
    Note,
}

impl Severity {
    /// As output writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One fault, with its place in the source when there is one.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The rule that is broken, by its stable name; see [`crate::lint::rules`].
    pub id: &'static str,
    /// How much it weighs.
    pub severity: Severity,
    /// The file, relative to the bundle.
    pub file: PathBuf,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// Id of the policy that is at fault, for the loader to find its place.
    policy: Option<SmolStr>,
    place: Option<Box<Place>>,
}

#[derive(Clone, Debug)]
struct Place {
    start: Position,
    end: Position,
    source: NamedSource<Arc<str>>,
    span: SourceSpan,
}

/// A place in a text, both counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// The text of one file, shared by all findings in it.
#[derive(Clone, Debug)]
pub struct SourceText {
    text: Arc<str>,
    /// Byte offset of the start of each line.
    lines: Arc<[usize]>,
}

impl SourceText {
    /// Notes where the lines of a text begin.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text: text.into(), lines }
    }

    fn position(&self, offset: usize) -> Position {
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or("");
        Position { line, column: before.chars().count() + 1 }
    }
}

impl Fault {
    /// A fault of a whole file, which keeps the bundle from serving.
    pub fn new(file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self::of(&rules::BUNDLE_INVALID, file, message)
    }

    /// A finding of a rule in a whole file.
    pub fn of(rule: &'static Rule, file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        let help = rule.help.map(ToOwned::to_owned);
        Self {
            id: rule.id,
            severity: rule.severity,
            file: file.into(),
            message: message.into(),
            help,
            policy: None,
            place: None,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the policy at fault, by its id.
    #[must_use]
    pub fn of_policy(mut self, id: &str) -> Self {
        self.policy = Some(id.into());
        self
    }

    /// Id of the policy at fault, if no place was found for it yet.
    #[must_use]
    pub fn unplaced_policy(&self) -> Option<&str> {
        self.policy.as_deref().filter(|_| self.place.is_none())
    }

    /// Id of the policy at fault.
    #[must_use]
    pub(crate) fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// Moves the fault to another file.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = file.into();
        self
    }

    /// Adds the place: `length` bytes from byte `offset` of `text`.
    #[must_use]
    pub fn at(self, text: &str, offset: usize, length: usize) -> Self {
        self.within(&SourceText::new(text), offset, length)
    }

    /// Adds the place: `length` bytes from byte `offset`.
    #[must_use]
    pub fn within(mut self, source: &SourceText, offset: usize, length: usize) -> Self {
        self.place = Some(Box::new(Place {
            start: source.position(offset),
            end: source.position(offset + length),
            source: NamedSource::new(self.file.display().to_string(), Arc::clone(&source.text)),
            span: (offset, length).into(),
        }));
        self
    }

    /// Adds the first place that another diagnostic labels, and its help if there is none yet.
    #[must_use]
    pub fn labelled_by(self, text: &str, diagnostic: &dyn Diagnostic) -> Self {
        self.labelled_within(&SourceText::new(text), diagnostic)
    }

    /// Adds the first place that another diagnostic labels, and its help if there is none yet.
    #[must_use]
    pub fn labelled_within(self, source: &SourceText, diagnostic: &dyn Diagnostic) -> Self {
        self.labelled_from(source, 0, diagnostic)
    }

    /// The same for a diagnostic of a part of the text, which begins at byte `base`.
    #[must_use]
    pub fn labelled_from(mut self, source: &SourceText, base: usize, diagnostic: &dyn Diagnostic) -> Self {
        if self.help.is_none() {
            self.help = diagnostic.help().map(|help| help.to_string());
        }
        let label = diagnostic.labels().and_then(|mut labels| labels.next());
        match label {
            Some(label) => self.within(source, base + label.offset(), label.len()),
            None => self,
        }
    }

    /// The same fault for readers who see the bundle in that directory.
    #[must_use]
    pub fn below(mut self, directory: &Path) -> Self {
        self.file = directory.join(&self.file);
        if let Some(place) = &mut self.place {
            place.source =
                NamedSource::new(self.file.display().to_string(), Arc::clone(place.source.inner()));
        }
        self
    }

    /// Where it begins.
    #[must_use]
    pub fn start(&self) -> Option<Position> {
        self.place.as_ref().map(|place| place.start)
    }

    /// Where it ends: behind its last character.
    #[must_use]
    pub fn end(&self) -> Option<Position> {
        self.place.as_ref().map(|place| place.end)
    }

    /// Line, counted from 1.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.start().map(|start| start.line)
    }

    /// Column in characters, counted from 1.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        self.start().map(|start| start.column)
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// `file:line:column: message (help)`, on one line, for logs and Status.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(place) = &self.place {
            write!(f, ":{}:{}", place.start.line, place.start.column)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

impl Diagnostic for Fault {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| -> Box<dyn fmt::Display + 'a> { Box::new(help) })
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.place.as_ref().map(|place| -> &dyn SourceCode { &place.source })
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.place.as_ref()?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some("here".into()), place.span))))
    }
}

/// Every fault of a bundle, found in one pass. Never empty.
#[derive(Clone, Debug)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// The faults, if there are any.
    #[must_use]
    pub fn of(faults: Vec<Fault>) -> Option<Self> {
        if faults.is_empty() { None } else { Some(Self(faults)) }
    }

    /// The faults.
    #[must_use]
    pub fn list(&self) -> &[Fault] {
        &self.0
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&lines.join("; "))
    }
}

impl std::error::Error for Faults {}
