//! What is wrong with a bundle: the place, the fault, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};
use smol_str::SmolStr;

/// One fault, with its place in the source when there is one.
#[derive(Clone, Debug)]
pub struct Fault {
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
    line: usize,
    column: usize,
    source: Arc<NamedSource<Arc<str>>>,
    span: SourceSpan,
}

impl Fault {
    /// A fault of a whole file.
    pub fn new(file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self { file: file.into(), message: message.into(), help: None, policy: None, place: None }
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

    /// Moves the fault to another file.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = file.into();
        self
    }

    /// Adds the place: `length` bytes from byte `offset` of `text`.
    #[must_use]
    pub fn at(mut self, text: &str, offset: usize, length: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        let source = NamedSource::new(self.file.display().to_string(), Arc::from(text));
        self.place =
            Some(Box::new(Place { line, column, source: Arc::new(source), span: (offset, length).into() }));
        self
    }

    /// Adds the first place that another diagnostic labels, and its help if there is none yet.
    #[must_use]
    pub fn labelled_by(mut self, text: &str, diagnostic: &dyn Diagnostic) -> Self {
        if self.help.is_none() {
            self.help = diagnostic.help().map(|help| help.to_string());
        }
        let label = diagnostic.labels().and_then(|mut labels| labels.next());
        match label {
            Some(label) => self.at(text, label.offset(), label.len()),
            None => self,
        }
    }

    /// Line, counted from 1.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.line)
    }

    /// Column in characters, counted from 1.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.column)
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
            write!(f, ":{}:{}", place.line, place.column)?;
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
        self.place.as_ref().map(|place| -> &dyn SourceCode { &*place.source })
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
