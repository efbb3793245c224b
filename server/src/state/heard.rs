//! When something was last heard of each source of signals. Memory only: after a start every source is silent until it
//! speaks.
//!
//! Limit: [`SIGNAL_SOURCES_MAX`] sources; a new one takes the place of the one that was silent longest. Whether a source has
//! been silent for too long is the bundle's business.

use std::collections::BTreeMap;

use cardea_core::time::Now;
use parking_lot::Mutex;
use smol_str::SmolStr;

use crate::limits::SIGNAL_SOURCES_MAX;

/// See the module. Times are Unix milliseconds.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<BTreeMap<SmolStr, i64>>);

impl Heard {
    /// The source spoke; when it did before.
    pub(super) fn hear(&self, source: &str, now: Now) -> Option<i64> {
        if source.is_empty() {
            return None;
        }
        let mut heard = self.0.lock();
        if let Some(at_ms) = heard.get_mut(source) {
            let before = *at_ms;
            *at_ms = before.max(now.wall_ms);
            return Some(before);
        }
        if heard.len() >= SIGNAL_SOURCES_MAX {
            let quietest = heard.iter().min_by_key(|(_, at_ms)| **at_ms).map(|(source, _)| source.clone());
            quietest.and_then(|source| heard.remove(&source));
        }
        heard.insert(source.into(), now.wall_ms);
        None
    }

    /// Every source, by name.
    pub(super) fn list(&self) -> Vec<(SmolStr, i64)> {
        self.0.lock().iter().map(|(source, at_ms)| (source.clone(), *at_ms)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_ms: i64) -> Now {
        Now { mono_ns: 0, wall_ms }
    }

    #[test]
    fn a_source_is_heard_when_it_last_spoke() {
        let heard = Heard::default();
        assert_eq!(heard.hear("edr", at(5)), None);
        assert_eq!(heard.hear("edr", at(9)), Some(5));
        assert_eq!(heard.hear("edr", at(7)), Some(9), "a clock that goes back makes nobody silent");
        assert_eq!(heard.hear("", at(9)), None);
        assert_eq!(heard.list(), [("edr".into(), 9)]);
    }

    #[test]
    fn when_all_places_are_taken_the_quietest_goes() {
        let heard = Heard::default();
        for number in 0..=SIGNAL_SOURCES_MAX {
            heard.hear(&format!("{number:04}"), at(i64::try_from(number).unwrap()));
        }
        let list = heard.list();
        assert_eq!((list.len(), list[0].0.as_str()), (SIGNAL_SOURCES_MAX, "0001"));
    }
}
