//! Which format the file has, and how an older one becomes today's.
//!
//! The number stands in the table `meta` under `format`. Each step of [`STEPS`] takes the file one format further, in one
//! transaction together with the new number, so that a crash leaves the old or the new one.

use std::path::Path;

use redb::{Database, ReadableDatabase as _, WriteTransaction};

use super::Table;
use super::file::{OpenFault, definition};

/// The format that this version writes.
pub(super) const FORMAT: u32 = 1;

/// Where the number stands; its row has no checksum, because every format must be able to read it.
const KEY: &[u8] = b"format";

/// One step: what turns format `from` into the next.
struct Step {
    from: u32,
    apply: fn(&WriteTransaction) -> Result<(), redb::Error>,
}

/// Every step there is, in order.
const STEPS: [Step; 0] = [];

/// Brings the file to [`FORMAT`]; an empty one gets every table.
pub(super) fn to_current(database: &Database, path: &Path) -> Result<(), OpenFault> {
    upgrade(database, path, FORMAT, &STEPS)
}

fn upgrade(database: &Database, path: &Path, to: u32, steps: &[Step]) -> Result<(), OpenFault> {
    let corrupt = |why: redb::Error| OpenFault::Corrupt { path: path.to_owned(), why: why.to_string() };
    let Some(mut format) = format(database).map_err(corrupt)? else {
        return create(database, to).map_err(corrupt);
    };
    if format > to {
        return Err(OpenFault::Later { path: path.to_owned(), found: format });
    }
    while format < to {
        let step = steps.iter().find(|step| step.from == format);
        let step =
            step.ok_or_else(|| corrupt(redb::Error::Corrupted(format!("format {format} is not known"))))?;
        tracing::info!(from = format, to = format + 1, "bringing the state up to date");
        apply(database, step).map_err(corrupt)?;
        format += 1;
    }
    Ok(())
}

fn format(database: &Database) -> Result<Option<u32>, redb::Error> {
    let reading = database.begin_read()?;
    let meta = match reading.open_table(definition(Table::Meta)) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(why) => return Err(why.into()),
    };
    let Some(value) = meta.get(KEY)? else {
        return Err(redb::Error::Corrupted("it does not say which format it has".to_owned()));
    };
    let number = value.value().try_into().map(u32::from_le_bytes);
    number.map(Some).map_err(|_| redb::Error::Corrupted("its format is not a number".to_owned()))
}

fn create(database: &Database, format: u32) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    for table in Table::ALL {
        writing.open_table(definition(table))?;
    }
    writing.open_table(definition(Table::Meta))?.insert(KEY, format.to_le_bytes().as_slice())?;
    writing.commit()?;
    Ok(())
}

fn apply(database: &Database, step: &Step) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    (step.apply)(&writing)?;
    let format = (step.from + 1).to_le_bytes();
    writing.open_table(definition(Table::Meta))?.insert(KEY, format.as_slice())?;
    writing.commit()?;
    Ok(())
}
