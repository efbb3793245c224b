//! How a registry wants to be told who asks: the password itself, or a token from the token server that it names.
//!
//! Limits: [`limits::REMOTE_ANSWER_BYTES_MAX`] for an answer. Never does: sending credentials to a token server over
//! plain text, except on loopback for a registry that is there itself.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};
use http_auth::{ChallengeRef, parse_challenges};
use reqwest::Url;
use serde::Deserialize;

use super::Oci;
use crate::limits;
use crate::remote::credentials::{Credentials, Secret};
use crate::remote::error::RemoteError;
use crate::remote::location::is_loopback;

/// How we name ourselves to token servers that ask.
const CLIENT_ID: &str = "cardea";

/// What is to be done in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Actions {
    Pull,
    PullAndPush,
}

/// `token` by docker's protocol, `access_token` by OAuth 2; both mean the same.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Oci {
    /// The `Authorization` that the challenges of an answer ask for; none if there is nothing to offer.
    pub(super) async fn authorize(
        &self,
        headers: &HeaderMap,
        actions: Actions,
    ) -> Result<Option<HeaderValue>, RemoteError> {
        // A token that was given as such is for the registry itself.
        if matches!(self.credentials, Credentials::Token(_)) {
            return self.credentials.header();
        }
        let values: Vec<&str> =
            headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let challenges: Vec<ChallengeRef<'_>> =
            values.iter().filter_map(|value| parse_challenges(value).ok()).flatten().collect();
        let of_scheme = |scheme: &str| challenges.iter().find(|one| one.scheme.eq_ignore_ascii_case(scheme));
        if let Some(challenge) = of_scheme("Bearer") {
            let token = self.token(challenge, actions).await?;
            return Credentials::Token(token).header();
        }
        match of_scheme("Basic") {
            Some(_) => self.credentials.header(),
            None => Err(self.breaks("it wants credentials and names no way that is understood")),
        }
    }

    async fn token(&self, challenge: &ChallengeRef<'_>, actions: Actions) -> Result<Secret, RemoteError> {
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = parameter("realm").ok_or_else(|| self.breaks("it names no token server"))?;
        let realm = Url::parse(&realm).map_err(|_| self.breaks("the address of its token server is none"))?;
        let plain_is_fine = self.reference.is_plain() && is_loopback(&realm);
        if realm.scheme() != "https" && !plain_is_fine {
            return Err(self.breaks("its token server would get the credentials in plain text"));
        }
        let actions = match actions {
            Actions::Pull => "pull",
            Actions::PullAndPush => "pull,push",
        };
        let mut url = realm.clone();
        url.query_pairs_mut()
            .append_pair("scope", &format!("repository:{}:{actions}", self.reference.repository()));
        if let Some(service) = parameter("service") {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let request = match &self.credentials {
            Credentials::Refresh(refresh) => {
                url.query_pairs_mut()
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", CLIENT_ID)
                    .append_pair("refresh_token", refresh.reveal());
                // The form has the shape of a query, and does not appear in logs of addresses.
                let form = url.query().unwrap_or_default().to_owned();
                let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
                self.transport.client().post(realm.clone()).header(CONTENT_TYPE, form_type).body(form)
            }
            known @ (Credentials::Nobody | Credentials::User { .. } | Credentials::Token(_)) => {
                let request = self.transport.client().get(url);
                match known.header()? {
                    Some(header) => request.header(AUTHORIZATION, header),
                    None => request,
                }
            }
        };
        let response = self.transport.send(request, Duration::ZERO).await?;
        let what = realm.origin().ascii_serialization();
        if !response.status().is_success() {
            let sent = self.credentials != Credentials::Nobody;
            return Err(self.transport.refusal(response, &what, sent).await);
        }
        let body = self.transport.body(response, &what, limits::REMOTE_ANSWER_BYTES_MAX).await?;
        let answer: Option<Answer> = serde_json::from_slice(&body).ok();
        let token = answer.and_then(|answer| answer.token.or(answer.access_token));
        token.map(Secret::new).ok_or_else(|| self.breaks("its token server gives no token"))
    }
}
