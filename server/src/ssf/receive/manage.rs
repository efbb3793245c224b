//! The stream with one transmitter: found or made, its events asked for, verified, looked after, deleted.
//!
//! Every [`limits::SSF_STREAM_INTERVAL`] the transmitter's metadata, the stream and its status are read, and what differs
//! from the configuration is changed. Every [`limits::SSF_VERIFY_INTERVAL`] a verification is asked for with a state that
//! nobody can guess; `stream.rs` holds the transmitter to it. The id of the stream is kept on disk.
//! Limits: [`limits::SSF_STREAMS_MAX`] streams in a list.
//! Never does: believing a stream of another issuer or for somebody else, enabling what a transmitter paused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use prost::Message as _;
use reqwest::Url;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Value, json};
use smol_str::SmolStr;

use super::super::address::Address;
use super::super::event::StreamStatus;
use super::super::json::with;
use super::client::{Answer, ClientFault};
use super::intake::Receiving;
use super::metadata::Metadata;
use super::options::{Care, Delivery, Stream};
use crate::clock::Clock;
use crate::ledger::{Ledger, Row, Table};
use crate::limits;
use crate::remote::backoff::Backoff;
use crate::remote::secret;

const PUSH: &str = "urn:ietf:rfc:8935";
const POLL: &str = "urn:ietf:rfc:8936";
const WHAT: &str = "the care of the stream";

/// A row of [`Table::Receivers`], by the receiver's name.
#[derive(Clone, PartialEq, prost::Message)]
struct ReceiverRow {
    /// The stream with it.
    #[prost(string, tag = "1")]
    stream_id: String,
}

/// Looks after the stream of one receiver.
#[derive(Debug)]
pub(super) struct Manager {
    receiving: Arc<Receiving>,
    clock: Clock,
    ledger: Option<Ledger>,
    /// When a verification was last asked for, and how many had come before.
    asked: Option<(u64, u64)>,
}

impl Manager {
    pub(super) fn new(receiving: Arc<Receiving>, clock: Clock, ledger: Option<Ledger>) -> Self {
        Self { receiving, clock, ledger, asked: None }
    }

    /// Looks after it without end; returns once a stream that is to be deleted is gone.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let care = self.receiving.options.stream.clone();
        loop {
            let done = match &care {
                Care::Others => return,
                Care::Keep(stream) => self.keep(stream).await,
                Care::Delete(stream) => match self.delete(stream).await {
                    Ok(()) => return,
                    Err(error) => Err(error),
                },
            };
            let wait = match done {
                Ok(()) => {
                    backoff.reset();
                    limits::SSF_STREAM_INTERVAL
                }
                Err(error) => {
                    let wait = backoff.next(fastrand::u64(..));
                    let receiver = &self.receiving.options.name;
                    tracing::warn!(%receiver, %error, wait_ms = wait.as_millis(), "the stream is not looked after");
                    wait
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn keep(&mut self, wanted: &Stream) -> Result<(), ClientFault> {
        let metadata = self.metadata().await?;
        self.receiving.stream.set_critical(metadata.critical.clone());
        let at = self.configuration(&metadata)?;
        let mut found = match self.find(at, wanted).await? {
            Some(found) => found,
            None => self.create(at, wanted).await?,
        };
        self.check(&found)?;
        let id = self.text(&found, "stream_id")?;
        if self.differs(&found, wanted) {
            let change = with(self.body(wanted)?, "stream_id", json!(id));
            found = self
                .changed(Method::PATCH, at.url(), &change, &[StatusCode::OK, StatusCode::ACCEPTED])
                .await?;
            tracing::info!(receiver = %self.receiving.options.name, stream = id.as_str(), "stream changed");
        }
        self.remember(&id);
        if let Delivery::Poll { .. } = self.receiving.options.delivery {
            let endpoint = found.pointer("/delivery/endpoint_url").and_then(Value::as_str);
            let endpoint = endpoint.map(|text| self.receiving.options.issuer.told(text)).transpose();
            let endpoint =
                endpoint.map_err(|fault| self.fault(&format!("`delivery.endpoint_url`: {fault}")))?;
            self.receiving.stream.set_poll_endpoint(endpoint);
        }
        self.status(&metadata, &id).await?;
        self.verify(&metadata, &id).await
    }

    async fn delete(&mut self, wanted: &Stream) -> Result<(), ClientFault> {
        let metadata = self.metadata().await?;
        let at = self.configuration(&metadata)?;
        let receiver = self.receiving.options.name.clone();
        let Some(found) = self.find(at, wanted).await? else {
            tracing::info!(%receiver, "there is no stream to delete");
            return Ok(());
        };
        let id = self.text(&found, "stream_id")?;
        let answer = self.ask(Method::DELETE, &of_stream(at.url(), &id), None).await?;
        if !matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::NOT_FOUND) {
            return Err(self.receiving.client.status(answer.status, WHAT, Some(&answer.body)));
        }
        self.receiving.stream.set_id(None);
        if let Some(ledger) = &self.ledger {
            // A row that stays names a stream that is not found.
            let _written = ledger
                .write(vec![Row::Delete { table: Table::Receivers, key: receiver.as_bytes().to_vec() }]);
        }
        tracing::info!(%receiver, stream = id.as_str(), "stream deleted");
        Ok(())
    }

    async fn metadata(&self) -> Result<Metadata, ClientFault> {
        Metadata::fetch(&self.receiving.client, &self.receiving.options.issuer).await
    }

    fn configuration<'m>(&self, metadata: &'m Metadata) -> Result<&'m Address, ClientFault> {
        metadata
            .configuration
            .as_ref()
            .ok_or_else(|| self.fault("its metadata has no `configuration_endpoint`"))
    }

    /// The stream of this receiver: the one whose id is known, or the one that was made with the same words.
    async fn find(&self, at: &Address, wanted: &Stream) -> Result<Option<Value>, ClientFault> {
        if let Some(id) = self.known_id() {
            let answer = self.ask(Method::GET, &of_stream(at.url(), &id), None).await?;
            match answer.status {
                StatusCode::OK => return self.object(&answer).map(Some),
                StatusCode::NOT_FOUND => {}
                status => return Err(self.receiving.client.status(status, WHAT, Some(&answer.body))),
            }
        }
        let answer = self.ask(Method::GET, at.url(), None).await?;
        let all = match answer.status {
            StatusCode::OK => self.receiving.client.json(&answer.body, WHAT)?,
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(self.receiving.client.status(status, WHAT, Some(&answer.body))),
        };
        let all = match all {
            Value::Array(all) if all.len() <= limits::SSF_STREAMS_MAX => all,
            Value::Array(_) => return Err(self.fault("it lists too many streams")),
            one @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                vec![one]
            }
        };
        let is_ours = |stream: &Value| match &wanted.endpoint_url {
            Some(url) => stream.pointer("/delivery/endpoint_url").and_then(Value::as_str) == Some(url.text()),
            None => stream.get("description").and_then(Value::as_str) == Some(self.description().as_str()),
        };
        Ok(all.into_iter().find(is_ours))
    }

    async fn create(&self, at: &Address, wanted: &Stream) -> Result<Value, ClientFault> {
        let body = self.body(wanted)?;
        let made =
            self.changed(Method::POST, at.url(), &body, &[StatusCode::CREATED, StatusCode::OK]).await?;
        tracing::info!(receiver = %self.receiving.options.name, "stream made");
        Ok(made)
    }

    /// A stream is believed only of the issuer whose tokens are, and for a name of ours.
    fn check(&self, stream: &Value) -> Result<(), ClientFault> {
        let options = &self.receiving.options;
        if stream.get("iss").and_then(Value::as_str) != Some(options.issuer.text()) {
            return Err(self.fault("`iss` of the stream is not the issuer that is configured"));
        }
        let is_ours =
            |name: &Value| name.as_str().is_some_and(|name| options.audience.iter().any(|our| our == name));
        let fits = match stream.get("aud") {
            Some(Value::Array(names)) => names.iter().any(is_ours),
            Some(name) => is_ours(name),
            None => false,
        };
        if fits {
            return Ok(());
        }
        Err(self.fault(
            "`aud` of the stream holds no name of the configured `audience`: its tokens would all be refused",
        ))
    }

    fn differs(&self, stream: &Value, wanted: &Stream) -> bool {
        let events: BTreeSet<&str> = stream
            .get("events_requested")
            .and_then(Value::as_array)
            .map(|events| events.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let delivers_to = stream.pointer("/delivery/endpoint_url").and_then(Value::as_str);
        events != wanted.events.iter().map(String::as_str).collect()
            || wanted.endpoint_url.as_ref().is_some_and(|url| delivers_to != Some(url.text()))
    }

    fn body(&self, wanted: &Stream) -> Result<Value, ClientFault> {
        let delivery = match (&wanted.endpoint_url, &self.receiving.options.delivery) {
            (Some(url), Delivery::Push { authorization_file }) => {
                let mut delivery = json!({"method": PUSH, "endpoint_url": url.text()});
                if let Some(file) = authorization_file {
                    let text = secret(file)?;
                    let text = text.reveal().lines().next().unwrap_or_default().trim();
                    delivery = with(delivery, "authorization_header", json!(text));
                }
                delivery
            }
            _ => json!({"method": POLL}),
        };
        Ok(
            json!({"delivery": delivery, "events_requested": wanted.events, "description": self.description()}),
        )
    }

    fn description(&self) -> String {
        format!("cardea:{}", self.receiving.options.name)
    }

    async fn status(&self, metadata: &Metadata, id: &str) -> Result<(), ClientFault> {
        let Some(at) = &metadata.status else { return Ok(()) };
        let answer = self.ask(Method::GET, &of_stream(at.url(), id), None).await?;
        if answer.status != StatusCode::OK {
            return Err(self.receiving.client.status(answer.status, WHAT, Some(&answer.body)));
        }
        let said = self.object(&answer)?;
        let status = said.get("status").and_then(Value::as_str).and_then(StreamStatus::of_word);
        let status = status.ok_or_else(|| self.fault("the status of the stream is none that is defined"))?;
        if status != StreamStatus::Enabled {
            let receiver = &self.receiving.options.name;
            let reason = said.get("reason").and_then(Value::as_str).unwrap_or_default();
            let reason = crate::remote::tidy(reason);
            tracing::warn!(%receiver, status = status.word(), reason, "the transmitter sends nothing now");
        }
        self.receiving.stream.set_status(status);
        self.receiving.show_status();
        Ok(())
    }

    async fn verify(&mut self, metadata: &Metadata, id: &str) -> Result<(), ClientFault> {
        let Some(at) = &metadata.verification else { return Ok(()) };
        let now_ns = self.clock.mono_ns();
        let verified = self.receiving.stream.verified();
        if let Some((asked_ns, before)) = self.asked {
            if verified == before {
                tracing::warn!(receiver = %self.receiving.options.name, "the verification that was asked for has not come");
            }
            if Duration::from_nanos(now_ns.saturating_sub(asked_ns)) < limits::SSF_VERIFY_INTERVAL {
                return Ok(());
            }
        }
        let mut random = [0; 16];
        let drawn = SystemRandom::new().fill(&mut random);
        drawn.map_err(|_| self.fault("the system gives no random numbers"))?;
        let state: SmolStr = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        self.receiving.stream.ask(state.clone());
        let body = json!({"stream_id": id, "state": state});
        let answer = self.ask(Method::POST, at.url(), Some(&body)).await?;
        if !matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::ACCEPTED) {
            return Err(self.receiving.client.status(answer.status, WHAT, Some(&answer.body)));
        }
        self.asked = Some((now_ns, verified));
        Ok(())
    }

    async fn ask(&self, method: Method, url: &Url, body: Option<&Value>) -> Result<Answer, ClientFault> {
        self.receiving.client.ask(method, url, body, Duration::ZERO, limits::REMOTE_ANSWER_BYTES_MAX).await
    }

    async fn changed(
        &self,
        method: Method,
        url: &Url,
        body: &Value,
        hoped: &[StatusCode],
    ) -> Result<Value, ClientFault> {
        let answer = self.ask(method, url, Some(body)).await?;
        if !hoped.contains(&answer.status) {
            return Err(self.receiving.client.status(answer.status, WHAT, Some(&answer.body)));
        }
        self.object(&answer)
    }

    fn object(&self, answer: &Answer) -> Result<Value, ClientFault> {
        let value = self.receiving.client.json(&answer.body, WHAT)?;
        if value.is_object() { Ok(value) } else { Err(self.fault("it is no object")) }
    }

    fn text(&self, stream: &Value, member: &str) -> Result<SmolStr, ClientFault> {
        let text = stream.get(member).and_then(Value::as_str);
        let text = text.filter(|text| (1..=super::super::set::NAME_BYTES_MAX).contains(&text.len()));
        text.map(SmolStr::from).ok_or_else(|| self.fault(&format!("the stream has no `{member}`")))
    }

    fn fault(&self, why: &str) -> ClientFault {
        self.receiving.client.content(WHAT, why)
    }

    fn known_id(&self) -> Option<SmolStr> {
        if let Some(id) = self.receiving.stream.id() {
            return Some(id);
        }
        let key = self.receiving.options.name.as_bytes();
        let row = self.ledger.as_ref()?.get(Table::Receivers, key).ok()??;
        ReceiverRow::decode(row.as_ref()).ok().map(|row| row.stream_id.into())
    }

    fn remember(&self, id: &SmolStr) {
        if self.receiving.stream.id().as_ref() == Some(id) {
            return;
        }
        self.receiving.stream.set_id(Some(id.clone()));
        if let Some(ledger) = &self.ledger {
            let value = ReceiverRow { stream_id: id.to_string() }.encode_to_vec();
            let key = self.receiving.options.name.as_bytes().to_vec();
            // Without the row the stream is found again by its words.
            let _written = ledger.write(vec![Row::Put { table: Table::Receivers, key, value }]);
        }
    }
}

fn of_stream(url: &Url, id: &str) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut().append_pair("stream_id", id);
    url
}
