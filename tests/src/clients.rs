//! The generated gRPC clients over one channel.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cardea_proto::v1;
use cardea_proto::v1::admin_service_client::AdminServiceClient;
use cardea_proto::v1::audit_service_client::AuditServiceClient;
use cardea_proto::v1::decision_service_client::DecisionServiceClient;
use cardea_proto::v1::session_service_client::SessionServiceClient;
use cardea_proto::v1::signal_service_client::SignalServiceClient;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::attempts::entity;
use crate::wait;

/// See the module.
#[derive(Debug, Clone)]
pub struct Clients {
    /// The channel itself.
    pub channel: Channel,
    /// Decisions.
    pub decision: DecisionServiceClient<Channel>,
    /// Sessions.
    pub session: SessionServiceClient<Channel>,
    /// Signals.
    pub signal: SignalServiceClient<Channel>,
    /// Audit records.
    pub audit: AuditServiceClient<Channel>,
    /// Status.
    pub admin: AdminServiceClient<Channel>,
}

impl Clients {
    /// Over TCP; connects at the first call.
    ///
    /// # Errors
    /// If the address makes no URI.
    pub fn tcp(to: SocketAddr) -> Result<Self> {
        Ok(Self::over(Endpoint::from_shared(format!("http://{to}"))?.timeout(wait::LIMIT).connect_lazy()))
    }

    /// Over a Unix socket; connects at the first call.
    ///
    /// # Errors
    /// Never in practice: the URI is fixed.
    pub fn uds(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let connect = service_fn(move |_: Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        let endpoint = Endpoint::from_shared("http://localhost".to_owned())?.timeout(wait::LIMIT);
        Ok(Self::over(endpoint.connect_with_connector_lazy(connect)))
    }

    /// Over TLS; connects at the first call.
    ///
    /// # Errors
    /// If the address makes no URI.
    pub fn tls(to: SocketAddr, mut config: rustls::ClientConfig) -> Result<Self> {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let connect = service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move {
                let socket = TcpStream::connect(to).await?;
                let stream = connector.connect(ServerName::from(to.ip()), socket).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let endpoint = Endpoint::from_shared(format!("http://{to}"))?.timeout(wait::LIMIT);
        Ok(Self::over(endpoint.connect_with_connector_lazy(connect)))
    }

    fn over(channel: Channel) -> Self {
        Self {
            decision: DecisionServiceClient::new(channel.clone()),
            session: SessionServiceClient::new(channel.clone()),
            signal: SignalServiceClient::new(channel.clone()),
            audit: AuditServiceClient::new(channel.clone()),
            admin: AdminServiceClient::new(channel.clone()),
            channel,
        }
    }

    /// Judges one attempt.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn decide(&mut self, attempt: v1::Attempt) -> Result<v1::Verdict> {
        let answer = self.decision.decide(v1::DecideRequest { attempt: Some(attempt) }).await?;
        answer.into_inner().verdict.context("an answer without a verdict")
    }

    /// Judges one attempt that ought to be refused; gives the call's status.
    ///
    /// # Errors
    /// If the call succeeds.
    pub async fn decide_fails(&mut self, attempt: Option<v1::Attempt>) -> Result<Status> {
        match self.decision.decide(v1::DecideRequest { attempt }).await {
            Ok(answer) => anyhow::bail!("the call succeeded: {:?}", answer.into_inner()),
            Err(status) => Ok(status),
        }
    }

    /// Opens a session, unless it is open: sessions outlive the process.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn have_session(&mut self, id: &str, principal: &str) -> Result<()> {
        match self.open_session(id, principal).await {
            Ok(_) => Ok(()),
            Err(fault) => match fault.downcast_ref::<Status>() {
                Some(status) if status.code() == tonic::Code::AlreadyExists => Ok(()),
                _ => Err(fault),
            },
        }
    }

    /// Opens a session of an agent `biller` or the like; gives the state version.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn open_session(&mut self, id: &str, principal: &str) -> Result<u64> {
        let session =
            v1::Session { id: id.to_owned(), principal: Some(entity(principal)?), ..v1::Session::default() };
        let answer = self.session.open(v1::OpenSessionRequest { session: Some(session) }).await?;
        Ok(answer.into_inner().state_version)
    }

    /// Ends a session; gives the state version.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn end_session(&mut self, id: &str) -> Result<u64> {
        let target = Some(v1::end_session_request::Target::Id(id.to_owned()));
        let request = v1::EndSessionRequest { target, reason: "the test says so".to_owned() };
        Ok(self.session.end(request).await?.into_inner().state_version)
    }

    /// Reports one signal about a principal, or about nobody in particular; gives its outcome.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn report(
        &mut self,
        subject: Option<&str>,
        change: v1::signal::Change,
    ) -> Result<v1::SignalOutcome> {
        // Of two events of one millisecond the stricter holds; a test means the later one.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let subject = subject.map(entity).transpose()?;
        let signal = v1::Signal {
            subject,
            event_time: None,
            source: "end-to-end test".to_owned(),
            change: Some(change),
        };
        let answer = self.signal.report(v1::ReportSignalsRequest { signals: vec![signal] }).await?;
        answer.into_inner().outcomes().next().context("an answer without an outcome")
    }

    /// Reports that a credential is in other hands: severity 0 to 100, surely.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn report_risk(&mut self, subject: &str, severity: u32) -> Result<v1::SignalOutcome> {
        let observed = v1::RiskObserved {
            kind: v1::RiskKind::CredentialCompromise.into(),
            severity,
            confidence: 100,
            half_life: None,
            reason: "seen in a paste".to_owned(),
        };
        self.report(Some(subject), v1::signal::Change::Risk(observed)).await
    }

    /// Status.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn status(&mut self) -> Result<v1::StatusResponse> {
        Ok(self.admin.status(v1::StatusRequest {}).await?.into_inner())
    }
}
