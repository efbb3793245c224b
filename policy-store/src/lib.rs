//! Bundles of Cedar policy: read, validated, and compiled into an immutable [`snapshot::Snapshot`] whose scope
//! index finds the policies that can matter to a question by lookup.
//!
//! Knows no transport and no clock. Data flows one way: [`pack`], [`trust`], files, [`load`], [`snapshot`], [`store`].

pub mod approvals;
pub mod counters;
pub mod digest;
pub mod disk;
pub mod dsse;
pub mod engine;
pub mod fault;
pub mod fragment;
pub mod index;
pub mod keys;
pub mod lint;
pub mod load;
pub mod manifest;
pub mod masks;
pub mod observing;
pub mod pack;
pub mod responses;
pub mod routes;
pub mod settings;
pub mod shape;
pub mod snapshot;
pub mod stamp;
pub mod statement;
pub mod store;
pub mod times;
pub mod trust;
