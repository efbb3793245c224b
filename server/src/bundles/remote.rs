//! A source on the network: what is fetched there is offered to the keeper.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::Bundles;
use crate::clock::Clock;
use crate::config;
use crate::remote::{Location, Offered, Options, SourceStatus, Taken, poll};
use crate::shutdown::Shutdown;

impl Bundles {
    /// The loop that looks at the source until the process drains.
    ///
    /// # Errors
    /// When the text names no place on a network that bundles are fetched from.
    pub fn poll(
        self: &Arc<Self>,
        source: &str,
        remote: &config::Remote,
        clock: Clock,
        shutdown: Shutdown,
    ) -> anyhow::Result<impl Future<Output = Result<(), Infallible>> + Send + 'static + use<>> {
        let location: Location = source.parse()?;
        let options = Options {
            ca: remote.ca.clone(),
            client_cert: remote.client_cert.clone(),
            client_key: remote.client_key.clone(),
            token_file: remote.token_file.clone(),
            username: remote.username.clone(),
            password_file: remote.password_file.clone(),
            poll_interval: Duration::from_secs(remote.poll_s),
            wait: (remote.wait_s > 0).then(|| Duration::from_secs(remote.wait_s)),
            ..Options::default()
        };
        let status = Arc::new(SourceStatus::new(&location));
        let status = Arc::clone(self.remote.get_or_init(|| status));
        let this = Arc::clone(self);
        let take = move |offered: Offered| {
            let this = Arc::clone(&this);
            async move {
                match this.offer(offered.bytes.to_vec()).await {
                    Ok(_) => Taken::Accepted,
                    Err(_) => Taken::Refused,
                }
            }
        };
        Ok(poll(location, options, status, clock, shutdown, take))
    }
}
