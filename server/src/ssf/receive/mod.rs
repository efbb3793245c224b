//! The receiver: what other parties tell by security event tokens, and what becomes of it.
//!
//! `push.rs` and `poll.rs` bring tokens, `intake.rs` is the one way from a token to a durable change; `subjects.rs` says whom
//! a subject means here, `plan.rs` what an event leads to, `apply.rs` makes changes of it, `seen.rs` keeps what comes twice
//! from counting twice. `manage.rs` looks after the stream with a transmitter, `client.rs` asks it, `metadata.rs` is what it
//! tells about itself. Never does: deciding attempts.

mod apply;
pub(crate) mod client;
mod intake;
mod manage;
pub(crate) mod metadata;
pub mod options;
mod plan;
mod poll;
mod push;
mod seen;
mod stream;
mod subjects;

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Context as _;

use self::client::Client;
pub use self::client::Login;
use self::intake::{Intake, Receiving};
use self::manage::Manager;
use self::options::{Care, Delivery, Receiver};
use self::poll::Poller;
use self::push::Push;
use super::guard::Guard;
use super::http::Part;
use super::keys::Keys;
use crate::limits;
use crate::pipeline::Pipeline;
use crate::supervise::Supervisor;

/// Everybody who is listened to.
#[derive(Debug)]
pub struct Receivers {
    pipeline: Arc<Pipeline>,
    intake: Arc<Intake>,
    all: Vec<(Arc<Receiving>, Option<Guard>)>,
}

impl Receivers {
    /// Prepares the receivers of the configuration.
    ///
    /// # Errors
    /// When a file cannot be used, or what was seen cannot be read.
    pub fn new(receivers: &[Receiver], pipeline: &Arc<Pipeline>) -> anyhow::Result<Self> {
        let intake = Intake::new(Arc::clone(pipeline)).context("the tokens that were seen cannot be read")?;
        let all = receivers.iter().map(|options| {
            receiving(options, pipeline)
                .with_context(|| format!("`ssf.receiver.{}` cannot be used", options.name))
        });
        Ok(Self {
            pipeline: Arc::clone(pipeline),
            intake: Arc::new(intake),
            all: all.collect::<Result<_, _>>()?,
        })
    }

    /// Starts what fetches, and returns what takes pushes.
    pub fn start(self, supervisor: &Supervisor) -> Box<dyn Part> {
        let clock = self.pipeline.clock();
        for (receiving, _) in &self.all {
            let is_gone = matches!(receiving.options.stream, Care::Delete(_));
            let manager =
                Manager::new(Arc::clone(receiving), clock.clone(), self.pipeline.state().ledger().cloned());
            until_drained(supervisor, "ssf-stream", manager.run());
            if is_gone {
                continue;
            }
            let looking = Arc::clone(receiving);
            until_drained(supervisor, "ssf-keys", async move { looking.look_for_keys().await });
            if matches!(receiving.options.delivery, Delivery::Poll { .. }) {
                let poller = Poller::new(Arc::clone(&self.intake), Arc::clone(receiving), clock.clone());
                until_drained(supervisor, "ssf-poll", poller.run());
            }
        }
        let pushed = self.all.into_iter().filter(|(receiving, _)| {
            matches!(receiving.options.delivery, Delivery::Push { .. })
                && !matches!(receiving.options.stream, Care::Delete(_))
        });
        Box::new(Push::new(self.intake, pushed))
    }
}

impl Receiving {
    /// Keeps the keys up to date, without end.
    async fn look_for_keys(&self) {
        loop {
            if let Err(error) = self.keys.refresh().await {
                let age_s = self.keys.age().map(|age| age.as_secs());
                tracing::warn!(receiver = %self.options.name, %error, age_s, "the keys of the issuer were not fetched");
            }
            tokio::time::sleep(limits::SSF_KEYS_INTERVAL).await;
        }
    }
}

fn receiving(options: &Receiver, pipeline: &Pipeline) -> anyhow::Result<(Arc<Receiving>, Option<Guard>)> {
    let clock = pipeline.clock().clone();
    let guard = match &options.delivery {
        Delivery::Push { authorization_file: Some(file) } => Some(Guard::new(file.clone(), clock.clone())?),
        Delivery::Push { authorization_file: None } | Delivery::Poll { .. } => None,
    };
    let client = Client::new(&options.issuer, options.ca.clone(), options.login.clone(), clock.clone())?;
    let client = Arc::new(client);
    let keys = Keys::new(options.issuer.clone(), options.jwks_uri.clone(), Arc::clone(&client), clock);
    let metrics = pipeline.metrics().receiver(&options.name);
    let stream = stream::Stream::default();
    Ok((Arc::new(Receiving { options: options.clone(), client, keys, stream, metrics }), guard))
}

/// A task that lasts until the process drains, even if what it does is done before.
fn until_drained(
    supervisor: &Supervisor,
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let shutdown = supervisor.shutdown().clone();
    supervisor.task(name, async move {
        tokio::select! {
            () = async { work.await; std::future::pending::<()>().await } => {}
            () = shutdown.draining() => {}
        }
        Ok::<(), Infallible>(())
    });
}
