//! Conditions evaluated directly: boolean combinations of comparisons over facts, over what was sent, and over attributes of entities.
//!
//! Cedar's evaluator takes about 300 ns for a comparison, since it makes a value of every part and a record of all that could be read.
//! Most conditions need neither. INVARIANT (same answer): what [`Direct::holds`] answers, Cedar's evaluator answers; where it would err,
//! or where a condition does more than this, there is no answer here and Cedar is asked. The property test below holds both together.
//! Never does: errors, extension values, arithmetic, sets that a policy builds.

use cedar_policy_core::ast::{
    self, BinaryOp, EntityType, EntityUID, Expr, ExprKind, Literal, PartialValue, Pattern, UnaryOp, Var,
};
use cedar_policy_core::entities::Dereference;
use smol_str::SmolStr;

use super::{ContextLayout, Scene};
use crate::fragment::{CounterField, Fact, FactValue, Group};

/// Deepest nesting; what lies deeper is for Cedar's evaluator, which watches its stack.
const DEPTH_MAX: usize = 24;

/// Something that is true or false.
#[derive(Clone, Debug)]
enum Test {
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
    If(Box<[Self; 3]>),
    Is(Term, EntityType),
    Has(Term, SmolStr),
    Like(Term, Pattern),
    Equal(Term, Term),
    Less(Term, Term),
    LessOrEqual(Term, Term),
    In(Term, Term),
    Contains(Term, Term),
    /// A term that is a `Bool`.
    Term(Term),
}

/// Something that has a value.
#[derive(Clone, Debug)]
enum Term {
    Literal(Literal),
    Fact(Fact),
    Counter(u8, CounterField),
    /// The record that the enforcement point sent; of a given context all of it.
    Sent,
    Principal,
    Action,
    Resource,
    Attribute(Box<Self>, SmolStr),
}

/// A value, borrowed where it lies.
enum Seen<'s> {
    Bool(bool),
    Long(i64),
    Text(&'s str),
    Entity(&'s EntityUID),
    Set(&'s ast::Set),
    Record(&'s std::collections::BTreeMap<SmolStr, ast::Value>),
    /// Of a fact.
    OwnText(SmolStr),
    OwnTexts(Vec<SmolStr>),
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Direct(Test);

impl Direct {
    /// Takes a rewritten condition; `None`: it does more than can be evaluated here.
    pub(super) fn of(expression: &Expr, layout: ContextLayout) -> Option<Self> {
        Compiler { layout }.test(expression, DEPTH_MAX).map(Self)
    }

    /// Whether it holds; `None`: Cedar must be asked.
    pub(super) fn holds(&self, scene: &Scene<'_>) -> Option<bool> {
        scene.test(&self.0)
    }
}

struct Compiler {
    layout: ContextLayout,
}

impl Compiler {
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not named here is for Cedar's evaluator")]
    fn test(&self, expression: &Expr, depth: usize) -> Option<Test> {
        let depth = depth.checked_sub(1)?;
        let test = |part: &Expr| self.test(part, depth);
        let boxed = |part: &Expr| test(part).map(Box::new);
        let term = |part: &Expr| self.term(part, depth);
        Some(match expression.expr_kind() {
            ExprKind::And { left, right } => Test::And(boxed(left)?, boxed(right)?),
            ExprKind::Or { left, right } => Test::Or(boxed(left)?, boxed(right)?),
            ExprKind::UnaryApp { op: UnaryOp::Not, arg } => Test::Not(boxed(arg)?),
            ExprKind::If { test_expr, then_expr, else_expr } => {
                Test::If(Box::new([test(test_expr)?, test(then_expr)?, test(else_expr)?]))
            }
            ExprKind::Is { expr, entity_type } => Test::Is(term(expr)?, entity_type.clone()),
            ExprKind::HasAttr { expr, attr } => Test::Has(term(expr)?, attr.clone()),
            ExprKind::Like { expr, pattern } => Test::Like(term(expr)?, pattern.clone()),
            ExprKind::BinaryApp { op, arg1, arg2 } => {
                let (one, other) = (term(arg1)?, term(arg2)?);
                match op {
                    BinaryOp::Eq => Test::Equal(one, other),
                    BinaryOp::Less => Test::Less(one, other),
                    BinaryOp::LessEq => Test::LessOrEqual(one, other),
                    BinaryOp::In => Test::In(one, other),
                    BinaryOp::Contains => Test::Contains(one, other),
                    BinaryOp::Add
                    | BinaryOp::Sub
                    | BinaryOp::Mul
                    | BinaryOp::ContainsAll
                    | BinaryOp::ContainsAny
                    | BinaryOp::GetTag
                    | BinaryOp::HasTag => return None,
                }
            }
            _ => Test::Term(term(expression)?),
        })
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not named here is for Cedar's evaluator")]
    fn term(&self, expression: &Expr, depth: usize) -> Option<Term> {
        let depth = depth.checked_sub(1)?;
        Some(match expression.expr_kind() {
            ExprKind::Lit(literal) => Term::Literal(literal.clone()),
            ExprKind::Var(Var::Principal) => Term::Principal,
            ExprKind::Var(Var::Action) => Term::Action,
            ExprKind::Var(Var::Resource) => Term::Resource,
            ExprKind::Var(Var::Context) if self.layout == ContextLayout::Given => Term::Sent,
            ExprKind::GetAttr { expr, attr } if self.is_gathered_context(expr) => of_context(attr)?,
            ExprKind::GetAttr { expr, attr } => {
                Term::Attribute(Box::new(self.term(expr, depth)?), attr.clone())
            }
            _ => return None,
        })
    }

    fn is_gathered_context(&self, expression: &Expr) -> bool {
        self.layout == ContextLayout::Gathered
            && matches!(expression.expr_kind(), ExprKind::Var(Var::Context))
    }
}

/// What stands under a key of the flat record.
fn of_context(key: &str) -> Option<Term> {
    if key == Group::Request.name() {
        return Some(Term::Sent);
    }
    let counter = || CounterField::of_key(key).map(|(number, field)| Term::Counter(number, field));
    Fact::of_key(key).map(Term::Fact).or_else(counter)
}

impl Scene<'_> {
    fn test(&self, test: &Test) -> Option<bool> {
        Some(match test {
            Test::And(left, right) => self.test(left)? && self.test(right)?,
            Test::Or(left, right) => self.test(left)? || self.test(right)?,
            Test::Not(test) => !self.test(test)?,
            Test::If(parts) => {
                let [test, then, otherwise] = &**parts;
                self.test(if self.test(test)? { then } else { otherwise })?
            }
            Test::Is(term, entity_type) => self.see(term)?.entity()?.entity_type() == entity_type,
            Test::Has(term, attribute) => self.has(&self.see(term)?, attribute)?,
            Test::Like(term, pattern) => pattern.wildcard_match(self.see(term)?.text()?),
            Test::Equal(one, other) => equal(&self.see(one)?, &self.see(other)?)?,
            Test::Less(one, other) => self.see(one)?.long()? < self.see(other)?.long()?,
            Test::LessOrEqual(one, other) => self.see(one)?.long()? <= self.see(other)?.long()?,
            Test::In(one, other) => self.is_in(self.see(one)?.entity()?, self.see(other)?.entity()?)?,
            Test::Contains(set, member) => contains(&self.see(set)?, &self.see(member)?)?,
            Test::Term(term) => match self.see(term)? {
                Seen::Bool(value) => value,
                Seen::Long(_)
                | Seen::Text(_)
                | Seen::Entity(_)
                | Seen::Set(_)
                | Seen::Record(_)
                | Seen::OwnText(_)
                | Seen::OwnTexts(_) => return None,
            },
        })
    }

    fn see<'s>(&'s self, term: &'s Term) -> Option<Seen<'s>> {
        match term {
            Term::Literal(literal) => Some(Seen::literal(literal)),
            Term::Fact(fact) => Some(self.reads.fact(*fact).into()),
            Term::Counter(number, field) => self.reads.counter(*number, *field).map(Seen::from),
            Term::Sent => Some(Seen::Record(&self.reads.sent().0)),
            Term::Principal => Some(Seen::Entity(&self.principal.0)),
            Term::Action => Some(Seen::Entity(&self.action.0)),
            Term::Resource => Some(Seen::Entity(&self.resource.0)),
            Term::Attribute(of, name) => match self.see(of)? {
                Seen::Record(fields) => fields.get(name).and_then(Seen::value),
                Seen::Entity(uid) => match self.world.core().entity(uid) {
                    Dereference::Data(entity) => match entity.get(name)? {
                        PartialValue::Value(value) => Seen::value(value),
                        PartialValue::Residual(_) => None,
                    },
                    Dereference::NoSuchEntity | Dereference::Residual(_) => None,
                },
                Seen::Bool(_)
                | Seen::Long(_)
                | Seen::Text(_)
                | Seen::Set(_)
                | Seen::OwnText(_)
                | Seen::OwnTexts(_) => None,
            },
        }
    }

    fn has(&self, of: &Seen<'_>, attribute: &str) -> Option<bool> {
        match of {
            Seen::Record(fields) => Some(fields.contains_key(attribute)),
            Seen::Entity(uid) => match self.world.core().entity(uid) {
                Dereference::Data(entity) => Some(entity.get(attribute).is_some()),
                Dereference::NoSuchEntity => Some(false),
                Dereference::Residual(_) => None,
            },
            Seen::Bool(_)
            | Seen::Long(_)
            | Seen::Text(_)
            | Seen::Set(_)
            | Seen::OwnText(_)
            | Seen::OwnTexts(_) => None,
        }
    }

    fn is_in(&self, one: &EntityUID, other: &EntityUID) -> Option<bool> {
        match self.world.core().entity(one) {
            Dereference::Data(entity) => Some(one == other || entity.is_descendant_of(other)),
            Dereference::NoSuchEntity => Some(one == other),
            Dereference::Residual(_) => None,
        }
    }
}

impl<'s> Seen<'s> {
    fn literal(literal: &'s Literal) -> Self {
        match literal {
            Literal::Bool(value) => Self::Bool(*value),
            Literal::Long(value) => Self::Long(*value),
            Literal::String(text) => Self::Text(text.as_str()),
            Literal::EntityUID(uid) => Self::Entity(uid),
        }
    }

    /// `None`: an extension's value.
    fn value(value: &'s ast::Value) -> Option<Self> {
        match value.value_kind() {
            ast::ValueKind::Lit(literal) => Some(Self::literal(literal)),
            ast::ValueKind::Set(set) => Some(Self::Set(set)),
            ast::ValueKind::Record(fields) => Some(Self::Record(fields)),
            ast::ValueKind::ExtensionValue(_) => None,
        }
    }

    const fn entity(&self) -> Option<&'s EntityUID> {
        if let Self::Entity(uid) = self { Some(uid) } else { None }
    }

    const fn long(&self) -> Option<i64> {
        if let Self::Long(value) = self { Some(*value) } else { None }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::OwnText(text) => Some(text),
            Self::Bool(_)
            | Self::Long(_)
            | Self::Entity(_)
            | Self::Set(_)
            | Self::Record(_)
            | Self::OwnTexts(_) => None,
        }
    }

    const fn is_compound(&self) -> bool {
        matches!(self, Self::Set(_) | Self::Record(_) | Self::OwnTexts(_))
    }
}

impl From<FactValue> for Seen<'_> {
    fn from(value: FactValue) -> Self {
        match value {
            FactValue::Bool(value) => Self::Bool(value),
            FactValue::Long(value) => Self::Long(value),
            FactValue::Text(text) => Self::OwnText(text),
            FactValue::Texts(texts) => Self::OwnTexts(texts),
        }
    }
}

/// Values of different kinds are not equal; sets and records are for Cedar.
fn equal(one: &Seen<'_>, other: &Seen<'_>) -> Option<bool> {
    if one.is_compound() || other.is_compound() {
        return None;
    }
    Some(match (one, other) {
        (Seen::Bool(one), Seen::Bool(other)) => one == other,
        (Seen::Long(one), Seen::Long(other)) => one == other,
        (Seen::Entity(one), Seen::Entity(other)) => one == other,
        _ => one.text().is_some_and(|text| other.text() == Some(text)),
    })
}

fn contains(set: &Seen<'_>, member: &Seen<'_>) -> Option<bool> {
    match set {
        Seen::OwnTexts(texts) if !member.is_compound() => {
            Some(member.text().is_some_and(|member| texts.iter().any(|text| text == member)))
        }
        // Sets of literals only, as nearly all are; what they hold is hashed.
        Seen::Set(set) => {
            let set = set.fast.as_ref()?;
            let literal = match member {
                Seen::Bool(value) => Literal::Bool(*value),
                Seen::Long(value) => Literal::Long(*value),
                Seen::Text(text) => Literal::String((*text).into()),
                Seen::OwnText(text) => Literal::String(text.clone()),
                Seen::Entity(_) | Seen::Set(_) | Seen::Record(_) | Seen::OwnTexts(_) => return None,
            };
            Some(set.contains(&literal))
        }
        Seen::Bool(_)
        | Seen::Long(_)
        | Seen::Text(_)
        | Seen::Entity(_)
        | Seen::Record(_)
        | Seen::OwnText(_)
        | Seen::OwnTexts(_) => None,
    }
}

#[cfg(test)]
mod tests;
