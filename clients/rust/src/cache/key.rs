//! The part of an attempt that an answer is reused for: two attempts have equal keys exactly if the answer to one is the
//! answer to the other.
//!
//! A key is bytes where it is stored, but an attempt that is looked up is never written down: [`base`] and [`context`] walk
//! its parts, and the [`Parts`] that they are told to write them or compare them with a stored key. Each part says where it
//! ends, so no key is the beginning of another, and the key of an answer that holds whatever the context is that of the
//! attempt without its last part.
//!
//! The hash only finds the place: it takes in what tells most attempts apart, and the comparison all the rest. Nobody can
//! make two attempts look alike; whoever makes their hashes equal makes their answers drive each other out.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::v1::value::Kind;
use crate::v1::{Attempt, EntityRef, Token, Value};

/// One key of an attempt, as an answer is stored under it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'k> {
    pub(super) hash: u64,
    pub(super) bytes: &'k [u8],
}

/// The two keys of an attempt.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    bytes: Arc<[u8]>,
    /// How much of it leaves out the context.
    base: usize,
    base_hash: u64,
    whole_hash: u64,
}

impl Keys {
    pub(super) fn new(attempt: &Attempt, hashing: &ahash::RandomState) -> Self {
        let (mut bytes, mut lookup) = (Vec::new(), Lookup::new(attempt, hashing));
        base(attempt, &mut bytes);
        let base = bytes.len();
        context(attempt.context.iter().map(|(name, of)| (name.as_str(), of)), &mut bytes);
        let base_hash = lookup.hash();
        lookup.count_context();
        Self { bytes: bytes.into(), base, base_hash, whole_hash: lookup.hash() }
    }

    /// The key of an answer that rests on the context, or does not.
    pub(super) fn of(&self, on_context: bool) -> Key<'_> {
        if on_context {
            Key { hash: self.whole_hash, bytes: &self.bytes }
        } else {
            Key { hash: self.base_hash, bytes: self.bytes.get(..self.base).unwrap_or(&self.bytes) }
        }
    }

    pub(super) fn both(&self) -> [Key<'_>; 2] {
        [self.of(false), self.of(true)]
    }
}

/// A key of an attempt that is looked up: first the one without the context, then the whole.
pub(super) struct Lookup<'a> {
    attempt: &'a Attempt,
    hasher: ahash::AHasher,
    /// The context, once it counts: the walk through a map costs more than to compare what it gives.
    fields: SmallVec<[(&'a str, &'a Value); 8]>,
    on_context: bool,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(attempt: &'a Attempt, hashing: &ahash::RandomState) -> Self {
        let mut hasher = hashing.build_hasher();
        for of in [&attempt.principal, &attempt.action, &attempt.resource].into_iter().flatten() {
            hasher.text(&of.id);
        }
        hasher.text(&attempt.session_id);
        hasher.text(&attempt.task_id);
        for hop in &attempt.delegation {
            hasher.text(&hop.id);
        }
        Self { attempt, hasher, fields: SmallVec::new(), on_context: false }
    }

    /// From now on it is the whole key.
    pub(super) fn count_context(&mut self) {
        for (name, of) in &self.attempt.context {
            value(of, &mut self.hasher);
            self.fields.push((name.as_str(), of));
        }
        self.on_context = true;
    }

    pub(super) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    /// Whether this is the key, compared whole.
    pub(super) fn is(&self, key: &[u8]) -> bool {
        let mut rest = Rest(Some(key));
        base(self.attempt, &mut rest);
        if self.on_context {
            context(self.fields.iter().copied(), &mut rest);
        }
        rest.0.is_some_and(<[u8]>::is_empty)
    }
}

/// What is done with each part of a key.
trait Parts {
    fn number(&mut self, number: u64);
    /// With its length.
    fn text(&mut self, text: &str);
}

/// Writes the key.
impl Parts for Vec<u8> {
    fn number(&mut self, number: u64) {
        self.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(length(text.len()));
        self.extend_from_slice(text.as_bytes());
    }
}

/// Hashes.
impl Parts for ahash::AHasher {
    #[inline]
    fn number(&mut self, number: u64) {
        self.write_u64(number);
    }

    #[inline]
    fn text(&mut self, text: &str) {
        // The hasher counts the length in.
        self.write(text.as_bytes());
    }
}

/// Compares the key: what is left of the stored one, or `None` once a part was another.
struct Rest<'k>(Option<&'k [u8]>);

impl Parts for Rest<'_> {
    #[inline]
    fn number(&mut self, number: u64) {
        self.0 = self
            .0
            .and_then(<[u8]>::split_first_chunk)
            .and_then(|(head, rest)| (u64::from_le_bytes(*head) == number).then_some(rest));
    }

    #[inline]
    fn text(&mut self, text: &str) {
        self.number(length(text.len()));
        self.0 = self
            .0
            .and_then(|rest| rest.split_at_checked(text.len()))
            .and_then(|(head, rest)| is_same(head, text.as_bytes()).then_some(rest));
    }
}

/// Equality of two that are equally long. Most parts are short, and for these a call costs more than the comparison: their
/// first and last bytes are compared at once, and may overlap.
#[inline]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    match one.len() {
        0 => true,
        4..=7 => ends(one, u32::from_le_bytes) == ends(other, u32::from_le_bytes),
        8..=15 => ends(one, u64::from_le_bytes) == ends(other, u64::from_le_bytes),
        16..=32 => ends(one, u128::from_le_bytes) == ends(other, u128::from_le_bytes),
        _ => one == other,
    }
}

/// The first and the last bytes as numbers.
#[inline]
fn ends<const N: usize, T>(of: &[u8], number: impl Fn([u8; N]) -> T) -> Option<(T, T)> {
    Some((number(*of.first_chunk()?), number(*of.last_chunk()?)))
}

/// What always counts. Session, task and token do, too: an answer that rests on none holds for attempts without.
#[inline]
fn base(attempt: &Attempt, parts: &mut impl Parts) {
    // Taken apart, so that a part that is new in an attempt is not forgotten here.
    let Attempt {
        id: _,
        principal,
        action,
        resource,
        context: _,
        session_id,
        delegation,
        token,
        at_least_version: _,
        task_id,
    } = attempt;
    for of in [principal, action, resource] {
        optional(of.as_ref(), parts, entity);
    }
    parts.text(session_id);
    parts.text(task_id);
    each(delegation, parts, entity);
    optional(token.as_ref(), parts, self::token);
}

#[inline]
fn context<'a>(fields: impl ExactSizeIterator<Item = (&'a str, &'a Value)>, parts: &mut impl Parts) {
    parts.number(length(fields.len()));
    for (name, of) in fields {
        parts.text(name);
        value(of, parts);
    }
}

#[inline]
fn entity<P: Parts>(of: &EntityRef, parts: &mut P) {
    let EntityRef { r#type, id } = of;
    parts.text(r#type);
    parts.text(id);
}

#[inline]
fn token<P: Parts>(of: &Token, parts: &mut P) {
    let Token { issuer, issued_at, expires_at, scopes, bound, authenticated_at, acr, amr } = of;
    parts.text(issuer);
    for at in [issued_at, expires_at, authenticated_at] {
        optional(at.as_ref(), parts, |at, parts| time(at.seconds, at.nanos, parts));
    }
    each(scopes, parts, |scope, parts| parts.text(scope));
    parts.number(u64::from(*bound));
    parts.text(acr);
    each(amr, parts, |method, parts| parts.text(method));
}

fn value<P: Parts>(of: &Value, parts: &mut P) {
    let mut kind = |number| parts.number(number);
    match &of.kind {
        None => kind(0),
        Some(Kind::Bool(of)) => {
            kind(1);
            parts.number(u64::from(*of));
        }
        Some(Kind::Long(of)) => {
            kind(2);
            parts.number(of.cast_unsigned());
        }
        Some(Kind::String(of)) => {
            kind(3);
            parts.text(of);
        }
        Some(Kind::Entity(of)) => {
            kind(4);
            entity(of, parts);
        }
        Some(Kind::Set(of)) => {
            kind(5);
            each(&of.values, parts, value);
        }
        Some(Kind::Record(of)) => {
            kind(6);
            parts.number(length(of.fields.len()));
            for (name, of) in &of.fields {
                parts.text(name);
                value(of, parts);
            }
        }
        Some(Kind::Decimal(of)) => {
            kind(7);
            parts.text(of);
        }
        Some(Kind::Ip(of)) => {
            kind(8);
            parts.text(of);
        }
        Some(Kind::Datetime(of)) => {
            kind(9);
            time(of.seconds, of.nanos, parts);
        }
        Some(Kind::Duration(of)) => {
            kind(10);
            time(of.seconds, of.nanos, parts);
        }
    }
}

#[inline]
fn time(seconds: i64, nanos: i32, parts: &mut impl Parts) {
    parts.number(seconds.cast_unsigned());
    parts.number(u64::from(nanos.cast_unsigned()));
}

#[inline]
fn optional<T, P: Parts>(of: Option<&T>, parts: &mut P, part: impl Fn(&T, &mut P)) {
    parts.number(u64::from(of.is_some()));
    if let Some(of) = of {
        part(of, parts);
    }
}

#[inline]
fn each<T, P: Parts>(of: &[T], parts: &mut P, part: impl Fn(&T, &mut P)) {
    parts.number(length(of.len()));
    of.iter().for_each(|of| part(of, parts));
}

#[inline]
fn length(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
