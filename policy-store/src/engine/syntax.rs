//! Conditions as the lints read them: Cedar's expressions in a normal form, each part with its place in the source.
//!
//! Two conditions have equal terms if they mean the same up to: `unless`, brackets and double negation; the association of
//! `&&` and `||`; the direction of comparisons; the order of the operands of `==` and of the elements of a set. The order of
//! the operands of `&&` and `||` stays, because what stands left may guard what stands right.
//! Never evaluates, and plays no part in a decision.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "looks for the few shapes that it knows; all others are none of its business"
)]

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::ops::Range;

use cedar_policy::Schema;
use cedar_policy_core::ast::{self, BinaryOp, Expr, ExprKind, Literal, UnaryOp, Var};
use cedar_policy_core::validator::types::{EntityKind, Type};
use smol_str::SmolStr;

use super::{TypeName, Uid};
use crate::shape::Shape;

/// A part of a condition. Its place does not count when terms are compared.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    pub(crate) kind: Kind,
    /// In bytes of the file.
    pub(crate) span: Option<Range<usize>>,
}

/// What a part of a condition is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Bool(bool),
    Long(i64),
    Text(SmolStr),
    Entity(Uid),
    Variable(Variable),
    /// `&&`: at least two, from left to right.
    All(Vec<Term>),
    /// `||`: at least two, from left to right.
    Any(Vec<Term>),
    Not(Box<Term>),
    If(Box<[Term; 3]>),
    Binary(Operator, Box<[Term; 2]>),
    Negative(Box<Term>),
    IsEmpty(Box<Term>),
    /// `term.attribute`
    Read(Box<Term>, SmolStr),
    /// `term has attribute`; more than one: `term has a.b`.
    Has(Box<Term>, Vec<SmolStr>),
    Like(Box<Term>, String),
    Is(Box<Term>, TypeName),
    Set(Vec<Term>),
    Record(Vec<(SmolStr, Term)>),
    /// A function of an extension.
    Call(SmolStr, Vec<Term>),
    /// What no static policy holds.
    Opaque(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Variable {
    Principal,
    Action,
    Resource,
    Context,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operator {
    Equal,
    Less,
    LessOrEqual,
    Plus,
    Minus,
    Times,
    In,
    Contains,
    ContainsAll,
    ContainsAny,
    Tag,
    HasTag,
}

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl Eq for Term {}

impl PartialOrd for Term {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Term {
    fn cmp(&self, other: &Self) -> Ordering {
        self.kind.cmp(&other.kind)
    }
}

impl Hash for Term {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
    }
}

impl Term {
    /// What remains of a policy beside its scope; `None`: nothing.
    pub(crate) fn of(policy: &cedar_policy::Policy) -> Option<Self> {
        let core: &ast::Policy = policy.as_ref();
        core.non_scope_constraints().map(term).filter(|term| term.kind != Kind::Bool(true))
    }

    /// What is true exactly where this is false.
    pub(crate) fn opposite(&self) -> Kind {
        not(self.clone())
    }

    /// The parts that it is directly made of.
    pub(crate) fn parts(&self) -> Vec<&Self> {
        match &self.kind {
            Kind::All(terms) | Kind::Any(terms) | Kind::Set(terms) | Kind::Call(_, terms) => {
                terms.iter().collect()
            }
            Kind::If(parts) => parts.iter().collect(),
            Kind::Binary(_, parts) => parts.iter().collect(),
            Kind::Not(part)
            | Kind::Negative(part)
            | Kind::IsEmpty(part)
            | Kind::Read(part, _)
            | Kind::Has(part, _)
            | Kind::Like(part, _)
            | Kind::Is(part, _) => vec![part],
            Kind::Record(fields) => fields.iter().map(|(_, term)| term).collect(),
            Kind::Bool(_)
            | Kind::Long(_)
            | Kind::Text(_)
            | Kind::Entity(_)
            | Kind::Variable(_)
            | Kind::Opaque(_) => Vec::new(),
        }
    }

    /// Calls `see` with every part, itself first, from left to right.
    pub(crate) fn visit<'t>(&'t self, see: &mut impl FnMut(&'t Self)) {
        see(self);
        for part in self.parts() {
            part.visit(see);
        }
    }

    /// Whether it reads that variable anywhere.
    pub(crate) fn mentions(&self, variable: Variable) -> bool {
        let mut found = false;
        self.visit(&mut |term| found |= term.kind == Kind::Variable(variable));
        found
    }
}

fn term(expression: &Expr) -> Term {
    let span = expression.source_loc().map(|place| place.start()..place.end());
    Term { kind: kind(expression), span }
}

fn boxed(expression: &Expr) -> Box<Term> {
    Box::new(term(expression))
}

fn kind(expression: &Expr) -> Kind {
    match expression.expr_kind() {
        ExprKind::Lit(literal) => match literal {
            Literal::Bool(value) => Kind::Bool(*value),
            Literal::Long(value) => Kind::Long(*value),
            Literal::String(value) => Kind::Text(value.clone()),
            Literal::EntityUID(uid) => Kind::Entity(plain(uid)),
        },
        ExprKind::Var(variable) => Kind::Variable(match variable {
            Var::Principal => Variable::Principal,
            Var::Action => Variable::Action,
            Var::Resource => Variable::Resource,
            Var::Context => Variable::Context,
        }),
        ExprKind::Slot(_) | ExprKind::Unknown(_) => Kind::Opaque(expression.to_string()),
        ExprKind::If { test_expr, then_expr, else_expr } => {
            Kind::If(Box::new([term(test_expr), term(then_expr), term(else_expr)]))
        }
        ExprKind::And { left, right } => all(term(left), term(right)),
        ExprKind::Or { left, right } => any(term(left), term(right)),
        ExprKind::UnaryApp { op: UnaryOp::Not, arg } => not(term(arg)),
        ExprKind::UnaryApp { op: UnaryOp::Neg, arg } => Kind::Negative(boxed(arg)),
        ExprKind::UnaryApp { op: UnaryOp::IsEmpty, arg } => Kind::IsEmpty(boxed(arg)),
        ExprKind::BinaryApp { op, arg1, arg2 } => binary(*op, term(arg1), term(arg2)),
        ExprKind::ExtensionFunctionApp { fn_name, args } => {
            Kind::Call(fn_name.to_string().into(), args.iter().map(term).collect())
        }
        ExprKind::GetAttr { expr, attr } => Kind::Read(boxed(expr), attr.clone()),
        ExprKind::HasAttr { expr, attr } => Kind::Has(boxed(expr), vec![attr.clone()]),
        ExprKind::ExtHasAttr { expr, attrs } => Kind::Has(boxed(expr), attrs.iter().cloned().collect()),
        ExprKind::Like { expr, pattern } => Kind::Like(boxed(expr), pattern.to_string()),
        ExprKind::Is { expr, entity_type } => Kind::Is(boxed(expr), TypeName(entity_type.clone())),
        ExprKind::Set(items) => {
            let mut terms: Vec<Term> = items.iter().map(term).collect();
            terms.sort();
            Kind::Set(terms)
        }
        ExprKind::Record(fields) => {
            Kind::Record(fields.iter().map(|(name, value)| (name.clone(), term(value))).collect())
        }
    }
}

fn plain(uid: &ast::EntityUID) -> Uid {
    Uid(std::sync::Arc::new(ast::EntityUID::from_components(
        uid.entity_type().clone(),
        uid.eid().clone(),
        None,
    )))
}

fn all(left: Term, right: Term) -> Kind {
    let mut terms = match left.kind {
        Kind::All(terms) => terms,
        _ => vec![left],
    };
    match right.kind {
        Kind::All(more) => terms.extend(more),
        _ => terms.push(right),
    }
    // `when` and `unless` without the other are joined with `true`.
    terms.retain(|term| term.kind != Kind::Bool(true) || term.span.is_some());
    match (terms.len(), terms.pop()) {
        (1, Some(only)) => only.kind,
        (_, Some(last)) => {
            terms.push(last);
            Kind::All(terms)
        }
        (_, None) => Kind::Bool(true),
    }
}

fn any(left: Term, right: Term) -> Kind {
    let mut terms = match left.kind {
        Kind::Any(terms) => terms,
        _ => vec![left],
    };
    match right.kind {
        Kind::Any(more) => terms.extend(more),
        _ => terms.push(right),
    }
    Kind::Any(terms)
}

fn not(of: Term) -> Kind {
    match of.kind {
        Kind::Not(inner) => inner.kind,
        Kind::Binary(Operator::Less, operands) => {
            let [left, right] = *operands;
            Kind::Binary(Operator::LessOrEqual, Box::new([right, left]))
        }
        Kind::Binary(Operator::LessOrEqual, operands) => {
            let [left, right] = *operands;
            Kind::Binary(Operator::Less, Box::new([right, left]))
        }
        _ => Kind::Not(Box::new(of)),
    }
}

fn binary(operator: BinaryOp, left: Term, right: Term) -> Kind {
    let operator = match operator {
        BinaryOp::Eq => Operator::Equal,
        BinaryOp::Less => Operator::Less,
        BinaryOp::LessEq => Operator::LessOrEqual,
        BinaryOp::Add => Operator::Plus,
        BinaryOp::Sub => Operator::Minus,
        BinaryOp::Mul => Operator::Times,
        BinaryOp::In => Operator::In,
        BinaryOp::Contains => Operator::Contains,
        BinaryOp::ContainsAll => Operator::ContainsAll,
        BinaryOp::ContainsAny => Operator::ContainsAny,
        BinaryOp::GetTag => Operator::Tag,
        BinaryOp::HasTag => Operator::HasTag,
    };
    let mut operands = [left, right];
    if operator == Operator::Equal {
        operands.sort();
    }
    Kind::Binary(operator, Box::new(operands))
}

/// What a schema says of one entity type.
#[derive(Clone, Debug)]
pub(crate) struct EntityTypes {
    pub(crate) name: TypeName,
    /// Its attributes, a record.
    pub(crate) attributes: Shape,
    /// Other entity types that its attributes and tags name.
    pub(crate) names: BTreeSet<TypeName>,
    /// The types whose entities can be in its entities.
    pub(crate) descendants: BTreeSet<TypeName>,
}

/// Every entity type of a schema, ordered by name.
pub(crate) fn entity_types(schema: &Schema) -> Vec<EntityTypes> {
    let core: &cedar_policy_core::validator::ValidatorSchema = schema.as_ref();
    let all: Vec<TypeName> = core.entity_type_names().cloned().map(TypeName).collect();
    let mut types: Vec<EntityTypes> = core
        .entity_types()
        .map(|of| {
            let attributes =
                Type::Record { attrs: of.attributes().clone(), open_attributes: of.open_attributes() };
            let mut names = BTreeSet::new();
            named_types(&attributes, &mut names);
            if let Some(tags) = of.tag_type() {
                named_types(tags, &mut names);
            }
            EntityTypes {
                name: TypeName(of.name().clone()),
                attributes: super::actions::shape(&attributes),
                names,
                descendants: all
                    .iter()
                    .filter(|name| of.has_descendant_entity_type(&name.0))
                    .cloned()
                    .collect(),
            }
        })
        .collect();
    types.sort_by(|a, b| a.name.cmp(&b.name));
    types
}

/// The entity types that contexts of actions name.
pub(crate) fn context_entity_types(schema: &Schema) -> BTreeSet<TypeName> {
    let core: &cedar_policy_core::validator::ValidatorSchema = schema.as_ref();
    let mut names = BTreeSet::new();
    for action in core.action_ids() {
        if let Some(context) = action.context_type() {
            named_types(context, &mut names);
        }
    }
    names
}

/// Every action, each with those that are in it, at any depth; ordered by id.
pub(crate) fn action_members(schema: &Schema) -> Vec<(Uid, Vec<Uid>)> {
    let core: &cedar_policy_core::validator::ValidatorSchema = schema.as_ref();
    let mut actions: Vec<(Uid, Vec<Uid>)> = core
        .action_ids()
        .map(|action| (plain(action.name()), action.descendants().map(plain).collect()))
        .collect();
    actions.sort();
    actions
}

fn named_types(of: &Type, names: &mut BTreeSet<TypeName>) {
    match of {
        Type::Entity(EntityKind::Entity(bound)) => {
            names.extend(bound.get_single_entity().cloned().map(TypeName))
        }
        Type::Set { element_type: Some(element) } => named_types(element, names),
        Type::Record { attrs, .. } => {
            for (_, attribute) in attrs.iter() {
                named_types(&attribute.attr_type, names);
            }
        }
        Type::Never
        | Type::Bool(_)
        | Type::Long
        | Type::String
        | Type::Set { element_type: None }
        | Type::Entity(EntityKind::AnyEntity)
        | Type::ExtensionType { .. } => {}
    }
}
