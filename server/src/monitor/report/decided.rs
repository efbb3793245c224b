//! Decisions of nodes in a report: what was compared, what that came to, and what policies answered.
//!
//! Limit: [`BASELINES_MAX`] baselines are named as those that were compared with.

use std::collections::BTreeSet;

use cardea_core::behavior::{Assessment, Response};
use cardea_proto::v1::{self, record::Entry};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Report, Told, clipped};
use crate::monitor::attempts::Recorded;
use crate::monitor::audited::{entity, unix_ms};
use crate::monitor::config::Config;

/// Most baselines that are named; more than a few follow each other only in long spans.
const BASELINES_MAX: usize = 8;

/// What is counted beside the deviations.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    pub(super) allowed: u64,
    pub(super) stepped_up: u64,
    pub(super) denied: u64,
    /// Attempts about which no policy reads the comparison.
    pub(super) uncompared: u64,
    /// Incidents of observed identities, which policies did not see.
    pub(super) observed: u64,
    /// Baselines that deviations were told from.
    pub(super) baselines: BTreeSet<String>,
}

impl Report<'_> {
    /// Takes in one record of a node; all but decisions about attempts are skipped.
    pub fn note_record(&mut self, record: &v1::Record) {
        let Some(Entry::Decision(decision)) = &record.entry else { return };
        if decision.hold.is_some() {
            return;
        }
        let principal = entity(decision.principal.as_ref());
        let observed = decision.observed.as_deref();
        let task = observed.map(|observed| observed.task.as_str()).unwrap_or_default();
        if !self.choice.takes(&principal, task) {
            return;
        }
        let Some(observed) = observed else {
            self.answers.get_or_insert_default().uncompared += 1;
            return;
        };
        let at_ms = record.time.as_ref().map_or(0, unix_ms);
        let Ok(ts) = Timestamp::from_millisecond(at_ms) else { return };
        let recorded = Recorded {
            ts,
            principal,
            session: decision.session_id.clone(),
            action: decision.action.as_ref().map(|action| action.id.clone()).unwrap_or_default(),
            resource: observed.targets.first().cloned().unwrap_or_default(),
            context: context(self.config, task, decision.decision()),
        };
        let told = told(decision);
        let answers = self.answers.get_or_insert_default();
        match told.response {
            Response::Allow => answers.allowed += 1,
            Response::StepUp => answers.stepped_up += 1,
            Response::Deny => answers.denied += 1,
        }
        if let Some(deviation) = &decision.deviation {
            answers.observed += u64::from(deviation.observed && told.is_incident());
            let is_new = answers.baselines.len() < BASELINES_MAX && !deviation.baseline.is_empty();
            if is_new {
                answers.baselines.insert(clipped(&deviation.baseline));
            }
        }
        self.note(&recorded, &told);
    }
}

/// As the configuration reads attempts.
fn context(config: &Config, task: &str, decision: v1::Decision) -> Map<String, Value> {
    let is_denied = decision != v1::Decision::Allow;
    let pairs = [
        (config.attempts.task.clone(), Value::from(task)),
        (config.attempts.denied.clone(), Value::from(is_denied)),
    ];
    pairs.into_iter().collect()
}

/// What a record says of an attempt, as scoring says it. A word that this version does not know is the severest.
fn told(decision: &v1::DecisionRecord) -> Told {
    let response = match decision.decision() {
        v1::Decision::Allow => Response::Allow,
        v1::Decision::StepUp => Response::StepUp,
        v1::Decision::Deny | v1::Decision::Unspecified => Response::Deny,
    };
    let Some(deviation) = &decision.deviation else {
        return Told::given(Vec::new(), Assessment::None, 0, response, Vec::new());
    };
    let known = [Assessment::None, Assessment::Misconfiguration, Assessment::WorkflowChange];
    let assessment = known.into_iter().find(|one| one.name() == deviation.assessment);
    let assessment = assessment.unwrap_or(Assessment::Abuse);
    let (flags, evidence) = (deviation.flags.clone(), deviation.evidence.clone());
    Told::given(flags, assessment, deviation.confidence, response, evidence)
}
