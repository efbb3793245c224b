//! Annotations: what a policy must say about itself, what it says wrongly, and what bundle.toml declares for nobody.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "looks for the few shapes that it knows; all others are none of its business"
)]

use std::collections::BTreeSet;

use super::allow::Found;
use super::bundle::{Bundle, Part, Subject};
use super::{nearest, rules};
use crate::engine::annotation;
use crate::engine::syntax::{Kind, Term, Variable};
use crate::settings::Requirement;

/// The annotations that mean something.
const KNOWN: [&str; 10] =
    ["id", "reason", "step_up", "obligation", "severity", "audit", "allow", "label", "respond", "dry_run"];
/// The parts of the context that meeting a step-up can change.
const CHANGED_BY_STEP_UP: [&str; 4] = ["session", "token", "task", "request"];

pub(super) fn find(bundle: &Bundle<'_>, found: &mut Found) {
    for (number, subject) in bundle.policies.iter().enumerate() {
        missing(bundle, number, subject, found);
        obligation(bundle, number, subject, found);
        step_up(bundle, number, subject, found);
        misspelt(bundle, number, subject, found);
        without_effect(bundle, number, subject, found);
        super::responses::of_policy(bundle, number, subject, found);
    }
    unused(bundle, found);
}

fn text<'s>(subject: &'s Subject<'_>, name: &str) -> Option<&'s str> {
    annotation(subject.policy, name).filter(|text| !text.trim().is_empty())
}

fn missing(bundle: &Bundle<'_>, number: usize, subject: &Subject<'_>, found: &mut Found) {
    let id = subject.id;
    if text(subject, "id").is_none() {
        let message = format!("policy `{id}` has no `@id`: its name changes with the policies before it");
        found.add_policy(bundle, &rules::MISSING_ID, number, &Part::Head, message);
    }
    if subject.forbids && text(subject, "reason").is_none() {
        let message = format!("forbid `{id}` does not tell the caller why");
        found.add_policy(bundle, &rules::FORBID_WITHOUT_REASON, number, &Part::Head, message);
    }
}

fn obligation(bundle: &Bundle<'_>, number: usize, subject: &Subject<'_>, found: &mut Found) {
    let Some(name) = text(subject, "obligation").filter(|_| !subject.forbids) else { return };
    let declared = &bundle.settings.obligations;
    if declared.contains_key(name) {
        return;
    }
    let message =
        format!("permit `{}` carries obligation `{name}`, which bundle.toml does not declare", subject.id);
    let part = Part::Annotation("obligation");
    let fault = bundle.in_policy(&rules::OBLIGATION_UNDECLARED, number, &part, message);
    let help = match nearest(name, declared.keys().map(smol_str::SmolStr::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!(
            "add `[obligations.{name}]` with a `description`; an enforcement point that does not know it denies"
        ),
    };
    found.add_about_policy(number, fault.help(help));
}

fn step_up(bundle: &Bundle<'_>, number: usize, subject: &Subject<'_>, found: &mut Found) {
    let Some(name) = text(subject, "step_up").filter(|_| subject.forbids) else { return };
    let Some(requirement) = bundle.settings.step_up.get(name) else { return };
    if subject.condition.as_ref().is_some_and(reads_what_step_up_changes) {
        return;
    }
    let message = format!(
        "forbid `{}` asks for `{name}`, and reads nothing that meeting it changes: the same attempt is asked again",
        subject.id
    );
    let help = match requirement {
        Requirement::Authentication { .. } => {
            "test what a fresh login changes: `context.session.auth_age_s`, `acr`, `aal` or `credential_changed`"
        }
        Requirement::Approval { .. } => {
            "test what an approval changes: `!context.session.grants.contains(\"NAME\")`, the name being the requirement's"
        }
        Requirement::Attestation {} => {
            "test what fresh proof changes: `context.session.credential_changed` or `context.token.age_s`"
        }
    };
    let part = Part::Annotation("step_up");
    let fault = bundle.in_policy(&rules::STEP_UP_UNMEETABLE, number, &part, message);
    found.add_about_policy(number, fault.help(help));
}

fn reads_what_step_up_changes(condition: &Term) -> bool {
    reads_any(condition, &CHANGED_BY_STEP_UP)
}

/// Whether a condition reads one of these parts of the context.
pub(super) fn reads_any(condition: &Term, parts: &[&str]) -> bool {
    let mut reads = false;
    condition.visit(&mut |term| {
        let (of, name) = match &term.kind {
            Kind::Read(of, name) => (of, Some(name)),
            Kind::Has(of, names) => (of, names.first()),
            _ => return,
        };
        let of_context = of.kind == Kind::Variable(Variable::Context);
        reads |= of_context && name.is_some_and(|name| parts.contains(&name.as_str()));
    });
    reads
}

fn misspelt(bundle: &Bundle<'_>, number: usize, subject: &Subject<'_>, found: &mut Found) {
    for (name, _) in subject.policy.annotations() {
        if KNOWN.contains(&name) {
            continue;
        }
        if let Some(meant) = nearest(name, KNOWN) {
            let message = format!("`@{name}` on policy `{}` means nothing to Cardea", subject.id);
            let part = Part::Annotation(name);
            let fault = bundle.in_policy(&rules::ANNOTATION_MISSPELT, number, &part, message);
            found.add_about_policy(number, fault.help(format!("did you mean `@{meant}`?")));
        }
    }
}

fn without_effect(bundle: &Bundle<'_>, number: usize, subject: &Subject<'_>, found: &mut Found) {
    let mut add = |name: &str, message: String, help: &str| {
        let part = Part::Annotation(name);
        let fault = bundle.in_policy(&rules::ANNOTATION_WITHOUT_EFFECT, number, &part, message);
        found.add_about_policy(number, fault.help(help));
    };
    let id = subject.id;
    let carries = |name: &str| annotation(subject.policy, name).is_some();
    if subject.forbids && carries("obligation") {
        add(
            "obligation",
            format!("forbid `{id}` carries `@obligation`"),
            "obligations go with an allow: put it on the permit",
        );
    }
    if !subject.forbids && carries("reason") {
        add(
            "reason",
            format!("permit `{id}` carries `@reason`, which nobody is told"),
            "callers are told why they are refused: put it on a forbid, or make it a comment",
        );
    }
    for name in ["obligation", "severity", "allow", "label", "respond"] {
        if annotation(subject.policy, name).is_some_and(|text| text.trim().is_empty()) {
            add(name, format!("`@{name}` on policy `{id}` is empty"), "give it a value, or remove it");
        }
    }
}

fn unused(bundle: &Bundle<'_>, found: &mut Found) {
    let used = |name: &str| -> BTreeSet<&str> {
        bundle.policies.iter().filter_map(|subject| annotation(subject.policy, name)).collect()
    };
    let step_ups = used("step_up");
    for name in bundle.settings.step_up.keys().filter(|name| !step_ups.contains(name.as_str())) {
        let message = format!("no policy asks for step-up `{name}`");
        found.add(bundle.in_settings(&rules::UNUSED_STEP_UP, "step_up", name, message));
    }
    let obligations = used("obligation");
    for name in bundle.settings.obligations.keys().filter(|name| !obligations.contains(name.as_str())) {
        let message = format!("no permit carries obligation `{name}`");
        found.add(bundle.in_settings(&rules::UNUSED_OBLIGATION, "obligations", name, message));
    }
    super::responses::unused(bundle, found);
}
