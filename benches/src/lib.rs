//! Benches of Cardea: what its own work costs, and what the service costs beside one that does nothing.
//!
//! The binaries: `noop` (the service that does nothing), `load` (the load generator), `compare` (both services in
//! turn under the same load, with the machine's noise kept out as far as it can be). See `README.md` for the
//! question that each answers, the command, and how to read the numbers.

pub mod answer;
pub mod call;
pub mod compare;
pub mod drive;
pub mod inside;
pub mod link;
pub mod load;
pub mod monitoring;
pub mod mono;
pub mod noop;
pub mod procfs;
pub mod record;
pub mod request;
mod stream;
