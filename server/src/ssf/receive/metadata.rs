//! What a transmitter tells about itself under `/.well-known/ssf-configuration`.
//!
//! Believed only when its `issuer` is the one that was asked, to the letter; every address in it is https, or http where
//! both are on loopback. Limits: [`limits::REMOTE_ANSWER_BYTES_MAX`], [`CRITICAL_MAX`] names.

use serde_json::Value;
use smol_str::SmolStr;

use super::super::address::Address;
use super::client::{Client, ClientFault};
use crate::limits;

/// Most names of critical members.
pub(crate) const CRITICAL_MAX: usize = 16;

const WHAT: &str = "the question what it is";

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Where its keys are.
    pub(crate) jwks: Option<Address>,
    /// Where streams are made and read.
    pub(crate) configuration: Option<Address>,
    /// Where the status of a stream is.
    pub(crate) status: Option<Address>,
    /// Where a verification is asked for.
    pub(crate) verification: Option<Address>,
    /// Members of subjects without which an event must not be processed.
    pub(crate) critical: Vec<SmolStr>,
}

impl Metadata {
    /// Fetches and checks it.
    pub(crate) async fn fetch(client: &Client, issuer: &Address) -> Result<Self, ClientFault> {
        let body = client.published(&issuer.metadata(), WHAT, limits::REMOTE_ANSWER_BYTES_MAX).await?;
        let said = client.json(&body, WHAT)?;
        Self::read(&said, issuer).map_err(|why| client.content(WHAT, &why))
    }

    fn read(said: &Value, issuer: &Address) -> Result<Self, String> {
        match said.get("issuer").and_then(Value::as_str) {
            Some(found) if found == issuer.text() => {}
            Some(found) => return Err(format!("its issuer is `{found}`, and not `{issuer}` that was asked")),
            None => return Err("it has no `issuer`".to_owned()),
        }
        let address = |name: &str| match said.get(name) {
            None => Ok(None),
            Some(value) => {
                let text = value.as_str().ok_or_else(|| format!("`{name}` is no text"))?;
                issuer.told(text).map(Some).map_err(|fault| format!("`{name}`: {fault}"))
            }
        };
        let critical = match said.get("critical_subject_members") {
            None => Some(Vec::new()),
            Some(Value::Array(names)) if names.len() <= CRITICAL_MAX => {
                names.iter().map(|name| name.as_str().map(SmolStr::from)).collect()
            }
            Some(_) => None,
        };
        Ok(Self {
            jwks: address("jwks_uri")?,
            configuration: address("configuration_endpoint")?,
            status: address("status_endpoint")?,
            verification: address("verification_endpoint")?,
            critical: critical.ok_or("`critical_subject_members` is no list of at most 16 names")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_believed_only_of_whom_was_asked() {
        let said = json!({
            "issuer": "https://t.example/one",
            "jwks_uri": "https://keys.example/jwks",
            "configuration_endpoint": "https://t.example/ssf/streams",
            "critical_subject_members": ["tenant"],
            "anything": [],
        });
        let read = |issuer: &str| Metadata::read(&said, &Address::parse(issuer).unwrap());
        let first = read("https://t.example/one").unwrap();
        assert_eq!(first.jwks.unwrap().text(), "https://keys.example/jwks");
        assert_eq!((first.critical, first.status), (vec!["tenant".into()], None));
        for issuer in ["https://t.example/one/", "https://t.example", "https://T.example/one"] {
            assert!(read(issuer).is_err(), "{issuer}");
        }
    }

    #[test]
    fn nobody_elsewhere_makes_this_node_ask_its_own_machine() {
        let read = |issuer: &str| {
            let said = json!({"issuer": issuer, "configuration_endpoint": "http://127.0.0.1:9464/x"});
            Metadata::read(&said, &Address::parse(issuer).unwrap())
        };
        assert!(read("http://localhost:7413/").is_ok(), "it is on this machine itself");
        let why = read("https://t.example").unwrap_err();
        assert!(why.contains("configuration_endpoint") && why.contains("loopback"), "{why}");
    }

    #[test]
    fn addresses_in_plain_text_and_other_forms_are_refused() {
        for (name, value) in [
            ("jwks_uri", json!("http://keys.example/jwks")),
            ("jwks_uri", json!("file:///etc/passwd")),
            ("status_endpoint", json!(7)),
            ("critical_subject_members", json!("tenant")),
            ("critical_subject_members", json!([7])),
            ("critical_subject_members", json!(vec!["x"; CRITICAL_MAX + 1])),
            ("issuer", json!(null)),
        ] {
            let mut said = json!({"issuer": "https://t.example"});
            said[name] = value.clone();
            let issuer = Address::parse("https://t.example").unwrap();
            assert!(Metadata::read(&said, &issuer).is_err(), "{name}: {value}");
        }
    }
}
