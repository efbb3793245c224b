//! Everything together: tokens, Envoy, `cardea`, and an upstream behind them.

use anyhow::{Result, ensure};

use crate::cardea::{self, Cardea};
use crate::clients::Clients;
use crate::envoy::{self, Authz, Envoy};
use crate::http::{Answer, Request};
use crate::token::Idp;
use crate::upstream::{self, Seen, Upstream};

/// The session that [`Stack::start`] opens for the agent `biller`.
pub const SESSION: &str = "session-of-biller";

/// How Envoy asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Over TCP.
    Tcp,
    /// Over the Unix socket.
    Uds,
}

/// See the module. Fields are dropped in this order: the front first.
#[derive(Debug)]
pub struct Stack {
    /// Envoy.
    pub envoy: Envoy,
    /// The decision point.
    pub cardea: Cardea,
    /// What Envoy protects.
    pub upstream: Upstream,
    /// Who signs tokens.
    pub idp: Idp,
    /// gRPC to `cardea`.
    pub clients: Clients,
}

impl Stack {
    /// Over TCP, raw headers, verified tokens; a session of `biller` is open.
    ///
    /// # Errors
    /// If a part does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(cardea::Options::default(), Over::Tcp, |_| {}).await
    }

    /// With more to choose.
    ///
    /// # Errors
    /// If a part does not start.
    pub async fn start_with(
        options: cardea::Options,
        over: Over,
        adjust: impl FnOnce(&mut envoy::Options),
    ) -> Result<Self> {
        let cardea = Cardea::start_with(options).await?;
        let mut clients = cardea.clients()?;
        clients.open_session(SESSION, "Agent::biller").await?;
        let upstream = Upstream::start()?;
        let idp = Idp::new()?;
        let authz = match over {
            Over::Tcp => Authz::Tcp(cardea.grpc),
            Over::Uds => Authz::Uds(cardea.uds()),
        };
        let mut front = envoy::Options::new(authz, upstream.address);
        front.jwks = Some(idp.jwks()?);
        adjust(&mut front);
        let envoy = Envoy::start(&front).await?;
        Ok(Self { envoy, cardea, upstream, idp, clients })
    }

    /// The token of `biller` in its session.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn token(&self) -> Result<String> {
        self.idp.token("biller", SESSION)
    }

    /// Sends a request with the token of `biller`.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn send(&self, request: Request) -> Result<Answer> {
        request.bearer(&self.token()?).send(self.envoy.address).await
    }

    /// Sends it, and gives what reached the upstream.
    ///
    /// # Errors
    /// If it did not reach the upstream exactly once.
    pub async fn allowed(&self, request: Request) -> Result<Seen> {
        let before = self.upstream.count();
        let answer = self.send(request).await?;
        ensure!(answer.status == 200 && answer.body == upstream::BODY, "not allowed: {answer:?}");
        let seen = self.upstream.seen();
        ensure!(seen.len() == before + 1, "{} requests reached the upstream", seen.len() - before);
        seen.last().cloned().ok_or_else(|| anyhow::anyhow!("nothing reached the upstream"))
    }

    /// Sends it, and gives the answer.
    ///
    /// # Errors
    /// If the status differs, or anything reached the upstream.
    pub async fn stopped(&self, request: Request, status: u16) -> Result<Answer> {
        let before = self.upstream.count();
        let answer = self.send(request).await?;
        ensure!(answer.status == status, "expected {status}: {answer:?}");
        ensure!(self.upstream.count() == before, "the request reached the upstream");
        Ok(answer)
    }
}
