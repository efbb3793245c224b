//! Approved tasks: approved, changed, looked up by the attempts that name them.
//!
//! Tasks are never evicted; a task that has been over for [`KEPT_MS`] makes room when the table is full, and a full table
//! refuses new ones. What a session or an attempt refers to is the id, so a change counts at once for all of them.

use std::cell::Cell;
use std::sync::Arc;

use cardea_core::attempt::Attempt;
use cardea_core::facts::TaskFacts;
use cardea_core::session::Session;
use cardea_core::task::life::{Approval, Change, LIFE_MAX_MS, Life, Step, TaskFault};
use cardea_core::time::Now;
use cardea_policy_store::engine::Uid;
use smol_str::SmolStr;

use super::{Key, State, TableFull, work_rows};
use crate::ledger::Table;

/// How long a task that is over is kept, in milliseconds: as long as one may live, so that whoever asks why something
/// stopped finds it.
const KEPT_MS: i64 = LIFE_MAX_MS;

/// Why a task could not be approved or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskRefusal {
    /// Another one has the id.
    #[error("another task has the id `{0}`; approve it under an id of its own")]
    Exists(SmolStr),
    /// This node does not know it.
    #[error("task `{0}` is not known to this node")]
    Unknown(SmolStr),
    /// There is no place.
    #[error("the table of tasks is full; raise `state.tasks_max`, or wait until old tasks make room")]
    Full,
    /// It is not what a task may be.
    #[error(transparent)]
    Fault(#[from] TaskFault),
}

impl From<TableFull> for TaskRefusal {
    fn from(_: TableFull) -> Self {
        Self::Full
    }
}

/// A task after a call, and the state version from which decisions know it.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The task as it is now.
    pub life: Arc<Life>,
    /// State version of the change.
    pub version: u64,
    /// Whether the call changed anything.
    pub changed: bool,
}

impl State {
    /// Approves a task. The same approval again changes nothing.
    ///
    /// # Errors
    /// When it is not what a task may be, the id is taken, or there is no place.
    pub fn approve_task(&self, approval: Approval, now: Now) -> Result<Decided, TaskRefusal> {
        approval.check(now)?;
        let id = approval.task.id.clone();
        let life = Arc::new(Life::new(approval));
        let is_new = Cell::new(false);
        let life = self.tasks.update(
            id.clone(),
            now.wall_ms,
            || {
                is_new.set(true);
                Arc::clone(&life)
            },
            |life| is_spent(life, now),
            |known| {
                if !known.approval().is_same_as(life.approval()) {
                    return Err(TaskRefusal::Exists(id.clone()));
                }
                if is_new.get() {
                    // Under the lock that orders changes of this task.
                    self.keep(Table::Tasks, id.as_bytes().to_vec(), work_rows::life(known));
                }
                Ok(Arc::clone(known))
            },
        )??;
        let is_new = is_new.get();
        let version = if is_new { self.advance(Key::Task(id), "task_approved") } else { self.version() };
        Ok(Decided { life, version, changed: is_new })
    }

    /// Narrows, extends or ends a task.
    ///
    /// # Errors
    /// When it is not known, or the task may not be changed like this.
    pub fn change_task(&self, id: &str, change: Change, now: Now) -> Result<Decided, TaskRefusal> {
        let unknown = || TaskRefusal::Unknown(id.into());
        let what = match change.step {
            Step::Extended(_) => "task_extended",
            Step::Narrowed(_) => "task_narrowed",
            Step::Ended => "task_ended",
        };
        let (life, changed) = self
            .tasks
            .change(id, |known| {
                // The end of what has ended is asked for once; its repetition says nothing new.
                let is_repeated = matches!(change.step, Step::Ended)
                    && known.changes().iter().any(|known| matches!(known.step, Step::Ended));
                if is_repeated {
                    return Ok((Arc::clone(known), false));
                }
                known.check(&change, now)?;
                let mut next = Life::clone(known);
                let changed = next.apply(change);
                *known = Arc::new(next);
                // Under the lock that orders changes of this task.
                self.keep(Table::Tasks, id.as_bytes().to_vec(), work_rows::life(known));
                Ok((Arc::clone(known), changed))
            })
            .ok_or_else(unknown)?
            .map_err(TaskRefusal::Fault)?;
        let version = if changed { self.advance(Key::Task(id.into()), what) } else { self.version() };
        Ok(Decided { life, version, changed })
    }

    /// One task.
    #[must_use]
    pub fn task(&self, id: &str) -> Option<Arc<Life>> {
        self.tasks.get(id)
    }

    /// Every task, of one agent or of all, by id. Walks the whole table: not for the hot path.
    #[must_use]
    pub fn tasks_of(&self, agent: Option<&Uid>) -> Vec<Arc<Life>> {
        let mut found = Vec::new();
        self.tasks.each(|_, life| {
            if agent.is_none_or(|agent| life.approval().agent == *agent) {
                found.push(Arc::clone(life));
            }
        });
        found.sort_by(|a, b| a.task().id.cmp(&b.task().id));
        found
    }

    /// The task that an attempt belongs to. An attempt cannot leave the task that its session was opened for.
    pub(super) fn task_facts(&self, attempt: &Attempt, session: Option<&Session>) -> TaskFacts {
        let of_session = session.and_then(|session| session.task_id.as_ref());
        let id = match (&attempt.task_id, of_session) {
            (None, None) => return TaskFacts::OfSession,
            (Some(named), Some(id)) if named != id => return TaskFacts::Unknown,
            (Some(_), None) if session.is_some_and(|session| session.task.is_some()) => {
                return TaskFacts::Unknown;
            }
            (Some(id), _) | (None, Some(id)) => id,
        };
        match self.tasks.get(id.as_str()) {
            Some(life) if life.serves(attempt) => {
                TaskFacts::Approved(Arc::clone(life.task()), life.newest_ms())
            }
            _ => TaskFacts::Unknown,
        }
    }
}

/// Whether forgetting it changes no decision, and nobody looks for it any longer.
pub(super) fn is_spent(life: &Life, now: Now) -> bool {
    let end_ms = life.task().not_after_ms.unwrap_or(i64::MAX);
    // An extension is refused once the task is over, so what is over stays so.
    end_ms.saturating_add(KEPT_MS) < now.wall_ms
}
