//! The format of scenario files, `tests/**/*.yaml`, and their reading.
//!
//! A file holds one scenario in each YAML document. What is unknown, repeated or of another type is a fault with its
//! place. Limits: [`FILE_BYTES_MAX`], [`NODES_MAX`], [`ALIASES_MAX`], [`STEPS_MAX`]; they are enforced while reading.
//! Never does: looking into the bundle; types and ids are checked when the scenario is played.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cardea_policy_store::fault::Fault;
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::approved::{AttemptApproved, TaskApproved, TaskEnded};
use super::attempt::{AttemptTold, Table};
use super::told::{Ending, SessionTold, SignalTold, UpdateTold};
use super::words::Span;

/// Largest scenario file, in bytes: some ten thousand steps.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Most nodes of a file, aliases counted as what they stand for: ten for each of the most steps.
pub const NODES_MAX: usize = 100_000;
/// Most aliases of a file: a handful of shared pieces, each used some dozen times.
pub const ALIASES_MAX: usize = 100;
/// Most steps of a scenario, the rows of its tables counted: more than anybody reads.
pub const STEPS_MAX: usize = 10_000;
/// Deepest nesting of a file; a step's request nests eight levels below five of the format.
const DEPTH_MAX: usize = 32;
/// When a scenario starts that does not say: 2026-01-01T12:00:00Z, Unix milliseconds.
const START_MS: i64 = 1_767_268_800_000;
/// The file that is no scenario but describes the situations of the matrix.
pub const MATRIX_FILE: &str = "tests/matrix.yaml";

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1; 0 if unknown.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    offset: usize,
    length: usize,
}

/// A file and its text, for faults with their places.
#[derive(Clone, Debug)]
pub struct Source<'f> {
    /// Its path in the bundle.
    pub file: &'f Path,
    text: &'f str,
}

/// One scenario.
#[derive(Debug)]
pub struct Scenario {
    /// What it shows.
    pub name: String,
    /// Where it begins.
    pub place: Place,
    /// When it starts, Unix milliseconds.
    pub start_ms: i64,
    /// Entities of its own, in Cedar's JSON form.
    pub entities: Vec<serde_json::Value>,
    /// What happens, in time order; tables are taken apart into attempts.
    pub steps: Vec<(Place, Step)>,
}

/// One thing that happens.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Time passes.
    Advance(Span),
    /// A session opens.
    Session(Box<SessionTold>),
    /// A session changes.
    UpdateSession(Box<UpdateTold>),
    /// Sessions end.
    EndSession(Ending),
    /// A change of fact is reported.
    Signal(SignalTold),
    /// Something is heard of a source of signals that changes no fact.
    Heard(String),
    /// Somebody approves a task.
    ApproveTask(Box<TaskApproved>),
    /// Somebody ends a task.
    EndTask(TaskEnded),
    /// A reviewer approves what an attempt was asked for.
    Approve(Box<AttemptApproved>),
    /// An attempt, and the verdict that is expected.
    Attempt(Box<AttemptTold>),
    /// The action of the last allow that waits to be settled was done, or not.
    Settle(SettleTold),
    /// Several attempts as a table. Not in [`Scenario::steps`].
    Attempts(Table),
}

/// What became of an allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettleTold {
    /// It was done.
    Committed,
    /// It was not.
    Released,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    name: Spanned<String>,
    now: Option<Spanned<String>>,
    #[serde(default)]
    entities: Vec<serde_json::Value>,
    steps: Vec<Spanned<Step>>,
}

impl<'f> Source<'f> {
    /// The text of a file, if it is within the limits.
    ///
    /// # Errors
    /// A file that is too large or not UTF-8.
    pub fn new(file: &'f Path, bytes: &'f [u8]) -> Result<Self, Fault> {
        if bytes.len() > FILE_BYTES_MAX {
            return Err(Fault::new(file, format!("has more than {FILE_BYTES_MAX} bytes"))
                .help("split the scenarios over several files"));
        }
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|error| {
            Fault::new(file, format!("is not UTF-8: {error}")).help("save the file as UTF-8")
        })?;
        Ok(Self { file, text })
    }

    /// A fault at a place of the file.
    pub fn fault(&self, place: Place, message: impl Into<String>) -> Fault {
        Fault::new(self.file, message).at(self.text, place.offset, place.length)
    }

    /// Reads the documents of the file.
    ///
    /// # Errors
    /// The first thing that does not have the form.
    pub fn documents<T: for<'de> Deserialize<'de>>(&self) -> Result<Vec<T>, Fault> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_nodes: NODES_MAX,
                max_aliases: ALIASES_MAX,
                max_events: 2 * NODES_MAX,
                max_depth: DEPTH_MAX,
            },
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: NODES_MAX },
            with_snippet: false,
        };
        serde_saphyr::from_multiple_with_options(self.text, options).map_err(|error| {
            let place = error.location().map(Place::from).unwrap_or_default();
            let message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            let suffix = format!(" at line {}, column {}", place.line, place.column);
            let message = message.split(suffix.as_str()).next().unwrap_or(&message).to_owned();
            self.fault(place, message).help("docs/testing.md shows every key of a scenario file")
        })
    }
}

impl From<Location> for Place {
    fn from(at: Location) -> Self {
        let number = |number: u64| usize::try_from(number).unwrap_or(0);
        Self {
            line: number(at.line()),
            column: number(at.column()),
            offset: number(at.span().byte_offset().unwrap_or(0)),
            length: number(at.span().byte_len().unwrap_or(0)),
        }
    }
}

/// The scenario files of a bundle.
pub fn paths(files: &cardea_policy_store::load::Files) -> impl Iterator<Item = &PathBuf> {
    files.keys().filter(|path| {
        path.starts_with("tests")
            && path.extension().is_some_and(|extension| extension == "yaml")
            && path.as_path() != Path::new(MATRIX_FILE)
    })
}

/// Reads the scenarios of a file.
///
/// # Errors
/// Everything in it that does not have the form.
pub fn read(source: &Source<'_>) -> Result<Vec<Scenario>, Vec<Fault>> {
    let documents: Vec<Document> = source.documents().map_err(|fault| vec![fault])?;
    let mut faults = Vec::new();
    let mut names = BTreeSet::new();
    let mut scenarios = Vec::new();
    if documents.is_empty() {
        faults.push(
            Fault::new(source.file, "holds no scenario")
                .help("write one (`name`, `steps`), or remove the file"),
        );
    }
    for document in documents {
        let place = Place::from(document.name.referenced);
        let name = document.name.value;
        if name.trim().is_empty() {
            faults.push(source.fault(place, "the scenario has no name").help("say what it shows"));
        } else if !names.insert(name.clone()) {
            let fault = source.fault(place, format!("two scenarios are named `{name}`"));
            faults.push(fault.help("give each a name of its own, so that a report can be told apart"));
        }
        let start_ms = match &document.now {
            None => START_MS,
            Some(now) => match now.value.parse::<jiff::Timestamp>() {
                Ok(at) => at.as_millisecond(),
                Err(error) => {
                    let fault = source.fault(now.referenced.into(), format!("`now` is no time: {error}"));
                    faults.push(fault.help("write it as RFC 3339, such as 2026-01-01T12:00:00Z"));
                    START_MS
                }
            },
        };
        let steps = steps(source, document.steps, &mut faults);
        if steps.len() > STEPS_MAX {
            let fault = source.fault(place, format!("the scenario has more than {STEPS_MAX} steps"));
            faults.push(fault.help("split it"));
        }
        scenarios.push(Scenario { name, place, start_ms, entities: document.entities, steps });
    }
    if faults.is_empty() { Ok(scenarios) } else { Err(faults) }
}

/// The steps, with each table in the form of its attempts.
fn steps(source: &Source<'_>, written: Vec<Spanned<Step>>, faults: &mut Vec<Fault>) -> Vec<(Place, Step)> {
    let mut steps = Vec::new();
    for step in written {
        let place = Place::from(step.referenced);
        let Step::Attempts(table) = step.value else {
            steps.push((place, step.value));
            continue;
        };
        for row in table.rows(source, place) {
            match row {
                Ok((place, attempt)) => steps.push((place, Step::Attempt(Box::new(attempt)))),
                Err(fault) => faults.push(fault),
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let path = Path::new("tests/t.yaml");
        let source = Source::new(path, text.as_bytes()).unwrap();
        read(&source).map_or_else(|faults| faults.iter().map(Fault::to_string).collect(), |_| Vec::new())
    }

    #[test]
    fn a_file_holds_a_scenario_in_each_document() {
        let text = "name: a\nsteps: [{advance: 1m}]\n---\nname: b\nnow: 2027-01-01T00:00:00Z\nsteps: []\n";
        let source = Source::new(Path::new("tests/t.yaml"), text.as_bytes()).unwrap();
        let scenarios = read(&source).unwrap();
        let told: Vec<_> =
            scenarios.iter().map(|one| (one.name.as_str(), one.place.line, one.start_ms)).collect();
        assert_eq!(told, [("a", 1, START_MS), ("b", 4, 1_798_761_600_000)]);
        assert!(matches!(scenarios[0].steps[0].1, Step::Advance(Span { ms: 60_000 })));
    }

    #[test]
    fn what_is_not_in_the_format_is_told_with_its_place() {
        for (text, wanted) in [
            ("name: a\nsteps: []\nstep: 1\n", "tests/t.yaml:3:1: unknown field `step`"),
            ("name: a\nsteps:\n  - advanse: 1m\n", "tests/t.yaml:3:5: unknown variant `advanse`"),
            ("name: a\nsteps:\n  - advance: soon\n", "tests/t.yaml:3:14: `soon` is no span of time"),
            ("name: a\nnow: today\nsteps: []\n", "tests/t.yaml:2:6: `now` is no time"),
            (
                "name: a\nsteps: []\n---\nname: a\nsteps: []\n",
                "tests/t.yaml:4:7: two scenarios are named `a`",
            ),
            (
                "name: a\nsteps:\n  - attempt: {principal: User, action: r, resource: 'D::\"d\"', expect: deny}\n",
                "tests/t.yaml:3:26: `User` names no entity",
            ),
            ("name: a\nname: b\nsteps: []\n", "tests/t.yaml:2:1: "),
            ("", "tests/t.yaml: holds no scenario"),
            ("name: [\n", "tests/t.yaml:"),
        ] {
            let found = faults(text);
            assert!(found.iter().any(|fault| fault.starts_with(wanted)), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_flood_of_aliases_is_stopped() {
        let mut text = String::from("name: a\nentities:\n  - &l0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let alias = format!("*l{}", level - 1);
            text.push_str(&format!("  - &l{level} [{}]\n", [alias.as_str(); 10].join(", ")));
        }
        text.push_str("steps: []\n");
        let found = faults(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        let large = vec![b' '; FILE_BYTES_MAX + 1];
        assert!(Source::new(Path::new("t"), &large).is_err());
    }
}
