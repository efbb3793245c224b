//! The fixed list of (decision, reason) pairs that decisions are counted under.

use cardea_core::reason::ReasonCode;
use cardea_core::verdict::{Decision, Verdict};

/// Allow, step-up, then a deny for each reason code, in the order of [`ReasonCode::ALL`].
pub(super) static NAMES: [(&str, &str); 2 + ReasonCode::ALL.len()] = {
    let mut names = [("allow", "permitted"); 2 + ReasonCode::ALL.len()];
    names[1] = ("step_up", "step_up_required");
    let mut at = 0;
    while at < ReasonCode::ALL.len() {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            names[2 + at] = ("deny", ReasonCode::ALL[at].name());
        }
        at += 1;
    }
    names
};

/// The place of a verdict in [`NAMES`].
pub(super) fn of(verdict: &Verdict) -> usize {
    match verdict.decision() {
        Decision::Allow => 0,
        Decision::StepUp => 1,
        Decision::Deny => {
            2 + verdict.reasons().first().map_or(ReasonCode::NoPermit, |reason| reason.code) as usize
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_deny_is_counted_under_its_own_reason() {
        for code in ReasonCode::ALL {
            assert_eq!(NAMES[of(&Verdict::deny(code))], ("deny", code.name()));
        }
    }
}
