//! Scores recorded attempts against baselines: the service's comparison, attempt by attempt, in the order of the recording.
//!
//! Limit: [`SESSIONS_MAX`] sessions; the one that began first is forgotten when one more begins, and counted.

use cardea_core::behavior::evidence::{Subject, evidence};
use cardea_core::behavior::kept::Compiled;
use cardea_core::behavior::{Baselines, BurstDetector, Deviation, Key, Observed, SessionBehavior, compare};
use serde::Serialize;

use super::attempts::Recorded;
use super::config::Config;
use super::declared::Declared;
use super::expiring::Expiring;
use super::prepared::Prepared;

/// Most sessions that are followed at the same time.
pub const SESSIONS_MAX: usize = 250_000;

/// See the module.
pub struct Scorer<'c> {
    config: &'c Config,
    key: Key,
    baselines: Compiled,
    declared: Option<Declared>,
    sessions: Expiring<(String, String), SessionBehavior>,
    places: Expiring<String, u64>,
    bursts: Option<BurstDetector>,
    forgotten: u64,
}

/// What is said of one attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scored<'a> {
    /// Its session.
    pub session: &'a str,
    /// Its place in it, from 0.
    pub n: u64,
    /// The evidence, by name.
    pub flags: Vec<&'static str>,
    /// What it amounts to.
    pub assessment: &'static str,
    /// How sure that is, 0 to 1.
    pub confidence: f64,
    /// What the monitor would answer.
    pub response: &'static str,
    /// The evidence in words.
    pub evidence: Vec<String>,
}

impl<'c> Scorer<'c> {
    /// A scorer that has seen no attempt; baselines must be compiled under the same key.
    #[must_use]
    pub fn new(config: &'c Config, key: Key, baselines: Compiled, declared: Option<Declared>) -> Self {
        let bursts = config.rules.burst_score.map(|_| BurstDetector::new(config.burst.merge_below));
        let (sessions, places) = (Expiring::new(SESSIONS_MAX), Expiring::new(SESSIONS_MAX));
        Self { config, key, baselines, declared, sessions, places, bursts, forgotten: 0 }
    }

    /// Sessions that were forgotten for lack of room.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// How one attempt deviates.
    pub fn deviation(&mut self, recorded: &Recorded) -> Deviation {
        self.judge(recorded, |_, deviation, _, _| *deviation)
    }

    /// The same with its evidence, ready to be printed.
    pub fn score<'a>(&mut self, recorded: &'a Recorded) -> Scored<'a> {
        let (place, _) = self.places.entry(&recorded.session);
        let n = *place;
        *place += 1;
        self.judge(recorded, |task, deviation, observed, baselines| Scored {
            session: &recorded.session,
            n,
            flags: deviation.flags.iter().map(cardea_core::behavior::Flag::name).collect(),
            assessment: deviation.assessment.name(),
            confidence: f64::from(deviation.confidence) / 100.0,
            response: deviation.response.name(),
            evidence: evidence(
                deviation,
                Subject { principal: &recorded.principal, task },
                observed,
                baselines,
            ),
        })
    }

    fn judge<T>(
        &mut self,
        recorded: &Recorded,
        tell: impl FnOnce(&str, &Deviation, &Observed<'_>, &Baselines<'_>) -> T,
    ) -> T {
        let prepared = Prepared::new(self.config, recorded);
        let task = prepared.task(self.config);
        let mut observed = prepared.observed(self.config);
        if let (Some(declared), Some(task)) = (&self.declared, task) {
            declared.fill(&self.task_key(recorded, task), recorded.ts, &mut observed);
        }
        if let Some(bursts) = &mut self.bursts {
            let (from, to) = (self.key.text(&recorded.principal), self.key.text(&recorded.resource));
            observed.burst_score = bursts.observe(from, to, self.config.burst.tick(recorded.ts.as_second()));
        }
        let identity = self.baselines.identity(&recorded.principal);
        let baselines = identity.map(|identity| identity.baselines(task)).unwrap_or_default();
        let of = (recorded.principal.clone(), recorded.session.clone());
        let (session, forgotten) = self.sessions.entry(&of);
        self.forgotten += u64::from(forgotten.is_some());
        let deviation = compare(&self.config.rules, &self.key, &observed, &baselines, session);
        // The recording tells what happened: all that policy did not deny, whatever the monitor would have answered.
        session.note(&deviation, !observed.is_denied, recorded.ts.as_millisecond());
        tell(task.unwrap_or_default(), &deviation, &observed, &baselines)
    }

    fn task_key(&self, recorded: &Recorded, task: &str) -> String {
        let suite = recorded.principal.strip_prefix(&self.config.attempts.principal_prefix);
        format!("{}/{task}", suite.unwrap_or(&recorded.principal))
    }
}
