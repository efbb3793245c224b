//! Starts every task and thread of the server, and notices when one dies.
//!
//! This is the only file that may call `tokio::spawn`. An essential task or thread that ends while the
//! process is running, fails, or panics, reports a [`Fatal`]; `main` waits for it ([`Deaths::first`]) beside
//! the drain and exits non-zero with its message. Connections live in a [`TaskSet`]; a panic there ends that
//! connection (its caller gets an error, which enforcement points take as deny), is logged and counted.
//! Limits: [`limits::FATAL_QUEUE`] reports wait.
//! Never does: restarting what died; that is for whoever runs the process.

use std::any::Any;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use metrics::Counter;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::limits;
use crate::shutdown::{Phase, Shutdown};

/// Why the process has to end.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fatal {
    /// It returned although the process is running.
    #[error("`{name}` ended although the process is running")]
    Ended {
        /// Name of the task or thread.
        name: String,
    },
    /// It returned an error.
    #[error("`{name}` failed: {why}")]
    Failed {
        /// Name of the task or thread.
        name: String,
        /// Its error.
        why: String,
    },
    /// It panicked.
    #[error("`{name}` panicked: {why}")]
    Panicked {
        /// Name of the task or thread.
        name: String,
        /// The panic's message.
        why: String,
    },
    /// The operating system did not give us a thread.
    #[error("thread `{name}` cannot be started: {why}")]
    NotStarted {
        /// Name of the thread.
        name: String,
        /// The system's error.
        why: String,
    },
}

/// Starts essential work; cheap to clone.
#[derive(Debug, Clone)]
pub struct Supervisor {
    deaths: mpsc::Sender<Fatal>,
    shutdown: Shutdown,
    panics: Counter,
}

/// The receiving end: the first death of something essential.
#[derive(Debug)]
pub struct Deaths(mpsc::Receiver<Fatal>);

/// Completes when its task or thread has ended, however it ended.
#[derive(Debug)]
pub struct Ended(oneshot::Receiver<()>);

impl Supervisor {
    /// A supervisor for a process that stops through `shutdown`; `panics` counts the panics it catches.
    #[must_use]
    pub fn new(shutdown: Shutdown, panics: Counter) -> (Self, Deaths) {
        let (deaths, reports) = mpsc::channel(limits::FATAL_QUEUE);
        (Self { deaths, shutdown, panics }, Deaths(reports))
    }

    /// The phase that this supervisor judges endings by.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Starts a task on the current runtime without which the process is of no use.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn task<F, E>(&self, name: &'static str, future: F) -> Ended
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        let (ended, wait) = oneshot::channel();
        let this = self.clone();
        tokio::spawn(async move {
            let outcome = AssertUnwindSafe(future).catch_unwind().await;
            this.judge(name.to_owned(), outcome);
            drop(ended);
        });
        Ended(wait)
    }

    /// Starts a thread without which the process is of no use.
    ///
    /// # Errors
    /// When the operating system does not give us one.
    pub fn thread<F, E>(&self, name: String, body: F) -> Result<Ended, Fatal>
    where
        F: FnOnce() -> Result<(), E> + Send + 'static,
        E: Display,
    {
        let (ended, wait) = oneshot::channel();
        let this = self.clone();
        let label = name.clone();
        std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let outcome = std::panic::catch_unwind(AssertUnwindSafe(body));
                this.judge(label, outcome);
                drop(ended);
            })
            .map_err(|error| Fatal::NotStarted { name, why: error.to_string() })?;
        Ok(Ended(wait))
    }

    /// A set for tasks that may end at any time, such as connections.
    #[must_use]
    pub fn tasks(&self) -> TaskSet {
        TaskSet { set: JoinSet::new(), panics: self.panics.clone() }
    }

    fn judge<E: Display>(&self, name: String, outcome: Result<Result<(), E>, Box<dyn Any + Send>>) {
        let fatal = match outcome {
            Ok(Ok(())) if self.shutdown.phase() > Phase::Running => return,
            Ok(Ok(())) => Fatal::Ended { name },
            Ok(Err(error)) => Fatal::Failed { name, why: error.to_string() },
            Err(payload) => {
                self.panics.increment(1);
                Fatal::Panicked { name, why: panic_message(payload.as_ref()) }
            }
        };
        tracing::error!(%fatal, "an essential part of the process died");
        // A full queue holds deaths already, and the first one ends the process.
        let _ = self.deaths.try_send(fatal);
    }
}

impl Deaths {
    /// Waits for the first death. Pending for ever while all is well.
    pub async fn first(&mut self) -> Fatal {
        match self.0.recv().await {
            Some(fatal) => fatal,
            None => std::future::pending().await,
        }
    }

    /// A death that was reported already, for the last look after the drain.
    pub fn reported(&mut self) -> Option<Fatal> {
        self.0.try_recv().ok()
    }
}

impl Ended {
    /// Waits for the end.
    pub async fn wait(self) {
        let _ = self.0.await;
    }
}

/// Tasks of one runtime that are joined or aborted together.
#[derive(Debug)]
pub struct TaskSet {
    set: JoinSet<()>,
    panics: Counter,
}

impl TaskSet {
    /// Starts a task on the current runtime.
    pub fn start<F: Future<Output = ()> + Send + 'static>(&mut self, future: F) {
        self.set.spawn(future);
    }

    /// How many have not been joined.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether all have been joined.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Joins one that ended; pending for ever when there is none, so that it can stand in a `select!`.
    pub async fn join_next(&mut self) {
        match self.set.join_next().await {
            Some(joined) => self.note(joined),
            None => std::future::pending().await,
        }
    }

    /// Joins all.
    pub async fn join_all(&mut self) {
        while let Some(joined) = self.set.join_next().await {
            self.note(joined);
        }
    }

    /// Aborts all and joins them.
    pub async fn abort_all(&mut self) {
        self.set.abort_all();
        self.join_all().await;
    }

    fn note(&self, joined: Result<(), tokio::task::JoinError>) {
        let Err(error) = joined else { return };
        if let Ok(payload) = error.try_into_panic() {
            self.panics.increment(1);
            tracing::error!(why = %panic_message(payload.as_ref()), "a task panicked");
        }
    }
}

/// Starts the streams of an HTTP/2 connection on the runtime of its worker. A handler that panics ends its own
/// stream with an error; the panic is counted and logged here.
#[derive(Debug, Clone)]
pub struct StreamExecutor {
    panics: Counter,
}

impl StreamExecutor {
    /// An executor that counts panics in `panics`.
    #[must_use]
    pub fn new(panics: Counter) -> Self {
        Self { panics }
    }
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    fn execute(&self, future: F) {
        let panics = self.panics.clone();
        tokio::spawn(async move {
            if let Err(payload) = AssertUnwindSafe(future).catch_unwind().await {
                panics.increment(1);
                tracing::error!(why = %panic_message(payload.as_ref()), "a call panicked");
            }
        });
    }
}

pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn supervisor() -> (Supervisor, Deaths) {
        Supervisor::new(Shutdown::new(), Counter::noop())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_panicking_task_is_fatal_and_says_why() {
        let (supervisor, mut deaths) = supervisor();
        supervisor
            .task("writer", async { if true { panic!("disk gone") } else { Ok::<(), Infallible>(()) } });
        let fatal = deaths.first().await;
        assert_eq!(fatal.to_string(), "`writer` panicked: disk gone");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_failing_task_is_fatal() {
        let (supervisor, mut deaths) = supervisor();
        supervisor.task("writer", async { Err("no space") }).wait().await;
        assert_eq!(deaths.first().await, Fatal::Failed { name: "writer".into(), why: "no space".into() });
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_end_is_fatal_while_running_and_wanted_while_draining() {
        let (supervisor, mut deaths) = supervisor();
        supervisor.task("early", async { Ok::<(), Infallible>(()) }).wait().await;
        assert_eq!(deaths.reported(), Some(Fatal::Ended { name: "early".into() }));
        supervisor.shutdown().drain();
        supervisor.task("late", async { Ok::<(), Infallible>(()) }).wait().await;
        assert_eq!(deaths.reported(), None);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_panicking_thread_is_fatal() {
        let (supervisor, mut deaths) = supervisor();
        let ended = supervisor
            .thread(
                "worker-7".to_owned(),
                || if true { panic!("lost {}", 7) } else { Ok::<(), Infallible>(()) },
            )
            .unwrap();
        ended.wait().await;
        assert_eq!(
            deaths.reported(),
            Some(Fatal::Panicked { name: "worker-7".into(), why: "lost 7".into() })
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_task_set_outlives_a_panic_and_aborts_the_rest() {
        let (supervisor, _deaths) = supervisor();
        let mut tasks = supervisor.tasks();
        tasks.start(async { panic!("one connection") });
        tasks.join_next().await;
        tasks.start(std::future::pending());
        assert_eq!(tasks.len(), 1);
        tasks.abort_all().await;
        assert!(tasks.is_empty());
    }
}
