//! Asks a transmitter: one bounded HTTP client for each, with the token that it wants.
//!
//! A token is read from a file for each use, or fetched by client credentials (RFC 6749 section 4.4) and used until shortly
//! before its end. Redirects stay on the server. Answers are bounded by their readers.
//! Limits: those of `remote/transport.rs`, [`limits::SSF_ANSWER_TIMEOUT`] for a whole answer, [`limits::SSF_TOKEN_LIFE_MAX`].
//! Never does: showing a secret, or believing what came.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LANGUAGE, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use reqwest::Url;
use serde_json::Value;

use super::super::address::Address;
use super::super::json;
use crate::clock::Clock;
use crate::limits;
use crate::remote::{Options, Redirects, RemoteError, Transport, secret, tidy};

/// Who we are to a transmitter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Login {
    /// Nobody in particular.
    #[default]
    Nobody,
    /// The bearer of the token in a file.
    Token(PathBuf),
    /// A client that fetches short-lived tokens.
    Client {
        /// Where tokens are fetched.
        endpoint: Address,
        /// Its name.
        id: String,
        /// File with its secret.
        secret_file: PathBuf,
        /// What it asks for.
        scope: Option<String>,
    },
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// What came instead of the answer that was hoped for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientFault {
    /// No whole answer.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// Another status.
    #[error("`{server}` answers {status} to {what}{said}")]
    Status {
        /// Host and port.
        server: String,
        /// What was asked.
        what: &'static str,
        /// The status.
        status: u16,
        /// `: ` and its words, or nothing.
        said: String,
    },
    /// Something else than was asked for.
    #[error("what `{server}` answers to {what} cannot be used: {why}")]
    Content {
        /// Host and port.
        server: String,
        /// What was asked.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Client {
    transport: Transport,
    server: String,
    login: Login,
    clock: Clock,
    token: Mutex<Option<Fetched>>,
}

/// A token of client credentials.
#[derive(Clone, Debug)]
struct Fetched {
    header: HeaderValue,
    until_ns: u64,
}

impl Client {
    /// A client for the transmitter with this address; `ca` counts beside the authorities of the system.
    pub(crate) fn new(
        issuer: &Address,
        ca: Option<PathBuf>,
        login: Login,
        clock: Clock,
    ) -> Result<Self, RemoteError> {
        let options = Options { ca, timeout: limits::SSF_ANSWER_TIMEOUT, ..Options::default() };
        let transport = Transport::new(issuer.server(), &options, Redirects::SameServer)?;
        Ok(Self { transport, server: issuer.server(), login, clock, token: Mutex::default() })
    }

    /// What is published for everybody.
    pub(crate) async fn published(
        &self,
        url: &Url,
        what: &'static str,
        bytes_max: u64,
    ) -> Result<Bytes, ClientFault> {
        let request = self.transport.client().get(url.clone()).header(ACCEPT, "application/json");
        let response = self.transport.send(request, Duration::ZERO).await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(self.status(status, what, None));
        }
        Ok(self.transport.body(response, what, bytes_max).await?)
    }

    /// Asks as who we are. `wait` is how much later than usual the answer may begin.
    pub(crate) async fn ask(
        &self,
        method: Method,
        url: &Url,
        body: Option<&Value>,
        wait: Duration,
        bytes_max: u64,
    ) -> Result<Answer, ClientFault> {
        let answer = self.ask_once(&method, url, body, wait, bytes_max).await?;
        let fetched = answer.status == StatusCode::UNAUTHORIZED && self.token.lock().take().is_some();
        if fetched {
            // The token may have been withdrawn before its end.
            return self.ask_once(&method, url, body, wait, bytes_max).await;
        }
        Ok(answer)
    }

    async fn ask_once(
        &self,
        method: &Method,
        url: &Url,
        body: Option<&Value>,
        wait: Duration,
        bytes_max: u64,
    ) -> Result<Answer, ClientFault> {
        let mut request = self.transport.client().request(method.clone(), url.clone());
        request = request.header(ACCEPT, "application/json");
        if let Some(header) = self.authorization().await? {
            request = request.header(AUTHORIZATION, header);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").header(CONTENT_LANGUAGE, "en");
            request = request.body(body.to_string());
        }
        let response = self.transport.send(request, wait).await?;
        let status = response.status();
        let is_empty = status == StatusCode::NO_CONTENT;
        let body = match is_empty {
            true => Bytes::new(),
            false => self.transport.body(response, "an answer of the transmitter", bytes_max).await?,
        };
        Ok(Answer { status, body })
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>, ClientFault> {
        let (endpoint, id, secret_file, scope) = match &self.login {
            Login::Nobody => return Ok(None),
            Login::Token(file) => return bearer(secret(file)?.reveal()).map(Some),
            Login::Client { endpoint, id, secret_file, scope } => (endpoint, id, secret_file, scope),
        };
        let now_ns = self.clock.mono_ns();
        let held = self.token.lock().clone().filter(|token| now_ns < token.until_ns);
        if let Some(token) = held {
            return Ok(Some(token.header));
        }
        let basic = format!("{}:{}", form_value(id), form_value(secret(secret_file)?.reveal()));
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(scope.as_deref().map(|scope| ("scope", scope)));
        let request = self.transport.client().post(endpoint.url().clone());
        let request = request
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(AUTHORIZATION, sensitive(&format!("Basic {}", STANDARD.encode(basic)))?)
            .body(form_of(&form));
        let what = "the request for a token";
        let response = self.transport.send(request, Duration::ZERO).await?;
        let status = response.status();
        let body = self.transport.body(response, what, limits::REMOTE_ANSWER_BYTES_MAX).await?;
        if status != StatusCode::OK {
            return Err(self.status(status, what, Some(&body)));
        }
        let answer = self.json(&body, what)?;
        let token = answer.get("access_token").and_then(Value::as_str);
        let token = token.ok_or_else(|| self.content(what, "it has no `access_token`"))?;
        let life = answer.get("expires_in").and_then(Value::as_u64).map(Duration::from_secs);
        let life = life.unwrap_or(limits::SSF_TOKEN_LIFE_MAX).min(limits::SSF_TOKEN_LIFE_MAX);
        let life = life.saturating_sub(limits::SSF_TOKEN_MARGIN);
        let until_ns = now_ns.saturating_add(u64::try_from(life.as_nanos()).unwrap_or(u64::MAX));
        let header = bearer(token)?;
        *self.token.lock() = Some(Fetched { header: header.clone(), until_ns });
        Ok(Some(header))
    }

    /// An answer as JSON.
    pub(crate) fn json(&self, body: &[u8], what: &'static str) -> Result<Value, ClientFault> {
        json::parse(body).map_err(|error| self.content(what, &error.to_string()))
    }

    /// The fault that a body is which cannot be used.
    pub(crate) fn content(&self, what: &'static str, why: &str) -> ClientFault {
        ClientFault::Content { server: self.server.clone(), what, why: tidy(why) }
    }

    /// The fault that a status is, with what its body says of it.
    pub(crate) fn status(&self, status: StatusCode, what: &'static str, body: Option<&[u8]>) -> ClientFault {
        let body = body.and_then(|body| json::parse(body).ok());
        let said = ["description", "error_description", "err", "error"]
            .into_iter()
            .find_map(|name| body.as_ref()?.get(name)?.as_str())
            .map(|said| format!(": {}", tidy(said)))
            .unwrap_or_default();
        ClientFault::Status { server: self.server.clone(), what, status: status.as_u16(), said }
    }
}

fn bearer(token: &str) -> Result<HeaderValue, ClientFault> {
    sensitive(&format!("Bearer {token}"))
}

fn sensitive(text: &str) -> Result<HeaderValue, ClientFault> {
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        RemoteError::Credentials("the token or secret holds characters that no header can carry".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn form_of(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", form_value(name), form_value(value))).collect();
    pairs.join("&")
}

/// As `application/x-www-form-urlencoded` writes a value.
fn form_value(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded() {
        assert_eq!(
            form_of(&[("scope", "ssf.read ssf.manage"), ("a&b", "c=ü")]),
            "scope=ssf.read+ssf.manage&a%26b=c%3D%C3%BC"
        );
    }
}
