//! Changes of state out of effects: the seam between what an event leads to and what this node knows.
//!
//! What names only a principal, a tenant, a device or a session is one change. Sessions that must match several at once are
//! looked up first, on disk too, so that none that is not in memory is overlooked.
//! Limits: [`limits::SSF_PAGE`] sessions are looked at in one step.
//! Never does: deciding who is meant.

use std::sync::Arc;

use cardea_core::session::{self, Session};
use cardea_core::subject::Standing;
use smol_str::SmolStr;

use super::plan::{Effect, Which};
use crate::ledger::LedgerFault;
use crate::limits;
use crate::state::{Change, Signal, State, Target};

/// When something happened: not after now, and what is told in whole seconds at any instant of that second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct When {
    first_ms: i64,
    last_ms: i64,
}

impl When {
    pub(super) fn of(event_ms: i64, now_ms: i64) -> Self {
        let is_whole = event_ms.rem_euclid(1000) == 0;
        let last_ms = if is_whole { event_ms.saturating_add(999) } else { event_ms };
        Self { first_ms: event_ms.min(now_ms), last_ms: last_ms.min(now_ms) }
    }
}

/// The signals that effects are. Waits for the disk where sessions must be looked up.
///
/// Order is by the first instant at which it may have happened; what closes a door counts up to the last, because what was
/// opened in the same second may be what is meant.
pub(super) async fn signals(
    state: &Arc<State>,
    effects: Vec<Effect>,
    when: When,
    reason: &SmolStr,
) -> Result<Vec<Signal>, LedgerFault> {
    let mut signals = Vec::new();
    for effect in effects {
        let closes = matches!(
            effect,
            Effect::End(_)
                | Effect::Credential(_)
                | Effect::CredentialOf(_)
                | Effect::Disable(_)
                | Effect::Device(_, false)
                | Effect::DeviceOf(_, false)
        );
        let event_ms = if closes { when.last_ms } else { when.first_ms };
        let changes = changes(state, effect, event_ms, reason).await?;
        signals.extend(changes.into_iter().map(|change| Signal { event_ms, change }));
    }
    Ok(signals)
}

async fn changes(
    state: &Arc<State>,
    effect: Effect,
    event_ms: i64,
    reason: &SmolStr,
) -> Result<Vec<Change>, LedgerFault> {
    let mut changes = Vec::new();
    match effect {
        Effect::End(which) => {
            let targets = targets(state, which, event_ms).await?;
            changes.extend(targets.into_iter().map(|target| Change::Revoked(target, reason.clone())));
        }
        Effect::Disable(uid) => changes.push(Change::Standing(uid, Standing::Disabled)),
        Effect::Enable(uid) => changes.push(Change::Standing(uid, Standing::Enabled)),
        Effect::Purge(uid) => changes.push(Change::Standing(uid, Standing::Purged)),
        Effect::Credential(uid) => changes.push(Change::Credential(uid)),
        Effect::CredentialOf(id) => {
            changes.push(Change::Session(id, session::Change::CredentialChanged));
        }
        Effect::Device(id, complies) => changes.push(Change::Device(id, complies)),
        Effect::Risk(uid, signal) => changes.push(Change::Risk(uid, signal)),
        Effect::Assurance(which, level) => {
            let id = fitting(state, &which)?;
            changes.extend(id.map(|id| Change::Session(id, session::Change::AssuranceLevel(level))));
        }
        Effect::AssuranceAtMost(which, level) => {
            let id = fitting(state, &which)?;
            let known = id.as_ref().map(|id| state.session(id)).transpose()?.flatten();
            let falls = known.is_none_or(|(session, _)| level < session.aal);
            let id = id.filter(|_| falls);
            changes.extend(id.map(|id| Change::Session(id, session::Change::AssuranceLevel(level))));
        }
        Effect::DeviceOf(which, complies) => {
            let id = fitting(state, &which)?;
            changes.extend(id.map(|id| Change::Session(id, session::Change::DeviceCompliance(complies))));
        }
    }
    Ok(changes)
}

/// What to end, so that exactly the sessions end that match.
async fn targets(state: &Arc<State>, which: Which, event_ms: i64) -> Result<Vec<Target>, LedgerFault> {
    match which {
        Which { session: Some(_), .. } => {
            Ok(fitting(state, &which)?.map(Target::Session).into_iter().collect())
        }
        Which { principal: Some(uid), device: None, tenant: None, .. } => {
            Ok(vec![Target::Principal(uid, event_ms)])
        }
        Which { tenant: Some(tenant), principal: None, device: None, .. } => {
            Ok(vec![Target::Tenant(tenant, event_ms)])
        }
        which => {
            // Sessions are looked up on disk, and one that was just opened may be on its way there.
            state.durable().await?;
            let state = Arc::clone(state);
            let looked = tokio::task::spawn_blocking(move || matching(&state, &which, event_ms)).await;
            looked.unwrap_or(Err(LedgerFault::Closed))
        }
    }
}

/// The session that is named, unless it is known and is somebody else's. One that is not known is taken at its word: its
/// id is then remembered as ended, and it can be nobody's.
fn fitting(state: &State, which: &Which) -> Result<Option<SmolStr>, LedgerFault> {
    let Some(id) = &which.session else { return Ok(None) };
    let known = state.session(id)?;
    Ok(known.is_none_or(|(session, _)| matches(&session, which)).then(|| id.clone()))
}

fn matching(state: &State, which: &Which, event_ms: i64) -> Result<Vec<Target>, LedgerFault> {
    let mut found = Vec::new();
    let mut after = SmolStr::default();
    loop {
        let page = state.page(which.principal.as_ref(), &after, limits::SSF_PAGE)?;
        let Some(last) = page.last() else { break };
        after = last.id.clone();
        let over = page.iter().filter(|session| session.opened_ms <= event_ms && matches(session, which));
        found.extend(over.map(|session| Target::Session(session.id.clone())));
    }
    Ok(found)
}

fn matches(session: &Session, which: &Which) -> bool {
    which.principal.as_ref().is_none_or(|uid| session.principal == *uid)
        && which.device.as_ref().is_none_or(|device| session.device_id.as_ref() == Some(device))
        && which.tenant.as_ref().is_none_or(|tenant| session.tenant.as_ref() == Some(tenant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_whole_seconds_is_any_instant_of_that_second_up_to_now() {
        for (event_ms, now_ms, first_ms, last_ms) in [
            (5_000, 9_000, 5_000, 5_999),
            (5_000, 5_400, 5_000, 5_400),
            (5_250, 9_000, 5_250, 5_250),
            (9_000, 5_400, 5_400, 5_400),
        ] {
            assert_eq!(When::of(event_ms, now_ms), When { first_ms, last_ms });
        }
    }
}
