//! Evidence in words, made only when somebody reads it: each flag with the entry that is missing, what was seen instead, and the baseline
//! that says so.

use std::fmt::Write as _;

use super::attempt::{Baselines, Observed};
use super::baseline::Baseline;
use super::deviation::{Deviation, Flag};
use super::fingerprint::{reference_name, target_name};

/// Longest piece of an attempt that evidence repeats, in characters.
const SHOWN_CHARS_MAX: usize = 120;

/// Whom evidence is about, as it is named.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The identity.
    pub principal: &'a str,
    /// The task; empty: none.
    pub task: &'a str,
}

/// One sentence for each flag that names a missing entry, the weightiest first. `observed` and `baselines` are those that
/// the deviation came from.
#[must_use]
pub fn evidence(
    deviation: &Deviation,
    subject: Subject<'_>,
    observed: &Observed<'_>,
    baselines: &Baselines<'_>,
) -> Vec<String> {
    let words = Words { deviation, subject, observed, baselines };
    let mut told: Vec<String> = ORDER
        .into_iter()
        .filter(|flag| deviation.flags.has(*flag))
        .filter_map(|flag| words.sentence(flag))
        .collect();
    if !told.is_empty() {
        told.push(words.basis());
    }
    told
}

/// The weightiest first. Flags that only qualify others have no sentence of their own.
const ORDER: [Flag; 16] = [
    Flag::OutOfWindow,
    Flag::OutOfScope,
    Flag::NeverAllowed,
    Flag::AllowedElsewhere,
    Flag::NewReference,
    Flag::UnexpectedReference,
    Flag::NewTarget,
    Flag::NewAction,
    Flag::MissingTarget,
    Flag::SecondNetwork,
    Flag::NewNetwork,
    Flag::FreshToken,
    Flag::Burst,
    Flag::RepeatedDenial,
    Flag::NewTransition,
    Flag::Unknown,
];

struct Words<'w> {
    deviation: &'w Deviation,
    subject: Subject<'w>,
    observed: &'w Observed<'w>,
    baselines: &'w Baselines<'w>,
}

impl Words<'_> {
    fn sentence(&self, flag: Flag) -> Option<String> {
        let action = shown(self.observed.action);
        let place = self.place();
        let also =
            |flag| if self.deviation.flags.has(flag) { ", nor for the identity in any task" } else { "" };
        Some(match flag {
            Flag::OutOfWindow => format!("{action} is outside the time window of {place}"),
            Flag::OutOfScope => {
                let is_new = self.deviation.flags.has(Flag::NewAction);
                let runs = if is_new { "no approved run" } else { "too few approved runs" };
                format!("{action} is not in the declared scope of {place}, and {runs} used it")
            }
            Flag::NeverAllowed => {
                format!("{action} is denied, and {} was never approved to do it", self.subject.principal)
            }
            Flag::AllowedElsewhere => format!(
                "{action} is denied here, but {} is approved to do it elsewhere",
                self.subject.principal
            ),
            Flag::NewReference => {
                let name = self.observed.references.get(usize::from(self.deviation.reference_at))?;
                let also = also(Flag::NewReferenceForIdentity);
                let name = shown(reference_name(name));
                format!(
                    "{action} → {name}: the reference was never used in {place}{also}{}",
                    self.seen("", "references")
                )
            }
            Flag::UnexpectedReference if self.deviation.flags.has(Flag::NewReference) => return None,
            Flag::UnexpectedReference => {
                let name = self.observed.references.get(usize::from(self.deviation.reference_at))?;
                let name = shown(reference_name(name));
                format!(
                    "{action} → {name}: too few other tasks of {} use the reference",
                    self.subject.principal
                )
            }
            Flag::NewTarget => {
                let name = self.observed.targets.get(usize::from(self.deviation.target_at))?;
                let also = also(Flag::NewTargetForIdentity);
                let name = shown(target_name(name));
                let seen = self.seen(self.observed.action, "targets");
                format!("{action} → {name} was never a target in {place}{also}{seen}")
            }
            Flag::NewAction => {
                format!("{action} was never an action in {place}{}", also(Flag::NewActionForIdentity))
            }
            Flag::MissingTarget => format!("{action} names no target, and in {place} it always did"),
            Flag::SecondNetwork => {
                format!("the session was first seen in another network than {}", shown(self.observed.network))
            }
            Flag::NewNetwork => {
                format!("{} was never a network of {}", shown(self.observed.network), self.subject.principal)
            }
            Flag::FreshToken => format!("the token is {} s old", self.observed.token_age_s.unwrap_or(0)),
            Flag::Burst => format!(
                "{} does this far more often than usual (score {:.0})",
                self.subject.principal, self.observed.burst_score
            ),
            Flag::RepeatedDenial => format!("the session was denied {action} just before"),
            Flag::NewTransition => format!("{action} never came after the action before it in {place}"),
            Flag::Unknown => format!("nothing is approved for {place}"),
            Flag::Immature
            | Flag::NewActionForIdentity
            | Flag::NewTargetForIdentity
            | Flag::UnexpectedTarget
            | Flag::NewReferenceForIdentity
            | Flag::Denied
            | Flag::Again => return None,
        })
    }

    fn here(&self) -> Option<&Baseline> {
        self.baselines.narrowest(self.observed.names_task).or(self.baselines.identity)
    }

    /// The task, or the identity if the task has no baseline.
    fn place(&self) -> String {
        let Subject { principal, task } = self.subject;
        match (self.observed.names_task, self.baselines.task) {
            (true, Some(_)) => format!("task {task}"),
            (true, None) => format!("task {task} (not learned; of {principal} in its other tasks)"),
            (false, _) => principal.to_owned(),
        }
    }

    fn seen(&self, action: &str, what: &str) -> String {
        let names: Vec<&str> = self.here().into_iter().flat_map(|baseline| baseline.cited(action)).collect();
        if names.is_empty() { String::new() } else { format!("; seen {what}: {}", names.join(", ")) }
    }

    fn basis(&self) -> String {
        let mut text = String::from("compared with ");
        match self.here() {
            Some(baseline) => {
                let maturity = if baseline.is_mature() { "" } else { ", not mature" };
                // Writing to a string cannot fail.
                let _ = write!(
                    text,
                    "baseline {} ({} approved runs{maturity})",
                    baseline.version(),
                    baseline.runs()
                );
            }
            None => text.push_str("no baseline"),
        }
        text
    }
}

/// Enough of a text from outside, on one line.
fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).map(plain).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
