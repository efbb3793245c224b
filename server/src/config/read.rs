//! Reads values out of the file's syntax tree and collects what is wrong with each.
//!
//! A value that cannot be read yields its default, so that the reading goes on and finds the next fault; the
//! configuration is refused as a whole when there is any.
//! Limits: [`limits::CONFIG_BYTES_MAX`].
//! Never does: relating two values to each other; `check.rs` does.

use std::borrow::Cow;
use std::io::Read as _;
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Fault;
use crate::limits;

/// Every key of the file, by section, in the order of the reference file.
pub(super) const KEYS: &[(&str, &[&str])] = &[
    (
        "bundle",
        &[
            "source",
            "store",
            "trust",
            "allow_unsigned",
            "when_stale",
            "keep",
            "ca",
            "client_cert",
            "client_key",
            "token_file",
            "username",
            "password_file",
            "poll_s",
            "wait_s",
        ],
    ),
    ("listen", &["grpc", "uds", "http"]),
    ("tls", &["cert", "key", "client_ca"]),
    ("workers", &["count"]),
    (
        "audit",
        &[
            "dir",
            "when_full",
            "queue_max",
            "segment_mb",
            "replayable",
            "sync_ms",
            "durable",
            "keep_mb",
            "keep_days",
            "key_file",
            "origin",
            "sink",
        ],
    ),
    (
        "state",
        &[
            "dir",
            "sessions_max",
            "stored_sessions_max",
            "risk_subjects_max",
            "revocations_max",
            "tasks_max",
            "reviews_max",
            "counters_max",
        ],
    ),
    ("ext_authz", &["trust_xfcc"]),
    ("ssf", &["listen", "signals_token_file", "receiver", "transmitter"]),
    ("log", &["format", "filter"]),
];

/// How alike two names must be for a suggestion (Jaro-Winkler, 0 to 1); `sesions_max` has 0.98, `port` for
/// `grpc` 0.0.
const ALIKE_MIN: f64 = 0.82;

/// A value and where it stands; no place when it is a default or came from a flag.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Option<Range<usize>>,
}

/// Reads a configuration file, bounded.
pub(super) fn file(path: &Path) -> Result<String, Fault> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        Fault::new(
            format!("configuration file `{shown}` cannot be read: {error}"),
            "name a readable file with --config, or start without one to get the defaults",
        )
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(limits::CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limits::CONFIG_BYTES_MAX {
        return Err(Fault::new(
            format!("configuration file `{shown}` is larger than {} bytes", limits::CONFIG_BYTES_MAX),
            "check that --config names the configuration and not something else",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        Fault::new(
            format!("configuration file `{shown}` is not UTF-8 (byte {})", error.utf8_error().valid_up_to()),
            "save the file as UTF-8",
        )
    })
}

/// The whole file, with the faults found so far.
pub(super) struct Reader<'a> {
    root: DeTable<'a>,
    pub(super) faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    /// Parses `text`. Faults of the syntax are collected; what could be read is read.
    pub(super) fn new(text: &'a str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let faults = errors
            .iter()
            .map(|error| {
                Fault::new(
                    format!("this is not TOML: {}", error.message()),
                    "correct the syntax; docs/cardea.toml shows every key in its form",
                )
                .at(error.span(), "here")
            })
            .collect();
        let mut reader = Self { root: root.into_inner(), faults };
        reader.unknown_keys();
        reader
    }

    /// The whole file, and where its faults go: for tables below a section.
    pub(super) fn parts(&mut self) -> (&DeTable<'a>, &mut Vec<Fault>) {
        (&self.root, &mut self.faults)
    }

    /// Whether the file has this section.
    pub(super) fn has(&self, section: &str) -> bool {
        self.root.get(section).is_some()
    }

    /// Where the name of a section stands.
    pub(super) fn section_span(&self, section: &str) -> Option<Range<usize>> {
        self.root.get_key_value(section).map(|(key, _)| key.span())
    }

    pub(super) fn flag(&mut self, section: &str, key: &str, default: bool) -> bool {
        let found = self.find(section, key, |value| value.as_bool());
        self.take(section, key, found, "true or false").map_or(default, |found| found.value)
    }

    pub(super) fn text(&mut self, section: &str, key: &str) -> Option<Located<String>> {
        let found = self.find(section, key, |value| value.as_str().map(str::to_owned));
        self.take(section, key, found, "a text in quotes")
    }

    pub(super) fn texts(&mut self, section: &str, key: &str) -> Option<Vec<Located<String>>> {
        let found = self.find(section, key, |value| {
            let entries = value.as_array()?.iter();
            entries.map(|entry| Some(located(entry.get_ref().as_str()?.to_owned(), entry))).collect()
        });
        self.take(section, key, found, "a list of texts, such as [\"127.0.0.1:7411\"]")
            .map(|found| found.value)
    }

    /// A whole number within `range`.
    pub(super) fn number(
        &mut self,
        section: &str,
        key: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        let found = self.find(section, key, |value| {
            let integer = value.as_integer()?;
            i128::from_str_radix(integer.as_str(), integer.radix()).ok()
        });
        let Some(found) = self.take(section, key, found, "a whole number") else { return default };
        match u64::try_from(found.value) {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let (least, most) = range.into_inner();
                self.faults.push(
                    Fault::new(
                        format!("`{section}.{key}` is out of range"),
                        format!("give a number from {least} to {most}; the default is {default}"),
                    )
                    .at(found.span, format!("{} is not between {least} and {most}", found.value)),
                );
                default
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, section: &str, key: &str, default: T, words: &[(&str, T)]) -> T {
        let Some(found) = self.text(section, key) else { return default };
        match choose(&format!("`{section}.{key}`"), &found, words) {
            Ok(choice) => choice,
            Err(fault) => {
                self.faults.push(fault);
                default
            }
        }
    }

    fn find<T>(
        &self,
        section: &str,
        key: &str,
        read: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Result<Option<Located<T>>, (Range<usize>, &'static str)> {
        debug_assert!(is_known(section, key), "`{section}.{key}` is missing in KEYS");
        let table = self.root.get(section).and_then(|section| section.get_ref().as_table());
        let Some(value) = table.and_then(|table| table.get(key)) else { return Ok(None) };
        match read(value.get_ref()) {
            Some(read) => Ok(Some(located(read, value))),
            None => Err((value.span(), value.get_ref().type_str())),
        }
    }

    fn take<T>(
        &mut self,
        section: &str,
        key: &str,
        found: Result<Option<Located<T>>, (Range<usize>, &'static str)>,
        wanted: &str,
    ) -> Option<Located<T>> {
        found.unwrap_or_else(|(span, kind)| {
            self.faults.push(
                Fault::new(format!("`{section}.{key}` has the wrong type"), format!("give {wanted}"))
                    .at(Some(span), format!("this is {} {kind}", article(kind))),
            );
            None
        })
    }

    fn unknown_keys(&mut self) {
        for (name, value) in &self.root {
            let section: &str = name.get_ref();
            let Some((_, keys)) = KEYS.iter().find(|(known, _)| *known == section) else {
                self.faults.push(unknown_section(name));
                continue;
            };
            let Some(table) = value.get_ref().as_table() else {
                let fault = Fault::new(
                    format!("`{section}` is a section and not a value"),
                    format!("write its keys below a line `[{section}]`"),
                );
                self.faults.push(fault.at(Some(value.span()), "a table belongs here"));
                continue;
            };
            for (key, _) in table {
                if !keys.contains(&key.get_ref().as_ref()) {
                    self.faults.push(unknown_key(section, key, keys));
                }
            }
        }
    }
}

/// One of a few words, or a fault that names them.
pub(super) fn choose<T: Copy>(what: &str, found: &Located<String>, words: &[(&str, T)]) -> Result<T, Fault> {
    if let Some((_, choice)) = words.iter().find(|(word, _)| *word == found.value) {
        return Ok(*choice);
    }
    let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    let hint = nearest(&found.value, words.iter().map(|(word, _)| *word));
    let remedy = match hint {
        Some(word) => format!("did you mean \"{word}\"? It can be {}", all.join(" or ")),
        None => format!("give {}", all.join(" or ")),
    };
    Err(Fault::new(format!("{what} cannot be `{}`", found.value), remedy)
        .at(found.span.clone(), "not a known word"))
}

fn located<T>(value: T, at: &Spanned<DeValue<'_>>) -> Located<T> {
    Located { value, span: Some(at.span()) }
}

fn is_known(section: &str, key: &str) -> bool {
    KEYS.iter().any(|(known, keys)| *known == section && keys.contains(&key))
}

fn unknown_section(name: &Spanned<Cow<'_, str>>) -> Fault {
    let section: &str = name.get_ref();
    let homes: Vec<String> = KEYS
        .iter()
        .filter(|(_, keys)| keys.contains(&section))
        .map(|(home, _)| format!("[{home}]"))
        .collect();
    let remedy = if !homes.is_empty() {
        format!("`{section}` belongs below {}", homes.join(" or "))
    } else if let Some(alike) = nearest(section, KEYS.iter().map(|(known, _)| *known)) {
        format!("did you mean `[{alike}]`?")
    } else {
        let all: Vec<String> = KEYS.iter().map(|(known, _)| format!("[{known}]")).collect();
        format!("remove it; the sections are {}", all.join(", "))
    };
    Fault::new(format!("there is no section or key `{section}`"), remedy).at(Some(name.span()), "unknown")
}

fn unknown_key(section: &str, name: &Spanned<Cow<'_, str>>, keys: &[&str]) -> Fault {
    let key: &str = name.get_ref();
    let elsewhere = KEYS.iter().find(|(_, keys)| keys.contains(&key));
    let remedy = if let Some(alike) = nearest(key, keys.iter().copied()) {
        format!("did you mean `{alike}`?")
    } else if let Some((home, _)) = elsewhere {
        format!("`{key}` belongs below [{home}]")
    } else {
        format!("remove it; [{section}] has {}", keys.join(", "))
    };
    Fault::new(format!("there is no key `{section}.{key}`"), remedy).at(Some(name.span()), "unknown")
}

pub(super) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(alike, _)| *alike >= ALIKE_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}
