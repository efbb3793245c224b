//! When a hold's answer may change though nobody tells a new fact: ends and edges are known, the rest is looked at again
//! and again.

use cardea_core::decide::Question;
use cardea_core::facts::{Facts, SessionFacts};
use cardea_core::time::Now;
use cardea_policy_store::fragment::{Fact, Group, Needs};

/// See [`next_change`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Boundary {
    /// The first instant at which the answer can be another, Unix milliseconds; `None`: it stays until a fact is told.
    pub(crate) at_ms: Option<i64>,
    /// It can change at any moment before that.
    pub(crate) polled: bool,
}

/// When the answer to the same question and facts can change as time passes.
pub(crate) fn next_change(question: &Question<'_>, facts: &Facts, now: Now) -> Boundary {
    let (attempt, settings, needs) = (question.attempt(), question.snapshot().settings(), question.needs());
    if facts.disqualify(attempt, settings, now).is_some() {
        return Boundary::default();
    }
    let after = |from_ms: i64, age_s: u64| {
        from_ms
            .saturating_add(i64::try_from(age_s).unwrap_or(i64::MAX).saturating_add(1).saturating_mul(1000))
    };
    let mut edges = Vec::new();
    if let SessionFacts::Known(session, behavior) = &facts.session {
        edges.push(session.expires_ms);
        if settings.sessions.idle_max_s > 0 {
            edges.push(after(behavior.last_seen_ms, settings.sessions.idle_max_s.saturating_sub(1)));
        }
        edges.extend(settings.facts.session_max_age_s.map(|max| after(session.refreshed_ms, max)));
        if let Some(task) = session.task.as_deref().filter(|_| needs.reads_any(Group::Task)) {
            edges.extend(task.not_before_ms.into_iter().chain(task.not_after_ms));
        }
    }
    if let Some(token) = attempt.token.as_deref() {
        edges.extend(token.expires_ms);
        let max = settings.facts.token_max_age_s.zip(token.issued_ms);
        edges.extend(max.map(|(max, issued)| after(issued, max)));
    }
    let at_ms = edges.into_iter().filter(|at| *at > now.wall_ms).min();
    // Without a signal there is no risk that could decay.
    let has_risk = needs.reads_any(Group::Risk) && facts.hops.iter().any(|hop| hop.risk.is_some());
    Boundary { at_ms, polled: has_risk || reads_what_ages(needs) }
}

fn reads_what_ages(needs: Needs) -> bool {
    let ages = [
        Fact::SessionAge,
        Fact::SessionIdle,
        Fact::SessionAuthAge,
        Fact::TaskRemaining,
        Fact::TokenAge,
        Fact::TokenExpiresIn,
    ];
    let groups = [Group::Behavior, Group::Now];
    groups.into_iter().any(|group| needs.reads_any(group)) || ages.into_iter().any(|fact| needs.reads(fact))
}
