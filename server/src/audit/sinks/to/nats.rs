//! A NATS `JetStream` stream.
//!
//! A batch is published at once and acknowledged record by record. `Nats-Msg-Id` names the record, so that a server takes none twice within
//! its window. A connection that was lost is never gone on with: what waited in it would come behind what is sent again.
//! Limits: [`limits::SINK_TIMEOUT`] for each acknowledgement. Never does: making streams; the operator says how records are kept.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context};
use async_nats::{ConnectOptions, Event as NatsEvent};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::super::options::NatsTo;
use super::{Event, Failed, Format, tls};
use crate::limits;

/// Longer than any sink waits: nobody reconnects.
const NEVER: Duration = Duration::from_secs(86_400 * 365);

/// See the module.
#[derive(Debug)]
pub(in crate::audit::sinks) struct Server {
    to: NatsTo,
    format: Format,
}

/// A connection.
pub(in crate::audit::sinks) struct Connected {
    context: Context,
    to: NatsTo,
    format: Format,
    lost: Arc<Notify>,
}

impl Server {
    pub(super) fn new(to: NatsTo, format: Format) -> Result<Self, String> {
        let server = Self { to, format };
        server.options().map(|_| server)
    }

    fn options(&self) -> Result<ConnectOptions, String> {
        let mut options = ConnectOptions::new()
            .name("cardea")
            .connection_timeout(limits::SINK_CONNECT_TIMEOUT)
            .tls_client_config(tls(self.to.ca.as_deref())?);
        if let Some(path) = &self.to.credentials_file {
            let text = read(path)?;
            options = options
                .credentials(&text)
                .map_err(|error| format!("`{}` holds no credentials: {error}", path.display()))?;
        }
        Ok(options)
    }

    pub(super) async fn open(&self) -> Result<Connected, Failed> {
        let is_connected = AtomicBool::new(false);
        let lost = Arc::new(Notify::new());
        let tell = Arc::clone(&lost);
        let options = self
            .options()
            .map_err(|why| Failed::later(0, why))?
            .reconnect_delay_callback(move |_| {
                if is_connected.swap(true, Ordering::Relaxed) { NEVER } else { Duration::ZERO }
            })
            .event_callback(move |event| {
                if matches!(event, NatsEvent::Disconnected | NatsEvent::Closed) {
                    tell.notify_one();
                }
                std::future::ready(())
            });
        let client = timeout(limits::SINK_TIMEOUT, options.connect(&self.to.url)).await;
        let client = client
            .map_err(|_| Failed::later(0, "no answer in time"))?
            .map_err(|error| Failed::later(0, error))?;
        let mut context = jetstream::new(client);
        context.set_timeout(limits::SINK_TIMEOUT);
        Ok(Connected { context, to: self.to.clone(), format: self.format, lost })
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()))
}

impl Connected {
    pub(super) async fn send(&self, batch: &[Event]) -> Result<(), Failed> {
        let mut taken = 0;
        let sent = self.publish(batch, &mut taken);
        tokio::select! {
            outcome = sent => outcome.map_err(|error| self.failed(taken, &error)),
            () = self.lost.notified() => Err(Failed::later(taken, "the connection was lost")),
        }
    }

    async fn publish(&self, batch: &[Event], taken: &mut usize) -> Result<(), PublishError> {
        let mut waiting = Vec::with_capacity(batch.len());
        let mut refused = None;
        for event in batch {
            let message = PublishMessage::build()
                .message_id(&event.id)
                .header("content-type", self.format.media_type())
                .payload(event.body.clone().into());
            match self.context.send_publish(self.to.subject.clone(), message).await {
                Ok(acknowledged) => waiting.push(acknowledged),
                // Nothing behind it is sent; what is before it still counts.
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        for acknowledged in waiting {
            acknowledged.await?;
            *taken += 1;
        }
        refused.map_or(Ok(()), Err)
    }

    fn failed(&self, taken: usize, error: &PublishError) -> Failed {
        if error.kind() == PublishErrorKind::MaxPayloadExceeded {
            return Failed::refused(taken, error);
        }
        if error.kind() == PublishErrorKind::StreamNotFound {
            return Failed::later(
                taken,
                format!("no stream takes the subject `{}`: make one", self.to.subject),
            );
        }
        Failed::later(taken, error)
    }
}
