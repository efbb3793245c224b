//! Bundles of Cedar policy: read, validated, and compiled into an immutable [`snapshot::Snapshot`] whose scope
//! index finds the policies that can matter to a question by lookup.
//!
//! Knows no transport and no clock. Data flows one way: files, [`load`], [`snapshot`], [`store`].

pub mod engine;
pub mod fault;
pub mod fragment;
pub mod index;
pub mod lint;
pub mod load;
pub mod routes;
pub mod settings;
pub mod shape;
pub mod snapshot;
pub mod store;
