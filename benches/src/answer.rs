//! Reading answers at little cost: only the decision is decoded, the rest of the message is skipped over.
//!
//! Owns the cutting of gRPC frames out of a byte stream and the check that an answer is the expected one.

use bytes::{Buf as _, Bytes, BytesMut};
use cardea_proto::v1::Decision;
use clap::ValueEnum;
use prost::Message;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::call::{Mode, PREFIX_BYTES};

/// Longest answer that is accepted, in bytes: what 1024 verdicts of 4 KiB need.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// gRPC status of a denying `CheckResponse`.
const PERMISSION_DENIED: i32 = 7;
/// gRPC status of a `CheckResponse` that asks for more authentication.
const UNAUTHENTICATED: i32 = 16;
/// HTTP status that a step-up answers with.
const HTTP_UNAUTHORIZED: i32 = 401;

/// The decision that every answer must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Allow.
    Allow,
    /// Step-up.
    StepUp,
    /// Deny.
    Deny,
    /// Any of the three.
    Any,
}

/// What is wrong with an answer.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AnswerError {
    /// Not a message of this door.
    #[error("the answer cannot be read: {0}")]
    Malformed(&'static str),
    /// Fewer or more verdicts than attempts.
    #[error("{got} verdicts for {want} attempts")]
    Count {
        /// Verdicts in the answer.
        got: usize,
        /// Attempts in the call.
        want: u32,
    },
    /// A decision other than the expected one.
    #[error("decided {got:?} where {want:?} was expected")]
    Decision {
        /// What the answer says.
        got: Decision,
        /// What was expected.
        want: Expect,
    },
}

impl Expect {
    fn check(self, got: Decision) -> Result<(), AnswerError> {
        let met = match (self, got) {
            (_, Decision::Unspecified) => false,
            (Self::Any, _) => true,
            (Self::Allow, _) => got == Decision::Allow,
            (Self::StepUp, _) => got == Decision::StepUp,
            (Self::Deny, _) => got == Decision::Deny,
        };
        if met { Ok(()) } else { Err(AnswerError::Decision { got, want: self }) }
    }
}

/// Checks a whole answer of a call with `attempts` attempts.
///
/// # Errors
/// When it cannot be read, has another number of verdicts, or a decision that is not expected.
pub fn check(mode: Mode, message: &[u8], attempts: u32, expect: Expect) -> Result<(), AnswerError> {
    match mode {
        Mode::Unary | Mode::Batch | Mode::Stream => {
            let got = check_verdicts(message, expect)?;
            if u32::try_from(got) == Ok(attempts) {
                Ok(())
            } else {
                Err(AnswerError::Count { got, want: attempts })
            }
        }
        Mode::Check => {
            let answer = CheckAnswer::decode(message)
                .map_err(|_error| AnswerError::Malformed("not a check response"))?;
            expect.check(answer.decision())
        }
    }
}

/// Checks the decisions of a message of verdicts and returns how many there are.
///
/// # Errors
/// When it cannot be read or a decision is not expected.
pub fn check_verdicts(message: &[u8], expect: Expect) -> Result<usize, AnswerError> {
    let answer =
        Verdicts::decode(message).map_err(|_error| AnswerError::Malformed("not a list of verdicts"))?;
    for verdict in &answer.verdicts {
        expect.check(Decision::try_from(verdict.decision).unwrap_or(Decision::Unspecified))?;
    }
    Ok(answer.verdicts.len())
}

/// Cuts the next whole gRPC message off the front of `buffer`; `None` when more bytes are needed.
///
/// # Errors
/// When the message is compressed or longer than [`ANSWER_BYTES_MAX`].
pub fn next_message(buffer: &mut BytesMut) -> Result<Option<Bytes>, AnswerError> {
    let Some((&[flag, a, b, c, d], _)) = buffer.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    if flag != 0 {
        return Err(AnswerError::Malformed("compressed, which nobody asked for"));
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > ANSWER_BYTES_MAX {
        return Err(AnswerError::Malformed("longer than the maximum"));
    }
    if buffer.len() < PREFIX_BYTES + length {
        return Ok(None);
    }
    buffer.advance(PREFIX_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// `DecideResponse`, `DecideBatchResponse` and `DecideStreamResponse` alike: field 1 holds the verdicts.
#[derive(Clone, PartialEq, Message)]
struct Verdicts {
    #[prost(message, repeated, tag = "1")]
    verdicts: Vec<VerdictHead>,
}

#[derive(Clone, PartialEq, Message)]
struct VerdictHead {
    #[prost(int32, tag = "2")]
    decision: i32,
}

/// `CheckResponse`, as far as it tells the decision.
#[derive(Clone, PartialEq, Message)]
struct CheckAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<CheckStatus>,
    #[prost(message, optional, tag = "2")]
    denied: Option<CheckDenied>,
}

#[derive(Clone, PartialEq, Message)]
struct CheckStatus {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct CheckDenied {
    #[prost(message, optional, tag = "1")]
    status: Option<HttpStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct HttpStatus {
    #[prost(int32, tag = "1")]
    code: i32,
}

impl CheckAnswer {
    /// Envoy lets a request through on status OK alone; 401 is how this door says step-up.
    fn decision(&self) -> Decision {
        let http = self.denied.as_ref().and_then(|denied| denied.status.as_ref()).map(|status| status.code);
        match self.status.as_ref().map(|status| status.code) {
            // Without a status the code is 0 by the wire's rules, and Envoy reads it so.
            None | Some(0) => Decision::Allow,
            Some(UNAUTHENTICATED | PERMISSION_DENIED) if http == Some(HTTP_UNAUTHORIZED) => Decision::StepUp,
            Some(UNAUTHENTICATED | PERMISSION_DENIED) => Decision::Deny,
            Some(_) => Decision::Unspecified,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut as _;
    use cardea_proto::v1::{DecideBatchResponse, DecideResponse, Verdict};
    use envoy_types::pb::{
        envoy::{
            service::auth::v3::{CheckResponse, DeniedHttpResponse, check_response::HttpResponse},
            r#type::v3::HttpStatus as EnvoyStatus,
        },
        google::rpc::Status,
    };

    use super::*;

    fn verdict(decision: Decision) -> Verdict {
        Verdict {
            attempt_id: "a".to_owned(),
            decision: decision.into(),
            decision_id: "d".to_owned(),
            ..Verdict::default()
        }
    }

    #[test]
    fn only_the_expected_decision_passes() {
        let bytes = DecideResponse { verdict: Some(verdict(Decision::Deny)) }.encode_to_vec();
        assert_eq!(check(Mode::Unary, &bytes, 1, Expect::Deny), Ok(()));
        assert_eq!(check(Mode::Unary, &bytes, 1, Expect::Any), Ok(()));
        let wrong = AnswerError::Decision { got: Decision::Deny, want: Expect::Allow };
        assert_eq!(check(Mode::Unary, &bytes, 1, Expect::Allow), Err(wrong));
        assert!(check(Mode::Unary, &[], 1, Expect::Any).is_err(), "no verdict at all");
        let silent = DecideResponse { verdict: Some(verdict(Decision::Unspecified)) }.encode_to_vec();
        assert!(check(Mode::Unary, &silent, 1, Expect::Any).is_err(), "undecided is no answer");
    }

    #[test]
    fn one_wrong_decision_fails_a_batch_and_so_does_a_missing_one() {
        let verdicts = [Decision::Allow, Decision::Allow, Decision::StepUp].map(verdict).to_vec();
        let bytes = DecideBatchResponse { verdicts }.encode_to_vec();
        assert_eq!(check(Mode::Batch, &bytes, 3, Expect::Any), Ok(()));
        assert!(check(Mode::Batch, &bytes, 3, Expect::Allow).is_err());
        assert_eq!(check(Mode::Batch, &bytes, 4, Expect::Any), Err(AnswerError::Count { got: 3, want: 4 }));
    }

    #[test]
    fn a_check_response_tells_allow_step_up_and_deny_apart() {
        let response = |code: i32, http: Option<i32>| {
            let denied = |code| DeniedHttpResponse {
                status: Some(EnvoyStatus { code }),
                ..DeniedHttpResponse::default()
            };
            CheckResponse {
                status: Some(Status { code, ..Status::default() }),
                http_response: http.map(|code| HttpResponse::DeniedResponse(denied(code))),
                ..CheckResponse::default()
            }
            .encode_to_vec()
        };
        assert_eq!(check(Mode::Check, &response(0, None), 1, Expect::Allow), Ok(()));
        assert_eq!(check(Mode::Check, &response(7, Some(403)), 1, Expect::Deny), Ok(()));
        assert_eq!(check(Mode::Check, &response(7, Some(401)), 1, Expect::StepUp), Ok(()));
        assert_eq!(check(Mode::Check, &response(16, Some(401)), 1, Expect::StepUp), Ok(()));
        assert!(check(Mode::Check, &response(13, None), 1, Expect::Any).is_err());
    }

    #[test]
    fn messages_are_cut_whole_from_split_bytes() {
        let mut buffer = BytesMut::from(&[0, 0, 0, 0, 2, 7][..]);
        assert_eq!(next_message(&mut buffer), Ok(None));
        buffer.put_slice(&[8, 0, 0]);
        assert_eq!(next_message(&mut buffer), Ok(Some(Bytes::from_static(&[7, 8]))));
        assert_eq!(next_message(&mut buffer), Ok(None));
        assert!(next_message(&mut BytesMut::from(&[1, 0, 0, 0, 0][..])).is_err());
        assert!(next_message(&mut BytesMut::from(&[0, 255, 0, 0, 0][..])).is_err());
    }
}
