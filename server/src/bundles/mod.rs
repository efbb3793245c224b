//! The bundle in force on this node: where newer ones come from, and how one takes the place of another.
//!
//! One thread, the [`Keeper`], does everything that changes which bundle is in force: it verifies, compiles, keeps on disk,
//! and swaps. So two changes cannot pass each other, and no thread that decides ever loads. Everybody else holds a
//! [`Bundles`] and asks it. Limits: [`limits::BUNDLE_COMMANDS`] requests wait.

mod keeper;
mod local;
mod refused;

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::sync::oneshot;

use cardea_policy_store::digest::Digest;
use cardea_policy_store::manifest::Manifest;
use cardea_policy_store::snapshot::Snapshot;

pub use keeper::Keeper;
use local::Local;
pub use refused::Refused;

use crate::limits;

/// What became of the node's bundles so far.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Activations since the start.
    pub activations: u64,
    /// When the snapshot in force was activated, Unix milliseconds.
    pub activated_ms: Option<i64>,
    /// Trusted keys that signed the bundle in force.
    pub signed_by: Vec<SmolStr>,
    /// The highest revision that was ever in force here.
    pub floor: u64,
    /// When and why what was offered last was refused, if it was.
    pub refused: Option<(i64, Arc<Refused>)>,
}

/// What became of an offered bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is in force.
    Activated,
    /// It is the one in force already.
    Unchanged,
}

/// A bundle that is kept on disk.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Identifies it.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: Manifest,
    /// Trusted keys that signed it.
    pub signed_by: Vec<SmolStr>,
    /// The revision that it serves under, if it is in force.
    pub in_force: Option<u64>,
    /// Why it may not serve, if it may not.
    pub refused: Option<String>,
}

/// Who asks for a change, and why; for records.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Who.
    pub by: SmolStr,
    /// Why.
    pub reason: SmolStr,
}

/// A bundle named by what a person has at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// By its revision.
    Revision(u64),
    /// By its digest.
    Digest(Digest),
}

/// A bundle that could come into force.
#[derive(Clone, Debug)]
pub enum Candidate {
    /// One that is kept.
    Kept(Named),
    /// A packed bundle.
    Packed(Vec<u8>),
}

type Reply<T> = oneshot::Sender<Result<T, Arc<Refused>>>;

/// A request to the keeper.
#[derive(Debug)]
pub(crate) enum Command {
    /// What the source watches may have changed.
    Look,
    Offer(Vec<u8>, Reply<Offer>),
    List(Reply<Vec<Kept>>),
    Activate(Named, Asked, Reply<u64>),
    RollBack(Named, Asked, Reply<u64>),
    Prepare(Candidate, Reply<Arc<Snapshot>>),
    Promote(Digest, Asked, Reply<u64>),
    Forget,
}

/// Asks the keeper. Cheap to share.
#[derive(Debug)]
pub struct Bundles {
    commands: Sender<Command>,
    history: Mutex<History>,
}

impl Bundles {
    /// The two ends: what everybody holds, and what the keeper hears.
    #[must_use]
    pub(crate) fn new() -> (Arc<Self>, Receiver<Command>) {
        let (commands, heard) = bounded(limits::BUNDLE_COMMANDS);
        (Arc::new(Self { commands, history: Mutex::default() }), heard)
    }

    /// What became of the bundles so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.history.lock().clone()
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut History)) {
        change(&mut self.history.lock());
    }

    /// Has the source looked at soon.
    pub fn look(&self) {
        // Full means that the keeper is busy; it looks by itself too.
        let _full = self.commands.try_send(Command::Look);
    }

    /// Offers a packed bundle.
    ///
    /// # Errors
    /// The rule that it breaks; what was in force stays.
    pub async fn offer(&self, packed: Vec<u8>) -> Result<Offer, Arc<Refused>> {
        self.ask(|reply| Command::Offer(packed, reply)).await
    }

    /// Every bundle that is kept, the highest revision first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self) -> Result<Vec<Kept>, Arc<Refused>> {
        self.ask(Command::List).await
    }

    /// Puts a kept bundle in force whose revision is higher than any before; gives its revision.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub async fn activate(&self, bundle: Named, asked: Asked) -> Result<u64, Arc<Refused>> {
        self.ask(|reply| Command::Activate(bundle, asked, reply)).await
    }

    /// Goes back to a kept bundle, under a new and higher revision; gives that revision.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub async fn roll_back(&self, bundle: Named, asked: Asked) -> Result<u64, Arc<Refused>> {
        self.ask(|reply| Command::RollBack(bundle, asked, reply)).await
    }

    /// Makes a bundle ready as the candidate, and does not put it in force. It takes the place of a candidate before it.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub async fn prepare(&self, candidate: Candidate) -> Result<Arc<Snapshot>, Arc<Refused>> {
        self.ask(|reply| Command::Prepare(candidate, reply)).await
    }

    /// Puts the candidate in force, if it is the one with this digest; gives its revision.
    ///
    /// # Errors
    /// When it is another, or breaks a rule by now.
    pub async fn promote(&self, digest: Digest, asked: Asked) -> Result<u64, Arc<Refused>> {
        self.ask(|reply| Command::Promote(digest, asked, reply)).await
    }

    /// Lets go of the candidate.
    pub fn forget(&self) {
        // Full: the next candidate takes its place all the same.
        let _full = self.commands.try_send(Command::Forget);
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Arc<Refused>> {
        let (reply, answer) = oneshot::channel();
        match self.commands.try_send(command(reply)) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(Arc::new(Refused::Stopping))),
            Err(TrySendError::Full(_)) => Err(Arc::new(Refused::Busy)),
            Err(TrySendError::Disconnected(_)) => Err(Arc::new(Refused::Stopping)),
        }
    }
}
