//! Observe mode: an identity whose work is not known yet is compared and recorded, and not held to what its baseline lacks.
//!
//! Only novelty is excused: what a task was declared for, its window, and a session's network hold as always. INVARIANT (never
//! habitual): observing excuses an attempt in the eyes of policy and makes nothing look approved; what is learned from it is for
//! [`is_flagged`] to say, and for somebody to promote.

use super::class::ActionClass;
use super::deviation::{Assessment, Deviation, Flag, Flags, Response};

/// What a baseline does not have. Everything else stands beside any baseline.
const NOVELTY: [Flag; 12] = [
    Flag::NewAction,
    Flag::NewActionForIdentity,
    Flag::NewTarget,
    Flag::NewTargetForIdentity,
    Flag::UnexpectedTarget,
    Flag::NewReference,
    Flag::NewReferenceForIdentity,
    Flag::UnexpectedReference,
    Flag::MissingTarget,
    Flag::NewTransition,
    Flag::NewNetwork,
    Flag::Again,
];

/// What no observing excuses, where it amounts to anything.
const NEVER_EXCUSED: [Flag; 4] = [Flag::OutOfScope, Flag::OutOfWindow, Flag::SecondNetwork, Flag::Burst];

impl Deviation {
    /// The deviation as policies read it of an identity that is observed; `None`: it lies beyond what observing excuses, and is
    /// judged as always.
    #[must_use]
    pub fn excused(&self, class: ActionClass) -> Option<Self> {
        let is_beyond = self.flags.has(Flag::OutOfWindow)
            || (class.has_effect() && self.flags.has(Flag::OutOfScope))
            || (class.counts() && self.flags.has_any(&[Flag::SecondNetwork, Flag::Burst]));
        let mut excused =
            Self { assessment: Assessment::None, confidence: 0, response: Response::Allow, ..*self };
        for flag in NOVELTY {
            excused.flags.clear(flag);
        }
        (!is_beyond).then_some(excused)
    }
}

/// Whether nothing may be learned from an attempt that deviated like this, nor from its run. Of an identity that is observed, mere
/// novelty is what there is to learn; what amounts to abuse, lies outside of scope or window, or deviates from a mature baseline is not.
#[must_use]
pub fn is_flagged(flags: Flags, assessment: Assessment, is_observed: bool) -> bool {
    let is_deviation = assessment != Assessment::None;
    if !is_observed {
        return is_deviation;
    }
    is_deviation
        && (assessment == Assessment::Abuse
            || !flags.has(Flag::Immature)
            || flags.has(Flag::Denied)
            || flags.has_any(&NEVER_EXCUSED))
}

impl FromIterator<Flag> for Flags {
    fn from_iter<I: IntoIterator<Item = Flag>>(flags: I) -> Self {
        let mut set = Self::default();
        flags.into_iter().for_each(|flag| set.set(flag, true));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deviation(flags: &[Flag], assessment: Assessment) -> Deviation {
        Deviation {
            flags: flags.iter().copied().collect(),
            assessment,
            confidence: 60,
            ..Deviation::default()
        }
    }

    #[test]
    fn novelty_is_excused_and_what_the_baseline_is_stays_true() {
        let new = deviation(&[Flag::Unknown, Flag::Immature, Flag::NewAction], Assessment::WorkflowChange);
        let read = new.excused(ActionClass::Egress).unwrap();
        assert_eq!((read.assessment, read.confidence), (Assessment::None, 0));
        assert_eq!(read.flags.iter().collect::<Vec<_>>(), [Flag::Unknown, Flag::Immature]);
        assert!(!is_flagged(new.flags, new.assessment, true));
        assert!(is_flagged(new.flags, new.assessment, false));
    }

    #[test]
    fn scope_window_and_network_are_never_excused() {
        use Assessment::{Abuse, WorkflowChange};
        for (flag, class) in [
            (Flag::OutOfWindow, ActionClass::Read),
            (Flag::OutOfScope, ActionClass::Write),
            (Flag::SecondNetwork, ActionClass::Fetch),
        ] {
            let beyond = deviation(&[Flag::Immature, flag], WorkflowChange);
            assert_eq!(beyond.excused(class), None, "{flag:?}");
            assert!(is_flagged(beyond.flags, beyond.assessment, true), "{flag:?}");
        }
        // Reading at home outside of the scope is no deviation of anybody.
        let read = deviation(&[Flag::Immature, Flag::OutOfScope], Assessment::None);
        assert!(read.excused(ActionClass::Read).is_some_and(|read| read.flags.has(Flag::OutOfScope)));
        let stranger = deviation(&[Flag::Immature, Flag::UnexpectedReference], Abuse);
        assert!(is_flagged(stranger.flags, stranger.assessment, true));
        let mature = deviation(&[Flag::NewTarget], WorkflowChange);
        assert!(is_flagged(mature.flags, mature.assessment, true));
    }
}
