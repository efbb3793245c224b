//! Counts by assessment. An incident is a deviation that its session had not shown before; the others are its repeats.

use cardea_core::behavior::{Assessment, Response};

use super::told::Told;

/// What deviations amount to, the most severe first.
pub(super) const KINDS: [Assessment; 3] =
    [Assessment::Abuse, Assessment::WorkflowChange, Assessment::Misconfiguration];

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) attempts: u64,
    /// Deviations that repeat an incident.
    pub(super) repeats: u64,
    abuse: u64,
    workflow_change: u64,
    misconfiguration: u64,
    /// Incidents that were answered with `deny`.
    pub(super) denied: u64,
    /// With `step_up`.
    pub(super) stepped_up: u64,
}

impl Tally {
    pub(super) fn note(&mut self, told: &Told) {
        self.attempts += 1;
        if !told.is_incident() {
            self.repeats += u64::from(told.deviates());
            return;
        }
        match told.assessment {
            Assessment::None => {}
            Assessment::Abuse => self.abuse += 1,
            Assessment::WorkflowChange => self.workflow_change += 1,
            Assessment::Misconfiguration => self.misconfiguration += 1,
        }
        self.denied += u64::from(told.response == Response::Deny);
        self.stepped_up += u64::from(told.response == Response::StepUp);
    }

    pub(super) fn add(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.repeats += other.repeats;
        self.abuse += other.abuse;
        self.workflow_change += other.workflow_change;
        self.misconfiguration += other.misconfiguration;
        self.denied += other.denied;
        self.stepped_up += other.stepped_up;
    }

    pub(super) const fn of(&self, kind: Assessment) -> u64 {
        match kind {
            Assessment::None => 0,
            Assessment::Abuse => self.abuse,
            Assessment::WorkflowChange => self.workflow_change,
            Assessment::Misconfiguration => self.misconfiguration,
        }
    }

    pub(super) const fn incidents(&self) -> u64 {
        self.abuse + self.workflow_change + self.misconfiguration
    }

    /// What orders identities: the most severe first.
    pub(super) const fn severity(&self) -> (u64, u64, u64) {
        (self.abuse, self.workflow_change, self.misconfiguration)
    }
}
