//! One session: what is known of it, and how it changes.
//!
//! A session is plain data; a change makes a new one. INVARIANT (revoked stays revoked): once ended, a session
//! never becomes live again. Older events never overwrite newer ones: each kind of change keeps its own time.
//! Limits: [`LABELS_MAX`] labels, [`NETWORKS_MAX`] networks, [`METHODS_MAX`] authentication methods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cardea_policy_store::engine::Uid;
use smol_str::SmolStr;

use crate::delegation::Parent;
use crate::posture::Posture;
use crate::task::Task;
use crate::time::Now;

/// Most labels of a session.
pub const LABELS_MAX: usize = 64;
/// Most networks of a session.
pub const NETWORKS_MAX: usize = 32;
/// Most authentication methods of a session.
pub const METHODS_MAX: usize = 16;

/// One authenticated span of one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SmolStr,
    /// Whose it is.
    pub principal: Uid,
    /// When it was opened, Unix milliseconds.
    pub opened_ms: i64,
    /// First instant at which it no longer counts, Unix milliseconds.
    pub expires_ms: i64,
    /// Last active authentication, Unix milliseconds.
    pub authenticated_ms: Option<i64>,
    /// Authentication context class.
    pub acr: SmolStr,
    /// Authentication methods.
    pub amr: BTreeSet<SmolStr>,
    /// Authenticator assurance level, 0 to 3.
    pub aal: u8,
    /// Device posture, if known.
    pub device_compliant: Option<bool>,
    /// Networks that it was seen from.
    pub networks: BTreeSet<SmolStr>,
    /// Labels, each with the first instant at which it no longer counts, Unix milliseconds; [`i64::MAX`]: never.
    pub labels: BTreeMap<SmolStr, i64>,
    /// The work that it was opened for.
    pub task: Option<Arc<Task>>,
    /// The approved task that it was opened for; `task` is `None` then.
    pub task_id: Option<SmolStr>,
    /// The session that it runs under.
    pub parent: Option<Parent>,
    /// The device that it runs on, as signals name it.
    pub device_id: Option<SmolStr>,
    /// The tenant that it belongs to, as signals name it.
    pub tenant: Option<SmolStr>,
    /// A credential changed since the last authentication.
    pub credential_changed: bool,
    /// When something was last heard of it, Unix milliseconds.
    pub refreshed_ms: i64,
    /// When and why it was ended.
    pub ended: Option<Ended>,
    /// Event times of the newest change of each kind.
    pub times: EventTimes,
}

/// The end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// Why, for records.
    pub reason: SmolStr,
}

/// Event times of the newest change of each kind, Unix milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventTimes {
    /// Of a credential.
    pub credential_ms: Option<i64>,
    /// Of the posture.
    pub device_ms: Option<i64>,
    /// Of the assurance level.
    pub assurance_ms: Option<i64>,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It counts.
    Live,
    /// It is past its end.
    Expired,
    /// It was ended.
    Revoked,
}

/// A change that a session can take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A credential of its principal changed.
    CredentialChanged,
    /// The device's posture changed.
    DeviceCompliance(bool),
    /// The assurance level changed.
    AssuranceLevel(u8),
}

impl Session {
    /// The labels that count.
    pub fn labels(&self, now: Now) -> impl Iterator<Item = &SmolStr> {
        self.labels.iter().filter(move |(_, until_ms)| **until_ms > now.wall_ms).map(|(label, _)| label)
    }

    /// Puts a label on it until then at least, Unix milliseconds. One that would last longer stays as it is.
    pub fn label(&mut self, label: SmolStr, until_ms: i64) {
        let known_ms = self.labels.entry(label).or_insert(until_ms);
        *known_ms = until_ms.max(*known_ms);
    }

    /// A session that was opened now and of which nothing else is known.
    #[must_use]
    pub fn open(id: SmolStr, principal: Uid, expires_ms: i64, now: Now) -> Self {
        Self {
            id,
            principal,
            opened_ms: now.wall_ms,
            expires_ms,
            authenticated_ms: None,
            acr: SmolStr::default(),
            amr: BTreeSet::new(),
            aal: 0,
            device_compliant: None,
            networks: BTreeSet::new(),
            labels: BTreeMap::new(),
            task: None,
            task_id: None,
            parent: None,
            device_id: None,
            tenant: None,
            credential_changed: false,
            refreshed_ms: now.wall_ms,
            ended: None,
            times: EventTimes::default(),
        }
    }

    /// Where it stands; `idle_max_s` 0 means that idling does not end it.
    #[must_use]
    pub fn status(&self, last_seen_ms: i64, idle_max_s: u64, now: Now) -> Status {
        let idle_max_ms = i64::try_from(idle_max_s).unwrap_or(i64::MAX).saturating_mul(1000);
        if self.ended.is_some() {
            Status::Revoked
        } else if now.wall_ms >= self.expires_ms
            || (idle_max_s > 0 && now.wall_ms.saturating_sub(last_seen_ms) >= idle_max_ms)
        {
            Status::Expired
        } else {
            Status::Live
        }
    }

    /// A new authentication; `false` if a newer one is known.
    pub fn authenticate(&mut self, at_ms: i64) -> bool {
        if self.authenticated_ms.is_some_and(|known| known > at_ms) {
            return false;
        }
        self.authenticated_ms = Some(at_ms);
        // A credential that changed after this authentication still counts as changed.
        if self.times.credential_ms.is_none_or(|changed| changed <= at_ms) {
            self.credential_changed = false;
        }
        true
    }

    /// Takes in a change that happened at `event_ms`; `false` if newer knowledge stays.
    pub fn apply(&mut self, change: &Change, event_ms: i64) -> bool {
        let time = match change {
            Change::CredentialChanged => &mut self.times.credential_ms,
            Change::DeviceCompliance(_) => &mut self.times.device_ms,
            Change::AssuranceLevel(_) => &mut self.times.assurance_ms,
        };
        let is_stricter = match change {
            Change::CredentialChanged => false,
            Change::DeviceCompliance(compliant) => !compliant && self.device_compliant == Some(true),
            Change::AssuranceLevel(level) => *level < self.aal,
        };
        // Of two events of the same time the strict one holds, in whichever order they come.
        if time.is_some_and(|known| known > event_ms || (known == event_ms && !is_stricter)) {
            return false;
        }
        *time = Some(event_ms);
        match change {
            Change::CredentialChanged => {
                self.credential_changed = self.authenticated_ms.is_none_or(|at| at < event_ms);
            }
            Change::DeviceCompliance(compliant) => self.device_compliant = Some(*compliant),
            Change::AssuranceLevel(level) => self.aal = *level,
        }
        true
    }

    /// What it says of its device's posture.
    #[must_use]
    pub fn posture(&self) -> Option<Posture> {
        let compliant = self.device_compliant?;
        Some(Posture { compliant, event_ms: self.times.device_ms.unwrap_or(self.opened_ms) })
    }

    /// Ends it for good; `false` if it was ended before.
    pub fn end(&mut self, at_ms: i64, reason: SmolStr) -> bool {
        if self.ended.is_some() {
            return false;
        }
        self.ended = Some(Ended { at_ms, reason });
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session() -> Session {
        let uid = Uid::from(&"A::\"a\"".parse::<cedar_policy::EntityUid>().unwrap());
        Session::open("s".into(), uid, 10_000, Now { mono_ns: 0, wall_ms: 0 })
    }

    fn at(wall_ms: i64) -> Now {
        Now { mono_ns: 0, wall_ms }
    }

    #[test]
    fn it_expires_at_its_end_and_by_idling() {
        let session = session();
        assert_eq!(session.status(0, 0, at(9_999)), Status::Live);
        assert_eq!(session.status(0, 0, at(10_000)), Status::Expired);
        assert_eq!(session.status(3_000, 5, at(7_999)), Status::Live);
        assert_eq!(session.status(3_000, 5, at(8_000)), Status::Expired);
    }

    #[test]
    fn an_ended_session_stays_ended() {
        let mut session = session();
        assert!(session.end(1, "x".into()));
        assert!(!session.end(2, "y".into()));
        session.authenticate(3);
        assert_eq!(session.status(3, 0, at(3)), Status::Revoked);
        assert_eq!(session.ended.unwrap().reason, "x");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Apply(Change, i64),
        Authenticate(i64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..6i64).prop_map(|at| Step::Apply(Change::CredentialChanged, at)),
            (any::<bool>(), 0..6i64).prop_map(|(to, at)| Step::Apply(Change::DeviceCompliance(to), at)),
            (0..4u8, 0..6i64).prop_map(|(to, at)| Step::Apply(Change::AssuranceLevel(to), at)),
            (0..6i64).prop_map(Step::Authenticate),
        ]
    }

    proptest! {
        /// The model knows all events at once and takes the newest of each kind.
        #[test]
        fn events_in_any_order_give_the_newest_state(steps in prop::collection::vec(any_step(), 0..12)) {
            let mut session = session();
            for step in &steps {
                match step {
                    Step::Apply(change, at) => { session.apply(change, *at); }
                    Step::Authenticate(at) => { session.authenticate(*at); }
                }
            }
            let newest = |pick: &dyn Fn(&Step) -> Option<i64>| steps.iter().filter_map(pick).max();
            let changed = newest(&|step| match step {
                Step::Apply(Change::CredentialChanged, at) => Some(*at),
                Step::Apply(..) | Step::Authenticate(_) => None,
            });
            let authenticated = newest(&|step| match step { Step::Authenticate(at) => Some(*at), Step::Apply(..) => None });
            prop_assert_eq!(session.authenticated_ms, authenticated);
            let expected = changed.is_some_and(|changed| authenticated.is_none_or(|at| at < changed));
            prop_assert_eq!(session.credential_changed, expected);
            let device = steps.iter().filter_map(|step| match step {
                Step::Apply(Change::DeviceCompliance(to), at) => Some((*at, *to)),
                Step::Apply(..) | Step::Authenticate(_) => None,
            });
            // Of two reports of the newest time the strict one counts.
            let newest_device = device.fold(None, |best: Option<(i64, bool)>, next| match best {
                Some(best) if best.0 > next.0 || (best.0 == next.0 && !best.1) => Some(best),
                _ => Some(next),
            });
            prop_assert_eq!(session.device_compliant, newest_device.map(|(_, to)| to));
        }
    }
}
