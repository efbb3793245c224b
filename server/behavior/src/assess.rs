//! What evidence amounts to, how sure that is, and what to answer.
//!
//! The order is that of certainty: what the task's window and scope rule out, what policy denies, what a mature
//! baseline does not know, what an immature one cannot vouch for. A new transition alone is evidence and no more: one in seven
//! benign runs of an agent has one.

use super::attempt::Observed;
use super::deviation::{Assessment, Deviation, Flag, Flags, Response};
use super::rules::Rules;

/// Judges the flags of a deviation. `has_acted`: something that the session attempted was allowed.
pub(super) fn assess(
    rules: &Rules,
    observed: &Observed<'_>,
    mature: bool,
    has_acted: bool,
    deviation: &mut Deviation,
) {
    let flags = deviation.flags;
    let (assessment, response) = if observed.is_denied {
        (denied(observed, flags, mature, has_acted), Response::Deny)
    } else {
        judge(rules, observed, mature, flags)
    };
    deviation.assessment = assessment;
    deviation.confidence = confidence(assessment, flags);
    deviation.response = response;
}

fn judge(rules: &Rules, observed: &Observed<'_>, mature: bool, flags: Flags) -> (Assessment, Response) {
    use Assessment::{Abuse, Misconfiguration, None, WorkflowChange};
    let class = observed.class;
    let is_stranger = is_stranger(observed, flags);
    if flags.has(Flag::OutOfWindow) {
        return (if is_stranger { Abuse } else { WorkflowChange }, rules.response.outside);
    }
    if flags.has(Flag::OutOfScope) && class.has_effect() {
        return (if mature || is_stranger { Abuse } else { WorkflowChange }, rules.response.outside);
    }
    let is_new = flags.has(Flag::NewAction) && (class.counts() || rules.count_reads);
    let is_hijacked = class.counts() && flags.has_any(&[Flag::SecondNetwork, Flag::Burst]);
    let assessment = if observed.names_task && mature {
        // An action that was declared for the task, but that no run needed so far, is the mildest of surprises.
        let is_declared = observed.scope == super::Scope::Inside;
        match (is_stranger, is_new) {
            (true, _) => Abuse,
            (false, true) if is_declared => WorkflowChange,
            (false, true) => Abuse,
            (false, false) => None,
        }
    } else if is_stranger && class.has_effect() && flags.has(Flag::UnexpectedReference) {
        Abuse
    } else if is_stranger
        || (is_new && (!observed.names_task || rules.count_reads || is_unheard_of(observed, flags)))
    {
        if is_hijacked && is_new { Abuse } else { WorkflowChange }
    } else {
        None
    };
    match assessment {
        None if class.counts() && flags.has(Flag::SecondNetwork) => {
            (WorkflowChange, rules.response.workflow_change)
        }
        None if flags.has(Flag::MissingTarget) => (Misconfiguration, rules.response.misconfiguration),
        Abuse | WorkflowChange if !mature => {
            (assessment, rules.response.to(assessment).min(rules.response.immature))
        }
        None | Misconfiguration | WorkflowChange | Abuse => (assessment, rules.response.to(assessment)),
    }
}

/// In a task without mature baseline: an action that was not declared for it and that the identity never did anywhere.
fn is_unheard_of(observed: &Observed<'_>, flags: Flags) -> bool {
    observed.scope != super::Scope::Inside && flags.has(Flag::NewActionForIdentity)
}

/// Whether it hands something to, or takes it from, a party that nothing explains.
fn is_stranger(observed: &Observed<'_>, flags: Flags) -> bool {
    flags.has(Flag::UnexpectedReference) || (observed.class.counts() && flags.has(Flag::UnexpectedTarget))
}

/// Policy's denial tells the two apart: who is set up wrongly fails at what it is approved for; who uses a stolen
/// credential tries, as soon as it has it, what its owner never did. A fresh session that reads around, and is let in
/// elsewhere, is a person who opens a page.
fn denied(observed: &Observed<'_>, flags: Flags, mature: bool, has_acted: bool) -> Assessment {
    let is_fresh = flags.has_any(&[Flag::FreshToken, Flag::SecondNetwork]);
    let is_bold = observed.class.counts() || !has_acted;
    let is_lateral = flags.has(Flag::NeverAllowed) && is_fresh && is_bold;
    let is_stranger = observed.names_task && mature && is_stranger(observed, flags);
    if is_lateral || is_stranger || flags.has(Flag::OutOfWindow) && self::is_stranger(observed, flags) {
        Assessment::Abuse
    } else if flags.has_any(&[Flag::NeverAllowed, Flag::OutOfWindow]) {
        Assessment::WorkflowChange
    } else {
        Assessment::Misconfiguration
    }
}

/// Starts from how the assessment fared on measured data, and moves with what speaks for it.
fn confidence(assessment: Assessment, flags: Flags) -> u8 {
    let (start, weights): (i32, &[(Flag, i32)]) = match assessment {
        Assessment::None => return 0,
        Assessment::Misconfiguration => (60, &[(Flag::AllowedElsewhere, 30), (Flag::RepeatedDenial, 5)]),
        Assessment::WorkflowChange => (
            60,
            &[
                (Flag::Immature, -20),
                (Flag::NewActionForIdentity, 15),
                (Flag::OutOfScope, 15),
                (Flag::OutOfWindow, 25),
            ],
        ),
        Assessment::Abuse => (
            70,
            &[
                (Flag::NewAction, 10),
                (Flag::OutOfScope, 10),
                (Flag::OutOfWindow, 10),
                (Flag::UnexpectedReference, 10),
                (Flag::NewReferenceForIdentity, 5),
                (Flag::NewTargetForIdentity, 5),
                (Flag::NeverAllowed, 15),
                (Flag::FreshToken, 5),
                (Flag::SecondNetwork, 5),
                (Flag::Burst, 5),
                (Flag::Immature, -20),
            ],
        ),
    };
    let moved = weights.iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, weight)| weight).sum::<i32>();
    u8::try_from((start + moved).clamp(5, 99)).unwrap_or(0)
}
