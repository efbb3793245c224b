//! A packed bundle as an artifact in an OCI registry: a tag is resolved to a digest once, then all goes by digest.
//!
//! Reading is done here and not by `oci-client`, which reads manifests and tokens without a bound, follows redirects to
//! any host and scheme, takes no client certificate, and looks neither at the type of an artifact nor at the size of a
//! layer. Pushing uses it (`push.rs`).
//! Limits: [`limits::REMOTE_MANIFEST_BYTES_MAX`], [`BUNDLE_BYTES_MAX`].
//! Never does: believing a registry. What it sends has the digest that was asked for, or is refused.

mod manifest;
mod push;
mod token;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use reqwest::Response;

use self::manifest::Manifest;
use self::token::Actions;
use super::credentials::Credentials;
use super::error::{RemoteError, tidy};
use super::location::{OciDigest, OciReference};
use super::transport::{Redirects, Transport};
use super::{BUNDLE_BYTES_MAX, Options};
use crate::limits;

/// Header in which a registry names the digest of a manifest.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// See the module.
#[derive(Debug)]
pub struct Oci {
    reference: OciReference,
    transport: Transport,
    credentials: Credentials,
    options: Options,
    /// What the registry last accepted.
    authorization: Mutex<Option<HeaderValue>>,
}

impl Oci {
    /// A client for one artifact. Asks docker's credential programs, if they are configured.
    ///
    /// # Errors
    /// If credentials or a file of the options cannot be used.
    pub async fn new(reference: &OciReference, options: &Options) -> Result<Self, RemoteError> {
        Ok(Self {
            reference: reference.clone(),
            transport: Transport::new(reference.registry().to_owned(), options, Redirects::Blobs)?,
            credentials: Credentials::of_registry(options, reference.registry()).await?,
            options: options.clone(),
            authorization: Mutex::new(None),
        })
    }

    /// The artifact.
    #[must_use]
    pub fn reference(&self) -> &OciReference {
        &self.reference
    }

    /// The digest of the artifact's manifest: where the tag points now, or that to which the reference is pinned.
    ///
    /// # Errors
    /// If the registry does not tell, or has no such artifact.
    pub async fn resolve(&self) -> Result<OciDigest, RemoteError> {
        let pin = self.reference.digest();
        let tag = self.reference.tag().unwrap_or_default();
        let name = pin.map_or_else(|| tag.to_owned(), ToString::to_string);
        let what = self.reference.to_string();
        let path = format!("manifests/{name}");
        let head = self.get(Method::HEAD, &path, &what).await?;
        let told = head.headers().get(CONTENT_DIGEST);
        let found = match told {
            Some(told) => {
                let told = String::from_utf8_lossy(told.as_bytes()).into_owned();
                told.parse().map_err(|_| {
                    self.breaks(&format!("it names `{}` as a digest; only sha256 is understood", tidy(&told)))
                })?
            }
            None => {
                let response = self.get(Method::GET, &path, &what).await?;
                OciDigest::of(&self.transport.body(response, &what, limits::REMOTE_MANIFEST_BYTES_MAX).await?)
            }
        };
        match pin {
            Some(pin) if *pin != found => Err(wrong_digest(&what, pin, &found)),
            _ => Ok(found),
        }
    }

    /// The packed bundle of the artifact with this manifest.
    ///
    /// # Errors
    /// If it is not a bundle, is too large, or does not have its digests.
    pub async fn pull(&self, digest: &OciDigest) -> Result<Bytes, RemoteError> {
        let what = self.reference.pinned(*digest).to_string();
        let response = self.get(Method::GET, &format!("manifests/{digest}"), &what).await?;
        let bytes = self.transport.body(response, &what, limits::REMOTE_MANIFEST_BYTES_MAX).await?;
        // Before it is parsed.
        let found = OciDigest::of(&bytes);
        if found != *digest {
            return Err(wrong_digest(&what, digest, &found));
        }
        let layer = Manifest::read(&bytes)
            .and_then(|manifest| manifest.bundle())
            .map_err(|why| RemoteError::NotABundle { what: what.clone(), why })?;
        if layer.size > BUNDLE_BYTES_MAX {
            return Err(RemoteError::TooLarge { what, bytes_max: BUNDLE_BYTES_MAX });
        }
        let response = self.get(Method::GET, &format!("blobs/{}", layer.digest), &what).await?;
        let bytes = self.transport.body(response, &what, layer.size).await?;
        if bytes.len() as u64 != layer.size {
            return Err(RemoteError::Truncated {
                what,
                got: bytes.len() as u64,
                announced: Some(layer.size),
            });
        }
        let found = OciDigest::of(&bytes);
        if found == layer.digest { Ok(bytes) } else { Err(wrong_digest(&what, &layer.digest, &found)) }
    }

    /// A successful answer of the repository.
    async fn get(&self, method: Method, path: &str, what: &str) -> Result<Response, RemoteError> {
        let (path, accept) = (format!("{}/{path}", self.reference.repository()), manifest::ACCEPTED);
        let accept = path.contains("/manifests/").then_some(accept);
        let response = self.ask(&method, &path, accept, Actions::Pull).await?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        Err(self.transport.refusal(response, what, self.credentials != Credentials::Nobody).await)
    }

    /// Sends a request; if the registry wants to know who asks, once more with what it accepts.
    async fn ask(
        &self,
        method: &Method,
        path: &str,
        accept: Option<&'static str>,
        actions: Actions,
    ) -> Result<Response, RemoteError> {
        let url = format!("{}/v2/{path}", self.origin());
        let send = || {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|accept| (ACCEPT, HeaderValue::from_static(accept))));
            headers.extend(self.authorization.lock().clone().map(|value| (AUTHORIZATION, value)));
            let request = self.transport.client().request(method.clone(), &url).headers(headers);
            self.transport.send(request, Duration::ZERO)
        };
        let response = send().await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let authorization = self.authorize(response.headers(), actions).await?;
        if authorization.is_none() {
            return Ok(response);
        }
        *self.authorization.lock() = authorization;
        send().await
    }

    fn origin(&self) -> String {
        let scheme = if self.reference.is_plain() { "http" } else { "https" };
        // The site `docker.io` and its registry have different hosts.
        let host = match self.reference.registry() {
            "docker.io" => "index.docker.io",
            registry => registry,
        };
        format!("{scheme}://{host}")
    }

    fn breaks(&self, why: &str) -> RemoteError {
        RemoteError::Protocol { server: self.transport.server().to_owned(), why: why.to_owned() }
    }
}

fn wrong_digest(what: &str, expected: &OciDigest, found: &OciDigest) -> RemoteError {
    RemoteError::WrongDigest {
        what: what.to_owned(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}
