//! Holds: allows that enforcement points act on, watched over until they are dropped.
//!
//! ```text
//! Hold stream -> Request -> thread `holds` -> Outbox -> Hold stream
//!                              ^    |
//!   feed, snapshot, time ------+    +-> index, wheel, book: which hold, when, what it was told
//! ```
//!
//! Owns: every hold of the node, on one thread that alone changes them. A hold is judged when it is registered and again
//! when something changes that it reads, by the pipeline's own parts; a changed answer is pushed, with its cause and its
//! record. Order of work: changes of fact, then time, then new holds, then what a change of bundle makes necessary.
//! Promises: a changed answer is never skipped silently: it is told, or the stream is told to forget everything. A lost
//! stream's holds are kept for [`limits::HOLD_RESUME`]; nobody but who opened it can resume it.
//! Limits: `limits::HOLD_*`.
//! Never does: wire types (the door gives the words), deciding by itself, keeping a session awake.

mod bell;
mod book;
mod engine;
mod fingerprint;
mod index;
mod judging;
mod order;
mod outbox;
mod streams;
mod sweep;
mod token;
mod wheel;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cardea_core::attempt::Attempt;
use cardea_core::verdict::Decision;
use smol_str::SmolStr;
use tokio::sync::{mpsc, oneshot};

use crate::limits;
use crate::pipeline::{Judgement, Pipeline, Refused};

pub use bell::Bell;
pub use engine::Engine;
pub use outbox::{Batch, End, Forget, Outbox};
pub use token::ResumeToken;

/// Puts an answer into a door's words; the text is the caller's own id of the attempt.
pub type Say<S> = fn(&Judgement<'_>, &str) -> S;

/// Why a hold was judged again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// What kind of thing changed.
    pub kind: CauseKind,
    /// Which one; empty where that is not known.
    pub name: SmolStr,
    /// What happened, in a word.
    pub change: &'static str,
    /// State version of the change.
    pub state_version: u64,
}

macro_rules! kinds {
    ($($variant:ident $name:literal $doc:literal,)*) => {
        /// What kind of thing changed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum CauseKind {
            $(#[doc = $doc] $variant,)*
        }

        impl CauseKind {
            /// Every kind.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// Its name in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

kinds! {
    Session "session" "A session.",
    Principal "principal" "A principal: its standing, risk, credential, or the end of its sessions.",
    Device "device" "A device's posture.",
    Tenant "tenant" "A tenant.",
    Task "task" "A task.",
    Grant "grant" "A grant.",
    Bundle "bundle" "The bundle in force.",
    Time "time" "Time went by.",
    Source "source" "A signal source.",
    Everything "everything" "More than is told apart.",
    Audit "audit" "The record found no place before.",
}

/// One answer on its way to an enforcement point.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<S> {
    /// In the door's words.
    pub said: S,
    /// Why it was judged again; `None` for the first answer.
    pub cause: Option<Arc<Cause>>,
    /// When this node noticed the cause, monotonic nanoseconds.
    pub noticed_ns: u64,
}

/// What is waiting for one stream's task.
pub type Waiting<S> = Arc<Outbox<Answer<S>>>;

/// How a stream is opened.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The enforcement point's name for itself.
    pub enforcement_point: SmolStr,
    /// What the connection proves about the caller, whole: only the same may resume.
    pub identity: SmolStr,
    /// The same, short, for people.
    pub peer: SmolStr,
    /// The stream that was lost, and up to where it was heard.
    pub resume: Option<(ResumeToken, u64)>,
}

/// An open stream.
#[derive(Debug)]
pub struct Opened<S> {
    /// Its number.
    pub stream: u64,
    /// The right to resume it.
    pub token: ResumeToken,
    /// Whether the holds of the lost stream are still there.
    pub resumed: bool,
    /// Everything up to here was told.
    pub sequence: u64,
    /// State version up to which everything was told; 0 if it is resumed.
    pub state_version: u64,
    /// What comes.
    pub outbox: Waiting<S>,
}

/// As many streams are open as the node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node has {} Hold streams, and takes no more; close some, or ask another node",
    limits::HOLD_STREAMS_MAX
)]
pub struct TooManyStreams;

/// The thread of the holds is gone: the node is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping; resume on another connection or node")]
pub struct Stopping;

/// An attempt to watch over.
#[derive(Debug)]
pub struct Registration {
    /// The caller's own name for it.
    pub hold_id: u64,
    /// The attempt, or why it is none.
    pub attempt: Result<Box<Attempt>, Box<Refused>>,
    /// Revision of the snapshot that it was read with.
    pub revision: u64,
    /// What it took on the wire.
    pub bytes: u64,
}

/// Which streams are listed.
#[derive(Clone, Copy, Debug)]
pub struct Listing {
    /// This one, with its holds; `None`: all, without them.
    pub stream: Option<u64>,
    /// Holds after this one.
    pub after_hold: u64,
    /// That many holds.
    pub holds_max: usize,
}

/// One stream, for people.
#[derive(Clone, Debug)]
pub struct StreamView {
    /// Its number.
    pub stream: u64,
    /// The enforcement point's name for itself.
    pub enforcement_point: SmolStr,
    /// Who opened it, as the connection proves it.
    pub peer: SmolStr,
    /// Whether a connection carries it.
    pub connected: bool,
    /// When it was opened, Unix milliseconds.
    pub opened_ms: i64,
    /// How many holds it has.
    pub holds: usize,
    /// Those that are not allowed.
    pub not_allowed: usize,
    /// Answers that wait.
    pub waiting: usize,
    /// Its holds, where they were asked for.
    pub held: Vec<HoldView>,
    /// There are more after the last one.
    pub more: bool,
}

/// One hold, for people.
#[derive(Clone, Debug)]
pub struct HoldView {
    /// The caller's own name for it.
    pub hold_id: u64,
    /// What is held.
    pub attempt: Attempt,
    /// The answer that was told last.
    pub decision: Decision,
    /// Why.
    pub cause: Option<Arc<Cause>>,
}

/// What streams ask of the thread.
#[derive(Debug)]
pub(crate) enum Request<S> {
    Open { opening: Opening, reply: oneshot::Sender<Result<Opened<S>, TooManyStreams>> },
    Add { stream: u64, outbox: Waiting<S>, holds: Vec<Registration> },
    Drop { stream: u64, outbox: Waiting<S>, hold_ids: Vec<u64> },
    List { listing: Listing, reply: oneshot::Sender<Vec<StreamView>> },
}

/// What all streams read without asking.
#[derive(Debug, Default)]
struct Shared {
    /// State version up to which every change was judged and put into the outboxes.
    told: AtomicU64,
    /// When the thread last began a round, monotonic nanoseconds.
    pulse_ns: AtomicU64,
}

/// The way to the thread of the holds; cheap to clone.
#[derive(Debug)]
pub struct Holds<S> {
    requests: mpsc::Sender<Request<S>>,
    pipeline: Arc<Pipeline>,
    shared: Arc<Shared>,
}

impl<S> Clone for Holds<S> {
    fn clone(&self) -> Self {
        Self {
            requests: self.requests.clone(),
            pipeline: Arc::clone(&self.pipeline),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S: Send + 'static> Holds<S> {
    /// The holds of a pipeline, and the engine that somebody has to run.
    #[must_use]
    pub fn new(pipeline: Arc<Pipeline>, say: Say<S>) -> (Self, Engine<S>) {
        let (requests, asked) = mpsc::channel(limits::HOLD_REQUESTS_MAX);
        let shared = Arc::new(Shared::default());
        let engine = Engine::new(Arc::clone(&pipeline), say, asked, Arc::clone(&shared));
        (Self { requests, pipeline, shared }, engine)
    }

    /// The pipeline that judges.
    #[must_use]
    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// State version up to which every change was judged and put into the outboxes.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.shared.told.load(Ordering::Acquire)
    }

    /// Whether holds are being judged: the thread began a round within one heartbeat.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let silent_ns =
            self.pipeline.now().mono_ns.saturating_sub(self.shared.pulse_ns.load(Ordering::Acquire));
        u128::from(silent_ns) < limits::HOLD_HEARTBEAT.as_nanos()
    }

    /// Opens or resumes a stream.
    ///
    /// # Errors
    /// The thread is gone; there are too many streams.
    pub async fn open(&self, opening: Opening) -> Result<Result<Opened<S>, TooManyStreams>, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Open { opening, reply }).await?;
        answer.await.map_err(|_gone| Stopping)
    }

    /// Registers attempts; their answers come in the outbox.
    ///
    /// # Errors
    /// The thread is gone.
    pub async fn add(
        &self,
        stream: u64,
        outbox: &Waiting<S>,
        holds: Vec<Registration>,
    ) -> Result<(), Stopping> {
        self.send(Request::Add { stream, outbox: Arc::clone(outbox), holds }).await
    }

    /// Ends holds.
    ///
    /// # Errors
    /// The thread is gone.
    pub async fn drop_holds(
        &self,
        stream: u64,
        outbox: &Waiting<S>,
        hold_ids: Vec<u64>,
    ) -> Result<(), Stopping> {
        self.send(Request::Drop { stream, outbox: Arc::clone(outbox), hold_ids }).await
    }

    /// The streams, for people.
    ///
    /// # Errors
    /// The thread is gone.
    pub async fn list(&self, listing: Listing) -> Result<Vec<StreamView>, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::List { listing, reply }).await?;
        answer.await.map_err(|_gone| Stopping)
    }

    /// Wakes the thread, so that it sees what a connection left behind.
    pub fn wake(&self) {
        self.pipeline.bell().ring();
    }

    async fn send(&self, request: Request<S>) -> Result<(), Stopping> {
        self.requests.send(request).await.map_err(|_gone| Stopping)?;
        self.wake();
        Ok(())
    }
}
