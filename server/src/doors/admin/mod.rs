//! `cardea.v1.AdminService`: how this node is doing, and which bundle it serves.
//!
//! Bundles are read and compiled on the blocking pool, never on a thread that decides. Limits: one candidate comes in at a
//! time; [`limits::REASON_BYTES_MAX`] for a reason, [`limits::REFUSAL_BYTES_MAX`] for the message of a refusal.
//! Never does: verifying, keeping or swapping bundles; that is for whoever implements [`Revisions`].

mod held;
mod message;
mod upload;

use std::sync::Arc;

use cardea_proto::v1;
use cardea_proto::v1::admin_service_server::AdminService;
use smol_str::SmolStr;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use super::hold::WireHolds;
use super::wire;
use crate::audit::WhenFull;
use crate::bundle_admin::{Asked, Change, Kept, Refusal, Revisions, Source, record};
use crate::limits;
use crate::listen::{Peer, Transport};
use crate::pipeline::Pipeline;
use crate::shadow::{Candidate, Run};

/// The service. Clones share the one right to send a candidate.
#[derive(Clone, Debug)]
pub struct AdminDoor {
    pipeline: Arc<Pipeline>,
    revisions: Arc<dyn Revisions>,
    uploads: Arc<Semaphore>,
    holds: WireHolds,
    started_ms: i64,
}

impl AdminDoor {
    /// Tells of the pipeline of these holds, and its bundles.
    #[must_use]
    pub fn new(holds: WireHolds, revisions: Arc<dyn Revisions>) -> Self {
        let pipeline = Arc::clone(holds.pipeline());
        let started_ms = pipeline.now().wall_ms;
        Self { pipeline, revisions, uploads: Arc::new(Semaphore::new(1)), holds, started_ms }
    }

    /// Runs what may read files, compile, or drop a whole bundle.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        done.unwrap_or_else(|_| Err(Status::internal("the change ended early; see the log")))
    }

    fn shadow(&self) -> Result<Arc<Run>, Status> {
        let none = || Status::not_found("no shadow is on; start one with `cardea bundle shadow start`");
        self.pipeline.shadow().current().ok_or_else(none)
    }

    fn start(&self, start: &v1::ShadowStart, source: Source, asked: &Asked) -> Result<v1::Shadow, Status> {
        let snapshot = self.revisions.load(&source).map_err(|refusal| refuse(&refusal))?;
        let now = self.pipeline.now();
        let kept = Kept::of(&snapshot);
        let candidate = Candidate {
            source: match source {
                // Whatever number comes to stand for it later: this content was looked at.
                Source::Revision(_) | Source::Digest(_) => Source::Digest(snapshot.digest().clone()),
                Source::Packed(bytes) => Source::Packed(bytes),
            },
            snapshot,
            sample_per_10000: start.sample_per_10000,
            asked: asked.clone(),
            started_ms: now.wall_ms,
        };
        let Some((run, before)) = self.pipeline.shadow().start(candidate, start.replace) else {
            return Err(upload::already_on());
        };
        if let Some(before) = before {
            let replaced = Kept::of(&before.candidate.snapshot);
            self.pipeline.record(record(Change::ShadowStopped, &replaced, asked), now);
        }
        self.pipeline.record(record(Change::ShadowStarted, &kept, asked), now);
        tracing::info!(bundle = %kept.name, revision = kept.revision, digest = %kept.digest, "shadow on");
        Ok(message::shadow(&run, self.pipeline.shadow()))
    }

    fn stop(&self, asked: &Asked) -> Result<v1::Shadow, Status> {
        let run = self.shadow()?;
        if self.pipeline.shadow().stop(Some(&run)).is_none() {
            return Err(Status::aborted("another shadow took its place meanwhile; look again"));
        }
        let kept = Kept::of(&run.candidate.snapshot);
        self.pipeline.record(record(Change::ShadowStopped, &kept, asked), self.pipeline.now());
        tracing::info!(bundle = %kept.name, revision = kept.revision, digest = %kept.digest, "shadow off");
        Ok(message::shadow(&run, self.pipeline.shadow()))
    }

    fn promote(&self, expected_digest: &str, asked: &Asked) -> Result<v1::PromoteResponse, Status> {
        let run = self.shadow()?;
        let digest = run.candidate.snapshot.digest();
        if digest != expected_digest {
            return Err(Status::aborted(format!(
                "the candidate is `{digest}`, not the one that you name; look at its differences first"
            )));
        }
        // What is put in force is what this run holds, whatever takes its place meanwhile.
        let kept = self
            .revisions
            .activate(&run.candidate.source, Change::Promoted, asked)
            .map_err(|refusal| refuse(&refusal))?;
        self.pipeline.shadow().stop(Some(&run));
        Ok(v1::PromoteResponse {
            revision: Some(message::revision(&kept, v1::RevisionState::InForce)),
            shadow: Some(message::shadow(&run, self.pipeline.shadow())),
        })
    }

    fn bundle_status(&self) -> v1::BundleStatus {
        let health = self.revisions.health();
        let refusal = health.refused.as_ref().map(|(at_ms, faults)| v1::BundleRefusal {
            time: Some(wire::timestamp(*at_ms)),
            faults: faults.list().iter().map(ToString::to_string).collect(),
        });
        let source = Some(message::source(health.source));
        let Some(snapshot) = self.pipeline.policy().snapshot() else {
            return v1::BundleStatus {
                refusal,
                source,
                floor_revision: health.floor,
                ..v1::BundleStatus::default()
            };
        };
        v1::BundleStatus {
            name: snapshot.settings().name.to_string(),
            revision: snapshot.settings().revision,
            digest: snapshot.digest().to_string(),
            policies: count(snapshot.policies().len()),
            entities: count(snapshot.world().len()),
            activated_at: health.activated_ms.map(wire::timestamp),
            refusal,
            reloads: health.activations,
            stale: health.stale,
            expires_at: health.expires_ms.map(wire::timestamp),
            source,
            floor_revision: health.floor,
            signed_by: health.signed_by.iter().map(ToString::to_string).collect(),
        }
    }
}

#[tonic::async_trait]
impl AdminService for AdminDoor {
    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let usage = self.pipeline.state().usage();
        let audit = self.pipeline.audit();
        let stats = audit.stats();
        Ok(Response::new(v1::StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Some(wire::timestamp(self.started_ms)),
            ready: self.pipeline.policy().snapshot().is_some(),
            bundle: Some(self.bundle_status()),
            state: Some(v1::StateStatus {
                state_version: usage.version,
                sessions: usage.sessions,
                sessions_max: usage.capacity.sessions,
                risk_subjects: usage.subjects,
                risk_subjects_max: count(usage.capacity.subjects),
                revocations: usage.revocations,
                revocations_max: count(usage.capacity.revocations),
                stored_sessions: usage.stored_sessions,
                stored_sessions_max: usage.capacity.stored_sessions,
                devices: usage.devices,
                tenants: usage.tenants,
                unwritten: usage.ledger.as_ref().map_or(0, |ledger| ledger.pending),
                fault: usage
                    .ledger
                    .and_then(|ledger| ledger.fault)
                    .map(|why| why.to_string())
                    .unwrap_or_default(),
            }),
            audit: Some(v1::AuditStatus {
                last_sequence: stats.last_sequence,
                queued: count(stats.queued),
                queue_max: count(stats.queue_max),
                lost: stats.lost,
                when_full: match audit.when_full() {
                    WhenFull::Deny => "deny",
                    WhenFull::CountGap => "count_gap",
                }
                .to_owned(),
                fault: stats.fault.unwrap_or_default(),
                vkey: audit.verifier().to_string(),
                loss_window_ms: millis(audit.windows().kill),
                crash_window_ms: millis(audit.windows().crash),
                sinks: audit.sinks().map(|sink| message::sink(sink.stats())).collect(),
            }),
        }))
    }

    async fn list_revisions(
        &self,
        _request: Request<v1::ListRevisionsRequest>,
    ) -> Result<Response<v1::ListRevisionsResponse>, Status> {
        let candidate = self.pipeline.shadow().current().map(|run| Kept::of(&run.candidate.snapshot));
        let kept = self.aside(|this| this.revisions.list().map_err(|refusal| refuse(&refusal))).await?;
        Ok(Response::new(v1::ListRevisionsResponse {
            revisions: message::revisions(&kept, candidate.as_ref()),
        }))
    }

    async fn activate(
        &self,
        request: Request<v1::ActivateRequest>,
    ) -> Result<Response<v1::ActivateResponse>, Status> {
        use v1::activate_request::Which;
        let asked = asked(&request, &request.get_ref().reason)?;
        let source = match request.into_inner().which {
            Some(Which::Revision(revision)) => Source::Revision(revision),
            Some(Which::Digest(digest)) => Source::Digest(checked_digest(&digest)?),
            None => return Err(Status::invalid_argument("name the `revision` or the `digest` to activate")),
        };
        let kept = self
            .aside(move |this| {
                let activated = this.revisions.activate(&source, Change::Activated, &asked);
                activated.map_err(|refusal| refuse(&refusal))
            })
            .await?;
        let revision = Some(message::revision(&kept, v1::RevisionState::InForce));
        Ok(Response::new(v1::ActivateResponse { revision }))
    }

    async fn roll_back(
        &self,
        request: Request<v1::RollBackRequest>,
    ) -> Result<Response<v1::RollBackResponse>, Status> {
        let asked = asked(&request, &request.get_ref().reason)?;
        let to_revision = request.into_inner().to_revision;
        let kept = self
            .aside(move |this| {
                this.revisions.roll_back(to_revision, &asked).map_err(|refusal| refuse(&refusal))
            })
            .await?;
        let revision = Some(message::revision(&kept, v1::RevisionState::InForce));
        Ok(Response::new(v1::RollBackResponse { revision }))
    }

    async fn start_shadow(
        &self,
        request: Request<Streaming<v1::StartShadowRequest>>,
    ) -> Result<Response<v1::StartShadowResponse>, Status> {
        let Ok(_alone) = Arc::clone(&self.uploads).try_acquire_owned() else {
            return Err(Status::resource_exhausted(
                "another candidate is being taken in; try again in a moment",
            ));
        };
        let by = peer_name(&request);
        let is_on = self.pipeline.shadow().current().is_some();
        let (start, source) = upload::read(request.into_inner(), is_on).await?;
        let asked = Asked { by, reason: checked_reason(&start.reason)? };
        let shadow = self.aside(move |this| this.start(&start, source, &asked)).await?;
        Ok(Response::new(v1::StartShadowResponse { shadow: Some(shadow) }))
    }

    async fn shadow_status(
        &self,
        _request: Request<v1::ShadowStatusRequest>,
    ) -> Result<Response<v1::ShadowStatusResponse>, Status> {
        let shadow = self
            .aside(|this| {
                let current = this.pipeline.shadow().current();
                Ok(current.map(|run| message::shadow(&run, this.pipeline.shadow())))
            })
            .await?;
        Ok(Response::new(v1::ShadowStatusResponse { shadow }))
    }

    async fn stop_shadow(
        &self,
        request: Request<v1::StopShadowRequest>,
    ) -> Result<Response<v1::StopShadowResponse>, Status> {
        let asked = asked(&request, &request.get_ref().reason)?;
        let shadow = self.aside(move |this| this.stop(&asked)).await?;
        Ok(Response::new(v1::StopShadowResponse { shadow: Some(shadow) }))
    }

    async fn promote(
        &self,
        request: Request<v1::PromoteRequest>,
    ) -> Result<Response<v1::PromoteResponse>, Status> {
        let asked = asked(&request, &request.get_ref().reason)?;
        let expected = checked_digest(&request.get_ref().expected_digest)?;
        let answer = self.aside(move |this| this.promote(&expected, &asked)).await?;
        Ok(Response::new(answer))
    }

    async fn list_hold_streams(
        &self,
        request: Request<v1::ListHoldStreamsRequest>,
    ) -> Result<Response<v1::ListHoldStreamsResponse>, Status> {
        let listing = held::listing(request.get_ref())?;
        let listed = self.holds.list(listing).await;
        let streams = listed.map_err(|stopping| Status::unavailable(stopping.to_string()))?;
        held::response(listing, &streams).map(Response::new)
    }
}

/// The status of a refusal: whose fault it is decides the code.
fn refuse(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::NotFound(_) => Status::not_found(refusal.to_string()),
        Refusal::Faults(faults) => {
            Status::failed_precondition(message::faults(faults, limits::REFUSAL_BYTES_MAX))
        }
        Refusal::NotHere(_) => Status::failed_precondition(refusal.to_string()),
        Refusal::Store(_) => {
            tracing::error!(%refusal, "a request about bundles failed");
            Status::unavailable(refusal.to_string())
        }
    }
}

fn asked<M>(request: &Request<M>, reason: &str) -> Result<Asked, Status> {
    Ok(Asked { by: peer_name(request), reason: checked_reason(reason)? })
}

fn checked_reason(reason: &str) -> Result<SmolStr, Status> {
    if reason.len() > limits::REASON_BYTES_MAX {
        let max = limits::REASON_BYTES_MAX;
        return Err(Status::invalid_argument(format!("`reason` has at most {max} bytes")));
    }
    Ok(reason.into())
}

fn checked_digest(digest: &str) -> Result<SmolStr, Status> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digest.len() != 64 || !digest.bytes().all(is_hex) {
        return Err(Status::invalid_argument("a digest is a whole SHA-256 in lower-case hexadecimal"));
    }
    Ok(digest.into())
}

/// What the connection proves about the caller.
pub(super) fn peer_name<M>(request: &Request<M>) -> SmolStr {
    let Some(peer) = request.extensions().get::<Peer>() else { return SmolStr::default() };
    match peer.transport() {
        Transport::Tls { certificate, .. } => {
            let spiffe = certificate.uris.iter().find(|uri| uri.starts_with("spiffe://"));
            spiffe.unwrap_or(&certificate.subject).as_str().into()
        }
        Transport::Unix { uid: Some(uid) } => format!("uid:{uid}").into(),
        Transport::Unix { uid: None } | Transport::Tcp { .. } => SmolStr::default(),
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn millis(span: std::time::Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}
