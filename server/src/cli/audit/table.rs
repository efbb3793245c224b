//! Records as a table, through Arrow: one row for each, in Parquet or CSV.
//!
//! Owns the columns ([`COLUMNS`]); what has no column of its own stands in `record`, the whole record as JSON.
//! In CSV a list is a JSON array, and a text that a spreadsheet would take for a formula begins with an apostrophe.
//! Limits: [`ROWS`] rows are held at a time. Never does: leaving a file that looks finished and is not.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, ListBuilder, StringBuilder, TimestampMillisecondBuilder, UInt64Builder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, TimeUnit};
use cardea_proto::v1::{self, record::Entry};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use thiserror::Error;

use crate::audit::record::unix_ms;
use crate::audit::sinks::format::kind;

/// Rows that are held at a time, and of one row group.
pub(super) const ROWS: usize = 8_192;

/// Times are told without a place; as an offset, which needs no table of zones.
const UTC: &str = "+00:00";

/// Why a table cannot be written.
#[derive(Debug, Error)]
pub(super) enum BadTable {
    /// The file system refused.
    #[error("`{}` cannot be written: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Us, or the file system.
    #[error("the table cannot be written: {0}")]
    Arrow(#[from] ArrowError),
    /// Us, or the file system.
    #[error("the table cannot be written: {0}")]
    Parquet(#[from] ParquetError),
}

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated, with a head.
    Csv,
}

#[derive(Clone, Copy)]
enum Type {
    Text,
    Number,
    Time,
    List,
}

/// Every column, in order. Empty where a record has no such thing.
const COLUMNS: [(&str, Type); 32] = [
    ("sequence", Type::Number),
    ("time", Type::Time),
    ("kind", Type::Text),
    ("decision_id", Type::Text),
    ("attempt_id", Type::Text),
    ("door", Type::Text),
    ("principal_type", Type::Text),
    ("principal_id", Type::Text),
    ("action", Type::Text),
    ("resource_type", Type::Text),
    ("resource_id", Type::Text),
    ("session_id", Type::Text),
    ("task_id", Type::Text),
    ("delegation", Type::List),
    ("decision", Type::Text),
    ("reasons", Type::List),
    ("determining_policies", Type::List),
    ("policy_errors", Type::List),
    ("step_up", Type::List),
    ("obligations", Type::List),
    ("responses", Type::List),
    ("severity", Type::Text),
    ("latency_ns", Type::Number),
    ("bundle_revision", Type::Number),
    ("bundle_digest", Type::Text),
    ("state_version", Type::Number),
    ("deviations", Type::List),
    ("assessment", Type::Text),
    ("confidence", Type::Number),
    ("change", Type::Text),
    ("reason", Type::Text),
    ("record", Type::Text),
];

#[derive(Clone, Debug, PartialEq)]
enum Cell {
    None,
    Text(String),
    Number(u64),
    Time(i64),
    List(Vec<String>),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        if text.is_empty() { Self::None } else { Self::Text(text.to_owned()) }
    }
}

impl From<&String> for Cell {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&Vec<String>> for Cell {
    fn from(list: &Vec<String>) -> Self {
        Self::List(list.clone())
    }
}

/// What stands in the columns of a record that are not empty.
fn cells(record: &v1::Record) -> Vec<(&'static str, Cell)> {
    let mut cells = vec![
        ("sequence", Cell::Number(record.sequence)),
        ("time", record.time.as_ref().map_or(Cell::None, |time| Cell::Time(unix_ms(time)))),
        ("kind", record.entry.as_ref().map_or("unknown", kind).into()),
        ("record", Cell::Text(serde_json::to_string(record).unwrap_or_default())),
    ];
    let principal = |entity: &Option<v1::EntityRef>| {
        let (type_name, id) = parts(entity);
        [("principal_type", type_name), ("principal_id", id)]
    };
    let resource = |entity: &Option<v1::EntityRef>| {
        let (type_name, id) = parts(entity);
        [("resource_type", type_name), ("resource_id", id)]
    };
    let action = |entity: &Option<v1::EntityRef>| ("action", parts(entity).1);
    match &record.entry {
        Some(Entry::Decision(one)) => {
            cells.extend(principal(&one.principal));
            cells.extend(resource(&one.resource));
            cells.push(action(&one.action));
            cells.extend(of_decision(one));
        }
        Some(Entry::Signal(one)) => {
            cells.extend(principal(&one.subject));
            cells.extend([
                ("session_id", (&one.session_id).into()),
                ("change", Cell::Text(format!("{} {}", one.kind, one.outcome))),
                ("state_version", Cell::Number(one.state_version)),
                ("reason", (&one.reason).into()),
            ]);
        }
        Some(Entry::Session(one)) => {
            cells.extend(principal(&one.principal));
            cells.extend([
                ("session_id", (&one.session_id).into()),
                ("change", (&one.change).into()),
                ("state_version", Cell::Number(one.state_version)),
                ("reason", (&one.reason).into()),
            ]);
        }
        Some(Entry::Task(one)) => {
            cells.extend(principal(&one.agent));
            cells.extend([
                ("task_id", (&one.task_id).into()),
                ("change", (&one.change).into()),
                ("state_version", Cell::Number(one.state_version)),
                ("reason", (&one.reason).into()),
            ]);
        }
        Some(Entry::Review(one)) => {
            cells.extend(principal(&one.principal));
            cells.extend(resource(&one.resource));
            cells.extend([
                action(&one.action),
                ("decision_id", (&one.decision_id).into()),
                ("change", (&one.change).into()),
                ("state_version", Cell::Number(one.state_version)),
                ("reason", (&one.reason).into()),
            ]);
        }
        Some(Entry::Bundle(one)) => cells.extend([
            ("change", (&one.change).into()),
            ("bundle_revision", Cell::Number(one.revision)),
            ("bundle_digest", (&one.digest).into()),
            ("reason", (&one.reason).into()),
        ]),
        Some(Entry::Shadow(one)) => {
            cells.extend(principal(&one.principal));
            cells.extend(resource(&one.resource));
            cells.extend([
                action(&one.action),
                ("decision_id", (&one.decision_id).into()),
                ("door", (&one.door).into()),
                ("session_id", (&one.session_id).into()),
            ]);
        }
        Some(Entry::Stream(one)) => {
            cells.extend([("change", (&one.change).into()), ("reason", (&one.reason).into())]);
        }
        Some(Entry::Withheld(one)) => {
            cells.extend([("decision_id", (&one.decision_id).into()), ("door", (&one.door).into())]);
        }
        Some(Entry::Gap(_) | Entry::Retention(_)) | None => {}
    }
    cells
}

fn of_decision(one: &v1::DecisionRecord) -> Vec<(&'static str, Cell)> {
    let decision = one.decision().as_str_name().trim_start_matches("DECISION_").to_ascii_lowercase();
    let reasons = one
        .reasons
        .iter()
        .map(|reason| reason.code().as_str_name().trim_start_matches("REASON_CODE_").to_ascii_lowercase());
    let mut cells = vec![
        ("decision_id", (&one.decision_id).into()),
        ("attempt_id", (&one.attempt_id).into()),
        ("door", (&one.door).into()),
        ("session_id", (&one.session_id).into()),
        ("delegation", Cell::List(one.delegation.iter().map(shown).collect())),
        ("decision", Cell::Text(decision)),
        ("reasons", Cell::List(reasons.collect())),
        ("determining_policies", (&one.determining_policies).into()),
        ("policy_errors", (&one.policy_errors).into()),
        ("step_up", (&one.step_up).into()),
        ("obligations", (&one.obligations).into()),
        ("responses", (&one.responses).into()),
        ("severity", (&one.severity).into()),
        ("latency_ns", Cell::Number(one.latency_ns)),
    ];
    if let Some(basis) = &one.basis {
        cells.extend([
            ("bundle_revision", Cell::Number(basis.revision)),
            ("bundle_digest", (&basis.digest).into()),
            ("state_version", Cell::Number(basis.state_version)),
        ]);
    }
    if let Some(deviation) = &one.deviation {
        cells.extend([
            ("deviations", (&deviation.flags).into()),
            ("assessment", (&deviation.assessment).into()),
            ("confidence", Cell::Number(deviation.confidence.into())),
        ]);
    }
    if let Some(observed) = &one.observed {
        cells.push(("task_id", (&observed.task).into()));
    }
    cells
}

fn parts(entity: &Option<v1::EntityRef>) -> (Cell, Cell) {
    entity.as_ref().map_or((Cell::None, Cell::None), |entity| ((&entity.r#type).into(), (&entity.id).into()))
}

fn shown(entity: &v1::EntityRef) -> String {
    format!("{}::\"{}\"", entity.r#type, entity.id)
}

enum Column {
    Text(StringBuilder),
    Number(UInt64Builder),
    Time(TimestampMillisecondBuilder),
    List(ListBuilder<StringBuilder>),
}

impl Column {
    fn new(of: Type, form: Form) -> Self {
        match (of, form) {
            (Type::Text, _) | (Type::List, Form::Csv) => Self::Text(StringBuilder::new()),
            (Type::Number, _) => Self::Number(UInt64Builder::new()),
            (Type::Time, _) => Self::Time(TimestampMillisecondBuilder::new().with_timezone(UTC)),
            (Type::List, Form::Parquet) => Self::List(ListBuilder::new(StringBuilder::new())),
        }
    }

    fn push(&mut self, cell: &Cell, form: Form) {
        match (self, cell) {
            (Self::Text(column), Cell::Text(text)) => match form {
                Form::Csv => column.append_value(no_formula(text)),
                Form::Parquet => column.append_value(text),
            },
            (Self::Text(column), Cell::List(list)) => {
                column.append_value(serde_json::to_string(list).unwrap_or_default());
            }
            (Self::Number(column), Cell::Number(number)) => column.append_value(*number),
            (Self::Time(column), Cell::Time(ms)) => column.append_value(*ms),
            (Self::List(column), Cell::List(list)) => column.append_value(list.iter().map(Some)),
            (Self::Text(column), _) => column.append_null(),
            (Self::Number(column), _) => column.append_null(),
            (Self::Time(column), _) => column.append_null(),
            (Self::List(column), _) => column.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(column) => Arc::new(column.finish()),
            Self::Number(column) => Arc::new(column.finish()),
            Self::Time(column) => Arc::new(column.finish()),
            Self::List(column) => Arc::new(column.finish()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Text(column) => column.len(),
            Self::Number(column) => column.len(),
            Self::Time(column) => column.len(),
            Self::List(column) => column.len(),
        }
    }
}

/// A spreadsheet takes what begins like this for a formula, and ids come from outside.
fn no_formula(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if is_formula { format!("'{text}") } else { text.to_owned() }
}

fn schema(form: Form) -> Schema {
    let fields = COLUMNS.iter().map(|(name, of)| {
        let data = match (of, form) {
            (Type::Text, _) | (Type::List, Form::Csv) => DataType::Utf8,
            (Type::Number, _) => DataType::UInt64,
            (Type::Time, _) => DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())),
            (Type::List, Form::Parquet) => DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))),
        };
        Field::new(*name, data, true)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

type Out = Box<dyn Write + Send>;

enum Writer {
    Parquet(Box<ArrowWriter<Out>>),
    Csv(Box<arrow_csv::Writer<Out>>),
}

/// A table that is being written.
pub(super) struct Table {
    form: Form,
    schema: Arc<Schema>,
    columns: Vec<Column>,
    writer: Writer,
    /// The name while it is written, and the one that it gets.
    file: Option<(PathBuf, PathBuf)>,
}

impl Table {
    /// Begins one in a file, or on standard output.
    pub(super) fn begin(form: Form, to: Option<&Path>) -> Result<Self, BadTable> {
        let file = to.map(|path| {
            let mut unfinished = path.as_os_str().to_owned();
            unfinished.push(".tmp");
            (PathBuf::from(unfinished), path.to_owned())
        });
        let out: Out = match &file {
            Some((unfinished, _)) => {
                let made = File::create(unfinished);
                let made = made.map_err(|source| BadTable::Io { path: unfinished.clone(), source })?;
                Box::new(BufWriter::new(made))
            }
            None => Box::new(BufWriter::new(io::stdout())),
        };
        let schema = Arc::new(schema(form));
        let writer = match form {
            Form::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .set_max_row_group_row_count(Some(ROWS));
                let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties.build()))?;
                Writer::Parquet(Box::new(writer))
            }
            Form::Csv => Writer::Csv(Box::new(arrow_csv::WriterBuilder::new().with_header(true).build(out))),
        };
        let columns = COLUMNS.iter().map(|(_, of)| Column::new(*of, form)).collect();
        Ok(Self { form, schema, columns, writer, file })
    }

    /// Adds a row.
    pub(super) fn push(&mut self, record: &v1::Record) -> Result<(), BadTable> {
        let cells = cells(record);
        for ((name, _), column) in COLUMNS.iter().zip(&mut self.columns) {
            let cell = cells.iter().find(|(known, _)| known == name).map_or(&Cell::None, |(_, cell)| cell);
            column.push(cell, self.form);
        }
        if self.columns.first().is_some_and(|column| column.len() >= ROWS) { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), BadTable> {
        let columns = self.columns.iter_mut().map(Column::finish).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        match &mut self.writer {
            Writer::Parquet(writer) => writer.write(&batch)?,
            Writer::Csv(writer) => writer.write(&batch)?,
        }
        Ok(())
    }

    /// Writes the rest, and gives the file its name.
    pub(super) fn finish(mut self) -> Result<(), BadTable> {
        self.flush()?;
        match self.writer {
            Writer::Parquet(writer) => drop(writer.close()?),
            Writer::Csv(writer) => {
                let mut out = writer.into_inner();
                let path = self
                    .file
                    .as_ref()
                    .map_or_else(|| PathBuf::from("standard output"), |(path, _)| path.clone());
                out.flush().map_err(|source| BadTable::Io { path, source })?;
            }
        }
        if let Some((unfinished, path)) = self.file {
            std::fs::rename(&unfinished, &path).map_err(|source| BadTable::Io { path, source })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_column_of_its_type() {
        let entity = Some(v1::EntityRef { r#type: "Agent".to_owned(), id: "a1".to_owned() });
        let entries = [
            Entry::Decision(v1::DecisionRecord {
                principal: entity.clone(),
                basis: Some(v1::Basis::default()),
                deviation: Some(Box::default()),
                observed: Some(Box::default()),
                ..v1::DecisionRecord::default()
            }),
            Entry::Signal(v1::SignalRecord { subject: entity.clone(), ..v1::SignalRecord::default() }),
            Entry::Session(v1::SessionRecord::default()),
            Entry::Task(v1::TaskRecord { agent: entity, ..v1::TaskRecord::default() }),
            Entry::Review(v1::ReviewRecord::default()),
            Entry::Bundle(v1::BundleRecord::default()),
            Entry::Shadow(v1::ShadowRecord::default()),
            Entry::Stream(v1::StreamRecord::default()),
            Entry::Withheld(v1::WithheldRecord::default()),
            Entry::Gap(v1::GapRecord::default()),
            Entry::Retention(v1::RetentionRecord::default()),
        ];
        for entry in entries {
            let record = v1::Record { sequence: 1, time: None, entry: Some(entry) };
            for (name, cell) in cells(&record) {
                let (_, of) = COLUMNS.iter().find(|(known, _)| *known == name).unwrap();
                let fits = matches!(
                    (of, &cell),
                    (_, Cell::None)
                        | (Type::Text, Cell::Text(_))
                        | (Type::Number, Cell::Number(_))
                        | (Type::Time, Cell::Time(_))
                        | (Type::List, Cell::List(_))
                );
                assert!(fits, "{name}: {cell:?}");
            }
        }
    }

    #[test]
    fn a_text_that_a_spreadsheet_would_run_is_no_formula() {
        for (text, told) in [("=1+1", "'=1+1"), ("@a", "'@a"), ("-x", "'-x"), ("a=1", "a=1"), ("", "")] {
            assert_eq!(no_formula(text), told);
        }
    }

    #[test]
    fn a_table_that_is_not_finished_does_not_look_like_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.parquet");
        let mut table = Table::begin(Form::Parquet, Some(&path)).unwrap();
        table.push(&v1::Record { sequence: 1, ..v1::Record::default() }).unwrap();
        assert!(!path.exists());
        table.finish().unwrap();
        assert!(path.exists() && std::fs::read_dir(dir.path()).unwrap().count() == 1);
    }
}
