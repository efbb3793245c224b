//! The table as CSV (RFC 4180, with `\n`): a line of names, then one for each record.
//!
//! A list is a JSON array, so nothing within a text can be taken for its end. A null is an empty cell.
//! INVARIANT (no formulas): no cell begins as a spreadsheet's formulas do. Names in records come from outside, and whoever opens the
//! table in a spreadsheet would run what they say. Such a text has `'` before it, and so has one that begins with `'`: without
//! the first `'` of each cell that has one it is the text again.

use std::borrow::Cow;
use std::io::{self, Write};

use cardea_proto::v1;
use jiff::Timestamp;

use super::{COLUMNS, Of, Row};
use crate::hidden::is_hidden;

/// What formulas begin with, as keyboards of Latin and of East Asian scripts write it; and our own mark.
const MARKED: [char; 9] = ['=', '+', '-', '@', '＝', '＋', '－', '＠', '\''];

/// A file that is being written.
pub struct CsvFile<W: Write> {
    writer: csv::Writer<W>,
}

impl<W: Write> CsvFile<W> {
    /// Begins a file with the names of the columns.
    ///
    /// # Errors
    /// `out` fails.
    pub fn new(out: W) -> io::Result<Self> {
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(COLUMNS.iter().map(|column| column.name))?;
        Ok(Self { writer })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// `out` fails.
    pub fn push(&mut self, record: &v1::Record) -> io::Result<()> {
        let json = serde_json::to_string(record)?;
        let row = Row::new(record, &json);
        for column in &COLUMNS {
            self.writer.write_field(cell(column.of, &row)?.as_bytes())?;
        }
        Ok(self.writer.write_record(None::<&[u8]>)?)
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// `out` fails.
    pub fn finish(self) -> io::Result<W> {
        self.writer.into_inner().map_err(csv::IntoInnerError::into_error)
    }
}

fn cell<'r>(of: Of, row: &'r Row<'_>) -> io::Result<Cow<'r, str>> {
    Ok(match of {
        Of::Number(read) => read(row).map(|number| number.to_string()).unwrap_or_default().into(),
        Of::Time(read) => read(row).map(time).unwrap_or_default().into(),
        Of::Text(read) => read(row).map(unlike_formula).unwrap_or_default(),
        Of::Texts(read) => match read(row) {
            Some(texts) => serde_json::to_string(texts)?.into(),
            None => Cow::default(),
        },
    })
}

/// As records in JSON have it.
fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.3}"))
}

pub(super) fn unlike_formula(text: &str) -> Cow<'_, str> {
    let seen = text.trim_start_matches(|c: char| c.is_whitespace() || is_hidden(c));
    if seen.starts_with(MARKED) { format!("'{text}").into() } else { text.into() }
}
