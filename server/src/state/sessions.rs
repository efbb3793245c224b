//! Sessions: opened, changed, ended, read.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cardea_core::attempt::Attempt;
use cardea_core::behavior::{Deviation, SessionBehavior};
use cardea_core::delegation::{self, Above, Parent, TooDeep};
use cardea_core::facts::Behavior;
use cardea_core::session::{self, LABELS_MAX, METHODS_MAX, NETWORKS_MAX, Session, Status};
use cardea_core::task::Task;
use cardea_core::time::Now;
use cardea_core::verdict::Decision;
use cardea_policy_store::engine::Uid;
use moka::ops::compute::{CompResult, Op};
use smol_str::SmolStr;

use super::{Held, Key, Noted, State, TableFull, rows};
use crate::ledger::{LedgerFault, Row, Table};

/// A session as the cache holds it.
type Entry = moka::Entry<SmolStr, Arc<Held>>;

/// Longest label, network, method, context class or text of a task, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 256;

/// Why a session could not be opened or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenFault {
    /// A live session has this id.
    #[error("a live session has the id `{0}`")]
    Exists(SmolStr),
    /// A session of this id was ended, for good.
    #[error("session `{0}` was ended; open another id")]
    Ended(SmolStr),
    /// This node does not know it.
    #[error("session `{0}` is not known to this node")]
    Unknown(SmolStr),
    /// Its task is an approved one.
    #[error("session `{0}` was opened for an approved task; change that with TaskService")]
    HasTask(SmolStr),
    /// Too many sessions stand above it.
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
    /// It is past its end.
    #[error("session `{0}` has expired; open another")]
    Expired(SmolStr),
    /// A list or a text is beyond its limit.
    #[error(
        "a session has at most {LABELS_MAX} labels, {NETWORKS_MAX} networks and {METHODS_MAX} methods, of {TEXT_BYTES_MAX} bytes each"
    )]
    TooMuch,
    /// The table that would remember its end is full, so its id cannot be told from an ended one.
    #[error("the table of revocations is full; no session can be opened until entries in it expire")]
    RevocationsFull,
    /// As many sessions are kept as may be.
    #[error("{0} sessions are kept, as many as may be; raise `state.stored_sessions_max`, or end some")]
    SessionsFull(u64),
    /// The disk cannot be read or does not take the change; nothing was changed.
    #[error("nothing was changed: {0}")]
    Disk(#[from] LedgerFault),
    /// There is no place to remember it.
    #[error("no place to remember this; try again later")]
    TableFull(#[from] TableFull),
}

/// A change of a session, as a caller asks for it; unset parts stay.
#[derive(Clone, Debug, Default)]
pub struct SessionChange {
    /// New end, Unix milliseconds.
    pub expires_ms: Option<i64>,
    /// A new authentication, Unix milliseconds.
    pub authenticated_ms: Option<i64>,
    /// New context class.
    pub acr: Option<SmolStr>,
    /// New methods.
    pub amr: Option<Vec<SmolStr>>,
    /// New assurance level.
    pub aal: Option<u8>,
    /// New posture.
    pub device_compliant: Option<bool>,
    /// More networks.
    pub add_networks: Vec<SmolStr>,
    /// More labels.
    pub add_labels: Vec<SmolStr>,
    /// Fewer labels.
    pub remove_labels: Vec<SmolStr>,
    /// Another task.
    pub task: Option<Arc<Task>>,
    /// Another device.
    pub device_id: Option<SmolStr>,
}

/// What to end.
#[derive(Clone, Debug)]
pub enum Target {
    /// One session.
    Session(SmolStr),
    /// Every session that the principal opened up to a time, Unix milliseconds.
    Principal(Uid, i64),
    /// Every session of the tenant that was opened up to a time, Unix milliseconds.
    Tenant(SmolStr, i64),
}

/// What was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Whether anything changed.
    pub changed: bool,
    /// State version from which no decision allows for it.
    pub version: u64,
    /// Where the principal's cut-off stood before; sessions opened up to there were over already.
    pub before_ms: Option<i64>,
}

impl State {
    /// Opens a session.
    ///
    /// # Errors
    /// When its id is taken or was ended, a list is too long, or there is no place for it.
    pub fn open(
        &self,
        session: Session,
        idle_max_s: u64,
        now: Now,
    ) -> Result<(Arc<Session>, u64), OpenFault> {
        within_limits(&session)?;
        if self.revoked.get(session.id.as_str()).is_some() {
            return Err(OpenFault::Ended(session.id));
        }
        if self.forgets_revocations(now) {
            return Err(OpenFault::RevocationsFull);
        }
        if self.stored.load(Ordering::Relaxed) >= self.capacity.stored_sessions {
            return Err(OpenFault::SessionsFull(self.capacity.stored_sessions));
        }
        self.remembers_ms(session.expires_ms.saturating_sub(now.wall_ms), now);
        let session = Arc::new(session);
        let behavior = Behavior { last_seen_ms: now.wall_ms, ..Behavior::default() };
        let held = Held::new(Arc::clone(&session), behavior);
        let mut fault = None;
        // One look and one insertion under the key's lock, so that two openers of an id cannot both succeed.
        let entry = self.sessions.entry(session.id.clone()).and_compute_with(|found| {
            match self.opens(found, &session, idle_max_s, now) {
                Ok(()) => Op::Put(held),
                Err(why) => {
                    fault = Some(why);
                    Op::Nop
                }
            }
        });
        match (fault, entry) {
            (Some(fault), _) => Err(fault),
            (None, CompResult::Inserted(_) | CompResult::ReplacedWith(_)) => {
                // Somebody may have ended the id between the look and the insertion.
                match self.revoked.get(session.id.as_str()) {
                    Some(_) => Err(OpenFault::Ended(session.id.clone())),
                    None => {
                        let version = self.advance(Key::Session(session.id.clone()), "opened");
                        Ok((session, version))
                    }
                }
            }
            (None, CompResult::StillNone(_) | CompResult::Removed(_) | CompResult::Unchanged(_)) => {
                Err(OpenFault::Unknown(session.id.clone()))
            }
        }
    }

    /// Writes the row of a session that may take the place of what is there. Under the key's lock.
    fn opens(
        &self,
        found: Option<Entry>,
        session: &Session,
        idle_max_s: u64,
        now: Now,
    ) -> Result<(), OpenFault> {
        let found = self.found_or_stored(found, &session.id)?;
        let is_new = found.is_none();
        match found.map(|held| self.held_status(&held, idle_max_s, now)) {
            None | Some(Status::Expired) => {}
            Some(Status::Revoked) => return Err(OpenFault::Ended(session.id.clone())),
            Some(Status::Live) => return Err(OpenFault::Exists(session.id.clone())),
        }
        if let Some(ledger) = &self.ledger {
            let key = session.id.as_bytes().to_vec();
            ledger.write(vec![
                Row::Put { table: Table::Sessions, key: key.clone(), value: rows::session(session) },
                Row::Delete { table: Table::Behaviors, key },
            ])?;
            self.stored.fetch_add(u64::from(is_new), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Changes a session.
    ///
    /// # Errors
    /// When it is not known or was ended, a list is too long, or the disk refuses.
    pub fn change(
        &self,
        id: &str,
        change: &SessionChange,
        now: Now,
    ) -> Result<(Arc<Session>, u64), OpenFault> {
        if self.revoked.get(id).is_some() {
            return Err(OpenFault::Ended(id.into()));
        }
        if let Some(expires_ms) = change.expires_ms {
            self.remembers_ms(expires_ms.saturating_sub(now.wall_ms), now);
        }
        // Looked at before the session's own lock is taken, as this takes those of other sessions.
        if let Some((session, _)) = self.session(id)?
            && !matches!(self.above(&session, now), Above::LiveUntil(_))
        {
            return Err(OpenFault::Ended(id.into()));
        }
        let changed = self.revise(id, |current| {
            if self.is_cut(current) || current.ended.is_some() {
                return Err(OpenFault::Ended(id.into()));
            }
            if now.wall_ms >= current.expires_ms {
                return Err(OpenFault::Expired(id.into()));
            }
            if change.task.is_some() && current.task_id.is_some() {
                return Err(OpenFault::HasTask(id.into()));
            }
            let mut next = Session::clone(current);
            change.apply(&mut next, now);
            within_limits(&next)?;
            Ok(Some(next))
        })?;
        let changed = changed.ok_or_else(|| OpenFault::Unknown(id.into()))?;
        Ok((changed, self.advance(Key::Session(id.into()), "updated")))
    }

    /// Lets `revision` make the next form of a session, in memory and on disk, or leave it. Returns the session as it is
    /// then; `None` if it is not known.
    pub(super) fn revise(
        &self,
        id: &str,
        revision: impl FnOnce(&Session) -> Result<Option<Session>, OpenFault>,
    ) -> Result<Option<Arc<Session>>, OpenFault> {
        let mut outcome = Ok(None);
        self.sessions.entry(SmolStr::new(id)).and_compute_with(|found| {
            let is_loaded = found.is_none();
            match self.found_or_stored(found, id) {
                Ok(Some(held)) => {
                    outcome = self.revise_held(&held, revision).map(Some);
                    if is_loaded { Op::Put(held) } else { Op::Nop }
                }
                Ok(None) => Op::Nop,
                Err(fault) => {
                    outcome = Err(fault.into());
                    Op::Nop
                }
            }
        });
        outcome
    }

    fn revise_held(
        &self,
        held: &Held,
        revision: impl FnOnce(&Session) -> Result<Option<Session>, OpenFault>,
    ) -> Result<Arc<Session>, OpenFault> {
        let mut current = held.session.lock();
        if let Some(next) = revision(&current)? {
            if let Some(ledger) = &self.ledger {
                let (key, value) = (next.id.as_bytes().to_vec(), rows::session(&next));
                ledger.write(vec![Row::Put { table: Table::Sessions, key, value }])?;
            }
            *current = Arc::new(next);
        }
        Ok(Arc::clone(&current))
    }

    /// Ends sessions for good.
    ///
    /// # Errors
    /// When there is no place to remember it. Sessions that this node knows are ended all the same; those that it does
    /// not know may come back.
    pub fn end(
        &self,
        target: &Target,
        reason: &SmolStr,
        life_ms: i64,
        now: Now,
    ) -> Result<Closed, TableFull> {
        let (closed, key) = match target {
            Target::Session(id) => {
                let changed = self.end_one(id, reason, life_ms, now)?;
                ((changed, None), Key::Session(id.clone()))
            }
            Target::Principal(principal, until_ms) => {
                let ended = self.end_principal(principal, *until_ms, reason, life_ms, now)?;
                (ended, Key::Principal(principal.clone()))
            }
            Target::Tenant(tenant, until_ms) => {
                (self.end_tenant(tenant, *until_ms, life_ms, now)?, Key::Tenant(tenant.clone()))
            }
        };
        let (changed, before_ms) = closed;
        let version = if changed { self.advance(key, "revoked") } else { self.version() };
        Ok(Closed { changed, version, before_ms })
    }

    fn end_principal(
        &self,
        principal: &Uid,
        until_ms: i64,
        reason: &SmolStr,
        life_ms: i64,
        now: Now,
    ) -> Result<(bool, Option<i64>), TableFull> {
        let mut before_ms = None;
        let raised = self.subject(principal, life_ms, now, |subject| {
            before_ms = subject.cutoff_ms;
            subject.cut_off(until_ms)
        });
        if let Err(full) = raised {
            // No place to remember the cut-off: end the sessions that are known, one by one.
            for session in self.page(Some(principal), "", usize::MAX).unwrap_or_default() {
                if session.opened_ms <= until_ms {
                    self.end_one(&session.id, reason, life_ms, now)?;
                }
            }
            return Err(full);
        }
        raised.map(|changed| (changed, before_ms))
    }

    fn end_tenant(
        &self,
        tenant: &SmolStr,
        until_ms: i64,
        life_ms: i64,
        now: Now,
    ) -> Result<(bool, Option<i64>), TableFull> {
        let mut before_ms = None;
        let kept_ms = self.remembers_ms(life_ms, now);
        let spent = |until: &i64| until.saturating_add(kept_ms) < now.wall_ms;
        let raise = |until: &mut i64| {
            let is_later = *until < until_ms;
            before_ms = (*until > i64::MIN).then_some(*until);
            *until = until_ms.max(*until);
            self.keep(Table::Tenants, tenant.as_bytes().to_vec(), rows::instant(*until));
            is_later
        };
        let changed = self.tenants.update(tenant.clone(), now.wall_ms, || i64::MIN, spent, raise)?;
        Ok((changed, before_ms))
    }

    fn end_one(&self, id: &SmolStr, reason: &SmolStr, life_ms: i64, now: Now) -> Result<bool, TableFull> {
        // Remembered first: between the two steps a decision finds at least one of them.
        let known_until = self.session(id).ok().flatten().map_or(0, |(session, _)| session.expires_ms);
        let until_ms = now.wall_ms.saturating_add(self.remembers_ms(life_ms, now)).max(known_until);
        let spent = |until: &i64| *until < now.wall_ms;
        let mut is_new = false;
        let remembered = self.revoked.update(
            id.clone(),
            now.wall_ms,
            || {
                is_new = true;
                until_ms
            },
            spent,
            |until| {
                *until = until_ms.max(*until);
                self.keep(Table::Revocations, id.as_bytes().to_vec(), rows::instant(*until));
            },
        );
        let mut ended = false;
        let revised = self.revise(id, |current| {
            let mut next = Session::clone(current);
            ended = next.end(now.wall_ms, reason.clone());
            Ok(ended.then_some(next))
        });
        if revised.is_err() {
            // The table of revocations has it, and is asked first.
            tracing::warn!("an ended session could not be marked as such in its own row");
        }
        remembered.map(|()| ended || is_new)
    }

    /// One session and what it did, from memory or else from disk.
    ///
    /// # Errors
    /// When it is not in memory and the disk cannot be read.
    pub fn session(&self, id: &str) -> Result<Option<(Arc<Session>, Behavior)>, LedgerFault> {
        let held = match self.sessions.get(id) {
            Some(held) => Some(held),
            None => self.read_through(id)?,
        };
        Ok(held.map(|held| {
            let session = Arc::clone(&held.session.lock());
            let behavior = held.behavior.lock().behavior.clone();
            (session, behavior)
        }))
    }

    fn read_through(&self, id: &str) -> Result<Option<Arc<Held>>, LedgerFault> {
        // Most of what is not in memory is not on disk either: that needs no place in the cache.
        if self.stored(id)?.is_none() {
            return Ok(None);
        }
        let mut read = Ok(None);
        self.sessions.entry(SmolStr::new(id)).and_compute_with(|found| {
            let is_loaded = found.is_none();
            read = self.found_or_stored(found, id);
            match &read {
                Ok(Some(held)) if is_loaded => Op::Put(Arc::clone(held)),
                Ok(_) | Err(_) => Op::Nop,
            }
        });
        read
    }

    /// Under the key's lock, so that nobody reads an older form from disk and puts it beside a newer one.
    fn found_or_stored(&self, found: Option<Entry>, id: &str) -> Result<Option<Arc<Held>>, LedgerFault> {
        match found {
            Some(entry) => Ok(Some(entry.into_value())),
            None => self.stored(id),
        }
    }

    /// Sessions after an id, of one principal or of all, by id. Reads the disk: not for the hot path.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn page(
        &self,
        principal: Option<&Uid>,
        after: &str,
        size: usize,
    ) -> Result<Vec<Arc<Session>>, LedgerFault> {
        let mut found = Vec::new();
        let is_wanted = |session: &Session| {
            (after.is_empty() || session.id.as_str() > after)
                && principal.is_none_or(|uid| session.principal == *uid)
        };
        let Some(ledger) = &self.ledger else {
            let all = self.sessions.iter().map(|(_, held)| Arc::clone(&held.session.lock()));
            found.extend(all.filter(|session| is_wanted(session)));
            found.sort_by(|a, b| a.id.cmp(&b.id));
            found.truncate(size);
            return Ok(found);
        };
        ledger.scan(Table::Sessions, after.as_bytes(), &mut |key, value| {
            if found.len() >= size {
                return ControlFlow::Break(());
            }
            let Ok(id) = std::str::from_utf8(key) else { return ControlFlow::Continue(()) };
            let session = match self.sessions.get(id) {
                Some(held) => Some(Arc::clone(&held.session.lock())),
                None => rows::to_session(id, value).map(Arc::new),
            };
            found.extend(session.filter(|session| is_wanted(session)));
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Where a session stands, its principal's and its tenant's cut-off included.
    #[must_use]
    pub fn status(&self, session: &Session, last_seen_ms: i64, idle_max_s: u64, now: Now) -> Status {
        if self.is_cut(session) || self.revoked.get(session.id.as_str()).is_some() {
            return Status::Revoked;
        }
        match self.above(session, now) {
            Above::LiveUntil(_) => {}
            Above::Expired => return Status::Expired,
            Above::Revoked => return Status::Revoked,
        }
        session.status(last_seen_ms, idle_max_s, now)
    }

    /// The session as one that another is opened under: it must be live, and so must all above it.
    ///
    /// # Errors
    /// When it is not, or stands too deep.
    pub fn parent(&self, id: &str, idle_max_s: u64, now: Now) -> Result<(Parent, Arc<Session>), OpenFault> {
        let (session, behavior) = self.session(id)?.ok_or_else(|| OpenFault::Unknown(id.into()))?;
        match self.status(&session, behavior.last_seen_ms, idle_max_s, now) {
            Status::Live => Ok((Parent::of(&session)?, session)),
            Status::Expired => Err(OpenFault::Expired(id.into())),
            Status::Revoked => Err(OpenFault::Ended(id.into())),
        }
    }

    /// Where the sessions above one stand: it is over when one of them is, or when one of theirs may not act.
    pub(super) fn above(&self, session: &Session, now: Now) -> Above {
        if session.parent.is_none() {
            return Above::LiveUntil(i64::MAX);
        }
        let is_over = |above: &Session| {
            self.revoked.get(above.id.as_str()).is_some()
                || self.is_cut(above)
                || self.is_disabled(&above.principal)
        };
        // One that cannot be read counts as over.
        let find = |id: &str| self.session(id).ok().flatten().map(|(session, _)| session);
        delegation::above(session, now, find, is_over)
    }

    /// The sessions above one, the nearest first, as far as they can be read.
    pub(crate) fn ancestors(&self, session: &Session) -> Vec<Arc<Session>> {
        let mut found: Vec<Arc<Session>> = Vec::new();
        let mut link = session.parent.clone();
        while let Some(parent) = link.filter(|_| found.len() < usize::from(delegation::DEPTH_MAX)) {
            let Some((above, _)) = self.session(&parent.id).ok().flatten() else { break };
            link = above.parent.clone();
            found.push(above);
        }
        found
    }

    /// Whether all of its principal's or its tenant's sessions were ended since it was opened.
    fn is_cut(&self, session: &Session) -> bool {
        let own = self.subjects.get(&session.principal).and_then(|subject| subject.cutoff_ms);
        own.max(self.tenant_cutoff(session)).is_some_and(|cutoff| session.opened_ms <= cutoff)
    }

    pub(super) fn tenant_cutoff(&self, session: &Session) -> Option<i64> {
        self.tenants.get(session.tenant.as_ref()?.as_str())
    }

    fn held_status(&self, held: &Held, idle_max_s: u64, now: Now) -> Status {
        let last_seen_ms = held.behavior.lock().behavior.last_seen_ms;
        let session = Arc::clone(&held.session.lock());
        self.status(&session, last_seen_ms, idle_max_s, now)
    }

    /// What an attempt's session did, as far as its attempts were compared with what was approved.
    pub(super) fn monitored(&self, attempt: &Attempt) -> Option<SessionBehavior> {
        let held = self.sessions.get(attempt.session_id.as_ref()?)?;
        held.behavior.lock().monitored.as_deref().copied()
    }

    /// Notes an attempt in its session's behaviour, after it was judged; with how it deviated, if it was compared.
    pub fn note(&self, attempt: &Attempt, decision: Decision, deviation: Option<&Deviation>, now: Now) {
        let Some(held) = attempt.session_id.as_ref().and_then(|id| self.sessions.get(id)) else { return };
        let Noted { behavior, monitored, .. } = &mut *held.behavior.lock();
        if let Some(deviation) = deviation {
            monitored.get_or_insert_default().note(deviation, decision == Decision::Allow, now.wall_ms);
        }
        behavior.attempts += 1;
        behavior.last_seen_ms = behavior.last_seen_ms.max(now.wall_ms);
        if decision == Decision::Deny {
            behavior.denials += 1;
        } else if decision == Decision::Allow {
            // What was not allowed did not happen, so it is no step that the next action follows.
            behavior.previous_action = SmolStr::new(attempt.action.uid.id());
        }
    }
}

impl SessionChange {
    pub(super) fn apply(&self, session: &mut Session, now: Now) {
        if let Some(expires_ms) = self.expires_ms {
            session.expires_ms = expires_ms;
        }
        // How somebody logged in belongs to when: an older login brings neither.
        if self.authenticated_ms.is_none_or(|at_ms| session.authenticate(at_ms)) {
            if let Some(acr) = &self.acr {
                session.acr = acr.clone();
            }
            if let Some(amr) = &self.amr {
                session.amr = amr.iter().cloned().collect();
            }
        }
        if let Some(aal) = self.aal {
            session.apply(&session::Change::AssuranceLevel(aal), now.wall_ms);
        }
        if let Some(compliant) = self.device_compliant {
            session.apply(&session::Change::DeviceCompliance(compliant), now.wall_ms);
        }
        session.networks.extend(self.add_networks.iter().cloned());
        session.labels.extend(self.add_labels.iter().map(|label| (label.clone(), i64::MAX)));
        for label in &self.remove_labels {
            session.labels.remove(label);
        }
        if let Some(task) = &self.task {
            session.task = Some(Arc::clone(task));
        }
        if let Some(device_id) = &self.device_id {
            session.device_id = Some(device_id.clone());
        }
        session.refreshed_ms = now.wall_ms;
    }
}

pub(super) fn within_limits(session: &Session) -> Result<(), OpenFault> {
    let fits = session.labels.len() <= LABELS_MAX
        && session.networks.len() <= NETWORKS_MAX
        && session.amr.len() <= METHODS_MAX;
    let texts = session.labels.keys().chain(&session.networks).chain(&session.amr).chain([&session.acr]);
    let texts = texts.chain(&session.device_id).chain(&session.tenant);
    let of_task = session.task.iter().flat_map(|task| task.actions.iter().chain([&task.id, &task.purpose]));
    let is_short = |text: &SmolStr| text.len() <= TEXT_BYTES_MAX;
    if fits && texts.chain(of_task).all(is_short) { Ok(()) } else { Err(OpenFault::TooMuch) }
}
