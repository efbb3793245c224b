//! Which action of an identity came after which.
//!
//! Limits: [`ACTIONS_MAX`] actions and [`EDGES_MAX`] transitions of an identity; what comes after is not in the picture.

use std::collections::BTreeMap;

use super::clipped;

/// Most actions of one identity.
const ACTIONS_MAX: usize = 200;
/// Most transitions of one identity.
const EDGES_MAX: usize = 500;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    pub(super) actions: BTreeMap<String, Action>,
    /// From the first to the second; the empty one is the beginning of a session.
    pub(super) edges: BTreeMap<(String, String), Edge>,
    /// Attempts for which there was no room.
    pub(super) left_out: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Action {
    pub(super) calls: u64,
    pub(super) incidents: u64,
    /// Sum of the places in their sessions.
    places: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Edge {
    pub(super) calls: u64,
    pub(super) incidents: u64,
}

impl Action {
    /// Mean place in a session.
    #[expect(clippy::cast_precision_loss, reason = "it orders a picture")]
    pub(super) fn place(&self) -> f64 {
        self.places as f64 / self.calls.max(1) as f64
    }
}

impl Calls {
    pub(super) fn note(&mut self, previous: &str, action: &str, place: u64, is_incident: bool) {
        let (previous, action) = (clipped(previous), clipped(action));
        let edge = (previous, action.clone());
        let is_room = (self.actions.len() < ACTIONS_MAX || self.actions.contains_key(&action))
            && (self.edges.len() < EDGES_MAX || self.edges.contains_key(&edge));
        if !is_room {
            self.left_out += 1;
            return;
        }
        let of = self.actions.entry(action).or_default();
        of.calls += 1;
        of.incidents += u64::from(is_incident);
        of.places = of.places.saturating_add(place);
        let edge = self.edges.entry(edge).or_default();
        edge.calls += 1;
        edge.incidents += u64::from(is_incident);
    }
}
