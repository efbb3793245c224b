//! When a verdict can change though nobody tells a new fact, and how long an allow may therefore be reused.
//!
//! Time passes by itself: ages rise, remaining times and risk fall, windows open and close, sessions, tokens and the bundle
//! end. From what the candidates read of time ([`cardea_policy_store::times`]) follows the first instant at which one of them
//! can come out differently. INVARIANT (no change unseen): with the same facts, [`crate::decide::decide`] gives the same
//! answer at every instant before [`Boundary::at_ms`], unless it is `polled`.
//! Never says how the verdict will change: at a boundary, ask again.

use cardea_policy_store::engine::ContextLayout;
use cardea_policy_store::fragment::{Fact, Group, Needs};
use cardea_policy_store::settings::Settings;
use cardea_policy_store::times::{DAY_MS, Threshold, Times};

use crate::attempt::Attempt;
use crate::decide::Question;
use crate::facts::{Facts, SessionFacts};
use crate::risk::Risk;
use crate::session::Session;
use crate::time::{Now, UNKNOWN_AGE_S};
use crate::verdict::Lease;

/// How far ahead the boundary of a verdict lies that can change at any moment, in milliseconds.
pub const POLL_MS: i64 = 1000;

/// See [`next_change`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Boundary {
    /// The first instant at which the verdict can be another, Unix milliseconds; `None`: it stays until a fact is told.
    pub at_ms: Option<i64>,
    /// A candidate does something with time that cannot be foreseen: the verdict can change before `at_ms` too, which lies
    /// at most [`POLL_MS`] ahead.
    pub polled: bool,
}

/// When the verdict of [`crate::decide::decide`] on the same question and facts can change as time passes.
#[must_use]
pub fn next_change(question: &Question<'_>, facts: &Facts, now: Now) -> Boundary {
    let snapshot = question.snapshot();
    let is_told = matches!(facts.session, SessionFacts::Told(_));
    // What disqualifies stays until somebody tells otherwise: an end, a revocation, a fact that is too old. That another
    // of them is named first later makes it no other answer.
    if is_told
        || snapshot.layout() == ContextLayout::Given
        || facts.disqualify(question.attempt(), snapshot.settings(), now).is_some()
    {
        return Boundary::default();
    }
    let mut ahead = Ahead::new(question, facts, now);
    ahead.look(question);
    let Ahead { at_ms, polled, .. } = ahead;
    let poll_ms = polled.then(|| now.wall_ms.saturating_add(POLL_MS));
    Boundary { at_ms: at_ms.into_iter().chain(poll_ms).min(), polled }
}

/// How long an allow that was given now may be reused, and for which attempts.
pub(crate) fn lease(question: &Question<'_>, facts: &Facts, now: Now) -> Lease {
    let (snapshot, attempt, needs) = (question.snapshot(), question.attempt(), question.needs());
    let settings = &snapshot.settings().lease;
    let is_given = snapshot.layout() == ContextLayout::Given;
    let in_session = attempt.session_id.is_some();
    let reads_any = |groups: &[Group]| groups.iter().any(|group| needs.reads_any(*group));
    let lease = Lease {
        lease_ms: 0,
        held_lease_ms: 0,
        on_session: in_session || reads_any(&[Group::Session, Group::Behavior, Group::Task]),
        // A grant is for these arguments alone.
        on_context: is_given || reads_any(&[Group::Request]) || needs.reads(Fact::SessionGrants),
        on_token: attempt.token.is_some() || reads_any(&[Group::Token]),
        stream_loss_max_ms: settings.stream_loss_max_ms,
    };
    // What is answered elsewhere is not seen here, and another policy may ask what the session did.
    let must_be_seen = reads_any(&[Group::Behavior])
        || (in_session && snapshot.reads_behavior())
        || facts.grants.iter().any(|grant| grant.once)
        || !question.counters().is_empty();
    if settings.max_ms == 0 || must_be_seen || matches!(facts.session, SessionFacts::Told(_)) {
        return lease;
    }
    let mut held_ms = settings.max_ms;
    if !is_given {
        let mut ahead = Ahead::new(question, facts, now);
        ahead.until_ms = now.wall_ms.saturating_add(settings.max_ms.into());
        ahead.is_lease = true;
        ahead.look(question);
        let until_ms = ahead.at_ms.unwrap_or(ahead.until_ms);
        let left_ms = if ahead.polled { 0 } else { until_ms.saturating_sub(now.wall_ms) };
        held_ms = held_ms.min(u32::try_from(left_ms).unwrap_or(0));
    }
    let can_be_told = in_session || reads_any(&[Group::Session, Group::Task, Group::Risk, Group::Signals]);
    let unheld_max_ms = if can_be_told { settings.unheld_max_ms } else { u32::MAX };
    Lease { lease_ms: held_ms.min(unheld_max_ms), held_lease_ms: held_ms, ..lease }
}

/// Looks for the first instant after now.
struct Ahead<'f> {
    facts: &'f Facts,
    attempt: &'f Attempt,
    settings: &'f Settings,
    session: Option<(&'f Session, i64)>,
    now: Now,
    /// What comes later does not matter.
    until_ms: i64,
    /// Whether the attempt that is answered now counts as one, and those that reuse its answer do not.
    is_lease: bool,
    at_ms: Option<i64>,
    polled: bool,
}

impl<'f> Ahead<'f> {
    fn new(question: &Question<'f>, facts: &'f Facts, now: Now) -> Self {
        let session = match &facts.session {
            SessionFacts::Known(session, behavior) => Some((&**session, behavior.last_seen_ms)),
            SessionFacts::Unknown
            | SessionFacts::Revoked
            | SessionFacts::Untellable
            | SessionFacts::Unreadable
            | SessionFacts::Told(_) => None,
        };
        Self {
            facts,
            attempt: question.attempt(),
            settings: question.snapshot().settings(),
            session,
            now,
            until_ms: i64::MAX,
            is_lease: false,
            at_ms: None,
            polled: false,
        }
    }

    fn look(&mut self, question: &Question<'_>) {
        // Tokens age, windows close and risk fades without anybody telling.
        self.polled |= question.needs().compares();
        if question.needs().compares() {
            self.at(question.snapshot().approvals().observing().ends_ms(&self.attempt.principal));
        }
        // Others' attempts count, and windows pass.
        self.polled |= !question.needs().counters().is_empty();
        self.at(question.snapshot().expires_ms());
        self.disqualifications();
        for (hop, candidates) in question.candidates().iter().enumerate() {
            let risk = self.facts.hops.get(hop).and_then(|hop| hop.risk.as_deref());
            let mut ahead = OfHop { risk, score: None, falls_below: 0 };
            for times in
                candidates.iter().filter_map(|index| question.snapshot().policy(*index)?.condition.times())
            {
                self.times(times, &mut ahead);
            }
            if let Some(risk) =
                risk.filter(|risk| ahead.falls_below > 0 && self.has_fallen(risk, ahead.falls_below))
            {
                self.at(risk.falls_below(ahead.falls_below, self.now));
            }
        }
    }

    /// The instants at which the attempt would be disqualified, whatever policy says.
    fn disqualifications(&mut self) {
        let max = self.attempt.action.max_ages();
        if let Some((session, _)) = self.session {
            self.at(Some(session.expires_ms));
            for until_ms in session.labels.values().filter(|until_ms| **until_ms < i64::MAX) {
                self.at(Some(*until_ms));
            }
            self.idles(i64::try_from(self.settings.sessions.idle_max_s).unwrap_or(0));
            self.at(max.session_s.and_then(|max| exceeds_at(session.refreshed_ms, max)));
        }
        if let Some(token) = self.attempt.token.as_deref() {
            self.at(token.expires_ms);
            self.at(token.issued_ms.zip(max.token_s).and_then(|(issued, max)| exceeds_at(issued, max)));
        }
        if let Some(max) = max.risk_s {
            for risk in self.facts.hops.iter().filter_map(|hop| hop.risk.as_deref()) {
                self.at(risk.newest_ms().and_then(|newest| exceeds_at(newest, max)));
            }
        }
        for grant in &self.facts.grants {
            self.at(Some(grant.ends_ms));
        }
    }

    fn times(&mut self, times: &Times, of_hop: &mut OfHop<'_>) {
        for threshold in times.thresholds() {
            match *threshold {
                Threshold::Value { fact: Fact::RiskScore, from } => of_hop.reaches(from, self.now),
                Threshold::Value { fact, from } => self.crosses(fact, from, of_hop.risk),
                Threshold::Reasons(kinds) => {
                    self.at(of_hop.risk.and_then(|risk| risk.fades(kinds, self.now)));
                }
                Threshold::Window => {
                    let task = self.facts.task(self.session.map(|(session, _)| session));
                    let window = task.map(|task| (task.not_before_ms, task.not_after_ms));
                    // One that ends before it starts is never open.
                    let opens =
                        window.filter(|(from, end)| from.zip(*end).is_none_or(|(from, end)| from < end));
                    let (from, end) = opens.unwrap_or_default();
                    self.at(from);
                    self.at(end);
                }
                Threshold::Silence => {
                    for (source, expected) in &self.settings.signals.source {
                        let heard = self.facts.heard_ms(source);
                        self.at(heard.and_then(|heard| exceeds_at(heard, expected.max_silence_s)));
                    }
                }
                Threshold::Instant(at) => self.at(Some(at)),
                Threshold::TimeOfDay(of_day) => {
                    let now = self.now.wall_ms;
                    let ahead =
                        of_day.saturating_sub(now.rem_euclid(DAY_MS)).saturating_sub(1).rem_euclid(DAY_MS);
                    self.at(Some(now.saturating_add(ahead).saturating_add(1)));
                }
            }
        }
        self.polled |= self.moves(times.opaque(), of_hop);
    }

    /// Whether one of these facts will have another value sooner or later.
    fn moves(&self, opaque: Needs, of_hop: &mut OfHop<'_>) -> bool {
        opaque.reads_whole(Group::Now)
            || opaque.facts().any(|fact| {
                let falls = fact == Fact::RiskScore && of_hop.score(self.now) > 0;
                falls || self.counted(fact, of_hop.risk).is_some()
            })
    }

    /// A fact that counts seconds comes to be, or ceases to be, at least `from`.
    fn crosses(&mut self, fact: Fact, from: i64, risk: Option<&Risk>) {
        if !(1..=UNKNOWN_AGE_S).contains(&from) {
            return;
        }
        if fact == Fact::SessionIdle {
            return self.idles(from);
        }
        let from_ms = from.saturating_mul(1000);
        self.at(self.counted(fact, risk).map(|counted| match counted {
            Counted::Since(at) => at.saturating_add(from_ms),
            Counted::Until(end) => end.saturating_sub(from_ms).saturating_add(1),
        }));
    }

    /// What a fact counts the seconds from or to; `None`: it stays as it is.
    fn counted(&self, fact: Fact, risk: Option<&Risk>) -> Option<Counted> {
        let session = self.session.map(|(session, _)| session);
        let token = self.attempt.token.as_deref();
        match fact {
            Fact::SessionAge => session.map(|session| Counted::Since(session.opened_ms)),
            Fact::SessionIdle => self.session.map(|(_, seen)| Counted::Since(seen)),
            Fact::SessionAuthAge => session?.authenticated_ms.map(Counted::Since),
            Fact::RiskAge => risk?.newest_ms().map(Counted::Since),
            Fact::TaskRemaining => self.facts.task(session)?.not_after_ms.map(Counted::Until),
            Fact::TokenAge => token?.issued_ms.map(Counted::Since),
            Fact::TokenExpiresIn => token?.expires_ms.map(Counted::Until),
            Fact::RiskScore
            | Fact::SessionKnown
            | Fact::SessionAcr
            | Fact::SessionAal
            | Fact::SessionAmr
            | Fact::SessionCredentialChanged
            | Fact::SessionDeviceCompliant
            | Fact::SessionNetworks
            | Fact::SessionLabels
            | Fact::SessionGrants
            | Fact::RiskLevel
            | Fact::RiskReasons
            | Fact::BehaviorKnown
            | Fact::BehaviorPreviousAction
            | Fact::BehaviorAttempts
            | Fact::BehaviorDenials
            | Fact::BehaviorBaseline
            | Fact::BehaviorMature
            | Fact::BehaviorNewAction
            | Fact::BehaviorNewTarget
            | Fact::BehaviorNewReference
            | Fact::BehaviorNewTransition
            | Fact::BehaviorUnexpected
            | Fact::BehaviorSecondNetwork
            | Fact::BehaviorOutOfScope
            | Fact::BehaviorFreshToken
            | Fact::BehaviorBurst
            | Fact::BehaviorAssessment
            | Fact::BehaviorConfidence
            | Fact::BehaviorDeviations
            | Fact::BehaviorRisk
            | Fact::TaskKnown
            | Fact::TaskId
            | Fact::TaskPurpose
            | Fact::TaskActive
            | Fact::TaskInScope
            | Fact::TokenKnown
            | Fact::TokenIssuer
            | Fact::TokenScopes
            | Fact::TokenBound
            | Fact::ActorDepth
            | Fact::ActorImmediate
            | Fact::ActorRoot
            | Fact::SignalsSilent => None,
        }
    }

    /// The session will have been idle for so many seconds; 0: that does not matter.
    fn idles(&mut self, for_s: i64) {
        let Some((_, seen_ms)) = self.session.filter(|_| for_s > 0) else { return };
        let for_ms = for_s.saturating_mul(1000);
        if !self.is_lease {
            return self.at(Some(seen_ms.saturating_add(for_ms)));
        }
        // The attempt that is answered now ends the idling. What that changes is seen only by asking again.
        self.polled |= self.now.since_s(seen_ms) >= for_s;
        // Reuse is not seen here; whoever asks again after half the time keeps the session awake.
        self.at(Some(self.now.wall_ms.saturating_add(for_ms / 2)));
    }

    /// Whether the score gets below that before what comes does not matter any more.
    fn has_fallen(&self, risk: &Risk, below: u8) -> bool {
        let until_ms = self.at_ms.unwrap_or(self.until_ms);
        risk.score(Now { wall_ms: until_ms, ..self.now }) < below
    }

    fn at(&mut self, at_ms: Option<i64>) {
        let Some(at_ms) = at_ms.filter(|at| *at > self.now.wall_ms && *at < self.until_ms) else { return };
        self.at_ms = Some(self.at_ms.map_or(at_ms, |known| known.min(at_ms)));
    }
}

/// What the candidates of one hop read of its risk.
struct OfHop<'f> {
    risk: Option<&'f Risk>,
    score: Option<u8>,
    /// The highest threshold that the score will fall below; 0: none.
    falls_below: u8,
}

impl OfHop<'_> {
    fn score(&mut self, now: Now) -> u8 {
        *self.score.get_or_insert_with(|| self.risk.map_or(0, |risk| risk.score(now)))
    }

    fn reaches(&mut self, from: i64, now: Now) {
        if let Some(from) = u8::try_from(from).ok().filter(|from| *from > self.falls_below)
            && self.score(now) >= from
        {
            self.falls_below = from;
        }
    }
}

enum Counted {
    Since(i64),
    Until(i64),
}

/// The first instant at which more than `max_s` whole seconds have passed since; `None`: never.
fn exceeds_at(since_ms: i64, max_s: u64) -> Option<i64> {
    let max_s = i64::try_from(max_s).ok().filter(|max| *max < UNKNOWN_AGE_S)?;
    Some(since_ms.saturating_add(max_s.saturating_add(1).saturating_mul(1000)))
}

#[cfg(test)]
mod tests;
