//! A client for enforcement points: asks Cardea about access attempts and tells it what changes.
//!
//! ```no_run
//! use cardea_client::{Client, VerdictExt, attempt, entity};
//!
//! # async fn run() -> Result<(), cardea_client::Error> {
//! let mut cardea = Client::connect("http://127.0.0.1:7411").await?;
//! let verdict = cardea.decide(attempt(entity("Agent", "support-bot"), "read", entity("Table", "crm/tickets"))).await;
//! // Anything but an explicit allow stops the action: deny, step-up, and every error.
//! if verdict.is_ok_and(|verdict| verdict.is_allowed()) {
//!     // run the action
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Failing closed
//!
//! [`VerdictExt::is_allowed`] is true for an explicit allow only. A call that fails, for whatever reason, is an
//! [`Error`]: **treat it as deny**. A [`Client`] never answers by itself, never retries a decision, and never reuses
//! an answer. A [`CachedClient`] reuses allows for as long as their leases say.
//!
//! A [`Client`] is cheap to clone; clones share one HTTP/2 connection, which is opened again when it breaks.
//! Messages are those of the wire, re-exported as [`v1`]. Limits: [`STREAM_MESSAGES_MAX`] messages wait in a
//! [`DecisionStream`]; attempts per message, and sizes, are the service's to check.

mod admin;
mod cache;
mod client;
mod clock;
mod endpoint;
mod error;
mod hold;
mod stream;
mod work;

pub use cardea_proto::v1;

pub use self::{
    admin::{CHANGE_TIMEOUT, Candidate},
    cache::{Answer, CachedClient, Holding},
    client::{Client, Records},
    endpoint::{Endpoint, Tls},
    error::Error,
    hold::{HoldReceiver, HoldSender, HoldStream},
    stream::{DecisionReceiver, DecisionSender, DecisionStream, STREAM_MESSAGES_MAX},
};

/// An entity, as Cedar writes it: `Type::"id"`.
pub fn entity(type_name: impl Into<String>, id: impl Into<String>) -> v1::EntityRef {
    v1::EntityRef { r#type: type_name.into(), id: id.into() }
}

/// An attempt of which nothing more is known; add the rest with struct update syntax.
///
/// ```
/// use cardea_client::{attempt, entity, v1};
///
/// let attempt = v1::Attempt {
///     session_id: "run-17".into(),
///     delegation: vec![entity("Person", "nora")],
///     ..attempt(entity("Agent", "support-bot"), "export", entity("Table", "crm/tickets"))
/// };
/// assert_eq!(attempt.session_id, "run-17");
/// ```
pub fn attempt(
    principal: v1::EntityRef,
    action_id: impl Into<String>,
    resource: v1::EntityRef,
) -> v1::Attempt {
    v1::Attempt {
        principal: Some(principal),
        action: Some(entity("", action_id)),
        resource: Some(resource),
        ..v1::Attempt::default()
    }
}

/// What an enforcement point asks of a verdict.
pub trait VerdictExt {
    /// True for an explicit allow that asks for nothing in return. Deny, step-up, a decision that this client does
    /// not know, and an allow with obligations are false.
    fn is_allowed(&self) -> bool;

    /// As [`VerdictExt::is_allowed`], for an enforcement point that can carry out obligations: true for an explicit
    /// allow each of whose obligations `can_do` accepts. Carry them out, then run the action.
    ///
    /// ```
    /// use cardea_client::{VerdictExt, v1};
    ///
    /// let verdict = v1::Verdict {
    ///     decision: v1::Decision::Allow.into(),
    ///     obligations: vec!["watermark".into()],
    ///     ..v1::Verdict::default()
    /// };
    /// assert!(!verdict.is_allowed());
    /// assert!(verdict.is_allowed_with(|obligation| obligation == "watermark"));
    /// ```
    fn is_allowed_with(&self, can_do: impl Fn(&str) -> bool) -> bool;

    /// The step-up requirements, if meeting them may turn the answer; `None` for an allow and a deny.
    fn step_up_requirements(&self) -> Option<&[v1::StepUpRequirement]>;
}

impl VerdictExt for v1::Verdict {
    fn is_allowed(&self) -> bool {
        self.is_allowed_with(|_| false)
    }

    fn is_allowed_with(&self, can_do: impl Fn(&str) -> bool) -> bool {
        self.decision() == v1::Decision::Allow && self.obligations.iter().all(|obligation| can_do(obligation))
    }

    fn step_up_requirements(&self) -> Option<&[v1::StepUpRequirement]> {
        (self.decision() == v1::Decision::StepUp).then_some(&self.step_up)
    }
}

#[cfg(test)]
mod tests;
