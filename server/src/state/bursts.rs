//! How unusual the rate of an identity's attempts at a resource is, over everything that this node decides.
//!
//! One detector for each of [`SHARDS`] groups of identities, so that two attempts seldom wait for each other, and then for the length of six
//! counters. All edges of an identity are in one group. Memory is fixed, and taken when the first bundle asks for it. What is counted
//! ends with the process, or with a bundle that counts otherwise: a rate is of minutes.

use std::sync::OnceLock;

use cardea_core::behavior::burst::{BurstDetector, Counting};
use cardea_core::behavior::{Fingerprint, Key};
use cardea_core::decide::Question;
use cardea_core::facts::Facts;
use cardea_core::time::Now;
use parking_lot::Mutex;

/// Groups of identities; a power of two, some times as many as there are cores.
const SHARDS: usize = 16;

/// A group's rates, and how they are counted.
type Shard = Mutex<(Counting, BurstDetector)>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bursts {
    shards: OnceLock<Box<[Shard]>>,
}

impl Bursts {
    /// Counts an attempt, if its bundle looks for bursts and a candidate reads what comes of it, and says how unusual that is; 0: as ever,
    /// or not asked. One that is disqualified before policy counts for nobody: it may be somebody else's. Identities and resources are told apart by their ids: of two types with the same ids the rates are added.
    pub(super) fn observe(&self, question: &Question<'_>, facts: &Facts, now: Now) -> f32 {
        let settings = question.snapshot().settings();
        let behavior = &settings.behavior;
        if behavior.rules.burst_score.is_none()
            || !question.needs().compares()
            || facts.disqualify(question.attempt(), settings, now).is_some()
        {
            return 0.0;
        }
        let (attempt, key) = (question.attempt(), question.snapshot().approvals().key());
        self.count(key, attempt.principal.id(), attempt.resource.id(), behavior.burst, now)
    }

    fn count(&self, key: &Key, identity: &str, resource: &str, counting: Counting, now: Now) -> f32 {
        let (from, to) = (key.text(identity), key.text(resource));
        let tick = counting.tick(now.wall_ms / 1000);
        let fresh = || (counting, BurstDetector::new(counting.merge_below));
        let shards = self.shards.get_or_init(|| (0..SHARDS).map(|_| Mutex::new(fresh())).collect());
        let Some(shard) = shards.get(shard(from)) else { return 0.0 };
        let mut shard = shard.lock();
        if shard.0 != counting {
            *shard = fresh();
        }
        shard.1.observe_own(from, to, tick)
    }
}

fn shard(of: Fingerprint) -> usize {
    usize::try_from(of.bits() >> 60).unwrap_or(0) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Now {
        Now { wall_ms: second * 1000, mono_ns: 0 }
    }

    #[test]
    fn a_flood_is_a_burst_and_another_identity_is_not_part_of_it() {
        let (bursts, key, counting) = (Bursts::default(), Key::new([7; 16]), Counting::default());
        let count = |identity: &str, second| bursts.count(&key, identity, "db", counting, at(second));
        for minute in 0..60 {
            count("steady", minute * 60);
            count("flood", minute * 60);
        }
        let flood = (0..500).map(|_| count("flood", 3_600)).fold(0.0, f32::max);
        assert!(flood > 1_000.0, "{flood}");
        assert!(count("steady", 3_660) < flood);
    }

    #[test]
    fn a_flood_of_one_identity_is_no_burst_of_another_at_the_same_resource() {
        let (bursts, key, counting) = (Bursts::default(), Key::new([7; 16]), Counting::default());
        let count = |identity: &str, second| bursts.count(&key, identity, "db", counting, at(second));
        let group = shard(key.text("flood"));
        let names = (0..).map(|n| format!("victim{n}"));
        let victims: Vec<String> = names.filter(|name| shard(key.text(name)) == group).take(8).collect();
        for minute in 0..60 {
            victims.iter().chain([&"flood".to_owned()]).for_each(|name| {
                count(name, minute * 60);
            });
        }
        let flood = (0..500).map(|_| count("flood", 3_600)).fold(0.0, f32::max);
        let most = victims.iter().map(|name| count(name, 3_601)).fold(0.0, f32::max);
        assert!(flood > 1_000.0 && most < 100.0, "{flood}, {most}");
    }

    #[test]
    fn a_bundle_that_counts_otherwise_begins_anew() {
        let (bursts, key, of_minutes) = (Bursts::default(), Key::new([7; 16]), Counting::default());
        for minute in 0..60 {
            bursts.count(&key, "a", "db", of_minutes, at(minute * 60));
        }
        let of_hours = Counting { tick_s: 3_600, ..of_minutes };
        let score = (0..500).map(|_| bursts.count(&key, "a", "db", of_hours, at(3_600))).fold(0.0, f32::max);
        assert!(score.abs() < f32::EPSILON, "{score}: nothing is usual yet");
    }
}
