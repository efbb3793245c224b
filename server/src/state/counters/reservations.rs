//! Allows that count unless somebody says in time that they came to nothing.
//!
//! A reservation is settled by a token of 128 random bits that only whoever got the allow was told: ids of decisions are unique,
//! not secret. What was settled is remembered until its time is over, so that saying the same again is no fault. A reservation
//! whose time is over counts; it only cannot be settled any more.
//! Limit: [`limits::RESERVATIONS_MAX`]; beyond it an allow counts and cannot be given back.

use ahash::AHashMap;
use parking_lot::Mutex;
use ring::rand::{SecureRandom as _, SystemRandom};
use smallvec::SmallVec;

use super::{Place, limits};

const SHARDS: usize = 16;
/// A full shard is looked through for what is over this often at most, in milliseconds.
const SWEEP_MS: u64 = 1000;

/// What an enforcement point gets with an allow that waits to be settled.
#[derive(Clone, PartialEq, Eq)]
pub struct Reservation {
    /// What settles it; a secret.
    pub token: String,
    /// For how long it can be settled, in milliseconds.
    pub settle_ms: u64,
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation").field("settle_ms", &self.settle_ms).finish_non_exhaustive()
    }
}

/// Why nothing was settled. The message is for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSettled {
    /// Never given out here, or its time is over, or the process began anew since.
    #[error(
        "nothing waits under this token: its time is over and it counts, or it was never given out by this node"
    )]
    Unknown,
    /// It was settled the other way.
    #[error("it was settled the other way already")]
    Otherwise,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Reservations {
    shards: Box<[Mutex<Shard>]>,
    random: SystemRandom,
}

#[derive(Debug, Default)]
struct Shard {
    open: AHashMap<u128, Open>,
    swept_ms: u64,
}

#[derive(Debug)]
struct Open {
    places: SmallVec<[Place; 1]>,
    until_ms: u64,
    /// Whether it was done, once somebody said.
    said: Option<bool>,
}

impl Default for Reservations {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), random: SystemRandom::new() }
    }
}

impl Reservations {
    /// `None`: there is no room, or no randomness, so they count.
    pub(super) fn open(&self, places: SmallVec<[Place; 1]>, at_ms: u64) -> Option<Reservation> {
        let until_ms = places.iter().map(|place| place.until_ms).min()?;
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).ok()?;
        let token = u128::from_le_bytes(bytes);
        let mut shard = self.shard(token)?.lock();
        let is_full = |shard: &Shard| shard.open.len() >= limits::RESERVATIONS_MAX / SHARDS;
        if is_full(&shard) && shard.swept_ms.saturating_add(SWEEP_MS) <= at_ms {
            shard.sweep(at_ms);
        }
        if is_full(&shard) {
            return None;
        }
        shard.open.insert(token, Open { places, until_ms, said: None });
        Some(Reservation { token: format!("{token:032x}"), settle_ms: until_ms.saturating_sub(at_ms) })
    }

    /// The places that are settled by this; none if the same was said before.
    pub(super) fn settle(
        &self,
        token: &str,
        is_done: bool,
        at_ms: u64,
    ) -> Result<SmallVec<[Place; 1]>, NotSettled> {
        let token = read(token).ok_or(NotSettled::Unknown)?;
        let mut shard = self.shard(token).ok_or(NotSettled::Unknown)?.lock();
        let open = shard.open.get_mut(&token).filter(|open| open.until_ms > at_ms);
        let open = open.ok_or(NotSettled::Unknown)?;
        if open.said.is_some_and(|said| said != is_done) {
            return Err(NotSettled::Otherwise);
        }
        open.said = Some(is_done);
        Ok(std::mem::take(&mut open.places))
    }

    /// Drops those whose time is over.
    pub(super) fn sweep(&self, at_ms: u64) {
        self.shards.iter().for_each(|shard| shard.lock().sweep(at_ms));
    }

    /// Those that are remembered.
    pub(super) fn len(&self) -> u64 {
        let all = self.shards.iter().map(|shard| shard.lock().open.len());
        u64::try_from(all.sum::<usize>()).unwrap_or(u64::MAX)
    }

    fn shard(&self, token: u128) -> Option<&Mutex<Shard>> {
        let [place, ..] = token.to_le_bytes();
        self.shards.get(usize::from(place) % SHARDS)
    }
}

impl Shard {
    fn sweep(&mut self, at_ms: u64) {
        self.swept_ms = self.swept_ms.max(at_ms);
        self.open.retain(|_, open| open.until_ms > at_ms);
    }
}

/// The one form in which a token is given out.
fn read(token: &str) -> Option<u128> {
    let is_plain = token.len() == 32 && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_plain.then(|| u128::from_str_radix(token, 16).ok()).flatten()
}
