//! The receiver: what other parties tell by security event tokens, and what becomes of it.
pub(crate) mod client;
pub(crate) mod metadata;
pub mod options;
mod plan;
mod subjects;

pub use client::Login;
