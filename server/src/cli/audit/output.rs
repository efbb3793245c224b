//! Where `cardea audit query` writes, and as what.
//!
//! Promises: a file is there whole or not at all. One that nobody had before is readable by its owner only, as the log is; another keeps its
//! permissions.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use cardea_proto::v1;
use clap::ValueEnum;
use tempfile::NamedTempFile;

use super::query::{Printer, is_coloured};
use crate::audit::table::{CsvFile, ParquetFile};
use crate::cli::Format;

/// As what records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// A line of text for each, for people.
    #[default]
    Human,
    /// A line of JSON for each, for programs.
    Json,
    /// A table for spreadsheets: lists as JSON, and no text that a spreadsheet would run.
    Csv,
    /// A table for DuckDB, Polars, Spark and the like; needs --out, or a pipe.
    Parquet,
}

/// Records on their way out.
pub(super) enum Output {
    Lines(Printer<Target>),
    Csv(Box<CsvFile<Target>>),
    Parquet(Box<ParquetFile<Target>>),
}

/// Where to.
pub(super) enum Target {
    Stdout(BufWriter<io::Stdout>),
    /// A file beside the one that it will be.
    File(BufWriter<NamedTempFile>, PathBuf),
}

impl Output {
    /// Begins to write to a file, or to standard output.
    ///
    /// # Errors
    /// It cannot be written there, with the remedy.
    pub(super) fn open(form: Form, out: Option<&Path>) -> Result<Self, String> {
        if form == Form::Parquet && out.is_none() && io::stdout().is_terminal() {
            return Err("parquet is nothing for a terminal: name a file with --out FILE".to_owned());
        }
        let target = match out {
            Some(path) => Target::beside(path)
                .map_err(|error| format!("--out: {} cannot be written: {error}", path.display()))?,
            None => Target::Stdout(BufWriter::new(io::stdout())),
        };
        let colour = out.is_none() && is_coloured();
        let opened = match form {
            Form::Human => Ok(Self::Lines(Printer { out: target, format: Format::Human, colour })),
            Form::Json => Ok(Self::Lines(Printer { out: target, format: Format::Json, colour })),
            Form::Csv => CsvFile::new(target).map(|file| Self::Csv(Box::new(file))),
            Form::Parquet => ParquetFile::new(target).map(|file| Self::Parquet(Box::new(file))),
        };
        opened.map_err(|error| unwritten(&error))
    }

    /// Writes a record. Whether more is wanted: whoever reads standard output may have seen enough.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&mut self, record: &v1::Record) -> Result<bool, String> {
        let written = match self {
            Self::Lines(printer) => printer.print(record),
            Self::Csv(file) => file.push(record),
            Self::Parquet(file) => file.push(record),
        };
        self.is_more_wanted(written)
    }

    /// Writes what is left. Only now is there a file.
    ///
    /// # Errors
    /// It cannot be written; the file is not there then, or is the one that was.
    pub(super) fn finish(self) -> Result<(), String> {
        let is_table = matches!(self, Self::Parquet(_));
        let target = match self {
            Self::Lines(printer) => Ok(printer.out),
            Self::Csv(file) => file.finish(),
            Self::Parquet(file) => file.finish(),
        };
        match target.and_then(Target::finish) {
            Err(error) if is_table || error.kind() != io::ErrorKind::BrokenPipe => Err(unwritten(&error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Half a parquet file is of no use to anybody: a pipe that was closed is a fault there.
    fn is_more_wanted(&self, written: io::Result<()>) -> Result<bool, String> {
        match written {
            Ok(()) => Ok(true),
            Err(error) if matches!(self, Self::Parquet(_)) || error.kind() != io::ErrorKind::BrokenPipe => {
                Err(unwritten(&error))
            }
            Err(_) => Ok(false),
        }
    }
}

fn unwritten(error: &io::Error) -> String {
    format!("the records cannot be written: {error}")
}

impl Target {
    fn beside(path: &Path) -> io::Result<Self> {
        // A link stays one, and what is no file (a directory, a device) stays what it is.
        let (path, permissions) = match fs::metadata(path) {
            Ok(found) if found.is_file() => (fs::canonicalize(path)?, Some(found.permissions())),
            Ok(_) => return Err(io::Error::other("it is there, and is no file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (path.to_owned(), None),
            Err(error) => return Err(error),
        };
        let file = tempfile::Builder::new().prefix(".cardea-").tempfile_in(dir(&path))?;
        if let Some(permissions) = permissions {
            file.as_file().set_permissions(permissions)?;
        }
        Ok(Self::File(BufWriter::new(file), path))
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Stdout(mut out) => out.flush(),
            Self::File(out, path) => {
                let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.as_file().sync_all()?;
                file.persist(&path)?;
                File::open(dir(&path))?.sync_all()
            }
        }
    }
}

fn dir(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File(out, _) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(out, _) => out.flush(),
        }
    }
}
