//! For how long ends are remembered: as long as a session that they ended could otherwise come back.
//!
//! How long a session may last says the bundle, and the next bundle may say something else. INVARIANT (no end is outlived):
//! what ends sessions is remembered for the longest life that any session was ever given; when that rises, tokens from
//! before the time up to which ends may be forgotten open no session. Kept on disk.

use std::sync::atomic::{AtomicI64, Ordering};

use cardea_core::time::Now;
use parking_lot::Mutex;

/// See the module.
#[derive(Debug)]
pub(super) struct Memory {
    life_ms: AtomicI64,
    /// Ends up to here may be forgotten, Unix milliseconds.
    forgotten_ms: AtomicI64,
    rising: Mutex<()>,
}

impl Default for Memory {
    fn default() -> Self {
        let (life_ms, forgotten_ms) = (AtomicI64::new(0), AtomicI64::new(i64::MIN));
        Self { life_ms, forgotten_ms, rising: Mutex::default() }
    }
}

impl Memory {
    /// Sessions may last that long from now on. `keep` is called with the row if that is longer than ever.
    pub(super) fn rise(&self, life_ms: i64, now: Now, keep: impl FnOnce(Vec<u8>)) {
        if life_ms <= self.life_ms() {
            return;
        }
        let _in_order = self.rising.lock();
        let before_ms = self.life_ms();
        if life_ms <= before_ms {
            return;
        }
        if before_ms > 0 {
            self.forgotten_ms.fetch_max(now.wall_ms.saturating_sub(before_ms), Ordering::SeqCst);
        }
        // Last: whoever sees the longer life sees what was forgotten under the shorter one.
        self.life_ms.store(life_ms, Ordering::SeqCst);
        keep(self.row());
    }

    /// For how long ends are remembered, in milliseconds.
    pub(super) fn life_ms(&self) -> i64 {
        self.life_ms.load(Ordering::SeqCst)
    }

    /// Whether an end at that time may be forgotten.
    pub(super) fn may_forget(&self, at_ms: i64) -> bool {
        at_ms <= self.forgotten_ms.load(Ordering::SeqCst)
    }

    pub(super) fn row(&self) -> Vec<u8> {
        let times = [self.life_ms(), self.forgotten_ms.load(Ordering::SeqCst)];
        times.into_iter().flat_map(i64::to_le_bytes).collect()
    }

    /// As [`Memory::row`] gave it; `None` if it is something else.
    pub(super) fn restore(&self, row: &[u8]) -> Option<()> {
        let (life_ms, rest) = row.split_first_chunk()?;
        self.forgotten_ms.store(i64::from_le_bytes(rest.try_into().ok()?), Ordering::SeqCst);
        self.life_ms.store(i64::from_le_bytes(*life_ms), Ordering::SeqCst);
        Some(())
    }
}
