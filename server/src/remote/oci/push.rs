//! Pushing a packed bundle, with `oci-client`, which knows how registries differ when they take uploads.
//!
//! Who asks is settled before (`token.rs`), so that it finds a token and asks no token server itself.
//! Limits: the configured time for everything together. Never does: client certificates, which `oci-client` has no way for.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use tokio::time::timeout;

use super::manifest::{self, Manifest};
use super::token::Actions;
use super::{Oci, OciDigest};
use crate::limits;
use crate::remote::credentials::Credentials;
use crate::remote::error::{RemoteError, tidy};
use crate::remote::transport::{USER_AGENT, authorities};

impl Oci {
    /// Stores a packed bundle under the reference's tag and returns the digest of its manifest.
    ///
    /// # Errors
    /// If the reference is pinned, or the registry does not take it.
    pub async fn push(
        &self,
        bytes: Bytes,
        annotations: BTreeMap<String, String>,
    ) -> Result<OciDigest, RemoteError> {
        let what = self.reference.to_string();
        let (None, Some(tag)) = (self.reference.digest(), self.reference.tag()) else {
            return Err(RemoteError::Occupied {
                what,
                why: "names a digest: push to a tag, the content has its own digest",
            });
        };
        let auth = self.authorization_to_push().await?;
        let client = self.pusher()?;
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        let reference = Reference::with_tag(registry.to_owned(), repository.to_owned(), tag.to_owned());
        client.store_auth_if_needed(reference.resolve_registry(), &auth).await;
        let body = serde_json::to_vec(&Manifest::of(&bytes, annotations))
            .map_err(|error| RemoteError::Client(error.to_string()))?;
        let digest = OciDigest::of(&body);
        let pushing = async {
            for blob in [Bytes::from_static(manifest::EMPTY), bytes] {
                let name = OciDigest::of(&blob).to_string();
                if !client.blob_exists(&reference, &name).await? {
                    client.push_blob(&reference, blob, &name).await?;
                }
            }
            client.push_manifest_raw(&reference, body, HeaderValue::from_static(manifest::MEDIA_TYPE)).await
        };
        match timeout(self.options.timeout, pushing).await {
            Ok(Ok(_)) => Ok(digest),
            Ok(Err(error)) => Err(self.not_pushed(error, &what)),
            Err(_) => Err(RemoteError::Slow {
                server: registry.to_owned(),
                what: "take the bundle",
                limit: self.options.timeout,
            }),
        }
    }

    /// Asks the registry how it wants to be told who pushes, and gets the token if it wants one.
    async fn authorization_to_push(&self) -> Result<RegistryAuth, RemoteError> {
        let response = self.ask(&Method::GET, "", None, Actions::PullAndPush).await?;
        if response.status() != StatusCode::OK {
            let sent = self.credentials != Credentials::Nobody;
            return Err(self.transport.refusal(response, self.reference.registry(), sent).await);
        }
        let authorization = self.authorization.lock().clone();
        let token = authorization.as_ref().and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        Ok(match (token, &self.credentials) {
            (Some(token), _) => RegistryAuth::Bearer(token.to_owned()),
            (None, Credentials::User { name, password }) => {
                RegistryAuth::Basic(name.clone(), password.reveal().to_owned())
            }
            (None, _) => RegistryAuth::Anonymous,
        })
    }

    fn pusher(&self) -> Result<Client, RemoteError> {
        if self.options.client_cert.is_some() {
            return Err(RemoteError::Credentials(
                "a registry is pushed to without a client certificate: use a user name or a token".to_owned(),
            ));
        }
        // `oci-client` makes one such client on the way and would panic.
        reqwest::Client::builder().build().map_err(|error| {
            RemoteError::Client(format!(
                "the system has no certificate authorities (package ca-certificates): {error}"
            ))
        })?;
        let extra = authorities(&self.options)?.into_iter();
        let config = ClientConfig {
            protocol: if self.reference.is_plain() { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates: extra
                .map(|der| Certificate { encoding: CertificateEncoding::Der, data: der.to_vec() })
                .collect(),
            // One request for each blob, which all registries take.
            use_monolithic_push: true,
            connect_timeout: Some(limits::REMOTE_CONNECT_TIMEOUT),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        };
        Client::try_from(config).map_err(|error| RemoteError::Client(tidy(&error.to_string())))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these say which status the registry gave")]
    fn not_pushed(&self, error: OciDistributionError, what: &str) -> RemoteError {
        let server = self.reference.registry().to_owned();
        let sent = self.credentials != Credentials::Nobody;
        let code = match &error {
            OciDistributionError::ServerError { code, .. } => *code,
            OciDistributionError::UnauthorizedError { .. } => 401,
            _ => 0,
        };
        match (code, error) {
            (_, OciDistributionError::RequestError(error)) if error.status().is_none() => {
                RemoteError::of_request(&server, error)
            }
            (401, _) => RemoteError::Unauthorized { server, sent },
            (403, _) => RemoteError::Forbidden { server, what: what.to_owned() },
            (404, _) => RemoteError::NotFound { what: what.to_owned() },
            (code, OciDistributionError::ServerError { message, .. }) => {
                RemoteError::Answer { server, code, said: format!(": {}", tidy(&message)), retry_after: None }
            }
            (_, error) => RemoteError::Protocol { server, why: tidy(&error.to_string()) },
        }
    }
}
