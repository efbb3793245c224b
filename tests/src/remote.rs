//! What the tests of remote sources share: packed bundles, `cardea bundle` as a process, a running poll loop.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use cardea_policy_store::load;
use cardea_policy_store::pack::{Packed, manifest_for};
use cardea_server::clock::Clock;
use cardea_server::remote::{self, Offered, Options, SourceStatus, Taken};
use cardea_server::shutdown::Shutdown;
use tokio::task::JoinSet;

use crate::bundle;
use crate::process::{Finished, run_cardea};
use crate::wait;

/// A signed bundle, packed. What the signature says is not the concern of who moves it.
///
/// # Errors
/// If the bundle `web` cannot be packed.
pub fn packed(revision: u64) -> Result<Vec<u8>> {
    Ok(unsigned(revision)?
        .with_envelope(br#"{"payload":"","payloadType":"t","signatures":[]}"#)
        .bytes()
        .to_vec())
}

/// The same without a signature.
///
/// # Errors
/// If the bundle `web` cannot be packed.
pub fn unsigned(revision: u64) -> Result<Packed> {
    let files = load::read_directory(&bundle::web()).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    Ok(Packed::new(manifest_for("web", revision, &files), &files)?)
}

/// Writes a signed bundle to a file of `dir`.
///
/// # Errors
/// If it cannot be packed or written.
pub fn write(dir: &Path, revision: u64) -> Result<PathBuf> {
    let file = dir.join(format!("web-{revision}.cardea"));
    std::fs::write(&file, packed(revision)?)?;
    Ok(file)
}

/// `cardea bundle` with arguments, from another thread, so that servers of the test go on.
///
/// # Errors
/// If it cannot be run.
pub async fn cardea(arguments: &[&str]) -> Result<Finished> {
    let mut all = vec!["bundle".to_owned()];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    tokio::task::spawn_blocking(move || run_cardea(&all, b"")).await?
}

/// Options for a loop that is quick.
#[must_use]
pub fn quick(ca: Option<&Path>) -> Options {
    Options { ca: ca.map(Path::to_owned), poll_interval: Duration::from_millis(50), ..Options::default() }
}

/// A running poll loop; ends when it is dropped.
#[derive(Debug)]
pub struct Polling {
    /// How it goes.
    pub status: Arc<SourceStatus>,
    offers: Arc<Mutex<Vec<Offered>>>,
    _task: JoinSet<()>,
}

impl Polling {
    /// Starts one that answers every offer with `taken`.
    ///
    /// # Errors
    /// If that is no address.
    pub fn start(location: &str, options: Options, taken: Taken) -> Result<Self> {
        let location = location.parse()?;
        let status = Arc::new(SourceStatus::new(&location));
        let offers: Arc<Mutex<Vec<Offered>>> = Arc::default();
        let memory = Arc::clone(&offers);
        let offer = move |offered: Offered| {
            memory.lock().unwrap_or_else(PoisonError::into_inner).push(offered);
            std::future::ready(taken)
        };
        let mut task = JoinSet::new();
        let polling =
            remote::poll(location, options, Arc::clone(&status), Clock::machine(), Shutdown::new(), offer);
        task.spawn(async { polling.await.unwrap_or_else(|never| match never {}) });
        Ok(Self { status, offers, _task: task })
    }

    /// Everything that was offered so far.
    #[must_use]
    pub fn offers(&self) -> Vec<Offered> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for as many offers and returns the last.
    ///
    /// # Errors
    /// If they do not come in time.
    pub async fn offered(&self, count: usize) -> Result<Offered> {
        wait::until(&format!("{count} offers"), async || {
            Ok(self.offers().get(count.saturating_sub(1)).cloned())
        })
        .await
    }
}
