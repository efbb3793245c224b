//! Runs listeners and workers until the process stops: the whole shell in one call.
//!
//! Order of the stop: listeners close (the Unix socket's file goes), connections get GOAWAY, calls in flight finish
//! within [`limits::DRAIN_GRACE`], the rest is dropped. A dead essential part ends it at once with an error.
//! Never does: ending the process; `main` does, with the error's exit code.

use crate::limits;
use crate::listen::{Gate, Listeners};
use crate::supervise::{Deaths, Fatal};
use crate::workers::{self, Serve, Shared};

/// What [`until_stopped`] runs.
#[derive(Debug)]
pub struct Parts<F> {
    /// Bound sockets.
    pub listeners: Listeners,
    /// Worker threads.
    pub threads: usize,
    /// Connections open at a time; [`limits::CONNECTIONS_MAX`] in the service.
    pub connections_max: usize,
    /// Makes the service of the worker with this number.
    pub make: F,
    /// What the workers share.
    pub shared: Shared,
}

/// Serves until the process has drained or aborted.
///
/// # Errors
/// With the first essential part that died; the process is aborting then.
pub async fn until_stopped<F, S>(parts: Parts<F>, deaths: &mut Deaths) -> Result<(), Fatal>
where
    F: Fn(usize) -> S + Send + Sync + 'static,
    S: Serve,
{
    let Parts { listeners, threads, connections_max, make, shared } = parts;
    let supervisor = shared.supervisor.clone();
    let shutdown = supervisor.shutdown().clone();
    let workers = workers::start(threads, make, &shared)?;
    let gate = Gate::new(connections_max, workers.dispatch(), shared.metrics, shutdown.clone());
    supervisor.task("acceptor", listeners.accept(gate));
    if let Some(tls) = shared.tls {
        let watched = shutdown.clone();
        supervisor.task("certificates", async move {
            tls.watch(watched).await;
            Ok::<(), std::convert::Infallible>(())
        });
    }
    let overdue = async {
        shutdown.draining().await;
        tokio::select! {
            () = tokio::time::sleep(limits::DRAIN_GRACE) => {}
            () = shutdown.aborting() => {}
        }
        tokio::time::sleep(limits::ABORT_GRACE).await;
    };
    let stopped = tokio::select! {
        fatal = deaths.first() => Err(fatal),
        () = workers.ended() => Ok(()),
        () = overdue => {
            tracing::warn!("a worker is still busy and is left behind");
            Ok(())
        }
    };
    // Workers that all ended may have done so by dying.
    let stopped = stopped.and_then(|()| deaths.reported().map_or(Ok(()), Err));
    if stopped.is_err() {
        shutdown.abort();
    }
    stopped
}
