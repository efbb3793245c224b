//! What a file of baselines says, for machines and as tables.

use cardea_core::behavior::approved::{Names, Seen};
use cardea_core::behavior::{Approved, Rules};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::bundle::node::table;

/// What is approved for an identity in a task.
#[derive(Serialize)]
pub(super) struct BaselineView<'a> {
    pub(super) identity: &'a str,
    /// Empty: what named no task.
    pub(super) task: &'a str,
    pub(super) runs: u32,
    /// Whether it rests on enough runs to block.
    pub(super) mature: bool,
    pub(super) last_used: Option<String>,
    /// Names that were left out because of limits.
    pub(super) left_out: u64,
    pub(super) actions: Vec<ActionView<'a>>,
    pub(super) transitions: Vec<TransitionView<'a>>,
    pub(super) references: Vec<NameView<'a>>,
    pub(super) networks: Vec<NameView<'a>>,
}

#[derive(Serialize)]
pub(super) struct ActionView<'a> {
    #[serde(flatten)]
    action: NameView<'a>,
    /// Whether it was also done without a target.
    without_target: bool,
    targets: Vec<NameView<'a>>,
}

#[derive(Serialize)]
pub(super) struct TransitionView<'a> {
    /// Empty: the beginning of a run.
    from: &'a str,
    #[serde(flatten)]
    to: NameView<'a>,
}

/// A name, and how it was used.
#[derive(Serialize)]
pub(super) struct NameView<'a> {
    name: &'a str,
    runs: u32,
    tasks: u32,
    last_used: Option<String>,
}

impl<'a> NameView<'a> {
    fn new(name: &'a str, seen: &Seen) -> Self {
        Self { name, runs: seen.runs, tasks: seen.tasks, last_used: time(seen.last_ms) }
    }

    fn all(names: &'a Names) -> Vec<Self> {
        names.iter().map(|(name, seen)| Self::new(name, seen)).collect()
    }

    fn row(&self, before: &[&str]) -> Vec<String> {
        let last = self.last_used.clone().unwrap_or_else(|| "-".to_owned());
        let cells = before.iter().map(|cell| (*cell).to_owned());
        cells.chain([self.name.to_owned(), self.runs.to_string(), self.tasks.to_string(), last]).collect()
    }
}

impl<'a> BaselineView<'a> {
    pub(super) fn new(identity: &'a str, task: &'a str, approved: &'a Approved, rules: &Rules) -> Self {
        let actions = approved.actions.iter().map(|(name, done)| ActionView {
            action: NameView::new(name, &done.seen),
            without_target: done.bare,
            targets: NameView::all(&done.targets),
        });
        let transitions = approved.transitions.iter().flat_map(|(from, after)| {
            after.iter().map(move |(to, seen)| TransitionView { from, to: NameView::new(to, seen) })
        });
        Self {
            identity,
            task,
            runs: approved.runs,
            mature: approved.runs >= rules.mature_runs,
            last_used: approved.last_used_ms().and_then(time),
            left_out: approved.left_out,
            actions: actions.collect(),
            transitions: transitions.collect(),
            references: NameView::all(&approved.references),
            networks: NameView::all(&approved.networks),
        }
    }

    /// Everything about it, one table for each kind of name.
    pub(super) fn details(&self) -> String {
        let actions = self.actions.iter().map(|action| action.action.row(&[])).collect();
        let targets = self
            .actions
            .iter()
            .flat_map(|action| action.targets.iter().map(|target| target.row(&[action.action.name])));
        let from = |from| if str::is_empty(from) { "(begin)" } else { from };
        let transitions = self.transitions.iter().map(|one| one.to.row(&[from(one.from)])).collect();
        let names = |names: &[NameView<'_>]| names.iter().map(|name| name.row(&[])).collect();
        let tables: [(&[&str], Vec<Vec<String>>); 5] = [
            (&["ACTION", "RUNS", "TASKS", "LAST USED"], actions),
            (&["ACTION", "TARGET", "RUNS", "TASKS", "LAST USED"], targets.collect()),
            (&["AFTER", "ACTION", "RUNS", "TASKS", "LAST USED"], transitions),
            (&["REFERENCE", "RUNS", "TASKS", "LAST USED"], names(&self.references)),
            (&["NETWORK", "RUNS", "TASKS", "LAST USED"], names(&self.networks)),
        ];
        let filled = tables.iter().filter(|(_, rows)| !rows.is_empty());
        filled.map(|(head, rows)| format!("\n{}", table(head, rows))).collect()
    }
}

/// One line for each.
pub(super) fn summary(baselines: &[BaselineView<'_>]) -> String {
    let row = |one: &BaselineView<'_>| {
        let targets: usize = one.actions.iter().map(|action| action.targets.len()).sum();
        let counts =
            [one.actions.len(), targets, one.transitions.len(), one.references.len(), one.networks.len()];
        let task = if one.task.is_empty() { "-" } else { one.task };
        let mature = if one.mature { "yes" } else { "no" };
        let mut cells =
            vec![one.identity.to_owned(), task.to_owned(), one.runs.to_string(), mature.to_owned()];
        cells.extend(counts.map(|count| count.to_string()));
        cells.push(one.last_used.clone().unwrap_or_else(|| "-".to_owned()));
        cells
    };
    let head = [
        "IDENTITY",
        "TASK",
        "RUNS",
        "MATURE",
        "ACTIONS",
        "TARGETS",
        "TRANSITIONS",
        "REFERENCES",
        "NETWORKS",
        "LAST USED",
    ];
    table(&head, &baselines.iter().map(row).collect::<Vec<_>>())
}

/// A time as RFC 3339, to the second.
pub(super) fn time(at_ms: i64) -> Option<String> {
    Timestamp::from_millisecond(at_ms).ok().map(|at| format!("{at:.0}"))
}
