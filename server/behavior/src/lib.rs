//! Behaviour: what an identity does, compared with what was approved, while it can still be stopped.
//!
//! [`Approved`] is what approved runs did, as plain data, kept in a file ([`Kept`]); [`Baseline`] is the same compiled for looking up, immutable;
//! [`SessionBehavior`] is what one session did so far; [`compare`](compare::compare) says how an attempt deviates and
//! [`BurstDetector`] how unusual its rate is. Evidence in words is made by [`evidence::evidence`], only when somebody asks.
//!
//! An attempt costs a handful of look-ups and no allocation, whether it deviates or not. INVARIANT (never habitual):
//! nothing that an attempt does changes a baseline, and a session's state never answers whether something was approved, so
//! a deviation that is repeated a thousand times deviates a thousand times. INVARIANT (unforgeable): fingerprints are keyed, with a key
//! that is chosen when baselines are compiled and never stored; who picks a target cannot pick one that looks approved.

pub mod approved;
mod assess;
pub mod attempt;
pub mod baseline;
pub mod burst;
pub mod class;
pub mod classes;
pub mod compare;
pub mod deviation;
pub mod evidence;
pub mod find;
pub mod fingerprint;
pub mod kept;
pub mod observe;
pub mod promoted;
pub mod rules;
pub mod session;

pub use approved::{Approved, Step};
pub use attempt::{Baselines, Observed, Scope};
pub use baseline::Baseline;
pub use burst::BurstDetector;
pub use class::{ActionClass, Hints};
pub use classes::Classes;
pub use compare::compare;
pub use deviation::{Assessment, Deviation, Flag, Flags, Response};
pub use fingerprint::{Fingerprint, Key};
pub use kept::Kept;
pub use promoted::Promotion;
pub use rules::Rules;
pub use session::SessionBehavior;

#[cfg(test)]
mod tests;
