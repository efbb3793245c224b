//! `bundle.toml`: what a bundle says beside its policies.

use std::collections::BTreeMap;

use serde::Deserialize;
use smol_str::SmolStr;

/// Half-life of a risk signal that names none, in seconds.
const RISK_HALF_LIFE_S: u64 = 3600;
/// Longest life of a session that names no end, in seconds.
const SESSION_MAX_AGE_S: u64 = 12 * 3600;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The bundle's name.
    pub name: SmolStr,
    /// Its revision, which only rises. A directory that is edited in place may leave it out.
    #[serde(default)]
    pub revision: u64,
    /// What an erroring policy does.
    #[serde(default)]
    pub on_policy_error: OnPolicyError,
    /// Sessions.
    #[serde(default)]
    pub sessions: SessionSettings,
    /// Risk.
    #[serde(default)]
    pub risk: RiskSettings,
    /// How old facts may be.
    #[serde(default)]
    pub facts: FactSettings,
    /// How long answers may be reused.
    #[serde(default)]
    pub lease: LeaseSettings,
    /// Step-up requirements, by the name that `@step_up` uses.
    #[serde(default)]
    pub step_up: BTreeMap<SmolStr, Requirement>,
    /// Obligations, by the name that `@obligation` uses.
    #[serde(default)]
    pub obligations: BTreeMap<SmolStr, Obligation>,
}

/// What a policy that cannot be evaluated does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPolicyError {
    /// An erroring forbid denies; an erroring permit does not count.
    #[default]
    Deny,
    /// Cedar's own rule: the policy is skipped. For comparison runs.
    Skip,
}

/// `[sessions]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionSettings {
    /// Open a session at the first attempt that names an unknown one, from the token's claims.
    pub open_from_token: bool,
    /// Longest life of a session that names no end, in seconds.
    pub max_age_s: u64,
    /// A session without an attempt for this long is expired, in seconds; 0: never.
    pub idle_max_s: u64,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self { open_from_token: false, max_age_s: SESSION_MAX_AGE_S, idle_max_s: 0 }
    }
}

/// `[risk]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RiskSettings {
    /// Half-life of a signal that names none, in seconds.
    pub half_life_s: u64,
    /// Score from which the level is `medium`.
    pub medium: u8,
    /// Score from which the level is `high`.
    pub high: u8,
}

impl Default for RiskSettings {
    fn default() -> Self {
        Self { half_life_s: RISK_HALF_LIFE_S, medium: 30, high: 70 }
    }
}

/// `[facts]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FactSettings {
    /// A session about which nothing was heard for this long denies, in seconds; absent: no limit.
    pub session_max_age_s: Option<u64>,
    /// A token older than this denies, in seconds; absent: no limit.
    pub token_max_age_s: Option<u64>,
}

/// `[lease]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseSettings {
    /// Lease of an allow that rests on no fact, no part of the request, no session and no token, in milliseconds; others
    /// get 0.
    pub max_ms: u32,
}

/// `[step_up.NAME]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Requirement {
    /// A fresh or stronger login of the person behind the attempt (RFC 9470).
    Authentication {
        /// Acceptable context classes, best first.
        #[serde(default)]
        acr_values: Vec<SmolStr>,
        /// Oldest acceptable authentication, in seconds.
        #[serde(default)]
        max_age_s: Option<u64>,
    },
    /// Approval by a reviewer.
    Approval {
        /// Who may approve, each as `Type::"id"`.
        reviewers: Vec<SmolStr>,
        /// How long an approval lasts, in seconds.
        grant_s: u64,
    },
    /// Fresh proof of the workload.
    Attestation {},
}

/// `[obligations.NAME]`: what an enforcement point must do along with an allow.
///
/// Declaring it changes no verdict: it says what the name means, and lets the check find one that is misspelt.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Obligation {
    /// What the enforcement point must do, for people.
    pub description: String,
}

impl Settings {
    /// The defaults under a name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            revision: 0,
            on_policy_error: OnPolicyError::default(),
            sessions: SessionSettings::default(),
            risk: RiskSettings::default(),
            facts: FactSettings::default(),
            lease: LeaseSettings::default(),
            step_up: BTreeMap::new(),
            obligations: BTreeMap::new(),
        }
    }

    /// What no bundle may say, as (table or key, fault).
    #[must_use]
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.name.is_empty() || self.name.len() > 128 {
            faults.push(("name", "the name must have 1 to 128 bytes".to_owned()));
        }
        if !(1..=30 * 24 * 3600).contains(&self.risk.half_life_s) {
            faults.push(("half_life_s", "the half-life must be 1 s to 30 days".to_owned()));
        }
        if self.risk.medium > self.risk.high || self.risk.high > 100 {
            faults.push(("risk", "levels must satisfy medium <= high <= 100".to_owned()));
        }
        if self.sessions.max_age_s == 0 {
            faults.push(("max_age_s", "sessions must live at least 1 s".to_owned()));
        }
        for (name, requirement) in &self.step_up {
            let fault = match requirement {
                Requirement::Authentication { acr_values, max_age_s }
                    if acr_values.is_empty() && max_age_s.is_none() =>
                {
                    "asks for nothing: give it `acr_values`, `max_age_s`, or both"
                }
                Requirement::Approval { reviewers, .. } if reviewers.is_empty() => {
                    "has no reviewers, so nobody could approve"
                }
                Requirement::Approval { reviewers, .. } if !reviewers.iter().all(|name| is_entity(name)) => {
                    "has a reviewer that is no entity: write each as `Type::\"id\"`"
                }
                Requirement::Approval { grant_s: 0, .. } => "grants for 0 s, so no retry could succeed",
                Requirement::Authentication { .. }
                | Requirement::Approval { .. }
                | Requirement::Attestation {} => continue,
            };
            faults.push(("step_up", format!("requirement `{name}` {fault}")));
        }
        faults
    }
}

/// Whether the text names an entity; its type need not be in the schema.
fn is_entity(text: &str) -> bool {
    text.parse::<cedar_policy::EntityUid>().is_ok_and(|uid| uid.to_string() == text)
}
