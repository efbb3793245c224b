//! How well behaviour monitoring works on recorded attempts of others: the parts of the `monitoring` bench.

pub mod agents;
pub mod burst;
pub mod cost;
pub mod data;
pub mod decision;
pub mod machines;
pub mod table;
