//! Gathers the facts of one attempt: what the candidates read, and what disqualifies before any policy.
//!
//! Nothing is learned from an attempt that will be disqualified: no session is opened or refreshed for a stranger, a
//! disabled principal, or an expired token.

use std::sync::Arc;

use cardea_core::attempt::{Attempt, Token};
use cardea_core::decide::Question;
use cardea_core::delegation::Above;
use cardea_core::facts::{Behavior, Facts, HopFacts, SessionFacts, TaskFacts};
use cardea_core::grant::Grants;
use cardea_core::session::{Session, Status};
use cardea_core::subject::Subject;
use cardea_core::time::Now;
use cardea_policy_store::counters::Per;
use cardea_policy_store::fragment::{Fact, Group, Needs};
use cardea_policy_store::settings::Settings;
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::{SessionChange, State};

/// How far another clock may run ahead of ours, in milliseconds.
pub const SKEW_MAX_MS: i64 = 60_000;

/// A session that the attempt's token opened or brought up to date.
#[derive(Clone, Debug)]
pub struct Learned {
    /// The session as it is now.
    pub session: Arc<Session>,
    /// State version of the change.
    pub version: u64,
    /// `opened_from_token` or `refreshed_from_token`.
    pub change: &'static str,
}

type Subjects = SmallVec<[Option<Subject>; 2]>;

impl State {
    /// What this node knows about the question, and what it learned from the attempt's token. `also` are facts that
    /// somebody else than the question will read.
    #[must_use]
    pub fn gather(&self, question: &Question<'_>, also: Needs, now: Now) -> (Facts, Option<Learned>) {
        // Read first: what is read after it is at least this new.
        let state_version = self.version();
        let attempt = question.attempt();
        let reads_risk = question.needs().with(also).reads_any(Group::Risk);
        let subjects: Subjects = attempt.hops().map(|hop| self.subjects.get(hop)).collect();
        let hops = subjects
            .iter()
            .map(|subject| match subject {
                Some(subject) => HopFacts {
                    disabled: subject.is_disabled(),
                    risk: subject.risk.clone().filter(|_| reads_risk),
                },
                None => HopFacts::default(),
            })
            .collect();
        let (session, learned) = self.session_facts(attempt, &subjects, question.snapshot().settings(), now);
        let needs = question.needs().with(also);
        let task = if needs.reads_any(Group::Task) || needs.compares() || counts_tasks(question) {
            self.task_facts(attempt, session.session())
        } else {
            TaskFacts::OfSession
        };
        let grants =
            if needs.reads(Fact::SessionGrants) { self.grants_for(attempt) } else { Grants::default() };
        let heard = if needs.reads_any(Group::Signals) { self.heard.list() } else { Vec::new() };
        let monitored = if needs.compares() { self.monitored(attempt) } else { None };
        let counters = Vec::new();
        let burst_score = 0.0;
        (
            Facts { session, hops, heard, task, grants, monitored, burst_score, counters, state_version },
            learned,
        )
    }

    /// Counts an attempt that is made now, and says how unusual the rate is of which it is a part.
    pub(crate) fn burst_score(&self, question: &Question<'_>, facts: &Facts, now: Now) -> f32 {
        self.bursts.observe(question, facts, now)
    }

    fn session_facts(
        &self,
        attempt: &Attempt,
        subjects: &Subjects,
        settings: &Settings,
        now: Now,
    ) -> (SessionFacts, Option<Learned>) {
        let Some(id) = &attempt.session_id else { return (SessionFacts::Unknown, None) };
        // Asked first, for known sessions too: an opener may have passed an ender.
        if self.revoked.get(id.as_str()).is_some() {
            return (SessionFacts::Revoked, None);
        }
        match self.session(id) {
            Ok(Some((session, behavior))) => {
                self.known_session(attempt, subjects, session, behavior, settings, now)
            }
            Ok(None) => self.unknown_session(id, attempt, subjects, settings, now),
            Err(_unreadable) => (SessionFacts::Unreadable, None),
        }
    }

    fn known_session(
        &self,
        attempt: &Attempt,
        subjects: &Subjects,
        session: Arc<Session>,
        behavior: Behavior,
        settings: &Settings,
        now: Now,
    ) -> (SessionFacts, Option<Learned>) {
        let own = self.subjects.get(&session.principal);
        let Above::LiveUntil(ends_ms) = self.above(&session, now) else {
            return (SessionFacts::Revoked, None);
        };
        // Ending one hop's sessions ends what runs below it.
        let cutoff = subjects.iter().chain([&own]).flatten().filter_map(|subject| subject.cutoff_ms).max();
        let cutoff = cutoff.max(self.tenant_cutoff(&session));
        if cutoff.is_some_and(|cutoff| session.opened_ms <= cutoff) {
            return (SessionFacts::Revoked, None);
        }
        let is_live =
            session.status(behavior.last_seen_ms, settings.sessions.idle_max_s, now) == Status::Live;
        let is_owner = attempt.hops().any(|hop| *hop == session.principal);
        let learned = match usable_token(attempt, subjects, settings, now) {
            Some(token) if is_live && is_owner => self.refreshed(&session, token, now),
            _ => None,
        };
        let session = learned.as_ref().map_or(session, |learned| Arc::clone(&learned.session));
        (SessionFacts::Known(self.seen(session, own.as_ref(), ends_ms), behavior), learned)
    }

    /// A session as decisions see it: with what was heard of its principal's credential and of its device, with the end that
    /// those above it set, and with their labels.
    #[must_use]
    pub fn informed(&self, session: &Arc<Session>, now: Now) -> Arc<Session> {
        let own = self.subjects.get(&session.principal);
        let ends_ms = match self.above(session, now) {
            Above::LiveUntil(ends_ms) => ends_ms,
            Above::Expired | Above::Revoked => i64::MAX,
        };
        self.seen(Arc::clone(session), own.as_ref(), ends_ms)
    }

    fn seen(&self, session: Arc<Session>, own: Option<&Subject>, ends_ms: i64) -> Arc<Session> {
        self.with_labels_above(self.with_posture(with_credential(ending_by(session, ends_ms), own)))
    }

    /// What runs in somebody's name works with what he works with: labels of the sessions above count as its own.
    fn with_labels_above(&self, session: Arc<Session>) -> Arc<Session> {
        if session.parent.is_none() {
            return session;
        }
        let mut labelled = None;
        for above in self.ancestors(&session) {
            for (label, until_ms) in &above.labels {
                labelled.get_or_insert_with(|| Session::clone(&session)).label(label.clone(), *until_ms);
            }
        }
        labelled.map_or(session, Arc::new)
    }

    /// What was heard of the session's device counts, if it is newer than what the session says itself.
    fn with_posture(&self, session: Arc<Session>) -> Arc<Session> {
        let heard = session.device_id.as_ref().and_then(|id| self.devices.get(id.as_str()));
        match heard {
            Some(heard) if session.posture().is_none_or(|own| own.yields_to(heard)) => {
                let mut informed = Session::clone(&session);
                informed.device_compliant = Some(heard.compliant);
                Arc::new(informed)
            }
            _ => session,
        }
    }

    /// A token from a newer login than the session knows brings the session up to date: that is how a step-up is met
    /// behind a gateway.
    fn refreshed(&self, session: &Session, token: &Token, now: Now) -> Option<Learned> {
        let login = login(token, now)?;
        if session.authenticated_ms.is_some_and(|known| known >= login.authenticated_ms.unwrap_or(known)) {
            return None;
        }
        let (session, version) = self.change(&session.id, &login, now).ok()?;
        Some(Learned { session, version, change: "refreshed_from_token" })
    }

    fn unknown_session(
        &self,
        id: &SmolStr,
        attempt: &Attempt,
        subjects: &Subjects,
        settings: &Settings,
        now: Now,
    ) -> (SessionFacts, Option<Learned>) {
        if self.forgets_revocations(now) {
            return (SessionFacts::Untellable, None);
        }
        let life_ms = life_ms(settings);
        let kept_ms = self.remembers_ms(life_ms, now);
        // It may be one of those that were ended with all of somebody's sessions, and then dropped from memory.
        let cutoff = subjects.iter().flatten().filter_map(|subject| subject.cutoff_ms).max();
        let issued_ms = attempt.token.as_ref().and_then(|token| token.issued_ms);
        let in_force = cutoff.filter(|cutoff| cutoff.saturating_add(kept_ms) > now.wall_ms);
        if in_force.is_some_and(|cutoff| issued_ms.is_none_or(|issued| issued <= cutoff)) {
            return (SessionFacts::Revoked, None);
        }
        let Some(token) = usable_token(attempt, subjects, settings, now) else {
            return (SessionFacts::Unknown, None);
        };
        // That a session was ended is remembered for one life; an older token could outlast that memory.
        let is_too_old =
            |issued: i64| issued.saturating_add(life_ms) <= now.wall_ms || self.memory.may_forget(issued);
        if issued_ms.is_none_or(is_too_old) {
            return (SessionFacts::Unknown, None);
        }
        let expires_ms = now.wall_ms.saturating_add(life_ms);
        let mut session = Session::open(id.clone(), attempt.principal.clone(), expires_ms, now);
        if let Some(login) = login(token, now) {
            login.apply(&mut session, now);
        }
        // A token vouches for the credential as it was when it was issued.
        let changed_ms = subjects.last().and_then(|own| own.as_ref()?.credential_ms);
        let proven_ms = session.authenticated_ms.or(issued_ms);
        session.credential_changed =
            changed_ms.is_some_and(|changed| proven_ms.is_none_or(|at| at < changed));
        match self.open(session, settings.sessions.idle_max_s, now) {
            Ok((session, version)) => {
                let learned = Learned { session: Arc::clone(&session), version, change: "opened_from_token" };
                let behavior = Behavior { last_seen_ms: now.wall_ms, ..Behavior::default() };
                let (facts, _) = self.known_session(attempt, subjects, session, behavior, settings, now);
                (facts, Some(learned))
            }
            // Somebody else opened or ended it meanwhile.
            Err(_) => match self.session(id) {
                Ok(Some((session, behavior))) if self.revoked.get(id.as_str()).is_none() => {
                    self.known_session(attempt, subjects, session, behavior, settings, now)
                }
                _ => (SessionFacts::Untellable, None),
            },
        }
    }
}

/// Whether a counter of the attempt counts for its task.
fn counts_tasks(question: &Question<'_>) -> bool {
    let counters = question.counters();
    let snapshot = question.snapshot();
    // Nothing to look at for most bundles.
    !counters.is_empty()
        && counters.numbers().any(|number| snapshot.counter(number).is_some_and(|of| of.per == Per::Task))
}

/// The session, over by then at the latest: its own end may have been moved since it was opened, or that of one above it.
fn ending_by(session: Arc<Session>, ends_ms: i64) -> Arc<Session> {
    if session.expires_ms <= ends_ms {
        return session;
    }
    Arc::new(Session { expires_ms: ends_ms, ..Session::clone(&session) })
}

/// The session, its login outdated if a credential of its principal changed after it.
fn with_credential(session: Arc<Session>, own: Option<&Subject>) -> Arc<Session> {
    let changed_ms = own.and_then(|subject| subject.credential_ms);
    // Whoever opens a session without telling of a login vouches for the credential as it is then.
    let proven_ms = session.authenticated_ms.unwrap_or(session.opened_ms);
    let is_stale = changed_ms.is_some_and(|changed| proven_ms < changed);
    if !is_stale || session.credential_changed {
        return session;
    }
    let mut stale = Session::clone(&session);
    stale.credential_changed = true;
    Arc::new(stale)
}

/// The attempt's token, if sessions may learn from it.
fn usable_token<'a>(
    attempt: &'a Attempt,
    subjects: &Subjects,
    settings: &Settings,
    now: Now,
) -> Option<&'a Token> {
    let token = attempt.token.as_deref()?;
    let is_over = token.expires_ms.is_some_and(|end| end <= now.wall_ms);
    let is_disabled = subjects.iter().flatten().any(Subject::is_disabled);
    (settings.sessions.open_from_token && !is_over && !is_disabled).then_some(token)
}

/// What a token tells of its owner's last login; nothing if that lies in the future, where it would stay fresh.
fn login(token: &Token, now: Now) -> Option<SessionChange> {
    let at_ms = token.authenticated_ms.filter(|at| *at <= now.wall_ms.saturating_add(SKEW_MAX_MS))?;
    Some(SessionChange {
        authenticated_ms: Some(at_ms.min(now.wall_ms)),
        acr: Some(token.acr.clone()),
        amr: Some(token.amr.clone()),
        ..SessionChange::default()
    })
}

/// Longest life of a session, in milliseconds.
#[must_use]
pub fn life_ms(settings: &Settings) -> i64 {
    i64::try_from(settings.sessions.max_age_s).unwrap_or(i64::MAX / 2).saturating_mul(1000)
}
