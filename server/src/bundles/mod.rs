//! The bundle in force on this node: where newer ones come from, and how one takes the place of another.
//!
//! One thread, the [`Keeper`], does everything that changes which bundle is in force: it verifies, compiles, keeps on disk,
//! and swaps. So two changes cannot pass each other, and no thread that decides ever loads. Everybody else holds a
//! [`Bundles`] and asks it. Limits: [`limits::BUNDLE_COMMANDS`] requests wait.

mod keeper;
mod later;
mod local;
mod refused;
mod remote;

use std::sync::{Arc, OnceLock};

use cardea_policy_store::fault::Faults;
use cardea_policy_store::snapshot::Snapshot;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub use keeper::Keeper;
use local::Local;
pub use refused::Refused;

use crate::bundle_admin::{Asked, Change, Health, Kept, Refusal, Revisions, Source};
use crate::limits;
use crate::remote::SourceStatus;

/// What became of an offered bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is in force.
    Activated,
    /// It is the one in force already.
    Unchanged,
}

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// A request to the keeper.
#[derive(Debug)]
pub(crate) enum Command {
    /// What the source watches may have changed.
    Look,
    Offer(Vec<u8>, Reply<Offer>),
    List(Reply<Vec<Kept>>),
    Load(Source, Reply<Arc<Snapshot>>),
    Activate(Source, Change, Asked, Reply<Kept>),
    RollBack(u64, Asked, Reply<Kept>),
}

/// Asks the keeper. Cheap to share.
#[derive(Debug)]
pub struct Bundles {
    commands: Sender<Command>,
    health: Mutex<Health>,
    /// How it goes with a source on the network.
    remote: OnceLock<Arc<SourceStatus>>,
}

impl Bundles {
    /// The two ends: what everybody holds, and what the keeper hears.
    #[must_use]
    pub(crate) fn new() -> (Arc<Self>, Receiver<Command>) {
        let (commands, heard) = bounded(limits::BUNDLE_COMMANDS);
        (Arc::new(Self { commands, health: Mutex::default(), remote: OnceLock::new() }), heard)
    }

    /// Notes how the bundles are doing.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.health.lock());
    }

    /// When the bundle in force was activated, Unix milliseconds.
    pub(crate) fn activated_ms(&self) -> Option<i64> {
        self.health.lock().activated_ms
    }

    /// Has the source looked at soon.
    pub fn look(&self) {
        // Full means that the keeper is busy; it looks by itself too.
        let _full = self.commands.try_send(Command::Look);
    }

    /// Offers a packed bundle, as a source does.
    ///
    /// # Errors
    /// The rule that it breaks; what was in force stays.
    pub async fn offer(&self, packed: Vec<u8>) -> Result<Offer, Refusal> {
        let answer = self.send(|reply| Command::Offer(packed, reply))?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Asks and waits; not on a thread that serves.
    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Refusal> {
        self.send(command)?.blocking_recv().unwrap_or_else(|_| Err(stopping()))
    }

    fn send<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<oneshot::Receiver<Result<T, Refusal>>, Refusal> {
        let (reply, answer) = oneshot::channel();
        match self.commands.try_send(command(reply)) {
            Ok(()) => Ok(answer),
            Err(TrySendError::Full(_)) => {
                Err(Refusal::NotHere("the node is busy with bundles; try again in a moment".to_owned()))
            }
            Err(TrySendError::Disconnected(_)) => Err(stopping()),
        }
    }
}

fn stopping() -> Refusal {
    Refusal::NotHere("the node is stopping".to_owned())
}

impl Revisions for Bundles {
    fn health(&self) -> Health {
        let mut health = self.health.lock().clone();
        if let Some(status) = self.remote.get() {
            let state = status.read();
            health.source.contact_ms = state.contact_ms;
            health.source.failures = u64::from(state.failures);
            health.source.error = state.error.filter(|_| state.failures > 0).map(|(_, error)| error);
        }
        health
    }

    fn list(&self) -> Result<Vec<Kept>, Refusal> {
        self.ask(Command::List)
    }

    fn load(&self, source: &Source) -> Result<Arc<Snapshot>, Refusal> {
        self.ask(|reply| Command::Load(source.clone(), reply))
    }

    fn activate(&self, source: &Source, change: Change, asked: &Asked) -> Result<Kept, Refusal> {
        self.ask(|reply| Command::Activate(source.clone(), change, asked.clone(), reply))
    }

    fn roll_back(&self, to_revision: u64, asked: &Asked) -> Result<Kept, Refusal> {
        self.ask(|reply| Command::RollBack(to_revision, asked.clone(), reply))
    }
}

impl From<Refused> for Refusal {
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are the bundle's faults")]
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotKept(named) => Self::NotFound(named),
            Refused::Disk(error) => Self::Store(error.to_string()),
            other => Self::Faults(Arc::new(Faults::from(other))),
        }
    }
}
