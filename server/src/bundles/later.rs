//! An offer that was refused for a reason that may pass while the source stays as it is: the time for it comes, trust.toml
//! changes, the disk has room again.
//!
//! Limits: one offer, the last. Never does: judging; what is due is offered again like anything else.

use cardea_policy_store::trust::Refusal;

use super::Refused;
use super::local::Fingerprint;
use crate::limits;

/// See the module.
#[derive(Debug)]
pub(super) struct Later {
    bytes: Vec<u8>,
    due: Due,
}

#[derive(Debug)]
enum Due {
    /// From this instant on, Unix milliseconds.
    At(i64),
    /// Once trust.toml is no more what it was.
    TrustDiffers(Option<Fingerprint>),
}

impl Later {
    /// The offer, if what speaks against it may pass. `trust` is what trust.toml was when it was read.
    pub(super) fn after(
        refused: &Refused,
        bytes: Vec<u8>,
        trust: Option<Fingerprint>,
        wall_ms: i64,
    ) -> Option<Self> {
        let due = match refused {
            Refused::Rule(Refusal::NotYetValid(from)) => Due::At(from.unix_ms()),
            Refused::Rule(
                Refusal::TooFewKeys { .. }
                | Refusal::BadSignature(_)
                | Refusal::WrongName { .. }
                | Refusal::Evidence { .. },
            )
            | Refused::Trust(_) => Due::TrustDiffers(trust),
            Refused::Disk(_) => {
                let pause = i64::try_from(limits::BUNDLE_STORE_RETRY.as_millis()).unwrap_or(i64::MAX);
                Due::At(wall_ms.saturating_add(pause))
            }
            Refused::Rule(
                Refusal::Malformed(_)
                | Refusal::Unsigned
                | Refusal::Envelope(_)
                | Refusal::Statement(_)
                | Refusal::EvidenceMismatch { .. }
                | Refusal::Expired(_),
            )
            | Refused::DirectoryUnsigned
            | Refused::Faults(_)
            | Refused::RolledBack { .. }
            | Refused::Reused(_)
            | Refused::NotKept(_)
            | Refused::Unreadable(..)
            | Refused::NotHigher(_) => return None,
        };
        Some(Self { bytes, due })
    }

    /// Whether it is worth another try.
    pub(super) fn is_due(&self, wall_ms: i64, trust: impl FnOnce() -> Option<Fingerprint>) -> bool {
        match &self.due {
            Due::At(from) => *from <= wall_ms,
            Due::TrustDiffers(was) => trust() != *was,
        }
    }

    /// The packed bundle.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
