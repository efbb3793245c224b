//! Finds what a condition reads of time ([`Times`]): walks the rewritten expression once, at load.
//!
//! Understands comparisons of a fact with a constant, in either direction and however they are joined; for the time also
//! `offset`, `toTime`, `toDate` and `durationSince` with constants. Whatever else is done with a fact that changes as time
//! passes makes the condition opaque in it.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "looks for the few shapes that it knows; all others are opaque"
)]

use cedar_policy_core::ast::{BinaryOp, BorrowedRestrictedExpr, Expr, ExprKind, Literal, Var};
use cedar_policy_core::evaluator::RestrictedEvaluator;
use cedar_policy_core::extensions::Extensions;

use super::Value;
use super::rewrite::{context_attr, parts};
use crate::fragment::{Fact, Group, Needs, RISK_KINDS};
use crate::settings::RiskSettings;
use crate::times::{DAY_MS, Threshold, Times};

/// What a rewritten condition reads of time; `None`: nothing.
pub(super) fn times(expression: &Expr, risk: &RiskSettings) -> Option<Times> {
    let mut found = Found { risk, thresholds: Vec::new(), opaque: Needs::default() };
    found.walk(expression);
    let Found { mut thresholds, opaque, .. } = found;
    thresholds.sort_unstable();
    thresholds.dedup();
    let is_timeless = thresholds.is_empty() && opaque.is_empty();
    (!is_timeless).then(|| Times { thresholds: thresholds.into(), opaque })
}

struct Found<'r> {
    risk: &'r RiskSettings,
    thresholds: Vec<Threshold>,
    opaque: Needs,
}

impl Found<'_> {
    fn walk(&mut self, expression: &Expr) {
        if let Some(fact) = fact(expression) {
            return self.used(fact);
        }
        if let Some(group) = context_attr(expression).and_then(Group::named) {
            if group == Group::Now {
                self.opaque.add_whole(Group::Now);
            }
            return group.facts().for_each(|fact| self.used(fact));
        }
        match expression.expr_kind() {
            // Every fact is present, whatever the time.
            ExprKind::HasAttr { expr, .. } | ExprKind::ExtHasAttr { expr, .. } if is_context(expr) => {}
            ExprKind::BinaryApp { op, arg1, arg2 } if self.compares(*op, arg1, arg2).is_some() => {}
            _ => parts(expression).into_iter().for_each(|part| self.walk(part)),
        }
    }

    /// A fact whose value the condition does something else with than what [`Self::compares`] knows.
    fn used(&mut self, fact: Fact) {
        match fact {
            Fact::TaskActive => self.thresholds.push(Threshold::Window),
            Fact::RiskReasons => self.thresholds.push(Threshold::Reasons(u8::MAX)),
            Fact::SignalsSilent => self.thresholds.push(Threshold::Silence),
            Fact::RiskLevel => {
                self.reaches(Fact::RiskScore, self.risk.medium.into());
                self.reaches(Fact::RiskScore, self.risk.high.into());
            }
            fact if counts_time(fact) => self.opaque.add(fact),
            _ => {}
        }
    }

    fn reaches(&mut self, fact: Fact, from: i64) {
        self.thresholds.push(Threshold::Value { fact, from });
    }

    /// Notes the thresholds of a comparison with a constant; `None` if this is none.
    fn compares(&mut self, op: BinaryOp, left: &Expr, right: &Expr) -> Option<()> {
        match (op, fact(left), fact(right)) {
            (BinaryOp::Eq, Some(Fact::RiskLevel), _) => self.is_level(text(right)?),
            (BinaryOp::Eq, _, Some(Fact::RiskLevel)) => self.is_level(text(left)?),
            (
                BinaryOp::Contains | BinaryOp::ContainsAll | BinaryOp::ContainsAny,
                Some(Fact::RiskReasons),
                _,
            )
            | (BinaryOp::ContainsAny, _, Some(Fact::RiskReasons)) => {
                let named = if fact(left).is_some() { right } else { left };
                self.thresholds.push(Threshold::Reasons(kinds(named)?));
            }
            (BinaryOp::Eq | BinaryOp::Less | BinaryOp::LessEq, _, _) => {
                let (quantity, sides) = match (quantity(left), quantity(right)) {
                    (Some(of), None) => (of, of_left(op, constant(right)?)),
                    (None, Some(of)) => (of, of_right(op, constant(left)?)),
                    _ => return None,
                };
                let before = self.thresholds.len();
                if sides.into_iter().flatten().try_for_each(|from| self.crosses(quantity, from)).is_none() {
                    self.thresholds.truncate(before);
                    return None;
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn is_level(&mut self, level: &str) {
        let RiskSettings { medium, high, .. } = *self.risk;
        if matches!(level, "low" | "medium") {
            self.reaches(Fact::RiskScore, medium.into());
        }
        if matches!(level, "medium" | "high") {
            self.reaches(Fact::RiskScore, high.into());
        }
    }

    fn crosses(&mut self, quantity: Quantity, from: i64) -> Option<()> {
        let threshold = match quantity {
            Quantity::Fact(fact) => Threshold::Value { fact, from },
            Quantity::Time { ahead_ms } => Threshold::Instant(from.checked_sub(ahead_ms)?),
            Quantity::Date { ahead_ms } => {
                let midnight = from.checked_add(DAY_MS - 1)?.div_euclid(DAY_MS) * DAY_MS;
                Threshold::Instant(midnight.checked_sub(ahead_ms)?)
            }
            // Outside of a day the comparison is the same at any time.
            Quantity::TimeOfDay { .. } if !(1..DAY_MS).contains(&from) => return Some(()),
            Quantity::TimeOfDay { ahead_ms } => {
                self.thresholds.push(Threshold::TimeOfDay(0_i64.checked_sub(ahead_ms)?.rem_euclid(DAY_MS)));
                Threshold::TimeOfDay(from.checked_sub(ahead_ms)?.rem_euclid(DAY_MS))
            }
        };
        self.thresholds.push(threshold);
        Some(())
    }
}

/// What changes as time passes and can be compared with a constant.
#[derive(Clone, Copy)]
enum Quantity {
    Fact(Fact),
    /// `now`, so many milliseconds ahead.
    Time {
        ahead_ms: i64,
    },
    Date {
        ahead_ms: i64,
    },
    TimeOfDay {
        ahead_ms: i64,
    },
}

fn quantity(expression: &Expr) -> Option<Quantity> {
    if let Some(fact) = fact(expression) {
        return counts_time(fact).then_some(Quantity::Fact(fact));
    }
    if let Some(ahead_ms) = time(expression) {
        return Some(Quantity::Time { ahead_ms });
    }
    match call(expression)? {
        ("toTime", [of]) => Some(Quantity::TimeOfDay { ahead_ms: time(of)? }),
        ("toDate", [of]) => Some(Quantity::Date { ahead_ms: time(of)? }),
        ("durationSince", [of, since]) => {
            Some(Quantity::Time { ahead_ms: time(of)?.checked_sub(constant(since)?)? })
        }
        _ => None,
    }
}

/// How many milliseconds ahead of the time of the decision the expression is, if that is constant.
fn time(expression: &Expr) -> Option<i64> {
    if context_attr(expression) == Some(Group::Now.name()) {
        return Some(0);
    }
    match call(expression)? {
        ("offset", [of, by]) => time(of)?.checked_add(constant(by)?),
        _ => None,
    }
}

fn call(expression: &Expr) -> Option<(&str, &[Expr])> {
    match expression.expr_kind() {
        ExprKind::ExtensionFunctionApp { fn_name, args } => {
            Some((fn_name.as_ref().basename().as_ref(), args.as_slice()))
        }
        _ => None,
    }
}

/// Whether the fact is a number that changes by itself.
fn counts_time(fact: Fact) -> bool {
    matches!(
        fact,
        Fact::SessionAge
            | Fact::SessionIdle
            | Fact::SessionAuthAge
            | Fact::RiskScore
            | Fact::RiskAge
            | Fact::TaskRemaining
            | Fact::TokenAge
            | Fact::TokenExpiresIn
    )
}

/// The values from which on `quantity op constant` comes out differently than one below.
fn of_left(op: BinaryOp, constant: i64) -> [Option<i64>; 2] {
    let above = constant.checked_add(1);
    match op {
        BinaryOp::Less => [Some(constant), None],
        BinaryOp::LessEq => [above, None],
        _ => [Some(constant), above],
    }
}

/// The same for `constant op quantity`.
fn of_right(op: BinaryOp, constant: i64) -> [Option<i64>; 2] {
    match op {
        BinaryOp::Less => of_left(BinaryOp::LessEq, constant),
        BinaryOp::LessEq => of_left(BinaryOp::Less, constant),
        op => of_left(op, constant),
    }
}

/// A number, or the milliseconds of a `datetime` or `duration`, that no attempt changes.
fn constant(expression: &Expr) -> Option<i64> {
    if let ExprKind::Lit(Literal::Long(value)) = expression.expr_kind() {
        return Some(*value);
    }
    let expression = BorrowedRestrictedExpr::new(expression).ok()?;
    let value = RestrictedEvaluator::new(Extensions::all_available()).interpret(expression).ok()?;
    Value(value).milliseconds()
}

/// The kinds that a text, or a set of texts, names, as bits.
fn kinds(expression: &Expr) -> Option<u8> {
    let of_text = |expression: &Expr| {
        let name = text(expression)?;
        let place = RISK_KINDS.iter().position(|kind| *kind == name);
        Some(place.map_or(0, |place| 1 << place))
    };
    match expression.expr_kind() {
        ExprKind::Set(items) => {
            items.iter().try_fold(0, |kinds, item| of_text(item).map(|kind| kinds | kind))
        }
        _ => of_text(expression),
    }
}

fn text(expression: &Expr) -> Option<&str> {
    match expression.expr_kind() {
        ExprKind::Lit(Literal::String(text)) => Some(text),
        _ => None,
    }
}

/// The fact that the expression reads from the flat record.
fn fact(expression: &Expr) -> Option<Fact> {
    context_attr(expression).and_then(Fact::of_key)
}

fn is_context(expression: &Expr) -> bool {
    matches!(expression.expr_kind(), ExprKind::Var(Var::Context))
}
