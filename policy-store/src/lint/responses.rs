//! Labels, responses and dry runs: what is declared for nobody, and what cannot do what it is meant for.

use std::collections::BTreeSet;

use super::allow::Found;
use super::annotations::reads_any;
use super::bundle::{Bundle, Part, Subject};
use super::rules;
use crate::engine::annotation;
use crate::responses::names_in;

pub(super) fn of_policy(bundle: &Bundle<'_>, number: usize, subject: &Subject<'_>, found: &mut Found) {
    let id = subject.id;
    let text = |name: &str| annotation(subject.policy, name);
    let mut add = |rule, name: &str, message: String| {
        let fault = bundle.in_policy(rule, number, &Part::Annotation(name), message);
        found.add_about_policy(number, fault);
    };
    if text("dry_run").is_some_and(|why| why.trim().is_empty()) {
        let message = format!("policy `{id}` is in dry run, and does not say since when and why");
        add(&rules::DRY_RUN_WITHOUT_REASON, "dry_run", message);
    }
    let knows_session =
        subject.condition.as_ref().is_some_and(|condition| reads_any(condition, &["session"]));
    if text("label").is_some() && !subject.forbids && !knows_session {
        let message =
            format!("permit `{id}` sets a label, and does not ask for a session that could have it");
        add(&rules::LABEL_WITHOUT_SESSION, "label", message);
    }
    let declared = &bundle.settings.responses;
    let only_narrows = |name: &&str| declared.get(*name).is_some_and(|response| response.only_narrows());
    if subject.forbids
        && let Some(name) = names_in(text("respond").unwrap_or_default()).find(only_narrows)
    {
        let message =
            format!("forbid `{id}` carries response `{name}`, which does nothing but narrow an allow");
        add(&rules::ANNOTATION_WITHOUT_EFFECT, "respond", message);
    }
}

pub(super) fn unused(bundle: &Bundle<'_>, found: &mut Found) {
    let used = |name: &str| -> BTreeSet<&str> {
        let texts = bundle.policies.iter().filter_map(|subject| annotation(subject.policy, name));
        texts.flat_map(names_in).collect()
    };
    let labels = used("label");
    for name in bundle.settings.labels.keys().filter(|name| !labels.contains(name.as_str())) {
        let message = format!("no permit sets label `{name}`");
        found.add(bundle.in_settings(&rules::UNUSED_LABEL, "labels", name, message));
    }
    let responses = used("respond");
    for name in bundle.settings.responses.keys().filter(|name| !responses.contains(name.as_str())) {
        let message = format!("no policy has response `{name}` carried out");
        found.add(bundle.in_settings(&rules::UNUSED_RESPONSE, "responses", name, message));
    }
}
