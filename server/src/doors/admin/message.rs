//! Revisions, sources and shadows in the words of the wire.

use std::cmp::Reverse;

use cardea_policy_store::fault::Faults;
use cardea_proto::v1;
use smol_str::SmolStr;

use super::count;
use crate::audit::sinks::SinkStats;
use crate::bundle_admin::{Kept, SourceHealth};
use crate::doors::wire;
use crate::limits;
use crate::shadow::{Group, GroupKey, Run, Shadow};

pub(super) fn revision(kept: &Kept, state: v1::RevisionState) -> v1::Revision {
    v1::Revision {
        revision: kept.revision,
        name: kept.name.to_string(),
        digest: kept.digest.to_string(),
        created: kept.created_ms.map(wire::timestamp),
        state: state.into(),
        signed_by: texts(&kept.signed_by),
        activated_at: kept.activated_ms.map(wire::timestamp),
        expires_at: kept.expires_ms.map(wire::timestamp),
    }
}

pub(super) fn sink(stats: SinkStats) -> v1::SinkStatus {
    v1::SinkStatus {
        name: stats.name.to_string(),
        r#type: stats.kind.to_owned(),
        next_sequence: stats.next_sequence,
        delivered: stats.delivered,
        dead_letters: stats.dead,
        missed: stats.missed,
        fault: stats.fault.unwrap_or_default(),
    }
}

/// The highest first. A candidate that is in the store as well is shown once, as the candidate.
pub(super) fn revisions(kept: &[Kept], candidate: Option<&Kept>) -> Vec<v1::Revision> {
    let is_candidate = |one: &Kept| {
        let same = |other: &Kept| other.digest == one.digest && other.revision == one.revision;
        candidate.is_some_and(same)
    };
    let state = |one: &Kept| match (one.in_force, is_candidate(one)) {
        (true, _) => v1::RevisionState::InForce,
        (false, true) => v1::RevisionState::Shadow,
        (false, false) => v1::RevisionState::Stored,
    };
    let mut all: Vec<_> = kept.iter().map(|one| revision(one, state(one))).collect();
    if let Some(candidate) = candidate.filter(|_| !kept.iter().any(is_candidate)) {
        all.push(revision(candidate, v1::RevisionState::Shadow));
    }
    all.sort_by_key(|revision| Reverse(revision.revision));
    all
}

pub(super) fn source(source: SourceHealth) -> v1::BundleSource {
    v1::BundleSource {
        kind: source.kind.to_owned(),
        place: source.place,
        last_contact: source.contact_ms.map(wire::timestamp),
        last_error: source.error.unwrap_or_default(),
        consecutive_failures: source.failures,
    }
}

/// Every fault on a line of its own, as many as fit.
pub(super) fn faults(faults: &Faults, bytes_max: usize) -> String {
    /// Room for the last line.
    const MORE_BYTES: usize = 64;
    let mut text = String::from("the bundle is refused:");
    for (at, fault) in faults.list().iter().enumerate() {
        let line = format!("\n{fault}");
        if text.len() + line.len() + MORE_BYTES > bytes_max {
            let left = faults.list().len() - at;
            text.push_str(&format!("\n… and {left} more; `cardea bundle check` shows all"));
            break;
        }
        text.push_str(&line);
    }
    text
}

pub(super) fn shadow(run: &Run, shadow: &Shadow) -> v1::Shadow {
    let tally = run.tally();
    let candidate = &run.candidate;
    let settings = candidate.snapshot.settings();
    let changes = tally.steps.iter().map(|(step, number)| v1::ShadowChange {
        effect: step.effect.on_wire().into(),
        in_force: wire::decision(step.in_force).into(),
        candidate: wire::decision(step.candidate).into(),
        count: *number,
    });
    v1::Shadow {
        name: settings.name.to_string(),
        revision: settings.revision,
        digest: candidate.snapshot.digest().to_string(),
        sample_per_10000: candidate.sample_per_10000,
        started_at: Some(wire::timestamp(candidate.started_ms)),
        started_by: candidate.asked.by.to_string(),
        reason: candidate.asked.reason.to_string(),
        evaluated: tally.evaluated,
        skipped: run.skipped(),
        unread: run.unread(),
        waiting: count(shadow.waiting()),
        same: tally.same,
        changes: changes.collect(),
        groups: tally.top(limits::SHADOW_GROUPS_SHOWN).into_iter().map(group).collect(),
        groups_total: count(tally.groups.len()),
        ungrouped: tally.ungrouped,
        recorded: tally.recorded,
    }
}

fn group((key, group): (&GroupKey, &Group)) -> v1::ShadowGroup {
    let (action_type, action_id) = &key.action;
    v1::ShadowGroup {
        effect: key.step.effect.on_wire().into(),
        in_force: wire::decision(key.step.in_force).into(),
        candidate: wire::decision(key.step.candidate).into(),
        action: Some(v1::EntityRef { r#type: action_type.to_string(), id: action_id.to_string() }),
        in_force_policies: texts(&key.in_force_policies),
        candidate_policies: texts(&key.candidate_policies),
        candidate_reasons: group
            .candidate_reasons
            .iter()
            .map(|code| wire::reason_code(*code).into())
            .collect(),
        count: group.count,
        first: Some(wire::timestamp(group.first_ms)),
        last: Some(wire::timestamp(group.last_ms)),
        example_decision_id: group.decision_id.to_string(),
        example_principal: Some(group.principal.clone()),
        example_resource: Some(group.resource.clone()),
    }
}

fn texts(names: &[SmolStr]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}
