//! `cardea.v1.TaskService`: pieces of work are approved, narrowed, extended and ended.
//!
//! A change is acknowledged once it is durable. Who asks is what the request says, and what the connection proves stands
//! beside it in the record. Limits: those of `cardea_core::task`; [`wire::page_size`] tasks on a page.

use std::sync::Arc;

use cardea_core::named::Named;
use cardea_core::task::life::{self, Approval, Life, Narrowing, Standing, Step, TaskFault};
use cardea_core::task::{ResourcePattern, SCOPE_MAX};
use cardea_core::time::Now;
use cardea_policy_store::snapshot::Snapshot;
use cardea_proto::v1::task_service_server::TaskService;
use cardea_proto::v1::{self, record::Entry};
use smol_str::SmolStr;
use tonic::{Request, Response, Status};

use super::admin::peer_name;
use super::{sessions, wire};
use crate::pipeline::{Pipeline, entity};
use crate::state::{Decided, TaskRefusal};

/// The service.
#[derive(Clone, Debug)]
pub struct TaskDoor(Arc<Pipeline>);

/// Who asks for a change, and why.
struct Asked {
    by: Named,
    reason: SmolStr,
    peer: SmolStr,
}

impl TaskDoor {
    /// Changes the state of this pipeline.
    #[must_use]
    pub fn new(pipeline: Arc<Pipeline>) -> Self {
        Self(pipeline)
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, Status> {
        let current = self.0.policy().snapshot();
        current.ok_or_else(|| Status::unavailable("no policy bundle is in force, so types are not known"))
    }

    async fn change(
        &self,
        id: &str,
        step: Step,
        asked: Asked,
        now: Now,
    ) -> Result<(Option<v1::ApprovedTask>, u64), Status> {
        let word = match step {
            Step::Extended(_) => "extended",
            Step::Narrowed(_) => "narrowed",
            Step::Ended => "ended",
        };
        let change =
            life::Change { at_ms: now.wall_ms, step, by: asked.by.clone(), reason: asked.reason.clone() };
        self.decide(word, || self.0.state().change_task(id, change, now), asked, now).await
    }

    /// Changes the task, and waits until the change is durable.
    async fn decide(
        &self,
        word: &'static str,
        decide: impl FnOnce() -> Result<Decided, TaskRefusal>,
        asked: Asked,
        now: Now,
    ) -> Result<(Option<v1::ApprovedTask>, u64), Status> {
        let (life, version) = {
            let _recorded_first = self.0.state().feed().keep_back();
            self.recorded(word, decide().map_err(|refusal| refuse(&refusal))?, asked, now)
        };
        self.0.state().durable().await.map_err(|fault| sessions::not_durable(&fault))?;
        Ok((Some(message(&life, now)), version))
    }

    /// Writes the record.
    fn recorded(&self, word: &'static str, decided: Decided, asked: Asked, now: Now) -> (Arc<Life>, u64) {
        let Decided { life, version, changed } = decided;
        if changed {
            let approval = life.approval();
            let record = v1::TaskRecord {
                task_id: approval.task.id.to_string(),
                agent: Some(entity(&approval.agent)),
                on_behalf_of: approval.on_behalf_of.as_ref().map(entity),
                change: word.to_owned(),
                by: Some(wire::named_message(&asked.by)),
                state_version: version,
                reason: asked.reason.into(),
                asked_by: asked.peer.into(),
                not_after: Some(wire::timestamp(life.task().not_after_ms.unwrap_or(approval.latest_end_ms))),
            };
            self.0.record(Entry::Task(record), now);
        }
        (life, version)
    }
}

#[tonic::async_trait]
impl TaskService for TaskDoor {
    async fn approve(
        &self,
        request: Request<v1::ApproveTaskRequest>,
    ) -> Result<Response<v1::ApproveTaskResponse>, Status> {
        let now = self.0.now();
        let peer = peer_name(&request);
        let snapshot = self.snapshot()?;
        let approval = approval(&request.into_inner(), &snapshot, now)?;
        wire::may_approve(&approval.approved_by, &snapshot, self.0.state())?;
        sessions::can_keep(self.0.state())?;
        let asked = Asked { by: approval.approved_by.clone(), reason: approval.task.purpose.clone(), peer };
        let decide = || self.0.state().approve_task(approval, now);
        let (task, state_version) = self.decide("approved", decide, asked, now).await?;
        Ok(Response::new(v1::ApproveTaskResponse { task, state_version }))
    }

    async fn narrow(
        &self,
        request: Request<v1::NarrowTaskRequest>,
    ) -> Result<Response<v1::NarrowTaskResponse>, Status> {
        let now = self.0.now();
        let peer = peer_name(&request);
        let message = request.into_inner();
        let asked = asked(message.by.as_ref(), &message.reason, peer)?;
        let step = Step::Narrowed(narrowing(&message)?);
        let (task, state_version) = self.change(&message.id, step, asked, now).await?;
        Ok(Response::new(v1::NarrowTaskResponse { task, state_version }))
    }

    async fn extend(
        &self,
        request: Request<v1::ExtendTaskRequest>,
    ) -> Result<Response<v1::ExtendTaskResponse>, Status> {
        let now = self.0.now();
        let peer = peer_name(&request);
        let message = request.into_inner();
        let asked = asked(message.by.as_ref(), &message.reason, peer)?;
        let end_ms = wire::optional_ms(message.not_after.as_ref()).map_err(Status::invalid_argument)?;
        let end_ms = end_ms.ok_or_else(|| Status::invalid_argument("`not_after` is missing: the new end"))?;
        wire::may_approve(&asked.by, &*self.snapshot()?, self.0.state())?;
        sessions::can_keep(self.0.state())?;
        let (task, state_version) = self.change(&message.id, Step::Extended(end_ms), asked, now).await?;
        Ok(Response::new(v1::ExtendTaskResponse { task, state_version }))
    }

    async fn end(
        &self,
        request: Request<v1::EndTaskRequest>,
    ) -> Result<Response<v1::EndTaskResponse>, Status> {
        let now = self.0.now();
        let peer = peer_name(&request);
        let message = request.into_inner();
        let asked = asked(message.by.as_ref(), &message.reason, peer)?;
        let (task, state_version) = self.change(&message.id, Step::Ended, asked, now).await?;
        Ok(Response::new(v1::EndTaskResponse { task, state_version }))
    }

    async fn get(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::GetTaskResponse>, Status> {
        match self.0.state().task(&request.get_ref().id) {
            Some(life) => Ok(Response::new(v1::GetTaskResponse { task: Some(message(&life, self.0.now())) })),
            None => Err(Status::not_found("this node does not know the task")),
        }
    }

    async fn list(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let asked = request.into_inner();
        let agent = match &asked.agent {
            Some(reference) => Some(wire::uid("agent", Some(reference), &*self.snapshot()?)?),
            None => None,
        };
        let size = wire::page_size(asked.page_size)?;
        let state = Arc::clone(self.0.state());
        // Walks the whole table, so off the thread that decides.
        let all = tokio::task::spawn_blocking(move || state.tasks_of(agent.as_ref()))
            .await
            .map_err(|_| Status::internal("the table could not be read"))?;
        let after = asked.page_token.as_str();
        let rest = all.into_iter().skip_while(|life| !after.is_empty() && life.task().id.as_str() <= after);
        let (page, next_page_token) = wire::page(rest, size, |life| life.task().id.to_string());
        let now = self.0.now();
        let tasks = page.iter().map(|life| message(life, now)).collect();
        Ok(Response::new(v1::ListTasksResponse { tasks, next_page_token }))
    }
}

fn asked(by: Option<&v1::EntityRef>, reason: &str, peer: SmolStr) -> Result<Asked, Status> {
    Ok(Asked { by: wire::named("by", by)?, reason: reason.into(), peer })
}

/// The approval that a message asks for.
pub(crate) fn approval(
    message: &v1::ApproveTaskRequest,
    snapshot: &Snapshot,
    now: Now,
) -> Result<Approval, Status> {
    let task = message.task.as_ref().ok_or_else(|| Status::invalid_argument("`task` is missing"))?;
    let task = Arc::unwrap_or_clone(wire::task(task).map_err(Status::invalid_argument)?);
    let on_behalf_of = match &message.on_behalf_of {
        Some(reference) => Some(wire::uid("on_behalf_of", Some(reference), snapshot)?),
        None => None,
    };
    let latest_end_ms = wire::optional_ms(message.latest_end.as_ref()).map_err(Status::invalid_argument)?;
    known_actions(&task.actions, snapshot)?;
    Ok(Approval {
        task,
        agent: wire::uid("agent", message.agent.as_ref(), snapshot)?,
        on_behalf_of,
        approved_by: wire::named("approved_by", message.approved_by.as_ref())?,
        approved_ms: now.wall_ms,
        latest_end_ms: latest_end_ms.unwrap_or_else(|| now.wall_ms.saturating_add(life::LIFE_MAX_MS)),
    })
}

/// A task for an action that is in no schema would never be good for anything.
fn known_actions(actions: &[SmolStr], snapshot: &Snapshot) -> Result<(), Status> {
    let is_known = |id: &SmolStr| snapshot.actions().iter().any(|action| action.uid.id() == id);
    match actions.iter().find(|id| !is_known(id)) {
        Some(unknown) => {
            let unknown: String = unknown.chars().take(64).collect();
            Err(Status::invalid_argument(format!(
                "`{unknown}` is no action of the bundle in force; name an action by its id alone, such as `read`"
            )))
        }
        None => Ok(()),
    }
}

fn narrowing(message: &v1::NarrowTaskRequest) -> Result<Narrowing, Status> {
    if message.actions.len() > SCOPE_MAX || message.resources.len() > SCOPE_MAX {
        return Err(refuse(&TaskRefusal::Fault(TaskFault::TooMuch)));
    }
    let patterns: Result<Vec<_>, _> =
        message.resources.iter().map(|text| ResourcePattern::parse(text)).collect();
    let patterns = patterns.map_err(|fault| Status::invalid_argument(fault.to_string()))?;
    let time = |at| wire::optional_ms(at).map_err(Status::invalid_argument);
    let narrowing = Narrowing {
        actions: (!message.actions.is_empty()).then(|| message.actions.iter().map(SmolStr::from).collect()),
        resources: (!patterns.is_empty()).then_some(patterns),
        not_before_ms: time(message.not_before.as_ref())?,
        not_after_ms: time(message.not_after.as_ref())?,
    };
    if narrowing == Narrowing::default() {
        return Err(Status::invalid_argument(
            "nothing is taken away: name the actions or resources that are left, or a window; to stop the task, end it",
        ));
    }
    Ok(narrowing)
}

fn message(life: &Life, now: Now) -> v1::ApprovedTask {
    let Approval { agent, on_behalf_of, approved_by, approved_ms, latest_end_ms, .. } = life.approval();
    let change = |change: &life::Change| v1::TaskChange {
        at: Some(wire::timestamp(change.at_ms)),
        kind: match change.step {
            Step::Extended(_) => v1::TaskChangeKind::Extended,
            Step::Narrowed(_) => v1::TaskChangeKind::Narrowed,
            Step::Ended => v1::TaskChangeKind::Ended,
        }
        .into(),
        by: Some(wire::named_message(&change.by)),
        reason: change.reason.to_string(),
    };
    v1::ApprovedTask {
        task: Some(wire::task_message(life.task())),
        agent: Some(wire::entity_ref(agent)),
        on_behalf_of: on_behalf_of.as_ref().map(wire::entity_ref),
        approved_by: Some(wire::named_message(approved_by)),
        approved_at: Some(wire::timestamp(*approved_ms)),
        latest_end: Some(wire::timestamp(*latest_end_ms)),
        status: match life.standing(now) {
            Standing::Waiting => v1::TaskStatus::Waiting,
            Standing::Active => v1::TaskStatus::Active,
            Standing::Over => v1::TaskStatus::Over,
            Standing::Ended => v1::TaskStatus::Ended,
        }
        .into(),
        changes: life.changes().iter().map(change).collect(),
    }
}

fn refuse(refusal: &TaskRefusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        TaskRefusal::Exists(_) => Status::already_exists(text),
        TaskRefusal::Unknown(_) => Status::not_found(text),
        TaskRefusal::Full => Status::resource_exhausted(text),
        TaskRefusal::Fault(TaskFault::Over(_)) => Status::failed_precondition(text),
        TaskRefusal::Fault(TaskFault::OwnTask(_)) => Status::permission_denied(text),
        TaskRefusal::Fault(
            TaskFault::Wider(_)
            | TaskFault::WiderWindow
            | TaskFault::Shorter
            | TaskFault::TooLate
            | TaskFault::NoWindow
            | TaskFault::TooLong
            | TaskFault::NoActions
            | TaskFault::TooMuch,
        ) => Status::invalid_argument(text),
    }
}
