//! Drives `DecideStream`: one long call for each connection, a message at a time, answers in the order of the
//! attempts.
//!
//! The latency of a message runs from its sending (closed loop) or from when it was due (open loop) to the answer
//! of its last attempt; answers may come spread over messages differently than the attempts.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use h2::{SendStream, client::ResponseFuture};
use parking_lot::Mutex;
use tokio::{
    task::{JoinSet, yield_now},
    time::timeout,
};

use crate::{
    answer::{self, Expect, next_message},
    call::Calls,
    drive::{DRAIN_MAX, IN_FLIGHT_MAX, Run, due_after, sendings, wait_until},
    link::{Link, finish, head_of, next_chunk, transport},
    mono::now,
    record::{Fault, Recorder, Shape},
};

impl Run {
    /// Sends messages for the span in the given shape, in one stream for each connection, and waits until all are
    /// answered, or given up after [`DRAIN_MAX`].
    pub async fn stream(&self, shape: Shape) {
        let mut tasks = JoinSet::new();
        let count = u32::try_from(self.links.len()).unwrap_or(u32::MAX).max(1);
        for (link, index) in self.links.iter().zip(0..count) {
            let (link, calls) = (link.clone(), Arc::clone(&self.calls));
            let (expect, recorder, span) = (self.expect, Arc::clone(&self.recorder), self.span);
            let share = share_of(shape, index, count);
            tasks.spawn(async move {
                let lane = match Lane::open(link, calls, expect, recorder.clone()).await {
                    Ok(lane) => lane,
                    Err(fault) => return recorder.lock().failed(fault),
                };
                let lane = Arc::new(lane);
                if let Err(fault) = lane.run(share, span).await {
                    let unanswered = lane.state.lock().pending.len() as u64;
                    let mut recorder = recorder.lock();
                    recorder.failed(fault);
                    recorder.unanswered(unanswered);
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// The part of the load that stream `index` of `count` carries; all parts together are the whole.
fn share_of(shape: Shape, index: u32, count: u32) -> Shape {
    let part = |whole: u32| (whole / count + u32::from(index < whole % count)).max(1);
    match shape {
        Shape::InFlight(whole) => Shape::InFlight(part(whole)),
        Shape::PerSecond(whole) => Shape::PerSecond(part(whole)),
    }
}

/// One stream.
struct Lane {
    state: Mutex<State>,
    response: Mutex<Option<ResponseFuture>>,
    calls: Arc<Calls>,
    expect: Expect,
    recorder: Arc<Mutex<Recorder>>,
}

struct State {
    send: SendStream<Bytes>,
    /// Messages sent and not yet answered, oldest first.
    pending: VecDeque<Pending>,
    turn: u64,
    closed: bool,
}

struct Pending {
    since: Instant,
    attempts_left: usize,
}

impl Lane {
    async fn open(
        mut link: Link,
        calls: Arc<Calls>,
        expect: Expect,
        recorder: Arc<Mutex<Recorder>>,
    ) -> Result<Self, Fault> {
        let (response, send) = link.begin().await?;
        let state = State { send, pending: VecDeque::new(), turn: 0, closed: false };
        Ok(Self { state: Mutex::new(state), response: Mutex::new(Some(response)), calls, expect, recorder })
    }

    async fn run(&self, shape: Shape, span: Duration) -> Result<(), Fault> {
        let whole = async {
            match shape {
                Shape::InFlight(in_flight) => {
                    let until = now() + span;
                    for _ in 0..in_flight {
                        self.state.lock().send_next(&self.calls, now())?;
                    }
                    self.read(Some(until)).await
                }
                Shape::PerSecond(rate) => {
                    tokio::try_join!(self.pace(rate, span), self.read(None)).map(|_both| ())
                }
            }
        };
        let given_up = |_elapsed| Err(Fault::Transport("the stream did not end".to_owned()));
        timeout(span + DRAIN_MAX, whole).await.unwrap_or_else(given_up)
    }

    /// Sends by the clock, then closes this side.
    async fn pace(&self, rate: u32, span: Duration) -> Result<(), Fault> {
        let start = now();
        for turn in 0..sendings(span, rate) {
            let due = start + due_after(turn, rate);
            wait_until(due).await;
            while self.state.lock().pending.len() >= IN_FLIGHT_MAX {
                yield_now().await;
            }
            self.state.lock().send_next(&self.calls, due)?;
            if turn % 16 == 0 {
                yield_now().await;
            }
        }
        self.state.lock().close()
    }

    /// Reads answers to the end of the stream. With `until`, each answered message is followed by the next one
    /// until then, and this side is closed after the last.
    async fn read(&self, until: Option<Instant>) -> Result<(), Fault> {
        let Some(response) = self.response.lock().take() else {
            return Err(Fault::Transport("the stream is read already".to_owned()));
        };
        let mut body = head_of(response).await?;
        let mut buffer = BytesMut::new();
        while let Some(chunk) = next_chunk(&mut body).await? {
            buffer.extend_from_slice(&chunk);
            while let Some(message) = next_message(&mut buffer).map_err(unreadable)? {
                let verdicts = answer::check_verdicts(&message, self.expect).map_err(unreadable)?;
                self.answered(verdicts, message.len(), until)?;
            }
        }
        finish(&mut body).await?;
        if self.state.lock().pending.is_empty() {
            Ok(())
        } else {
            Err(Fault::Answer("the stream ended before its last answer".to_owned()))
        }
    }

    /// Books `verdicts` on the oldest messages that wait for theirs.
    fn answered(&self, mut verdicts: usize, bytes: usize, until: Option<Instant>) -> Result<(), Fault> {
        let at = now();
        let mut state = self.state.lock();
        while verdicts > 0 {
            let Some(oldest) = state.pending.front_mut() else {
                return Err(Fault::Answer("more verdicts than attempts".to_owned()));
            };
            let booked = verdicts.min(oldest.attempts_left);
            verdicts -= booked;
            oldest.attempts_left -= booked;
            if oldest.attempts_left > 0 {
                break;
            }
            self.recorder.lock().answered(at.duration_since(oldest.since), bytes);
            state.pending.pop_front();
            if until.is_some_and(|until| at < until) {
                state.send_next(&self.calls, at)?;
            }
        }
        if until.is_some() && state.pending.is_empty() { state.close() } else { Ok(()) }
    }
}

impl State {
    fn send_next(&mut self, calls: &Calls, since: Instant) -> Result<(), Fault> {
        self.send.send_data(calls.frame(self.turn), false).map_err(transport)?;
        self.turn += 1;
        self.pending.push_back(Pending { since, attempts_left: calls.attempts_per_call() as usize });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        if self.closed {
            return Ok(());
        }
        self.closed = true;
        self.send.send_data(Bytes::new(), true).map_err(transport)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn unreadable(error: answer::AnswerError) -> Fault {
    Fault::Answer(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_streams_are_the_whole_load() {
        let shares = |whole: u32, count: u32| -> Vec<Shape> {
            (0..count).map(|index| share_of(Shape::InFlight(whole), index, count)).collect()
        };
        assert_eq!(shares(7, 3), [3, 2, 2].map(Shape::InFlight));
        assert_eq!(share_of(Shape::PerSecond(1000), 1, 4), Shape::PerSecond(250));
    }
}
