//! What is wrong with a configuration: one [`Fault`] per mistake, all of them in [`Faults`].
//!
//! Rendered by miette with the lines of the file; [`Fault::place`] gives line and column to machines.
//! Never does: deciding what a fault is; `check.rs` and `read.rs` do.

use std::ops::Range;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// One mistake, where it stands and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    message: String,
    remedy: String,
    label: String,
    span: Option<Range<usize>>,
}

/// Line and column of a fault, both from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// Every mistake of one configuration.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has {} {}", .faults.len(), if .faults.len() == 1 { "fault" } else { "faults" })]
pub struct Faults {
    source_code: NamedSource<String>,
    faults: Vec<Fault>,
}

impl Fault {
    /// A fault without a place: of a flag, or of the file as a whole.
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into(), label: String::new(), span: None }
    }

    /// With its place in the file and the words beside the mark; no place leaves it as it is.
    pub(super) fn at(mut self, span: Option<Range<usize>>, label: impl Into<String>) -> Self {
        self.span = span;
        self.label = label.into();
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &str {
        &self.remedy
    }

    /// Where it stands in `text`; none for a fault of a flag or of the whole file.
    #[must_use]
    pub fn place(&self, text: &str) -> Option<Place> {
        let before = text.get(..self.span.as_ref()?.start)?;
        let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
        Some(Place { line: before.matches('\n').count() + 1, column })
    }

    /// For sorting: faults of flags last.
    pub(super) fn order(&self) -> usize {
        self.span.as_ref().map_or(usize::MAX, |span| span.start)
    }
}

impl Diagnostic for Fault {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(&self.remedy))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some(self.label.clone()), span))))
    }
}

impl Faults {
    pub(super) fn new(name: &str, text: &str, mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(Fault::order);
        Self { source_code: NamedSource::new(name, text.to_owned()).with_language("TOML"), faults }
    }

    /// All of them, in the order of the file.
    #[must_use]
    pub fn all(&self) -> &[Fault] {
        &self.faults
    }
}

impl Diagnostic for Faults {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source_code)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.faults.iter().map(|fault| -> &dyn Diagnostic { fault })))
    }
}
