//! The events of one stream that nobody has acknowledged yet, in order.
//!
//! Plain data: time is an argument, and what changed is told in [`Change`]s for the store. INVARIANT (order): sequence
//! numbers rise from front to back, and an event keeps its place until it leaves. INVARIANT (nothing lost silently): an
//! event leaves because it was acknowledged or refused, because its stream was emptied, or because a bound was reached;
//! in the last case a *notice* at the front tells the receiver how many are missing.
//! Limits: [`Bounds`]. A notice is never dropped; there is at most one.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use smol_str::SmolStr;

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something that was concluded, or a verification.
    Event,
    /// Tells that so many events are missing here.
    Notice {
        /// How many.
        lost: u64,
    },
}

/// One event that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Its place.
    pub(super) seq: u64,
    /// Its name for the receiver.
    pub(super) jti: SmolStr,
    /// What it is.
    pub(super) kind: Kind,
    /// The claims of its token, JSON.
    pub(super) claims: Arc<str>,
    /// Since when it waits, Unix milliseconds.
    pub(super) queued_ms: i64,
    /// Whether the receiver may have seen it.
    pub(super) handed_out: bool,
    /// The token, once it was signed.
    pub(super) signed: Option<Signed>,
}

/// A token and the key that signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signed {
    /// The key.
    pub(super) kid: SmolStr,
    /// The token, in compact form.
    pub(super) token: Arc<str>,
}

/// How much a stream may hold back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Items; at least 2.
    pub(super) items: usize,
    /// Bytes of claims.
    pub(super) bytes: usize,
    /// Age, in milliseconds.
    pub(super) age_ms: i64,
}

/// What the store has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The item with this number is new or different.
    Put(u64),
    /// It is gone.
    Delete(u64),
}

/// What a change did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// For the store, in order.
    pub(super) changes: Vec<Change>,
    /// Events that were dropped for want of room, or of age.
    pub(super) dropped: u64,
}

/// Makes the name and the claims of a notice about so many lost events.
pub(super) type MakeNotice<'a> = &'a mut dyn FnMut(u64) -> (SmolStr, Arc<str>);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    items: VecDeque<Item>,
    bytes: usize,
    next_seq: u64,
}

impl Outbox {
    /// Takes back what the store had. Items come in the order of their numbers.
    pub(super) fn restore(&mut self, item: Item) {
        self.bytes += item.claims.len();
        self.next_seq = self.next_seq.max(item.seq + 1);
        debug_assert!(item.handed_out, "whether it was seen is not known any more");
        self.items.push_back(item);
    }

    /// Adds an event at the back; what no longer fits is dropped at the front.
    pub(super) fn push(
        &mut self,
        jti: SmolStr,
        claims: Arc<str>,
        now_ms: i64,
        bounds: Bounds,
        notice: MakeNotice<'_>,
    ) -> Done {
        let mut done = Done::default();
        while self.items.len() >= bounds.items || self.bytes + claims.len() > bounds.bytes {
            if !self.drop_oldest(now_ms, notice, &mut done) {
                break;
            }
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        self.bytes += claims.len();
        let kind = Kind::Event;
        self.items.push_back(Item {
            seq,
            jti,
            kind,
            claims,
            queued_ms: now_ms,
            handed_out: false,
            signed: None,
        });
        done.changes.push(Change::Put(seq));
        done
    }

    /// Drops what is too old.
    pub(super) fn expire(&mut self, now_ms: i64, bounds: Bounds, notice: MakeNotice<'_>) -> Done {
        let mut done = Done::default();
        while self
            .oldest_event()
            .and_then(|at| self.items.get(at))
            .is_some_and(|item| item.queued_ms.saturating_add(bounds.age_ms) < now_ms)
        {
            if !self.drop_oldest(now_ms, notice, &mut done) {
                break;
            }
        }
        done
    }

    /// Takes out what the receiver has. Unknown names are ignored, for acknowledgements may be repeated; so are those of
    /// events that it cannot have seen.
    pub(super) fn acknowledge(&mut self, jtis: &BTreeSet<&str>) -> Vec<Item> {
        let can_be_known = |item: &Item| item.handed_out || item.kind != Kind::Event;
        let known = self.items.iter().take_while(|item| can_be_known(item)).count();
        let waiting = self.items.split_off(known);
        let (gone, kept): (VecDeque<Item>, VecDeque<Item>) = std::mem::take(&mut self.items)
            .into_iter()
            .partition(|item| item.handed_out && jtis.contains(item.jti.as_str()));
        self.items = kept;
        self.items.extend(waiting);
        self.bytes -= gone.iter().map(|item| item.claims.len()).sum::<usize>();
        gone.into()
    }

    /// Takes out everything.
    pub(super) fn clear(&mut self) -> Vec<Change> {
        self.bytes = 0;
        self.items.drain(..).map(|item| Change::Delete(item.seq)).collect()
    }

    /// The first `most` items, which count as handed out from now on.
    pub(super) fn hand_out(&mut self, most: usize) -> Vec<Item> {
        let mut out = Vec::with_capacity(most.min(self.items.len()));
        for item in self.items.iter_mut().take(most) {
            item.handed_out = true;
            out.push(item.clone());
        }
        out
    }

    /// Remembers the token of an item that still waits.
    pub(super) fn keep_token(&mut self, jti: &str, signed: &Signed) {
        if let Some(item) = self.items.iter_mut().find(|item| item.jti == jti) {
            item.signed = Some(signed.clone());
        }
    }

    /// The item with this number.
    pub(super) fn get(&self, seq: u64) -> Option<&Item> {
        let at = self.items.binary_search_by_key(&seq, |item| item.seq).ok()?;
        self.items.get(at)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Since when the first one waits.
    pub(super) fn oldest_ms(&self) -> Option<i64> {
        self.items.front().map(|item| item.queued_ms)
    }

    fn oldest_event(&self) -> Option<usize> {
        // A notice stands at the front, and there is one at most.
        self.items.iter().take(2).position(|item| item.kind == Kind::Event)
    }

    /// Drops the oldest event and says so in the notice, which takes its place if there is none yet. Returns false if there
    /// is nothing to drop.
    fn drop_oldest(&mut self, now_ms: i64, notice: MakeNotice<'_>, done: &mut Done) -> bool {
        let Some(at) = self.oldest_event() else { return false };
        let Some(gone) = self.items.remove(at) else { return false };
        self.bytes -= gone.claims.len();
        done.dropped += 1;
        let mut before = match self.items.front() {
            Some(Item { kind: Kind::Notice { .. }, .. }) => self.items.pop_front(),
            _ => None,
        };
        if let Some(before) = &before {
            self.bytes -= before.claims.len();
            done.changes.push(Change::Delete(gone.seq));
        }
        let told = before.as_ref().map_or(0, |item| match item.kind {
            Kind::Notice { lost } => lost,
            Kind::Event => 0,
        });
        let lost = told + 1;
        let (fresh, claims) = notice(lost);
        // What the receiver may have seen already keeps its meaning: the new count gets a new name.
        let kept = before.take_if(|item| !item.handed_out).map(|item| (item.seq, item.jti));
        let (seq, jti) = kept.unwrap_or_else(|| (before.map_or(gone.seq, |item| item.seq), fresh));
        self.bytes += claims.len();
        done.changes.push(Change::Put(seq));
        self.items.push_front(Item {
            seq,
            jti,
            kind: Kind::Notice { lost },
            claims,
            queued_ms: now_ms,
            handed_out: false,
            signed: None,
        });
        true
    }
}
