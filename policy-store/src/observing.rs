//! `[behavior.observe]`: identities that are compared and recorded, and not yet held to what their baselines lack.
//!
//! It has an end, and ends by itself. Limits: [`IDENTITIES_MAX`] identities.

use std::path::Path;

use ahash::AHashSet;
use cedar_policy::EntityUid;
use serde::Deserialize;
use smol_str::SmolStr;

use crate::engine::Uid;
use crate::fault::Fault;
use crate::lint::rules;
use crate::load::Files;
use crate::settings::Settings;
use crate::stamp::Stamp;

/// Most identities that a bundle observes: whoever observes more wants a bundle without the policies.
pub const IDENTITIES_MAX: usize = 1_000;
/// Observing for longer is warned of, in milliseconds: 45 days hold a month's work with its end.
const LONG_MS: i64 = 45 * 24 * 3600 * 1000;

/// The table as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObserveSettings {
    /// Whom, as `Type::"id"`.
    pub identities: Vec<SmolStr>,
    /// First instant at which they are held to their baselines again.
    pub until: Stamp,
}

/// The table compiled.
#[derive(Debug, Default)]
pub struct Observing {
    identities: AHashSet<Uid>,
    until_ms: i64,
}

impl ObserveSettings {
    pub(crate) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.identities.is_empty() || self.identities.len() > IDENTITIES_MAX {
            faults.push(("observe", format!("`[behavior.observe]` names 1 to {IDENTITIES_MAX} identities")));
        }
        for name in self.identities.iter().filter(|name| uid(name).is_none()) {
            let name: String = name.chars().take(64).collect();
            let message = format!("observed identity `{name}` is no entity: write it as `Type::\"id\"`");
            faults.push(("observe", message));
        }
        faults
    }
}

impl Observing {
    pub(crate) fn of(settings: Option<&ObserveSettings>) -> Self {
        let Some(settings) = settings else { return Self::default() };
        let identities = settings.identities.iter().filter_map(|name| uid(name)).collect();
        Self { identities, until_ms: settings.until.unix_ms() }
    }

    /// Whether an identity is observed at that time, Unix milliseconds.
    #[must_use]
    pub fn covers(&self, identity: &Uid, at_ms: i64) -> bool {
        !self.identities.is_empty() && at_ms < self.until_ms && self.identities.contains(identity)
    }

    /// When it ends for an identity, Unix milliseconds; `None`: it is not observed.
    #[must_use]
    pub fn ends_ms(&self, identity: &Uid) -> Option<i64> {
        self.identities.contains(identity).then_some(self.until_ms)
    }
}

/// What is to be said of a bundle, by its files, that observes at that time, Unix milliseconds.
#[must_use]
pub fn check(files: &Files, now_ms: i64) -> Option<Fault> {
    let text = std::str::from_utf8(files.get(Path::new("bundle.toml"))?).ok()?;
    let settings: Settings = toml::from_str(text).ok()?;
    warning(settings.behavior.observe.as_ref()?, now_ms)
}

fn warning(settings: &ObserveSettings, now_ms: i64) -> Option<Fault> {
    let ObserveSettings { until, .. } = settings;
    let left_ms = until.unix_ms().saturating_sub(now_ms);
    let (message, help) = if left_ms <= 0 {
        let message = format!("`[behavior.observe]` ended at {until}: nobody is observed");
        (message, "take the table out, or give it a later `until`")
    } else if left_ms > LONG_MS {
        let days = left_ms / (24 * 3600 * 1000);
        let message =
            format!("`[behavior.observe]` goes on for {days} days, and holds nobody to a baseline so long");
        (message, "end it once the baseline is learned: a month shows what is done each month")
    } else {
        return None;
    };
    Some(Fault::of(&rules::OBSERVE_PERIOD, "bundle.toml", message).help(help))
}

fn uid(name: &str) -> Option<Uid> {
    name.parse::<EntityUid>().ok().map(|uid| Uid::from(&uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(until: &str) -> ObserveSettings {
        ObserveSettings { identities: vec!["Agent::\"new\"".into()], until: until.parse().unwrap() }
    }

    #[test]
    fn it_covers_its_identities_until_its_end() {
        let observing = Observing::of(Some(&observe("1970-01-01T00:00:01Z")));
        let (new, other) = (uid("Agent::\"new\"").unwrap(), uid("User::\"new\"").unwrap());
        assert!(observing.covers(&new, 999) && !observing.covers(&new, 1000));
        assert!(!observing.covers(&other, 0));
        assert_eq!((observing.ends_ms(&new), observing.ends_ms(&other)), (Some(1000), None));
        assert!(!Observing::default().covers(&new, i64::MIN));
    }

    #[test]
    fn what_is_over_or_long_is_warned_of() {
        let settings = observe("2026-03-01T00:00:00Z");
        let at = |text: &str| warning(&settings, text.parse::<Stamp>().unwrap().unix_ms());
        assert!(at("2026-03-01T00:00:00Z").is_some_and(|fault| fault.message.contains("ended")));
        assert!(at("2026-02-01T00:00:00Z").is_none());
        assert!(at("2026-01-01T00:00:00Z").is_some_and(|fault| fault.message.contains("59 days")));
    }

    #[test]
    fn who_is_observed_must_be_an_entity() {
        let mut settings = observe("2026-03-01T00:00:00Z");
        assert!(settings.faults().is_empty());
        settings.identities = vec!["new".into()];
        assert!(settings.faults()[0].1.contains("is no entity"));
        settings.identities.clear();
        assert!(settings.faults()[0].1.contains("1 to 1000"));
    }
}
