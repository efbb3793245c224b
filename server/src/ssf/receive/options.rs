//! How signals are received: checked values of the configuration, no secret among them.

use std::path::PathBuf;

use smol_str::SmolStr;

use super::super::address::Address;
use super::super::subject::{Simple, TEXT_BYTES_MAX};
use super::client::Login;

/// One transmitter that is listened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// How it is called here: in the path of pushes, in records and metrics.
    pub name: SmolStr,
    /// Its issuer, to the letter.
    pub issuer: Address,
    /// Names of ours; one must be in `aud`.
    pub audience: Vec<SmolStr>,
    /// Where its keys are; none: as its metadata says.
    pub jwks_uri: Option<Address>,
    /// Authorities that count beside those of the system, PEM.
    pub ca: Option<PathBuf>,
    /// Hours after which a token is too old to be told from a repeated one.
    pub max_age_h: u64,
    /// How its tokens come.
    pub delivery: Delivery,
    /// Who we are to it.
    pub login: Login,
    /// Who takes care of the stream with it.
    pub stream: Care,
    /// Members of a complex subject without which an event must not be processed, beside those that its metadata names.
    pub critical: Vec<SmolStr>,
    /// What its subjects are here; the first rule that fits counts.
    pub rules: Vec<Rule>,
    /// What its levels of risk weigh.
    pub risk: RiskScale,
    /// What follows from other claims in tokens.
    pub claims_change: ClaimsChange,
}

/// How tokens come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// They are sent to `/ssf/push/NAME` (RFC 8935).
    Push {
        /// File with the value that `Authorization` must have; none: the signature alone counts.
        authorization_file: Option<PathBuf>,
    },
    /// They are fetched (RFC 8936).
    Poll {
        /// Where; none: as the stream says that is kept.
        endpoint: Option<Address>,
    },
}

/// Who takes care of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Care {
    /// Somebody else.
    Others,
    /// This node makes or finds it, and looks after it.
    Keep(Stream),
    /// This node deletes it, and keeps none.
    Delete(Stream),
}

/// A stream that is kept with a transmitter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// URIs of the events that are asked for.
    pub events: Vec<String>,
    /// Where the transmitter is to push; with delivery by push only.
    pub endpoint_url: Option<Address>,
}

/// What a subject is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The member of a complex subject that it is about. Simple subjects take any rule of their format.
    pub member: SmolStr,
    /// The format that it reads.
    pub format: SmolStr,
    /// The issuer that the subject must name; for formats that name one.
    pub issuer: Option<SmolStr>,
    /// What it leads to.
    pub place: Place,
    /// How the id is made.
    pub id: Template,
}

/// What a subject leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An entity of this type.
    Entity(String),
    /// A session.
    Session,
    /// A device, as sessions name it.
    Device,
    /// A tenant, as sessions name it.
    Tenant,
}

/// What levels of risk weigh, 0 to 100 each; 0 clears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RiskScale {
    /// `LOW`.
    pub low: u8,
    /// `MEDIUM`.
    pub medium: u8,
    /// `HIGH`.
    pub high: u8,
    /// A credential in other hands.
    pub compromise: u8,
    /// How sure the transmitter is.
    pub confidence: u8,
    /// Time after which the weight has halved, in seconds.
    pub half_life_s: u32,
}

/// What follows from other claims in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimsChange {
    /// As from a changed credential: what was opened before is to authenticate again.
    Reauthenticate,
    /// It is recorded.
    Record,
}

/// A text with places for members of a subject: `{sub}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Member(String),
}

impl Default for RiskScale {
    fn default() -> Self {
        Self { low: 0, medium: 50, high: 90, compromise: 90, confidence: 100, half_life_s: 86_400 }
    }
}

impl Template {
    /// Reads a template for subjects of a format.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn parse(text: &str, format: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (member, behind) = after.split_once('}').ok_or("has a `{` without its `}`")?;
            if let Some(known) = members_of(format)
                && !known.contains(&member)
            {
                return Err(format!(
                    "names `{member}`, but a subject of format `{format}` has {}",
                    known.join(" and ")
                ));
            }
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Member(member.to_owned()));
            rest = behind;
        }
        if rest.contains('}') {
            return Err("has a `}` without its `{`".to_owned());
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        if !pieces.iter().any(|piece| matches!(piece, Piece::Member(_))) {
            return Err(
                "names no member of the subject, such as `{sub}`; it would be the same for everybody"
                    .to_owned(),
            );
        }
        Ok(Self(pieces))
    }

    /// Whether the id holds this member, so that subjects that differ in it stay apart.
    #[must_use]
    pub fn names(&self, member: &str) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Member(name) if name == member))
    }

    /// The id of a subject; none if it lacks a member.
    #[must_use]
    pub fn fill(&self, subject: &Simple) -> Option<String> {
        let mut id = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => id.push_str(text),
                Piece::Member(name) => id.push_str(subject.text(name)?),
            }
        }
        (id.len() <= TEXT_BYTES_MAX).then_some(id)
    }
}

/// The members of a format that hold texts; none for a format that is not known here.
#[must_use]
pub fn members_of(format: &str) -> Option<&'static [&'static str]> {
    Some(match format {
        "account" | "uri" => &["uri"],
        "email" => &["email"],
        "iss_sub" => &["iss", "sub"],
        "opaque" => &["id"],
        "phone_number" => &["phone_number"],
        "did" => &["url"],
        "jwt_id" => &["iss", "jti"],
        "saml_assertion_id" => &["issuer", "assertion_id"],
        _ => return None,
    })
}

/// The member of a format that names an issuer.
#[must_use]
pub fn issuer_member(format: &str) -> Option<&'static str> {
    match format {
        "iss_sub" | "jwt_id" => Some("iss"),
        "saml_assertion_id" => Some("issuer"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_of_texts_and_members() {
        let subject = Simple::IssSub { iss: "https://idp/".into(), sub: "u1".into() };
        for (template, id) in [("{sub}", "u1"), ("idp|{sub}", "idp|u1"), ("{iss}#{sub}!", "https://idp/#u1!")]
        {
            assert_eq!(Template::parse(template, "iss_sub").unwrap().fill(&subject).unwrap(), id);
        }
        let other = Template::parse("{badge}", "x-badge").unwrap();
        assert_eq!(other.fill(&subject), None);
    }

    #[test]
    fn templates_that_mean_nothing_are_refused() {
        for (template, format) in [
            ("", "opaque"),
            ("everybody", "opaque"),
            ("{id", "opaque"),
            ("id}", "opaque"),
            ("{sub}", "email"),
            ("{}", "email"),
        ] {
            assert!(Template::parse(template, format).is_err(), "{template}");
        }
    }
}
