//! Shared signals.

pub mod transmit;
