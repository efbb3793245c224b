//! A bounded map that never evicts by itself: when it is full it says so.

use std::hash::Hash;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use ahash::{AHashMap, RandomState};
use parking_lot::RwLock;

/// Shards; more than any machine's cores that would write at once, few enough to stay small when empty.
const SHARDS: usize = 64;
/// A full table is searched for entries that no longer matter at most this often, in milliseconds: the search walks all.
const SWEEP_INTERVAL_MS: i64 = 1000;

/// A table has no place, even after dropping what no longer matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table is full")]
pub struct TableFull;

/// Called with each entry that is dropped, under its shard's lock.
type Dropped<K> = Box<dyn Fn(&K) + Send + Sync>;

pub(super) struct Table<K, V> {
    shards: Box<[RwLock<AHashMap<K, V>>]>,
    dropped: Dropped<K>,
    hasher: RandomState,
    len: AtomicU64,
    max: u64,
    swept_ms: AtomicI64,
}

impl<K, V> std::fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("len", &self.len).field("max", &self.max).finish_non_exhaustive()
    }
}

impl<K: Hash + Eq, V: Clone> Table<K, V> {
    pub(super) fn new(max: usize, dropped: Dropped<K>) -> Self {
        Self {
            dropped,
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            len: AtomicU64::new(0),
            max: u64::try_from(max).unwrap_or(u64::MAX),
            swept_ms: AtomicI64::new(i64::MIN),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there is no place, after dropping what is spent.
    pub(super) fn is_full(&self, now_ms: i64, spent: impl Fn(&V) -> bool) -> bool {
        if self.len() < self.max {
            return false;
        }
        self.sweep(now_ms, spent);
        self.len() >= self.max
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> Option<&RwLock<AHashMap<K, V>>> {
        let shards = u64::try_from(self.shards.len()).ok()?;
        let at = self.hasher.hash_one(key).checked_rem(shards)?;
        self.shards.get(usize::try_from(at).ok()?)
    }

    /// A copy of the entry; the lock is held for the lookup only.
    pub(super) fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if self.len() == 0 {
            return None;
        }
        self.shard(key)?.read().get(key).cloned()
    }

    /// Changes the entry, or a default one that is then kept.
    ///
    /// `spent` tells which entries may be dropped to make room; it is asked only when the table is full.
    pub(super) fn update<R>(
        &self,
        key: K,
        now_ms: i64,
        default: impl FnOnce() -> V,
        spent: impl Fn(&V) -> bool,
        change: impl FnOnce(&mut V) -> R,
    ) -> Result<R, TableFull> {
        let Some(shard) = self.shard(&key) else { return Err(TableFull) };
        if self.len() >= self.max && !shard.read().contains_key(&key) {
            self.sweep(now_ms, spent);
        }
        let mut entries = shard.write();
        if let Some(entry) = entries.get_mut(&key) {
            return Ok(change(entry));
        }
        // Counted before it is there: `len` 0 must mean that there is nothing to find.
        if self.len.fetch_add(1, Ordering::SeqCst) >= self.max {
            self.len.fetch_sub(1, Ordering::SeqCst);
            return Err(TableFull);
        }
        Ok(change(entries.entry(key).or_insert_with(default)))
    }

    /// Puts back an entry that was kept on disk, beyond the maximum too: what was acknowledged is not forgotten.
    pub(super) fn restore(&self, key: K, value: V) {
        let Some(shard) = self.shard(&key) else { return };
        if shard.write().insert(key, value).is_none() {
            self.len.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Shows every entry, shard by shard, each under its lock.
    #[expect(clippy::disallowed_methods, reason = "whoever asks for all of them wants no order")]
    pub(super) fn each(&self, mut visit: impl FnMut(&K, &V)) {
        for shard in &self.shards {
            for (key, entry) in shard.read().iter() {
                visit(key, entry);
            }
        }
    }

    /// Drops what is spent, not more often than it is worth.
    pub(super) fn sweep(&self, now_ms: i64, spent: impl Fn(&V) -> bool) {
        let swept_ms = self.swept_ms.load(Ordering::Relaxed);
        if now_ms < swept_ms.saturating_add(SWEEP_INTERVAL_MS) {
            return;
        }
        self.swept_ms.store(now_ms, Ordering::Relaxed);
        for shard in &self.shards {
            let mut entries = shard.write();
            let before = entries.len();
            entries.retain(|key, entry| {
                let is_spent = spent(entry);
                if is_spent {
                    (self.dropped)(key);
                }
                !is_spent
            });
            let dropped = before - entries.len();
            self.len.fetch_sub(u64::try_from(dropped).unwrap_or(0), Ordering::SeqCst);
        }
    }
}
