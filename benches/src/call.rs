//! What a call is: its door, its path, and its message bytes, encoded once before the clock starts.

use bytes::{BufMut as _, Bytes, BytesMut};
use cardea_proto::v1;
use clap::ValueEnum;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::request::Variant;

/// Most attempts that one batch or stream message may carry; the wire's own maximum.
pub const BATCH_MAX: u32 = 1024;

/// Which door the load goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// `DecisionService.Decide`: one attempt a call.
    Unary,
    /// `DecisionService.DecideBatch`: many attempts a call.
    Batch,
    /// `DecisionService.DecideStream`: one long call, many attempts a message. A "call" is one message.
    Stream,
    /// Envoy's `Authorization.Check`.
    Check,
}

impl Mode {
    /// The HTTP/2 path.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Unary => "/cardea.v1.DecisionService/Decide",
            Self::Batch => "/cardea.v1.DecisionService/DecideBatch",
            Self::Stream => "/cardea.v1.DecisionService/DecideStream",
            Self::Check => "/envoy.service.auth.v3.Authorization/Check",
        }
    }

    /// Name as the command line and the tables write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Batch => "batch",
            Self::Stream => "stream",
            Self::Check => "check",
        }
    }

    /// Whether a call carries many attempts.
    #[must_use]
    pub fn is_batched(self) -> bool {
        match self {
            Self::Batch | Self::Stream => true,
            Self::Unary | Self::Check => false,
        }
    }
}

/// The calls of a run: encoded gRPC frames, taken in turn.
#[derive(Clone, Debug)]
pub struct Calls {
    mode: Mode,
    attempts_per_call: u32,
    frames: Vec<Bytes>,
}

impl Calls {
    /// Encodes one frame for each of `variants`; in a batched mode each frame holds `batch` attempts (at least
    /// one, at most [`BATCH_MAX`]), starting at its own variant. `None` when there are no variants.
    #[must_use]
    pub fn encode(mode: Mode, batch: u32, variants: &[Variant]) -> Option<Self> {
        let attempts_per_call = if mode.is_batched() { batch.clamp(1, BATCH_MAX) } else { 1 };
        let frames: Vec<Bytes> = (0..variants.len())
            .map(|first| {
                let mut turn = variants.iter().cycle().skip(first);
                let mut attempts =
                    || turn.by_ref().take(attempts_per_call as usize).map(|v| v.attempt.clone()).collect();
                match mode {
                    Mode::Unary => {
                        frame(&v1::DecideRequest { attempt: turn.next().map(|v| v.attempt.clone()) })
                    }
                    Mode::Batch => frame(&v1::DecideBatchRequest { attempts: attempts() }),
                    Mode::Stream => frame(&v1::DecideStreamRequest { attempts: attempts() }),
                    Mode::Check => turn.next().map_or_else(Bytes::new, |v| frame(&v.check)),
                }
            })
            .collect();
        if frames.is_empty() { None } else { Some(Self { mode, attempts_per_call, frames }) }
    }

    /// The door.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Attempts in each call.
    #[must_use]
    pub fn attempts_per_call(&self) -> u32 {
        self.attempts_per_call
    }

    /// The frame of call number `turn`; wraps around.
    #[must_use]
    pub fn frame(&self, turn: u64) -> Bytes {
        let count = self.frames.len() as u64;
        let index = usize::try_from(turn % count.max(1)).unwrap_or(0);
        // INVARIANT (some frames): `encode` builds no `Calls` without a frame.
        self.frames.get(index).cloned().unwrap_or_default()
    }

    /// Length of the first message in bytes, without the gRPC prefix.
    #[must_use]
    pub fn message_bytes(&self) -> u64 {
        (self.frame(0).len() as u64).saturating_sub(PREFIX_BYTES as u64)
    }
}

/// Length of gRPC's frame prefix: a compression flag and a 32-bit length.
pub const PREFIX_BYTES: usize = 5;

fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut buffer = BytesMut::with_capacity(PREFIX_BYTES + length);
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // A growable buffer has room for every message.
    let _ = message.encode(&mut buffer);
    buffer.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{DEFAULT_REQUEST, Overrides, variant};

    fn variants(count: u32) -> Vec<Variant> {
        (0..count).map(|n| variant(DEFAULT_REQUEST, n, &Overrides::default()).unwrap()).collect()
    }

    #[test]
    fn a_batch_frame_holds_its_attempts_from_its_own_variant_on() {
        let calls = Calls::encode(Mode::Batch, 4, &variants(3)).unwrap();
        assert_eq!(calls.attempts_per_call(), 4);
        let frame = calls.frame(4);
        let message = v1::DecideBatchRequest::decode(&frame[PREFIX_BYTES..]).unwrap();
        let ids: Vec<_> = message.attempts.iter().map(|attempt| attempt.id.as_str()).collect();
        assert_eq!(ids, ["attempt-1", "attempt-2", "attempt-0", "attempt-1"]);
        assert_eq!(frame[0], 0);
        assert_eq!(u32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize, frame.len() - 5);
    }

    #[test]
    fn a_unary_call_carries_one_attempt_whatever_the_batch_says() {
        let calls = Calls::encode(Mode::Unary, 64, &variants(1)).unwrap();
        assert_eq!(calls.attempts_per_call(), 1);
        let message = v1::DecideRequest::decode(&calls.frame(9)[PREFIX_BYTES..]).unwrap();
        assert_eq!(message.attempt.unwrap().id, "attempt-0");
        assert!(Calls::encode(Mode::Unary, 1, &[]).is_none());
    }
}
