//! A client that reuses allows for as long as their leases say, and asks for everything else.
//!
//! Owns a [`table::Table`] of allows, keyed by what each rests on. It fails closed: what it does not surely know, it asks; a
//! call that fails is an [`Error`] as with [`Client`], and no deny, step-up or failure is ever reused. With a [`Holding`] task
//! beside it, allows live for their held leases, and are dropped when the service takes them back. Limits: as many allows as
//! were asked for at the start; a lease counts from the moment at which the attempt was sent.

mod holding;
mod holds;
mod key;
mod table;

use std::borrow::Borrow;
use std::sync::Arc;

use tokio::sync::mpsc;

pub use self::holding::Holding;
use self::holding::WANTED_MAX;
use self::holds::Wanted;
use self::key::{Keys, Lookup};
use self::table::{Kept, Link, Table};
use crate::clock::Clock;
use crate::v1::{Attempt, Decision, Verdict};
use crate::{Client, Error};

/// Nanoseconds of a millisecond.
const MS_NS: u64 = 1_000_000;

/// See the module. Cheap to clone; clones share the allows.
///
/// ```no_run
/// use cardea_client::{CachedClient, Client, VerdictExt, attempt, entity};
///
/// # async fn run() -> Result<(), cardea_client::Error> {
/// let cardea = CachedClient::new(Client::connect("http://127.0.0.1:7411").await?, 100_000);
/// let answer = cardea.decide(attempt(entity("Agent", "support-bot"), "read", entity("Table", "crm/tickets"))).await;
/// if answer.is_ok_and(|answer| answer.verdict.is_allowed()) {
///     // run the action
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CachedClient {
    client: Client,
    shared: Arc<Shared>,
    wanted: Option<mpsc::Sender<Wanted>>,
}

#[derive(Debug)]
struct Shared {
    table: Table,
    link: Link,
    clock: Clock,
}

/// A verdict, and where it comes from.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The verdict. If it is reused, `attempt_id` and `decision_id` are those of the attempt that was asked about.
    pub verdict: Arc<Verdict>,
    /// Whether it was given for an earlier attempt, so that this one is in no record of the service.
    pub reused: bool,
}

impl CachedClient {
    /// Asks with this client and keeps about so many allows; each takes some hundred bytes and its verdict.
    #[must_use]
    pub fn new(client: Client, allows_max: usize) -> Self {
        let shared = Shared { table: Table::new(allows_max), link: Link::default(), clock: Clock::new() };
        Self { client, shared: Arc::new(shared), wanted: None }
    }

    /// The same with a Hold stream, under this name of the enforcement point. Run the [`Holding`] as a task of its own:
    /// without it, and while it has no stream, allows live only for the lease that needs none.
    ///
    /// ```no_run
    /// # use cardea_client::{CachedClient, Client};
    /// # async fn run() -> Result<(), cardea_client::Error> {
    /// let client = Client::connect("http://127.0.0.1:7411").await?;
    /// let (cardea, holding) = CachedClient::holding(client, 100_000, "gateway-1");
    /// tokio::spawn(holding.run());
    /// # let _ = cardea;
    /// # Ok(())
    /// # }
    /// ```
    pub fn holding(
        client: Client,
        allows_max: usize,
        enforcement_point: impl Into<String>,
    ) -> (Self, Holding) {
        let (wanted, queue) = mpsc::channel(WANTED_MAX);
        let cached = Self { wanted: Some(wanted), ..Self::new(client.clone(), allows_max) };
        let shared = Arc::clone(&cached.shared);
        (cached, Holding::new(client, shared, enforcement_point.into(), queue, allows_max))
    }

    /// Whether a Hold stream is there: something was heard on it lately, and everything up to then was told.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        let Shared { link, clock, .. } = &*self.shared;
        link.is_there(clock.now_ns())
    }

    /// Answers from memory if an allow holds for this attempt, else asks. Takes the attempt or a reference to it; it is copied
    /// only to ask.
    ///
    /// # Errors
    /// No answer: deny.
    pub async fn decide(&self, attempt: impl Borrow<Attempt>) -> Result<Answer, Error> {
        let attempt = attempt.borrow();
        match self.reuse(attempt) {
            Some(verdict) => Ok(Answer { verdict, reused: true }),
            None => self.ask(attempt).await,
        }
    }

    async fn ask(&self, attempt: &Attempt) -> Result<Answer, Error> {
        let Shared { table, clock, .. } = &*self.shared;
        let keys = Keys::new(attempt, table.hashing());
        let ([of_base, of_whole], sent_ns) = (keys.both().map(|key| table.asked(key)), clock.now_ns());
        let wanted = self.wanted.as_ref().filter(|_| self.is_holding());
        let verdict = Arc::new(self.client.clone().decide(attempt.clone()).await?);
        let lease = verdict.lease.filter(|_| verdict.decision() == Decision::Allow).unwrap_or_default();
        match lease.lease_ms {
            0 => keys.both().into_iter().for_each(|key| table.remove(key)),
            lease_ms => {
                let until_ns = sent_ns.saturating_add(u64::from(lease_ms) * MS_NS);
                let kept = Kept { verdict: Arc::clone(&verdict), until_ns, held: None };
                let asked = if lease.on_context { of_whole } else { of_base };
                table.store(keys.of(lease.on_context), kept, asked, clock.now_ns());
            }
        }
        if let Some(wanted) = wanted.filter(|_| lease.held_lease_ms > 0) {
            let (attempt, on_context, generation) = (attempt.clone(), lease.on_context, of_base.generation);
            // One that finds no place is not held, and is asked again sooner.
            let _ = wanted.try_send(Wanted { attempt, keys, on_context, generation });
        }
        Ok(Answer { verdict, reused: false })
    }

    /// The allow that holds for this attempt, if there is one in memory.
    #[must_use]
    pub fn reuse(&self, attempt: &Attempt) -> Option<Arc<Verdict>> {
        let Shared { table, link, clock } = &*self.shared;
        let now_ns = clock.now_ns();
        let mut key = Lookup::new(attempt, table.hashing());
        let find = |key: &Lookup<'_>| {
            table.find(key.hash(), |stored| key.is(stored), attempt.at_least_version, link, now_ns)
        };
        find(&key).or_else(|| {
            key.count_context();
            find(&key)
        })
    }

    /// Forgets every allow, also those that are on their way.
    pub fn forget_all(&self) {
        self.shared.table.forget_all();
    }

    /// The client that asks.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }
}
