//! The life of an approved task: approved, narrowed, extended, ended.
//!
//! A life is its approval and the set of its changes; what the task is now is what they come to when they are taken in
//! the order of their times, of two at the same time the strict one last. INVARIANT (order): so the order in which changes
//! arrive, and how often, does not matter. INVARIANT (only narrower): no change brings back an action or a resource, and
//! none moves the end past [`Approval::latest_end_ms`]. INVARIANT (ended stays ended): after its end, nothing counts.
//! Limits: [`CHANGES_MAX`] changes, [`TEXT_BYTES_MAX`] bytes of text in all.

use std::collections::BTreeSet;
use std::sync::Arc;

use cardea_policy_store::engine::Uid;
use smol_str::SmolStr;

use super::{ResourcePattern, SCOPE_MAX, Task};
use crate::attempt::{Attempt, NAME_BYTES_MAX};
use crate::named::Named;
use crate::time::Now;

/// Most changes of one task, its end not counted: one a day for two months.
pub const CHANGES_MAX: usize = 64;
/// Longest life of a task from its approval, extensions included, in milliseconds: 90 days, the usual rhythm in which
/// access is reviewed.
pub const LIFE_MAX_MS: i64 = 90 * 24 * 3600 * 1000;
/// All texts of a task and its changes, in bytes.
pub const TEXT_BYTES_MAX: usize = 32 * 1024;
/// Longest action, pattern, purpose or reason, in bytes; entity ids have their own limit.
pub const WORD_BYTES_MAX: usize = 256;

/// What was approved, by whom, for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Scope and window.
    pub task: Task,
    /// Who may use it.
    pub agent: Uid,
    /// On whose behalf; `None`: the agent's own work.
    pub on_behalf_of: Option<Uid>,
    /// Who approved it.
    pub approved_by: Named,
    /// When, Unix milliseconds.
    pub approved_ms: i64,
    /// No extension goes past it, Unix milliseconds.
    pub latest_end_ms: i64,
}

/// What is left of a task; unset parts stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Narrowing {
    /// The actions that are left.
    pub actions: Option<BTreeSet<SmolStr>>,
    /// The resources that are left.
    pub resources: Option<Vec<ResourcePattern>>,
    /// A later start, Unix milliseconds.
    pub not_before_ms: Option<i64>,
    /// An earlier end, Unix milliseconds.
    pub not_after_ms: Option<i64>,
}

/// What a change does, from open to strict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The window ends later, Unix milliseconds.
    Extended(i64),
    /// Something is taken away.
    Narrowed(Narrowing),
    /// It is over for good.
    Ended,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// What it does.
    pub step: Step,
    /// Who asked for it.
    pub by: Named,
    /// Why, in words.
    pub reason: SmolStr,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its window has not opened yet.
    Waiting,
    /// It may run.
    Active,
    /// Its window has closed.
    Over,
    /// It was ended.
    Ended,
}

/// Why an approval or a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskFault {
    /// It was ended, or its window has closed.
    #[error("task `{0}` is over; approve another")]
    Over(SmolStr),
    /// The scope would grow.
    #[error("`{0}` is not within the task; a task only ever gets narrower, so approve another for it")]
    Wider(String),
    /// The window would grow at the start, or by a narrowing.
    #[error("the window would be wider than it is; narrow it, or extend its end")]
    WiderWindow,
    /// The new end lies before the old one.
    #[error("the new end is not later than the old one; narrow the task to end it earlier")]
    Shorter,
    /// The new end lies past the latest that was approved.
    #[error("the new end lies past the task's `latest_end`; approve another task for the time after it")]
    TooLate,
    /// The window is empty or has passed.
    #[error("the task's window is empty or has passed; give it an end that lies ahead, after its start")]
    NoWindow,
    /// The window is longer than a task may run.
    #[error("a task has an end at most 90 days after its approval, and `latest_end` lies between the two")]
    TooLong,
    /// No action is in scope.
    #[error("a task without actions covers nothing; name its actions")]
    NoActions,
    /// The agent decides about its own task.
    #[error("`{0}` is the task's agent and cannot approve or extend it; let somebody else do it")]
    OwnTask(Named),
    /// A limit is exceeded.
    #[error(
        "a task has an id of 1 to {NAME_BYTES_MAX} bytes, at most {SCOPE_MAX} actions, {SCOPE_MAX} resources and \
         {CHANGES_MAX} changes, texts of at most {WORD_BYTES_MAX} bytes, and {TEXT_BYTES_MAX} bytes in all"
    )]
    TooMuch,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    approval: Approval,
    changes: BTreeSet<Change>,
    /// What it all comes to.
    task: Arc<Task>,
    ended: bool,
}

impl Approval {
    /// Whether it can be approved now.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, now: Now) -> Result<(), TaskFault> {
        let task = &self.task;
        if task.id.is_empty() || task.id.len() > NAME_BYTES_MAX {
            return Err(TaskFault::TooMuch);
        }
        if task.actions.is_empty() {
            return Err(TaskFault::NoActions);
        }
        let Some(end_ms) = task.not_after_ms else { return Err(TaskFault::NoWindow) };
        if end_ms <= now.wall_ms || task.not_before_ms.is_some_and(|start_ms| end_ms <= start_ms) {
            return Err(TaskFault::NoWindow);
        }
        let longest_ms = self.approved_ms.saturating_add(LIFE_MAX_MS);
        if self.latest_end_ms < end_ms || self.latest_end_ms > longest_ms {
            return Err(TaskFault::TooLong);
        }
        if self.approved_by.is(&self.agent) {
            return Err(TaskFault::OwnTask(self.approved_by.clone()));
        }
        within_limits(self, &BTreeSet::new())
    }
}

impl Approval {
    /// Whether it says the same as another, apart from when it was said: a repeated call.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        let span = |one: &Self| one.latest_end_ms.saturating_sub(one.approved_ms);
        let ends_alike = self.latest_end_ms == other.latest_end_ms || span(self) == span(other);
        ends_alike
            && (&self.task, &self.agent, &self.on_behalf_of, &self.approved_by)
                == (&other.task, &other.agent, &other.on_behalf_of, &other.approved_by)
    }
}

impl Life {
    /// The life of a task that was approved and not changed yet.
    #[must_use]
    pub fn new(approval: Approval) -> Self {
        let task = Arc::new(approval.task.clone());
        Self { approval, changes: BTreeSet::new(), task, ended: false }
    }

    /// What was approved.
    #[must_use]
    pub fn approval(&self) -> &Approval {
        &self.approval
    }

    /// Its changes, oldest first.
    #[must_use]
    pub fn changes(&self) -> &BTreeSet<Change> {
        &self.changes
    }

    /// The task as it is.
    #[must_use]
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// When something about it was last decided, Unix milliseconds.
    #[must_use]
    pub fn newest_ms(&self) -> i64 {
        self.changes.last().map_or(self.approval.approved_ms, |change| change.at_ms)
    }

    /// Where it stands.
    #[must_use]
    pub fn standing(&self, now: Now) -> Standing {
        if self.ended {
            Standing::Ended
        } else if self.task.not_after_ms.is_some_and(|end_ms| end_ms <= now.wall_ms) {
            Standing::Over
        } else if self.task.is_active(now) {
            Standing::Active
        } else {
            Standing::Waiting
        }
    }

    /// Whether the attempt may use it: the agent is in its chain, and whom it acts for stands above the agent.
    #[must_use]
    pub fn serves(&self, attempt: &Attempt) -> bool {
        let Some(place) = attempt.hops().position(|hop| *hop == self.approval.agent) else { return false };
        let mut above = attempt.hops().take(place);
        self.approval.on_behalf_of.as_ref().is_none_or(|root| above.any(|hop| hop == root))
    }

    /// Whether a change may be made now, by somebody who knows the task as it is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, change: &Change, now: Now) -> Result<(), TaskFault> {
        let is_over = matches!(self.standing(now), Standing::Over | Standing::Ended);
        if is_over && !matches!(change.step, Step::Ended) {
            return Err(TaskFault::Over(self.task.id.clone()));
        }
        match &change.step {
            Step::Ended => return short([change.reason.as_str()]),
            Step::Extended(end_ms) => {
                if change.by.is(&self.approval.agent) {
                    return Err(TaskFault::OwnTask(change.by.clone()));
                }
                if self.task.not_after_ms.is_none_or(|known| *end_ms <= known) {
                    return Err(TaskFault::Shorter);
                }
                if *end_ms > self.approval.latest_end_ms {
                    return Err(TaskFault::TooLate);
                }
            }
            Step::Narrowed(narrowing) => narrowing.check(&self.task)?,
        }
        let mut changes = self.changes.clone();
        changes.insert(change.clone());
        if changes.len() > CHANGES_MAX {
            return Err(TaskFault::TooMuch);
        }
        within_limits(&self.approval, &changes)
    }

    /// Takes in a change, whenever it arrives; `false` if it is there already. What it asks for beyond the task has no
    /// effect.
    pub fn apply(&mut self, change: Change) -> bool {
        if !self.changes.insert(change) {
            return false;
        }
        let mut task = self.approval.task.clone();
        self.ended = false;
        for change in &self.changes {
            match &change.step {
                Step::Extended(end_ms) => {
                    let runs = task.not_after_ms.is_some_and(|known| change.at_ms < known);
                    if runs {
                        let end_ms = (*end_ms).min(self.approval.latest_end_ms);
                        task.not_after_ms = task.not_after_ms.map(|known| known.max(end_ms));
                    }
                }
                Step::Narrowed(narrowing) => narrowing.apply(&mut task),
                Step::Ended => {
                    task.actions.clear();
                    task.not_after_ms =
                        Some(task.not_after_ms.map_or(change.at_ms, |known| known.min(change.at_ms)));
                    self.ended = true;
                    break;
                }
            }
        }
        self.task = Arc::new(task);
        true
    }
}

impl Narrowing {
    fn check(&self, task: &Task) -> Result<(), TaskFault> {
        if let Some(action) = self.actions.iter().flatten().find(|action| !task.actions.contains(action)) {
            return Err(TaskFault::Wider(action.to_string()));
        }
        let is_within = |pattern: &&ResourcePattern| {
            task.resources.is_empty() || task.resources.iter().any(|known| known.contains(pattern))
        };
        if let Some(pattern) = self.resources.iter().flatten().find(|pattern| !is_within(pattern)) {
            return Err(TaskFault::Wider(pattern.to_string()));
        }
        let starts_earlier = self
            .not_before_ms
            .is_some_and(|start_ms| task.not_before_ms.is_some_and(|known| start_ms < known));
        let ends_later =
            self.not_after_ms.is_some_and(|end_ms| task.not_after_ms.is_some_and(|known| end_ms > known));
        if starts_earlier || ends_later {
            return Err(TaskFault::WiderWindow);
        }
        let (start_ms, end_ms) =
            (self.not_before_ms.or(task.not_before_ms), self.not_after_ms.or(task.not_after_ms));
        if start_ms.zip(end_ms).is_some_and(|(start_ms, end_ms)| end_ms <= start_ms) {
            return Err(TaskFault::NoWindow);
        }
        Ok(())
    }

    fn apply(&self, task: &mut Task) {
        if let Some(actions) = &self.actions {
            task.actions.retain(|action| actions.contains(action));
        }
        if let Some(resources) = &self.resources {
            task.resources = if task.resources.is_empty() {
                resources.clone()
            } else {
                common(&task.resources, resources)
            };
            // No pattern at all would mean every resource.
            if task.resources.is_empty() {
                task.actions.clear();
            }
        }
        task.not_before_ms = task.not_before_ms.max(self.not_before_ms);
        let ends = [task.not_after_ms, self.not_after_ms];
        task.not_after_ms = ends.into_iter().flatten().min();
    }
}

/// What both lists match: of two patterns one contains the other, or they share nothing.
fn common(some: &[ResourcePattern], others: &[ResourcePattern]) -> Vec<ResourcePattern> {
    let within = |pattern: &&ResourcePattern, list: &[ResourcePattern]| {
        list.iter().any(|other| other.contains(pattern))
    };
    let of_some = some.iter().filter(|pattern| within(pattern, others));
    let of_others = others.iter().filter(|pattern| within(pattern, some));
    let found: BTreeSet<ResourcePattern> = of_some.chain(of_others).cloned().collect();
    found.into_iter().collect()
}

fn short<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<(), TaskFault> {
    if texts.into_iter().all(|text| text.len() <= WORD_BYTES_MAX) { Ok(()) } else { Err(TaskFault::TooMuch) }
}

fn within_limits(approval: &Approval, changes: &BTreeSet<Change>) -> Result<(), TaskFault> {
    let mut bytes = approval.task.id.len() + approval.task.purpose.len();
    short([approval.task.purpose.as_str()])?;
    let mut scope = |actions: &mut dyn Iterator<Item = &SmolStr>, resources: &[ResourcePattern]| {
        let mut count = 0;
        for action in actions {
            short([action.as_str()])?;
            bytes += action.len();
            count += 1;
        }
        for pattern in resources {
            short([pattern.id.as_str(), pattern.type_name.as_str()])?;
            bytes += pattern.id.len() + pattern.type_name.len();
        }
        if count > SCOPE_MAX || resources.len() > SCOPE_MAX { Err(TaskFault::TooMuch) } else { Ok(()) }
    };
    scope(&mut approval.task.actions.iter(), &approval.task.resources)?;
    for change in changes {
        if let Step::Narrowed(Narrowing { actions, resources, .. }) = &change.step {
            scope(&mut actions.iter().flatten(), resources.as_deref().unwrap_or(&[]))?;
        }
    }
    for change in changes {
        short([change.reason.as_str()])?;
        bytes += change.reason.len() + change.by.type_name.len() + change.by.id.len();
    }
    if bytes > TEXT_BYTES_MAX { Err(TaskFault::TooMuch) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
