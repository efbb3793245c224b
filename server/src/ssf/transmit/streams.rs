//! The streams of all receivers: what each asked for, where it stands, and what waits for it.
//!
//! Plain data: no I/O, no clock, no randomness; time and names are arguments, and what has to be stored is told in
//! [`Row`]s. INVARIANT (own streams): whatever a receiver names is looked up among its own streams; another's is not found.
//! Limits: [`limits::SSF_STREAMS_PER_RECEIVER_MAX`], [`limits::SSF_SUBJECTS_MAX`], [`Bounds`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use smol_str::SmolStr;

use super::outbox::{Bounds, Change, Item, Outbox, Signed};
use super::request::Wanted;
use super::subject::{LeftOut, Subject};
use crate::limits;
use crate::ssf::event::StreamStatus;

/// How events reach a receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Delivery {
    /// It fetches them.
    #[default]
    Poll,
    /// They are sent to it.
    Push {
        /// Where to.
        endpoint: String,
        /// The `Authorization` header that it wants to see.
        authorization: Option<Secret>,
    },
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(pub(super) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// One stream.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// Its name.
    pub(super) id: SmolStr,
    /// Whose it is, by the name of the configuration.
    pub(super) receiver: SmolStr,
    /// What the receiver wants.
    pub(super) wanted: Wanted,
    /// Where it stands.
    pub(super) status: StreamStatus,
    /// Why, in the receiver's words.
    pub(super) reason: Option<String>,
    /// When it was last verified, Unix milliseconds.
    pub(super) verified_ms: Option<i64>,
    /// Subjects that are left out.
    pub(super) left_out: LeftOut,
    /// What waits.
    pub(super) outbox: Outbox,
}

impl Stream {
    /// An enabled stream for which nothing waits.
    pub(super) fn new(id: SmolStr, receiver: SmolStr, wanted: Wanted) -> Self {
        Self {
            id,
            receiver,
            wanted,
            status: StreamStatus::Enabled,
            reason: None,
            verified_ms: None,
            left_out: LeftOut::default(),
            outbox: Outbox::default(),
        }
    }
}

/// What the store has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// The stream is new or different.
    PutStream(SmolStr),
    /// It is gone.
    DeleteStream(SmolStr),
    /// A subject is left out of the stream.
    PutRemoved(SmolStr, Subject),
    /// It no longer is.
    DeleteRemoved(SmolStr, Subject),
    /// An event that waits is new or different.
    PutItem(SmolStr, u64),
    /// It is gone.
    DeleteItem(SmolStr, u64),
}

/// Why a request is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("there is no such stream")]
    NotFound,
    #[error("there are {} streams already; delete one", limits::SSF_STREAMS_PER_RECEIVER_MAX)]
    TooManyStreams,
    #[error("{} subjects are left out already; add one back", limits::SSF_SUBJECTS_MAX)]
    TooManySubjects,
    #[error("the last verification is too recent; ask again in {retry_s} s")]
    TooSoon {
        /// When it would be taken.
        retry_s: u64,
    },
    #[error("the stream is disabled; enable it first")]
    Disabled,
}

/// What happened to events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// For the store, in order.
    pub(super) rows: Vec<Row>,
    /// Events dropped for want of room, or of age, by stream.
    pub(super) dropped: BTreeMap<SmolStr, u64>,
}

/// Makes the claims of an event for a stream: its name, and JSON.
pub(super) type Claims = (SmolStr, Arc<str>);

/// See the module.
#[derive(Debug)]
pub(super) struct Streams {
    all: BTreeMap<SmolStr, Stream>,
    bounds: Bounds,
    verification_interval_ms: i64,
}

impl Streams {
    /// No streams.
    pub(super) fn new(bounds: Bounds, verification_interval_ms: i64) -> Self {
        Self { all: BTreeMap::new(), bounds, verification_interval_ms }
    }

    /// Takes back what the store had.
    pub(super) fn restore(&mut self, stream: Stream) {
        self.all.insert(stream.id.clone(), stream);
    }

    /// The stream of that receiver.
    pub(super) fn get(&self, receiver: &str, id: &str) -> Result<&Stream, Refused> {
        // Upholds INVARIANT (own streams): "forbidden" would tell that another's stream exists.
        self.all.get(id).filter(|stream| stream.receiver == receiver).ok_or(Refused::NotFound)
    }

    fn get_mut(&mut self, receiver: &str, id: &str) -> Result<&mut Stream, Refused> {
        self.all.get_mut(id).filter(|stream| stream.receiver == receiver).ok_or(Refused::NotFound)
    }

    /// Every stream of that receiver.
    pub(super) fn of<'s>(&'s self, receiver: &'s str) -> impl Iterator<Item = &'s Stream> {
        self.all.values().filter(move |stream| stream.receiver == receiver)
    }

    /// Every stream.
    pub(super) fn all(&self) -> impl Iterator<Item = &Stream> {
        self.all.values()
    }

    /// The stream, whoever's it is.
    pub(super) fn by_id(&self, id: &str) -> Option<&Stream> {
        self.all.get(id)
    }

    /// Opens a stream under a name that nobody had before.
    pub(super) fn create(
        &mut self,
        receiver: &str,
        id: SmolStr,
        wanted: Wanted,
    ) -> Result<Vec<Row>, Refused> {
        if self.of(receiver).count() >= limits::SSF_STREAMS_PER_RECEIVER_MAX {
            return Err(Refused::TooManyStreams);
        }
        self.all.insert(id.clone(), Stream::new(id.clone(), receiver.into(), wanted));
        Ok(vec![Row::PutStream(id)])
    }

    /// Sets what the receiver wants.
    pub(super) fn set(&mut self, receiver: &str, id: &str, wanted: Wanted) -> Result<Vec<Row>, Refused> {
        let stream = self.get_mut(receiver, id)?;
        stream.wanted = wanted;
        Ok(vec![Row::PutStream(stream.id.clone())])
    }

    /// Closes a stream and forgets all that belongs to it.
    pub(super) fn delete(&mut self, receiver: &str, id: &str) -> Result<Vec<Row>, Refused> {
        let stream = self.get_mut(receiver, id)?;
        let id = stream.id.clone();
        let mut rows: Vec<Row> = item_rows(&id, stream.outbox.clear()).collect();
        rows.extend(
            std::mem::take(&mut stream.left_out)
                .into_all()
                .into_iter()
                .map(|subject| Row::DeleteRemoved(id.clone(), subject)),
        );
        self.all.remove(&id);
        rows.push(Row::DeleteStream(id));
        Ok(rows)
    }

    /// Sets where a stream stands. What waits is let go when it is disabled.
    pub(super) fn set_status(
        &mut self,
        receiver: &str,
        id: &str,
        status: StreamStatus,
        reason: Option<String>,
    ) -> Result<Vec<Row>, Refused> {
        let stream = self.get_mut(receiver, id)?;
        stream.status = status;
        stream.reason = reason;
        let id = stream.id.clone();
        let mut rows = vec![Row::PutStream(id.clone())];
        if status == StreamStatus::Disabled {
            rows.extend(item_rows(&id, stream.outbox.clear()));
        }
        Ok(rows)
    }

    /// Leaves a subject out. Said again, it is stored again: the disk may not have taken it before.
    pub(super) fn leave_out(
        &mut self,
        receiver: &str,
        id: &str,
        subject: Subject,
    ) -> Result<Vec<Row>, Refused> {
        let stream = self.get_mut(receiver, id)?;
        if stream.left_out.len() >= limits::SSF_SUBJECTS_MAX && !stream.left_out.contains(&subject) {
            return Err(Refused::TooManySubjects);
        }
        stream.left_out.insert(subject.clone());
        Ok(vec![Row::PutRemoved(stream.id.clone(), subject)])
    }

    /// Takes a subject in again. All are in from the start, so this undoes a removal. Said again, it is stored again.
    pub(super) fn take_in(
        &mut self,
        receiver: &str,
        id: &str,
        subject: Subject,
    ) -> Result<Vec<Row>, Refused> {
        let stream = self.get_mut(receiver, id)?;
        stream.left_out.remove(&subject);
        Ok(vec![Row::DeleteRemoved(stream.id.clone(), subject)])
    }

    /// Puts a verification event into the line; it waits its turn like any other.
    pub(super) fn verify(
        &mut self,
        receiver: &str,
        id: &str,
        claims: Claims,
        now_ms: i64,
        notice: &mut dyn FnMut(&Stream, u64) -> Claims,
    ) -> Result<Done, Refused> {
        let interval = self.verification_interval_ms;
        let stream = self.get_mut(receiver, id)?;
        if stream.status == StreamStatus::Disabled {
            return Err(Refused::Disabled);
        }
        // A clock that was set back must not lock verification out.
        let since = stream.verified_ms.map_or(i64::MAX, |last| now_ms.saturating_sub(last));
        if (0..interval).contains(&since) {
            let retry_s = u64::try_from(interval - since).unwrap_or(0).div_ceil(1000);
            return Err(Refused::TooSoon { retry_s });
        }
        stream.verified_ms = Some(now_ms);
        let id = stream.id.clone();
        let mut done = self.append(&id, claims, now_ms, notice);
        done.rows.push(Row::PutStream(id));
        Ok(done)
    }

    /// Puts an event into the line of a stream, unless that is disabled or leaves the subject out.
    pub(super) fn publish(
        &mut self,
        id: &str,
        subject: &Subject,
        claims: impl FnOnce(&Stream) -> Claims,
        now_ms: i64,
        notice: &mut dyn FnMut(&Stream, u64) -> Claims,
    ) -> Done {
        let Some(stream) = self.all.get(id) else { return Done::default() };
        if stream.status == StreamStatus::Disabled || stream.left_out.covers(subject) {
            return Done::default();
        }
        let claims = claims(stream);
        self.append(id, claims, now_ms, notice)
    }

    /// Drops what is too old, in every stream.
    pub(super) fn expire(&mut self, now_ms: i64, notice: &mut dyn FnMut(&Stream, u64) -> Claims) -> Done {
        let mut done = Done::default();
        let ids: Vec<SmolStr> = self.all.keys().cloned().collect();
        for id in ids {
            let bounds = self.bounds;
            let dropped = self.with_notice(&id, notice, |outbox, make| outbox.expire(now_ms, bounds, make));
            done.add(&id, dropped);
        }
        done
    }

    /// The first events that wait; none while the stream is not enabled.
    pub(super) fn hand_out(&mut self, id: &str, most: usize) -> Vec<Item> {
        match self.all.get_mut(id) {
            Some(stream) if stream.status == StreamStatus::Enabled => stream.outbox.hand_out(most),
            _ => Vec::new(),
        }
    }

    /// Takes out what the receiver has. Returns what it was, and what to store.
    pub(super) fn acknowledge(&mut self, id: &str, jtis: &BTreeSet<&str>) -> (Vec<Item>, Vec<Row>) {
        let Some(stream) = self.all.get_mut(id) else { return Default::default() };
        let gone = stream.outbox.acknowledge(jtis);
        let rows = gone.iter().map(|item| Row::DeleteItem(stream.id.clone(), item.seq)).collect();
        (gone, rows)
    }

    /// Puts an event about the stream itself into its line, whatever it asked for.
    pub(super) fn tell(
        &mut self,
        id: &str,
        claims: Claims,
        now_ms: i64,
        notice: &mut dyn FnMut(&Stream, u64) -> Claims,
    ) -> Done {
        match self.all.get(id) {
            Some(stream) if stream.status != StreamStatus::Disabled => {
                self.append(id, claims, now_ms, notice)
            }
            _ => Done::default(),
        }
    }

    /// Remembers the token of an event that still waits.
    pub(super) fn keep_token(&mut self, id: &str, jti: &str, signed: &Signed) {
        if let Some(stream) = self.all.get_mut(id) {
            stream.outbox.keep_token(jti, signed);
        }
    }

    fn append(
        &mut self,
        id: &str,
        (jti, claims): Claims,
        now_ms: i64,
        notice: &mut dyn FnMut(&Stream, u64) -> Claims,
    ) -> Done {
        let bounds = self.bounds;
        let pushed =
            self.with_notice(id, notice, |outbox, make| outbox.push(jti, claims, now_ms, bounds, make));
        let mut done = Done::default();
        done.add(id, pushed);
        done
    }

    /// Lets `change` work on the outbox of a stream, with notices that are about this stream.
    fn with_notice(
        &mut self,
        id: &str,
        notice: &mut dyn FnMut(&Stream, u64) -> Claims,
        change: impl FnOnce(&mut Outbox, super::outbox::MakeNotice<'_>) -> super::outbox::Done,
    ) -> super::outbox::Done {
        let Some(stream) = self.all.get_mut(id) else { return super::outbox::Done::default() };
        let mut outbox = std::mem::take(&mut stream.outbox);
        let done = change(&mut outbox, &mut |lost| notice(stream, lost));
        stream.outbox = outbox;
        done
    }
}

impl Done {
    fn add(&mut self, id: &str, done: super::outbox::Done) {
        self.rows.extend(item_rows(id, done.changes));
        if done.dropped > 0 {
            *self.dropped.entry(id.into()).or_default() += done.dropped;
        }
    }

    /// Takes in what another change did.
    pub(super) fn join(&mut self, other: Self) {
        self.rows.extend(other.rows);
        for (id, dropped) in other.dropped {
            *self.dropped.entry(id).or_default() += dropped;
        }
    }
}

fn item_rows(id: &str, changes: impl IntoIterator<Item = Change>) -> impl Iterator<Item = Row> {
    changes.into_iter().map(move |change| match change {
        Change::Put(seq) => Row::PutItem(id.into(), seq),
        Change::Delete(seq) => Row::DeleteItem(id.into(), seq),
    })
}
