//! One attempt of a scenario: what was expected, what came out, and what to do where they differ.

use cardea_core::decide::Outcome;
use cardea_core::reason::ReasonCode;
use cardea_core::verdict::{FactValue, Verdict};
use cardea_policy_store::index::PolicyIndex;
use cardea_policy_store::snapshot::Snapshot;
use serde::Serialize;

use super::attempt::{AttemptTold, Expected};
use crate::pipeline::reason_text;

/// Most policies that an advice names.
const NAMED_MAX: usize = 5;

/// One attempt and how it went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Case {
    /// What it is called.
    pub name: String,
    /// Line of the file, from 1.
    pub line: usize,
    /// Column.
    pub column: usize,
    /// Whether everything came out as expected.
    pub passed: bool,
    /// The answer that was expected.
    pub expected: Expected,
    /// What came out.
    pub got: Got,
    /// Where the two differ.
    pub differences: Vec<Difference>,
    /// What to change, if they differ.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

/// One expectation that was not met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The key of the attempt.
    pub key: &'static str,
    /// What it says.
    pub expected: String,
    /// What came out.
    pub got: String,
}

/// A verdict in words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Got {
    /// The answer.
    pub decision: &'static str,
    /// Why it is not a plain allow.
    pub reasons: Vec<Told>,
    /// Ids of the determining policies.
    pub policies: Vec<String>,
    /// Names of the requirements.
    pub requirements: Vec<String>,
    /// Obligations of an allow.
    pub obligations: Vec<String>,
    /// Policies that could not be evaluated.
    pub errors: Vec<Told>,
    /// Facts that the determining policies read.
    pub evidence: Vec<Fact>,
}

/// A code or an id, and the words to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The code of a reason, or the id of a policy.
    pub code: String,
    /// In words.
    pub message: String,
}

/// A fact and its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fact {
    /// Path as policy writes it, without `context.`.
    pub fact: String,
    /// Its value.
    pub value: serde_json::Value,
    /// Where the value comes from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
}

impl Got {
    /// Puts a verdict into words.
    #[must_use]
    pub fn of(verdict: &Verdict, snapshot: &Snapshot) -> Self {
        let id = |at: &PolicyIndex| snapshot.policy(*at).map(|policy| policy.id.to_string());
        let reason = |reason: &cardea_core::reason::Reason| Told {
            code: reason.code.name().to_owned(),
            message: reason_text(*reason, verdict, Some(snapshot)).to_owned(),
        };
        let requirement = |at: &u16| snapshot.requirement(*at).map(|(name, _)| name.to_string());
        let obligation = |at: &PolicyIndex| Some(snapshot.policy(*at)?.obligation.as_ref()?.to_string());
        Self {
            decision: verdict.decision().name(),
            reasons: verdict.reasons().iter().map(reason).collect(),
            policies: verdict.determining().iter().filter_map(id).collect(),
            requirements: verdict.requirements().iter().filter_map(requirement).collect(),
            obligations: verdict.obligations().iter().filter_map(obligation).collect(),
            errors: verdict
                .errors()
                .iter()
                .filter_map(|(at, error)| Some(Told { code: id(at)?, message: error.to_string() }))
                .collect(),
            evidence: verdict
                .evidence()
                .iter()
                .map(|evidence| Fact {
                    fact: evidence.fact.path().to_owned(),
                    value: shown(&evidence.value),
                    why: evidence.why.clone(),
                })
                .collect(),
        }
    }
}

/// The value of a fact, in JSON.
#[must_use]
pub fn shown(value: &FactValue) -> serde_json::Value {
    match value {
        FactValue::Bool(value) => (*value).into(),
        FactValue::Long(value) => (*value).into(),
        FactValue::Text(text) => text.as_str().into(),
        FactValue::Texts(texts) => texts.iter().map(smol_str::SmolStr::as_str).collect(),
    }
}

/// Every expectation of the attempt that the verdict does not meet.
pub(super) fn differences(attempt: &AttemptTold, got: &Got) -> Vec<Difference> {
    let codes = |told: &[Told]| told.iter().map(|told| told.code.clone()).collect::<Vec<_>>();
    let mut found = Vec::new();
    let expected = cardea_core::verdict::Decision::from(attempt.expect).name();
    if expected != got.decision {
        let got = got.decision.to_owned();
        found.push(Difference { key: "expect", expected: expected.to_owned(), got });
    }
    let lists = [
        ("policies", &attempt.policies, got.policies.clone()),
        ("reasons", &attempt.reasons, codes(&got.reasons)),
        ("requirements", &attempt.requirements, got.requirements.clone()),
        ("obligations", &attempt.obligations, got.obligations.clone()),
        ("errors", &attempt.errors, codes(&got.errors)),
    ];
    for (key, wanted, came) in lists {
        let Some(wanted) = wanted else { continue };
        let (wanted, came) = (sorted(wanted.0.clone()), sorted(came));
        if wanted != came {
            found.push(Difference { key, expected: list(&wanted), got: list(&came) });
        }
    }
    if let Some(part) = &attempt.message {
        let said = got.reasons.first().map_or("", |reason| reason.message.as_str());
        if !said.contains(part.as_str()) {
            found.push(Difference { key: "message", expected: part.clone(), got: said.to_owned() });
        }
    }
    found
}

/// What to change so that expectation and verdict agree.
pub(super) fn advice(
    attempt: &AttemptTold,
    got: &Got,
    hops: &[Vec<(PolicyIndex, Outcome)>],
    snapshot: &Snapshot,
) -> String {
    let other_side = |forbids: bool| {
        let mut ids: Vec<&str> = hops
            .iter()
            .flatten()
            .filter(|(_, outcome)| matches!(outcome, Ok(false)))
            .filter_map(|(at, _)| snapshot.policy(*at))
            .filter(|policy| policy.forbids == forbids)
            .map(|policy| policy.id.as_str())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let more = ids.len().saturating_sub(NAMED_MAX);
        let mut text = ids.iter().take(NAMED_MAX).map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ");
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
        text
    };
    let no_permit = got.reasons.iter().any(|reason| reason.code == ReasonCode::NoPermit.name());
    let first = match (attempt.expect, other_side(false), other_side(true)) {
        (Expected::Allow | Expected::StepUp, permits, _) if no_permit && permits.is_empty() => {
            "no permit has this in its scope: write one, or correct the names".to_owned()
        }
        (Expected::Allow | Expected::StepUp, permits, _) if no_permit => {
            format!("permits in scope whose condition does not hold: {permits}")
        }
        (Expected::Deny | Expected::StepUp, _, forbids) if got.decision == "allow" && !forbids.is_empty() => {
            format!("forbids in scope whose condition does not hold: {forbids}")
        }
        (Expected::Deny | Expected::StepUp, _, _) if got.decision == "allow" => {
            "no forbid has this in its scope".to_owned()
        }
        _ => String::new(),
    };
    let rewritten = if got.policies.is_empty() {
        format!("expect: {}, reasons: {}", got.decision, list(&reasons(got)))
    } else {
        format!("expect: {}, policies: {}", got.decision, list(&got.policies))
    };
    let second =
        format!("if the bundle is right, write `{rewritten}`; if not, change the policy or the facts");
    if first.is_empty() { second } else { format!("{first}; {second}") }
}

fn reasons(got: &Got) -> Vec<String> {
    got.reasons.iter().map(|reason| reason.code.clone()).collect()
}

fn list(items: &[String]) -> String {
    format!("[{}]", items.join(", "))
}

fn sorted(mut items: Vec<String>) -> Vec<String> {
    items.sort();
    items.dedup();
    items
}
