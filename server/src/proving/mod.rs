//! Proofs of what a bundle does: scenarios that are played, the matrix of verdicts, the effect of a change.
//!
//! Everything is deterministic: the same files give the same outcome on every machine, at any time.
//! Never does: I/O, reading a clock. Files come in memory, and the commands print.

pub mod approved;
pub mod attempt;
pub mod case;
pub mod coverage;
pub mod diff;
pub mod matrix;
pub mod policies;
mod request;
mod run;
pub mod scenario;
pub mod told;
pub mod words;

use std::path::PathBuf;

use cardea_policy_store::fault::{Fault, Faults};
use cardea_policy_store::load::{self, Files};
use serde::Serialize;

use case::Case;
use coverage::Coverage;
pub use run::{SESSIONS_MAX, STEP_MS};
use scenario::{Scenario, Source};

/// How the scenarios of a bundle went.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Attempts, and scenarios that could not be played to their end.
    pub tests: usize,
    /// Those that came out as expected.
    pub passed: usize,
    /// Those that did not.
    pub failed: usize,
    /// What was seen of the policies.
    pub coverage: Coverage,
    /// The scenarios, in the order of their files.
    pub scenarios: Vec<Played>,
}

/// How one scenario went; a file that cannot be read stands as one without a name.
#[derive(Clone, Debug, Serialize)]
pub struct Played {
    /// Its file, relative to the bundle.
    pub file: PathBuf,
    /// Its name.
    pub name: String,
    /// Line of the file, from 1.
    pub line: usize,
    /// Its attempts.
    pub cases: Vec<Case>,
    /// Why it could not be read, or not be played to its end.
    #[serde(serialize_with = "faults_in_words", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

impl Played {
    /// Whether everything came out as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.faults.is_empty() && self.cases.iter().all(|case| case.passed)
    }
}

fn faults_in_words<S: serde::Serializer>(faults: &[Fault], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(faults.iter().map(ToString::to_string))
}

/// Plays every scenario of a bundle: the evidence that a signature carries.
///
/// # Errors
/// When the bundle does not load.
pub fn run(files: &Files) -> Result<Outcome, Faults> {
    run_some(files, "", &mut |_, _| {})
}

/// Plays the scenarios whose file or name contains `filter`; `progress` hears how many of how many are done.
///
/// # Errors
/// When the bundle does not load.
pub fn run_some(
    files: &Files,
    filter: &str,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Outcome, Faults> {
    let loaded = load::files(files)?;
    let mut coverage = Coverage::of(files, &loaded.snapshot);
    let mut played = Vec::new();
    let mut queue: Vec<(Source<'_>, Scenario)> = Vec::new();
    for path in scenario::paths(files) {
        let bytes = files.get(path).map_or(&[][..], Vec::as_slice);
        let read = Source::new(path, bytes).map_err(|fault| vec![fault]).and_then(|source| {
            let scenarios = scenario::read(&source)?;
            Ok(scenarios.into_iter().map(move |scenario| (source.clone(), scenario)))
        });
        match read {
            Ok(scenarios) => queue.extend(scenarios),
            Err(faults) => {
                let line = faults.iter().find_map(Fault::line).unwrap_or(0);
                played.push(Played {
                    file: path.clone(),
                    name: String::new(),
                    line,
                    cases: Vec::new(),
                    faults,
                });
            }
        }
    }
    queue.retain(|(source, scenario)| {
        filter.is_empty() || scenario.name.contains(filter) || source.file.to_string_lossy().contains(filter)
    });
    let total = queue.len();
    for (done, (source, scenario)) in queue.iter().enumerate() {
        progress(done, total);
        let (cases, fault) = match run::with_entities(files, scenario, source) {
            Ok(own) => run::play(scenario, source, own.as_ref().unwrap_or(&loaded.snapshot), &mut coverage),
            Err(fault) => (Vec::new(), Some(fault)),
        };
        played.push(Played {
            file: source.file.to_owned(),
            name: scenario.name.clone(),
            line: scenario.place.line,
            cases,
            faults: fault.into_iter().collect(),
        });
    }
    played.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    coverage.count();
    let failed_cases = |one: &Played| one.cases.iter().filter(|case| !case.passed).count();
    let tests = played.iter().map(|one| one.cases.len() + usize::from(!one.faults.is_empty())).sum();
    let failed = played.iter().map(|one| failed_cases(one) + usize::from(!one.faults.is_empty())).sum();
    Ok(Outcome { tests, passed: tests - failed, failed, coverage, scenarios: played })
}
