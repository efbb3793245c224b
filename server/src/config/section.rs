//! A table below a section, with the kinds of faults that the reader of flat sections has.
//!
//! Never does: knowing what its keys mean.

use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use smol_str::SmolStr;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Fault;
use super::read::{Located, choose, nearest};
use crate::ssf::address::Address;

/// One table below a section.
pub(super) struct Section<'s, 'i> {
    pub(super) faults: &'s mut Vec<Fault>,
    pub(super) path: String,
    span: Range<usize>,
    pub(super) table: &'s DeTable<'i>,
}

impl<'s, 'i> Section<'s, 'i> {
    pub(super) fn new(
        faults: &'s mut Vec<Fault>,
        path: String,
        span: Range<usize>,
        value: &'s Spanned<DeValue<'i>>,
    ) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            let fault =
                Fault::new(format!("`{path}` is a section and not a value"), "write its keys below it");
            faults.push(fault.at(Some(value.span()), "a table belongs here"));
            return None;
        };
        Some(Self { faults, path, span, table })
    }

    pub(super) fn known(&mut self, keys: &[&str]) {
        for (name, _) in self.table {
            let key: &str = name.get_ref();
            if !keys.contains(&key) {
                let remedy = match nearest(key, keys.iter().copied()) {
                    Some(alike) => format!("did you mean `{alike}`?"),
                    None => format!("remove it; there are {}", keys.join(", ")),
                };
                let fault = Fault::new(format!("there is no key `{}.{key}`", self.path), remedy);
                self.faults.push(fault.at(Some(name.span()), "unknown"));
            }
        }
    }

    /// A fault of a key, at its place or at that of the section.
    pub(super) fn fault(&mut self, key: &str, what: &str, remedy: &str) {
        let span = self.table.get(key).map_or_else(|| self.span.clone(), Spanned::span);
        let fault = Fault::new(format!("`{}.{key}` {what}", self.path), remedy);
        self.faults.push(fault.at(Some(span), "here"));
    }

    fn get<T>(
        &mut self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Option<Located<T>> {
        let value = self.table.get(key)?;
        let found = read(value.get_ref()).map(|found| Located { value: found, span: Some(value.span()) });
        if found.is_none() {
            self.fault(key, "has the wrong type", &format!("give {wanted}"));
        }
        found
    }

    pub(super) fn text(&mut self, key: &str) -> Option<Located<String>> {
        let read = |value: &DeValue<'_>| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        self.get(key, "a text in quotes that is not empty", read)
    }

    pub(super) fn required(&mut self, key: &str) -> Option<Located<String>> {
        if self.table.get(key).is_none() {
            self.fault(key, "is missing", "give it; docs/cardea.toml shows an example");
        }
        self.text(key)
    }

    pub(super) fn texts(&mut self, key: &str) -> Vec<SmolStr> {
        let read = |value: &DeValue<'_>| {
            value.as_array()?.iter().map(|entry| entry.get_ref().as_str().map(SmolStr::from)).collect()
        };
        self.get(key, "a list of texts", read)
            .map(|found: Located<Vec<SmolStr>>| found.value)
            .unwrap_or_default()
    }

    pub(super) fn number(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let read = |value: &DeValue<'_>| {
            let integer = value.as_integer()?;
            u64::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .filter(|number| range.contains(number))
        };
        let wanted = format!("a number from {} to {}; the default is {default}", range.start(), range.end());
        self.get(key, &wanted, read).map_or(default, |found| found.value)
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        let read = |value: &DeValue<'_>| value.as_bool();
        self.get(key, "true or false", read).map_or(default, |found| found.value)
    }

    pub(super) fn word<T: Copy>(&mut self, key: &str, default: T, words: &[(&str, T)]) -> T {
        let Some(found) = self.text(key) else { return default };
        choose(&format!("`{}.{key}`", self.path), &found, words).unwrap_or_else(|fault| {
            self.faults.push(fault);
            default
        })
    }

    pub(super) fn path(&mut self, base: &Path, key: &str) -> Option<PathBuf> {
        self.text(key).map(|text| base.join(text.value))
    }

    pub(super) fn address(&mut self, key: &str, text: &str) -> Option<Address> {
        Address::parse(text)
            .map_err(|fault| {
                self.fault(
                    key,
                    &format!("cannot be used: {fault}"),
                    "give an address such as \"https://idp.example/\"",
                )
            })
            .ok()
    }

    pub(super) fn optional_address(&mut self, key: &str) -> Option<Address> {
        let text = self.text(key)?;
        self.address(key, &text.value)
    }
}
