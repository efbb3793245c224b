//! Audit records for commands that read many of them: segments on disk, or a running node's stream.

use std::path::PathBuf;
use std::time::Duration;

use cardea_client::v1;
use clap::Args;

use super::bundle::node::{self, Failure, TlsArgs};
use crate::audit::stored::Stored;
use crate::monitor::Fault;
use crate::proving::words::Span;

#[derive(Debug, Args)]
pub(super) struct RecordArgs {
    /// Directories of audit segments, `audit.dir` of each node, or segments by name.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(super) audit: Vec<PathBuf>,
    /// A running node, whose audit is read from --from up to what is there now.
    #[arg(long = "node", value_name = "URL", conflicts_with = "audit")]
    pub(super) url: Option<String>,
    /// Of a node: begin with this record.
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1, requires = "url")]
    from: u64,
    /// Of a node: go on with what happens, until Ctrl-C.
    #[arg(long, requires = "url")]
    follow: bool,
    /// Of a node: go on with what happens, for so long.
    #[arg(long = "for", value_name = "SPAN", requires = "url", conflicts_with = "follow")]
    during: Option<Span>,
    #[command(flatten)]
    tls: TlsArgs,
}

impl RecordArgs {
    /// Whether records are to be read at all.
    pub(super) fn is_given(&self) -> bool {
        !self.audit.is_empty() || self.url.is_some()
    }

    /// Where they come from, for faults.
    pub(super) fn place(&self) -> String {
        let first = || self.audit.first().map(|path| path.display().to_string());
        self.url.clone().or_else(first).unwrap_or_default()
    }

    /// Shows every record, in the order of its node.
    pub(super) fn each(&self, mut visit: impl FnMut(&v1::Record) -> Result<(), Fault>) -> Result<(), Fault> {
        let Some(url) = &self.url else {
            return Stored::open(&self.audit)?.try_for_each(|record| visit(&record?));
        };
        let here = |what: String| Fault { place: url.clone(), what };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| here(format!("no runtime: {error}")))?;
        match runtime.block_on(self.stream(url, &mut visit)) {
            Ok(()) => Ok(()),
            Err(Ended::Fault(fault)) => Err(fault),
            Err(Ended::Node(failure)) => Err(here(failure.to_string())),
        }
    }

    async fn stream(
        &self,
        url: &str,
        visit: &mut impl FnMut(&v1::Record) -> Result<(), Fault>,
    ) -> Result<(), Ended> {
        let mut client = node::connect(url, &self.tls).await?;
        // What was answered before this command began is there once the node has written and synced it.
        let lag = client.status().await.map_err(Failure::from)?.audit.unwrap_or_default();
        let lag_ms = u64::from(lag.loss_window_ms) + u64::from(lag.crash_window_ms);
        tokio::time::sleep(Duration::from_millis(lag_ms.saturating_mul(2))).await;
        let there =
            client.status().await.map_err(Failure::from)?.audit.map_or(0, |audit| audit.last_sequence);
        let goes_on = self.follow || self.during.is_some();
        if !goes_on && there < self.from {
            return Ok(());
        }
        let mut records = client.audit_from(self.from, None).await.map_err(Failure::from)?;
        let span = self
            .during
            .map_or(Duration::MAX, |span| Duration::from_millis(u64::try_from(span.ms).unwrap_or(0)));
        let over = tokio::time::sleep(span.min(LONGEST));
        tokio::pin!(over);
        loop {
            let batch = tokio::select! {
                batch = records.receive() => batch.map_err(Failure::from)?,
                _interrupted = tokio::signal::ctrl_c(), if goes_on => return Ok(()),
                () = &mut over, if goes_on => return Ok(()),
            };
            // A node that stops has told everything that it will.
            let Some(batch) = batch else { return Ok(()) };
            for record in &batch {
                visit(record).map_err(Ended::Fault)?;
                if !goes_on && record.sequence >= there {
                    return Ok(());
                }
            }
        }
    }
}

/// A timer cannot run for ever; nobody listens for a year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why reading ended early.
enum Ended {
    Node(Failure),
    Fault(Fault),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Node(failure)
    }
}
