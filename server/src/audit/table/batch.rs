//! Rows in columns, as Arrow has them.

use std::io;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder, TimestampMillisecondBuilder, UInt64Builder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use cardea_proto::v1;

use super::{COLUMNS, Of, Row};

/// Most rows of one batch.
pub const BATCH_ROWS_MAX: usize = 8_192;

/// Most bytes of one batch, counted in JSON. The columns beside `record` say a part of it again, so a batch is less than twice as large.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

const ZONE: &str = "UTC";

/// The columns as Arrow and parquet have them. `cardea.audit.table` tells tools that it is this table.
#[must_use]
pub fn schema() -> SchemaRef {
    let fields: Vec<Field> = COLUMNS
        .iter()
        .map(|column| {
            let of = match column.of {
                Of::Number(_) => DataType::UInt64,
                Of::Time(_) => DataType::Timestamp(TimeUnit::Millisecond, Some(ZONE.into())),
                Of::Text(_) => DataType::Utf8,
                Of::Texts(_) => DataType::List(item()),
            };
            Field::new(column.name, of, !column.is_always)
        })
        .collect();
    let about = [("cardea.audit.table".to_owned(), "1".to_owned())];
    Arc::new(Schema::new_with_metadata(fields, about))
}

/// A list has no holes.
fn item() -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Utf8, false))
}

/// A batch that is being filled.
#[derive(Debug)]
pub struct Batch {
    schema: SchemaRef,
    columns: Vec<Filling>,
    rows: usize,
    bytes: usize,
}

/// A column that is being filled.
#[derive(Debug)]
enum Filling {
    Number(fn(&Row<'_>) -> Option<u64>, UInt64Builder),
    Time(fn(&Row<'_>) -> Option<i64>, TimestampMillisecondBuilder),
    Text(for<'r> fn(&'r Row<'_>) -> Option<&'r str>, StringBuilder),
    Texts(for<'r> fn(&'r Row<'_>) -> Option<&'r [String]>, ListBuilder<StringBuilder>),
}

impl Batch {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let columns = COLUMNS.iter().map(|column| Filling::new(column.of)).collect();
        Self { schema: schema(), columns, rows: 0, bytes: 0 }
    }

    /// Adds a record as the next row.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn push(&mut self, record: &v1::Record) -> io::Result<()> {
        let json = serde_json::to_string(record)?;
        let row = Row::new(record, &json);
        self.columns.iter_mut().for_each(|column| column.push(&row));
        self.rows += 1;
        self.bytes += json.len();
        Ok(())
    }

    /// Whether it has to be taken before more is added.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// What it holds; it is empty then.
    ///
    /// # Errors
    /// Its columns do not fit together, which is our fault.
    pub fn take(&mut self) -> io::Result<RecordBatch> {
        (self.rows, self.bytes) = (0, 0);
        let columns = self.columns.iter_mut().map(Filling::finish).collect();
        RecordBatch::try_new(self.schema.clone(), columns).map_err(io::Error::other)
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Filling {
    fn new(of: Of) -> Self {
        match of {
            Of::Number(read) => Self::Number(read, UInt64Builder::new()),
            Of::Time(read) => Self::Time(read, TimestampMillisecondBuilder::new().with_timezone(ZONE)),
            Of::Text(read) => Self::Text(read, StringBuilder::new()),
            Of::Texts(read) => Self::Texts(read, ListBuilder::new(StringBuilder::new()).with_field(item())),
        }
    }

    fn push(&mut self, row: &Row<'_>) {
        match self {
            Self::Number(read, column) => column.append_option(read(row)),
            Self::Time(read, column) => column.append_option(read(row)),
            Self::Text(read, column) => column.append_option(read(row)),
            Self::Texts(read, column) => {
                let texts = read(row);
                for text in texts.unwrap_or_default() {
                    column.values().append_value(text);
                }
                column.append(texts.is_some());
            }
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Number(_, column) => Arc::new(column.finish()),
            Self::Time(_, column) => Arc::new(column.finish()),
            Self::Text(_, column) => Arc::new(column.finish()),
            Self::Texts(_, column) => Arc::new(column.finish()),
        }
    }
}
