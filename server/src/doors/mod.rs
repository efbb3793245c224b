//! The doors: each reads attempts from its wire and puts verdicts into its words. No door decides anything.
//!
//! Only this module and the services beside it know wire types.

mod admin;
pub mod ext_authz;
mod native;
mod scores;
mod sessions;
mod signals;
mod wire;

pub use admin::AdminDoor;
pub use native::NativeDoor;
pub(crate) use scores::ScoreDoor;
pub use sessions::SessionDoor;
pub use signals::SignalDoor;
pub use wire::{decision, reason_code};

/// Readers of messages, for scenarios that tell of sessions, signals and attempts without a wire: what they mean and
/// what is refused is the same.
pub(crate) mod told {
    pub(crate) use super::native::read as attempt;
    pub(crate) use super::sessions::{change, read as session};
    pub(crate) use super::signals::signal;
    pub(crate) use super::wire::timestamp;
}
