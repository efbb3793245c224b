//! The scope index: which policies can matter to (principal, action, resource), by lookup.
//!
//! A policy's scope names three things: a principal (any, a type, an entity, an ancestor), an action (any, one,
//! a group) and a resource (as the principal). Each becomes a small number, a *key*. An entity's keys are those
//! that a policy could have used to name it: itself, its type, its ancestors; they are worked out once, when
//! the bundle is loaded. A lookup pairs the principal's keys with the resource's and looks into the slot of each
//! pair for the action's keys.
//!
//! INVARIANT (scope index): `candidates(p, a, r)` is exactly the policies whose scope holds for (p, a, r). It
//! must be a superset of the satisfied ones, or a policy would be overlooked; it must hold no other, because
//! [`crate::engine::Scene::holds`] evaluates only what remains beside the scope.
//!
//! Cost: for each principal key, the smaller of its pairs and the resource's keys; independent of how many
//! policies there are. Never evaluates a condition.

use std::collections::BTreeMap;

use ahash::AHashMap;
use cedar_policy::{ActionConstraint, PrincipalConstraint, ResourceConstraint};
use smallvec::SmallVec;

use crate::engine::{TypeName, Uid, World};

/// Number of a policy within its snapshot, in the order of the bundle.
pub type PolicyIndex = u32;

/// The policies that can matter to one question, in the order of the bundle, without repetition.
pub type Candidates = SmallVec<[PolicyIndex; 8]>;

/// How a scope names an entity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Named {
    Anything,
    Type(TypeName),
    Itself(Uid),
    Within(Uid),
    TypeWithin(TypeName, Uid),
}

/// Numbers for the ways in which scopes name one of the three.
#[derive(Debug, Default)]
struct Keys(AHashMap<Named, u32>);

impl Keys {
    fn number(&mut self, named: Named) -> u32 {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(named).or_insert(next)
    }

    /// The keys by which some policy could have named this entity, in rising order.
    fn of(&self, uid: &Uid, ancestors: &[Uid]) -> EntityKeys {
        let of_type = uid.type_name();
        let within = std::iter::once(uid).chain(ancestors);
        let named = [Named::Anything, Named::Type(of_type.clone()), Named::Itself(uid.clone())]
            .into_iter()
            .chain(within.flat_map(|uid| {
                [Named::Within(uid.clone()), Named::TypeWithin(of_type.clone(), uid.clone())]
            }));
        let mut keys: EntityKeys = named.filter_map(|named| self.0.get(&named).copied()).collect();
        keys.sort_unstable();
        keys
    }

    /// A known entity's keys; those of an unknown one are worked out into `room`.
    fn known_or_new<'k>(
        &self,
        known: Option<&'k EntityKeys>,
        uid: &Uid,
        room: &'k mut EntityKeys,
    ) -> &'k EntityKeys {
        known.unwrap_or_else(|| {
            *room = self.of(uid, &[]);
            room
        })
    }
}

type EntityKeys = SmallVec<[u32; 6]>;

/// Keys of the three roles that a known entity can take.
#[derive(Debug)]
struct Known {
    principal: EntityKeys,
    action: EntityKeys,
    resource: EntityKeys,
}

/// Policies that name the same principal and resource, ordered by action key.
type Slot = Box<[(u32, PolicyIndex)]>;

/// See the module.
#[derive(Debug, Default)]
pub struct ScopeIndex {
    principals: Keys,
    actions: Keys,
    resources: Keys,
    /// Resource keys that occur together with a principal key, in rising order.
    partners: Vec<Box<[u32]>>,
    slots: AHashMap<(u32, u32), Slot>,
    known: AHashMap<Uid, Known>,
}

impl ScopeIndex {
    /// Indexes the scopes of `policies` for the entities of `world`.
    pub fn new<'p>(policies: impl IntoIterator<Item = &'p cedar_policy::Policy>, world: &World) -> Self {
        let mut index = Self::default();
        let mut slots: BTreeMap<(u32, u32), Vec<(u32, PolicyIndex)>> = BTreeMap::new();
        for (policy, number) in policies.into_iter().zip(0..) {
            let principal = index.principals.number(principal(&policy.principal_constraint()));
            let resource = index.resources.number(resource(&policy.resource_constraint()));
            let slot = slots.entry((principal, resource)).or_default();
            for action in actions(&policy.action_constraint()) {
                slot.push((index.actions.number(action), number));
            }
        }
        index.partners = partners(&slots);
        index.slots = slots
            .into_iter()
            .map(|(pair, mut slot)| {
                slot.sort_unstable();
                (pair, slot.into_boxed_slice())
            })
            .collect();
        index.known =
            world.uids().map(|uid| (uid.clone(), index.keys(&uid, &world.ancestors(&uid)))).collect();
        index
    }

    fn keys(&self, uid: &Uid, ancestors: &[Uid]) -> Known {
        Known {
            principal: self.principals.of(uid, ancestors),
            action: self.actions.of(uid, ancestors),
            resource: self.resources.of(uid, ancestors),
        }
    }

    /// The policies whose scope holds. An entity that the bundle does not know has no ancestors.
    #[must_use]
    pub fn candidates(&self, principal: &Uid, action: &Uid, resource: &Uid) -> Candidates {
        let (mut p, mut a, mut r) = (EntityKeys::new(), EntityKeys::new(), EntityKeys::new());
        let of = |uid| self.known.get(uid);
        self.join(
            self.principals.known_or_new(of(principal).map(|known| &known.principal), principal, &mut p),
            self.actions.known_or_new(of(action).map(|known| &known.action), action, &mut a),
            self.resources.known_or_new(of(resource).map(|known| &known.resource), resource, &mut r),
        )
    }

    fn join(&self, principals: &[u32], actions: &[u32], resources: &[u32]) -> Candidates {
        let mut found = Candidates::new();
        for &principal in principals {
            let Some(partners) = usize::try_from(principal).ok().and_then(|at| self.partners.get(at)) else {
                continue;
            };
            // Whichever list is shorter is walked; the other answers by search, or by the table of slots.
            if partners.len() < resources.len() {
                let common = partners.iter().filter(|key| resources.binary_search(key).is_ok());
                common.for_each(|&resource| self.collect((principal, resource), actions, &mut found));
            } else {
                resources
                    .iter()
                    .for_each(|&resource| self.collect((principal, resource), actions, &mut found));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn collect(&self, pair: (u32, u32), actions: &[u32], found: &mut Candidates) {
        let Some(slot) = self.slots.get(&pair) else { return };
        for &action in actions {
            let start = slot.partition_point(|(key, _)| *key < action);
            let matching = slot.iter().skip(start).take_while(|(key, _)| *key == action);
            found.extend(matching.map(|(_, policy)| *policy));
        }
    }
}

fn partners(slots: &BTreeMap<(u32, u32), Vec<(u32, PolicyIndex)>>) -> Vec<Box<[u32]>> {
    let mut partners: Vec<Vec<u32>> = Vec::new();
    for &(principal, resource) in slots.keys() {
        let Ok(at) = usize::try_from(principal) else { continue };
        if partners.len() <= at {
            partners.resize(at + 1, Vec::new());
        }
        if let Some(list) = partners.get_mut(at) {
            list.push(resource);
        }
    }
    partners.into_iter().map(Vec::into_boxed_slice).collect()
}

pub(crate) fn principal(constraint: &PrincipalConstraint) -> Named {
    match constraint {
        PrincipalConstraint::Any => Named::Anything,
        PrincipalConstraint::In(uid) => Named::Within(uid.into()),
        PrincipalConstraint::Eq(uid) => Named::Itself(uid.into()),
        PrincipalConstraint::Is(name) => Named::Type(name.into()),
        PrincipalConstraint::IsIn(name, uid) => Named::TypeWithin(name.into(), uid.into()),
    }
}

pub(crate) fn resource(constraint: &ResourceConstraint) -> Named {
    match constraint {
        ResourceConstraint::Any => Named::Anything,
        ResourceConstraint::In(uid) => Named::Within(uid.into()),
        ResourceConstraint::Eq(uid) => Named::Itself(uid.into()),
        ResourceConstraint::Is(name) => Named::Type(name.into()),
        ResourceConstraint::IsIn(name, uid) => Named::TypeWithin(name.into(), uid.into()),
    }
}

fn actions(constraint: &ActionConstraint) -> Vec<Named> {
    match constraint {
        ActionConstraint::Any => vec![Named::Anything],
        ActionConstraint::Eq(uid) => vec![Named::Itself(uid.into())],
        ActionConstraint::In(uids) => uids.iter().map(|uid| Named::Within(uid.into())).collect(),
    }
}

#[cfg(test)]
mod tests;
