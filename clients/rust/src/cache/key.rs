//! The part of an attempt that an answer is reused for, as bytes: two attempts have equal keys exactly if the answer to one
//! is the answer to the other.
//!
//! Never hashes alone: a key is compared whole, so that nobody can make two attempts look alike. Each part says where it
//! ends, so no key is the beginning of another, and the key of an answer that holds whatever the context is that of the
//! attempt without its last part.

use prost::Message;

use crate::v1::{Attempt, EntityRef};

/// Writes the key over what the buffer held; gives the length of the part that leaves out the context. Session and token
/// always count: an answer that rests on none holds for attempts without.
pub(super) fn write(key: &mut Vec<u8>, attempt: &Attempt) -> usize {
    key.clear();
    entity(key, attempt.principal.as_ref());
    entity(key, attempt.action.as_ref());
    entity(key, attempt.resource.as_ref());
    text(key, &attempt.session_id);
    number(key, attempt.delegation.len());
    attempt.delegation.iter().for_each(|hop| entity(key, Some(hop)));
    match &attempt.token {
        None => key.push(0),
        Some(token) => {
            key.push(1);
            message(key, token);
        }
    }
    let without_context = key.len();
    key.push(1);
    for (name, value) in &attempt.context {
        text(key, name);
        message(key, value);
    }
    without_context
}

fn entity(key: &mut Vec<u8>, of: Option<&EntityRef>) {
    match of {
        None => key.push(0),
        Some(of) => {
            key.push(1);
            text(key, &of.r#type);
            text(key, &of.id);
        }
    }
}

fn text(key: &mut Vec<u8>, text: &str) {
    number(key, text.len());
    key.extend_from_slice(text.as_bytes());
}

fn message(key: &mut Vec<u8>, message: &impl Message) {
    number(key, message.encoded_len());
    // Writing into memory that grows does not fail.
    message.encode_raw(key);
}

fn number(key: &mut Vec<u8>, number: usize) {
    key.extend_from_slice(&u64::try_from(number).unwrap_or(u64::MAX).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attempt, entity, v1};

    /// With the context, and without.
    fn keys(attempt: &Attempt) -> (Vec<u8>, Vec<u8>) {
        let mut key = vec![7; 100];
        let without = write(&mut key, attempt);
        (key.clone(), key[..without].to_vec())
    }

    fn text(text: &str) -> v1::Value {
        v1::Value { kind: Some(v1::value::Kind::String(text.into())) }
    }

    #[test]
    fn every_part_that_can_turn_the_answer_makes_another_key() {
        let plain = || attempt(entity("Agent", "a"), "read", entity("Doc", "d"));
        let mut others = vec![
            plain(),
            attempt(entity("Agent", "b"), "read", entity("Doc", "d")),
            attempt(entity("Agentb", ""), "read", entity("Doc", "d")),
            attempt(entity("Agent", "a"), "write", entity("Doc", "d")),
            attempt(entity("Agent", "a"), "read", entity("Doc", "e")),
            Attempt { principal: None, ..plain() },
            Attempt { session_id: "s".into(), ..plain() },
            Attempt { delegation: vec![entity("User", "u")], ..plain() },
            Attempt { delegation: vec![entity("User", "u"), entity("User", "u")], ..plain() },
            Attempt { token: Some(v1::Token::default()), ..plain() },
            Attempt { token: Some(v1::Token { issuer: "i".into(), ..v1::Token::default() }), ..plain() },
        ];
        let with = |fields: &[(&str, &str)]| Attempt {
            context: fields.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect(),
            ..plain()
        };
        others.extend([
            with(&[("a", "b")]),
            with(&[("a", "c")]),
            with(&[("b", "b")]),
            with(&[("a", "b"), ("b", "b")]),
        ]);
        let mut found: Vec<Vec<u8>> = others.iter().map(|other| keys(other).0).collect();
        found.push(keys(&plain()).1);
        found.sort();
        found.dedup();
        assert_eq!(found.len(), others.len() + 1);
    }

    #[test]
    fn names_and_demands_of_an_attempt_make_no_other_key() {
        let plain = attempt(entity("Agent", "a"), "read", entity("Doc", "d"));
        let named = Attempt { id: "7".into(), at_least_version: 9, ..plain.clone() };
        assert_eq!(keys(&plain), keys(&named));
        let context = [("a".to_owned(), text("b"))].into_iter().collect();
        let sent = Attempt { context, ..plain.clone() };
        assert_eq!(keys(&plain).1, keys(&sent).1);
    }
}
