//! The pure core: attempts, facts, [`decide::decide`], verdicts, and the state machines behind the facts.
//!
//! No I/O, no clock, no runtime, no randomness: time is an argument, and the same inputs give the same verdict on
//! every node. Only doors build attempts, only `decide` builds an allow.

pub mod ask;
pub mod asked;
pub mod attempt;
pub mod boundary;
pub mod comparison;
pub mod consequences;
pub mod counters;
pub mod decide;
pub mod delegation;
pub mod facts;
pub mod grant;
pub mod named;
pub mod observed;
pub mod posture;
pub mod reason;
pub mod review;
pub mod risk;
pub mod session;
pub mod subject;
pub mod task;
pub mod time;
pub mod verdict;

/// What an identity does, compared with what was approved.
pub use cardea_behavior as behavior;
