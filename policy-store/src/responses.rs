//! What a policy does beside its answer: labels that it puts on sessions, responses that it has carried out, and whether it is in dry run.
//!
//! Owns what `[labels]` and `[responses]` of `bundle.toml` declare, and how the annotations that name them are read. Nothing of it is
//! part of an answer: only policies that settle one set labels and have responses carried out, and one in dry run settles none.
//! Limits: [`LABELS_MAX`] labels, [`RESPONSES_MAX`] responses and [`DRY_RUNS_MAX`] policies in dry run.

use std::collections::BTreeMap;

use serde::Deserialize;
use smol_str::SmolStr;

use crate::engine;
use crate::fault::Fault;
use crate::fragment::RISK_KINDS;
use crate::lint::{nearest, rules};
use crate::masks::Masks;
use crate::settings::Settings;

/// Most labels that a bundle can declare.
pub const LABELS_MAX: usize = 32;
/// Most responses that a bundle can declare.
pub const RESPONSES_MAX: usize = 32;
/// Most policies in dry run, each of which is counted by itself.
pub const DRY_RUNS_MAX: usize = 256;
/// Longest name of a label or response, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longest life of a label, in seconds: a year.
const LABEL_LIFE_MAX_S: u32 = 365 * 24 * 3600;
/// Shortest and longest half-life of a raised risk, in seconds. A shorter one would have to be written again all the time.
const HALF_LIFE_S: std::ops::RangeInclusive<u32> = 60..=30 * 24 * 3600;

/// `[labels.NAME]`: what an allowed attempt can put on its session.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// What it says of a session, for people.
    pub description: String,
    /// How long it stays after the last attempt that sets it, in seconds; absent: for the life of the session.
    #[serde(default)]
    pub for_s: Option<u32>,
}

/// `[responses.NAME]`: what is done when a policy settles an answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// What it is for, for people.
    pub description: String,
    /// The allow is given without a lease: every use is asked for.
    #[serde(default)]
    pub narrow: bool,
    /// The attempt's session is ended, for good.
    #[serde(default)]
    pub revoke_session: bool,
    /// The risk of whoever made the attempt is raised.
    #[serde(default)]
    pub raise_risk: Option<RaiseRisk>,
    /// What those who listen are told even where nothing that they were told before changed.
    #[serde(default)]
    pub emit: Option<Emit>,
    /// The holds of the attempt's session, or of its principal if it has none, are judged again at once.
    #[serde(default)]
    pub notify_holds: bool,
}

/// A risk that a policy saw.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RaiseRisk {
    /// What it weighs, 1 to 100.
    pub score: u8,
    /// Time after which it has halved, in seconds; absent: that of `[risk]`.
    #[serde(default)]
    pub half_life_s: Option<u32>,
    /// One of [`RISK_KINDS`].
    #[serde(default = "anomalous_behavior")]
    pub kind: SmolStr,
}

fn anomalous_behavior() -> SmolStr {
    SmolStr::new_static("anomalous_behavior")
}

/// A CAEP event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Emit {
    /// The level of the principal's risk, also where it is the one that was told before.
    RiskLevelChange,
}

impl Response {
    /// Whether it does nothing but to an allow.
    #[must_use]
    pub fn only_narrows(&self) -> bool {
        self.narrow && !self.revoke_session && self.raise_risk.is_none() && !self.notify_holds
    }
}

/// What one policy's annotations say of it; places are those of [`Declared`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// `@label`: what it puts on the session of an attempt that it allows.
    pub labels: Vec<u16>,
    /// `@respond`: what is done when it settles an answer.
    pub responses: Vec<u16>,
    /// `@dry_run`: it is evaluated and told, and settles nothing.
    pub dry_run: bool,
}

/// What a bundle declares, in the order of the names, and whether any policy uses it.
#[derive(Debug, Default)]
pub struct Declared {
    /// Labels.
    pub labels: Box<[(SmolStr, Label)]>,
    /// Responses.
    pub responses: Box<[(SmolStr, Response)]>,
    /// What records do not tell.
    pub masks: Masks,
    /// Whether any policy sets a label or has a response carried out.
    pub acts: bool,
}

impl Declared {
    /// What the settings declare.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Self {
            labels: settings.labels.clone().into_iter().collect(),
            responses: settings.responses.clone().into_iter().collect(),
            masks: Masks::of(&settings.audit),
            acts: false,
        }
    }

    /// One label and its name.
    #[must_use]
    pub fn label(&self, place: u16) -> Option<&(SmolStr, Label)> {
        self.labels.get(usize::from(place))
    }

    /// One response and its name.
    #[must_use]
    pub fn response(&self, place: u16) -> Option<&(SmolStr, Response)> {
        self.responses.get(usize::from(place))
    }

    /// What a policy's annotations say; none if it has none of them.
    pub(crate) fn effects(
        &mut self,
        id: &SmolStr,
        policy: &cedar_policy::Policy,
        forbids: bool,
        faults: &mut Vec<Fault>,
    ) -> Option<Box<Effects>> {
        let of = |key: &str| engine::annotation(policy, key);
        let (label, respond, dry_run) = (of("label"), of("respond"), of("dry_run").is_some());
        if label.is_none() && respond.is_none() && !dry_run {
            return None;
        }
        if label.is_some() && forbids {
            let message = format!("forbid `{id}` carries `@label`");
            faults.push(Fault::of(&rules::LABEL_ON_FORBID, "policies", message).of_policy(id));
        }
        let known = |name: &str, names: &[&str]| names.iter().position(|declared| *declared == name);
        let mut places = |text: Option<&str>, names: &[&str], rule, what: &str, table: &str| {
            let mut places = Vec::new();
            for name in names_in(text.unwrap_or_default()) {
                match known(name, names).and_then(|place| u16::try_from(place).ok()) {
                    Some(place) if !places.contains(&place) => places.push(place),
                    Some(_) => {}
                    None => {
                        let message = format!("policy `{id}` names {what} `{name}`, which is not declared");
                        let help = match nearest(name, names.iter().copied()) {
                            Some(meant) => format!("did you mean `{meant}`?"),
                            None => format!("add `[{table}.{name}]` with a `description` to bundle.toml"),
                        };
                        faults.push(Fault::of(rule, "policies", message).of_policy(id).help(help));
                    }
                }
            }
            places
        };
        let names: Vec<&str> = self.labels.iter().map(|(name, _)| name.as_str()).collect();
        let labels = places(label, &names, &rules::LABEL_UNDECLARED, "label", "labels");
        let names: Vec<&str> = self.responses.iter().map(|(name, _)| name.as_str()).collect();
        let responses = places(respond, &names, &rules::RESPONSE_UNDECLARED, "response", "responses");
        let does_nothing = labels.is_empty() && responses.is_empty();
        self.acts |= !dry_run && !does_nothing;
        Some(Box::new(Effects { labels, responses, dry_run }))
    }
}

/// The names in an annotation: a list, separated by commas.
pub(crate) fn names_in(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// What no bundle may say of labels and responses, as (table or key, fault).
pub(crate) fn faults(
    labels: &BTreeMap<SmolStr, Label>,
    responses: &BTreeMap<SmolStr, Response>,
) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    for (table, count, max) in
        [("labels", labels.len(), LABELS_MAX), ("responses", responses.len(), RESPONSES_MAX)]
    {
        if count > max {
            faults.push((table, format!("at most {max} {table} can be declared")));
        }
    }
    let named = labels.keys().map(|name| ("labels", name));
    for (table, name) in named.chain(responses.keys().map(|name| ("responses", name))) {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains([',', ' ', '\t', '\n']) {
            let fault = format!(
                "the name `{name}` cannot stand in a list: names have 1 to {NAME_BYTES_MAX} bytes, without commas and spaces"
            );
            faults.push((table, fault));
        }
    }
    for (name, label) in labels {
        if label.for_s.is_some_and(|s| s == 0 || s > LABEL_LIFE_MAX_S) {
            faults.push((
                "for_s",
                format!(
                    "label `{name}`: `for_s` is 1 to {LABEL_LIFE_MAX_S}; leave it out for the session's life"
                ),
            ));
        }
    }
    for (name, response) in responses {
        faults.extend(
            response.faults().into_iter().map(|(key, fault)| (key, format!("response `{name}` {fault}"))),
        );
    }
    faults
}

impl Response {
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut add = |key, fault: &str| faults.push((key, fault.to_owned()));
        if !self.narrow && !self.revoke_session && self.raise_risk.is_none() && !self.notify_holds {
            add(
                "responses",
                "does nothing: give it `narrow`, `revoke_session`, `raise_risk` or `notify_holds`",
            );
        }
        match self.emit {
            Some(Emit::RiskLevelChange) if self.raise_risk.is_none() => {
                add("emit", "would tell of a risk that it does not raise: add `raise_risk`");
            }
            Some(Emit::RiskLevelChange) | None => {}
        }
        let Some(risk) = &self.raise_risk else { return faults };
        if !(1..=100).contains(&risk.score) {
            add("score", "raises the risk by nothing that it can be: `score` is 1 to 100");
        }
        if risk.half_life_s.is_some_and(|s| !HALF_LIFE_S.contains(&s)) {
            let (least, most) = (HALF_LIFE_S.start(), HALF_LIFE_S.end());
            add("half_life_s", &format!("has a half-life beyond its bounds: {least} to {most} s"));
        }
        if !RISK_KINDS.contains(&risk.kind.as_str()) {
            let help = match nearest(&risk.kind, RISK_KINDS) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("it is one of {}", RISK_KINDS.join(", ")),
            };
            add("kind", &format!("raises a risk of unknown kind `{}`: {help}", risk.kind));
        }
        faults
    }
}

impl RaiseRisk {
    /// Its half-life in seconds; `default_s` is that of the bundle.
    #[must_use]
    pub fn half_life_s(&self, default_s: u64) -> u32 {
        let default_s = u32::try_from(default_s).unwrap_or(*HALF_LIFE_S.end());
        self.half_life_s.unwrap_or_else(|| default_s.clamp(*HALF_LIFE_S.start(), *HALF_LIFE_S.end()))
    }
}

#[cfg(test)]
mod tests;
