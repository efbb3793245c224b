//! The harness of the end-to-end tests: real processes, real sockets, nothing simulated.
//!
//! Owns: starting `cardea`, Envoy, a registry, nginx, Kafka and NATS as child processes on free ports, an upstream that
//! remembers what reached it, small clients, test certificates and tokens. Everything is taken down when its guard is dropped, and then each
//! process prints its log, which the test runner shows for a failed test only.
//! Limits: [`wait::LIMIT`] for anything to happen; [`process::LOG_LINES_MAX`] lines of each process's log.
//! Never does: judging what a test expects.

pub mod attempts;
pub mod audit;
pub mod bundle;
pub mod cardea;
pub mod certs;
pub mod clients;
pub mod collector;
pub mod duckdb;
pub mod envoy;
pub mod hold;
pub mod http;
pub mod kafka;
pub mod nats;
pub mod nginx;
pub mod process;
pub mod raw;
pub mod registry;
pub mod registry_tokens;
pub mod remote;
pub mod scripted;
pub mod signed;
pub mod stack;
pub mod token;
pub mod transmitter;
pub mod upstream;
pub mod wait;
