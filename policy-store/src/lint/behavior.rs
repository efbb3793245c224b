//! Names in `baselines.json` and `[behavior]` that the schema does not have: what was approved under them is looked up by nobody.

use std::collections::BTreeSet;

use super::allow::Found;
use super::bundle::Bundle;
use super::{nearest, rules};
use crate::approvals::identity_uid;
use crate::fault::Fault;
use crate::settings::is_named;
use crate::shape::Shape;

pub(super) fn find(bundle: &Bundle<'_>, found: &mut Found) {
    let ids: BTreeSet<&str> = bundle.actions.iter().map(|types| types.action.id()).collect();
    baselines(bundle, &ids, found);
    let settings = &bundle.settings.behavior;
    for (action, fields) in &settings.targets {
        let types = bundle.actions.iter().find(|types| is_named(&types.action, action));
        match types {
            None => found.add(unknown_action("bundle.toml", action, &ids)),
            Some(types) => {
                let unknown = fields.iter().filter(|field| !has_field(&types.context, field));
                for field in unknown {
                    found.add(unknown_field(field, &format!("action `{action}` has")));
                }
            }
        }
    }
    let of_any =
        settings.references.iter().chain((!settings.network.is_empty()).then_some(&settings.network));
    for field in of_any.filter(|field| !bundle.actions.iter().any(|types| has_field(&types.context, field))) {
        found.add(unknown_field(field, "any action has"));
    }
}

fn baselines(bundle: &Bundle<'_>, ids: &BTreeSet<&str>, found: &mut Found) {
    let Some(kept) = &bundle.parsed.baselines else { return };
    let mut actions = BTreeSet::new();
    let mut types = BTreeSet::new();
    for (identity, tasks) in &kept.baselines {
        actions.extend(tasks.values().flat_map(|approved| approved.actions.keys()));
        types.extend(identity_uid(identity).map(|uid| uid.type_name()));
    }
    for action in actions.into_iter().filter(|action| !ids.contains(action.as_str())) {
        found.add(unknown_action("baselines.json", action, ids));
    }
    for name in types.iter().filter(|name| !bundle.entity_types.contains_key(name)) {
        let message = format!("identities have type `{name}`, which the schema does not have");
        found.add(
            Fault::of(&rules::BASELINE_UNKNOWN_NAME, "baselines.json", message)
                .help("learn from attempts of the schema's principals"),
        );
    }
}

fn has_field(context: &Shape, field: &str) -> bool {
    let Shape::Record(groups) = context else { return false };
    let Some(Shape::Record(fields)) = groups.get("request").map(|request| &request.shape) else {
        return false;
    };
    fields.contains_key(field)
}

fn unknown_action(file: &str, action: &str, ids: &BTreeSet<&str>) -> Fault {
    let message = format!("names action `{action}`, which the schema does not have");
    let help = nearest(action, ids.iter().copied()).map_or_else(
        || "name actions by their ids in the schema".to_owned(),
        |meant| format!("did you mean `{meant}`?"),
    );
    Fault::of(&rules::BASELINE_UNKNOWN_NAME, file, message).help(help)
}

fn unknown_field(field: &str, whose: &str) -> Fault {
    let message =
        format!("`[behavior]` names field `{field}`, and no `context.request` that {whose} holds it");
    Fault::of(&rules::BASELINE_UNKNOWN_NAME, "bundle.toml", message)
        .help("name a field that the schema declares")
}
