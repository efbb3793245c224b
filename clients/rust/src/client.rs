//! The calls. Each waits at most the endpoint's call timeout; streams wait as long as they live.

use std::time::{Duration, SystemTime};

use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::hold::{self, HoldStream};
use crate::stream::{self, DecisionStream};
use crate::v1::admin_service_client::AdminServiceClient;
use crate::v1::audit_service_client::AuditServiceClient;
use crate::v1::decision_service_client::DecisionServiceClient;
use crate::v1::end_session_request::Target;
use crate::v1::review_service_client::ReviewServiceClient;
use crate::v1::session_service_client::SessionServiceClient;
use crate::v1::settle_request::Outcome;
use crate::v1::signal_service_client::SignalServiceClient;
use crate::v1::task_service_client::TaskServiceClient;
use crate::v1::{
    Attempt, DecideBatchRequest, DecideRequest, EndSessionRequest, EndSessionResponse, EntityRef,
    GetSessionRequest, HoldOpen, ListSessionsRequest, ListSessionsResponse, OpenSessionRequest,
    OpenSessionResponse, Record, RecordFilter, ReportSignalsRequest, ReportSignalsResponse, Reservation,
    Session, SettleRequest, Signal, StatusRequest, StatusResponse, StreamRecordsRequest,
    StreamRecordsResponse, UpdateSessionRequest, UpdateSessionResponse, Verdict,
};
use crate::{Endpoint, Error};

/// Largest answer that is taken, in bytes: 1024 verdicts with all their evidence.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A connection to Cardea. Cheap to clone; clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    decisions: DecisionServiceClient<Channel>,
    sessions: SessionServiceClient<Channel>,
    signals: SignalServiceClient<Channel>,
    audit: AuditServiceClient<Channel>,
    pub(crate) tasks: TaskServiceClient<Channel>,
    pub(crate) reviews: ReviewServiceClient<Channel>,
    pub(crate) admin: AdminServiceClient<Channel>,
    pub(crate) call_timeout: Duration,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// The endpoint makes no sense, or nobody answers there.
    pub async fn connect(endpoint: impl Into<Endpoint>) -> Result<Self, Error> {
        let endpoint = endpoint.into();
        let channel = endpoint.connect().await?;
        Ok(Self {
            decisions: DecisionServiceClient::new(channel.clone())
                .max_decoding_message_size(ANSWER_BYTES_MAX),
            sessions: SessionServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            signals: SignalServiceClient::new(channel.clone()),
            audit: AuditServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            tasks: TaskServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            reviews: ReviewServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            admin: AdminServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX),
            call_timeout: endpoint.call_timeout,
        })
    }

    /// Asks about one attempt.
    ///
    /// # Errors
    /// No answer: deny.
    pub async fn decide(&mut self, attempt: Attempt) -> Result<Verdict, Error> {
        let request = self.timed(DecideRequest { attempt: Some(attempt) });
        let answer = self.decisions.decide(request).await?.into_inner();
        answer.verdict.ok_or(Error::Incomplete("it holds no verdict"))
    }

    /// Asks about several attempts; the verdicts come in their order.
    ///
    /// # Errors
    /// No answer, or not one verdict for each attempt: all are denied.
    pub async fn decide_batch(&mut self, attempts: Vec<Attempt>) -> Result<Vec<Verdict>, Error> {
        let asked = attempts.len();
        let request = self.timed(DecideBatchRequest { attempts });
        let verdicts = self.decisions.decide_batch(request).await?.into_inner().verdicts;
        if verdicts.len() != asked {
            return Err(Error::Incomplete("not one verdict for each attempt"));
        }
        Ok(verdicts)
    }

    /// Says that the action of an allow was done, or not: where a verdict has a `reservation`, it counts as done unless this
    /// says otherwise in time. Saying the same again changes nothing.
    ///
    /// # Errors
    /// Its time is over, the opposite was said, or the call failed: it counts.
    pub async fn settle(&mut self, reservation: &Reservation, outcome: Outcome) -> Result<(), Error> {
        let request = SettleRequest { token: reservation.token.clone(), outcome: outcome.into() };
        let request = self.timed(request);
        self.decisions.settle(request).await?;
        Ok(())
    }

    /// Opens a stream of decisions.
    ///
    /// # Errors
    /// The stream cannot be opened.
    pub async fn decide_stream(&mut self) -> Result<DecisionStream, Error> {
        let (sender, requests) = stream::queue();
        let answers = self.decisions.decide_stream(requests).await?.into_inner();
        Ok(DecisionStream::new(sender, answers))
    }

    /// Opens or resumes a Hold stream.
    ///
    /// # Errors
    /// The stream cannot be opened.
    pub async fn hold(&mut self, open: HoldOpen) -> Result<HoldStream, Error> {
        let (sender, requests) = stream::queue();
        // The service answers once it has read this; an empty queue has a place.
        sender.try_send(hold::opening(open)).map_err(|_| Error::Closed)?;
        let answers = self.decisions.hold(requests).await?.into_inner();
        Ok(HoldStream::new(sender, answers))
    }

    /// Opens a session; the next decision knows it.
    ///
    /// # Errors
    /// A session of that id is live or was ended, or the call failed.
    pub async fn open_session(&mut self, session: Session) -> Result<OpenSessionResponse, Error> {
        let request = self.timed(OpenSessionRequest { session: Some(session) });
        Ok(self.sessions.open(request).await?.into_inner())
    }

    /// Changes a live session: fields that are set replace the old ones.
    ///
    /// # Errors
    /// The session is not live, or the call failed.
    pub async fn update_session(
        &mut self,
        change: UpdateSessionRequest,
    ) -> Result<UpdateSessionResponse, Error> {
        let request = self.timed(change);
        Ok(self.sessions.update(request).await?.into_inner())
    }

    /// Reads a session.
    ///
    /// # Errors
    /// The service does not know it, or the call failed.
    pub async fn session(&mut self, id: impl Into<String>) -> Result<Session, Error> {
        let request = self.timed(GetSessionRequest { id: id.into() });
        let answer = self.sessions.get(request).await?.into_inner();
        answer.session.ok_or(Error::Incomplete("it holds no session"))
    }

    /// Reads a page of sessions.
    ///
    /// # Errors
    /// The call failed.
    pub async fn sessions(&mut self, page: ListSessionsRequest) -> Result<ListSessionsResponse, Error> {
        let request = self.timed(page);
        Ok(self.sessions.list(request).await?.into_inner())
    }

    /// Ends one session for good.
    ///
    /// # Errors
    /// The call failed: the session may go on.
    pub async fn end_session(
        &mut self,
        id: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<EndSessionResponse, Error> {
        self.end(Target::Id(id.into()), reason.into()).await
    }

    /// Ends every session of a principal for good.
    ///
    /// # Errors
    /// The call failed: sessions may go on.
    pub async fn end_sessions_of(
        &mut self,
        principal: EntityRef,
        reason: impl Into<String>,
    ) -> Result<EndSessionResponse, Error> {
        self.end(Target::Principal(principal), reason.into()).await
    }

    /// Reports changes of fact; the next decision knows them. One outcome comes back for each.
    ///
    /// # Errors
    /// The call failed: some may not be known.
    pub async fn report(&mut self, signals: Vec<Signal>) -> Result<ReportSignalsResponse, Error> {
        let request = self.timed(ReportSignalsRequest { signals });
        Ok(self.signals.report(request).await?.into_inner())
    }

    /// How the service is doing.
    ///
    /// # Errors
    /// The call failed.
    pub async fn status(&mut self) -> Result<StatusResponse, Error> {
        let request = self.timed(StatusRequest {});
        Ok(self.admin.status(request).await?.into_inner())
    }

    /// Streams audit records from a sequence number on, without gap; 0: only new ones.
    ///
    /// # Errors
    /// The stream cannot be opened.
    pub async fn audit_from(
        &mut self,
        from_sequence: u64,
        filter: Option<RecordFilter>,
    ) -> Result<Records, Error> {
        let request = StreamRecordsRequest { from_sequence, filter, from_time: None };
        Ok(Records(self.audit.stream(request).await?.into_inner()))
    }

    /// Streams audit records of this time and later.
    ///
    /// # Errors
    /// The stream cannot be opened.
    pub async fn audit_since(
        &mut self,
        since: SystemTime,
        filter: Option<RecordFilter>,
    ) -> Result<Records, Error> {
        let request = StreamRecordsRequest { from_sequence: 0, filter, from_time: Some(since.into()) };
        Ok(Records(self.audit.stream(request).await?.into_inner()))
    }

    async fn end(&mut self, target: Target, reason: String) -> Result<EndSessionResponse, Error> {
        let request = self.timed(EndSessionRequest { target: Some(target), reason });
        Ok(self.sessions.end(request).await?.into_inner())
    }

    pub(crate) fn timed<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.set_timeout(self.call_timeout);
        request
    }
}

/// Audit records as they come.
#[derive(Debug)]
pub struct Records(Streaming<StreamRecordsResponse>);

impl Records {
    /// The next records, at least one; `None` when the service ends the stream. To resume, ask again from the last
    /// sequence number plus one.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn receive(&mut self) -> Result<Option<Vec<Record>>, Error> {
        while let Some(response) = self.0.message().await? {
            if !response.records.is_empty() {
                return Ok(Some(response.records));
            }
        }
        Ok(None)
    }
}
