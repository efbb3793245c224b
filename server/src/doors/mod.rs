//! The doors: each reads attempts from its wire and puts verdicts into its words. No door decides anything.
//!
//! Only this module and the services beside it know wire types.

mod admin;
pub mod ext_authz;
mod native;
mod sessions;
mod signals;
mod wire;

pub use admin::AdminDoor;
pub use native::NativeDoor;
pub use sessions::SessionDoor;
pub use signals::SignalDoor;
pub use wire::{decision, reason_code};
