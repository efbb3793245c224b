//! `bundle.toml`: what a bundle says beside its policies.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use smol_str::SmolStr;

use crate::approvals::BehaviorSettings;
use crate::counters::{COUNTERS_MAX, CounterSettings};
use crate::engine::Uid;
use crate::masks::{self, AuditSettings};
use crate::responses::{self, Label, Response};

/// Half-life of a risk signal that names none, in seconds.
const RISK_HALF_LIFE_S: u64 = 3600;
/// Longest life of a session that names no end, in seconds.
const SESSION_MAX_AGE_S: u64 = 12 * 3600;
/// Longest lease, and longest time without the stream, in milliseconds: a day. What is asked once a day need not be
/// cached.
const LEASE_MAX_MS: u32 = 24 * 3600 * 1000;
/// Most sources of signals that a bundle can expect: an organisation has a dozen.
const SOURCES_MAX: usize = 64;
/// Longest name of a source, in bytes: what a signal may carry.
const SOURCE_BYTES_MAX: usize = 256;

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
    /// Where signals come from.
    #[serde(default)]
    pub signals: SignalSettings,
    /// How long answers may be reused.
    #[serde(default)]
    pub lease: LeaseSettings,
    /// How behaviour is read and judged.
    #[serde(default)]
    pub behavior: BehaviorSettings,
    /// What records tell.
    #[serde(default)]
    pub audit: AuditSettings,
    /// What is counted, by the name that policies read.
    #[serde(default)]
    pub counters: BTreeMap<SmolStr, CounterSettings>,
    /// Step-up requirements, by the name that `@step_up` uses.
    #[serde(default)]
    pub step_up: BTreeMap<SmolStr, Requirement>,
    /// Obligations, by the name that `@obligation` uses.
    #[serde(default)]
    pub obligations: BTreeMap<SmolStr, Obligation>,
    /// Labels that allowed attempts put on their sessions, by the name that `@label` uses.
    #[serde(default)]
    pub labels: BTreeMap<SmolStr, Label>,
    /// What is done when a policy settles an answer, by the name that `@respond` uses.
    #[serde(default)]
    pub responses: BTreeMap<SmolStr, Response>,
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
    /// A hop about whose risk nothing was heard for this long denies, in seconds; absent: no limit.
    pub risk_max_age_s: Option<u64>,
    /// A token older than this denies, in seconds; absent: no limit.
    pub token_max_age_s: Option<u64>,
    /// Other limits for some actions.
    pub class: Vec<FactClass>,
}

/// `[[facts.class]]`: limits for some actions; one that is absent is that of `[facts]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactClass {
    /// The actions, by id or as `Type::"id"`.
    pub actions: Vec<SmolStr>,
    /// As in `[facts]`.
    #[serde(default)]
    pub session_max_age_s: Option<u64>,
    /// As in `[facts]`.
    #[serde(default)]
    pub risk_max_age_s: Option<u64>,
    /// As in `[facts]`.
    #[serde(default)]
    pub token_max_age_s: Option<u64>,
}

/// How old facts may be for one action, in seconds; absent: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaxAges {
    /// Since something was last heard of the session.
    pub session_s: Option<u64>,
    /// Since the newest signal about the risk of each hop.
    pub risk_s: Option<u64>,
    /// Since the token was issued.
    pub token_s: Option<u64>,
}

impl FactSettings {
    /// The limits for an action.
    #[must_use]
    pub fn max_ages(&self, action: &Uid) -> MaxAges {
        let class = self.class.iter().find(|class| class.actions.iter().any(|name| is_named(action, name)));
        let of_class = |limit: fn(&FactClass) -> Option<u64>| class.and_then(limit);
        MaxAges {
            session_s: of_class(|class| class.session_max_age_s).or(self.session_max_age_s),
            risk_s: of_class(|class| class.risk_max_age_s).or(self.risk_max_age_s),
            token_s: of_class(|class| class.token_max_age_s).or(self.token_max_age_s),
        }
    }
}

impl FactSettings {
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut seen = BTreeSet::new();
        for class in &self.class {
            if class.actions.is_empty() {
                faults.push(("facts.class", "a class without `actions` limits nothing".to_owned()));
            }
            if (class.session_max_age_s, class.risk_max_age_s, class.token_max_age_s) == (None, None, None) {
                faults.push(("facts.class", "a class without a limit says nothing: give it `session_max_age_s`, `risk_max_age_s` or `token_max_age_s`".to_owned()));
            }
            let twice = class.actions.iter().filter(|name| !seen.insert((*name).clone()));
            faults.extend(twice.map(|name| {
                (
                    "facts.class",
                    format!("action `{name}` is named twice in `[[facts.class]]`, so its limits are unclear"),
                )
            }));
        }
        faults
    }
}

/// Whether a name is that of the action: its id, or `Type::"id"`.
pub(crate) fn is_named(action: &Uid, name: &str) -> bool {
    action.id() == name || action.to_string() == name
}

/// `[signals]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignalSettings {
    /// Sources from which signals are expected, by the name that their signals carry.
    pub source: BTreeMap<SmolStr, SourceSettings>,
}

impl SignalSettings {
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.source.len() > SOURCES_MAX {
            faults.push(("signals", format!("at most {SOURCES_MAX} sources can be expected")));
        }
        for (name, source) in &self.source {
            if name.is_empty() || name.len() > SOURCE_BYTES_MAX {
                faults.push(("signals", format!("the name of a source has 1 to {SOURCE_BYTES_MAX} bytes")));
            }
            if source.max_silence_s == 0 {
                faults.push((
                    "max_silence_s",
                    format!("source `{name}` would always be silent: `max_silence_s` is at least 1"),
                ));
            }
        }
        faults
    }
}

/// `[signals.source.NAME]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// A source of which nothing was heard for longer is silent, in seconds.
    pub max_silence_s: u64,
}

/// `[lease]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseSettings {
    /// Longest lease of any allow, in milliseconds; 0: none.
    pub max_ms: u32,
    /// Longest lease that an enforcement point without a Hold stream gets of an allow which rests on something that can
    /// change, in milliseconds.
    pub unheld_max_ms: u32,
    /// How long a cache may go on using leases after it lost its Hold stream, in milliseconds.
    pub stream_loss_max_ms: u32,
}

impl LeaseSettings {
    fn faults(&self) -> Vec<(&'static str, String)> {
        let keys = [
            ("max_ms", self.max_ms),
            ("unheld_max_ms", self.unheld_max_ms),
            ("stream_loss_max_ms", self.stream_loss_max_ms),
        ];
        let too_long = keys.into_iter().filter(|(_, ms)| *ms > LEASE_MAX_MS);
        let mut faults: Vec<_> = too_long
            .map(|(key, _)| (key, format!("`{key}` is at most {LEASE_MAX_MS} ms, one day")))
            .collect();
        if self.unheld_max_ms > self.max_ms {
            faults.push((
                "unheld_max_ms",
                "`unheld_max_ms` is at most `max_ms`, which bounds every lease".to_owned(),
            ));
        }
        faults
    }
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
            signals: SignalSettings::default(),
            lease: LeaseSettings::default(),
            behavior: BehaviorSettings::default(),
            counters: BTreeMap::new(),
            step_up: BTreeMap::new(),
            obligations: BTreeMap::new(),
            labels: BTreeMap::new(),
            responses: BTreeMap::new(),
            audit: AuditSettings::default(),
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
        faults.extend(self.facts.faults());
        faults.extend(self.signals.faults());
        faults.extend(self.lease.faults());
        faults.extend(self.behavior.faults());
        faults.extend(masks::faults(&self.audit));
        faults.extend(responses::faults(&self.labels, &self.responses));
        if self.counters.len() > COUNTERS_MAX {
            faults.push((
                "counters",
                format!("at most {COUNTERS_MAX} counters: count what policies decide by"),
            ));
        }
        for (name, counter) in &self.counters {
            let told = counter.faults(name).into_iter();
            faults.extend(told.map(|fault| ("counters", format!("counter `{name}` {fault}"))));
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
