//! The Cardea service: listeners, workers, doors and what they stand on.
//!
//! The shell (this crate) owns everything that touches the world: time, sockets, files, threads. What a
//! decision means lives in `cardea-core`, which knows none of it.

pub mod audit;
pub mod bundle_admin;
pub mod bundles;
pub mod cli;
pub mod clock;
pub mod concluding;
pub mod config;
pub mod doors;
mod hidden;
pub mod holds;
pub mod http;
pub mod ledger;
pub mod limits;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod monitor;
pub mod pipeline;
pub mod proving;
pub mod remote;
pub mod reviews;
pub mod router;
pub mod run;
pub mod serve;
pub mod shadow;
pub mod shutdown;
pub mod ssf;
pub mod state;
pub mod supervise;
pub mod workers;
