//! The keys of one issuer, fetched and kept up to date.
//!
//! Keys are fetched at the start and every [`limits::SSF_KEYS_INTERVAL`]. A token that names a key which is not known causes
//! one look more, at most one in [`limits::SSF_KEYS_REST`]; whoever waits for it waits with at most
//! [`limits::SSF_KEYS_WAITING_MAX`] others. While an issuer cannot be reached the last keys count for
//! [`limits::SSF_KEYS_LIFE`], and then none: a key that an issuer has withdrawn must not count for ever.
//! Never does: fetching for a stranger, fetching twice at a time, replacing good keys with what cannot be used.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::sync::Semaphore;

use super::address::Address;
use super::jwk::{self, KeySet};
use super::receive::client::{Client, ClientFault};
use super::receive::metadata::Metadata;
use super::set::Unverified;
use crate::clock::Clock;
use crate::limits;

const WHAT: &str = "the question for its keys";

/// See the module.
#[derive(Debug)]
pub(crate) struct Keys {
    issuer: Address,
    /// None: as the issuer's metadata says.
    at: Option<Address>,
    client: Arc<Client>,
    clock: Clock,
    held: Mutex<Held>,
    /// One fetches at a time.
    fetching: tokio::sync::Mutex<()>,
    waiting: Semaphore,
}

/// What is known of the keys.
#[derive(Clone, Debug, Default)]
struct Held {
    set: Option<Arc<KeySet>>,
    /// Members of subjects that the metadata beside them calls critical.
    critical: Vec<SmolStr>,
    /// When they were fetched, monotonic nanoseconds.
    fetched_ns: u64,
    /// When it was last tried, and whether it worked.
    tried: Option<(u64, bool)>,
}

/// Nobody can say now whether a key is the issuer's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the keys of the issuer cannot be reached now; send it again later")]
pub(crate) struct KeysUnreachable;

impl Keys {
    pub(crate) fn new(issuer: Address, at: Option<Address>, client: Arc<Client>, clock: Clock) -> Self {
        Self {
            issuer,
            at,
            client,
            clock,
            held: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
            waiting: Semaphore::new(limits::SSF_KEYS_WAITING_MAX),
        }
    }

    /// The keys to verify a token with. Where they do not hold the one that it names, that is the issuer's last word.
    pub(crate) async fn for_token(&self, token: &Unverified<'_>) -> Result<Arc<KeySet>, KeysUnreachable> {
        if let Some(set) = self.current().filter(|set| token.key(set).is_some()) {
            return Ok(set);
        }
        let Ok(_place) = self.waiting.try_acquire() else { return Err(KeysUnreachable) };
        let _one = self.fetching.lock().await;
        if let Some(set) = self.current().filter(|set| token.key(set).is_some()) {
            return Ok(set);
        }
        let worked = match self.held.lock().tried {
            Some((at_ns, worked)) if self.since(at_ns) < limits::SSF_KEYS_REST => Some(worked),
            _ => None,
        };
        let worked = match worked {
            Some(worked) => worked,
            None => self.fetch_one().await.is_ok(),
        };
        // What was not looked up cannot be told from what is not there.
        self.current().filter(|set| worked || token.key(set).is_some()).ok_or(KeysUnreachable)
    }

    /// Fetches them anew, whatever is known.
    pub(crate) async fn refresh(&self) -> Result<(), ClientFault> {
        let _one = self.fetching.lock().await;
        self.fetch_one().await
    }

    /// Members of subjects without which an event must not be processed, where the metadata says where the keys are.
    pub(crate) fn critical(&self) -> Vec<SmolStr> {
        self.held.lock().critical.clone()
    }

    /// Age of the keys; none without any that count.
    pub(crate) fn age(&self) -> Option<Duration> {
        let held = self.held.lock();
        held.set.as_ref().map(|_| self.since(held.fetched_ns))
    }

    fn current(&self) -> Option<Arc<KeySet>> {
        let held = self.held.lock().clone();
        held.set.filter(|_| self.since(held.fetched_ns) < limits::SSF_KEYS_LIFE)
    }

    fn since(&self, at_ns: u64) -> Duration {
        Duration::from_nanos(self.clock.mono_ns().saturating_sub(at_ns))
    }

    async fn fetch_one(&self) -> Result<(), ClientFault> {
        let fetched = match tokio::time::timeout(limits::SSF_KEYS_TIMEOUT, self.fetch()).await {
            Ok(fetched) => fetched,
            Err(_) => Err(self.client.content(WHAT, "it takes too long")),
        };
        let now_ns = self.clock.mono_ns();
        let mut held = self.held.lock();
        held.tried = Some((now_ns, fetched.is_ok()));
        let (set, critical) = fetched?;
        held.set = Some(Arc::new(set));
        held.critical = critical;
        held.fetched_ns = now_ns;
        Ok(())
    }

    async fn fetch(&self) -> Result<(KeySet, Vec<SmolStr>), ClientFault> {
        let (at, critical) = match &self.at {
            Some(at) => (at.clone(), Vec::new()),
            None => {
                let Metadata { jwks, critical, .. } = Metadata::fetch(&self.client, &self.issuer).await?;
                let no_address = || self.client.content(WHAT, "its metadata has no `jwks_uri`");
                (jwks.ok_or_else(no_address)?, critical)
            }
        };
        let body = self.client.published(at.url(), WHAT, jwk::SET_BYTES_MAX).await?;
        let set = KeySet::parse(&body).map_err(|fault| self.client.content(WHAT, &fault.to_string()))?;
        Ok((set, critical))
    }
}

#[cfg(test)]
mod tests;
