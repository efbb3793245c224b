//! A hierarchical timer wheel: one timer for each number, set, moved and cancelled in constant time.
//!
//! Owns: [`LEVELS`] levels of 64 buckets; a bucket of the lowest level is one millisecond, each level is 64 times as coarse
//! as the one below. A timer sits at the level of the highest digit in which its time differs from the wheel's own time,
//! and falls to lower levels as that time comes near.
//! INVARIANT (next is never late): `next_ms` is at most the time of the earliest timer.
//! Limits: times beyond the year 10,000 count as that year. Time is an argument.
//! Never does: reading a clock, allocating per timer (beyond one place for the highest number ever set).

const DIGIT_BITS: u32 = 6;
const BUCKETS: u32 = 1 << DIGIT_BITS;
const LEVELS: u32 = 8;
/// 48 bits of milliseconds: the year 10,889.
const TIME_MAX_MS: u64 = (1 << (DIGIT_BITS * LEVELS)) - 1;
/// The bucket of those whose time has come.
const DUE: u32 = BUCKETS * LEVELS;
const NOWHERE: u32 = u32::MAX;

/// See the module.
#[derive(Debug)]
pub(super) struct Wheel {
    now_ms: u64,
    /// Which buckets of a level hold timers.
    occupied: [u64; LEVELS as usize],
    /// The first timer of each bucket.
    heads: Vec<u32>,
    timers: Vec<Timer>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    at_ms: u64,
    bucket: u32,
    before: u32,
    after: u32,
}

impl Timer {
    const UNSET: Self = Self { at_ms: 0, bucket: NOWHERE, before: NOWHERE, after: NOWHERE };
}

impl Wheel {
    pub(super) fn new(now_ms: i64) -> Self {
        let heads = vec![NOWHERE; usize::try_from(DUE + 1).unwrap_or(0)];
        Self { now_ms: bounded(now_ms), occupied: [0; LEVELS as usize], heads, timers: Vec::new(), len: 0 }
    }

    /// How many timers are set.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The time that the wheel has come to.
    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.now_ms).unwrap_or(i64::MAX)
    }

    /// Sets or moves the timer `id`.
    pub(super) fn set(&mut self, id: u32, at_ms: i64) {
        self.cancel(id);
        let place = usize::try_from(id).unwrap_or(usize::MAX);
        if self.timers.len() <= place {
            self.timers.resize(place.saturating_add(1), Timer::UNSET);
        }
        self.insert(id, bounded(at_ms));
        self.len += 1;
    }

    /// Cancels the timer `id`, if it is set.
    pub(super) fn cancel(&mut self, id: u32) {
        if self.timer(id).bucket != NOWHERE {
            self.unlink(id);
            self.len -= 1;
        }
    }

    /// When to look again: a timer's own time where it is near, else a time before it. `None`: no timer is set.
    pub(super) fn next_ms(&self) -> Option<i64> {
        let due = (self.head(DUE) != NOWHERE).then_some(self.now_ms);
        let next = due.or_else(|| self.next_bucket().map(|(_, start_ms)| start_ms))?;
        Some(i64::try_from(next).unwrap_or(i64::MAX))
    }

    /// Moves on to `now_ms` and gives out timers whose time has come, `max` at most; others stay due. Time never goes back
    /// here; see [`Wheel::rewind`].
    pub(super) fn advance(&mut self, now_ms: i64, max: usize, out: &mut Vec<u32>) {
        let now_ms = bounded(now_ms);
        while let Some((bucket, start_ms)) = self.next_bucket() {
            if start_ms > now_ms {
                break;
            }
            self.now_ms = start_ms;
            self.fall(bucket);
        }
        self.now_ms = self.now_ms.max(now_ms);
        while out.len() < max {
            let id = self.head(DUE);
            if id == NOWHERE {
                return;
            }
            self.cancel(id);
            out.push(id);
        }
    }

    /// Takes the wheel back to an earlier time, as when somebody set the clock back. Touches every timer.
    pub(super) fn rewind(&mut self, now_ms: i64) {
        let set: Vec<(u32, u64)> = (0..)
            .zip(&self.timers)
            .filter(|(_, timer)| timer.bucket != NOWHERE)
            .map(|(id, timer)| (id, timer.at_ms))
            .collect();
        set.iter().for_each(|(id, _)| self.unlink(*id));
        self.now_ms = bounded(now_ms);
        set.iter().for_each(|(id, at_ms)| self.insert(*id, *at_ms));
    }

    /// Spreads the timers of a bucket, whose start is now, over lower levels.
    fn fall(&mut self, bucket: u32) {
        loop {
            let id = self.head(bucket);
            if id == NOWHERE {
                return;
            }
            let at_ms = self.timer(id).at_ms;
            self.unlink(id);
            self.insert(id, at_ms);
        }
    }

    /// The earliest bucket that holds timers, and the first millisecond that belongs to it. What is at a lower level is
    /// always earlier than what is above it.
    fn next_bucket(&self) -> Option<(u32, u64)> {
        let (level, buckets) = (0..).zip(&self.occupied).find(|(_, buckets)| **buckets != 0)?;
        let shift = DIGIT_BITS * level;
        let digit = u64::from(buckets.trailing_zeros());
        let above = self.now_ms >> (shift + DIGIT_BITS) << (shift + DIGIT_BITS);
        Some((level * BUCKETS + buckets.trailing_zeros(), above | digit << shift))
    }

    fn insert(&mut self, id: u32, at_ms: u64) {
        let bucket = if at_ms <= self.now_ms {
            DUE
        } else {
            let level = (u64::BITS - 1 - (at_ms ^ self.now_ms).leading_zeros()) / DIGIT_BITS;
            let digit = (at_ms >> (DIGIT_BITS * level)) & u64::from(BUCKETS - 1);
            if let Some(occupied) = self.occupied.get_mut(to_usize(level)) {
                *occupied |= 1 << digit;
            }
            level * BUCKETS + u32::try_from(digit).unwrap_or(0)
        };
        let after = self.head(bucket);
        if let Some(timer) = self.timers.get_mut(to_usize(id)) {
            *timer = Timer { at_ms, bucket, before: NOWHERE, after };
        }
        if let Some(after) = self.timers.get_mut(to_usize(after)) {
            after.before = id;
        }
        self.set_head(bucket, id);
    }

    fn unlink(&mut self, id: u32) {
        let Timer { bucket, before, after, .. } = self.timer(id);
        match self.timers.get_mut(to_usize(before)) {
            Some(before) => before.after = after,
            None => self.set_head(bucket, after),
        }
        if let Some(after) = self.timers.get_mut(to_usize(after)) {
            after.before = before;
        }
        if let Some(timer) = self.timers.get_mut(to_usize(id)) {
            *timer = Timer::UNSET;
        }
        if self.head(bucket) == NOWHERE
            && let Some(occupied) = self.occupied.get_mut(to_usize(bucket / BUCKETS))
        {
            *occupied &= !(1 << (bucket % BUCKETS));
        }
    }

    fn timer(&self, id: u32) -> Timer {
        self.timers.get(to_usize(id)).copied().unwrap_or(Timer::UNSET)
    }

    fn head(&self, bucket: u32) -> u32 {
        self.heads.get(to_usize(bucket)).copied().unwrap_or(NOWHERE)
    }

    fn set_head(&mut self, bucket: u32, id: u32) {
        if let Some(head) = self.heads.get_mut(to_usize(bucket)) {
            *head = id;
        }
    }
}

fn bounded(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0).min(TIME_MAX_MS)
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn fired(wheel: &mut Wheel, now_ms: i64) -> Vec<u32> {
        let mut out = Vec::new();
        wheel.advance(now_ms, usize::MAX, &mut out);
        out.sort_unstable();
        out
    }

    #[test]
    fn a_timer_fires_at_its_own_millisecond_and_not_before() {
        for wait in [1, 63, 64, 65, 4_095, 4_096, 1_000_000, 10_000_000_000] {
            let start = 1_764_000_000_123;
            let mut wheel = Wheel::new(start);
            wheel.set(7, start + wait);
            assert!(fired(&mut wheel, start + wait - 1).is_empty(), "{wait}");
            assert_eq!(fired(&mut wheel, start + wait), [7], "{wait}");
            assert_eq!((wheel.len(), wheel.next_ms()), (0, None));
        }
    }

    #[test]
    fn what_is_not_given_out_stays_due() {
        let mut wheel = Wheel::new(0);
        (0..10).for_each(|id| wheel.set(id, 5));
        let mut out = Vec::new();
        wheel.advance(9, 4, &mut out);
        assert_eq!((out.len(), wheel.len(), wheel.next_ms()), (4, 6, Some(9)));
        assert_eq!(fired(&mut wheel, 9).len(), 6);
    }

    #[test]
    fn looking_when_told_to_reaches_any_timer_in_few_steps() {
        let mut wheel = Wheel::new(0);
        wheel.set(1, 86_400_000 * 365);
        let mut looks = 0;
        while let Some(next) = wheel.next_ms() {
            fired(&mut wheel, next);
            looks += 1;
        }
        assert!(looks <= 8, "{looks}");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u32, i64),
        Cancel(u32),
        Advance(i64),
        Rewind(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let wait = prop_oneof![-10..10_i64, 0..5_000_i64, 0..100_000_000_i64];
        prop_oneof![
            4 => (0..20_u32, wait.clone()).prop_map(|(id, wait)| Step::Set(id, wait)),
            1 => (0..20_u32).prop_map(Step::Cancel),
            3 => wait.clone().prop_map(Step::Advance),
            1 => wait.prop_map(Step::Rewind),
        ]
    }

    proptest! {
        #[test]
        fn the_wheel_agrees_with_a_sorted_map(steps in prop::collection::vec(step(), 0..60)) {
            let mut now = 1_000_000_000;
            let (mut wheel, mut model) = (Wheel::new(now), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Set(id, wait) => {
                        wheel.set(id, now + wait);
                        model.insert(id, now + wait);
                    }
                    Step::Cancel(id) => {
                        wheel.cancel(id);
                        model.remove(&id);
                    }
                    Step::Advance(by) => {
                        now += by.max(0);
                        let due: Vec<u32> = model.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
                        model.retain(|_, at| *at > now);
                        prop_assert_eq!(fired(&mut wheel, now), due);
                    }
                    Step::Rewind(by) => {
                        now -= by.max(0);
                        wheel.rewind(now);
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                prop_assert_eq!(wheel.now_ms(), now);
                let earliest = model.values().min().map(|at| (*at).max(now));
                prop_assert_eq!(wheel.next_ms().is_some(), earliest.is_some());
                prop_assert!(wheel.next_ms() <= earliest);
            }
        }
    }
}
