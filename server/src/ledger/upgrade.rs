//! Which format the file has, and how an older one becomes today's.
//!
//! The number stands in the table `meta` under `format`. Each step of [`STEPS`] takes the file one format further, in one
//! transaction together with the new number, so that a crash leaves the old or the new one.

use std::path::Path;

use redb::{Database, ReadableDatabase as _, TableDefinition, WriteTransaction};

use super::Table;
use super::file::{OpenFault, definition};

/// The format that this version writes.
pub(super) const FORMAT: u32 = 3;

/// Where the number stands; its row has no checksum, because every format must be able to read it.
const KEY: &[u8] = b"format";

/// One step: what turns format `from` into the next.
struct Step {
    from: u32,
    apply: fn(&WriteTransaction) -> Result<(), redb::Error>,
}

/// Every step there is, in order.
const STEPS: [Step; 2] =
    [Step { from: 1, apply: grants_into_reviews }, Step { from: 2, apply: grants_that_open_once }];

/// Brings the file to [`FORMAT`]; an empty one gets every table.
pub(super) fn to_current(database: &Database, path: &Path) -> Result<(), OpenFault> {
    upgrade(database, path, FORMAT, &STEPS)
}

/// Format 2 keeps a grant in the row of its review; the table that was meant for grants never held one.
fn grants_into_reviews(writing: &WriteTransaction) -> Result<(), redb::Error> {
    writing.delete_table(TableDefinition::<&[u8], &[u8]>::new("grants"))?;
    Ok(())
}

/// Format 3 has grants that open one attempt only. Rows stay as they are; what reads format 2 would let such a grant open
/// many, so it must not read them.
fn grants_that_open_once(_writing: &WriteTransaction) -> Result<(), redb::Error> {
    Ok(())
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

#[cfg(test)]
mod tests {
    use redb::TableHandle as _;

    use super::*;

    fn names(database: &Database) -> Vec<String> {
        database.begin_read().unwrap().list_tables().unwrap().map(|table| table.name().to_owned()).collect()
    }

    /// As format 1 was.
    fn oldest(path: &Path) -> Database {
        let database = Database::create(path).unwrap();
        create(&database, 1).unwrap();
        let writing = database.begin_write().unwrap();
        writing.open_table(TableDefinition::<&[u8], &[u8]>::new("grants")).unwrap();
        writing.commit().unwrap();
        database
    }

    #[test]
    fn the_oldest_format_becomes_todays_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let database = oldest(&path);
        assert!(names(&database).contains(&"grants".to_owned()));
        for _again in 0..2 {
            to_current(&database, &path).unwrap();
            assert_eq!(format(&database).unwrap(), Some(FORMAT));
            assert_eq!(names(&database).len(), Table::ALL.len());
        }
    }

    #[test]
    fn a_step_that_fails_leaves_the_older_format_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let database = oldest(&path);
        let halfway = |writing: &WriteTransaction| {
            writing.delete_table(definition(Table::Sessions))?;
            Err(redb::Error::Corrupted("halfway".to_owned()))
        };
        let fault = upgrade(&database, &path, 2, &[Step { from: 1, apply: halfway }]).unwrap_err();
        assert!(fault.to_string().contains("halfway"), "{fault}");
        assert_eq!(format(&database).unwrap(), Some(1));
        assert!(names(&database).contains(&"sessions".to_owned()));
    }

    #[test]
    fn a_format_without_a_step_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let database = oldest(&path);
        assert!(matches!(upgrade(&database, &path, 2, &[]), Err(OpenFault::Corrupt { .. })));
    }
}
