//! `AuditService`: gives the records out over gRPC.
//!
//! Owns: the number of open streams, at most `STREAMS_MAX`.
//! Limits: a stream reads only when its consumer takes; it holds one batch, one open file and no task.
//! Never does: authorization (the listener's), or anything that the writer could wait for.

use std::sync::Arc;

use cardea_proto::v1::{self, audit_service_server::AuditService};
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

use super::log::BadRead;
use super::record::unix_ms;
use super::{Audit, Filter, Tail, TailError};
use crate::shutdown::Shutdown;

/// Most streams at once. Each holds an open file and, while it reads, a thread of the blocking pool; consumers
/// are collectors and a console, not every caller.
pub const STREAMS_MAX: usize = 64;

/// The service; put it into `AuditServiceServer`.
pub struct AuditStreams {
    audit: Arc<Audit>,
    open: Arc<Semaphore>,
    shutdown: Shutdown,
}

impl AuditStreams {
    /// Gives out the records of this audit until the process drains.
    #[must_use]
    pub fn new(audit: Arc<Audit>, shutdown: Shutdown) -> Self {
        Self { audit, open: Arc::new(Semaphore::new(STREAMS_MAX)), shutdown }
    }
}

/// One stream: its place in the records, and its right to be open.
struct Consumer {
    tail: Tail,
    shutdown: Shutdown,
    _open: OwnedSemaphorePermit,
}

#[tonic::async_trait]
impl AuditService for AuditStreams {
    type StreamStream = BoxStream<'static, Result<v1::StreamRecordsResponse, Status>>;

    async fn stream(
        &self,
        request: Request<v1::StreamRecordsRequest>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let request = request.into_inner();
        let filter = Filter::try_from(request.filter.unwrap_or_default())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let open = Arc::clone(&self.open).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{STREAMS_MAX} audit streams are open, no more are given"))
        })?;
        let tail = match (request.from_time, request.from_sequence) {
            (None, sequence) => self.audit.tail(sequence, filter),
            (Some(time), 0) => {
                let tail = self.audit.tail_since(unix_ms(&time), filter);
                tail.map_err(|error| Status::unavailable(format!("the audit cannot be read: {error}")))?
            }
            (Some(_), _) => {
                return Err(Status::invalid_argument("give `from_sequence` or `from_time`, and not both"));
            }
        };
        let consumer = Consumer { tail, shutdown: self.shutdown.clone(), _open: open };
        Ok(Response::new(stream::unfold(Some(consumer), step).boxed()))
    }
}

/// One message; the stream ends after an error, once the audit is closed and all is sent, and when the process drains and
/// nothing more is there: whoever listens goes on from the next number elsewhere or later.
async fn step(
    consumer: Option<Consumer>,
) -> Option<(Result<v1::StreamRecordsResponse, Status>, Option<Consumer>)> {
    let mut consumer = consumer?;
    let batch = tokio::select! {
        biased;
        batch = consumer.tail.next_batch() => batch,
        () = consumer.shutdown.draining() => {
            let stopping = "the node is stopping; go on from the next sequence number when it is back";
            return Some((Err(Status::unavailable(stopping)), None));
        }
    };
    match batch {
        Ok(None) => None,
        Ok(Some(records)) => Some((Ok(v1::StreamRecordsResponse { records }), Some(consumer))),
        Err(error) => Some((Err(status(&error)), None)),
    }
}

fn status(error: &TailError) -> Status {
    match error {
        TailError::Log(BadRead::Missing { .. }) => Status::out_of_range(error.to_string()),
        TailError::Log(BadRead::Corrupt { .. }) | TailError::Unknown { .. } => {
            tracing::error!(%error, "audit stream ended");
            Status::data_loss(error.to_string())
        }
        TailError::Log(BadRead::Io(source)) => {
            tracing::error!(%source, "audit stream ended, the segments cannot be read");
            Status::unavailable(error.to_string())
        }
        TailError::ReaderEnded => Status::internal(error.to_string()),
    }
}
