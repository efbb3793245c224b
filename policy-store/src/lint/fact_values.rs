//! Facts compared with values that they never have: `context.risk.level == "hihg"` is false for ever, and opens or closes
//! what it should not without a word.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "looks for the few shapes that it knows; all others are none of its business"
)]

use super::allow::Found;
use super::bundle::{Bundle, Part, Subject};
use super::constants::literal;
use super::{nearest, rules};
use crate::engine::syntax::{Kind, Operator, Term, Variable};
use crate::fragment::{ASSESSMENTS, Fact, Group, RISK_KINDS, RISK_LEVELS};

/// What values a fact can have.
enum Values<'b> {
    /// Whole numbers, from the first to the last.
    Between(i64, i64),
    /// These texts.
    Texts(Vec<&'b str>),
}

pub(super) fn find(bundle: &Bundle<'_>, found: &mut Found) {
    for (number, subject) in bundle.policies.iter().enumerate() {
        if let Some(condition) = &subject.condition {
            condition.visit(&mut |term| compared(bundle, (number, subject), term, found));
        }
    }
}

fn values<'b>(bundle: &'b Bundle<'_>, fact: Fact) -> Option<Values<'b>> {
    match fact {
        Fact::RiskLevel => Some(Values::Texts(RISK_LEVELS.to_vec())),
        Fact::RiskReasons => Some(Values::Texts(RISK_KINDS.to_vec())),
        Fact::BehaviorPreviousAction => {
            let ids = bundle.actions.iter().map(|types| types.action.id());
            Some(Values::Texts(std::iter::once("").chain(ids).collect()))
        }
        Fact::SignalsSilent => {
            Some(Values::Texts(bundle.settings.signals.source.keys().map(|name| name.as_str()).collect()))
        }
        Fact::BehaviorAssessment => Some(Values::Texts(ASSESSMENTS.to_vec())),
        Fact::BehaviorRisk => Some(Values::Between(0, 1000)),
        Fact::RiskScore | Fact::BehaviorConfidence => Some(Values::Between(0, 100)),
        Fact::SessionAal => Some(Values::Between(0, 3)),
        Fact::SessionAge
        | Fact::SessionIdle
        | Fact::SessionAuthAge
        | Fact::RiskAge
        | Fact::BehaviorAttempts
        | Fact::BehaviorDenials
        | Fact::BehaviorDeviations
        | Fact::TaskRemaining
        | Fact::TokenAge
        | Fact::TokenExpiresIn
        | Fact::ActorDepth => Some(Values::Between(0, i64::MAX)),
        Fact::SessionKnown
        | Fact::SessionAcr
        | Fact::SessionAmr
        | Fact::SessionCredentialChanged
        | Fact::SessionDeviceCompliant
        | Fact::SessionNetworks
        | Fact::SessionLabels
        | Fact::SessionGrants
        | Fact::BehaviorKnown
        | Fact::BehaviorBaseline
        | Fact::BehaviorMature
        | Fact::BehaviorNewAction
        | Fact::BehaviorNewTarget
        | Fact::BehaviorNewReference
        | Fact::BehaviorNewTransition
        | Fact::BehaviorUnexpected
        | Fact::BehaviorSecondNetwork
        | Fact::BehaviorOutOfScope
        | Fact::BehaviorFreshToken
        | Fact::BehaviorBurst
        | Fact::TaskKnown
        | Fact::TaskId
        | Fact::TaskPurpose
        | Fact::TaskActive
        | Fact::TaskInScope
        | Fact::TokenKnown
        | Fact::TokenIssuer
        | Fact::TokenScopes
        | Fact::TokenBound
        | Fact::ActorImmediate
        | Fact::ActorRoot => None,
    }
}

/// The fact that a term reads.
fn fact(term: &Term) -> Option<Fact> {
    let Kind::Read(group, name) = &term.kind else { return None };
    let Kind::Read(context, group) = &group.kind else { return None };
    if context.kind != Kind::Variable(Variable::Context) {
        return None;
    }
    Group::named(group)?.fact(name)
}

fn compared(bundle: &Bundle<'_>, (number, subject): (usize, &Subject<'_>), term: &Term, found: &mut Found) {
    let Kind::Binary(operator, operands) = &term.kind else { return };
    let [left, right] = &**operands;
    // The fact, what it is compared with, and whether the fact stands left.
    let (fact, with, fact_is_left) = match (fact(left), fact(right)) {
        (Some(fact), None) => (fact, right, true),
        (None, Some(fact)) => (fact, left, false),
        (Some(_), Some(_)) | (None, None) => return,
    };
    let Some(values) = values(bundle, fact) else { return };
    let several: Vec<&Term> = match &with.kind {
        Kind::Set(items) => items.iter().collect(),
        _ => vec![with],
    };
    for value in several {
        let impossible = match (&values, &value.kind) {
            (Values::Texts(texts), Kind::Text(text)) => !texts.contains(&text.as_str()),
            (Values::Between(least, most), Kind::Long(number)) => {
                out_of_bounds(*operator, (*least, *most), *number, fact_is_left)
            }
            _ => false,
        };
        if !impossible {
            continue;
        }
        let shown = literal(value).unwrap_or_default();
        let message = format!(
            "policy `{}` compares `context.{}` with {shown}, which decides nothing: {}",
            subject.id,
            fact.path(),
            says(fact, &values)
        );
        let span = value.span.clone().or_else(|| term.span.clone());
        let fault = bundle.in_policy(&rules::UNKNOWN_FACT_VALUE, number, &Part::Bytes(&span), message);
        found.add_about_policy(number, fault.help(remedy(&values, value)));
    }
}

/// Whether the comparison comes out the same for every value between the bounds.
fn out_of_bounds(operator: Operator, (least, most): (i64, i64), number: i64, fact_is_left: bool) -> bool {
    match (operator, fact_is_left) {
        (Operator::Less, true) | (Operator::LessOrEqual, false) => number <= least || number > most,
        (Operator::LessOrEqual, true) | (Operator::Less, false) => number < least || number >= most,
        (Operator::Equal | Operator::Contains, _) => number < least || number > most,
        _ => false,
    }
}

fn says(fact: Fact, values: &Values<'_>) -> String {
    match values {
        Values::Between(least, i64::MAX) => format!("it is never below {least}"),
        Values::Between(least, most) => format!("it is {least} to {most}"),
        Values::Texts(_) if fact == Fact::BehaviorPreviousAction => {
            "the schema has no such action".to_owned()
        }
        Values::Texts(_) if fact == Fact::SignalsSilent => {
            "bundle.toml expects no such source under `[signals.source.NAME]`".to_owned()
        }
        Values::Texts(texts) => format!("it is one of {}", texts.join(", ")),
    }
}

fn remedy(values: &Values<'_>, value: &Term) -> String {
    let near = match (values, &value.kind) {
        (Values::Texts(texts), Kind::Text(text)) => nearest(text, texts.iter().copied()),
        _ => None,
    };
    near.filter(|meant| !meant.is_empty()).map_or_else(
        || "compare it with a value that it can have, or leave the comparison out".to_owned(),
        |meant| format!("did you mean \"{meant}\"?"),
    )
}
