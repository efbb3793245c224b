//! Reads tables, texts and names out of a TOML document, reporting a fault with its place for each that is not there
//! or not of its kind. Owns which words are names, types, header names and trust domains; limit: 256 bytes a word.

use std::ops::Range;

use smol_str::SmolStr;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    error::{FaultKind, Faultbook},
    pattern::is_name,
};

/// Longest name, id or type in the file, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 256;
/// Words that Cedar keeps for itself.
const CEDAR_RESERVED: [&str; 10] =
    ["true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"];

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// A TOML table and its place.
pub(super) struct Table<'t, 'i> {
    pub(super) table: &'t DeTable<'i>,
    pub(super) span: Range<usize>,
}

impl<'t, 'i> Table<'t, 'i> {
    pub(super) fn root(table: &'t DeTable<'i>) -> Self {
        Self { table, span: 0..0 }
    }

    pub(super) fn of(value: &'t Value<'i>, book: &mut Faultbook) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            let found = value.get_ref().type_str();
            book.report(value.span(), FaultKind::WrongType { expected: "a table", found });
            return None;
        };
        Some(Self { table, span: value.span() })
    }

    pub(super) fn only(&self, known: &[&str], book: &mut Faultbook) {
        for (key, _) in self.table {
            if !known.contains(&key.get_ref().as_ref()) {
                let expected = known.join(", ");
                book.report(key.span(), FaultKind::UnknownKey { key: key.get_ref().to_string(), expected });
            }
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'t Value<'i>> {
        self.table.get(key)
    }

    pub(super) fn required(&self, key: &'static str, book: &mut Faultbook) -> Option<&'t Value<'i>> {
        let value = self.get(key);
        if value.is_none() {
            book.report(self.span.clone(), FaultKind::MissingKey(key));
        }
        value
    }

    pub(super) fn table(&self, key: &str, book: &mut Faultbook) -> Option<Self> {
        self.get(key).and_then(|value| Self::of(value, book))
    }

    pub(super) fn text(&self, key: &str, book: &mut Faultbook) -> Option<(&'t str, Range<usize>)> {
        self.get(key).and_then(|value| text_of(value, book))
    }

    pub(super) fn required_text(
        &self,
        key: &'static str,
        book: &mut Faultbook,
    ) -> Option<(&'t str, Range<usize>)> {
        self.required(key, book).and_then(|value| text_of(value, book))
    }

    pub(super) fn name(&self, key: &str, what: &'static str, book: &mut Faultbook) -> Option<SmolStr> {
        let (text, span) = self.text(key, book)?;
        if !is_plain_text(text) {
            book.report(span, FaultKind::Text(text.to_owned(), what));
            return None;
        }
        Some(SmolStr::new(text))
    }

    pub(super) fn required_name(
        &self,
        key: &'static str,
        what: &'static str,
        book: &mut Faultbook,
    ) -> Option<SmolStr> {
        self.required(key, book)?;
        self.name(key, what, book)
    }

    pub(super) fn type_name(
        &self,
        key: &'static str,
        types: &mut Vec<(SmolStr, Range<usize>)>,
        book: &mut Faultbook,
    ) -> Option<SmolStr> {
        let (text, span) = self.required_text(key, book)?;
        if !is_type_name(text) {
            book.report(span, FaultKind::TypeName(text.to_owned()));
            return None;
        }
        let name = SmolStr::new(text);
        types.push((name.clone(), span));
        Some(name)
    }

    /// `None` if absent or faulty.
    pub(super) fn texts(&self, key: &str, book: &mut Faultbook) -> Option<Vec<(&'t str, Range<usize>)>> {
        let value = self.get(key)?;
        let DeValue::Array(array) = value.get_ref() else {
            let found = value.get_ref().type_str();
            book.report(value.span(), FaultKind::WrongType { expected: "a list of strings", found });
            return None;
        };
        let texts: Vec<_> = array.iter().filter_map(|item| text_of(item, book)).collect();
        (texts.len() == array.len()).then_some(texts)
    }
}

pub(super) fn text_of<'t>(value: &'t Value<'_>, book: &mut Faultbook) -> Option<(&'t str, Range<usize>)> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        let found = value.get_ref().type_str();
        book.report(value.span(), FaultKind::WrongType { expected: "a string", found });
    }
    text.map(|text| (text, value.span()))
}

pub(super) fn keep<T>(
    result: Result<T, impl Into<FaultKind>>,
    span: &Range<usize>,
    book: &mut Faultbook,
) -> Option<T> {
    result.map_err(|error| book.report(span.clone(), error)).ok()
}

/// A short text without control characters and quotes.
pub(super) fn is_plain_text(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len())
        && !text.contains(|letter: char| letter.is_control() || letter == '"')
}

pub(super) fn is_type_name(text: &str) -> bool {
    text.len() <= TEXT_BYTES_MAX
        && text.split("::").all(|part| is_name(part) && !CEDAR_RESERVED.contains(&part))
}

pub(super) fn is_trust_domain(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    (1..=255).contains(&text.len()) && text.bytes().all(allowed)
}

/// RFC 9110 token.
pub(super) fn is_header_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=TEXT_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}
