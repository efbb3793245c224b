//! Tokens that were taken in, so that one that is sent again changes nothing.
//!
//! A token is known by its receiver and `jti`, as a digest, for as long as its age allows it to be sent again; beyond
//! [`limits::SSF_SEEN_MAX`] the oldest are forgotten first. A token that comes again after that changes nothing either,
//! because older events never overwrite newer state; it is only recorded again.
//! Never does: deciding; its owner holds a lock around looking, applying and adding.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use ahash::AHashMap;
use prost::Message as _;
use ring::digest::{SHA256, digest};

use crate::ledger::{Ledger, LedgerFault, Row, Table};
use crate::limits;

/// Names a token of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TokenName([u8; 16]);

/// A row of [`Table::Seen`].
#[derive(Clone, PartialEq, prost::Message)]
struct SeenRow {
    /// When it can be forgotten, Unix milliseconds.
    #[prost(int64, tag = "1")]
    until_ms: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    until: AHashMap<TokenName, i64>,
    by_until: BTreeSet<(i64, TokenName)>,
    ledger: Option<Ledger>,
}

impl TokenName {
    pub(crate) fn of(receiver: &str, jti: &str) -> Self {
        // A name of a receiver holds no zero byte.
        let digest = digest(&SHA256, &[receiver.as_bytes(), b"\0", jti.as_bytes()].concat());
        let mut name = [0; 16];
        name.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(name)
    }
}

impl Seen {
    /// Those that the ledger holds.
    pub(crate) fn load(ledger: Option<&Ledger>) -> Result<Self, LedgerFault> {
        let mut seen = Self { ledger: ledger.cloned(), ..Self::default() };
        let Some(ledger) = ledger else { return Ok(seen) };
        ledger.scan(Table::Seen, &[], &mut |key, value| {
            if let (Ok(name), Ok(row)) = (<[u8; 16]>::try_from(key), SeenRow::decode(value)) {
                seen.insert(TokenName(name), row.until_ms);
            }
            ControlFlow::Continue(())
        })?;
        Ok(seen)
    }

    pub(crate) fn has(&self, name: TokenName) -> bool {
        self.until.contains_key(&name)
    }

    pub(crate) fn len(&self) -> usize {
        self.until.len()
    }

    /// Remembers one, and forgets what need not or cannot be remembered.
    pub(crate) fn add(&mut self, name: TokenName, until_ms: i64, now_ms: i64) -> Result<(), LedgerFault> {
        let mut rows = vec![Row::Put {
            table: Table::Seen,
            key: name.0.to_vec(),
            value: SeenRow { until_ms }.encode_to_vec(),
        }];
        let mut gone = Vec::new();
        for (until, old) in &self.by_until {
            let is_past = *until < now_ms && gone.len() < limits::SSF_SEEN_FORGET_MAX;
            if !is_past && self.len() - gone.len() < limits::SSF_SEEN_MAX {
                break;
            }
            gone.push((*until, *old));
        }
        rows.extend(gone.iter().map(|(_, old)| Row::Delete { table: Table::Seen, key: old.0.to_vec() }));
        if let Some(ledger) = &self.ledger {
            let _written = ledger.write(rows)?;
        }
        for entry in gone {
            self.by_until.remove(&entry);
            self.until.remove(&entry.1);
        }
        self.insert(name, until_ms);
        Ok(())
    }

    /// One whose effects are not on disk: if it comes again it is processed again.
    pub(crate) fn forget(&mut self, name: TokenName) {
        if let Some(until_ms) = self.until.remove(&name) {
            self.by_until.remove(&(until_ms, name));
        }
    }

    fn insert(&mut self, name: TokenName, until_ms: i64) {
        if let Some(before) = self.until.insert(name, until_ms) {
            self.by_until.remove(&(before, name));
        }
        self.by_until.insert((until_ms, name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_do_not_share_names() {
        assert_ne!(TokenName::of("a", "1"), TokenName::of("b", "1"));
        assert_ne!(TokenName::of("a", "b1"), TokenName::of("ab", "1"));
    }

    #[test]
    fn what_is_past_is_forgotten_and_the_rest_is_bounded() {
        let mut seen = Seen::default();
        let name = |index: i64| TokenName::of("r", &index.to_string());
        seen.add(name(0), 100, 0).unwrap();
        seen.add(name(1), 300, 200).unwrap();
        assert!(!seen.has(name(0)) && seen.has(name(1)));
        for index in 2..i64::try_from(limits::SSF_SEEN_MAX).unwrap() + 12 {
            seen.add(name(index), 1000 + index, 200).unwrap();
        }
        assert_eq!(seen.len(), limits::SSF_SEEN_MAX);
        assert!(!seen.has(name(1)) && !seen.has(name(11)), "the first to be forgotten anyway");
        assert!(seen.has(name(12)));
        seen.forget(name(12));
        assert!(!seen.has(name(12)));
    }

    #[test]
    fn what_was_seen_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, writer) = Ledger::open(dir.path()).unwrap();
        let writing = std::thread::spawn(move || writer.run());
        let mut seen = Seen::load(Some(&ledger)).unwrap();
        seen.add(TokenName::of("r", "1"), 1000, 0).unwrap();
        seen.add(TokenName::of("r", "2"), 2000, 1500).unwrap();
        ledger.close();
        writing.join().unwrap().unwrap();
        drop((ledger, seen));
        let (ledger, _writer) = Ledger::open(dir.path()).unwrap();
        let seen = Seen::load(Some(&ledger)).unwrap();
        assert!(!seen.has(TokenName::of("r", "1")) && seen.has(TokenName::of("r", "2")));
    }
}
