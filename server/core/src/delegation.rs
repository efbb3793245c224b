//! Sessions under sessions: what runs in somebody's name is over when theirs is.
//!
//! A session names the one that it runs under, with the time at which that one was opened: another session that takes the
//! same id later does not revive what ran under the first. INVARIANT (no circle): a session is opened under one that is
//! live already, so a chain of parents only ever leads back in time; it is bounded all the same.
//! Limit: [`DEPTH_MAX`] sessions above one.

use std::sync::Arc;

use smol_str::SmolStr;

use crate::session::{Session, Status};
use crate::time::Now;

/// Most sessions above one: as many as a delegation chain has hops above its principal.
pub const DEPTH_MAX: u8 = 7;

/// The session that another runs under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its id.
    pub id: SmolStr,
    /// When it was opened, Unix milliseconds: the id may be somebody else's later.
    pub opened_ms: i64,
    /// How many stand above the session that has this parent: 1 or more.
    pub depth: u8,
}

/// A session stands too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at most {DEPTH_MAX} sessions stand above one; open it under one that is nearer to the root")]
pub struct TooDeep;

impl Parent {
    /// The session as a parent of others.
    ///
    /// # Errors
    /// When too many stand above already.
    pub fn of(session: &Session) -> Result<Self, TooDeep> {
        let depth = session.parent.as_ref().map_or(0, |above| above.depth) + 1;
        if depth > DEPTH_MAX {
            return Err(TooDeep);
        }
        Ok(Self { id: session.id.clone(), opened_ms: session.opened_ms, depth })
    }
}

/// Where the sessions above one stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Above {
    /// All are live, until the first of them reaches its end, Unix milliseconds; without any that is [`i64::MAX`].
    LiveUntil(i64),
    /// The nearest that is not live has expired.
    Expired,
    /// The nearest that is not live was ended.
    Revoked,
}

/// Where the sessions above one stand, taken together. `find` reads a session, and `is_cut` tells whether one was ended
/// otherwise than by itself. A parent that is not found, or whose id is another session's by now, was ended or has expired
/// long ago. Idling ends nobody else's session.
#[must_use]
pub fn above(
    session: &Session,
    now: Now,
    mut find: impl FnMut(&str) -> Option<Arc<Session>>,
    mut is_cut: impl FnMut(&Session) -> bool,
) -> Above {
    let mut link = session.parent.clone();
    let mut ends_ms = i64::MAX;
    for _ in 0..DEPTH_MAX {
        let Some(parent) = link else { return Above::LiveUntil(ends_ms) };
        let found = find(&parent.id).filter(|found| found.opened_ms == parent.opened_ms);
        let Some(found) = found else { return Above::Revoked };
        if is_cut(&found) {
            return Above::Revoked;
        }
        match found.status(found.opened_ms, 0, now) {
            Status::Live => {}
            Status::Expired => return Above::Expired,
            Status::Revoked => return Above::Revoked,
        }
        ends_ms = ends_ms.min(found.expires_ms);
        link = found.parent.clone();
    }
    if link.is_none() { Above::LiveUntil(ends_ms) } else { Above::Revoked }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cardea_policy_store::engine::Uid;
    use proptest::prelude::*;

    use super::*;

    /// Every session that ever was, by a number of its own, as a tree.
    #[derive(Default)]
    struct Model {
        nodes: Vec<Node>,
        current: BTreeMap<usize, usize>,
    }

    struct Node {
        parent: Option<usize>,
        expires_ms: i64,
        ended: bool,
    }

    impl Model {
        fn is_live(&self, node: usize, now_ms: i64) -> bool {
            let Node { parent, expires_ms, ended } = &self.nodes[node];
            !ended && now_ms < *expires_ms && parent.is_none_or(|parent| self.is_live(parent, now_ms))
        }

        fn ends_ms(&self, node: usize) -> i64 {
            let Node { parent, expires_ms, .. } = &self.nodes[node];
            parent.map_or(*expires_ms, |parent| self.ends_ms(parent).min(*expires_ms))
        }

        fn depth(&self, node: usize) -> u8 {
            self.nodes[node].parent.map_or(0, |parent| 1 + self.depth(parent))
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Open {
            id: usize,
            under: Option<usize>,
            life_ms: i64,
        },
        End(usize),
        /// Moves its end, earlier or later.
        Move(usize, i64),
        /// Forgets a session, as memory under pressure might.
        Forget(usize),
        Pass(i64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let id = || 0..12usize;
        prop_oneof![
            6 => (id(), proptest::option::weighted(0.8, id()), 1..60i64)
                .prop_map(|(id, under, life_ms)| Step::Open { id, under, life_ms }),
            1 => id().prop_map(Step::End),
            1 => (id(), 1..60i64).prop_map(|(id, life_ms)| Step::Move(id, life_ms)),
            1 => id().prop_map(Step::Forget),
            3 => (1..10i64).prop_map(Step::Pass),
        ]
    }

    struct Sut {
        sessions: BTreeMap<usize, Arc<Session>>,
        now_ms: i64,
    }

    impl Sut {
        fn now(&self) -> Now {
            Now { mono_ns: 0, wall_ms: self.now_ms }
        }

        /// When it is over, if it is live.
        fn ends_ms(&self, id: usize) -> Option<i64> {
            let session = self.sessions.get(&id)?;
            let find = |id: &str| self.sessions.get(&id.parse().unwrap()).cloned();
            match (session.status(0, 0, self.now()), above(session, self.now(), find, |_| false)) {
                (Status::Live, Above::LiveUntil(ends_ms)) => Some(ends_ms.min(session.expires_ms)),
                _ => None,
            }
        }

        fn is_live(&self, id: usize) -> bool {
            self.ends_ms(id).is_some()
        }

        fn open(&mut self, id: usize, under: Option<usize>, life_ms: i64) -> bool {
            if self.is_live(id) || self.sessions.get(&id).is_some_and(|one| one.ended.is_some()) {
                return false;
            }
            let mut session = {
                let principal = Uid::from(&"A::\"a\"".parse::<cedar_policy::EntityUid>().unwrap());
                Session::open(format!("{id}").into(), principal, self.now_ms + life_ms, self.now())
            };
            if let Some(under) = under {
                if !self.is_live(under) {
                    return false;
                }
                let Ok(parent) = Parent::of(&self.sessions[&under]) else { return false };
                session.parent = Some(parent);
            }
            self.sessions.insert(id, Arc::new(session));
            true
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn what_runs_below_a_session_is_over_with_it(steps in proptest::collection::vec(any_step(), 1..60)) {
            let mut model = Model::default();
            let mut sut = Sut { sessions: BTreeMap::new(), now_ms: 0 };
            for step in steps {
                // Each opening has an instant of its own, as the same id cannot be opened twice at once.
                sut.now_ms += 1;
                match step {
                    Step::Open { id, under, life_ms } => {
                        let parent = under.map(|under| model.current.get(&under).copied());
                        let may = match parent {
                            None => true,
                            Some(None) => false,
                            Some(Some(node)) => {
                                model.is_live(node, sut.now_ms) && model.depth(node) < DEPTH_MAX
                            }
                        };
                        if sut.open(id, under, life_ms) {
                            prop_assert!(may);
                            let expires_ms = sut.now_ms + life_ms;
                            model.nodes.push(Node { parent: parent.flatten(), expires_ms, ended: false });
                            model.current.insert(id, model.nodes.len() - 1);
                        }
                    }
                    Step::End(id) => {
                        if let Some(session) = sut.sessions.get_mut(&id) {
                            let mut ended = Session::clone(session);
                            ended.end(sut.now_ms, "x".into());
                            *session = Arc::new(ended);
                            model.nodes[model.current[&id]].ended = true;
                        }
                    }
                    Step::Move(id, life_ms) => {
                        if let Some(session) = sut.sessions.get_mut(&id).filter(|one| one.expires_ms > sut.now_ms) {
                            let expires_ms = sut.now_ms + life_ms;
                            *session = Arc::new(Session { expires_ms, ..Session::clone(session) });
                            model.nodes[model.current[&id]].expires_ms = expires_ms;
                        }
                    }
                    Step::Forget(id) => {
                        sut.sessions.remove(&id);
                        if let Some(node) = model.current.remove(&id) {
                            model.nodes[node].ended = true;
                        }
                    }
                    Step::Pass(ms) => sut.now_ms += ms,
                }
                for (id, node) in &model.current {
                    let ends_ms = model.is_live(*node, sut.now_ms).then(|| model.ends_ms(*node));
                    prop_assert_eq!(sut.ends_ms(*id), ends_ms, "session {}", id);
                }
            }
        }
    }

    #[test]
    fn a_chain_is_bounded() {
        let principal = Uid::from(&"A::\"a\"".parse::<cedar_policy::EntityUid>().unwrap());
        let now = Now { mono_ns: 0, wall_ms: 0 };
        let mut chain = vec![Session::open("0".into(), principal.clone(), 10, now)];
        for depth in 1..=DEPTH_MAX {
            let parent = Parent::of(&chain[usize::from(depth) - 1]).unwrap();
            let mut session = Session::open(format!("{depth}").into(), principal.clone(), 10, now);
            session.parent = Some(parent);
            chain.push(session);
        }
        let last = chain.last().unwrap().clone();
        assert_eq!(Parent::of(&last), Err(TooDeep));
        let find = |id: &str| chain.get(id.parse::<usize>().unwrap()).cloned().map(Arc::new);
        assert_eq!(above(&last, now, find, |_| false), Above::LiveUntil(10));
        assert_eq!(above(&last, now, find, |one| one.id == "0"), Above::Revoked);
        // A circle, which no opening makes, is no reason to go on for ever.
        let mut circle = last;
        circle.parent = Some(Parent { id: circle.id.clone(), opened_ms: 0, depth: 1 });
        let itself = Arc::new(circle.clone());
        assert_eq!(above(&circle, now, |_| Some(Arc::clone(&itself)), |_| false), Above::Revoked);
    }
}
