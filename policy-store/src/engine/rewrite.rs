//! Conditions rewritten for speed: reads of facts become reads of one flat record, and what is read is noted.

use std::sync::Arc;

use cedar_policy_core::ast::{self, Expr, ExprKind, Literal, Var};
use smallvec::{SmallVec, smallvec};

use super::ContextLayout;
use crate::fragment::{CounterField, Group, Needs};

/// Copies an expression without places in the source, and notes which facts it reads.
pub(super) struct Rewrite<'n> {
    pub(super) layout: ContextLayout,
    pub(super) counters: &'n [&'n str],
    pub(super) needs: &'n mut Needs,
}

impl Rewrite<'_> {
    pub(super) fn expression(&mut self, expression: &Expr) -> Expr {
        if self.layout == ContextLayout::Gathered
            && let Some(read) = self.fact(expression)
        {
            return read;
        }
        match expression.expr_kind() {
            ExprKind::Lit(literal) => Expr::val(self.literal(literal)),
            ExprKind::Var(variable) => Expr::var(*variable),
            ExprKind::Slot(slot) => Expr::slot(*slot),
            ExprKind::Unknown(unknown) => Expr::unknown(unknown.clone()),
            ExprKind::If { test_expr, then_expr, else_expr } => {
                Expr::ite(self.expression(test_expr), self.expression(then_expr), self.expression(else_expr))
            }
            ExprKind::And { left, right } => Expr::and(self.expression(left), self.expression(right)),
            ExprKind::Or { left, right } => Expr::or(self.expression(left), self.expression(right)),
            ExprKind::UnaryApp { op, arg } => Expr::unary_app(*op, self.expression(arg)),
            ExprKind::BinaryApp { op, arg1, arg2 } => {
                Expr::binary_app(*op, self.expression(arg1), self.expression(arg2))
            }
            ExprKind::ExtensionFunctionApp { fn_name, args } => Expr::call_extension_fn(
                fn_name.clone(),
                args.iter().map(|arg| self.expression(arg)).collect(),
            ),
            ExprKind::GetAttr { expr, attr } => Expr::get_attr(self.expression(expr), attr.clone()),
            ExprKind::HasAttr { expr, attr } => Expr::has_attr(self.expression(expr), attr.clone()),
            ExprKind::ExtHasAttr { expr, attrs } => {
                Expr::extended_has_attr(self.expression(expr), attrs.clone())
            }
            ExprKind::Like { expr, pattern } => Expr::like(self.expression(expr), pattern.clone()),
            ExprKind::Is { expr, entity_type } => {
                Expr::is_entity_type(self.expression(expr), entity_type.clone())
            }
            ExprKind::Set(items) => Expr::set(items.iter().map(|item| self.expression(item))),
            ExprKind::Record(fields) => Expr::record_arc(Arc::new(
                fields.iter().map(|(name, value)| (name.clone(), self.expression(value))).collect(),
            )),
        }
    }

    fn literal(&self, literal: &Literal) -> Literal {
        match literal {
            Literal::EntityUID(uid) => Literal::EntityUID(Arc::new(ast::EntityUID::from_components(
                uid.entity_type().clone(),
                uid.eid().clone(),
                None,
            ))),
            Literal::Bool(_) | Literal::Long(_) | Literal::String(_) => literal.clone(),
        }
    }

    /// The counter and its field, if this is `context.counters.NAME` and the name of a field.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only one kind of expression reads an attribute")]
    fn counter(&self, of: &Expr, field: &str) -> Option<(u8, CounterField)> {
        let name = match of.expr_kind() {
            ExprKind::GetAttr { expr, attr } if context_attr(expr) == Some(Group::Counters.name()) => attr,
            _ => return None,
        };
        let number = self.counters.iter().position(|counter| *counter == name.as_str())?;
        let field = CounterField::ALL.into_iter().find(|known| known.name() == field)?;
        Some((u8::try_from(number).ok()?, field))
    }

    /// `context.group.field` and `context.group has field` become reads of the flat record; any other use of
    /// `context.group` asks for the whole group, nested as the schema says.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the three ways to read an attribute; all others are not reads"
    )]
    fn fact(&mut self, expression: &Expr) -> Option<Expr> {
        match expression.expr_kind() {
            ExprKind::GetAttr { expr, attr } => {
                if let Some((number, field)) = self.counter(expr, attr) {
                    self.needs.add_counter(number);
                    return Some(Expr::get_attr(Expr::var(Var::Context), field.key(number)));
                }
                if let Some(fact) = context_attr(expr).and_then(Group::named).and_then(|g| g.fact(attr)) {
                    self.needs.add(fact);
                    return Some(Expr::get_attr(Expr::var(Var::Context), fact.key()));
                }
                let group = context_attr(expression).and_then(Group::named)?;
                self.needs.add_whole(group);
                None
            }
            ExprKind::HasAttr { expr, attr } => {
                if let Some(fact) = context_attr(expr).and_then(Group::named).and_then(|g| g.fact(attr)) {
                    self.needs.add(fact);
                    return Some(Expr::has_attr(Expr::var(Var::Context), fact.key()));
                }
                if matches!(expr.expr_kind(), ExprKind::Var(Var::Context))
                    && let Some(group) = Group::named(attr)
                {
                    self.needs.add_whole(group);
                }
                None
            }
            ExprKind::ExtHasAttr { expr, attrs } => {
                if matches!(expr.expr_kind(), ExprKind::Var(Var::Context))
                    && let Some(group) = Group::named(attrs.first())
                {
                    self.needs.add_whole(group);
                }
                None
            }
            _ => None,
        }
    }
}

/// The attribute's name, if the expression is `context.attribute`.
#[expect(clippy::wildcard_enum_match_arm, reason = "only one kind of expression reads an attribute")]
pub(super) fn context_attr(expression: &Expr) -> Option<&str> {
    match expression.expr_kind() {
        ExprKind::GetAttr { expr, attr } if matches!(expr.expr_kind(), ExprKind::Var(Var::Context)) => {
            Some(attr)
        }
        _ => None,
    }
}

pub(super) fn bare_context(expression: &Expr) -> bool {
    let attribute_of_context = matches!(
        expression.expr_kind(),
        ExprKind::GetAttr { expr, .. } | ExprKind::HasAttr { expr, .. } | ExprKind::ExtHasAttr { expr, .. }
            if matches!(expr.expr_kind(), ExprKind::Var(Var::Context))
    );
    if attribute_of_context {
        return false;
    }
    matches!(expression.expr_kind(), ExprKind::Var(Var::Context))
        || parts(expression).into_iter().any(bare_context)
}

/// The expressions that an expression is directly made of.
pub(super) fn parts(expression: &Expr) -> SmallVec<[&Expr; 4]> {
    match expression.expr_kind() {
        ExprKind::Var(_) | ExprKind::Lit(_) | ExprKind::Slot(_) | ExprKind::Unknown(_) => SmallVec::new(),
        ExprKind::If { test_expr, then_expr, else_expr } => {
            [test_expr, then_expr, else_expr].map(|part| &**part).into_iter().collect()
        }
        ExprKind::And { left, right } | ExprKind::Or { left, right } => smallvec![&**left, &**right],
        ExprKind::BinaryApp { arg1, arg2, .. } => smallvec![&**arg1, &**arg2],
        ExprKind::UnaryApp { arg, .. } => smallvec![&**arg],
        ExprKind::GetAttr { expr, .. }
        | ExprKind::HasAttr { expr, .. }
        | ExprKind::ExtHasAttr { expr, .. }
        | ExprKind::Like { expr, .. }
        | ExprKind::Is { expr, .. } => smallvec![&**expr],
        ExprKind::ExtensionFunctionApp { args: items, .. } | ExprKind::Set(items) => items.iter().collect(),
        ExprKind::Record(fields) => fields.values().collect(),
    }
}
