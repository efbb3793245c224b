//! `@allow("rule, rule")`: what a policy or a declaration of the schema has been looked at for and left as it is.
//!
//! An `@allow` that silences nothing is itself a finding, so that none outlives its reason.

use std::collections::{BTreeMap, BTreeSet};

use super::bundle::{Bundle, Part};
use super::rules::{self, Rule};
use super::scan::Annotation;
use super::{nearest, rule_of};
use crate::engine::annotation;
use crate::fault::Fault;

/// What can carry an `@allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Carrier {
    /// By its number in the order of the bundle.
    Policy(usize),
    /// A statement of the schema.
    Statement(usize),
}

/// Findings with what they are about.
#[derive(Debug, Default)]
pub(super) struct Found {
    list: Vec<(Option<Carrier>, Fault)>,
    /// Policies of which Cedar has proven that they never apply.
    pub(super) never_apply: BTreeSet<usize>,
}

impl Found {
    /// Adds a finding that nothing can silence.
    pub(super) fn add(&mut self, fault: Fault) {
        self.list.push((None, fault));
    }

    /// Adds a finding about a policy.
    pub(super) fn add_policy(
        &mut self,
        bundle: &Bundle<'_>,
        rule: &'static Rule,
        policy: usize,
        part: &Part<'_>,
        message: impl Into<String>,
    ) {
        self.add_about_policy(policy, bundle.in_policy(rule, policy, part, message));
    }

    pub(super) fn add_about_policy(&mut self, policy: usize, fault: Fault) {
        self.list.push((Some(Carrier::Policy(policy)), fault));
    }

    /// Adds a finding about a declaration of the schema.
    pub(super) fn add_declaration(
        &mut self,
        bundle: &Bundle<'_>,
        rule: &'static Rule,
        declaration: Option<usize>,
        message: String,
    ) {
        let carrier = declaration
            .and_then(|number| bundle.declarations.get(number))
            .map(|found| Carrier::Statement(found.statement));
        self.list.push((carrier, bundle.in_schema(rule, declaration, message)));
    }

    /// Adds what Cedar's validator warns of.
    pub(super) fn add_warning(&mut self, bundle: &Bundle<'_>, warning: Fault) {
        let policy = warning.policy().and_then(|id| bundle.parsed.places.number(id));
        let Some(policy) = policy else { return self.add(warning) };
        if warning.id != rules::NEVER_APPLIES.id {
            return self.add_about_policy(policy, warning);
        }
        // Cedar may say so for two reasons at once, and points at the whole policy; its head says enough.
        if !self.never_apply.insert(policy) {
            return;
        }
        let mut fault = bundle.in_policy(&rules::NEVER_APPLIES, policy, &Part::Head, warning.message);
        fault.help = warning.help.or_else(|| {
            Some("compare its scope and condition with what the schema says of the action".to_owned())
        });
        self.add_about_policy(policy, fault);
    }

    /// The findings that nobody allowed, and the allowances that were for nothing.
    pub(super) fn allowed(self, bundle: &Bundle<'_>) -> Vec<Fault> {
        let mut allowances = allowances(bundle);
        let mut kept = Vec::new();
        for (carrier, fault) in self.list {
            let allowance = carrier.and_then(|carrier| allowances.get_mut(&(carrier, fault.id.to_owned())));
            match (allowance, rule_of(&fault)) {
                (Some(allowance), Some(rule)) if rule.can_be_allowed() => allowance.used = true,
                _ => kept.push(fault),
            }
        }
        for ((carrier, id), allowance) in allowances {
            if !allowance.used {
                kept.push(unused(bundle, carrier, &id, allowance.declaration));
            }
        }
        kept
    }
}

/// One id in an `@allow`.
#[derive(Debug)]
struct Allowance {
    used: bool,
    /// The first declaration of the statement that carries it.
    declaration: Option<usize>,
}

fn allowances(bundle: &Bundle<'_>) -> BTreeMap<(Carrier, String), Allowance> {
    let mut found = BTreeMap::new();
    let mut add = |carrier, value: &str, declaration| {
        for id in value.split(',').map(str::trim).filter(|id| !id.is_empty()) {
            let allowance = Allowance { used: false, declaration };
            found.entry((carrier, id.to_owned())).or_insert(allowance);
        }
    };
    for (number, subject) in bundle.policies.iter().enumerate() {
        if let Some(value) = annotation(subject.policy, "allow") {
            add(Carrier::Policy(number), value, None);
        }
    }
    for (number, declaration) in bundle.declarations.iter().enumerate() {
        let allows = declaration.annotations.iter().filter(|annotation| annotation.name == "allow");
        for Annotation { value, .. } in allows {
            add(Carrier::Statement(declaration.statement), value, Some(number));
        }
    }
    found
}

fn unused(bundle: &Bundle<'_>, carrier: Carrier, id: &str, declaration: Option<usize>) -> Fault {
    let message = match Rule::named(id) {
        Some(rule) if rule.can_be_allowed() => format!("`@allow` silences no `{id}`"),
        Some(_) => format!("`@allow` cannot silence `{id}`, which keeps the bundle from serving"),
        None => format!("`@allow` names `{id}`, which is no rule"),
    };
    let fault = match carrier {
        Carrier::Policy(policy) => {
            bundle.in_policy(&rules::UNUSED_ALLOW, policy, &Part::Annotation("allow"), message)
        }
        Carrier::Statement(_) => bundle.in_schema(&rules::UNUSED_ALLOW, declaration, message),
    };
    match nearest(id, rules::ALL.iter().map(|rule| rule.id)) {
        Some(meant) if Rule::named(id).is_none() => fault.help(format!("did you mean `{meant}`?")),
        _ => fault,
    }
}
