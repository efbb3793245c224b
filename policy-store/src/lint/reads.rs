//! Attributes of entities that entities.json may not list.
//!
//! The schema promises the attributes of *listed* entities. An attempt may name any other: that one has no attribute at all,
//! and a policy that reads one errors, which denies if it is a forbid. Follows `has`, `in` and `==` through `&&`, `||`, `!` and
//! `if`, as Cedar's validator does for optional attributes. One finding for each entity that a policy reads so.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "looks for the few shapes that it knows; all others are none of its business"
)]

use std::collections::{BTreeMap, BTreeSet};

use ahash::AHashMap;
use cedar_policy::EvalResult;
use smol_str::SmolStr;

use super::allow::Found;
use super::bundle::{Bundle, Part, Subject, admits};
use super::rules;
use crate::engine::syntax::{Kind, Operator, Term, Variable};
use crate::engine::{TypeName, Uid};
use crate::index::Named;
use crate::shape::Shape;

pub(super) fn find(bundle: &Bundle<'_>, found: &mut Found) {
    let mut values = Values { bundle, known: AHashMap::new() };
    for (number, subject) in bundle.policies.iter().enumerate() {
        let Some(condition) = &subject.condition else { continue };
        let mut reader = Reader { subject, values: &mut values, unguarded: BTreeMap::new() };
        reader.walk(condition, &[]);
        for (entity, (read, attribute)) in reader.unguarded {
            let name = shown(entity);
            let outcome = if subject.forbids { "denies with an error" } else { "permits nothing" };
            let message = format!(
                "policy `{}` reads `{name}.{attribute}`, but `{name}` may be one that entities.json does not list: \
                 it has no attributes, and the policy {outcome}",
                subject.id
            );
            let fault = bundle.in_policy(&rules::UNGUARDED_ENTITY, number, &Part::Bytes(&read.span), message);
            found.add_about_policy(number, fault.help(format!("guard it: `{name} has {attribute} && …`")));
        }
    }
}

/// The entities that are surely listed where a term is true, and where it is false.
#[derive(Default)]
struct Listed<'t> {
    if_true: Vec<&'t Term>,
    if_false: Vec<&'t Term>,
}

struct Reader<'t, 'v, 'b> {
    subject: &'t Subject<'t>,
    values: &'v mut Values<'b>,
    /// The first such read of each entity, and its attribute.
    unguarded: BTreeMap<&'t Term, (&'t Term, &'t SmolStr)>,
}

impl<'t> Reader<'t, '_, '_> {
    /// Walks a term where the entities of `known` are listed.
    fn walk(&mut self, term: &'t Term, known: &[&'t Term]) -> Listed<'t> {
        match &term.kind {
            Kind::All(terms) => {
                self.sequence(terms, known, |listed| (listed.if_true, listed.if_false), false)
            }
            Kind::Any(terms) => self.sequence(terms, known, |listed| (listed.if_false, listed.if_true), true),
            Kind::Not(inner) => {
                let Listed { if_true, if_false } = self.walk(inner, known);
                Listed { if_true: if_false, if_false: if_true }
            }
            Kind::If(parts) => {
                let [test, then, otherwise] = &**parts;
                let test = self.walk(test, known);
                let then = self.walk(then, &joined(known, &test.if_true));
                let otherwise = self.walk(otherwise, &joined(known, &test.if_false));
                Listed {
                    if_true: common(&then.if_true, &otherwise.if_true),
                    if_false: common(&then.if_false, &otherwise.if_false),
                }
            }
            Kind::Has(entity, _) => {
                self.walk(entity, known);
                Listed { if_true: vec![entity], if_false: Vec::new() }
            }
            Kind::Binary(operator, operands) => {
                let [left, right] = &**operands;
                self.walk(left, known);
                self.walk(right, known);
                Listed { if_true: self.compared(*operator, left, right), if_false: Vec::new() }
            }
            Kind::Read(entity, attribute) => {
                self.walk(entity, known);
                self.read(term, entity, attribute, known);
                Listed::default()
            }
            _ => {
                for part in term.parts() {
                    self.walk(part, known);
                }
                Listed::default()
            }
        }
    }

    /// Walks operands that are evaluated from left to right, each where those before it let evaluation go on.
    fn sequence(
        &mut self,
        terms: &'t [Term],
        known: &[&'t Term],
        goes_on_and_stops: impl Fn(Listed<'t>) -> (Vec<&'t Term>, Vec<&'t Term>),
        stops_when_true: bool,
    ) -> Listed<'t> {
        let mut on: Vec<&'t Term> = Vec::new();
        let mut stopped: Option<Vec<&'t Term>> = None;
        for term in terms {
            let listed = self.walk(term, &joined(known, &on));
            let (goes_on, stops) = goes_on_and_stops(listed);
            let stops = joined(&on, &stops);
            stopped = Some(stopped.map_or_else(|| stops.clone(), |before| common(&before, &stops)));
            on.extend(goes_on);
        }
        let stopped = stopped.unwrap_or_default();
        if stops_when_true {
            Listed { if_true: stopped, if_false: on }
        } else {
            Listed { if_true: on, if_false: stopped }
        }
    }

    /// What is listed if a comparison holds.
    fn compared(&mut self, operator: Operator, left: &'t Term, right: &'t Term) -> Vec<&'t Term> {
        match operator {
            Operator::HasTag => vec![left],
            Operator::Equal if self.is_listed(left) => vec![right],
            Operator::Equal if self.is_listed(right) => vec![left],
            Operator::In if self.in_implies_listed(left, right) => vec![left],
            Operator::Contains => match &left.kind {
                Kind::Set(items) if items.iter().all(|item| self.is_listed(item)) => vec![right],
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// Only listed entities are in others; but everything is in itself.
    fn in_implies_listed(&mut self, left: &Term, right: &Term) -> bool {
        if let Kind::Set(items) = &right.kind {
            return items.iter().all(|item| self.in_implies_listed(left, item));
        }
        if self.is_listed(right) {
            return true;
        }
        let (lefts, rights) = (self.shapes(left), self.shapes(right));
        let distinct = |shape: &Shape| match shape {
            Shape::Entity(_) => !lefts.contains(shape),
            Shape::Set(element) => !lefts.contains(element),
            _ => false,
        };
        !rights.is_empty() && rights.iter().all(distinct)
    }

    fn read(&mut self, read: &'t Term, entity: &'t Term, attribute: &'t SmolStr, known: &[&'t Term]) {
        if is_fact(entity) || known.contains(&entity) || self.unguarded.contains_key(entity) {
            return;
        }
        let shapes = self.shapes(entity);
        let is_entity = shapes.iter().any(|shape| matches!(shape, Shape::Entity(_)));
        if is_entity && !self.is_listed(entity) {
            self.unguarded.insert(entity, (read, attribute));
        }
    }

    /// Whether a term surely is a listed entity, whatever the attempt.
    fn is_listed(&mut self, term: &Term) -> bool {
        let subject = self.subject;
        match &term.kind {
            Kind::Entity(uid) => self.values.bundle.listed.contains(uid),
            Kind::Variable(Variable::Principal) => {
                self.scope_lists(&subject.principal, &subject.actions.principals)
            }
            Kind::Variable(Variable::Resource) => {
                self.scope_lists(&subject.resource, &subject.actions.resources)
            }
            Kind::Variable(Variable::Action) => true,
            Kind::Read(of, attribute) => {
                let holders = self.shapes(of);
                !holders.is_empty()
                    && holders.iter().all(|holder| match holder {
                        Shape::Entity(of_type) => self.values.listed(of_type, attribute),
                        _ => false,
                    })
            }
            _ => false,
        }
    }

    fn scope_lists(&self, named: &Named, types: &BTreeSet<TypeName>) -> bool {
        let listed = |uid: &Uid| self.values.bundle.listed.contains(uid);
        match named {
            Named::Anything | Named::Type(_) => false,
            Named::Itself(uid) => listed(uid),
            Named::Within(group) => listed(group) || !types.iter().any(|name| group.is(name)),
            Named::TypeWithin(of_type, group) => listed(group) || !group.is(of_type),
        }
    }

    /// The types that a term can have, as far as the schema says.
    fn shapes(&self, term: &Term) -> Vec<Shape> {
        let bundle = self.values.bundle;
        let role = |named: &Named, types: &BTreeSet<TypeName>| -> Vec<Shape> {
            let admitted = types.iter().filter(|of_type| admits(named, of_type, &bundle.entity_types));
            admitted.cloned().map(Shape::Entity).collect()
        };
        match &term.kind {
            Kind::Variable(Variable::Principal) => {
                role(&self.subject.principal, &self.subject.actions.principals)
            }
            Kind::Variable(Variable::Resource) => {
                role(&self.subject.resource, &self.subject.actions.resources)
            }
            Kind::Variable(Variable::Context) => {
                let numbers = self.subject.actions.numbers.iter();
                numbers.filter_map(|number| Some(bundle.actions.get(*number)?.context.clone())).collect()
            }
            Kind::Entity(uid) => vec![Shape::Entity(uid.type_name())],
            Kind::Read(of, attribute) => {
                let attribute_of = |shape: &Shape| match shape {
                    Shape::Entity(name) => field(&bundle.entity_types.get(name)?.attributes, attribute),
                    record => field(record, attribute),
                };
                self.shapes(of).iter().filter_map(attribute_of).collect()
            }
            Kind::If(parts) => {
                let [_, then, otherwise] = &**parts;
                let mut shapes = self.shapes(then);
                shapes.extend(self.shapes(otherwise));
                shapes
            }
            _ => Vec::new(),
        }
    }
}

fn field(record: &Shape, name: &str) -> Option<Shape> {
    match record {
        Shape::Record(fields) => fields.get(name).map(|field| field.shape.clone()),
        _ => None,
    }
}

/// `context.GROUP` of Cardea's own facts, which hold no entity.
fn is_fact(term: &Term) -> bool {
    match &term.kind {
        Kind::Variable(Variable::Context) => true,
        Kind::Read(of, group) => of.kind == Kind::Variable(Variable::Context) && group != "request",
        _ => false,
    }
}

/// An entity as a policy writes it.
fn shown(term: &Term) -> String {
    match &term.kind {
        Kind::Variable(Variable::Principal) => "principal".into(),
        Kind::Variable(Variable::Resource) => "resource".into(),
        Kind::Variable(Variable::Action) => "action".into(),
        Kind::Variable(Variable::Context) => "context".into(),
        Kind::Entity(uid) => uid.to_string(),
        Kind::Read(of, attribute) => format!("{}.{attribute}", shown(of)),
        _ => "(…)".into(),
    }
}

fn joined<'t>(one: &[&'t Term], other: &[&'t Term]) -> Vec<&'t Term> {
    one.iter().chain(other).copied().collect()
}

fn common<'t>(one: &[&'t Term], other: &[&'t Term]) -> Vec<&'t Term> {
    one.iter().filter(|term| other.contains(term)).copied().collect()
}

/// Whether attributes of listed entities name only listed entities.
struct Values<'b> {
    bundle: &'b Bundle<'b>,
    known: AHashMap<(TypeName, SmolStr), bool>,
}

impl Values<'_> {
    fn listed(&mut self, of_type: &TypeName, attribute: &SmolStr) -> bool {
        let bundle = self.bundle;
        let key = (of_type.clone(), attribute.clone());
        *self.known.entry(key).or_insert_with(|| {
            let entities = bundle.world.public().iter();
            let values = entities
                .filter(|entity| Uid::from(&entity.uid()).is(of_type))
                .filter_map(|entity| entity.attr(attribute));
            values.into_iter().all(|value| match value {
                Ok(EvalResult::EntityUid(uid)) => bundle.listed.contains(&Uid::from(&uid)),
                Ok(_) | Err(_) => false,
            })
        })
    }
}
