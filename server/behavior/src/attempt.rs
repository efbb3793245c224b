//! What the monitor sees of an attempt: borrowed, put together by a door's `gather` and by the offline scorer alike.

use super::baseline::Baseline;
use super::class::ActionClass;
use super::fingerprint::reference_name;

/// Most targets, and most references, of one attempt that are looked at.
pub const NAMES_MAX: usize = 256;
/// Stands for all names beyond [`NAMES_MAX`]. It is never approved, so that nobody hides a name behind many known ones.
pub const NAMES_BEYOND: &str = "more names than are looked at\u{1}";

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observed<'a> {
    /// The action's id.
    pub action: &'a str,
    /// What kind of thing it does.
    pub class: ActionClass,
    /// Whom or what it is done to, from the resource and the arguments that the schema names. One that is also among
    /// the references is left to them.
    pub targets: &'a [&'a str],
    /// URLs, e-mail addresses and account numbers anywhere in the arguments.
    pub references: &'a [&'a str],
    /// Where it comes from; empty: unknown.
    pub network: &'a str,
    /// Age of the token that it was made with, in seconds; `None`: unknown.
    pub token_age_s: Option<u64>,
    /// Whether policy denies it, whatever the monitor says.
    pub is_denied: bool,
    /// Whether a task was named; without one only the identity's baseline is asked.
    pub names_task: bool,
    /// Where it stands to the actions that its task was declared for.
    pub scope: Scope,
    /// Whether it lies outside its task's time window.
    pub is_out_of_window: bool,
    /// The task in the words in which it was approved; what it names is expected. Empty: unknown.
    pub purpose: &'a str,
    /// What [`BurstDetector::observe`](super::BurstDetector::observe) says of identity and resource; 0: not asked.
    pub burst_score: f32,
}

/// Where an action stands to the actions that its task was declared for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Nothing was declared.
    #[default]
    Undeclared,
    /// It was declared.
    Inside,
    /// It was not.
    Outside,
}

/// What was approved that bears on an attempt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Baselines<'a> {
    /// For the identity in this task.
    pub task: Option<&'a Baseline>,
    /// For the identity in whatever task.
    pub identity: Option<&'a Baseline>,
}

impl<'a> Baselines<'a> {
    /// The one that deviations are told from: the narrowest.
    pub(super) fn narrowest(&self, names_task: bool) -> Option<&'a Baseline> {
        if names_task { self.task } else { self.task.or(self.identity) }
    }
}

/// At most [`NAMES_MAX`] names, and [`NAMES_BEYOND`] if there are more.
pub fn bounded<'a>(names: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let numbered = names.take(NAMES_MAX + 1).enumerate();
    numbered.map(|(at, name)| if at < NAMES_MAX { name } else { NAMES_BEYOND })
}

/// The names in an argument that holds several, separated by commas or as a JSON list. Some agents write lists in the
/// mark-up of their model; a tag is no name.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let pieces = text.split([',', '[', ']', '\n']).map(|piece| piece.trim_matches([' ', '"', '\'']));
    pieces.filter(|piece| !(piece.starts_with('<') && piece.ends_with('>')))
}

/// Whether what an argument names is a target: not nothing, nor a part of a text that holds addresses, which the
/// references hold whole.
#[must_use]
pub fn is_target(name: &str, references: &[&str]) -> bool {
    let is_reference = || {
        let short = reference_name(name);
        references.iter().any(|reference| reference_name(reference).eq_ignore_ascii_case(short))
    };
    !name.is_empty() && (references.is_empty() || !name.contains('@') || is_reference())
}
