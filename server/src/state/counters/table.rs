//! The windows, by counter and subject. Sharded; a lock is held for the arithmetic of one window.
//!
//! Subjects are compared as a whole, under hashes that are keyed for this process: nobody can pick a name that shares another's
//! window or crowds a shard. When a shard is full, what is over makes room; what is not stays.

use ahash::{AHashMap, RandomState};
use cardea_core::counters::{Part, Window};
use cardea_policy_store::counters::Definition;
use cardea_policy_store::engine::Uid;
use parking_lot::Mutex;
use smol_str::SmolStr;

/// One for each value of a byte: many enough that a snapshot holds each for some ten microseconds.
const SHARDS: usize = 256;
/// A full shard is looked through for what is over this often at most, in milliseconds.
const SWEEP_MS: u64 = 1000;

/// Whom something is counted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Entity(Uid),
    /// A session, task or tenant; which of them says the counter.
    Name(SmolStr),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) definition: Definition,
    pub(super) subject: Subject,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    shards: Box<[Mutex<Shard>]>,
    shard_max: usize,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    windows: AHashMap<Key, Window>,
    swept_ms: u64,
}

impl Table {
    /// With room for so many windows, at least one in each shard.
    pub(super) fn new(max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_max: max.div_ceil(SHARDS),
            hasher: RandomState::new(),
        }
    }

    /// Takes a place until then, and tells how many count beside it; `None`: there is no room for the subject.
    pub(super) fn take(&self, key: &Key, window_ms: u64, at_ms: u64, until_ms: u64) -> Option<(u64, Part)> {
        let mut shard = self.shard(key)?.lock();
        if let Some(window) = shard.windows.get_mut(key) {
            window.advance(at_ms);
            return Some((window.count(), window.take(until_ms)));
        }
        let mut window = Window::new(window_ms, at_ms);
        let part = window.take(until_ms);
        self.insert(&mut shard, key.clone(), window, at_ms).then_some((0, part))
    }

    /// How many count.
    pub(super) fn look(&self, key: &Key, at_ms: u64) -> u64 {
        self.with(key, |window| {
            window.advance(at_ms);
            window.count()
        })
        .unwrap_or(0)
    }

    /// A place counts no more. A window in which nothing counts goes with it: whoever is refused under ever new names takes no room.
    pub(super) fn give_back(&self, key: &Key, part: Part) {
        let Some(mut shard) = self.shard(key).map(Mutex::lock) else { return };
        let Some(window) = shard.windows.get_mut(key) else { return };
        window.give_back(part);
        if window.is_over() {
            shard.windows.remove(key);
        }
    }

    /// What a place was reserved for has happened.
    pub(super) fn settle(&self, key: &Key, part: Part, at_ms: u64) {
        let _gone = self.with(key, |window| {
            window.advance(at_ms);
            window.settle(part);
        });
    }

    /// Puts a window back that a snapshot held, whether there is room or not: hashes fall otherwise in each process, and what
    /// had a place keeps it.
    pub(super) fn restore(&self, key: Key, window: Window) {
        if let Some(shard) = self.shard(&key) {
            shard.lock().windows.insert(key, window);
        }
    }

    /// Drops the windows that are over.
    pub(super) fn sweep(&self, at_ms: u64) {
        self.shards.iter().for_each(|shard| shard.lock().sweep(at_ms));
    }

    /// Windows.
    pub(super) fn len(&self) -> u64 {
        let all = self.shards.iter().map(|shard| shard.lock().windows.len());
        u64::try_from(all.sum::<usize>()).unwrap_or(u64::MAX)
    }

    /// Shows every window in which anything counts, shard after shard.
    pub(super) fn each(&self, at_ms: u64, mut show: impl FnMut(&Key, &Window)) {
        for shard in &self.shards {
            for (key, window) in &mut shard.lock().windows {
                window.advance(at_ms);
                if !window.is_over() {
                    show(key, window);
                }
            }
        }
    }

    fn shard(&self, key: &Key) -> Option<&Mutex<Shard>> {
        // Other bits than those that the map goes by are as good: the map has keys of its own.
        let [place, ..] = self.hasher.hash_one(key).to_le_bytes();
        self.shards.get(usize::from(place))
    }

    fn with<R>(&self, key: &Key, change: impl FnOnce(&mut Window) -> R) -> Option<R> {
        self.shard(key)?.lock().windows.get_mut(key).map(change)
    }

    fn insert(&self, shard: &mut Shard, key: Key, window: Window, at_ms: u64) -> bool {
        if shard.windows.len() >= self.shard_max && shard.swept_ms.saturating_add(SWEEP_MS) <= at_ms {
            shard.sweep(at_ms);
        }
        if shard.windows.len() >= self.shard_max {
            return false;
        }
        shard.windows.insert(key, window);
        true
    }
}

impl Shard {
    fn sweep(&mut self, at_ms: u64) {
        self.swept_ms = self.swept_ms.max(at_ms);
        self.windows.retain(|_, window| {
            window.advance(at_ms);
            !window.is_over()
        });
    }
}
