//! Policies that say what others say already: duplicates, and those that a wider one shadows.
//!
//! By hashing, not pair by pair: policies are kept by condition and scope, and for each policy only the scopes that contain
//! its own are looked up. Limits: [`WIDER_MAX`] ancestors of an entity are tried, and [`COMPARED_MAX`] other sets of actions
//! for one scope; beyond them a shadow may go unseen, which costs nothing but the finding.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use super::allow::Found;
use super::bundle::{ActionSet, Bundle, Part, Subject};
use super::rules;
use crate::engine::Uid;
use crate::engine::annotation;
use crate::engine::syntax::Term;
use crate::index::Named;

/// Most ancestors of an entity whose scopes are tried: groups nest a few levels deep.
const WIDER_MAX: usize = 64;
/// Most sets of actions that are compared with one, for the same principal and resource; the widest come first.
const COMPARED_MAX: usize = 32;
/// What a policy does beside its answer.
const EFFECTS: [&str; 3] = ["label", "respond", "dry_run"];

pub(super) fn find(bundle: &Bundle<'_>, found: &mut Found) {
    let shelves = Shelves::of(&bundle.policies);
    let mut ancestors = Ancestors { bundle, known: AHashMap::new() };
    for (number, subject) in bundle.policies.iter().enumerate() {
        if subject.actions.numbers.is_empty() || found.never_apply.contains(&number) {
            continue;
        }
        let Some(other) = shelves.wider(number, subject, &mut ancestors) else { continue };
        let Some(wide) = bundle.policies.get(other) else { continue };
        let same = wide.principal == subject.principal
            && wide.resource == subject.resource
            && wide.actions.numbers == subject.actions.numbers
            && wide.condition == subject.condition;
        let (rule, message) = if same {
            (&rules::DUPLICATE_POLICY, format!("policy `{}` says the same as `{}`", subject.id, wide.id))
        } else {
            let message =
                format!("policy `{}` changes nothing: `{}` applies wherever it does", subject.id, wide.id);
            (&rules::SHADOWED_POLICY, message)
        };
        found.add_policy(bundle, rule, number, &Part::Head, message);
    }
}

/// Policies of one effect and condition, by principal and resource.
#[derive(Default)]
struct Shelf<'b> {
    principals: AHashSet<&'b Named>,
    resources: AHashSet<&'b Named>,
    /// The widest sets of actions first.
    by_scope: AHashMap<(&'b Named, &'b Named), Vec<usize>>,
    /// In the order of the bundle.
    exact: AHashMap<(&'b Named, &'b Named, &'b [usize]), Vec<usize>>,
}

struct Shelves<'b> {
    policies: &'b [Subject<'b>],
    by_condition: AHashMap<(bool, Option<&'b Term>), Shelf<'b>>,
}

impl<'b> Shelves<'b> {
    fn of(policies: &'b [Subject<'b>]) -> Self {
        let mut by_condition: AHashMap<_, Shelf<'b>> = AHashMap::new();
        for (number, subject) in policies.iter().enumerate() {
            let shelf = by_condition.entry((subject.forbids, subject.condition.as_ref())).or_default();
            shelf.principals.insert(&subject.principal);
            shelf.resources.insert(&subject.resource);
            shelf.by_scope.entry((&subject.principal, &subject.resource)).or_default().push(number);
            let exact = (&subject.principal, &subject.resource, subject.actions.numbers.as_slice());
            shelf.exact.entry(exact).or_default().push(number);
        }
        for shelf in by_condition.values_mut() {
            for numbers in shelf.by_scope.values_mut() {
                let width =
                    |number: &usize| policies.get(*number).map_or(0, |found| found.actions.numbers.len());
                numbers.sort_by_key(|number| (std::cmp::Reverse(width(number)), *number));
            }
        }
        Self { policies, by_condition }
    }

    /// A policy that makes this one superfluous.
    fn wider(&self, number: usize, subject: &Subject<'_>, ancestors: &mut Ancestors<'_>) -> Option<usize> {
        let mut conditions = vec![None];
        if let Some(condition) = &subject.condition {
            conditions.push(Some(condition));
        }
        for condition in conditions {
            let Some(shelf) = self.by_condition.get(&(subject.forbids, condition)) else { continue };
            let principals = ancestors.wider(&subject.principal, &shelf.principals);
            let resources = ancestors.wider(&subject.resource, &shelf.resources);
            for principal in &principals {
                for resource in &resources {
                    let exact = (principal, resource, subject.actions.numbers.as_slice());
                    let numbers = [shelf.exact.get(&exact), shelf.by_scope.get(&(principal, resource))];
                    let others = numbers.into_iter().flatten().flat_map(|numbers| {
                        numbers.iter().filter(|other| **other != number).take(COMPARED_MAX)
                    });
                    let shadow = others.into_iter().find(|other| {
                        self.policies
                            .get(**other)
                            .is_some_and(|wide| shadows((wide, **other), (subject, number)))
                    });
                    if shadow.is_some() {
                        return shadow.copied();
                    }
                }
            }
        }
        None
    }
}

/// Whether the first makes the second superfluous, given that its principal, resource and condition are as wide.
fn shadows((wide, wide_number): (&Subject<'_>, usize), (narrow, number): (&Subject<'_>, usize)) -> bool {
    let equal = wide.principal == narrow.principal
        && wide.resource == narrow.resource
        && wide.actions.numbers == narrow.actions.numbers
        && wide.condition == narrow.condition;
    covers(&wide.actions, &narrow.actions)
        && as_strong(wide, narrow)
        // Of two equal ones the later is superfluous, unless only the earlier is weaker.
        && (!equal || wide_number < number || !as_strong(narrow, wide))
}

fn covers(wide: &Arc<ActionSet>, narrow: &Arc<ActionSet>) -> bool {
    Arc::ptr_eq(wide, narrow)
        || narrow.numbers.iter().all(|number| wide.numbers.binary_search(number).is_ok())
}

/// Whether the verdict is the same without the second: a step-up is weaker than a deny and no other step-up's
/// equal, and an obligation must not be lost.
fn as_strong(wide: &Subject<'_>, narrow: &Subject<'_>) -> bool {
    let key = if wide.forbids { "step_up" } else { "obligation" };
    // What the second does beside its answer must not be lost either, and one in dry run answers nothing.
    let does = |of: &Subject<'_>| EFFECTS.map(|key| annotation(of.policy, key).map(str::to_owned));
    if does(wide) != does(narrow) {
        return false;
    }
    let (of_wide, of_narrow) = (annotation(wide.policy, key), annotation(narrow.policy, key));
    of_wide == of_narrow || if wide.forbids { of_wide.is_none() } else { of_narrow.is_none() }
}

struct Ancestors<'b> {
    bundle: &'b Bundle<'b>,
    known: AHashMap<Uid, Vec<Uid>>,
}

impl Ancestors<'_> {
    /// Those of `present` that contain what `named` names.
    fn wider(&mut self, named: &Named, present: &AHashSet<&Named>) -> Vec<Named> {
        let mut wider = vec![Named::Anything, named.clone()];
        match named {
            Named::Anything => {
                wider.pop();
            }
            Named::Type(_) => {}
            Named::Itself(uid) => {
                let of_type = uid.type_name();
                wider.push(Named::Type(of_type.clone()));
                for group in self.of(uid) {
                    wider.push(Named::TypeWithin(of_type.clone(), group.clone()));
                    wider.push(Named::Within(group));
                }
            }
            Named::Within(group) => wider.extend(self.of(group).into_iter().map(Named::Within)),
            Named::TypeWithin(of_type, group) => {
                wider.push(Named::Type(of_type.clone()));
                for group in self.of(group) {
                    wider.push(Named::TypeWithin(of_type.clone(), group.clone()));
                    wider.push(Named::Within(group));
                }
            }
        }
        wider.retain(|named| present.contains(named));
        wider
    }

    /// An entity and what it is in.
    fn of(&mut self, uid: &Uid) -> Vec<Uid> {
        let found = self.known.entry(uid.clone()).or_insert_with(|| {
            let ancestors = self.bundle.world.ancestors(uid);
            std::iter::once(uid.clone()).chain(ancestors).take(WIDER_MAX).collect()
        });
        found.clone()
    }
}
