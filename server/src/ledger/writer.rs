//! The one thread that writes: takes everything that waits, commits it, tells who waited.
//!
//! Limits: [`limits::LEDGER_COMMIT_ROWS_MAX`] rows per commit; rows for which nobody waits are written after
//! [`limits::LEDGER_LINGER`]; [`limits::LEDGER_RETRY`] between two attempts while the disk refuses. When the ledger is
//! closed, what waits is written, or tried once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Ledger, LedgerFault, Row};
use crate::limits;

/// See the module.
#[derive(Debug)]
pub struct Writer(Ledger);

/// Rows on their way to the disk, and the number of the last of them.
struct Batch {
    rows: Vec<Row>,
    last: u64,
}

impl Writer {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self(ledger)
    }

    /// Writes until the ledger is closed and nothing waits, or the disk refuses the last of it.
    ///
    /// # Errors
    /// When what waited at the end could not be written.
    pub fn run(self) -> Result<(), LedgerFault> {
        let ended = self.work();
        self.0.0.progress.send_modify(|progress| progress.is_closed = true);
        ended
    }

    fn work(&self) -> Result<(), LedgerFault> {
        while let Some(batch) = self.next() {
            let mut told = false;
            while let Err(why) = self.0.0.file.commit(&batch.rows) {
                if !told {
                    tracing::error!(
                        %why,
                        "changes of state cannot be written to disk: they count on this node, and are not acknowledged"
                    );
                    told = true;
                }
                self.refuse(&Arc::from(why.to_string()));
                // After a failure redb refuses to read, too; opened anew it reads what was committed.
                if let Err(why) = self.0.0.file.reopen() {
                    tracing::debug!(%why, "the state cannot be opened again");
                }
                if self.closes_within(limits::LEDGER_RETRY) {
                    return Err(why);
                }
            }
            if told {
                tracing::info!("changes of state are written to disk again");
            }
            self.accept(&batch);
        }
        Ok(())
    }

    /// What waits; `None` once the ledger is closed and nothing does.
    fn next(&self) -> Option<Batch> {
        let inner = &self.0.0;
        let mut pending = inner.pending.lock();
        while pending.rows.is_empty() {
            if pending.is_closed {
                return None;
            }
            let _is_late = inner.work.wait_for(&mut pending, limits::LEDGER_LINGER);
        }
        let count = pending.rows.len().min(limits::LEDGER_COMMIT_ROWS_MAX);
        let left = pending.rows.split_off(count);
        let last = pending.last.saturating_sub(u64::try_from(left.len()).unwrap_or(0));
        let rows = std::mem::replace(&mut pending.rows, left);
        Some(Batch { rows, last })
    }

    fn closes_within(&self, wait: Duration) -> bool {
        let mut pending = self.0.0.pending.lock();
        // Rows that come in ring the bell too; the disk is still not asked sooner for them.
        let _timed_out = self.0.0.work.wait_while_for(&mut pending, |pending| !pending.is_closed, wait);
        pending.is_closed
    }

    fn accept(&self, batch: &Batch) {
        let inner = &self.0.0;
        {
            let mut pending = inner.pending.lock();
            for row in &batch.rows {
                let (table, key) = row.place();
                let place = (table, Box::from(key));
                // A newer value of the row may wait by now.
                if pending.overlay.get(&place).is_some_and(|(at, _)| *at <= batch.last) {
                    pending.overlay.remove(&place);
                }
            }
            if pending.overlay.is_empty() {
                pending.overlay.shrink_to(limits::LEDGER_COMMIT_ROWS_MAX);
            }
        }
        inner.written.fetch_add(u64::try_from(batch.rows.len()).unwrap_or(0), Ordering::Relaxed);
        inner.commits.fetch_add(1, Ordering::Relaxed);
        inner.progress.send_modify(|progress| {
            progress.durable = batch.last;
            progress.fault = None;
        });
    }

    /// Tells everybody who waits, also for rows behind those that were tried: the disk takes none now.
    fn refuse(&self, why: &Arc<str>) {
        let last = self.0.0.pending.lock().last;
        self.0.0.progress.send_modify(|progress| {
            progress.failed = last;
            progress.fault = Some(Arc::clone(why));
        });
    }
}
