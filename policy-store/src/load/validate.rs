//! Cedar's strict validation of a bundle's policies, in the words of Cardea's rules.
//!
//! Owns the places of policies: noted once when the files are read, so that thousands of findings cost no search.

use std::collections::BTreeMap;
use std::ops::Range;

use cedar_policy::{
    PolicyId, PolicySet, Schema, ValidationError, ValidationMode, ValidationWarning, Validator,
};
use miette::Diagnostic;
use smol_str::SmolStr;

use super::Source;
use crate::fault::Fault;
use crate::lint::rules::{self, Rule};

/// Where a policy is written: a place among the sources, and bytes there.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) source: usize,
    /// Where the part of the source begins that it was parsed in.
    base: usize,
    pub(crate) span: Range<usize>,
}

/// The places of all policies.
#[derive(Debug, Default)]
pub(crate) struct Places {
    in_order: Vec<Option<Place>>,
    by_id: BTreeMap<SmolStr, usize>,
}

impl Places {
    /// Adds the next policy, by the id that it has within the set.
    pub(super) fn add(&mut self, id: &str, (source, base): (usize, usize), span: Option<Range<usize>>) {
        self.by_id.insert(id.into(), self.in_order.len());
        let placed = |span: Range<usize>| Place { source, base, span: base + span.start..base + span.end };
        self.in_order.push(span.map(placed));
    }

    /// The place of a policy, by its number in the order of the bundle.
    pub(crate) fn of(&self, number: usize) -> Option<&Place> {
        self.in_order.get(number)?.as_ref()
    }

    /// The number of a policy, by the id that it has within the set.
    pub(crate) fn number(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    fn named(&self, id: &str) -> Option<&Place> {
        self.of(self.number(id)?)
    }
}

/// Gives a fault of a policy the place where that policy is written.
pub(super) fn placed(fault: Fault, sources: &[Source<'_>], places: &Places) -> Fault {
    let place = fault.unplaced_policy().and_then(|id| places.named(id));
    match place.and_then(|place| Some((place, sources.get(place.source)?))) {
        Some((place, source)) => {
            fault.in_file(source.path).within(source.shared(), place.span.start, place.span.len())
        }
        None => fault,
    }
}

pub(super) fn validate(
    schema: &Schema,
    set: &PolicySet,
    (sources, places): (&[Source<'_>], &Places),
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<Fault>,
) {
    let result = Validator::new(schema.clone()).validate(set, ValidationMode::Strict);
    let placed = |policy: &PolicyId, rule: &'static Rule, message: String, diagnostic: &dyn Diagnostic| {
        let id: &str = policy.as_ref();
        match places.named(id).and_then(|place| Some((sources.get(place.source)?, place.base))) {
            Some((source, base)) => Fault::of(rule, source.path, message).of_policy(id).labelled_from(
                source.shared(),
                base,
                diagnostic,
            ),
            None => Fault::of(rule, "policies", message).of_policy(id),
        }
    };
    faults.extend(
        result
            .validation_errors()
            .map(|error| placed(error.policy_id(), rule_of_error(error), error.to_string(), error)),
    );
    warnings.extend(
        result.validation_warnings().map(|warning| {
            placed(warning.policy_id(), rule_of_warning(warning), warning.to_string(), warning)
        }),
    );
    faults.sort_by(|a, b| (a.file(), a.line()).cmp(&(b.file(), b.line())));
}

#[expect(clippy::wildcard_enum_match_arm, reason = "Cedar may add errors; all others are of one kind to us")]
fn rule_of_error(error: &ValidationError) -> &'static Rule {
    match error {
        ValidationError::UnrecognizedEntityType(_) => &rules::UNKNOWN_ENTITY_TYPE,
        ValidationError::UnrecognizedActionId(_) => &rules::UNKNOWN_ACTION,
        ValidationError::UnsafeAttributeAccess(_) => &rules::UNKNOWN_ATTRIBUTE,
        ValidationError::UnsafeOptionalAttributeAccess(_) => &rules::OPTIONAL_ATTRIBUTE,
        ValidationError::UnsafeTagAccess(_) => &rules::OPTIONAL_TAG,
        ValidationError::UnexpectedType(_) | ValidationError::IncompatibleTypes(_) => &rules::TYPE_MISMATCH,
        _ => &rules::POLICY_INVALID,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "Cedar may add warnings; all others are about characters")]
fn rule_of_warning(warning: &ValidationWarning) -> &'static Rule {
    match warning {
        ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_) => {
            &rules::NEVER_APPLIES
        }
        _ => &rules::CONFUSABLE_TEXT,
    }
}
