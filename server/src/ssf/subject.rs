//! Whom a security event speaks of: the identifier formats of RFC 9493 and those that SSF 1.0 adds.
//!
//! [`Subject::parse`] is strict about what it knows: each format has its members, each a text of the right form. Further
//! members of a known format are ignored, as SSF asks; formats and members of complex subjects that are not known are kept
//! as they are, so that whoever agreed on them with a transmitter can name them.
//! Limits: [`TEXT_BYTES_MAX`] for a text, [`ALIASES_MAX`] aliases, [`ADDRESSES_MAX`] addresses, [`MEMBERS_MAX`] members.
//! Never does: folding case or spaces of what a transmitter wrote; two subjects that differ in a letter are two subjects.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Map, Value, json};
use smol_str::SmolStr;

use self::read::{Form, addresses, aliases, head, list, other, shown, text};

/// Longest text in a subject, in bytes: more than an address of mail (254) or a SPIFFE ID in common use.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Most aliases of one subject.
pub const ALIASES_MAX: usize = 16;
/// Most addresses of one subject.
pub const ADDRESSES_MAX: usize = 64;
/// Most members of a complex subject, and of a format that is not known.
pub const MEMBERS_MAX: usize = 16;

/// The members that SSF names for complex subjects.
pub const MEMBERS: [&str; 7] = ["user", "device", "session", "application", "tenant", "org_unit", "group"];

/// Whom an event speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One identifier.
    Simple(Simple),
    /// Several that together describe one principal.
    Complex(Complex),
}

/// One identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Simple {
    /// An account at a provider, `acct:user@host`.
    Account {
        /// The URI.
        uri: SmolStr,
    },
    /// An address of mail.
    Email {
        /// The address.
        email: SmolStr,
    },
    /// A subject of an issuer.
    IssSub {
        /// Who issued it.
        iss: SmolStr,
        /// Its name there.
        sub: SmolStr,
    },
    /// Something that only the two sides understand.
    Opaque {
        /// The identifier.
        id: SmolStr,
    },
    /// A telephone number, E.164.
    PhoneNumber {
        /// `+` and digits.
        phone_number: SmolStr,
    },
    /// A decentralised identifier.
    Did {
        /// Its URL.
        url: SmolStr,
    },
    /// Any URI.
    Uri {
        /// The URI.
        uri: SmolStr,
    },
    /// Several names of the same subject; none of them is again a list of aliases.
    Aliases(Vec<Self>),
    /// A JSON web token.
    JwtId {
        /// Who issued it.
        iss: SmolStr,
        /// Its id there.
        jti: SmolStr,
    },
    /// A SAML assertion.
    SamlAssertionId {
        /// Who issued it.
        issuer: SmolStr,
        /// Its id there.
        assertion_id: SmolStr,
    },
    /// Addresses of one subject.
    IpAddresses(Vec<IpAddr>),
    /// A format that the two sides agreed on.
    Other {
        /// Its name.
        format: SmolStr,
        /// Everything else that it holds.
        members: Map<String, Value>,
    },
}

/// Identifiers that together describe one principal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complex {
    members: BTreeMap<SmolStr, Simple>,
    unread: BTreeSet<SmolStr>,
}

/// Why something is not a subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectFault {
    /// Not an object.
    #[error("a subject is an object with the member `format`")]
    NotAnObject,
    /// No format.
    #[error("the subject has no `format`")]
    NoFormat,
    /// The form that was in use before RFC 9493.
    #[error(
        "the subject has `subject_type`, a form that is no longer understood; send `format` as in RFC 9493"
    )]
    OldForm,
    /// A member that the format has is missing.
    #[error("a subject of format `{format}` needs `{member}`")]
    Missing {
        /// The format.
        format: SmolStr,
        /// The member.
        member: &'static str,
    },
    /// A member has not the form that it needs.
    #[error("`{member}` of a subject of format `{format}` {why}")]
    Member {
        /// The format.
        format: SmolStr,
        /// The member.
        member: SmolStr,
        /// What is wrong, as the end of a sentence.
        why: &'static str,
    },
    /// A format that cannot stand at this place.
    #[error("a subject of format `{format}` cannot stand within another of format `{within}`")]
    Nested {
        /// The inner format.
        format: SmolStr,
        /// The outer one.
        within: &'static str,
    },
}

impl Subject {
    /// Reads a subject.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(value: &Value) -> Result<Self, SubjectFault> {
        let (format, object) = head(value)?;
        if format == "complex" {
            return Complex::read(object).map(Self::Complex);
        }
        Simple::read(format, object).map(Self::Simple)
    }

    /// As JSON; [`Subject::parse`] reads it back, but for members of a complex subject that were not read.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Simple(simple) => simple.to_json(),
            Self::Complex(complex) => complex.to_json(),
        }
    }

    /// The name of its format.
    #[must_use]
    pub fn format(&self) -> &str {
        match self {
            Self::Simple(simple) => simple.format(),
            Self::Complex(_) => "complex",
        }
    }

    /// Whether the two mean the same by the rule of SSF: simple ones are identical; of complex ones each member is
    /// identical or missing on one side. A simple and a complex one never match.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Simple(one), Self::Simple(other)) => one == other,
            (Self::Complex(one), Self::Complex(other)) => one.matches(other),
            (Self::Simple(_), Self::Complex(_)) | (Self::Complex(_), Self::Simple(_)) => false,
        }
    }
}

impl Simple {
    /// Reads an identifier that is not complex.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(value: &Value) -> Result<Self, SubjectFault> {
        let (format, object) = head(value)?;
        Self::read(format, object)
    }

    /// The name of its format.
    #[must_use]
    pub fn format(&self) -> &str {
        match self {
            Self::Account { .. } => "account",
            Self::Email { .. } => "email",
            Self::IssSub { .. } => "iss_sub",
            Self::Opaque { .. } => "opaque",
            Self::PhoneNumber { .. } => "phone_number",
            Self::Did { .. } => "did",
            Self::Uri { .. } => "uri",
            Self::Aliases(_) => "aliases",
            Self::JwtId { .. } => "jwt_id",
            Self::SamlAssertionId { .. } => "saml_assertion_id",
            Self::IpAddresses(_) => "ip-addresses",
            Self::Other { format, .. } => format,
        }
    }

    /// The text of a member, by its name in JSON; none for lists.
    #[must_use]
    pub fn text(&self, member: &str) -> Option<&str> {
        match (self, member) {
            (Self::Account { uri } | Self::Uri { uri }, "uri") => Some(uri),
            (Self::Email { email }, "email") => Some(email),
            (Self::IssSub { iss, .. } | Self::JwtId { iss, .. }, "iss") => Some(iss),
            (Self::IssSub { sub, .. }, "sub") => Some(sub),
            (Self::JwtId { jti, .. }, "jti") => Some(jti),
            (Self::Opaque { id }, "id") => Some(id),
            (Self::PhoneNumber { phone_number }, "phone_number") => Some(phone_number),
            (Self::Did { url }, "url") => Some(url),
            (Self::SamlAssertionId { issuer, .. }, "issuer") => Some(issuer),
            (Self::SamlAssertionId { assertion_id, .. }, "assertion_id") => Some(assertion_id),
            (Self::Other { members, .. }, name) => members.get(name)?.as_str(),
            _ => None,
        }
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let format = self.format();
        match self {
            Self::Account { uri } | Self::Uri { uri } => json!({"format": format, "uri": uri}),
            Self::Email { email } => json!({"format": format, "email": email}),
            Self::IssSub { iss, sub } => json!({"format": format, "iss": iss, "sub": sub}),
            Self::Opaque { id } => json!({"format": format, "id": id}),
            Self::PhoneNumber { phone_number } => json!({"format": format, "phone_number": phone_number}),
            Self::Did { url } => json!({"format": format, "url": url}),
            Self::Aliases(all) => {
                let all: Vec<Value> = all.iter().map(Self::to_json).collect();
                json!({"format": format, "identifiers": all})
            }
            Self::JwtId { iss, jti } => json!({"format": format, "iss": iss, "jti": jti}),
            Self::SamlAssertionId { issuer, assertion_id } => {
                json!({"format": format, "issuer": issuer, "assertion_id": assertion_id})
            }
            Self::IpAddresses(all) => json!({"format": format, "ip-addresses": all}),
            Self::Other { format, members } => {
                let mut object = members.clone();
                object.insert("format".to_owned(), format.as_str().into());
                Value::Object(object)
            }
        }
    }

    fn read(format: &str, object: &Map<String, Value>) -> Result<Self, SubjectFault> {
        let text = |member: &'static str, form: Form| text(format, object, member, form);
        Ok(match format {
            "account" => Self::Account { uri: text("uri", Form::Account)? },
            "email" => Self::Email { email: text("email", Form::Email)? },
            "iss_sub" => Self::IssSub { iss: text("iss", Form::Any)?, sub: text("sub", Form::Any)? },
            "opaque" => Self::Opaque { id: text("id", Form::Any)? },
            "phone_number" => Self::PhoneNumber { phone_number: text("phone_number", Form::Phone)? },
            "did" => Self::Did { url: text("url", Form::Did)? },
            "uri" => Self::Uri { uri: text("uri", Form::Uri)? },
            "jwt_id" => Self::JwtId { iss: text("iss", Form::Any)?, jti: text("jti", Form::Any)? },
            "saml_assertion_id" => Self::SamlAssertionId {
                issuer: text("issuer", Form::Any)?,
                assertion_id: text("assertion_id", Form::Any)?,
            },
            "aliases" => Self::Aliases(aliases(list(format, object, "identifiers", ALIASES_MAX)?)?),
            "ip-addresses" => {
                Self::IpAddresses(addresses(list(format, object, "ip-addresses", ADDRESSES_MAX)?)?)
            }
            "complex" => return Err(SubjectFault::Nested { format: "complex".into(), within: "complex" }),
            _ => other(format, object)?,
        })
    }
}

impl Complex {
    /// Of members by their names; at least one.
    #[must_use]
    pub fn of<N: Into<SmolStr>>(members: impl IntoIterator<Item = (N, Simple)>) -> Self {
        let members = members.into_iter().map(|(name, member)| (name.into(), member)).collect();
        Self { members, unread: BTreeSet::new() }
    }

    /// The identifier of a member.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Simple> {
        self.members.get(name)
    }

    /// Every member that was read, in the order of their names.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Simple)> {
        self.members.iter().map(|(name, member)| (name.as_str(), member))
    }

    /// Further members that are no identifiers, by their names.
    pub fn unread(&self) -> impl Iterator<Item = &str> {
        self.unread.iter().map(SmolStr::as_str)
    }

    /// See [`Subject::matches`].
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        let differs = |(name, member): (&str, &Simple)| other.member(name).is_some_and(|its| its != member);
        !self.members().any(differs)
    }

    fn to_json(&self) -> Value {
        let mut object: Map<String, Value> =
            self.members().map(|(name, member)| (name.to_owned(), member.to_json())).collect();
        object.insert("format".to_owned(), "complex".into());
        Value::Object(object)
    }

    fn read(object: &Map<String, Value>) -> Result<Self, SubjectFault> {
        let fault =
            |member: &str, why| SubjectFault::Member { format: "complex".into(), member: shown(member), why };
        if object.len() > MEMBERS_MAX + 1 {
            return Err(fault("format", "has too many members beside it; send at most 16"));
        }
        let mut complex = Self::default();
        for (name, value) in object.iter().filter(|(name, _)| *name != "format") {
            if name.is_empty() || name.len() > TEXT_BYTES_MAX {
                return Err(fault(name, "is no name for a member"));
            }
            match Simple::parse(value) {
                Ok(member) => {
                    complex.members.insert(name.into(), member);
                }
                Err(wrong) if MEMBERS.contains(&name.as_str()) => return Err(wrong),
                Err(_) => {
                    complex.unread.insert(name.into());
                }
            }
        }
        if complex.members.is_empty() {
            return Err(SubjectFault::Missing { format: "complex".into(), member: "user" });
        }
        Ok(complex)
    }
}

#[cfg(test)]
mod tests;
