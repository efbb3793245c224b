//! The schema: types that nobody uses, groups without actions, actions that nobody may take.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "looks for the few shapes that it knows; all others are none of its business"
)]

use std::collections::BTreeSet;

use ahash::AHashSet;

use super::allow::Found;
use super::bundle::{Bundle, Subject, admits};
use super::rules;
use super::scan::Declared;
use crate::engine::syntax::{self, Kind};
use crate::engine::{TypeName, Uid, annotation};
use crate::index::Named;

pub(super) fn find(bundle: &Bundle<'_>, found: &mut Found) {
    unused_types(bundle, found);
    empty_groups(bundle, found);
    without_permit(bundle, found);
}

/// The number of the declaration of an action.
pub(super) fn declaration_of_action(bundle: &Bundle<'_>, action: &Uid) -> Option<usize> {
    let of_type = action.type_text();
    bundle.declarations.iter().position(|found| {
        found.what == Declared::Action
            && found.name == action.id()
            && of_type.strip_suffix("Action") == Some(found.namespace.as_str())
    })
}

fn unused_types(bundle: &Bundle<'_>, found: &mut Found) {
    let used = used_types(bundle);
    for (number, declaration) in bundle.declarations.iter().enumerate() {
        if declaration.what == Declared::EntityType && !used.contains(&declaration.name) {
            let message = format!(
                "entity type `{}` is used by no action, other type, policy or route",
                declaration.name
            );
            found.add_declaration(bundle, &rules::UNUSED_ENTITY_TYPE, Some(number), message);
        }
    }
}

fn used_types(bundle: &Bundle<'_>) -> BTreeSet<String> {
    let mut used: BTreeSet<TypeName> = BTreeSet::new();
    for types in &bundle.actions {
        used.extend(types.principals.iter().chain(&types.resources).cloned());
    }
    used.extend(syntax::context_entity_types(bundle.schema));
    for of in bundle.entity_types.values() {
        used.extend(of.names.iter().filter(|name| **name != of.name).cloned());
        if of.descendants.iter().any(|name| *name != of.name) {
            used.insert(of.name.clone());
        }
    }
    for subject in &bundle.policies {
        for named in [&subject.principal, &subject.resource] {
            match named {
                Named::Anything => {}
                Named::Type(name) => {
                    used.insert(name.clone());
                }
                Named::Itself(uid) | Named::Within(uid) => {
                    used.insert(uid.type_name());
                }
                Named::TypeWithin(name, uid) => used.extend([name.clone(), uid.type_name()]),
            }
        }
        if let Some(condition) = &subject.condition {
            condition.visit(&mut |term| match &term.kind {
                Kind::Entity(uid) => {
                    used.insert(uid.type_name());
                }
                Kind::Is(_, name) => {
                    used.insert(name.clone());
                }
                _ => {}
            });
        }
    }
    let mut used: BTreeSet<String> = used.iter().map(ToString::to_string).collect();
    if let Some(table) = &bundle.parsed.routes {
        used.extend(table.routes().iter().map(|route| route.resource_type().to_string()));
        used.extend(table.identity().entity_types().map(ToString::to_string));
    }
    used
}

fn empty_groups(bundle: &Bundle<'_>, found: &mut Found) {
    let applies: AHashSet<&Uid> = bundle
        .actions
        .iter()
        .filter(|types| !types.principals.is_empty() && !types.resources.is_empty())
        .map(|types| &types.action)
        .collect();
    for (action, members) in &bundle.members {
        if members.is_empty() && !applies.contains(action) {
            let message = format!("action `{}` applies to nothing, and no action is in it", action.id());
            let declaration = declaration_of_action(bundle, action);
            found.add_declaration(bundle, &rules::EMPTY_ACTION_GROUP, declaration, message);
        }
    }
}

/// The actions that some permit covers, with each resource type that it covers them on.
pub(super) fn permitted(bundle: &Bundle<'_>) -> BTreeSet<(usize, TypeName)> {
    let mut permitted = BTreeSet::new();
    let mut seen = AHashSet::new();
    let permits =
        |subject: &&Subject<'_>| !subject.forbids && annotation(subject.policy, "dry_run").is_none();
    for subject in bundle.policies.iter().filter(permits) {
        // Many permits share few scopes, as far as types go.
        if !seen.insert((&subject.principal, &subject.actions.numbers, &subject.resource)) {
            continue;
        }
        for number in &subject.actions.numbers {
            let Some(types) = bundle.actions.get(*number) else { continue };
            let admitted = |named: &Named, name: &TypeName| admits(named, name, &bundle.entity_types);
            if types.principals.iter().any(|name| admitted(&subject.principal, name)) {
                let resources = types.resources.iter().filter(|name| admitted(&subject.resource, name));
                permitted.extend(resources.map(|name| (*number, name.clone())));
            }
        }
    }
    permitted
}

fn without_permit(bundle: &Bundle<'_>, found: &mut Found) {
    if bundle.policies.is_empty() {
        return;
    }
    let permitted: BTreeSet<usize> = permitted(bundle).into_iter().map(|(number, _)| number).collect();
    for (number, types) in bundle.actions.iter().enumerate() {
        let applies = !types.principals.is_empty() && !types.resources.is_empty();
        if applies && !permitted.contains(&number) {
            let message =
                format!("no permit covers action `{}`, so every attempt at it is denied", types.action.id());
            let declaration = declaration_of_action(bundle, &types.action);
            found.add_declaration(bundle, &rules::ACTION_WITHOUT_PERMIT, declaration, message);
        }
    }
}
