//! Shared signals: the words of the Shared Signals Framework 1.0, CAEP 1.0 and RISC 1.0.
//!
//! `subject.rs` and `event.rs` are what a security event token tells, as plain data in both directions. Arrows point
//! one way: those who receive or transmit read these, and these know no transport, clock or key.
//! Never does: believing anything; only a verified token is believed.

pub mod address;
pub mod event;
pub(crate) mod guard;
pub mod http;
pub mod json;
pub mod jwk;
mod keys;
pub mod receive;
pub mod set;
pub mod subject;
pub mod transmit;

#[cfg(test)]
pub(crate) mod testing;
