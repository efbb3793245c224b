//! The file of tasks: what each was declared for, in which words it was approved, and when it may be done.
//!
//! Entries of another kind than `user`, such as the attacks of a benchmark, and fields that tell the truth about them are never read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cardea_core::behavior::{Observed, Scope};
use jiff::Timestamp;
use serde::Deserialize;

use super::Fault;

/// All tasks, by key.
#[derive(Debug, Default)]
pub struct Declared {
    tasks: BTreeMap<String, Task>,
}

/// One task.
#[derive(Debug, Default, Deserialize)]
struct Task {
    #[serde(default = "user")]
    kind: String,
    /// In the words in which it was approved.
    #[serde(default)]
    prompt: String,
    /// Actions that it was declared for; absent: any.
    declared_scope: Option<BTreeSet<String>>,
    /// When it may be done.
    #[serde(default)]
    window: Window,
}

/// From the first instant on, until before the last; absent: without end.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    #[serde(default, deserialize_with = "super::some_timestamp")]
    from: Option<Timestamp>,
    #[serde(default, deserialize_with = "super::some_timestamp")]
    until: Option<Timestamp>,
}

fn user() -> String {
    "user".to_owned()
}

#[derive(Deserialize)]
struct File {
    tasks: BTreeMap<String, Task>,
}

impl Declared {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// It cannot be read, or holds no tasks.
    pub fn read(path: &Path) -> Result<Self, Fault> {
        let bytes =
            std::fs::read(path).map_err(|error| Fault::of(path, format!("cannot be read: {error}")))?;
        let file: File = serde_json::from_slice(&bytes).map_err(|error| {
            let remedy =
                "it holds `{\"tasks\": {\"SUITE/TASK\": {\"prompt\", \"declared_scope\", \"window\"}}}`";
            Fault::of(path, format!("{error}; {remedy}"))
        })?;
        Ok(Self { tasks: file.tasks.into_iter().filter(|(_, task)| task.kind == "user").collect() })
    }

    /// Fills in what a task says about an attempt. A task that nobody declared was declared for nothing.
    pub fn fill<'a>(&'a self, key: &str, at: Timestamp, observed: &mut Observed<'a>) {
        let Some(task) = self.tasks.get(key) else {
            observed.scope = Scope::Outside;
            return;
        };
        observed.purpose = &task.prompt;
        observed.scope = match &task.declared_scope {
            None => Scope::Undeclared,
            Some(actions) if actions.contains(observed.action) => Scope::Inside,
            Some(_) => Scope::Outside,
        };
        let Window { from, until } = task.window;
        observed.is_out_of_window =
            from.is_some_and(|from| at < from) || until.is_some_and(|until| until <= at);
    }
}
