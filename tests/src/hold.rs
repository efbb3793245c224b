//! An enforcement point's end of a Hold stream, and a connection that a test can break.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use cardea_proto::v1;
use cardea_proto::v1::hold_request::Part as Asked;
use cardea_proto::v1::hold_response::Part as Said;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::clients::Clients;
use crate::wait;

/// See the module.
#[derive(Debug)]
pub struct Point {
    asked: mpsc::Sender<v1::HoldRequest>,
    told: Streaming<v1::HoldResponse>,
    /// What it was told first.
    pub opened: v1::HoldOpened,
    /// The highest sequence that it heard.
    pub heard: u64,
}

/// The first message of a stream.
#[must_use]
pub fn open(name: &str, resume: Option<(&str, u64)>) -> v1::HoldRequest {
    let (resume_token, from_sequence) = resume.unwrap_or_default();
    let open = v1::HoldOpen {
        enforcement_point: name.to_owned(),
        resume_token: resume_token.to_owned(),
        from_sequence,
    };
    v1::HoldRequest { part: Some(Asked::Open(open)) }
}

/// An attempt to hold.
#[must_use]
pub fn held(hold_id: u64, attempt: v1::Attempt) -> v1::HoldAttempt {
    v1::HoldAttempt { hold_id, attempt: Some(attempt) }
}

/// Sends these messages and gives the status that the stream ends with.
///
/// # Errors
/// If it goes on, or cannot be sent.
pub async fn refused(clients: &mut Clients, messages: Vec<v1::HoldRequest>) -> Result<Status> {
    // The sending side stays open: that the caller is done is another end.
    let (asked, requests) = mpsc::channel(messages.len().max(1));
    for message in messages {
        asked.send(message).await?;
    }
    let mut told = match clients.decision.hold(ReceiverStream::new(requests)).await {
        Ok(told) => told.into_inner(),
        Err(status) => return Ok(status),
    };
    loop {
        match wait::within("the end of the stream", told.message()).await? {
            Ok(Some(_)) => {}
            Ok(None) => bail!("the stream ended without a status"),
            Err(status) => return Ok(status),
        }
    }
}

impl Point {
    /// Opens or resumes a stream.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn open(clients: &mut Clients, resume: Option<(&str, u64)>) -> Result<Self> {
        let (asked, requests) = mpsc::channel(16);
        asked.send(open("gate", resume)).await?;
        let mut told = clients.decision.hold(ReceiverStream::new(requests)).await?.into_inner();
        let first = wait::within("`opened`", told.message()).await??.context("no message")?;
        let Some(Said::Opened(opened)) = first.part else { bail!("{first:?} is not `opened`") };
        Ok(Self { asked, told, heard: opened.sequence, opened })
    }

    /// Registers holds.
    ///
    /// # Errors
    /// If the stream is gone.
    pub async fn add(&self, holds: Vec<v1::HoldAttempt>) -> Result<()> {
        self.asked.send(v1::HoldRequest { part: Some(Asked::Add(v1::HoldAdd { holds })) }).await?;
        Ok(())
    }

    /// Ends holds.
    ///
    /// # Errors
    /// If the stream is gone.
    pub async fn drop_holds(&self, hold_ids: Vec<u64>) -> Result<()> {
        self.asked.send(v1::HoldRequest { part: Some(Asked::Drop(v1::HoldDrop { hold_ids })) }).await?;
        Ok(())
    }

    /// The next message of any kind.
    ///
    /// # Errors
    /// If none comes in time, or the stream ends.
    pub async fn message(&mut self) -> Result<Said> {
        let message = wait::within("a message", self.told.message()).await??.context("the stream ended")?;
        let said = message.part.context("a message without a part")?;
        self.heard = match &said {
            Said::Opened(opened) => opened.sequence,
            Said::Verdicts(verdicts) => verdicts.sequence,
            Said::Forget(forget) => forget.sequence,
            Said::Heartbeat(heartbeat) => heartbeat.sequence,
        };
        Ok(said)
    }

    /// The next answers.
    ///
    /// # Errors
    /// If none come in time, or something else comes that is no heartbeat.
    pub async fn verdicts(&mut self) -> Result<Vec<v1::HoldVerdict>> {
        loop {
            match self.message().await? {
                Said::Verdicts(verdicts) => return Ok(verdicts.verdicts),
                Said::Heartbeat(_) => {}
                other @ (Said::Opened(_) | Said::Forget(_)) => bail!("{other:?} is no answer"),
            }
        }
    }

    /// As many answers as that.
    ///
    /// # Errors
    /// As [`Point::verdicts`].
    pub async fn answers(&mut self, count: usize) -> Result<Vec<v1::HoldVerdict>> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.verdicts().await?);
        }
        Ok(all)
    }

    /// The one answer that comes next.
    ///
    /// # Errors
    /// If more come with it.
    pub async fn answer(&mut self) -> Result<v1::HoldVerdict> {
        match <[v1::HoldVerdict; 1]>::try_from(self.verdicts().await?) {
            Ok([verdict]) => Ok(verdict),
            Err(more) => bail!("{} answers and not one", more.len()),
        }
    }

    /// Closes the sending side: the caller is done.
    #[must_use]
    pub fn done(self) -> Streaming<v1::HoldResponse> {
        self.told
    }
}

/// The decision of an answer.
#[must_use]
pub fn decision(answer: &v1::HoldVerdict) -> v1::Decision {
    answer.verdict.as_ref().map_or(v1::Decision::Unspecified, v1::Verdict::decision)
}

/// Carries connections to an address until it is cut.
#[derive(Debug)]
pub struct Wire {
    /// Where to connect to.
    pub at: SocketAddr,
    /// Ends with everything in it when it is dropped.
    carrying: JoinSet<()>,
}

impl Wire {
    /// To this address.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn to(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        let mut carrying = JoinSet::new();
        carrying.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                connections.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(address).await {
                        // However it ends: both sides see that it did.
                        let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Ok(Self { at, carrying })
    }

    /// Breaks every connection, without a word to either side.
    pub fn cut(mut self) {
        self.carrying.abort_all();
    }
}
