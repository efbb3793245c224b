//! What of an answer matters to whoever acts on it, in one number: two answers with the same number need not be told
//! twice.
//!
//! The decision, the codes of its reasons, what a step-up asks for, what an allow obliges to, and whether and for which
//! attempts it may be reused: whoever keeps an allow for others that differ in what it does not rest on must hear when it
//! comes to rest on that. Names, not places in a bundle: the same answer from a newer bundle is the same answer. Not the
//! evidence, the ages or how long a lease is, which change all the time.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};

use ahash::RandomState;
use cardea_core::verdict::{Decision, Lease, Verdict};
use cardea_policy_store::snapshot::Snapshot;

/// With keys of this process, so that nobody can make two answers collide.
pub(super) fn fingerprint(verdict: &Verdict, snapshot: Option<&Snapshot>, keys: &RandomState) -> u64 {
    let mut hasher = keys.build_hasher();
    verdict.decision().hash(&mut hasher);
    for reason in verdict.reasons() {
        reason.code.name().hash(&mut hasher);
    }
    for requirement in verdict.requirements() {
        // Few verdicts step up, so that the text of what they ask for may cost a little.
        if let Some(requirement) = snapshot.and_then(|snapshot| snapshot.requirement(*requirement)) {
            format!("{requirement:?}").hash(&mut hasher);
        }
    }
    for policy in verdict.obligations() {
        if let Some(policy) = snapshot.and_then(|snapshot| snapshot.policy(*policy)) {
            policy.obligation.hash(&mut hasher);
        }
    }
    if verdict.decision() == Decision::Allow {
        let Lease { lease_ms: _, held_lease_ms, on_session, on_context, on_token, stream_loss_max_ms } =
            verdict.lease();
        (held_lease_ms > 0, on_session, on_context, on_token, stream_loss_max_ms).hash(&mut hasher);
    }
    hasher.finish()
}
