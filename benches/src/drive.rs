//! Drives calls that are answered one by one: closed loop and open loop.
//!
//! The open loop sends by the clock and counts each latency from the instant at which the call *should* have been
//! sent. A server that stalls therefore shows in every call that came due meanwhile (no coordinated omission).
//! Limits: [`IN_FLIGHT_MAX`] calls in flight; a call due beyond that is sent later and counted from when it was due.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};

use crate::{
    answer::{self, Expect},
    call::Calls,
    link::Link,
    mono::now,
    record::{Fault, Recorder, Shape},
};

/// Most calls in flight at once: 6.5 s of a stalled server at 10,000 calls a second, about 100 MB.
pub const IN_FLIGHT_MAX: usize = 65_536;
/// How long answers may still come in after the last sending.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long before a sending the pacer stops sleeping and spins: the timer's step is 1 ms.
const SPIN_MAX: Duration = Duration::from_millis(2);
/// Calls sent between two yields while the pacer is late.
const BURST: u64 = 16;

/// One run over connections that are open already.
#[derive(Clone, Debug)]
pub struct Run {
    /// Calls take these in turn.
    pub links: Vec<Link>,
    /// What is sent.
    pub calls: Arc<Calls>,
    /// What every answer must say.
    pub expect: Expect,
    /// For how long calls are sent.
    pub span: Duration,
    /// Where the outcome goes.
    pub recorder: Arc<Mutex<Recorder>>,
}

impl Run {
    /// Sends calls for the span in the given shape, and waits until all are answered, or given up after
    /// [`DRAIN_MAX`].
    pub async fn unary(&self, shape: Shape) {
        let mut tasks = JoinSet::new();
        let whole = async {
            match shape {
                Shape::InFlight(in_flight) => self.closed(in_flight, &mut tasks),
                Shape::PerSecond(rate) => self.open(rate, &mut tasks).await,
            }
            while tasks.join_next().await.is_some() {}
        };
        if timeout(self.span + DRAIN_MAX, whole).await.is_err() {
            self.recorder.lock().unanswered(tasks.len() as u64);
            tasks.shutdown().await;
        }
    }

    fn closed(&self, in_flight: u32, tasks: &mut JoinSet<()>) {
        let until = now() + self.span;
        let workers = self.links.iter().cycle().zip(0..u64::from(in_flight));
        for (link, worker) in workers {
            let mut job = self.job(link);
            tasks.spawn(async move {
                let mut turn = worker;
                let mut sent = now();
                while sent < until && job.one(turn, sent).await {
                    turn += u64::from(in_flight);
                    sent = now();
                }
            });
        }
    }

    async fn open(&self, rate: u32, tasks: &mut JoinSet<()>) {
        let start = now();
        let turns = self.links.iter().cycle().zip(0..sendings(self.span, rate));
        for (link, turn) in turns {
            let due = start + due_after(turn, rate);
            wait_until(due).await;
            if turn % BURST == 0 {
                // When late the wait returns at once, and nothing would be read or written.
                yield_now().await;
            }
            while tasks.len() >= IN_FLIGHT_MAX {
                tasks.join_next().await;
            }
            while tasks.try_join_next().is_some() {}
            let mut job = self.job(link);
            tasks.spawn(async move {
                job.one(turn, due).await;
            });
        }
    }

    fn job(&self, link: &Link) -> Job {
        Job {
            link: link.clone(),
            calls: Arc::clone(&self.calls),
            expect: self.expect,
            recorder: Arc::clone(&self.recorder),
        }
    }
}

/// What one task needs to make calls.
struct Job {
    link: Link,
    calls: Arc<Calls>,
    expect: Expect,
    recorder: Arc<Mutex<Recorder>>,
}

impl Job {
    /// Makes call number `turn`, counting from `since`. False when the connection is broken.
    async fn one(&mut self, turn: u64, since: Instant) -> bool {
        let outcome = self.link.call(self.calls.frame(turn)).await;
        let latency = now().duration_since(since);
        let checked = outcome.and_then(|message| {
            answer::check(self.calls.mode(), &message, self.calls.attempts_per_call(), self.expect)
                .map(|()| message.len())
                .map_err(|error| Fault::Answer(error.to_string()))
        });
        let mut recorder = self.recorder.lock();
        match checked {
            Ok(answer_bytes) => recorder.answered(latency, answer_bytes),
            Err(fault) => {
                let broken = matches!(fault, Fault::Transport(_));
                recorder.failed(fault);
                return !broken;
            }
        }
        true
    }
}

/// How many sendings come due in `span` at `rate` a second.
pub(crate) fn sendings(span: Duration, rate: u32) -> u64 {
    let due = span.as_nanos() * u128::from(rate) / 1_000_000_000;
    u64::try_from(due).unwrap_or(u64::MAX)
}

/// When sending number `turn` is due, counted from the start.
pub(crate) fn due_after(turn: u64, rate: u32) -> Duration {
    let ns = u128::from(turn) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

/// Returns at `due` or, when that is past, at once. Sleeps far from it and spins near it.
pub(crate) async fn wait_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(now());
        if left.is_zero() {
            return;
        }
        if left > SPIN_MAX {
            sleep(left - SPIN_MAX).await;
        } else {
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sendings_are_evenly_due_and_never_drift() {
        assert_eq!(sendings(Duration::from_millis(1500), 1000), 1500);
        assert_eq!(due_after(0, 3), Duration::ZERO);
        assert_eq!(due_after(3_000_000, 3), Duration::from_secs(1_000_000));
        assert_eq!(due_after(1, 3), Duration::from_nanos(333_333_333));
    }
}
