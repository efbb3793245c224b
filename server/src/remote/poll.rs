//! The poll loop of a node: looks at its source, offers what is new, and tells how it is going.
//!
//! What was offered once is not downloaded again until the source has something else, whether it was taken or refused.
//! After a failure it waits with [`Backoff`], or as long as the server asks, and makes its client anew, so that rotated
//! certificates and tokens are picked up.
//! Never does: ending while the process runs, judging what it fetched, or keeping it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cardea_policy_store::digest::Digest;
use parking_lot::Mutex;

use super::backoff::{Backoff, share};
use super::error::RemoteError;
use super::https::{ETag, Fetched};
use super::location::{Location, OciDigest};
use super::{Options, Remote};
use crate::clock::Clock;
use crate::limits;
use crate::shutdown::Shutdown;

/// A source changes its interval by up to this part, so that nodes that started together spread out.
const INTERVAL_SPREAD: u32 = 10;

/// A packed bundle that the source has now.
#[derive(Clone, Debug)]
pub struct Offered {
    /// The bytes, not yet verified in any way but by the digest of a registry.
    pub bytes: Bytes,
    /// What the source calls it: a pinned reference, or the address with its ETag.
    pub origin: String,
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in force, or was already.
    Accepted,
    /// It was refused; the same is not offered again.
    Refused,
}

/// How it goes with the source; shared with Status and metrics.
#[derive(Debug)]
pub struct SourceStatus(Mutex<SourceState>);

/// One reading of [`SourceStatus`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceState {
    /// The address.
    pub location: String,
    /// When the source last answered as it should, Unix milliseconds.
    pub contact_ms: Option<i64>,
    /// Failures since then.
    pub failures: u32,
    /// When and how it last failed, Unix milliseconds; stays after it works again.
    pub error: Option<(i64, String)>,
    /// What was offered last, as the source calls it, and what became of it.
    pub offered: Option<(String, Taken)>,
}

impl SourceStatus {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(location: &Location) -> Self {
        Self(Mutex::new(SourceState {
            location: location.to_string(),
            contact_ms: None,
            failures: 0,
            error: None,
            offered: None,
        }))
    }

    /// How it goes now.
    #[must_use]
    pub fn read(&self) -> SourceState {
        self.0.lock().clone()
    }
}

/// Polls until the process drains. `offer` verifies and installs, and is waited for.
///
/// # Errors
/// Never: a source that is down is a state, not an end.
pub async fn poll<F, Taking>(
    location: Location,
    options: Options,
    status: Arc<SourceStatus>,
    clock: Clock,
    shutdown: Shutdown,
    offer: F,
) -> Result<(), Infallible>
where
    F: Fn(Offered) -> Taking + Send,
    Taking: Future<Output = Taken> + Send,
{
    let mut poller = Poller {
        location,
        options,
        status,
        clock,
        remote: None,
        known: Known::default(),
        backoff: Backoff::default(),
    };
    let polling = async {
        loop {
            let pause = poller.round(&offer).await;
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = polling => {}
        () = shutdown.draining() => {}
    }
    Ok(())
}

struct Poller {
    location: Location,
    options: Options,
    status: Arc<SourceStatus>,
    clock: Clock,
    remote: Option<Remote>,
    known: Known,
    backoff: Backoff,
}

/// What was offered last.
#[derive(Default)]
struct Known {
    etag: Option<ETag>,
    manifest: Option<OciDigest>,
    content: Option<Digest>,
}

/// What a look at the source found.
struct Look {
    offered: Option<Offered>,
    known: Known,
    /// The server said that it waits for changes.
    waited: bool,
}

impl Poller {
    /// One look, and what follows from it; returns the pause before the next.
    async fn round<F, Taking>(&mut self, offer: &F) -> Duration
    where
        F: Fn(Offered) -> Taking,
        Taking: Future<Output = Taken>,
    {
        let started_ns = self.clock.mono_ns();
        let look = match self.look().await {
            Ok(look) => look,
            Err(error) => return self.failed(&error),
        };
        let elapsed = Duration::from_nanos(self.clock.mono_ns().saturating_sub(started_ns));
        self.backoff.reset();
        {
            let mut state = self.status.0.lock();
            state.contact_ms = Some(self.clock.now().wall_ms);
            state.failures = 0;
        }
        let Some(offered) = look.offered else {
            self.known = look.known;
            // A server that says that it waits, and does not, is asked like one that does not say so.
            let waits = look.waited && self.options.wait.is_some_and(|wait| elapsed >= wait / 2);
            return if waits { limits::REMOTE_LONG_POLL_REST } else { self.interval() };
        };
        let origin = offered.origin.clone();
        let taken = offer(offered).await;
        // Only now: an offer that was broken off is made again.
        self.known = look.known;
        if taken == Taken::Refused {
            tracing::warn!(source = %origin, "refused; not asked for again until the source has something else");
        }
        self.status.0.lock().offered = Some((origin, taken));
        // The next look shows whether the server waits.
        let may_wait = self.options.wait.is_some() && self.known.etag.is_some();
        if may_wait && taken == Taken::Accepted { limits::REMOTE_LONG_POLL_REST } else { self.interval() }
    }

    async fn look(&mut self) -> Result<Look, RemoteError> {
        let remote = match self.remote.take() {
            Some(remote) => remote,
            None => Remote::new(&self.location, &self.options).await?,
        };
        let look = self.look_at(&remote).await?;
        // Not after a failure: then it is made anew.
        self.remote = Some(remote);
        Ok(look)
    }

    async fn look_at(&self, remote: &Remote) -> Result<Look, RemoteError> {
        let location = &self.location;
        let (bytes, known, origin) = match remote {
            Remote::Https(https) => match https.fetch(self.known.etag.as_ref(), self.options.wait).await? {
                Fetched::NotModified { waited } => {
                    return Ok(self.nothing_new(self.known.etag.clone(), waited));
                }
                Fetched::Body { bytes, etag } => {
                    let origin = match &etag {
                        Some(etag) => format!("{location} {}", etag.text()),
                        None => location.to_string(),
                    };
                    (bytes, Known { etag, ..Known::default() }, origin)
                }
            },
            Remote::Oci(oci) => {
                let manifest = oci.resolve().await?;
                if self.known.manifest.as_ref() == Some(&manifest) {
                    return Ok(self.nothing_new(None, false));
                }
                let bytes = oci.pull(&manifest).await?;
                let origin = oci.reference().pinned(manifest).to_string();
                (bytes, Known { manifest: Some(manifest), ..Known::default() }, origin)
            }
        };
        let digest = Digest::of(&bytes);
        let known = Known { content: Some(digest), ..known };
        // Another name for the same bytes, or a server that does not name versions.
        let is_new = self.known.content.as_ref() != Some(&digest);
        Ok(Look { offered: is_new.then_some(Offered { bytes, origin }), known, waited: false })
    }

    fn nothing_new(&self, etag: Option<ETag>, waited: bool) -> Look {
        let known = Known { etag, manifest: self.known.manifest, content: self.known.content };
        Look { offered: None, known, waited }
    }

    fn failed(&mut self, error: &RemoteError) -> Duration {
        let wait = self.backoff.next(fastrand::u64(..));
        let wait = error.retry_after().map_or(wait, |asked| wait.max(asked));
        let failures = self.backoff.failures();
        tracing::warn!(source = %self.location, %error, failures, wait_ms = wait.as_millis(), "source not reached");
        let mut state = self.status.0.lock();
        state.failures = failures;
        state.error = Some((self.clock.now().wall_ms, error.to_string()));
        wait
    }

    fn interval(&self) -> Duration {
        let interval = self.options.poll_interval;
        interval.saturating_add(share(interval / INTERVAL_SPREAD, fastrand::u64(..)))
    }
}
