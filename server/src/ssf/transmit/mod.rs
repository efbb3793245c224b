//! placeholder
pub mod conclusion;
mod endpoint;
pub mod options;
mod outbox;
mod receivers;
mod request;
mod signing;
mod streams;
mod subject;
mod urls;
