//! What a bundle says and surely does not mean: the lints, over a bundle that the loader has read.
//!
//! Owns the [`Report`] that `cardea bundle check` prints and that evidence rests on. Pure: no file, no clock. Near linear in
//! policies, entities and routes; the service never runs it, because a bundle that serves need not be beautiful.
//! Limit: [`FINDINGS_MAX`] findings are kept, all are counted.

mod allow;
mod annotations;
mod behavior;
mod bundle;
mod constants;
mod counters;
mod fact_values;
mod leases;
mod reads;
mod repeated;
mod responses;
mod routes;
pub mod rules;
mod scan;
mod schema;
mod scope;

use smol_str::SmolStr;

use self::allow::Found;
use self::bundle::Bundle;
use self::rules::Rule;
use crate::fault::{Fault, Faults, Severity};
use crate::load::{self, Files, Parsed};

/// Most findings that a report keeps: what code scanning services take of one run.
pub const FINDINGS_MAX: usize = 25_000;

/// Everything that was found in a bundle.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By file and place; at most [`FINDINGS_MAX`].
    pub findings: Vec<Fault>,
    /// How many of all findings are errors: with one, the bundle cannot serve.
    pub errors: usize,
    /// How many are warnings.
    pub warnings: usize,
    /// How many are notes.
    pub notes: usize,
    /// The bundle, if it can serve.
    pub summary: Option<Summary>,
}

/// What a bundle is, in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub name: SmolStr,
    /// Its revision.
    pub revision: u64,
    /// SHA-256 of it, lower-case hexadecimal.
    pub digest: SmolStr,
    /// How many policies it has.
    pub policies: usize,
    /// How many entities, with its actions.
    pub entities: usize,
}

/// Checks a bundle: all that the loader refuses it for, and all lints.
#[must_use]
pub fn check(files: &Files) -> Report {
    let checked = load::on_deep_stack(|| Ok(run(files)));
    checked.unwrap_or_else(|faults| Report::of(faults.list().to_vec(), None))
}

impl Report {
    /// Findings that somebody gathered otherwise, for example those that kept a bundle from being opened.
    #[must_use]
    pub fn of(findings: Vec<Fault>, summary: Option<Summary>) -> Self {
        let mut report = Self { findings, summary, ..Self::default() };
        report.count();
        report
    }

    /// The same report with other weights; `None` drops a finding.
    #[must_use]
    pub fn weighed(mut self, weight: impl Fn(&Fault) -> Option<Severity>) -> Self {
        self.findings.retain_mut(|fault| match weight(fault) {
            Some(severity) => {
                fault.severity = severity;
                true
            }
            None => false,
        });
        self.count();
        self
    }

    fn count(&mut self) {
        let of = |severity| self.findings.iter().filter(|fault| fault.severity == severity).count();
        (self.errors, self.warnings, self.notes) =
            (of(Severity::Error), of(Severity::Warning), of(Severity::Note));
        self.findings.sort_by(|a, b| {
            (a.file(), a.start(), a.id, &a.message).cmp(&(b.file(), b.start(), b.id, &b.message))
        });
        self.findings.truncate(FINDINGS_MAX);
    }
}

fn run(files: &Files) -> Report {
    let mut parsed = load::parse(files, load::Parsing::Whole);
    let warnings = std::mem::take(&mut parsed.warnings);
    let mut findings = match Bundle::of(&parsed, files) {
        Some(bundle) => lints(&bundle, warnings),
        None => warnings,
    };
    findings.append(&mut parsed.faults.clone());
    let summary = match load::compile(parsed, files) {
        Ok(loaded) => Some(summary(&loaded)),
        Err(faults) => {
            add_new(&mut findings, &faults);
            None
        }
    };
    Report::of(findings, summary)
}

fn lints(bundle: &Bundle<'_>, warnings: Vec<Fault>) -> Vec<Fault> {
    let mut found = Found::default();
    for warning in warnings {
        found.add_warning(bundle, warning);
    }
    annotations::find(bundle, &mut found);
    behavior::find(bundle, &mut found);
    scope::find(bundle, &mut found);
    constants::find(bundle, &mut found);
    counters::find(bundle, &mut found);
    fact_values::find(bundle, &mut found);
    leases::find(bundle, &mut found);
    reads::find(bundle, &mut found);
    repeated::find(bundle, &mut found);
    schema::find(bundle, &mut found);
    routes::find(bundle, &mut found);
    found.allowed(bundle)
}

/// Adds what compiling found beside what reading found.
fn add_new(findings: &mut Vec<Fault>, faults: &Faults) {
    let known: std::collections::BTreeSet<_> =
        findings.iter().map(|fault| (fault.id, fault.file.clone(), fault.message.clone())).collect();
    findings.extend(
        faults
            .list()
            .iter()
            .filter(|fault| !known.contains(&(fault.id, fault.file.clone(), fault.message.clone())))
            .cloned(),
    );
}

fn summary(loaded: &load::Loaded) -> Summary {
    let snapshot = &loaded.snapshot;
    Summary {
        name: snapshot.settings().name.clone(),
        revision: snapshot.settings().revision,
        digest: snapshot.digest().clone(),
        policies: snapshot.policies().len(),
        entities: snapshot.world().len(),
    }
}

/// Whether the lints can run: they need everything that they compare to have been read.
fn whole(parsed: &Parsed<'_>) -> bool {
    let unread = [
        rules::BUNDLE_INVALID.id,
        rules::POLICY_SYNTAX.id,
        rules::POLICY_TOO_DEEP.id,
        rules::FILE_NOT_TEXT.id,
        rules::ENTITIES_INVALID.id,
        rules::ROUTES_INVALID.id,
        rules::BASELINES_INVALID.id,
    ];
    !parsed.faults.iter().any(|fault| unread.contains(&fault.id))
}

/// The name that was meant, if one of `names` is near.
pub(crate) fn nearest<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&written.to_lowercase(), name);
    let near = names.into_iter().map(|name| (distance(name), name)).min()?;
    // A third of the letters may be wrong, but not in a word that is hardly longer than that.
    (near.0 <= (near.1.len() / 3).max(1)).then_some(near.1)
}

/// The rule of a finding.
fn rule_of(fault: &Fault) -> Option<&'static Rule> {
    Rule::named(fault.id)
}

#[cfg(test)]
mod tests;
