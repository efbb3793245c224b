//! A report for people: what was found in scored attempts, as one page that needs nothing else.
//!
//! Attempts are counted as they are read; what is held does not grow with the file beyond [`IDENTITIES_MAX`] identities, the limits
//! of `cases.rs` and `calls.rs`, and `SESSIONS_MAX` sessions. The same files give the same bytes. INVARIANT (escaped): every text from
//! outside reaches the page through `Html::text`; markup comes from literals alone.

mod calls;
mod cases;
mod decided;
mod html;
mod page;
mod tally;
#[cfg(test)]
mod tests;
mod timeline;
mod told;

use std::collections::BTreeMap;

use cardea_core::behavior::{ActionClass, Kept};
use jiff::Timestamp;

use super::attempts::Recorded;
use super::config::{Config, Run};
use super::expiring::Expiring;
use super::prepared::Prepared;
use super::score::SESSIONS_MAX;
use calls::Calls;
use cases::Cases;
use decided::Answers;
use tally::Tally;
use timeline::Timeline;
pub use told::{Pairs, Told};

/// Most identities that are counted one by one; the others are counted together.
pub const IDENTITIES_MAX: usize = 1_000;
/// Longest text from outside that is held, in characters.
const TEXT_CHARS_MAX: usize = 400;

/// Of whom a report is; empty: of all.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Only of this identity.
    pub identity: Option<String>,
    /// Only of this task.
    pub task: Option<String>,
}

impl Choice {
    /// Whether the report is of this attempt.
    fn takes(&self, principal: &str, task: &str) -> bool {
        let is_it = |only: &Option<String>, name: &str| only.as_ref().is_none_or(|only| only == name);
        is_it(&self.identity, principal) && is_it(&self.task, task)
    }
}

/// See the module.
pub struct Report<'c> {
    config: &'c Config,
    kept: &'c Kept,
    choice: Choice,
    whole: Tally,
    times: Option<(Timestamp, Timestamp)>,
    timeline: Timeline,
    classes: BTreeMap<ActionClass, Tally>,
    identities: BTreeMap<String, Identity>,
    /// Of identities for which there was no room.
    others: Tally,
    cases: Cases,
    open: Expiring<(String, String), Session>,
    sessions: u64,
    sessions_with_incidents: u64,
    /// Of what nodes decided; `None`: attempts were scored.
    answers: Option<Answers>,
}

/// What was found of one identity.
#[derive(Clone, Debug, Default)]
struct Identity {
    tally: Tally,
    calls: Calls,
}

/// What was seen of one session so far.
#[derive(Clone, Debug, Default)]
struct Session {
    previous: String,
    attempts: u64,
    is_counted: bool,
    has_incident: bool,
}

impl<'c> Report<'c> {
    /// A report that has seen nothing.
    #[must_use]
    pub fn new(config: &'c Config, kept: &'c Kept, choice: Choice) -> Self {
        Self {
            config,
            kept,
            choice,
            whole: Tally::default(),
            times: None,
            timeline: Timeline::default(),
            classes: BTreeMap::new(),
            identities: BTreeMap::new(),
            others: Tally::default(),
            cases: Cases::default(),
            open: Expiring::new(SESSIONS_MAX),
            sessions: 0,
            sessions_with_incidents: 0,
            answers: None,
        }
    }

    /// Attempts that the report is of so far.
    #[must_use]
    pub const fn attempts(&self) -> u64 {
        self.whole.attempts
    }

    /// Takes in one attempt and what was said of it.
    pub fn note(&mut self, recorded: &Recorded, told: &Told) {
        let prepared = Prepared::new(self.config, recorded);
        let observed = prepared.observed(self.config);
        let task = prepared.task(self.config).unwrap_or_default();
        let key = (recorded.principal.clone(), recorded.session.clone());
        let (session, _) = self.open.entry(&key);
        let (place, previous) = (session.attempts, session.previous.clone());
        session.attempts += 1;
        // What policy denied did not happen: nothing comes after it.
        if !observed.is_denied {
            session.previous.clone_from(&recorded.action);
        }
        if !self.choice.takes(&recorded.principal, task) {
            return;
        }
        self.sessions += u64::from(!session.is_counted);
        session.is_counted = true;
        if told.is_incident() && !session.has_incident {
            session.has_incident = true;
            self.sessions_with_incidents += 1;
        }
        self.whole.note(told);
        let (first, last) = self.times.unwrap_or((recorded.ts, recorded.ts));
        self.times = Some((first.min(recorded.ts), last.max(recorded.ts)));
        self.timeline.note(recorded.ts.as_second(), told);
        self.classes.entry(observed.class).or_default().note(told);
        if told.deviates() {
            self.cases.note(recorded, task, observed.class, told);
        }
        let name = clipped(&recorded.principal);
        if self.identities.len() >= IDENTITIES_MAX && !self.identities.contains_key(&name) {
            self.others.note(told);
            return;
        }
        let identity = self.identities.entry(name).or_default();
        identity.tally.note(told);
        identity.calls.note(&previous, &recorded.action, place, told.is_incident());
    }

    /// The page.
    #[must_use]
    pub fn page(&self) -> String {
        page::page(self)
    }

    /// What was found, in one paragraph of plain text.
    #[must_use]
    pub fn summary(&self) -> String {
        page::words::summary(self)
    }

    /// Whether sessions mean anything here.
    fn has_sessions(&self) -> bool {
        self.config.attempts.run == Run::Session
    }

    /// Identities, the one with the most severe incidents first.
    fn ranked(&self) -> Vec<(&str, &Identity)> {
        let mut ranked: Vec<_> = self.identities.iter().map(|(name, one)| (name.as_str(), one)).collect();
        ranked.sort_by_key(|(_, one)| std::cmp::Reverse((one.tally.severity(), one.tally.attempts)));
        ranked
    }
}

/// Enough of a text from outside.
fn clipped(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
