//! Subjects: made from Cedar entities by the configured template, read from receivers, and compared.
//!
//! A subject is kept in its canonical form, JSON with sorted keys, so that equal subjects have equal bytes.
//! Limits: [`limits::SSF_SUBJECT_BYTES_MAX`] bytes.
//! Never does: resolving one identifier into another.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::conclusion::About;
use crate::limits;
use crate::ssf::subject;

/// The template that is used unless another is configured.
pub const TEMPLATE_DEFAULT: &str = r#"{"format":"complex","user":{"format":"iss_sub","iss":"{issuer}","sub":"{principal}"},"session":{"format":"opaque","id":"{session}"}}"#;

/// What a template may ask for.
const PLACEHOLDERS: [&str; 5] = ["issuer", "principal", "type", "id", "session"];

/// A subject that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SubjectFault {
    #[error(transparent)]
    Form(#[from] subject::SubjectFault),
    #[error("`{0}` of a complex subject is no subject itself")]
    Member(String),
    #[error("a subject has at most {} bytes", limits::SSF_SUBJECT_BYTES_MAX)]
    TooLarge,
}

/// A subject that is in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    text: String,
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Simple,
    /// Members by name, each in canonical form.
    Complex(BTreeMap<String, String>),
}

impl Subject {
    /// Checks a subject. One with a member that is not understood is refused: left out without that member, it would leave
    /// out more than was asked for.
    pub(super) fn read(value: &Value) -> Result<Self, SubjectFault> {
        let read = subject::Subject::parse(value)?;
        let text = canonical(read.to_json());
        if text.len() > limits::SSF_SUBJECT_BYTES_MAX {
            return Err(SubjectFault::TooLarge);
        }
        let subject::Subject::Complex(complex) = read else { return Ok(Self { text, form: Form::Simple }) };
        if let Some(name) = complex.unread().next() {
            return Err(SubjectFault::Member(name.to_owned()));
        }
        let members = complex.members().map(|(name, member)| (name.to_owned(), canonical(member.to_json())));
        Ok(Self { text, form: Form::Complex(members.collect()) })
    }

    /// The canonical form.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the two mean the same principal. Members that only one of two complex subjects has do not count, but at least
    /// one must be in both: otherwise leaving out one device would leave out everybody. A simple subject stands for every
    /// complex one that has it as a member.
    pub(super) fn matches(&self, other: &Self) -> bool {
        match (&self.form, &other.form) {
            (Form::Simple, Form::Simple) => self.text == other.text,
            (Form::Simple, Form::Complex(members)) => members.values().any(|member| *member == self.text),
            (Form::Complex(members), Form::Simple) => members.values().any(|member| *member == other.text),
            (Form::Complex(one), Form::Complex(two)) => {
                let mut shared = one.iter().filter_map(|(name, member)| Some((member, two.get(name)?)));
                let Some((first, its)) = shared.next() else { return false };
                first == its && shared.all(|(member, its)| member == its)
            }
        }
    }
}

/// Subjects that a stream leaves out, found by what they have in common with the subject of an event.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftOut {
    all: BTreeSet<Subject>,
    /// Complex ones, by each of their members.
    by_member: BTreeMap<String, BTreeSet<Subject>>,
}

impl LeftOut {
    /// Leaves a subject out. Returns false if it was left out already.
    pub(super) fn insert(&mut self, subject: Subject) -> bool {
        if let Form::Complex(members) = &subject.form {
            for member in members.values() {
                self.by_member.entry(member.clone()).or_default().insert(subject.clone());
            }
        }
        self.all.insert(subject)
    }

    /// Takes a subject in again. Returns false if it was not left out.
    pub(super) fn remove(&mut self, subject: &Subject) -> bool {
        if let Form::Complex(members) = &subject.form {
            for member in members.values() {
                if let Some(having) = self.by_member.get_mut(member) {
                    having.remove(subject);
                    if having.is_empty() {
                        self.by_member.remove(member);
                    }
                }
            }
        }
        self.all.remove(subject)
    }

    /// Whether events about this subject are left out.
    pub(super) fn covers(&self, subject: &Subject) -> bool {
        if self.all.is_empty() {
            return false;
        }
        let having = |member: &String| {
            self.by_member.get(member).is_some_and(|having| having.iter().any(|out| out.matches(subject)))
        };
        match &subject.form {
            Form::Simple => self.all.contains(subject) || having(&subject.text),
            Form::Complex(members) => members.values().any(|member| {
                let simple = Subject { text: member.clone(), form: Form::Simple };
                self.all.contains(&simple) || having(member)
            }),
        }
    }

    /// Whether exactly this subject is left out.
    pub(super) fn contains(&self, subject: &Subject) -> bool {
        self.all.contains(subject)
    }

    /// How many are left out.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// All of them.
    pub(super) fn into_all(self) -> BTreeSet<Subject> {
        self.all
    }
}

/// JSON with the keys sorted and no spaces.
fn canonical(mut value: Value) -> String {
    value.sort_all_objects();
    value.to_string()
}

/// How subjects are made from what this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Value);

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
        let mut unknown = None;
        each_text(&value, &mut |text| {
            for name in placeholders(text) {
                if !PLACEHOLDERS.contains(&name) {
                    unknown = Some(name.to_owned());
                }
            }
        });
        if let Some(name) = unknown {
            return Err(format!("asks for `{{{name}}}`; there are {{{}}}", PLACEHOLDERS.join("}, {")));
        }
        let filled = fill(&value, &|name| PLACEHOLDERS.contains(&name).then(|| "x".to_owned()));
        let filled = filled.ok_or_else(|| "is empty".to_owned())?;
        Subject::read(&filled).map_err(|fault| fault.to_string())?;
        Ok(Self(value))
    }

    /// The subject of a conclusion. A member that asks for what is not known is left out; none when nothing is left.
    pub(super) fn subject(&self, about: &About, issuer: &str) -> Option<Subject> {
        let value = |name: &str| match name {
            "issuer" => Some(issuer.to_owned()),
            "principal" => about.principal.as_ref().map(ToString::to_string),
            "type" => about.principal.as_ref().map(cardea_policy_store::engine::Uid::type_text),
            "id" => about.principal.as_ref().map(|principal| principal.id().to_owned()),
            "session" => about.session.as_ref().map(ToString::to_string),
            _ => None,
        };
        Subject::read(&fill(&self.0, &value)?).ok()
    }
}

/// Fills every text of `value`; an object with a text that cannot be filled is left out as a whole.
fn fill(value: &Value, get: &dyn Fn(&str) -> Option<String>) -> Option<Value> {
    match value {
        Value::String(text) => fill_text(text, get).map(Value::String),
        Value::Object(object) => {
            let is_complex = object.get("format").and_then(Value::as_str) == Some("complex");
            let mut filled = serde_json::Map::new();
            for (name, member) in object {
                match fill(member, get) {
                    Some(member) => drop(filled.insert(name.clone(), member)),
                    None if is_complex => {}
                    None => return None,
                }
            }
            Some(Value::Object(filled))
        }
        Value::Array(all) => {
            all.iter().map(|one| fill(one, get)).collect::<Option<Vec<_>>>().map(Value::Array)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(value.clone()),
    }
}

fn fill_text(text: &str, get: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once('{') {
        let (name, after) = inside.split_once('}')?;
        filled.push_str(before);
        filled.push_str(&get(name)?);
        rest = after;
    }
    filled.push_str(rest);
    Some(filled)
}

fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).map(|inside| inside.split_once('}').map_or(inside, |(name, _)| name))
}

fn each_text(value: &Value, visit: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(all) => all.iter().for_each(|one| each_text(one, visit)),
        Value::Object(object) => object.values().for_each(|one| each_text(one, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn subject(value: &Value) -> Subject {
        Subject::read(value).unwrap()
    }

    fn about(principal: Option<&str>, session: Option<&str>) -> About {
        let uid = |id: &str| format!("App::User::{id:?}").parse::<cedar_policy::EntityUid>().unwrap();
        About {
            principal: principal.map(|id| cardea_policy_store::engine::Uid::from(&uid(id))),
            session: session.map(Into::into),
        }
    }

    #[test]
    fn the_default_template_names_user_and_session_as_far_as_they_are_known() {
        let template = Template::parse(TEMPLATE_DEFAULT).unwrap();
        let made = |principal, session| {
            template.subject(&about(principal, session), "https://i/").map(|subject| subject.text)
        };
        assert_eq!(
            made(Some("ann"), Some("s1")).unwrap(),
            r#"{"format":"complex","session":{"format":"opaque","id":"s1"},"user":{"format":"iss_sub","iss":"https://i/","sub":"App::User::\"ann\""}}"#
        );
        assert!(!made(Some("ann"), None).unwrap().contains("session"));
        assert!(!made(None, Some("s1")).unwrap().contains("user"));
        assert_eq!(made(None, None), None, "nobody is no subject");
    }

    #[test]
    fn values_are_not_read_as_placeholders() {
        let template = Template::parse(r#"{"format":"opaque","id":"{id}"}"#).unwrap();
        let made = template.subject(&about(Some("{session}\"},"), Some("s1")), "https://i/").unwrap();
        assert_eq!(made.text, json!({ "format": "opaque", "id": "{session}\"}," }).to_string());
    }

    #[test]
    fn templates_that_cannot_work_are_refused_with_a_reason() {
        for (text, why) in [
            ("{", "is not JSON"),
            (r#"{"format":"opaque","id":"{nobody}"}"#, "asks for `{nobody}`"),
            (r#"{"format":"opaque"}"#, "needs `id`"),
            (r#"{"format":"opaque","id":"{id"}"#, "is empty"),
            (r#"{"format":"complex"}"#, "needs `user`"),
            ("[]", "an object"),
        ] {
            let fault = Template::parse(text).unwrap_err();
            assert!(fault.contains(why), "{text}: {fault}");
        }
    }

    #[test]
    fn complex_subjects_match_when_all_shared_members_are_equal_and_there_is_one() {
        let user = json!({ "format": "email", "email": "a@b" });
        let other = json!({ "format": "email", "email": "c@d" });
        let device = json!({ "format": "opaque", "id": "d" });
        let both = subject(&json!({ "format": "complex", "user": user, "device": device }));
        let just_user = subject(&json!({ "format": "complex", "user": user }));
        let just_device = subject(&json!({ "format": "complex", "device": device }));
        let other_user = subject(&json!({ "format": "complex", "user": other, "device": device }));
        let simple = subject(&user);
        let cases = [
            (&both, &just_user, true),
            (&both, &just_device, true),
            (&just_user, &just_device, false),
            (&both, &other_user, false),
            (&simple, &both, true),
            (&simple, &other_user, false),
            (&simple, &simple, true),
        ];
        for (one, two, expected) in cases {
            assert_eq!((one.matches(two), two.matches(one)), (expected, expected), "{one:?} {two:?}");
        }
    }

    /// Subjects that often have something in common.
    fn some_subject() -> impl Strategy<Value = Subject> {
        let simple = (0..3_u8).prop_map(|n| json!({ "format": "opaque", "id": format!("{n}") }));
        let member = prop::option::weighted(
            0.6,
            (0..3_u8).prop_map(|n| json!({ "format": "opaque", "id": format!("{n}") })),
        );
        let complex = (member.clone(), member.clone(), member).prop_filter_map(
            "no member",
            |(user, session, device)| {
                let named = [("user", user), ("session", session), ("device", device)];
                let members = named.into_iter().filter_map(|(name, member)| Some((name.to_owned(), member?)));
                let object: serde_json::Map<String, Value> =
                    members.chain([("format".to_owned(), json!("complex"))]).collect();
                (object.len() > 1).then_some(Value::Object(object))
            },
        );
        prop_oneof![simple, complex].prop_map(|value| Subject::read(&value).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_left_out_is_found_like_by_asking_each(
            changes in prop::collection::vec((any::<bool>(), some_subject()), 0..24),
            asked in prop::collection::vec(some_subject(), 8),
        ) {
            let (mut left_out, mut model) = (LeftOut::default(), BTreeSet::new());
            for (out, subject) in changes {
                if out {
                    prop_assert_eq!(left_out.insert(subject.clone()), model.insert(subject));
                } else {
                    prop_assert_eq!(left_out.remove(&subject), model.remove(&subject));
                }
            }
            prop_assert_eq!(left_out.len(), model.len());
            for subject in asked {
                prop_assert_eq!(left_out.covers(&subject), model.iter().any(|out| out.matches(&subject)));
            }
        }
    }

    #[test]
    fn subjects_out_of_form_are_refused() {
        let long = "x".repeat(limits::SSF_SUBJECT_BYTES_MAX);
        let many: serde_json::Map<String, Value> = (0..8)
            .map(|n| (format!("m{n}"), json!({ "format": "opaque", "id": "i".repeat(600) })))
            .chain([("format".to_owned(), json!("complex"))])
            .collect();
        for value in [
            json!(null),
            json!("ann"),
            json!({}),
            json!({ "format": 7 }),
            json!({ "format": "" }),
            json!({ "format": "email" }),
            json!({ "format": "email", "email": "" }),
            json!({ "format": "iss_sub", "iss": "i" }),
            json!({ "format": "opaque", "id": long }),
            json!({ "format": "complex", "user": "ann" }),
            json!({ "format": "complex", "user": { "format": "complex", "user": { "format": "opaque", "id": "i" } } }),
            json!({ "format": "aliases", "identifiers": [] }),
            json!({ "format": "aliases", "identifiers": [{ "format": "aliases", "identifiers": [] }] }),
            Value::Object(many),
        ] {
            assert!(Subject::read(&value).is_err(), "{value}");
        }
        assert!(Subject::read(&json!({ "format": "ours", "badge": 7 })).is_ok());
    }
}
