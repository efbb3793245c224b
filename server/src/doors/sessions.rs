//! `cardea.v1.SessionService`: enforcement points and identity providers tell of sessions.

use std::sync::Arc;

use cardea_core::attempt::NAME_BYTES_MAX;
use cardea_core::session::{Session, Status as SessionStatus};
use cardea_core::time::Now;
use cardea_policy_store::snapshot::Snapshot;
use cardea_proto::v1::session_service_server::SessionService;
use cardea_proto::v1::{self, record::Entry};
use smol_str::SmolStr;
use tonic::{Request, Response, Status};

use super::wire;
use crate::concluding::Why;
use crate::ledger::LedgerFault;
use crate::pipeline::{Pipeline, entity};
use crate::state::{Closed, OpenFault, SKEW_MAX_MS, SessionChange, State, Target, life_ms};

/// The service.
#[derive(Clone, Debug)]
pub struct SessionDoor(Arc<Pipeline>);

impl SessionDoor {
    /// Changes the state of this pipeline.
    #[must_use]
    pub fn new(pipeline: Arc<Pipeline>) -> Self {
        Self(pipeline)
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, Status> {
        let current = self.0.policy().snapshot();
        current.ok_or_else(|| Status::unavailable("no policy bundle is in force, so types are not known"))
    }

    /// While nothing can be kept, nothing is opened: it would be gone after a restart.
    fn can_keep(&self) -> Result<(), Status> {
        can_keep(self.0.state())
    }

    async fn durable(&self) -> Result<(), Status> {
        self.0.state().durable().await.map_err(|fault| not_durable(&fault))
    }

    fn record(&self, session: &Session, change: &'static str, version: u64, reason: &str, now: Now) {
        let body = v1::SessionRecord {
            session_id: session.id.to_string(),
            principal: Some(entity(&session.principal)),
            change: change.to_owned(),
            state_version: version,
            reason: reason.into(),
        };
        self.0.record(Entry::Session(body), now);
    }

    /// Ends sessions. The record, of a session or a principal, stands before those of what it takes back.
    fn end_and_record(
        &self,
        target: &Target,
        (session_id, principal): (SmolStr, Option<v1::EntityRef>),
        reason: SmolStr,
        now: Now,
    ) -> Result<Closed, Status> {
        let life_ms = life_ms(self.snapshot()?.settings());
        let _recorded_first = self.0.state().feed().keep_back();
        let why = Why::operator(reason.clone());
        let closed = self.0.end(target, &why, life_ms, now).map_err(|_| table_full())?;
        let record = v1::SessionRecord {
            session_id: session_id.into(),
            principal,
            change: "ended".to_owned(),
            state_version: closed.version,
            reason: reason.into(),
        };
        self.0.record(Entry::Session(record), now);
        Ok(closed)
    }

    /// As decisions see it.
    fn message(&self, session: &Arc<Session>, now: Now) -> v1::Session {
        let session = &*self.0.state().informed(session, now);
        let idle_max_s =
            self.0.policy().snapshot().map_or(0, |snapshot| snapshot.settings().sessions.idle_max_s);
        let known = self.0.state().session(&session.id).ok().flatten();
        let last_seen_ms = known.map_or(session.refreshed_ms, |(_, behavior)| behavior.last_seen_ms);
        let status = match self.0.state().status(session, last_seen_ms, idle_max_s, now) {
            SessionStatus::Live => v1::SessionStatus::Live,
            SessionStatus::Expired => v1::SessionStatus::Expired,
            SessionStatus::Revoked => v1::SessionStatus::Revoked,
        };
        let texts = |set: &std::collections::BTreeSet<SmolStr>| set.iter().map(ToString::to_string).collect();
        v1::Session {
            id: session.id.to_string(),
            principal: Some(wire::entity_ref(&session.principal)),
            opened_at: Some(wire::timestamp(session.opened_ms)),
            expires_at: Some(wire::timestamp(session.expires_ms)),
            authenticated_at: session.authenticated_ms.map(wire::timestamp),
            acr: session.acr.to_string(),
            amr: texts(&session.amr),
            aal: session.aal.into(),
            device_compliant: session.device_compliant,
            networks: texts(&session.networks),
            labels: session.labels(now).map(ToString::to_string).collect(),
            task: session.task.as_deref().map(wire::task_message),
            credential_changed: session.credential_changed,
            status: status.into(),
            task_id: session.task_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            parent_session_id: session
                .parent
                .as_ref()
                .map(|parent| parent.id.to_string())
                .unwrap_or_default(),
            device_id: session.device_id.as_deref().unwrap_or_default().to_owned(),
            tenant: session.tenant.as_deref().unwrap_or_default().to_owned(),
        }
    }
}

#[tonic::async_trait]
impl SessionService for SessionDoor {
    async fn open(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let now = self.0.now();
        let snapshot = self.snapshot()?;
        let message =
            request.into_inner().session.ok_or_else(|| Status::invalid_argument("`session` is missing"))?;
        self.can_keep()?;
        let idle_max_s = snapshot.settings().sessions.idle_max_s;
        let session = bound(read(&message, &snapshot, now)?, &message, self.0.state(), idle_max_s, now)?;
        let (session, version) = {
            let _recorded_first = self.0.state().feed().keep_back();
            let opened = self.0.state().open(session, idle_max_s, now).map_err(|fault| refuse(&fault))?;
            self.record(&opened.0, "opened", opened.1, "", now);
            opened
        };
        self.durable().await?;
        let session = Some(self.message(&session, now));
        Ok(Response::new(v1::OpenSessionResponse { session, state_version: version }))
    }

    async fn update(
        &self,
        request: Request<v1::UpdateSessionRequest>,
    ) -> Result<Response<v1::UpdateSessionResponse>, Status> {
        let now = self.0.now();
        let message = request.into_inner();
        let change = change(&message, life_ms(self.snapshot()?.settings()), now)?;
        self.can_keep()?;
        let (session, version) = {
            let _recorded_first = self.0.state().feed().keep_back();
            let changed = self.0.change(&message.id, &change, now).map_err(|fault| refuse(&fault))?;
            self.record(&changed.0, "updated", changed.1, "", now);
            changed
        };
        self.durable().await?;
        let session = Some(self.message(&session, now));
        Ok(Response::new(v1::UpdateSessionResponse { session, state_version: version }))
    }

    async fn get(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::GetSessionResponse>, Status> {
        let id = &request.get_ref().id;
        let known = self.0.state().session(id).map_err(|fault| unreadable(&fault))?;
        let Some((session, _)) = known else {
            return Err(Status::not_found("this node does not know the session"));
        };
        Ok(Response::new(v1::GetSessionResponse { session: Some(self.message(&session, self.0.now())) }))
    }

    async fn list(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let message = request.into_inner();
        let principal = match &message.principal {
            Some(reference) => Some(wire::uid("principal", Some(reference), &*self.snapshot()?)?),
            None => None,
        };
        let size = wire::page_size(message.page_size)?;
        let state = Arc::clone(self.0.state());
        let after = message.page_token;
        // Reads the disk, so off the thread that decides. One more than asked for tells whether there is another page.
        let page = tokio::task::spawn_blocking(move || state.page(principal.as_ref(), &after, size + 1));
        let page = page
            .await
            .map_err(|_| Status::internal("the table could not be read"))?
            .map_err(|fault| unreadable(&fault))?;
        let (page, next_page_token) = wire::page(page.into_iter(), size, |session| session.id.to_string());
        let now = self.0.now();
        let sessions = page.iter().map(|session| self.message(session, now)).collect();
        Ok(Response::new(v1::ListSessionsResponse { sessions, next_page_token }))
    }

    async fn end(
        &self,
        request: Request<v1::EndSessionRequest>,
    ) -> Result<Response<v1::EndSessionResponse>, Status> {
        use v1::end_session_request::Target as Named;
        let now = self.0.now();
        let snapshot = self.snapshot()?;
        let message = request.into_inner();
        let reason = crate::pipeline::Seen::text(&message.reason);
        match message.target {
            Some(Named::Id(id)) => {
                let id = name(&id)?;
                let known = self.0.state().session(&id).ok().flatten();
                let is_known = known.is_some();
                let whose = known.map(|(session, _)| entity(&session.principal));
                let closed = self.end_and_record(&Target::Session(id.clone()), (id, whose), reason, now)?;
                self.durable().await?;
                // One that is not known here is remembered as ended, and counts as none.
                let ended = u64::from(closed.changed && is_known);
                Ok(Response::new(v1::EndSessionResponse { ended, state_version: closed.version }))
            }
            Some(Named::Principal(reference)) => {
                let principal = wire::uid("principal", Some(&reference), &snapshot)?;
                let state = Arc::clone(self.0.state());
                let of = principal.clone();
                let target = Target::Principal(principal.clone(), now.wall_ms);
                // One record for all: the principal's name stands for them, known here or not.
                let closed =
                    self.end_and_record(&target, (SmolStr::default(), Some(entity(&of))), reason, now)?;
                // Only for the count that is told: what is over is over.
                let sessions =
                    tokio::task::spawn_blocking(move || state.page(Some(&principal), "", usize::MAX))
                        .await
                        .map_err(|_| Status::internal("the table could not be read"))?
                        .unwrap_or_default();
                let was_live = |session: &&Arc<Session>| {
                    session.ended.is_none()
                        && session.opened_ms <= now.wall_ms
                        && session.expires_ms > now.wall_ms
                        && closed.before_ms.is_none_or(|before| session.opened_ms > before)
                };
                let ended = sessions.iter().filter(was_live).count();
                self.durable().await?;
                let ended = u64::try_from(ended).unwrap_or(u64::MAX);
                Ok(Response::new(v1::EndSessionResponse { ended, state_version: closed.version }))
            }
            None => Err(Status::invalid_argument("name what to end: `id` or `principal`")),
        }
    }
}

fn name(id: &str) -> Result<SmolStr, Status> {
    if id.is_empty() || id.len() > NAME_BYTES_MAX {
        return Err(Status::invalid_argument(format!("a session's id has 1 to {NAME_BYTES_MAX} bytes")));
    }
    Ok(id.into())
}

fn level(aal: u32) -> Result<u8, Status> {
    match u8::try_from(aal) {
        Ok(aal @ 0..=3) => Ok(aal),
        _ => Err(Status::invalid_argument("`aal` is 0 to 3")),
    }
}

pub(crate) fn read(message: &v1::Session, snapshot: &Snapshot, now: Now) -> Result<Session, Status> {
    let invalid = |fault: String| Status::invalid_argument(fault);
    let id = name(&message.id)?;
    let principal = wire::uid("principal", message.principal.as_ref(), snapshot)?;
    let longest = now.wall_ms.saturating_add(life_ms(snapshot.settings()));
    let expires_ms = wire::optional_ms(message.expires_at.as_ref()).map_err(invalid)?.unwrap_or(longest);
    if expires_ms <= now.wall_ms {
        return Err(Status::invalid_argument("`expires_at` has passed"));
    }
    let mut session = Session::open(id, principal, expires_ms.min(longest), now);
    if let Some(at_ms) = wire::optional_ms(message.authenticated_at.as_ref()).map_err(invalid)? {
        session.authenticate(not_in_the_future(at_ms, now)?);
    }
    session.acr = message.acr.as_str().into();
    session.amr = message.amr.iter().map(SmolStr::from).collect();
    session.apply(&cardea_core::session::Change::AssuranceLevel(level(message.aal)?), now.wall_ms);
    if let Some(compliant) = message.device_compliant {
        session.apply(&cardea_core::session::Change::DeviceCompliance(compliant), now.wall_ms);
    }
    session.networks = message.networks.iter().map(SmolStr::from).collect();
    session.labels = message.labels.iter().map(|label| (SmolStr::from(label), i64::MAX)).collect();
    session.credential_changed = message.credential_changed;
    session.task = message.task.as_ref().map(wire::task).transpose().map_err(invalid)?;
    if !message.task_id.is_empty() {
        if session.task.is_some() {
            return Err(Status::invalid_argument(
                "`task` is for sessions without a `task_id`; set one of them",
            ));
        }
        session.task_id = Some(message.task_id.as_str().into());
    }
    Ok(session)
}

/// The session with what it refers to: its task must be known, and the session that it runs under live.
pub(crate) fn bound(
    mut session: Session,
    message: &v1::Session,
    state: &State,
    idle_max_s: u64,
    now: Now,
) -> Result<Session, Status> {
    if let Some(id) = session.task_id.as_ref().filter(|id| state.task(id).is_none()) {
        let id = crate::pipeline::Seen::text(id);
        return Err(Status::not_found(format!("task `{id}` is not known to this node; approve it first")));
    }
    if !message.parent_session_id.is_empty() {
        let id = name(&message.parent_session_id)?;
        let (parent, above) = state.parent(&id, idle_max_s, now).map_err(|fault| of_parent(&fault))?;
        session.parent = Some(parent);
        session.expires_ms = session.expires_ms.min(above.expires_ms);
    }
    let named = |text: &str| (!text.is_empty()).then(|| SmolStr::from(text));
    session.device_id = named(&message.device_id);
    session.tenant = named(&message.tenant);
    Ok(session)
}

pub(crate) fn change(
    message: &v1::UpdateSessionRequest,
    life_ms: i64,
    now: Now,
) -> Result<SessionChange, Status> {
    let invalid = |fault: String| Status::invalid_argument(fault);
    let authenticated_ms = wire::optional_ms(message.authenticated_at.as_ref()).map_err(invalid)?;
    Ok(SessionChange {
        expires_ms: wire::optional_ms(message.expires_at.as_ref())
            .map_err(invalid)?
            .map(|end| end.min(now.wall_ms.saturating_add(life_ms))),
        authenticated_ms: authenticated_ms.map(|at_ms| not_in_the_future(at_ms, now)).transpose()?,
        acr: message.acr.as_deref().map(SmolStr::from),
        amr: (!message.amr.is_empty()).then(|| message.amr.iter().map(SmolStr::from).collect()),
        aal: message.aal.map(level).transpose()?,
        device_compliant: message.device_compliant,
        add_networks: message.add_networks.iter().map(SmolStr::from).collect(),
        add_labels: message.add_labels.iter().map(SmolStr::from).collect(),
        remove_labels: message.remove_labels.iter().map(SmolStr::from).collect(),
        task: message.task.as_ref().map(wire::task).transpose().map_err(invalid)?,
        device_id: message.device_id.as_deref().map(SmolStr::from),
    })
}

/// A time from another clock may run a little ahead of ours; further ahead it would keep a login fresh for ever.
pub(super) fn not_in_the_future(at_ms: i64, now: Now) -> Result<i64, Status> {
    if at_ms > now.wall_ms.saturating_add(SKEW_MAX_MS) {
        return Err(Status::invalid_argument("a time lies more than 60 s in the future; check the clocks"));
    }
    // What is a little ahead counts as now: it must not outrank what comes in the meantime.
    Ok(at_ms.min(now.wall_ms))
}

fn table_full() -> Status {
    Status::resource_exhausted(
        "no place to remember this: what this node knows is ended, what it does not know may come back; try again later",
    )
}

/// What opens something is refused while nothing can be kept.
pub(super) fn can_keep(state: &State) -> Result<(), Status> {
    match state.fault() {
        Some(why) => Err(Status::unavailable(format!(
            "nothing was changed: the state cannot be written to disk: {why}"
        ))),
        None => Ok(()),
    }
}

/// What was changed counts on this node, and is not on disk.
pub(super) fn not_durable(fault: &LedgerFault) -> Status {
    Status::unavailable(format!(
        "what closes is in force on this node, what opens is not, and neither would survive a restart ({fault}); send it \
         again"
    ))
}

fn unreadable(fault: &LedgerFault) -> Status {
    Status::unavailable(fault.to_string())
}

/// Why no session can be opened below that one.
fn of_parent(fault: &OpenFault) -> Status {
    match fault {
        OpenFault::Ended(id) | OpenFault::Expired(id) => Status::failed_precondition(format!(
            "the parent session `{id}` is over, and nothing runs below it; name one that lives"
        )),
        OpenFault::Unknown(id) => {
            Status::not_found(format!("the parent session `{id}` is not known to this node; open it first"))
        }
        OpenFault::Exists(_)
        | OpenFault::HasTask(_)
        | OpenFault::TooDeep(_)
        | OpenFault::TooMuch
        | OpenFault::RevocationsFull
        | OpenFault::SessionsFull(_)
        | OpenFault::TableFull(_)
        | OpenFault::Disk(_) => refuse(fault),
    }
}

fn refuse(fault: &OpenFault) -> Status {
    match fault {
        OpenFault::Exists(_) => Status::already_exists(fault.to_string()),
        OpenFault::Ended(_) | OpenFault::Expired(_) | OpenFault::HasTask(_) | OpenFault::TooDeep(_) => {
            Status::failed_precondition(fault.to_string())
        }
        OpenFault::Unknown(_) => Status::not_found(fault.to_string()),
        OpenFault::TooMuch => Status::invalid_argument(fault.to_string()),
        OpenFault::RevocationsFull | OpenFault::SessionsFull(_) | OpenFault::TableFull(_) => {
            Status::resource_exhausted(fault.to_string())
        }
        OpenFault::Disk(_) => Status::unavailable(fault.to_string()),
    }
}
