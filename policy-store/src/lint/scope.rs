//! Scopes: permits for everybody and everything, forbids of everything, groups that nobody is in.

use ahash::AHashSet;

use super::allow::Found;
use super::bundle::{Bundle, Part, Subject};
use super::rules;
use crate::engine::syntax::Variable;
use crate::engine::{TypeName, Uid};
use crate::index::Named;

pub(super) fn find(bundle: &Bundle<'_>, found: &mut Found) {
    let occupied = Occupied::of(bundle);
    for (number, subject) in bundle.policies.iter().enumerate() {
        if subject.forbids {
            forbids_everything(bundle, number, subject, found);
        } else {
            permits_all(bundle, number, subject, found);
        }
        empty_group(bundle, (number, subject), &occupied, found);
    }
}

fn forbids_everything(bundle: &Bundle<'_>, number: usize, subject: &Subject<'_>, found: &mut Found) {
    let open = subject.any_action
        && subject.principal == Named::Anything
        && subject.resource == Named::Anything
        && subject.condition.is_none();
    if open {
        let message = format!("forbid `{}` denies every attempt", subject.id);
        found.add_policy(bundle, &rules::FORBID_EVERYTHING, number, &Part::Head, message);
    }
}

fn permits_all(bundle: &Bundle<'_>, number: usize, subject: &Subject<'_>, found: &mut Found) {
    let tests = |variable| subject.condition.as_ref().is_some_and(|term| term.mentions(variable));
    let id = subject.id;
    let parts = [
        (
            &rules::PERMIT_EVERY_PRINCIPAL,
            subject.principal == Named::Anything && !tests(Variable::Principal),
            "principal",
        ),
        (&rules::PERMIT_EVERY_ACTION, subject.any_action && !tests(Variable::Action), "action"),
        (
            &rules::PERMIT_EVERY_RESOURCE,
            subject.resource == Named::Anything && !tests(Variable::Resource),
            "resource",
        ),
    ];
    for (part, (rule, open, what)) in parts.into_iter().enumerate() {
        if open {
            let message = format!("permit `{id}` is for every {what}");
            found.add_policy(bundle, rule, number, &Part::Scope(part), message);
        }
    }
}

/// Which types of entities are in which groups, by entities.json.
struct Occupied(AHashSet<(Uid, TypeName)>);

impl Occupied {
    fn of(bundle: &Bundle<'_>) -> Self {
        let needed = bundle
            .policies
            .iter()
            .any(|subject| within(&subject.principal).is_some() || within(&subject.resource).is_some());
        let mut pairs = AHashSet::new();
        if needed {
            for uid in bundle.world.uids() {
                let of_type = uid.type_name();
                for ancestor in bundle.world.ancestors(&uid) {
                    pairs.insert((ancestor, of_type.clone()));
                }
            }
        }
        Self(pairs)
    }
}

fn within(named: &Named) -> Option<(Option<&TypeName>, &Uid)> {
    match named {
        Named::Within(group) => Some((None, group)),
        Named::TypeWithin(of_type, group) => Some((Some(of_type), group)),
        Named::Anything | Named::Type(_) | Named::Itself(_) => None,
    }
}

fn empty_group(
    bundle: &Bundle<'_>,
    (number, subject): (usize, &Subject<'_>),
    occupied: &Occupied,
    found: &mut Found,
) {
    if found.never_apply.contains(&number) {
        return;
    }
    let sides = [
        (0, &subject.principal, &subject.actions.principals, "principal"),
        (2, &subject.resource, &subject.actions.resources, "resource"),
    ];
    for (part, named, types, what) in sides {
        let Some((of_type, group)) = within(named) else { continue };
        let possible = |name: &TypeName| of_type.is_none_or(|of_type| of_type == name);
        // The group is in itself, if it can take the role.
        let itself = types.iter().any(|name| possible(name) && group.is(name));
        let member =
            || types.iter().any(|name| possible(name) && occupied.0.contains(&(group.clone(), name.clone())));
        if !itself && !member() {
            let message = format!(
                "policy `{}` never applies: no {what} that entities.json lists is in `{group}`",
                subject.id
            );
            let fault = bundle.in_policy(&rules::NEVER_APPLIES, number, &Part::Scope(part), message);
            let help = "put entities into the group in entities.json, or correct its name";
            found.add_about_policy(number, fault.help(help));
        }
    }
}
