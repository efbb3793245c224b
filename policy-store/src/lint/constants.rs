//! Conditions, or parts of them, whose value does not depend on the attempt.
//!
//! Folds constants, comparisons of a thing with itself, and what a conjunction demands at once of the same thing. Proves
//! nothing by search: what it does not see at once it lets pass.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "looks for the few shapes that it knows; all others are none of its business"
)]

use std::ops::Range;

use ahash::{AHashMap, AHashSet};
use smol_str::SmolStr;

use super::allow::Found;
use super::bundle::{Bundle, Part};
use super::rules;
use crate::engine::syntax::{Kind, Operator, Term};

pub(super) fn find(bundle: &Bundle<'_>, found: &mut Found) {
    for (number, subject) in bundle.policies.iter().enumerate() {
        let Some(condition) = &subject.condition else { continue };
        let mut parts = Vec::new();
        constants(condition, &mut parts);
        let never = found.never_apply.contains(&number);
        for part in parts {
            let whole = std::ptr::eq(part.term, condition);
            // Cedar's validator has said that already.
            if whole && never {
                continue;
            }
            let message = match (whole, part.value) {
                (true, false) => {
                    format!(
                        "policy `{}` never applies: {}",
                        subject.id,
                        part.why.unwrap_or("its condition is false")
                    )
                }
                (true, true) => format!("the condition of policy `{}` is always true", subject.id),
                (false, value) => {
                    let why = part.why.map_or_else(String::new, |why| format!(": {why}"));
                    format!("a part of the condition of policy `{}` is always {value}{why}", subject.id)
                }
            };
            let (rule, help) = if whole && !part.value {
                (&rules::NEVER_APPLIES, "correct the condition, or remove the policy")
            } else {
                (&rules::CONSTANT_CONDITION, "correct this part, or leave it out")
            };
            let fault = bundle.in_policy(rule, number, &Part::Bytes(&part.span), message);
            found.add_about_policy(number, fault.help(help));
        }
    }
}

/// A part that is constant.
struct Constant<'t> {
    term: &'t Term,
    value: bool,
    why: Option<&'static str>,
    span: Option<Range<usize>>,
}

/// The outermost constant parts. Literals that somebody wrote as such are left alone where they stand alone.
fn constants<'t>(term: &'t Term, found: &mut Vec<Constant<'t>>) {
    if let Some(value) = folded(term) {
        found.push(Constant { term, value, why: None, span: term.span.clone() });
        return;
    }
    if let Kind::All(terms) = &term.kind
        && let Some((at, why)) = contradiction(terms)
    {
        found.push(Constant { term, value: false, why: Some(why), span: at.span.clone() });
        return;
    }
    if let Kind::Any(terms) = &term.kind
        && let Some(at) = opposite(terms)
    {
        let why = Some("it names a thing and its opposite");
        found.push(Constant { term, value: true, why, span: at.span.clone() });
        return;
    }
    for part in term.parts() {
        constants(part, found);
    }
}

/// The value of a term that is the same for every attempt; `None`: it depends, or is no Bool.
fn folded(term: &Term) -> Option<bool> {
    match &term.kind {
        Kind::Bool(value) => Some(*value),
        Kind::Not(inner) => folded(inner).map(|value| !value),
        Kind::All(terms) => {
            let mut values = terms.iter().map(folded);
            // What stands left of a `false` may still fail, which is no reason to keep it.
            if values.clone().any(|value| value == Some(false)) {
                return Some(false);
            }
            values.all(|value| value == Some(true)).then_some(true)
        }
        Kind::Any(terms) => {
            let mut values = terms.iter().map(folded);
            if values.clone().any(|value| value == Some(true)) {
                return Some(true);
            }
            values.all(|value| value == Some(false)).then_some(false)
        }
        Kind::If(parts) => {
            let [test, then, otherwise] = &**parts;
            match (folded(test), folded(then), folded(otherwise)) {
                (Some(true), then, _) => then,
                (Some(false), _, otherwise) => otherwise,
                (None, then, otherwise) => then.filter(|_| then == otherwise),
            }
        }
        Kind::Binary(operator, operands) => {
            let [left, right] = &**operands;
            compared(*operator, left, right)
        }
        _ => None,
    }
}

fn compared(operator: Operator, left: &Term, right: &Term) -> Option<bool> {
    let same = left == right;
    match (operator, &left.kind, &right.kind) {
        (Operator::Less, Kind::Long(left), Kind::Long(right)) => Some(left < right),
        (Operator::LessOrEqual, Kind::Long(left), Kind::Long(right)) => Some(left <= right),
        (Operator::Equal | Operator::LessOrEqual | Operator::In, ..) if same => Some(true),
        (Operator::Less, ..) if same => Some(false),
        (Operator::Equal, left, right) if is_literal(left) && is_literal(right) => Some(false),
        (Operator::Contains, Kind::Set(items), _) if items.is_empty() => Some(false),
        (Operator::Contains, Kind::Set(items), sought) if is_literal(sought) => {
            if items.contains(right) {
                return Some(true);
            }
            items.iter().all(|item| is_literal(&item.kind)).then_some(false)
        }
        _ => None,
    }
}

fn is_literal(kind: &Kind) -> bool {
    matches!(kind, Kind::Bool(_) | Kind::Long(_) | Kind::Text(_) | Kind::Entity(_))
}

/// What a conjunction demands of one thing.
#[derive(Default)]
struct Demands<'t> {
    least: Option<i64>,
    most: Option<i64>,
    equal: Option<&'t Kind>,
}

/// A conjunct that cannot hold together with those before it, and why.
fn contradiction(terms: &[Term]) -> Option<(&Term, &'static str)> {
    if let Some(at) = opposite(terms) {
        return Some((at, "it demands a thing and its opposite"));
    }
    let mut demands: AHashMap<&Term, Demands<'_>> = AHashMap::new();
    for term in terms {
        let Kind::Binary(operator, operands) = &term.kind else { continue };
        let [left, right] = &**operands;
        match (operator, &left.kind, &right.kind) {
            (Operator::Less, Kind::Long(bound), _) => {
                at_least(demands.entry(right).or_default(), bound.saturating_add(1));
            }
            (Operator::LessOrEqual, Kind::Long(bound), _) => {
                at_least(demands.entry(right).or_default(), *bound)
            }
            (Operator::Less, _, Kind::Long(bound)) => {
                at_most(demands.entry(left).or_default(), bound.saturating_sub(1));
            }
            (Operator::LessOrEqual, _, Kind::Long(bound)) => {
                at_most(demands.entry(left).or_default(), *bound)
            }
            (Operator::Equal, literal, _) if is_literal(literal) => {
                if !equals(demands.entry(right).or_default(), literal) {
                    return Some((term, "it demands two values of the same thing"));
                }
            }
            (Operator::Equal, _, literal) if is_literal(literal) => {
                if !equals(demands.entry(left).or_default(), literal) {
                    return Some((term, "it demands two values of the same thing"));
                }
            }
            _ => continue,
        }
        let about = if is_literal(&left.kind) { right } else { left };
        if let Some(Demands { least: Some(least), most: Some(most), .. }) = demands.get(about)
            && least > most
        {
            return Some((term, "no number is within its bounds"));
        }
    }
    None
}

fn at_least(demands: &mut Demands<'_>, bound: i64) {
    demands.least = Some(demands.least.map_or(bound, |known| known.max(bound)));
}

fn at_most(demands: &mut Demands<'_>, bound: i64) {
    demands.most = Some(demands.most.map_or(bound, |known| known.min(bound)));
}

/// Notes the value; false: another one was demanded before.
fn equals<'t>(demands: &mut Demands<'t>, value: &'t Kind) -> bool {
    if let Kind::Long(number) = value {
        at_least(demands, *number);
        at_most(demands, *number);
    }
    let same = demands.equal.is_none_or(|known| known == value);
    demands.equal = Some(value);
    same
}

/// A term whose opposite stands before it.
fn opposite(terms: &[Term]) -> Option<&Term> {
    let mut seen: AHashSet<&Kind> = AHashSet::new();
    for term in terms {
        if seen.contains(&term.opposite()) {
            return Some(term);
        }
        seen.insert(&term.kind);
    }
    None
}

/// The text of a literal, for messages.
pub(super) fn literal(term: &Term) -> Option<SmolStr> {
    match &term.kind {
        Kind::Long(number) => Some(SmolStr::from(number.to_string())),
        Kind::Text(text) => Some(SmolStr::from(format!("\"{text}\""))),
        Kind::Bool(value) => Some(SmolStr::from(value.to_string())),
        _ => None,
    }
}
