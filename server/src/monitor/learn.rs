//! Learns from recorded runs that somebody approved.
//!
//! Limit: [`RUNS_OPEN_MAX`] runs at the same time; the oldest is taken as ended when one more begins.

use cardea_core::behavior::approved::Merge;
use cardea_core::behavior::{Approved, Kept, Step};

use super::attempts::Recorded;
use super::config::{Config, Run};
use super::expiring::Expiring;
use super::prepared::Prepared;

/// Most runs that are learned from at the same time.
pub const RUNS_OPEN_MAX: usize = 10_000;

/// See the module.
pub struct Learner<'c> {
    config: &'c Config,
    kept: Kept,
    open: Expiring<RunKey, OpenRun>,
    left_out: u64,
}

/// Identity, session and task.
type RunKey = (String, String, String);

#[derive(Default)]
struct OpenRun {
    principal: String,
    task: String,
    previous: String,
    done: Approved,
}

impl<'c> Learner<'c> {
    /// Learns on top of what is approved already.
    #[must_use]
    pub fn new(config: &'c Config, kept: Kept) -> Self {
        Self { config, kept, open: Expiring::new(RUNS_OPEN_MAX), left_out: 0 }
    }

    /// Takes in one attempt of an approved run.
    pub fn learn(&mut self, recorded: &Recorded) {
        let prepared = Prepared::new(self.config, recorded);
        let task = prepared.task(self.config).unwrap_or_default();
        let observed = prepared.observed(self.config);
        self.kept.attempts += 1;
        let key = (recorded.principal.clone(), recorded.session.clone(), task.to_owned());
        let (run, ended) = self.open.entry(&key);
        if run.principal.is_empty() {
            run.principal.clone_from(&recorded.principal);
            task.clone_into(&mut run.task);
        }
        run.done.note(&Step { observed, previous: &run.previous, at_ms: recorded.ts.as_millisecond() });
        if !observed.is_denied {
            recorded.action.clone_into(&mut run.previous);
        }
        if self.config.attempts.run == Run::Attempt {
            let done = std::mem::take(&mut run.done);
            if !observed.is_denied {
                close(&mut self.kept, &recorded.principal, task, &done);
            }
        }
        if let Some(ended) = ended {
            self.end(&ended);
        }
    }

    /// Says that an attempt of these runs deviated, so that it was not learned from.
    pub const fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// What is approved now, and how many attempts were left out because they deviated.
    #[must_use]
    pub fn finish(mut self) -> (Kept, u64) {
        let open = std::mem::replace(&mut self.open, Expiring::new(0));
        for run in open.into_values() {
            self.end(&run);
        }
        (self.kept, self.left_out)
    }

    fn end(&mut self, run: &OpenRun) {
        if self.config.attempts.run == Run::Session {
            close(&mut self.kept, &run.principal, &run.task, &run.done);
        }
    }
}

/// Takes one approved run in.
pub(super) fn close(kept: &mut Kept, principal: &str, task: &str, done: &Approved) {
    let tasks = kept.baselines.entry(principal.to_owned()).or_default();
    let mut one = Approved { runs: 1, ..Approved::default() };
    one.merge(done, Merge::SameTask);
    tasks.entry(task.to_owned()).or_default().merge(&one, Merge::SameTask);
}
