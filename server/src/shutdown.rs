//! How the process stops: running, then draining, then aborting; never back.
//!
//! The first SIGTERM or SIGINT drains (no new connections, GOAWAY, calls in flight finish within
//! [`limits::DRAIN_GRACE`](crate::limits::DRAIN_GRACE)); the second aborts at once.
//! INVARIANT (one way): the phase only rises.
//! Never does: ending the process itself; `main` does, after the workers are gone.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Where the process stands on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Taking connections and calls.
    Running,
    /// No new connections; calls in flight finish.
    Draining,
    /// Everything is dropped at once.
    Aborting,
}

/// The shared phase; clones see and set the same one, from any thread and runtime.
#[derive(Debug, Clone)]
pub struct Shutdown(Arc<watch::Sender<Phase>>);

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A process that runs.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Phase::Running)))
    }

    /// The phase at this instant.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Begins to drain, unless the process does already.
    pub fn drain(&self) {
        self.raise(Phase::Draining);
    }

    /// Aborts.
    pub fn abort(&self) {
        self.raise(Phase::Aborting);
    }

    /// Completes once the process drains or aborts.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Completes once the process aborts.
    pub async fn aborting(&self) {
        self.reached(Phase::Aborting).await;
    }

    /// Only ever upwards: a drain that comes after an abort changes nothing.
    fn raise(&self, to: Phase) {
        self.0.send_if_modified(|phase| {
            let rises = to > *phase;
            if rises {
                *phase = to;
            }
            rises
        });
    }

    async fn reached(&self, wanted: Phase) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|phase| *phase >= wanted).await;
    }
}

/// Takes SIGTERM and SIGINT over at once, inside a runtime, and returns the task that turns them into phases until
/// the process aborts. Give it to the supervisor.
///
/// # Errors
/// When the operating system refuses a signal handler.
pub fn on_signals(shutdown: Shutdown) -> io::Result<impl Future<Output = Result<(), Infallible>> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                () = shutdown.aborting() => return Ok(()),
            };
            if shutdown.phase() == Phase::Running {
                tracing::info!(signal = name, "draining; a second signal aborts");
                shutdown.drain();
            } else {
                tracing::warn!(signal = name, "aborting");
                shutdown.abort();
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_phase_never_falls() {
        let shutdown = Shutdown::new();
        assert_eq!(shutdown.phase(), Phase::Running);
        shutdown.abort();
        shutdown.drain();
        assert_eq!(shutdown.phase(), Phase::Aborting);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_waiter_that_comes_late_is_released_at_once() {
        let shutdown = Shutdown::new();
        shutdown.drain();
        tokio::time::timeout(Duration::from_secs(1), shutdown.clone().draining()).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(20), shutdown.aborting()).await;
        assert!(waiting.is_err(), "draining is not aborting");
    }

    fn send(name: &str) {
        let sent = std::process::Command::new("kill").args([name, &std::process::id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_signal_drains_and_a_second_aborts() {
        let shutdown = Shutdown::new();
        let watched = on_signals(shutdown.clone()).unwrap();
        let send_two = async {
            send("-TERM");
            shutdown.draining().await;
            assert_eq!(shutdown.phase(), Phase::Draining);
            send("-INT");
            shutdown.aborting().await;
        };
        let both = async { tokio::join!(watched, send_two) };
        tokio::time::timeout(Duration::from_secs(10), both).await.expect("both signals arrive");
    }
}
