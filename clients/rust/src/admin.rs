//! The calls of an operator: which bundle a node serves, and what a candidate would change.
//!
//! A change verifies and compiles a bundle on the node before it answers, so these calls wait [`CHANGE_TIMEOUT`] where
//! the endpoint's own timeout is shorter.

use std::time::Duration;

use bytes::Bytes;
use tonic::Request;

use crate::v1::activate_request::Which;
use crate::v1::start_shadow_request::Part;
use crate::v1::{
    ActivateRequest, ListHoldStreamsRequest, ListHoldStreamsResponse, ListRevisionsRequest, PromoteRequest,
    PromoteResponse, Revision, RollBackRequest, Shadow, ShadowStart, ShadowStatusRequest, StartShadowRequest,
    StopShadowRequest, shadow_start,
};
use crate::{Client, Error};

/// Longest wait for a change of the bundle: the largest bundle that a node takes is compiled in less.
pub const CHANGE_TIMEOUT: Duration = Duration::from_secs(120);

/// Bytes of a packed bundle in one message; the service takes at most twice as many.
const CHUNK_BYTES: usize = 256 * 1024;

/// The bundle that a shadow evaluates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// A revision in the node's store.
    Revision(u64),
    /// A packed bundle, sent along.
    Packed(Bytes),
}

impl Client {
    /// The revisions that the node has, the highest first.
    ///
    /// # Errors
    /// The call failed.
    pub async fn revisions(&mut self) -> Result<Vec<Revision>, Error> {
        let request = self.patient(ListRevisionsRequest {});
        Ok(self.admin.list_revisions(request).await?.into_inner().revisions)
    }

    /// The streams of enforcement points that hold allows; of one stream also its holds.
    ///
    /// # Errors
    /// There is no such stream, or the call failed.
    pub async fn hold_streams(
        &mut self,
        request: ListHoldStreamsRequest,
    ) -> Result<ListHoldStreamsResponse, Error> {
        let request = self.timed(request);
        Ok(self.admin.list_hold_streams(request).await?.into_inner())
    }

    /// Puts a stored revision in force.
    ///
    /// # Errors
    /// It is not in the store or does not pass, or the call failed: what was in force goes on serving.
    pub async fn activate(&mut self, revision: u64, reason: impl Into<String>) -> Result<Revision, Error> {
        self.activate_which(Which::Revision(revision), reason.into()).await
    }

    /// As [`Client::activate`], by SHA-256 in lower-case hexadecimal.
    ///
    /// # Errors
    /// As [`Client::activate`].
    pub async fn activate_digest(
        &mut self,
        digest: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<Revision, Error> {
        self.activate_which(Which::Digest(digest.into()), reason.into()).await
    }

    /// Goes back to the content of a stored revision, under a new, higher one.
    ///
    /// # Errors
    /// It is not in the store or does not pass, or the call failed: what was in force goes on serving.
    pub async fn roll_back(
        &mut self,
        to_revision: u64,
        reason: impl Into<String>,
    ) -> Result<Revision, Error> {
        let request = self.patient(RollBackRequest { to_revision, reason: reason.into() });
        let answer = self.admin.roll_back(request).await?.into_inner();
        answer.revision.ok_or(NO_REVISION)
    }

    /// Evaluates a candidate beside the bundle in force. `start` says how often and why; its `candidate` is set here.
    ///
    /// # Errors
    /// A shadow is on and `replace` is not set, the candidate does not pass, or the call failed.
    pub async fn start_shadow(&mut self, candidate: Candidate, start: ShadowStart) -> Result<Shadow, Error> {
        let (candidate, bytes) = match candidate {
            Candidate::Revision(revision) => (shadow_start::Candidate::Revision(revision), Bytes::new()),
            Candidate::Packed(bytes) => {
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                (shadow_start::Candidate::PackedBytes(length), bytes)
            }
        };
        let start = Part::Start(ShadowStart { candidate: Some(candidate), ..start });
        let mut left = bytes;
        let chunks = std::iter::from_fn(move || {
            let next = left.len().min(CHUNK_BYTES);
            (next > 0).then(|| Part::Chunk(left.split_to(next).to_vec()))
        });
        let parts = std::iter::once(start).chain(chunks);
        let messages = parts.map(|part| StartShadowRequest { part: Some(part) });
        let request = self.patient(tokio_stream::iter(messages));
        let answer = self.admin.start_shadow(request).await?.into_inner();
        answer.shadow.ok_or(NO_SHADOW)
    }

    /// The shadow and what it has found; `None` if none is on.
    ///
    /// # Errors
    /// The call failed.
    pub async fn shadow(&mut self) -> Result<Option<Shadow>, Error> {
        let request = self.timed(ShadowStatusRequest {});
        Ok(self.admin.shadow_status(request).await?.into_inner().shadow)
    }

    /// Ends the shadow and tells what it found.
    ///
    /// # Errors
    /// None is on, or the call failed.
    pub async fn stop_shadow(&mut self, reason: impl Into<String>) -> Result<Shadow, Error> {
        let request = self.patient(StopShadowRequest { reason: reason.into() });
        let answer = self.admin.stop_shadow(request).await?.into_inner();
        answer.shadow.ok_or(NO_SHADOW)
    }

    /// Puts the candidate of the shadow in force, if it is the one with this digest.
    ///
    /// # Errors
    /// It is another one, none is on, it does not pass, or the call failed: what was in force goes on serving.
    pub async fn promote(
        &mut self,
        expected_digest: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<PromoteResponse, Error> {
        let message = PromoteRequest { expected_digest: expected_digest.into(), reason: reason.into() };
        let request = self.patient(message);
        Ok(self.admin.promote(request).await?.into_inner())
    }

    async fn activate_which(&mut self, which: Which, reason: String) -> Result<Revision, Error> {
        let request = self.patient(ActivateRequest { which: Some(which), reason });
        let answer = self.admin.activate(request).await?.into_inner();
        answer.revision.ok_or(NO_REVISION)
    }

    fn patient<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.set_timeout(self.call_timeout.max(CHANGE_TIMEOUT));
        request
    }
}

const NO_REVISION: Error = Error::Incomplete("it names no revision");
const NO_SHADOW: Error = Error::Incomplete("it names no shadow");
