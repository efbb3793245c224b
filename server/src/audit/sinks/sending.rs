//! One sink's thread: reads on, sends, moves its place, waits where it has to.
//!
//! Each connection runs in an executor of its own, which ends with it: nothing that a library left waiting can be sent behind what is sent
//! again. A batch in which something is refused is halved until that record is alone; what is refused alone [`limits::SINK_REFUSALS_MAX`]
//! times goes to the dead letters.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::sleep;

use super::cursor::Cursor;
use super::dead::DeadLetters;
use super::format::Event;
use super::options::SinkOptions;
use super::state::SinkState;
use super::to::{Connection, Destination, Failed, Why};
use crate::audit::log::BadRead;
use crate::audit::{Audit, BATCH_RECORDS_MAX, Tail, TailError};
use crate::limits;
use crate::remote::backoff::Backoff;
use crate::supervise::panic_message;

/// How far the thread stands back behind those that decide.
const NICE: i32 = 10;

/// See the module.
pub(super) struct Sending {
    options: SinkOptions,
    log: String,
    audit: Arc<Audit>,
    /// `None`: to be opened where the cursor says.
    tail: Option<Tail>,
    cursor: Cursor,
    dead: DeadLetters,
    destination: Destination,
    state: Arc<SinkState>,
    over: watch::Receiver<bool>,
    /// What is read and not yet taken, and the place behind it.
    waiting: Vec<Event>,
    behind: u64,
    /// How many records are sent at once; less while one of them is refused.
    at_once: usize,
    /// The last batch that was read was small: more is waited for.
    lingers: bool,
    /// How often the first record was refused alone.
    refusals: u32,
    backoff: Backoff,
}

/// Why a connection ended.
enum Ended {
    /// All is sent, or somebody says that it is over.
    Done,
    /// Another one is to be made after this time.
    Again(Duration),
}

impl Sending {
    pub(super) fn new(
        options: &SinkOptions,
        audit: &Arc<Audit>,
        cursor: Cursor,
        dead: DeadLetters,
        destination: Destination,
        state: Arc<SinkState>,
        over: watch::Receiver<bool>,
    ) -> Self {
        state.dead(dead.count());
        state.reached(cursor.next());
        Self {
            options: options.clone(),
            log: audit.log_id(),
            audit: Arc::clone(audit),
            tail: None,
            cursor,
            dead,
            destination,
            state,
            over,
            waiting: Vec::new(),
            behind: 0,
            at_once: usize::MAX,
            lingers: false,
            refusals: 0,
            backoff: Backoff::default(),
        }
    }

    pub(super) fn state(&self) -> &Arc<SinkState> {
        &self.state
    }

    /// Sends until the log is closed and all is sent, or until it is over.
    pub(super) fn run(mut self) -> Result<(), Infallible> {
        // Where the system refuses, the thread goes on as it is.
        let _as_it_is = rustix::process::nice(NICE);
        let mut wait = Duration::ZERO;
        loop {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    self.failed(&format!("no executor: {error}"));
                    std::thread::sleep(limits::SINK_BACKOFF_MAX);
                    continue;
                }
            };
            // What panics in a client's library costs a connection, and not the decision point.
            let ended = runtime.block_on(AssertUnwindSafe(self.connection(wait)).catch_unwind());
            match ended {
                Ok(Ended::Done) => return Ok(()),
                Ok(Ended::Again(after)) => wait = after,
                Err(panic) => {
                    self.failed(&format!("it panicked: {}", panic_message(panic.as_ref())));
                    // Its place in the log is the one that was kept.
                    self.tail = None;
                    self.waiting.clear();
                    wait = self.backoff.next(fastrand::u64(..));
                }
            }
        }
    }

    /// Waits, connects, and sends until that fails.
    async fn connection(&mut self, wait: Duration) -> Ended {
        let mut over = self.over.clone();
        let sent = async {
            sleep(wait).await;
            match self.destination.open().await {
                Ok(mut connection) => self.send_on(&mut connection).await,
                Err(failed) => self.wait_after(failed),
            }
        };
        tokio::select! {
            ended = sent => ended,
            // Whoever would say it is gone: so is the process.
            _said = over.wait_for(|over| *over) => Ended::Done,
        }
    }

    async fn send_on(&mut self, connection: &mut Connection) -> Ended {
        loop {
            if self.waiting.is_empty() {
                match self.read().await {
                    Ok(true) => {}
                    Ok(false) => return Ended::Done,
                    Err(wait) => return Ended::Again(wait),
                }
            }
            let size = self.at_once.min(self.waiting.len());
            let outcome = match self.waiting.get(..size) {
                Some([]) | None => Ok(()),
                Some(batch) => connection.send(batch).await,
            };
            let taken = outcome.as_ref().map_or_else(|failed| failed.taken.min(size), |()| size);
            if let Err(error) = self.move_on(taken) {
                return self.again(&format!("its place cannot be kept: {error}"), None);
            }
            match outcome {
                Ok(()) => self.works(),
                Err(Failed { why: Why::Refused(what), .. }) => {
                    if size - taken > 1 {
                        self.at_once = (size - taken).div_ceil(2);
                    } else if let Some(ended) = self.refused(&what) {
                        return ended;
                    }
                }
                Err(failed) => return self.wait_after(failed),
            }
        }
    }

    /// Reads what comes next; false: the log is closed and all is read.
    async fn read(&mut self) -> Result<bool, Duration> {
        if self.tail.is_none() {
            let next = self.cursor.next();
            self.tail = Some(self.audit.tail(next, self.options.filter.clone()));
        }
        let Some(tail) = &mut self.tail else { return Ok(true) };
        if self.lingers {
            sleep(limits::SINK_LINGER).await;
        }
        match tail.read_on().await {
            Ok(Some(batch)) => {
                self.behind = tail.next();
                self.lingers = (1..BATCH_RECORDS_MAX / 2).contains(&batch.len());
                let (log, format) = (&self.log, self.options.format);
                self.waiting = batch.into_iter().map(|record| Event::new(log, format, record)).collect();
                if self.waiting.is_empty() {
                    self.move_on(0).map_err(|_| Duration::from_secs(1))?;
                }
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(TailError::Log(BadRead::Missing { sequence, next: Some(next) })) => {
                tracing::warn!(sink = %self.state.name(), from = sequence, to = next - 1, "the log no longer has these records");
                self.state.missed(next - sequence);
                self.tail = None;
                self.behind = next;
                self.move_on(0).map_err(|_| Duration::from_secs(1))?;
                Ok(true)
            }
            Err(error) => {
                self.tail = None;
                self.failed(&error.to_string());
                Err(self.backoff.next(fastrand::u64(..)))
            }
        }
    }

    /// The first records of those waiting are done.
    fn move_on(&mut self, records: usize) -> std::io::Result<()> {
        self.waiting.drain(..records);
        if records > 0 {
            self.refusals = 0;
            self.state.delivered(records);
        }
        self.keep_place()
    }

    fn keep_place(&mut self) -> std::io::Result<()> {
        let next = self.waiting.first().map_or(self.behind, |event| event.record.sequence);
        self.cursor.set(next)?;
        self.state.reached(next);
        Ok(())
    }

    /// One record was refused, alone.
    fn refused(&mut self, what: &str) -> Option<Ended> {
        self.refusals += 1;
        let event = self.waiting.first()?;
        let sequence = event.record.sequence;
        if self.refusals < limits::SINK_REFUSALS_MAX {
            return Some(self.again(&format!("record {sequence} is refused: {what}"), None));
        }
        if let Err(error) = self.dead.add(event, what) {
            return Some(self.again(&error.to_string(), None));
        }
        tracing::error!(sink = %self.state.name(), sequence, what, "a record is refused for good and lies in the dead letters");
        self.state.died(self.dead.count());
        self.waiting.drain(..1);
        self.refusals = 0;
        let kept = self.keep_place();
        kept.err().map(|error| self.again(&format!("its place cannot be kept: {error}"), None))
    }

    fn works(&mut self) {
        self.backoff.reset();
        self.at_once = self.at_once.saturating_mul(2);
        if self.state.works() {
            tracing::info!(sink = %self.state.name(), "takes records again");
        }
    }

    fn wait_after(&mut self, failed: Failed) -> Ended {
        match failed.why {
            Why::Later { what, after } => self.again(&what, after),
            Why::Refused(what) => self.again(&what, None),
        }
    }

    fn again(&mut self, what: &str, after: Option<Duration>) -> Ended {
        self.failed(what);
        let wait = self.backoff.next(fastrand::u64(..));
        Ended::Again(after.map_or(wait, |after| after.max(wait)).min(limits::SINK_BACKOFF_MAX))
    }

    fn failed(&self, what: &str) {
        if self.state.failed(what) {
            tracing::warn!(sink = %self.state.name(), what, "takes no records at the moment; asking again until it does");
        }
    }
}
