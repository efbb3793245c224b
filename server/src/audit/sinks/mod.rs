//! Sinks: what the log is sent to, each with its own durable place in it.
//!
//! ```text
//! log -> Tail -> format -> destination (file, stdout, HTTP, NATS, Kafka, OTLP)
//!                   |          | taken: the cursor moves         | refused for good: dead letters
//!                   v          v                                 v
//!              one thread   sinks/NAME.json                  sinks/NAME.dead.jsonl
//! ```
//!
//! Owns: a thread for each sink, which stands back behind those that decide, and the files in `sinks/` of the audit directory.
//! Promises: each record is delivered at least once, in the order of its number, with an id that is the same each time; what a sink refuses
//! for good lies in its dead letters, whole. A sink that is down is asked again until it takes the records, and then gets all of them that the
//! log still has; what retention took before is counted.
//! Limits: [`crate::limits::SINKS_MAX`] sinks; a sink holds one batch of the reader, in both forms.
//! Never does: hold up decisions, the writer, or another sink. Everything is read from the disk.

mod cursor;
mod dead;
/// How records look to a sink.
pub mod format;
/// What may be configured.
pub mod options;
mod sending;
mod state;
mod to;

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;

use self::cursor::{Cursor, Found};
use self::dead::DeadLetters;
use self::sending::Sending;
use self::to::Destination;
use super::Audit;
use super::log::files_of_sinks;
use crate::limits;
use crate::metrics::Metrics;
use crate::supervise::{Ended, Fatal, Supervisor};

pub use options::{From, SinkOptions, To};
pub use state::{SinkState, SinkStats};

/// Why a sink cannot be set up.
#[derive(Debug, Error)]
#[error("sink `{name}`: {why}")]
pub struct BadSink {
    name: String,
    why: String,
}

/// How sinks are doing, in the order of the configuration.
pub type SinkStates = Arc<[Arc<SinkState>]>;

/// Sinks that are ready to send.
pub struct Sinks {
    sinks: Vec<Sending>,
    /// Tells them to give up.
    over: watch::Sender<bool>,
}

/// Sinks that are sending.
pub struct Running {
    threads: Vec<Ended>,
    over: watch::Sender<bool>,
}

impl Sinks {
    /// Reads where each sink is, and what it needs. Nothing is sent yet.
    ///
    /// # Errors
    /// The first sink that cannot be set up.
    pub fn prepare(
        options: &[SinkOptions],
        audit: &Arc<Audit>,
        metrics: &Metrics,
    ) -> Result<(Self, SinkStates), BadSink> {
        let (over, is_over) = watch::channel(false);
        let dir = files_of_sinks(audit.dir());
        let mut sinks = Vec::new();
        for options in options {
            let bad = |why: String| BadSink { name: options.name.to_string(), why };
            std::fs::create_dir_all(&dir)
                .map_err(|error| bad(format!("cannot make `{}`: {error}", dir.display())))?;
            let file = |extension: &str| dir.join(format!("{}.{extension}", options.name));
            let begin = |found| begin(options, audit, found);
            let cursor = Cursor::open(file("json"), &audit.log_id(), begin).map_err(bad)?;
            let dead = DeadLetters::open(file("dead.jsonl")).map_err(bad)?;
            let destination = Destination::prepare(options, &audit.log_id()).map_err(bad)?;
            let state = Arc::new(SinkState::new(options, metrics.sink(&options.name)));
            sinks.push(Sending::new(options, audit, cursor, dead, destination, state, is_over.clone()));
        }
        let states = sinks.iter().map(|sink| Arc::clone(sink.state())).collect();
        Ok((Self { sinks, over }, states))
    }

    /// Begins to send.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(self, supervisor: &Supervisor) -> Result<Running, Fatal> {
        let threads = self.sinks.into_iter().map(|sink| {
            let name = format!("sink-{}", sink.state().name());
            supervisor.thread(name, move || sink.run())
        });
        Ok(Running { threads: threads.collect::<Result<_, _>>()?, over: self.over })
    }
}

impl Running {
    /// Lets them send the last records of a closed audit, at most so long; what is left is sent after the next start.
    pub async fn finish(self, at_most: Duration) {
        let all = async {
            for thread in self.threads {
                thread.wait().await;
            }
        };
        tokio::pin!(all);
        if tokio::time::timeout(at_most, &mut all).await.is_ok() {
            return;
        }
        tracing::warn!("sinks have not taken all records; the rest is sent after the next start");
        // Without a receiver there is nobody to tell.
        let _all_ended = self.over.send(true);
        let _given_up = tokio::time::timeout(limits::SINK_GIVE_UP, all).await;
    }
}

/// The record that a sink goes on with.
fn begin(options: &SinkOptions, audit: &Audit, found: Found) -> u64 {
    let (sink, last) = (&options.name, audit.stats().last_sequence);
    match (found, options.from) {
        (Found::Place(next), _) if next <= last + 1 => next,
        (Found::Place(next), _) => {
            tracing::error!(%sink, next, last, "its place is beyond the end of the log, which is sent from its beginning");
            audit.first_sequence()
        }
        (Found::AnotherLog(of), _) => {
            tracing::warn!(%sink, of, "its place is in another log; this one is sent from its beginning");
            audit.first_sequence()
        }
        (Found::Nothing, From::Start) => audit.first_sequence(),
        (Found::Nothing, From::Now) => last + 1,
    }
}
