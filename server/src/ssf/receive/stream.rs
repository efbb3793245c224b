//! What is known of the stream with one transmitter.

use parking_lot::Mutex;
use smol_str::SmolStr;

use super::super::address::Address;
use super::super::event::{StreamStatus, What};
use super::super::set::{ErrorCode, Refusal};
use super::super::subject::{Simple, Subject};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Stream(Mutex<Known>);

#[derive(Clone, Debug, Default)]
struct Known {
    id: Option<SmolStr>,
    status: Option<StreamStatus>,
    /// What the transmitter was asked to say, until it says it.
    asked: Option<SmolStr>,
    /// Verifications that came.
    verified: u64,
    /// Members of subjects that its metadata calls critical.
    critical: Vec<SmolStr>,
    /// Where its tokens are fetched, as it says.
    poll_endpoint: Option<Address>,
}

impl Stream {
    pub(crate) fn id(&self) -> Option<SmolStr> {
        self.0.lock().id.clone()
    }

    pub(crate) fn set_id(&self, id: Option<SmolStr>) {
        self.0.lock().id = id;
    }

    pub(crate) fn poll_endpoint(&self) -> Option<Address> {
        self.0.lock().poll_endpoint.clone()
    }

    pub(crate) fn set_poll_endpoint(&self, at: Option<Address>) {
        self.0.lock().poll_endpoint = at;
    }

    pub(crate) fn status(&self) -> Option<StreamStatus> {
        self.0.lock().status
    }

    pub(crate) fn set_status(&self, status: StreamStatus) {
        self.0.lock().status = Some(status);
    }

    pub(crate) fn critical(&self) -> Vec<SmolStr> {
        self.0.lock().critical.clone()
    }

    pub(crate) fn set_critical(&self, critical: Vec<SmolStr>) {
        self.0.lock().critical = critical;
    }

    /// A verification with this state is asked for.
    pub(crate) fn ask(&self, state: SmolStr) {
        self.0.lock().asked = Some(state);
    }

    /// Verifications that came so far.
    pub(crate) fn verified(&self) -> u64 {
        self.0.lock().verified
    }

    /// Takes in an event about the stream. Only a stream that is kept from here is known well enough to refuse one.
    pub(crate) fn hear(&self, what: &What, subject: &Subject) -> Result<(), Refusal> {
        let mut known = self.0.lock();
        if let (Some(id), Subject::Simple(Simple::Opaque { id: told })) = (&known.id, subject)
            && id != told
        {
            let why = "the event speaks of another stream than the one with this receiver";
            return Err(Refusal::new(ErrorCode::InvalidRequest, why));
        }
        if let What::StreamUpdated { status, .. } = what {
            known.status = Some(*status);
        }
        if let What::Verification { state } = what {
            let is_asked = state.is_none() || known.asked == *state;
            if known.id.is_some() && !is_asked {
                let why = "`state` is not the one that was asked for";
                return Err(Refusal::new(ErrorCode::InvalidState, why));
            }
            if state.is_some() {
                known.asked = None;
            }
            known.verified += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verification(state: Option<&str>) -> What {
        What::Verification { state: state.map(SmolStr::from) }
    }

    fn of(id: &str) -> Subject {
        Subject::Simple(Simple::Opaque { id: id.into() })
    }

    #[test]
    fn a_verification_holds_once_and_with_the_state_that_was_asked_for() {
        let stream = Stream::default();
        stream.set_id(Some("s1".into()));
        let heard = |state| stream.hear(&verification(state), &of("s1")).map_err(|refusal| refusal.code);
        assert_eq!(heard(Some("x")), Err(ErrorCode::InvalidState), "nobody asked");
        assert_eq!(heard(None), Ok(()), "the transmitter's own");
        stream.ask("x".into());
        assert_eq!(heard(Some("y")), Err(ErrorCode::InvalidState));
        assert_eq!(heard(Some("x")), Ok(()));
        assert_eq!(heard(Some("x")), Err(ErrorCode::InvalidState), "not a second time");
        assert_eq!(stream.verified(), 2);
        let other = stream.hear(&verification(None), &of("s2")).unwrap_err();
        assert_eq!(other.code, ErrorCode::InvalidRequest);
    }

    #[test]
    fn a_stream_that_somebody_else_keeps_is_taken_at_its_word() {
        let stream = Stream::default();
        assert!(stream.hear(&verification(Some("x")), &of("any")).is_ok());
        let paused = What::StreamUpdated { status: StreamStatus::Paused, reason: None };
        assert!(stream.hear(&paused, &of("any")).is_ok());
        assert_eq!(stream.status(), Some(StreamStatus::Paused));
    }
}
