//! The table as a parquet file.
//!
//! INVARIANT (unfinished is unreadable): the footer, without which nothing reads the file, is written last.

use std::io::{self, Write};

use cardea_proto::v1;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::{Batch, schema};

/// Most bytes of one row group as it is written (give or take one batch): what is held in memory. Readers skip row groups by their lowest
/// and highest values, and share them among their threads.
pub const ROW_GROUP_BYTES_MAX: usize = 32 << 20;

/// A file that is being written.
pub struct ParquetFile<W: Write + Send> {
    writer: ArrowWriter<W>,
    batch: Batch,
}

impl<W: Write + Send> ParquetFile<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// `out` fails.
    pub fn new(out: W) -> io::Result<Self> {
        let record = ColumnPath::from("record");
        let properties = WriterProperties::builder()
            .set_created_by(concat!("cardea version ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES_MAX))
            // No two records are the same, and nobody looks for one by what its JSON begins with.
            .set_column_dictionary_enabled(record.clone(), false)
            .set_column_statistics_enabled(record, EnabledStatistics::None)
            .build();
        let writer = ArrowWriter::try_new(out, schema(), Some(properties))?;
        Ok(Self { writer, batch: Batch::new() })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// `out` fails; nothing that is added then is of use.
    pub fn push(&mut self, record: &v1::Record) -> io::Result<()> {
        self.batch.push(record)?;
        if self.batch.is_full() {
            self.writer.write(&self.batch.take()?)?;
        }
        Ok(())
    }

    /// Writes what is left, and the footer.
    ///
    /// # Errors
    /// `out` fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.writer.write(&self.batch.take()?)?;
        Ok(self.writer.into_inner()?)
    }
}
