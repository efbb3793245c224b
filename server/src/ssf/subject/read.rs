//! The forms of the texts and lists in subjects.

use std::net::IpAddr;

use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::{MEMBERS_MAX, Simple, SubjectFault, TEXT_BYTES_MAX};

/// What a text has to look like.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Any,
    Account,
    Email,
    Phone,
    Did,
    Uri,
}

impl Form {
    /// What is wrong with `text`, as the end of a sentence.
    fn fault(self, text: &str) -> Option<&'static str> {
        let (fits, why) = match self {
            Self::Any => (true, ""),
            Self::Account => {
                let rest = text.strip_prefix("acct:");
                (rest.is_some_and(is_address), "is no `acct:` URI of a user and a host")
            }
            Self::Email => (is_address(text), "is no address of mail"),
            Self::Phone => {
                let digits = text.strip_prefix('+').unwrap_or_default();
                let fits =
                    (1..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
                (fits, "is no number in the form of E.164, such as `+12065550100`")
            }
            Self::Did => (text.starts_with("did:") && is_uri(text), "is no `did:` URL"),
            Self::Uri => (is_uri(text), "is no URI"),
        };
        (!fits).then_some(why)
    }
}

fn is_address(text: &str) -> bool {
    let spaced = text.chars().any(char::is_whitespace);
    text.rsplit_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !spaced)
}

fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(is_scheme)
        && !rest.is_empty()
        && rest.bytes().all(|byte| byte.is_ascii_graphic())
}

pub(super) fn head(value: &Value) -> Result<(&str, &Map<String, Value>), SubjectFault> {
    let object = value.as_object().ok_or(SubjectFault::NotAnObject)?;
    match object.get("format") {
        Some(Value::String(format)) if !format.is_empty() && format.len() <= TEXT_BYTES_MAX => {
            Ok((format, object))
        }
        None if object.contains_key("subject_type") => Err(SubjectFault::OldForm),
        _ => Err(SubjectFault::NoFormat),
    }
}

pub(super) fn text(
    format: &str,
    object: &Map<String, Value>,
    member: &'static str,
    form: Form,
) -> Result<SmolStr, SubjectFault> {
    let fault = |why| SubjectFault::Member { format: shown(format), member: member.into(), why };
    let found = object.get(member).ok_or_else(|| SubjectFault::Missing { format: shown(format), member })?;
    let text = found.as_str().ok_or_else(|| fault("is no text"))?;
    if text.is_empty() {
        return Err(fault("is empty"));
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(fault("is longer than 1024 bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err(fault("holds control characters"));
    }
    form.fault(text).map_or_else(|| Ok(text.into()), |why| Err(fault(why)))
}

pub(super) fn list<'o>(
    format: &str,
    object: &'o Map<String, Value>,
    member: &'static str,
    most: usize,
) -> Result<&'o [Value], SubjectFault> {
    let found = object.get(member).ok_or_else(|| SubjectFault::Missing { format: shown(format), member })?;
    match found.as_array() {
        Some(list) if (1..=most).contains(&list.len()) => Ok(list),
        _ => Err(SubjectFault::Member {
            format: shown(format),
            member: member.into(),
            why: "is no list, empty, or too long",
        }),
    }
}

pub(super) fn aliases(list: &[Value]) -> Result<Vec<Simple>, SubjectFault> {
    let read = list.iter().map(|value| match head(value)?.0 {
        format @ ("aliases" | "complex") => {
            Err(SubjectFault::Nested { format: format.into(), within: "aliases" })
        }
        _ => Simple::parse(value),
    });
    read.collect()
}

pub(super) fn addresses(list: &[Value]) -> Result<Vec<IpAddr>, SubjectFault> {
    let fault = || SubjectFault::Member {
        format: "ip-addresses".into(),
        member: "ip-addresses".into(),
        why: "holds something that is no address",
    };
    list.iter().map(|value| value.as_str().and_then(|text| text.parse().ok()).ok_or_else(fault)).collect()
}

pub(super) fn other(format: &str, object: &Map<String, Value>) -> Result<Simple, SubjectFault> {
    let mut members = object.clone();
    members.remove("format");
    let is_short = |value: &Value| value.as_str().is_none_or(|text| text.len() <= TEXT_BYTES_MAX);
    if members.len() > MEMBERS_MAX || !members.values().all(is_short) {
        let why = "has too many members beside it, or one that is too long";
        return Err(SubjectFault::Member { format: shown(format), member: "format".into(), why });
    }
    Ok(Simple::Other { format: format.into(), members })
}

/// A name from outside, short and without control characters, so that it can stand in an error.
pub(super) fn shown(name: &str) -> SmolStr {
    name.chars().map(|c| if c.is_control() { ' ' } else { c }).take(64).collect()
}
