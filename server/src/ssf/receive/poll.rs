//! Tokens that are fetched (RFC 8936): one long poll after the other.
//!
//! A token is acknowledged with the next poll, once it is durable; one that is wrong is reported with its code; one that
//! could not be taken in now is neither, and comes again. After a failure it waits with [`Backoff`].
//! Limits: [`limits::SSF_POLL_SETS_MAX`] tokens and [`limits::SSF_POLL_BYTES_MAX`] bytes in one answer,
//! [`limits::SSF_POLL_WAIT`] for an answer to begin.
//! Never does: ending while the process runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::super::address::Address;
use super::super::json::with;
use super::client::ClientFault;
use super::intake::{Intake, NotTaken, Receiving};
use super::options::Delivery;
use crate::clock::Clock;
use crate::limits;
use crate::remote::backoff::Backoff;

const WHAT: &str = "the question for tokens";

/// Fetches from one transmitter.
#[derive(Debug)]
pub(super) struct Poller {
    pub(super) intake: Arc<Intake>,
    pub(super) receiving: Arc<Receiving>,
    pub(super) clock: Clock,
    /// What the transmitter has yet to be told.
    told: Told,
}

/// What became of the tokens of the last answer, by their names.
#[derive(Debug, Default)]
struct Told {
    taken: Vec<String>,
    refused: BTreeMap<String, Value>,
}

/// What one round came to.
struct Round {
    /// Whether anything came.
    came: bool,
    /// Whether there is more, as the transmitter says.
    more: bool,
}

impl Poller {
    pub(super) fn new(intake: Arc<Intake>, receiving: Arc<Receiving>, clock: Clock) -> Self {
        Self { intake, receiving, clock, told: Told::default() }
    }

    /// Polls without end.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let Some(at) = self.endpoint() else {
                tokio::time::sleep(limits::REMOTE_LONG_POLL_REST).await;
                continue;
            };
            let started_ns = self.clock.mono_ns();
            match self.round(&at).await {
                Ok(round) => {
                    backoff.reset();
                    let elapsed = Duration::from_nanos(self.clock.mono_ns().saturating_sub(started_ns));
                    // A transmitter that has nothing and does not wait is asked once a second.
                    let is_idle = !round.came && !round.more && elapsed < limits::REMOTE_LONG_POLL_REST;
                    tokio::time::sleep(if is_idle {
                        limits::REMOTE_LONG_POLL_REST
                    } else {
                        limits::SSF_POLL_REST
                    })
                    .await;
                }
                Err(error) => {
                    let wait = backoff.next(fastrand::u64(..));
                    let failures = backoff.failures();
                    let receiver = &self.receiving.options.name;
                    tracing::warn!(%receiver, %error, failures, wait_ms = wait.as_millis(), "no tokens fetched");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Where, once that is known.
    fn endpoint(&self) -> Option<Address> {
        match &self.receiving.options.delivery {
            Delivery::Poll { endpoint: Some(at) } => Some(at.clone()),
            Delivery::Poll { endpoint: None } | Delivery::Push { .. } => {
                self.receiving.stream.poll_endpoint()
            }
        }
    }

    async fn round(&mut self, at: &Address) -> Result<Round, ClientFault> {
        let client = &self.receiving.client;
        let body = self.told.request();
        let answer = client
            .ask(Method::POST, at.url(), Some(&body), limits::SSF_POLL_WAIT, limits::SSF_POLL_BYTES_MAX)
            .await?;
        if answer.status != StatusCode::OK {
            return Err(client.status(answer.status, WHAT, Some(&answer.body)));
        }
        let said = client.json(&answer.body, WHAT)?;
        // The transmitter has taken in what it was told.
        self.told = Told::default();
        let none = Map::new();
        let sets = match said.get("sets") {
            None => &none,
            Some(sets) => sets.as_object().ok_or_else(|| client.content(WHAT, "`sets` is no object"))?,
        };
        let mut is_stuck = false;
        for (jti, token) in sets.iter().take(limits::SSF_POLL_SETS_MAX) {
            let token = token.as_str().unwrap_or_default();
            match self.intake.take(&self.receiving, token.as_bytes()).await {
                Ok(()) => self.told.taken.push(jti.clone()),
                Err(NotTaken::Refused(refusal)) => {
                    let error = json!({"err": refusal.code.word(), "description": refusal.why});
                    self.told.refused.insert(jti.clone(), error);
                }
                Err(NotTaken::Later(_)) => is_stuck = true,
            }
        }
        let more = said.get("moreAvailable").and_then(Value::as_bool).unwrap_or(false);
        // What could not be taken in would come again at once.
        Ok(Round { came: !sets.is_empty() && !is_stuck, more: more && !is_stuck })
    }
}

impl Told {
    fn request(&self) -> Value {
        let mut request = json!({"maxEvents": limits::SSF_POLL_SETS_MAX, "returnImmediately": false});
        if !self.taken.is_empty() {
            request = with(request, "ack", json!(self.taken));
        }
        if !self.refused.is_empty() {
            request = with(request, "setErrs", json!(self.refused));
        }
        request
    }
}
