//! Decisions without a call per attempt: attempts go out and verdicts come back on one stream, pipelined.
//!
//! Verdicts carry the attempts' own ids and come in the order of the attempts, but may be spread over messages
//! differently. At most [`STREAM_MESSAGES_MAX`] messages wait to be sent; then `send` waits.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::Error;
use crate::v1::{Attempt, DecideStreamRequest, DecideStreamResponse, Verdict};

/// Most messages that wait to be sent: enough to keep a connection busy while the sender prepares the next.
pub const STREAM_MESSAGES_MAX: usize = 64;

/// Both halves of a stream.
///
/// ```no_run
/// # use cardea_client::{Client, VerdictExt, attempt, entity, v1};
/// # async fn run(cardea: &mut Client) -> Result<(), cardea_client::Error> {
/// let mut decisions = cardea.decide_stream().await?;
/// for table in ["crm/tickets", "crm/notes"] {
///     let read = attempt(entity("Agent", "support-bot"), "read", entity("Table", table));
///     decisions.send(vec![v1::Attempt { id: table.into(), ..read }]).await?;
/// }
/// let (_, mut answers) = decisions.split(); // dropping the sender ends the stream once all is answered
/// while let Some(verdicts) = answers.receive().await? {
///     for verdict in verdicts {
///         println!("{} {}", verdict.attempt_id, verdict.is_allowed());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DecisionStream {
    sender: DecisionSender,
    receiver: DecisionReceiver,
}

/// The half that asks. Dropping the last clone ends the stream, once everything that was asked is answered.
#[derive(Clone, Debug)]
pub struct DecisionSender(mpsc::Sender<DecideStreamRequest>);

/// The half that is answered.
#[derive(Debug)]
pub struct DecisionReceiver(Streaming<DecideStreamResponse>);

impl DecisionStream {
    pub(crate) fn new(
        sender: mpsc::Sender<DecideStreamRequest>,
        receiver: Streaming<DecideStreamResponse>,
    ) -> Self {
        Self { sender: DecisionSender(sender), receiver: DecisionReceiver(receiver) }
    }

    /// Asks about attempts.
    ///
    /// # Errors
    /// The stream is closed; [`DecisionStream::receive`] tells why.
    pub async fn send(&mut self, attempts: Vec<Attempt>) -> Result<(), Error> {
        self.sender.send(attempts).await
    }

    /// The next verdicts; `None` at the end.
    ///
    /// # Errors
    /// The stream broke: every attempt without a verdict is denied.
    pub async fn receive(&mut self) -> Result<Option<Vec<Verdict>>, Error> {
        self.receiver.receive().await
    }

    /// Two halves, for two tasks.
    #[must_use]
    pub fn split(self) -> (DecisionSender, DecisionReceiver) {
        (self.sender, self.receiver)
    }
}

impl DecisionSender {
    /// Asks about attempts; waits while [`STREAM_MESSAGES_MAX`] messages wait.
    ///
    /// # Errors
    /// The stream is closed; [`DecisionReceiver::receive`] tells why.
    pub async fn send(&self, attempts: Vec<Attempt>) -> Result<(), Error> {
        self.0.send(DecideStreamRequest { attempts }).await.map_err(|_| Error::Closed)
    }
}

impl DecisionReceiver {
    /// The next verdicts; `None` at the end.
    ///
    /// # Errors
    /// The stream broke: every attempt without a verdict is denied.
    pub async fn receive(&mut self) -> Result<Option<Vec<Verdict>>, Error> {
        Ok(self.0.message().await?.map(|response| response.verdicts))
    }
}

/// The sending end, and what the call reads.
pub(crate) fn queue<M>() -> (mpsc::Sender<M>, ReceiverStream<M>) {
    let (sender, receiver) = mpsc::channel(STREAM_MESSAGES_MAX);
    (sender, ReceiverStream::new(receiver))
}
