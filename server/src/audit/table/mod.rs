//! The records as a table, for those who count: one row for each record, the same columns always, and the record itself in the last.
//!
//! ```text
//! Record -> Row -> Batch (Arrow) -> ParquetFile
//!               -> CsvFile
//! ```
//!
//! Owns: the columns, their types, and what fills them for each kind of record. docs/audit.md has what they mean.
//! Promises: as many rows as records, in their order, each with its record whole; a column keeps its name and type, new ones come before
//! the last. What a record does not say is null, and a list that it says is empty is empty.
//! Limits: one batch of at most `BATCH_ROWS_MAX` rows or `BATCH_BYTES_MAX` bytes (give or take one record), and one row group of at most
//! `ROW_GROUP_BYTES_MAX`, at a time; what parquet keeps of each row group until the end is some kilobytes.
//! Never does: choosing records, opening files.

mod batch;
mod csv_file;
mod parquet_file;
mod row;

#[cfg(test)]
mod tests;

pub use batch::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, Batch, schema};
pub use csv_file::CsvFile;
pub use parquet_file::{ParquetFile, ROW_GROUP_BYTES_MAX};
pub use row::Row;

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name, the same in every form.
    pub name: &'static str,
    /// Every row has a value.
    pub is_always: bool,
    /// What it holds, and whence.
    pub of: Of,
}

/// What a column holds, and how a row tells it.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    /// A number, unsigned, 64 bits.
    Number(fn(&Row<'_>) -> Option<u64>),
    /// Milliseconds since 1970, UTC.
    Time(fn(&Row<'_>) -> Option<i64>),
    /// A text.
    Text(for<'r> fn(&'r Row<'_>) -> Option<&'r str>),
    /// A list of texts.
    Texts(for<'r> fn(&'r Row<'_>) -> Option<&'r [String]>),
}

/// All columns, in their order.
pub const COLUMNS: [Column; 37] = [
    always("sequence", Of::Number(|row| Some(row.sequence))),
    column("time", Of::Time(|row| row.time_ms)),
    always("kind", Of::Text(|row| Some(row.kind))),
    column("change", Of::Text(|row| row.change.as_deref())),
    column("decision_id", Of::Text(|row| row.decision_id)),
    column("attempt_id", Of::Text(|row| row.attempt_id)),
    column("door", Of::Text(|row| row.door)),
    column("principal_type", Of::Text(|row| row.principal.map(|one| one.r#type.as_str()))),
    column("principal_id", Of::Text(|row| row.principal.map(|one| one.id.as_str()))),
    column("action", Of::Text(|row| row.action.map(|one| one.id.as_str()))),
    column("resource_type", Of::Text(|row| row.resource.map(|one| one.r#type.as_str()))),
    column("resource_id", Of::Text(|row| row.resource.map(|one| one.id.as_str()))),
    column("session_id", Of::Text(|row| row.session_id)),
    column("task", Of::Text(|row| row.task)),
    column("delegation", Of::Texts(|row| row.delegation.as_deref())),
    column("decision", Of::Text(|row| row.decision.as_deref())),
    column("reasons", Of::Texts(|row| row.reasons.as_deref())),
    column("determining_policies", Of::Texts(|row| row.determining_policies)),
    column("policy_errors", Of::Texts(|row| row.policy_errors)),
    column("step_up", Of::Texts(|row| row.step_up)),
    column("obligations", Of::Texts(|row| row.obligations)),
    column("responses", Of::Texts(|row| row.responses)),
    column("severity", Of::Text(|row| row.severity)),
    column("latency_ns", Of::Number(|row| row.latency_ns)),
    column("bundle_revision", Of::Number(|row| row.bundle_revision)),
    column("bundle_digest", Of::Text(|row| row.bundle_digest)),
    column("state_version", Of::Number(|row| row.state_version)),
    column("enforcement_point", Of::Text(|row| row.enforcement_point)),
    column("hold_before", Of::Text(|row| row.hold_before.as_deref())),
    column("hold_cause", Of::Text(|row| row.hold_cause.as_deref())),
    column("deviation", Of::Texts(|row| row.deviation)),
    column("assessment", Of::Text(|row| row.assessment)),
    column("confidence", Of::Number(|row| row.confidence)),
    column("signal", Of::Text(|row| row.signal)),
    column("source", Of::Text(|row| row.source)),
    column("reason", Of::Text(|row| row.reason)),
    always("record", Of::Text(|row| Some(row.record))),
];

const fn column(name: &'static str, of: Of) -> Column {
    Column { name, is_always: false, of }
}

const fn always(name: &'static str, of: Of) -> Column {
    Column { name, is_always: true, of }
}
