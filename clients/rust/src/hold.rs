//! A Hold stream: an enforcement point registers the allows it acts on, and is told when an answer changes.
//!
//! At most [`STREAM_MESSAGES_MAX`](crate::STREAM_MESSAGES_MAX) messages wait to be sent; then sending waits.

use tokio::sync::mpsc;
use tonic::Streaming;

use crate::Error;
use crate::v1::hold_request::Part;
use crate::v1::{HoldAdd, HoldAttempt, HoldDrop, HoldOpen, HoldRequest, HoldResponse, hold_response};

/// Both halves of a stream.
///
/// ```no_run
/// # use cardea_client::{Client, VerdictExt, attempt, entity, v1};
/// # async fn run(cardea: &mut Client) -> Result<(), cardea_client::Error> {
/// let mut holds = cardea.hold(v1::HoldOpen { enforcement_point: "db-proxy-1".into(), ..Default::default() }).await?;
/// let query = attempt(entity("Agent", "etl"), "query", entity("Table", "crm/tickets"));
/// holds.add(vec![v1::HoldAttempt { hold_id: 1, attempt: Some(query) }]).await?;
/// while let Some(told) = holds.receive().await? {
///     match told {
///         v1::hold_response::Part::Verdicts(told) => {
///             for hold in told.verdicts {
///                 if !hold.verdict.is_some_and(|verdict| verdict.is_allowed()) {
///                     // end what goes on under `hold.hold_id`
///                 }
///             }
///         }
///         v1::hold_response::Part::Forget(_) => { /* end everything, register again */ }
///         v1::hold_response::Part::Opened(_) | v1::hold_response::Part::Heartbeat(_) => {}
///     }
/// }
/// // The stream is over: open another, and tell its `resume_token` to go on where this one ended.
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct HoldStream {
    sender: HoldSender,
    receiver: HoldReceiver,
}

/// The half that registers. Dropping the last clone ends the stream.
#[derive(Clone, Debug)]
pub struct HoldSender(mpsc::Sender<HoldRequest>);

/// The half that is told.
#[derive(Debug)]
pub struct HoldReceiver(Streaming<HoldResponse>);

impl HoldStream {
    pub(crate) fn new(sender: mpsc::Sender<HoldRequest>, receiver: Streaming<HoldResponse>) -> Self {
        Self { sender: HoldSender(sender), receiver: HoldReceiver(receiver) }
    }

    /// Registers attempts, whose answers are told from now on.
    ///
    /// # Errors
    /// The stream is closed; [`HoldStream::receive`] tells why.
    pub async fn add(&mut self, holds: Vec<HoldAttempt>) -> Result<(), Error> {
        self.sender.add(holds).await
    }

    /// Gives up holds.
    ///
    /// # Errors
    /// The stream is closed; [`HoldStream::receive`] tells why.
    pub async fn drop_holds(&mut self, hold_ids: Vec<u64>) -> Result<(), Error> {
        self.sender.drop_holds(hold_ids).await
    }

    /// What is told next; `None` at the end.
    ///
    /// # Errors
    /// The stream broke: what was held counts only for as long as the bundle says.
    pub async fn receive(&mut self) -> Result<Option<hold_response::Part>, Error> {
        self.receiver.receive().await
    }

    /// Two halves, for two tasks.
    #[must_use]
    pub fn split(self) -> (HoldSender, HoldReceiver) {
        (self.sender, self.receiver)
    }
}

impl HoldSender {
    /// As [`HoldStream::add`].
    ///
    /// # Errors
    /// The stream is closed; [`HoldReceiver::receive`] tells why.
    pub async fn add(&self, holds: Vec<HoldAttempt>) -> Result<(), Error> {
        self.send(Part::Add(HoldAdd { holds })).await
    }

    /// As [`HoldStream::drop_holds`].
    ///
    /// # Errors
    /// The stream is closed; [`HoldReceiver::receive`] tells why.
    pub async fn drop_holds(&self, hold_ids: Vec<u64>) -> Result<(), Error> {
        self.send(Part::Drop(HoldDrop { hold_ids })).await
    }

    async fn send(&self, part: Part) -> Result<(), Error> {
        self.0.send(HoldRequest { part: Some(part) }).await.map_err(|_| Error::Closed)
    }

    /// A place for one message, once there is one.
    pub(crate) async fn place(&self) -> Result<Place<'_>, Error> {
        self.0.reserve().await.map(Place).map_err(|_| Error::Closed)
    }
}

/// A place in the queue of messages.
pub(crate) struct Place<'s>(mpsc::Permit<'s, HoldRequest>);

impl Place<'_> {
    pub(crate) fn fill(self, part: Part) {
        self.0.send(HoldRequest { part: Some(part) });
    }
}

impl HoldReceiver {
    /// As [`HoldStream::receive`].
    ///
    /// # Errors
    /// The stream broke: what was held counts only for as long as the bundle says.
    pub async fn receive(&mut self) -> Result<Option<hold_response::Part>, Error> {
        while let Some(response) = self.0.message().await? {
            // A part that this client does not know says nothing to it.
            if let Some(part) = response.part {
                return Ok(Some(part));
            }
        }
        Ok(None)
    }
}

/// The first message of a stream.
pub(crate) fn opening(open: HoldOpen) -> HoldRequest {
    HoldRequest { part: Some(Part::Open(open)) }
}
