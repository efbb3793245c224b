//! What this node knows at this instant that bears on an attempt: plain data, read from memory by the shell.
//!
//! Values are complete: an unknown thing has the conservative value that the schema fragment states.

use std::collections::BTreeMap;
use std::sync::Arc;

use cardea_behavior::{Assessment, Flag, SessionBehavior};
use cardea_policy_store::fragment::{Fact, Group};
use cardea_policy_store::settings::{RiskSettings, Settings};
use smallvec::SmallVec;
use smol_str::{SmolStr, ToSmolStr};

use crate::attempt::Attempt;
use crate::comparison::Comparison;
use crate::counters::CounterFact;
use crate::grant::Grants;
use crate::reason::ReasonCode;
use crate::risk::{Risk, RiskKind};
use crate::session::{Session, Status};
use crate::task::Task;
use crate::time::{Now, UNKNOWN_AGE_S};
use crate::verdict::FactValue;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The attempt's session.
    pub session: SessionFacts,
    /// One entry for each of [`Attempt::hops`], in that order; missing entries know nothing.
    pub hops: SmallVec<[HopFacts; 2]>,
    /// When something was last heard of each source of signals, Unix milliseconds; filled only if somebody reads it.
    pub heard: Vec<(SmolStr, i64)>,
    /// The task that the attempt belongs to.
    pub task: TaskFacts,
    /// The grants for exactly this attempt, if somebody reads them.
    pub grants: Grants,
    /// What the session did, as far as its attempts were compared with what was approved; filled only if somebody reads it.
    pub monitored: Option<SessionBehavior>,
    /// How unusual the rate of the principal's attempts at the resource is; 0: as ever, or nobody looks for it.
    pub burst_score: f32,
    /// The counters that somebody reads or that the attempt is counted by; of others nothing is known.
    pub counters: Vec<CounterFact>,
    /// Version of the state that all this was read from, at least.
    pub state_version: u64,
}

/// What is known of the attempt's session.
#[derive(Clone, Debug, Default)]
pub enum SessionFacts {
    /// The attempt names none, or one that this node does not know.
    #[default]
    Unknown,
    /// This node knows it.
    Known(Arc<Session>, Behavior),
    /// It was ended or revoked.
    Revoked,
    /// It is not known, and the table that would remember its revocation is full.
    Untellable,
    /// It is not in memory, and the disk cannot be read.
    Unreadable,
    /// Nothing is looked up: these values are told, as a record of an earlier decision holds them.
    Told(Arc<Told>),
}

impl SessionFacts {
    /// The session, if it is known.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        match self {
            Self::Known(session, _) => Some(session),
            Self::Unknown | Self::Revoked | Self::Untellable | Self::Unreadable | Self::Told(_) => None,
        }
    }
}

/// What is known of the attempt's task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TaskFacts {
    /// The one that its session was opened with, if any.
    #[default]
    OfSession,
    /// An approved one as it stands, and when something about it was last decided, Unix milliseconds.
    Approved(Arc<Task>, i64),
    /// One is named that this node does not know, that is somebody else's, or that the session was not opened for.
    Unknown,
}

/// Values of facts that are told; one that is not told has the value of the unknown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    values: BTreeMap<(Fact, usize), FactValue>,
}

impl Told {
    /// Tells the value of a fact for one hop, by its place in [`Attempt::hops`].
    pub fn tell(&mut self, fact: Fact, hop: usize, value: FactValue) {
        self.values.insert((fact, hop), value);
    }

    /// The value that was told.
    #[must_use]
    pub fn value(&self, fact: Fact, hop: usize) -> Option<&FactValue> {
        self.values.get(&(fact, hop))
    }
}

/// What a session did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behavior {
    /// Id of the action that was last allowed; empty before the first. What was not allowed did not happen.
    pub previous_action: SmolStr,
    /// Attempts before this one.
    pub attempts: u64,
    /// Those of them that were denied.
    pub denials: u64,
    /// The attempt before, Unix milliseconds; the opening before the first.
    pub last_seen_ms: i64,
}

/// What is known of one hop.
#[derive(Clone, Debug, Default)]
pub struct HopFacts {
    /// Whether the principal is disabled.
    pub disabled: bool,
    /// Its risk; `None` if no signal was ever seen, or nobody reads it.
    pub risk: Option<Arc<Risk>>,
}

/// For whom, by which settings and when facts are read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'r> {
    /// The attempt.
    pub attempt: &'r Attempt,
    /// The bundle's settings.
    pub settings: &'r Settings,
    /// How the attempt compares with what was approved, if somebody reads that.
    pub comparison: Option<&'r Comparison>,
    /// Place in [`Attempt::hops`].
    pub hop: usize,
    /// The time of the decision.
    pub now: Now,
}

impl Facts {
    /// Why no policy needs to be asked, if there is a reason.
    #[must_use]
    pub fn disqualify(&self, attempt: &Attempt, settings: &Settings, now: Now) -> Option<ReasonCode> {
        if attempt.at_least_version > self.state_version {
            return Some(ReasonCode::StateTooOld);
        }
        if repeats(attempt) {
            return Some(ReasonCode::DelegationMalformed);
        }
        if self.hops.iter().any(|hop| hop.disabled) {
            return Some(ReasonCode::PrincipalDisabled);
        }
        self.session_disqualifies(attempt, settings, now)
            .or_else(|| token_disqualifies(attempt, now))
            .or_else(|| self.risk_disqualifies(attempt, settings, now))
    }

    /// Somebody of whose risk nothing was ever heard is as stale as can be: whoever asks for news asks for some.
    fn risk_disqualifies(&self, attempt: &Attempt, settings: &Settings, now: Now) -> Option<ReasonCode> {
        let max_s = attempt.action.max_ages().risk_s?;
        let reading = |hop| Reading { attempt, settings, comparison: None, hop, now };
        let is_stale = |hop| match self.value(Fact::RiskAge, &reading(hop)) {
            FactValue::Long(age_s) => exceeds(age_s, max_s),
            FactValue::Bool(_) | FactValue::Text(_) | FactValue::Texts(_) => true,
        };
        (0..attempt.hops().count()).any(is_stale).then_some(ReasonCode::FactStale)
    }

    fn session_disqualifies(&self, attempt: &Attempt, settings: &Settings, now: Now) -> Option<ReasonCode> {
        let (session, behavior) = match &self.session {
            SessionFacts::Unknown | SessionFacts::Told(_) => return None,
            SessionFacts::Revoked => return Some(ReasonCode::SessionRevoked),
            SessionFacts::Untellable => return Some(ReasonCode::StateFull),
            SessionFacts::Unreadable => return Some(ReasonCode::StateUnreadable),
            SessionFacts::Known(session, behavior) => (session, behavior),
        };
        match session.status(behavior.last_seen_ms, settings.sessions.idle_max_s, now) {
            Status::Revoked => return Some(ReasonCode::SessionRevoked),
            Status::Expired => return Some(ReasonCode::SessionExpired),
            Status::Live => {}
        }
        if !attempt.hops().any(|hop| *hop == session.principal) {
            return Some(ReasonCode::SessionMismatch);
        }
        let age_s = now.since_s(session.refreshed_ms);
        let stale = attempt.action.max_ages().session_s.is_some_and(|max| exceeds(age_s, max));
        stale.then_some(ReasonCode::FactStale)
    }

    /// The value of one fact. Every fact has its own arm, so that a new one cannot fall into another's place.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one arm per fact")]
    pub fn value(&self, fact: Fact, reading: &Reading<'_>) -> FactValue {
        use FactValue::{Bool, Long, Text};
        let Reading { attempt, settings, comparison, hop, now } = *reading;
        if let SessionFacts::Told(told) = &self.session
            && let Some(value) = told.value(fact, hop)
        {
            return value.clone();
        }
        let known = self.known();
        let session = known.map(|(session, _)| session);
        let behavior = known.map(|(_, behavior)| behavior);
        let task = self.task(session);
        let risk = self.hops.get(hop).and_then(|hop| hop.risk.as_deref());
        let token = attempt.token.as_deref();
        let since = |at: Option<i64>| Long(at.map_or(UNKNOWN_AGE_S, |at| now.since_s(at)));
        // What was not compared looks like what nobody approved.
        let has = |flag| Bool(comparison.is_none_or(|comparison| comparison.has(flag)));
        match fact {
            Fact::SessionKnown => Bool(session.is_some()),
            Fact::SessionAge => since(session.map(|session| session.opened_ms)),
            Fact::SessionIdle => since(behavior.map(|behavior| behavior.last_seen_ms)),
            Fact::SessionAuthAge => since(session.and_then(|session| session.authenticated_ms)),
            Fact::SessionAcr => text(session.map(|session| &session.acr)),
            Fact::SessionAal => Long(session.map_or(0, |session| i64::from(session.aal))),
            Fact::SessionAmr => texts(session.map(|session| &session.amr)),
            Fact::SessionCredentialChanged => Bool(session.is_none_or(|session| session.credential_changed)),
            Fact::SessionDeviceCompliant => {
                Bool(session.and_then(|session| session.device_compliant).unwrap_or(false))
            }
            Fact::SessionNetworks => texts(session.map(|session| &session.networks)),
            Fact::SessionLabels => texts(session.map(|session| session.labels(now))),
            Fact::SessionGrants => {
                let counts =
                    self.grants.iter().filter(|grant| grant.counts(attempt.session_id.as_ref(), now));
                texts(Some(counts.map(|grant| &grant.requirement)))
            }
            Fact::RiskScore => Long(risk.map_or(0, |risk| i64::from(risk.score(now)))),
            Fact::RiskLevel => Text(SmolStr::new_static(level(risk, &settings.risk, now))),
            Fact::RiskReasons => texts(risk.map(|risk| risk.reasons(now).map(RiskKind::name))),
            Fact::RiskAge => since(risk.and_then(Risk::newest_ms)),
            Fact::BehaviorKnown => Bool(behavior.is_some()),
            Fact::BehaviorPreviousAction => text(behavior.map(|behavior| &behavior.previous_action)),
            Fact::BehaviorAttempts => count(behavior.map(|behavior| behavior.attempts)),
            Fact::BehaviorDenials => count(behavior.map(|behavior| behavior.denials)),
            Fact::BehaviorBaseline => Bool(comparison.is_some_and(|of| !of.has(Flag::Unknown))),
            Fact::BehaviorMature => Bool(comparison.is_some_and(|of| !of.has(Flag::Immature))),
            Fact::BehaviorNewAction => has(Flag::NewAction),
            Fact::BehaviorNewTarget => has(Flag::NewTarget),
            Fact::BehaviorNewReference => has(Flag::NewReference),
            Fact::BehaviorNewTransition => has(Flag::NewTransition),
            Fact::BehaviorUnexpected => Bool(comparison.is_none_or(|of| {
                of.deviation.flags.has_any(&[Flag::UnexpectedTarget, Flag::UnexpectedReference])
            })),
            Fact::BehaviorSecondNetwork => has(Flag::SecondNetwork),
            Fact::BehaviorOutOfScope => Bool(
                comparison
                    .is_none_or(|of| of.deviation.flags.has_any(&[Flag::OutOfScope, Flag::OutOfWindow])),
            ),
            Fact::BehaviorFreshToken => has(Flag::FreshToken),
            Fact::BehaviorBurst => has(Flag::Burst),
            Fact::BehaviorAssessment => {
                let assessment = comparison.map_or(Assessment::Abuse, |of| of.deviation.assessment);
                Text(SmolStr::new_static(assessment.name()))
            }
            Fact::BehaviorConfidence => Long(comparison.map_or(0, |of| of.deviation.confidence.into())),
            Fact::BehaviorDeviations => Long(comparison.map_or(0, |of| of.deviations.into())),
            Fact::BehaviorRisk => Long(comparison.map_or(0, |of| of.risk.into())),
            Fact::TaskKnown => Bool(task.is_some()),
            Fact::TaskId => text(task.map(|task| &task.id)),
            Fact::TaskPurpose => text(task.map(|task| &task.purpose)),
            Fact::TaskActive => Bool(task.is_some_and(|task| task.is_active(now))),
            Fact::TaskInScope => {
                Bool(task.is_some_and(|task| task.covers(&attempt.action.uid, &attempt.resource)))
            }
            Fact::TaskRemaining => Long(task.map_or(0, |task| task.remaining_s(now))),
            Fact::TokenKnown => Bool(token.is_some()),
            Fact::TokenAge => Long(token.and_then(|token| token.issued_ms).map_or(0, |at| now.since_s(at))),
            Fact::TokenExpiresIn => {
                Long(token.and_then(|token| token.expires_ms).map_or(0, |at| now.until_s(at)))
            }
            Fact::TokenIssuer => text(token.map(|token| &token.issuer)),
            Fact::TokenScopes => texts(token.map(|token| &token.scopes)),
            Fact::TokenBound => Bool(token.is_some_and(|token| token.bound)),
            Fact::ActorDepth => count(u64::try_from(hop).ok()),
            Fact::ActorImmediate => Text(named(attempt, hop.checked_sub(1))),
            Fact::ActorRoot => Text(named(attempt, (hop > 0).then_some(0))),
            Fact::SignalsSilent => {
                let expected = settings.signals.source.iter();
                let silent =
                    expected.filter(|(source, of)| is_silent(self.heard_ms(source), of.max_silence_s, now));
                texts(Some(silent.map(|(source, _)| source)))
            }
        }
    }

    /// When something was last heard of a source of signals, Unix milliseconds.
    pub(crate) fn heard_ms(&self, source: &str) -> Option<i64> {
        self.heard.iter().find(|(name, _)| name == source).map(|(_, at)| *at)
    }

    /// The task that the attempt belongs to, as it stands.
    #[must_use]
    pub fn task<'f>(&'f self, session: Option<&'f Session>) -> Option<&'f Task> {
        match &self.task {
            TaskFacts::OfSession => session.and_then(|session| session.task.as_deref()),
            TaskFacts::Approved(task, _) => Some(task),
            TaskFacts::Unknown => None,
        }
    }

    fn known(&self) -> Option<(&Session, &Behavior)> {
        match &self.session {
            SessionFacts::Known(session, behavior) => Some((session, behavior)),
            SessionFacts::Unknown
            | SessionFacts::Revoked
            | SessionFacts::Untellable
            | SessionFacts::Unreadable
            | SessionFacts::Told(_) => None,
        }
    }

    /// Where a fact's value comes from, in words, where there is more to say than the value.
    #[must_use]
    pub fn why(&self, fact: Fact, reading: &Reading<'_>) -> String {
        let risk = self.hops.get(reading.hop).and_then(|hop| hop.risk.as_deref());
        match (fact.group(), risk) {
            (Group::Risk, Some(risk)) => risk.explain(reading.now),
            _ => String::new(),
        }
    }

    /// How old a group of facts is, in milliseconds since the newest input that it rests on; over several hops or sources
    /// that of the oldest. `None`: nothing is known, or it comes with the attempt itself.
    #[must_use]
    pub fn age_ms(&self, group: Group, attempt: &Attempt, settings: &Settings, now: Now) -> Option<u64> {
        let newest = match group {
            Group::Task if !matches!(self.task, TaskFacts::OfSession) => match self.task {
                TaskFacts::Approved(_, newest_ms) => Some(newest_ms),
                TaskFacts::OfSession | TaskFacts::Unknown => None,
            },
            Group::Session | Group::Task => self.known().map(|(session, _)| session.refreshed_ms),
            Group::Behavior => self.known().map(|(_, behavior)| behavior.last_seen_ms),
            Group::Risk => self.hops.iter().filter_map(|hop| hop.risk.as_deref()?.newest_ms()).min(),
            Group::Token => attempt.token.as_ref().and_then(|token| token.issued_ms),
            Group::Signals => settings.signals.source.keys().filter_map(|source| self.heard_ms(source)).min(),
            Group::Actor | Group::Request | Group::Now | Group::Counters => None,
        };
        newest.map(|at| u64::try_from(now.wall_ms.saturating_sub(at)).unwrap_or(0))
    }
}

/// Whether a source of signals is silent of which something was last heard then, Unix milliseconds.
#[must_use]
pub fn is_silent(heard_ms: Option<i64>, max_silence_s: u64, now: Now) -> bool {
    heard_ms.is_none_or(|heard| exceeds(now.since_s(heard), max_silence_s))
}

fn exceeds(age_s: i64, max_s: u64) -> bool {
    u64::try_from(age_s).is_ok_and(|age| age > max_s)
}

fn repeats(attempt: &Attempt) -> bool {
    attempt.hops().enumerate().any(|(at, hop)| attempt.hops().take(at).any(|before| before == hop))
}

fn token_disqualifies(attempt: &Attempt, now: Now) -> Option<ReasonCode> {
    let token = attempt.token.as_ref()?;
    if token.expires_ms.is_some_and(|end| end <= now.wall_ms) {
        return Some(ReasonCode::TokenExpired);
    }
    let max = attempt.action.max_ages().token_s?;
    let stale = token.issued_ms.is_none_or(|issued| exceeds(now.since_s(issued), max));
    stale.then_some(ReasonCode::FactStale)
}

fn text(text: Option<&SmolStr>) -> FactValue {
    FactValue::Text(text.cloned().unwrap_or_default())
}

fn texts(texts: Option<impl IntoIterator<Item = impl ToSmolStr>>) -> FactValue {
    FactValue::Texts(texts.into_iter().flatten().map(|text| text.to_smolstr()).collect())
}

fn count(count: Option<u64>) -> FactValue {
    FactValue::Long(count.map_or(0, |count| i64::try_from(count).unwrap_or(i64::MAX)))
}

/// What `context.risk.level` says.
#[must_use]
pub fn level(risk: Option<&Risk>, limits: &RiskSettings, now: Now) -> &'static str {
    match risk.map_or(0, |risk| risk.score(now)) {
        score if score >= limits.high => "high",
        score if score >= limits.medium => "medium",
        _ => "low",
    }
}

/// A hop as `Type::"id"`; empty for none.
fn named(attempt: &Attempt, hop: Option<usize>) -> SmolStr {
    let uid = hop.and_then(|hop| attempt.hops().nth(hop));
    uid.map(|uid| SmolStr::from(uid.to_string())).unwrap_or_default()
}
