//! What the state keeps on disk: read at the start, snapshots of behaviour, dropping what is over, catching up.
//!
//! Sessions are not read at the start but when somebody asks for them, so that a node with a million of them starts at
//! once. Limits: [`limits::STATE_SWEEP_ROWS`] rows are looked at in one step.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cardea_core::facts::Behavior;
use cardea_core::session::Session;
use cardea_core::time::Now;
use cardea_policy_store::approvals;
use moka::ops::compute::Op;
use ring::rand::{SecureRandom as _, SystemRandom};
use smol_str::SmolStr;

use super::{Held, State, rows, tasks, work_rows};
use crate::ledger::{Ledger, LedgerFault, Row, Table};
use crate::limits;

/// Versions that are reserved at a time.
const VERSIONS_BLOCK: u64 = 1 << 20;
/// A new block is reserved when this many are left: many more than changes that can wait for the disk.
pub(super) const VERSIONS_MARGIN: u64 = VERSIONS_BLOCK / 2;
/// Where it stands up to which version they were given out.
const VERSIONS_KEY: &[u8] = b"versions";
/// Where the key of the fingerprints stands with which it is kept what sessions did.
const FINGERPRINTS_KEY: &[u8] = b"fingerprints";
/// Where it stands for how long ends are remembered.
pub(super) const MEMORY_KEY: &[u8] = b"memory";

impl State {
    /// Reads everything but the sessions.
    pub(super) fn load(&mut self) -> Result<(), LedgerFault> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        self.knows_fingerprints = adopt_fingerprint_key(ledger)?;
        let reserved = match ledger.get(Table::Meta, VERSIONS_KEY)? {
            None => 0,
            Some(bytes) => {
                let number = <[u8; 8]>::try_from(&*bytes).map_err(|_| rows::unreadable("`meta`"))?;
                u64::from_le_bytes(number)
            }
        };
        self.version.store(reserved, Ordering::SeqCst);
        self.reserve(reserved);
        if let Some(row) = ledger.get(Table::Meta, MEMORY_KEY)? {
            self.memory.restore(&row).ok_or_else(|| rows::unreadable("`meta`"))?;
        }
        self.stored.store(ledger.len(Table::Sessions)?, Ordering::Relaxed);
        each(ledger, Table::Subjects, |key, value| {
            let (uid, subject) = (rows::uid(key)?, rows::to_subject(value)?);
            self.subjects.restore(uid, subject);
            Some(())
        })?;
        each(ledger, Table::Revocations, |key, value| {
            self.revoked.restore(text(key)?, rows::to_instant(value)?);
            Some(())
        })?;
        each(ledger, Table::Devices, |key, value| {
            self.devices.restore(text(key)?, rows::to_posture(value)?);
            Some(())
        })?;
        each(ledger, Table::Tasks, |key, value| {
            let id = text(key)?;
            let life = work_rows::to_life(&id, value)?;
            self.tasks.restore(id, Arc::new(life));
            Some(())
        })?;
        each(ledger, Table::Reviews, |_, value| self.restore_review(value))?;
        each(ledger, Table::Tenants, |key, value| {
            self.tenants.restore(text(key)?, rows::to_instant(value)?);
            Some(())
        })
    }

    /// Lets the disk know that versions up to a block above this one may have been given out.
    pub(super) fn reserve(&self, version: u64) {
        let Some(ledger) = &self.ledger else { return };
        let to = version.saturating_add(VERSIONS_BLOCK);
        let row =
            Row::Put { table: Table::Meta, key: VERSIONS_KEY.to_vec(), value: to.to_le_bytes().to_vec() };
        if ledger.write(vec![row]).is_ok() {
            self.reserved.fetch_max(to, Ordering::Relaxed);
        } else {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
        // A start with no block yet: any block counts.
        let _first = self.reserved.compare_exchange(u64::MAX, to, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A session that is on disk, as it was left there.
    pub(super) fn stored(&self, id: &str) -> Result<Option<Arc<Held>>, LedgerFault> {
        let Some(ledger) = &self.ledger else { return Ok(None) };
        let Some(bytes) = ledger.get(Table::Sessions, id.as_bytes())? else { return Ok(None) };
        let session = rows::to_session(id, &bytes).ok_or_else(|| rows::unreadable("`sessions`"))?;
        let (behavior, monitored) = match ledger.get(Table::Behaviors, id.as_bytes())? {
            Some(bytes) => rows::to_behavior(&bytes).ok_or_else(|| rows::unreadable("`behaviors`"))?,
            None => (Behavior { last_seen_ms: session.refreshed_ms, ..Behavior::default() }, None),
        };
        let monitored = monitored.filter(|_| self.knows_fingerprints).map(Box::new);
        Ok(Some(Held::with(Arc::new(session), behavior, monitored)))
    }

    /// Brings the disk up to date with what sessions did, and with what the ledger once did not take.
    pub fn snapshot(&self) {
        let Some(ledger) = &self.ledger else { return };
        if ledger.fault().is_some() {
            return;
        }
        // Counted before anything is looked at: what is refused from here on may have been passed already.
        let refused = self.refused.load(Ordering::SeqCst);
        if self.is_behind() && self.catch_up(ledger) {
            self.caught_up.fetch_max(refused, Ordering::SeqCst);
        }
        for (id, held) in &self.sessions {
            if store_behavior(ledger, &id, &held).is_err() {
                return;
            }
        }
    }

    /// Writes everything that is never evicted; `false` if the ledger does not take it all.
    fn catch_up(&self, ledger: &Ledger) -> bool {
        let mut all = true;
        let mut put = |table: Table, key: Vec<u8>, value: Vec<u8>| {
            all &= ledger.write(vec![Row::Put { table, key, value }]).is_ok();
        };
        self.subjects.each(|uid, subject| put(Table::Subjects, rows::uid_key(uid), rows::subject(subject)));
        self.revoked.each(|id, until| put(Table::Revocations, id.as_bytes().to_vec(), rows::instant(*until)));
        self.devices.each(|id, posture| put(Table::Devices, id.as_bytes().to_vec(), rows::posture(*posture)));
        self.tenants.each(|name, until| put(Table::Tenants, name.as_bytes().to_vec(), rows::instant(*until)));
        self.tasks.each(|id, life| put(Table::Tasks, id.as_bytes().to_vec(), work_rows::life(life)));
        self.reviews.each_row(|digest, row| put(Table::Reviews, digest.0.as_bytes().to_vec(), row));
        put(Table::Meta, MEMORY_KEY.to_vec(), self.memory.row());
        self.reserve(self.version());
        all
    }

    /// Drops sessions whose end lies one life back, and what is spent in the tables, beginning at a session's id. Returns
    /// where to go on; `None` at the end.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn sweep(&self, from: &str, life_ms: i64, now: Now) -> Result<Option<SmolStr>, LedgerFault> {
        let kept_ms = self.remembers_ms(life_ms, now);
        self.revoked.sweep(now.wall_ms, |until| *until < now.wall_ms);
        self.subjects.sweep(now.wall_ms, |subject| subject.is_spent(now, kept_ms));
        // What is left then is what the session says itself, which is older and no more open.
        self.devices.sweep(now.wall_ms, |device| {
            device.compliant && device.event_ms.saturating_add(kept_ms) < now.wall_ms
        });
        self.tasks.sweep(now.wall_ms, |life| tasks::is_spent(life, now));
        self.tenants.sweep(now.wall_ms, |until| until.saturating_add(kept_ms) < now.wall_ms);
        let Some(ledger) = &self.ledger else { return Ok(None) };
        let mut over = Vec::new();
        let mut next = None;
        let mut seen = 0;
        let is_over = |session: &Session| session.expires_ms.saturating_add(life_ms) < now.wall_ms;
        ledger.scan(Table::Sessions, from.as_bytes(), &mut |key, value| {
            seen += 1;
            if seen > limits::STATE_SWEEP_ROWS {
                next = text(key);
                return ControlFlow::Break(());
            }
            if let Some(id) = text(key)
                && rows::to_session(&id, value).is_some_and(|session| is_over(&session))
            {
                over.push(id);
            }
            ControlFlow::Continue(())
        })?;
        for id in over {
            self.drop_session(ledger, &id, is_over);
        }
        Ok(next)
    }

    fn drop_session(&self, ledger: &Ledger, id: &SmolStr, is_over: impl Fn(&Session) -> bool) {
        let rows = [Table::Sessions, Table::Behaviors]
            .map(|table| Row::Delete { table, key: id.as_bytes().to_vec() });
        self.sessions.entry(id.clone()).and_compute_with(|found| {
            // It may have been opened anew or extended since the disk was read.
            let held = match found {
                Some(entry) => Some(Arc::clone(entry.value())),
                None => self.stored(id.as_str()).ok().flatten(),
            };
            let extended = held.is_none_or(|held| !is_over(&held.session.lock()));
            if extended || ledger.write(rows.to_vec()).is_err() {
                return Op::Nop;
            }
            self.stored.fetch_sub(1, Ordering::Relaxed);
            Op::Remove
        });
    }
}

/// Writes what a session did, if the disk does not know it.
pub(super) fn store_behavior(ledger: &Ledger, id: &str, held: &Held) -> Result<(), LedgerFault> {
    let mut noted = held.behavior.lock();
    if noted.stored_attempts == noted.behavior.attempts {
        return Ok(());
    }
    let value = rows::behavior(&noted.behavior, noted.monitored.as_deref());
    ledger.write(vec![Row::Put { table: Table::Behaviors, key: id.as_bytes().to_vec(), value }])?;
    noted.stored_attempts = noted.behavior.attempts;
    Ok(())
}

fn text(key: &[u8]) -> Option<SmolStr> {
    std::str::from_utf8(key).ok().map(SmolStr::from)
}

/// Goes on with the key of the fingerprints that the disk holds; a new store gets a new one. It is a secret like all that is in the store.
fn adopt_fingerprint_key(ledger: &Ledger) -> Result<bool, LedgerFault> {
    if let Some(bytes) = ledger.get(Table::Meta, FINGERPRINTS_KEY)? {
        let key = <[u8; 16]>::try_from(&*bytes).map_err(|_| rows::unreadable("`meta`"))?;
        return Ok(approvals::adopt_key(key));
    }
    let mut key = [0; 16];
    let is_adopted = SystemRandom::new().fill(&mut key).is_ok() && approvals::adopt_key(key);
    if is_adopted {
        let row = Row::Put { table: Table::Meta, key: FINGERPRINTS_KEY.to_vec(), value: key.to_vec() };
        // Without it what sessions did is judged anew after the next start: the strict side.
        let _kept = ledger.write(vec![row]);
    }
    Ok(is_adopted)
}

/// Shows every row of a table to somebody who must understand each.
fn each(
    ledger: &Ledger,
    table: Table,
    mut take: impl FnMut(&[u8], &[u8]) -> Option<()>,
) -> Result<(), LedgerFault> {
    let mut is_understood = true;
    ledger.scan(table, b"", &mut |key, value| match take(key, value) {
        Some(()) => ControlFlow::Continue(()),
        None => {
            is_understood = false;
            ControlFlow::Break(())
        }
    })?;
    if is_understood { Ok(()) } else { Err(rows::unreadable(table.name())) }
}
