//! Protobuf written straight into a buffer, for records that are written hundreds of thousands of times a second: no message is built first.
//!
//! What is written is, byte for byte, what the message would encode to: fields with their default are left out, and the caller writes
//! fields in the order of their numbers.

use prost::encoding::{WireType, encode_key, encode_varint};

/// The buffer of one message.
pub(crate) struct Wire<'o>(&'o mut Vec<u8>);

impl<'o> Wire<'o> {
    /// Writes at the end of this buffer.
    #[must_use]
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Self {
        Self(out)
    }

    /// A number, unless it is 0: unsigned ones, booleans as 0 or 1, enums, and signed ones as their bits.
    pub(crate) fn number(&mut self, tag: u32, value: u64) {
        if value != 0 {
            self.number_always(tag, value);
        }
    }

    /// A number of a `oneof`, where 0 is not the same as nothing.
    pub(crate) fn number_always(&mut self, tag: u32, value: u64) {
        encode_key(tag, WireType::Varint, self.0);
        encode_varint(value, self.0);
    }

    /// A text, unless it is empty.
    pub(crate) fn text(&mut self, tag: u32, text: &str) {
        if !text.is_empty() {
            self.text_always(tag, text);
        }
    }

    /// A text of a list or of a `oneof`.
    pub(crate) fn text_always(&mut self, tag: u32, text: &str) {
        encode_key(tag, WireType::LengthDelimited, self.0);
        encode_varint(text.len() as u64, self.0);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A message within; also when nothing stands in it.
    pub(crate) fn message(&mut self, tag: u32, write: impl FnOnce(&mut Wire<'_>)) {
        encode_key(tag, WireType::LengthDelimited, self.0);
        let at = self.0.len();
        // Most are shorter than 128 bytes, and their length takes one.
        self.0.push(0);
        write(&mut Wire(self.0));
        let length = self.0.len() - at - 1;
        let Ok(short) = u8::try_from(length) else { return self.long(at, length) };
        if short >= 0x80 {
            return self.long(at, length);
        }
        if let Some(prefix) = self.0.get_mut(at) {
            *prefix = short;
        }
    }

    /// A message that was built.
    pub(crate) fn built(&mut self, tag: u32, message: &impl prost::Message) {
        encode_key(tag, WireType::LengthDelimited, self.0);
        encode_varint(message.encoded_len() as u64, self.0);
        // Writing into memory cannot fail.
        let _infallible = message.encode(self.0);
    }

    /// Makes room for a length of more than one byte.
    fn long(&mut self, at: usize, length: usize) {
        let mut prefix = Vec::with_capacity(5);
        encode_varint(length as u64, &mut prefix);
        drop(self.0.splice(at..=at, prefix));
    }
}

#[cfg(test)]
mod tests {
    use cardea_proto::v1;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_what_the_message_encodes_to(
            fact in "[a-z.]{0,20}", why in ".{0,200}", long in any::<i64>(), texts in proptest::collection::vec(".{0,150}", 0..4),
        ) {
            let text = |text: &String| v1::Value { kind: Some(v1::value::Kind::String(text.clone())) };
            let evidence = v1::Evidence {
                fact: fact.clone(),
                value: Some(v1::Value { kind: Some(v1::value::Kind::Set(v1::ValueSet {
                    values: texts.iter().map(text).chain([v1::Value { kind: Some(v1::value::Kind::Long(long)) }]).collect(),
                })) }),
                why: why.clone(),
            };
            let mut out = Vec::new();
            let mut wire = Wire::new(&mut out);
            wire.text(1, &fact);
            wire.message(2, |value| value.message(5, |set| {
                for text in &texts {
                    set.message(1, |value| value.text_always(3, text));
                }
                set.message(1, |value| value.number_always(2, long.cast_unsigned()));
            }));
            wire.text(3, &why);
            prop_assert_eq!(&out, &evidence.encode_to_vec());
            let mut outer = Vec::new();
            Wire::new(&mut outer).built(1, &evidence);
            prop_assert_eq!(outer.get(outer.len() - out.len()..), Some(out.as_slice()));
        }
    }
}
