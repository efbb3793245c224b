//! One subject: whether it may act, up to when its sessions are over, when its credential changed, and its risk.
//!
//! INVARIANT (order): each part depends on the set of events, not on the order in which they arrive or how often: of
//! each kind the newest counts, and of two of the same time the strict one. A principal that was purged stays purged.

use std::sync::Arc;

use crate::risk::{Risk, RiskSignal};
use crate::time::Now;

/// Whether a principal may act.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It may.
    #[default]
    Enabled,
    /// It and whoever acts for it are denied.
    Disabled,
    /// It is gone for good, and disabled.
    Purged,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subject {
    /// Its risk; `None` if no signal was ever seen.
    pub risk: Option<Arc<Risk>>,
    /// Its standing, and since when, Unix milliseconds.
    pub standing: Option<(i64, Standing)>,
    /// Sessions that were opened up to here are over, Unix milliseconds.
    pub cutoff_ms: Option<i64>,
    /// When a credential last changed, Unix milliseconds. Kept here and not with a session, which may be evicted.
    pub credential_ms: Option<i64>,
}

impl Subject {
    /// Whether it must not act.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.standing.is_some_and(|(_, standing)| standing != Standing::Enabled)
    }

    /// It may act or may not, from an instant on; `false` if newer knowledge stays.
    pub fn stand(&mut self, standing: Standing, event_ms: i64) -> bool {
        let is_newer = match self.standing {
            None => true,
            // For good: no later event brings it back, and of two purges the earlier is when it was gone.
            Some((at, Standing::Purged)) => standing == Standing::Purged && event_ms < at,
            Some(_) if standing == Standing::Purged => true,
            Some(known) => known < (event_ms, standing),
        };
        if is_newer {
            self.standing = Some((event_ms, standing));
        }
        is_newer
    }

    /// Its sessions that were opened up to an instant are over; `false` if a later cut-off stands.
    pub fn cut_off(&mut self, until_ms: i64) -> bool {
        raise(&mut self.cutoff_ms, until_ms)
    }

    /// A credential changed; `false` if a later change is known.
    pub fn change_credential(&mut self, event_ms: i64) -> bool {
        raise(&mut self.credential_ms, event_ms)
    }

    /// Takes in a risk signal; `false` if newer knowledge of its kind stays.
    pub fn risk(&mut self, signal: &RiskSignal) -> bool {
        let mut next = self.risk.as_deref().cloned().unwrap_or_default();
        let changed = next.apply(signal);
        if changed {
            self.risk = Some(Arc::new(next));
        }
        changed
    }

    /// Whether forgetting it changes no decision.
    #[must_use]
    pub fn is_spent(&self, now: Now, session_life_ms: i64) -> bool {
        let is_past = |at: i64| at.saturating_add(session_life_ms) < now.wall_ms;
        // That a risk was cleared outlives what it cleared, which may come again.
        let is_over = |risk: &Risk| {
            risk.score(now) == 0 && risk.slots().all(|(_, slot)| slot.weight > 0 || is_past(slot.event_ms))
        };
        self.risk.as_deref().is_none_or(is_over)
            && self.standing.is_none_or(|(at, standing)| standing == Standing::Enabled && is_past(at))
            && self.cutoff_ms.is_none_or(is_past)
            && self.credential_ms.is_none_or(is_past)
    }
}

fn raise(known: &mut Option<i64>, to: i64) -> bool {
    let rises = known.is_none_or(|known| known < to);
    if rises {
        *known = Some(to);
    }
    rises
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Stand(Standing, i64),
        CutOff(i64),
        Credential(i64),
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let standing = prop_oneof![
            4 => Just(Standing::Enabled),
            4 => Just(Standing::Disabled),
            1 => Just(Standing::Purged)
        ];
        prop_oneof![
            (standing, 0..6i64).prop_map(|(standing, at)| Event::Stand(standing, at)),
            (0..6i64).prop_map(Event::CutOff),
            (0..6i64).prop_map(Event::Credential),
        ]
    }

    fn after(events: &[Event]) -> Subject {
        let mut subject = Subject::default();
        for event in events {
            match *event {
                Event::Stand(standing, at) => subject.stand(standing, at),
                Event::CutOff(at) => subject.cut_off(at),
                Event::Credential(at) => subject.change_credential(at),
            };
        }
        subject
    }

    /// Knows all events at once.
    fn model(events: &[Event]) -> Subject {
        let stands = || {
            events.iter().filter_map(|event| match *event {
                Event::Stand(standing, at) => Some((at, standing)),
                Event::CutOff(_) | Event::Credential(_) => None,
            })
        };
        let purged = stands().filter(|(_, standing)| *standing == Standing::Purged).min();
        let pick = |of: fn(&Event) -> Option<i64>| events.iter().filter_map(of).max();
        Subject {
            risk: None,
            standing: purged.or_else(|| stands().max()),
            cutoff_ms: pick(|event| match event {
                Event::CutOff(at) => Some(*at),
                Event::Stand(..) | Event::Credential(_) => None,
            }),
            credential_ms: pick(|event| match event {
                Event::Credential(at) => Some(*at),
                Event::Stand(..) | Event::CutOff(_) => None,
            }),
        }
    }

    proptest! {
        #[test]
        fn the_set_of_events_decides_and_not_their_order(
            events in prop::collection::vec(any_event(), 0..10),
            repeated in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let expected = model(&events);
            prop_assert_eq!(&after(&events), &expected);
            let mut late: Vec<_> = events.iter().rev().copied().collect();
            late.extend(repeated.iter().filter(|_| !events.is_empty()).map(|index| *index.get(&events)));
            prop_assert_eq!(&after(&late), &expected);
        }

        #[test]
        fn what_changed_nothing_says_so(events in prop::collection::vec(any_event(), 1..10)) {
            let mut subject = after(&events);
            let before = subject.clone();
            let changed = events.iter().any(|event| match *event {
                Event::Stand(standing, at) => subject.stand(standing, at),
                Event::CutOff(at) => subject.cut_off(at),
                Event::Credential(at) => subject.change_credential(at),
            });
            prop_assert!(!changed);
            prop_assert_eq!(subject, before);
        }
    }

    #[test]
    fn of_two_events_of_one_time_the_strict_one_holds() {
        let mut subject = Subject::default();
        assert!(subject.stand(Standing::Disabled, 5));
        assert!(!subject.stand(Standing::Enabled, 5));
        assert!(subject.is_disabled());
        assert!(subject.stand(Standing::Enabled, 6));
        assert!(!subject.is_disabled());
    }

    #[test]
    fn a_risk_that_was_cleared_does_not_come_back_with_a_late_signal() {
        let signal = |severity: u8, event_ms: i64| RiskSignal {
            kind: crate::risk::RiskKind::Operator,
            severity,
            confidence: 100,
            event_ms,
            half_life_s: 3600,
        };
        let at = |wall_ms: i64| Now { mono_ns: 0, wall_ms };
        let mut subject = Subject::default();
        subject.risk(&signal(90, 5));
        subject.risk(&signal(0, 10));
        assert!(
            !subject.is_spent(at(1000), 1000),
            "forgotten, and told of the risk again, it would be at risk"
        );
        assert!(subject.is_spent(at(1011), 1000));
    }

    #[test]
    fn the_purged_do_not_come_back() {
        let mut subject = Subject::default();
        subject.stand(Standing::Purged, 5);
        assert!(!subject.stand(Standing::Enabled, 99));
        assert!(subject.is_disabled());
    }
}
