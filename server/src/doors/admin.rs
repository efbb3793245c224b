//! `cardea.v1.AdminService`: how this node is doing.

use std::sync::Arc;

use cardea_proto::v1;
use cardea_proto::v1::admin_service_server::AdminService;
use tonic::{Request, Response, Status};

use super::wire;
use crate::audit::WhenFull;
use crate::bundles::Bundles;
use crate::pipeline::Pipeline;

/// The service.
#[derive(Clone, Debug)]
pub struct AdminDoor {
    pipeline: Arc<Pipeline>,
    bundles: Arc<Bundles>,
    started_ms: i64,
}

impl AdminDoor {
    /// Tells of this pipeline and its bundles.
    #[must_use]
    pub fn new(pipeline: Arc<Pipeline>, bundles: Arc<Bundles>) -> Self {
        let started_ms = pipeline.now().wall_ms;
        Self { pipeline, bundles, started_ms }
    }
}

#[tonic::async_trait]
impl AdminService for AdminDoor {
    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let snapshot = self.pipeline.policy().snapshot();
        let usage = self.pipeline.state().usage();
        let audit = self.pipeline.audit();
        let stats = audit.stats();
        let history = self.bundles.history();
        let refusal = history.refused.as_ref().map(|(at_ms, refused)| v1::BundleRefusal {
            time: Some(wire::timestamp(*at_ms)),
            faults: refused.lines(),
        });
        let bundle = match &snapshot {
            Some(snapshot) => v1::BundleStatus {
                name: snapshot.settings().name.to_string(),
                revision: snapshot.settings().revision,
                digest: snapshot.digest().to_string(),
                policies: count(snapshot.policies().len()),
                entities: count(snapshot.world().len()),
                activated_at: history.activated_ms.map(wire::timestamp),
                refusal,
                reloads: history.activations,
            },
            None => v1::BundleStatus { refusal, ..v1::BundleStatus::default() },
        };
        Ok(Response::new(v1::StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Some(wire::timestamp(self.started_ms)),
            ready: snapshot.is_some(),
            bundle: Some(bundle),
            state: Some(v1::StateStatus {
                state_version: usage.version,
                sessions: usage.sessions,
                sessions_max: usage.capacity.sessions,
                risk_subjects: usage.subjects,
                risk_subjects_max: count(usage.capacity.subjects),
                revocations: usage.revocations,
                revocations_max: count(usage.capacity.revocations),
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
            }),
        }))
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
