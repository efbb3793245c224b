//! The ledger on a real disk.

use std::collections::BTreeMap;
use std::thread;

use proptest::prelude::*;
use redb::Database;

use super::*;

fn put(table: Table, key: &str, value: &str) -> Row {
    Row::Put { table, key: key.into(), value: value.into() }
}

fn delete(table: Table, key: &str) -> Row {
    Row::Delete { table, key: key.into() }
}

fn value(ledger: &Ledger, table: Table, key: &str) -> Option<String> {
    ledger.get(table, key.as_bytes()).unwrap().map(|value| String::from_utf8(value.to_vec()).unwrap())
}

fn wait(ledger: &Ledger, ticket: Ticket) -> Result<(), LedgerFault> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(ledger.durable(ticket))
}

#[test]
fn what_was_written_is_read_before_and_after_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, writer) = Ledger::open(dir.path()).unwrap();
    let ticket = ledger.write(vec![put(Table::Tasks, "a", "1"), put(Table::Tasks, "b", "2")]).unwrap();
    ledger.write(vec![delete(Table::Tasks, "b")]).unwrap();
    assert_eq!(value(&ledger, Table::Tasks, "a").as_deref(), Some("1"));
    assert_eq!(value(&ledger, Table::Tasks, "b"), None);
    let writing = thread::spawn(move || writer.run());
    wait(&ledger, ticket).unwrap();
    wait(&ledger, ledger.ticket()).unwrap();
    assert_eq!(ledger.usage().pending, 0);
    assert_eq!(value(&ledger, Table::Tasks, "a").as_deref(), Some("1"));
    assert_eq!(value(&ledger, Table::Tasks, "b"), None);
    assert_eq!(ledger.len(Table::Tasks).unwrap(), 1);
    ledger.close();
    writing.join().unwrap().unwrap();
    drop(ledger);
    let (ledger, _writer) = Ledger::open(dir.path()).unwrap();
    assert_eq!(value(&ledger, Table::Tasks, "a").as_deref(), Some("1"));
}

#[test]
fn closing_writes_what_waits_and_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, writer) = Ledger::open(dir.path()).unwrap();
    let ticket = ledger.write(vec![put(Table::Tasks, "a", "1")]).unwrap();
    ledger.close();
    assert_eq!(ledger.write(vec![put(Table::Tasks, "b", "1")]), Err(LedgerFault::Closed));
    writer.run().unwrap();
    assert_eq!(wait(&ledger, ticket), Ok(()));
    assert_eq!(wait(&ledger, Ticket(99)), Err(LedgerFault::Closed));
}

#[test]
fn a_second_process_is_told_that_the_state_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Ledger::open(dir.path()).unwrap();
    assert!(matches!(Ledger::open(dir.path()), Err(OpenFault::InUse { .. })));
}

#[test]
fn a_row_that_was_changed_on_disk_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, writer) = Ledger::open(dir.path()).unwrap();
    ledger.write(vec![put(Table::Revocations, "s", "until")]).unwrap();
    ledger.close();
    writer.run().unwrap();
    drop(ledger);
    let path = dir.path().join("state.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let places: Vec<usize> =
        bytes.windows(5).enumerate().filter(|(_, w)| *w == b"until").map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] = b'U';
    }
    std::fs::write(&path, bytes).unwrap();
    let (ledger, _writer) = Ledger::open(dir.path()).unwrap();
    assert!(matches!(ledger.get(Table::Revocations, b"s"), Err(LedgerFault::NotRead(_))));
    let scanned = ledger.scan(Table::Revocations, b"", &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(scanned, Err(LedgerFault::NotRead(_))));
}

#[test]
fn an_empty_file_is_refused_for_what_it_held_would_be_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    std::fs::write(&path, b"").unwrap();
    let refused = Ledger::open(dir.path()).err().map(|fault| fault.to_string()).unwrap_or_default();
    assert!(refused.contains("it is empty") && refused.contains("remove it"), "{refused}");
    std::fs::remove_file(&path).unwrap();
    // What a start left behind that was cut short stands in nobody's way.
    std::fs::write(path.with_extension("new"), b"half").unwrap();
    drop(Ledger::open(dir.path()).unwrap());
    assert!(std::fs::metadata(&path).unwrap().len() > 0);
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    std::fs::write(&path, b"something else entirely, and rather long at that").unwrap();
    assert!(matches!(Ledger::open(dir.path()), Err(OpenFault::Corrupt { .. })));
    assert!(std::fs::read(&path).unwrap().starts_with(b"something"));
}

#[test]
fn a_later_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Ledger::open(dir.path()).unwrap());
    {
        let database = Database::open(dir.path().join("state.redb")).unwrap();
        let writing = database.begin_write().unwrap();
        let later = (upgrade::FORMAT + 1).to_le_bytes();
        writing
            .open_table(file::definition(Table::Meta))
            .unwrap()
            .insert(b"format".as_slice(), later.as_slice())
            .unwrap();
        writing.commit().unwrap();
    }
    assert!(
        matches!(Ledger::open(dir.path()), Err(OpenFault::Later { found, .. }) if found == upgrade::FORMAT + 1)
    );
}

#[test]
fn too_many_waiting_rows_are_refused_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _writer) = Ledger::open(dir.path()).unwrap();
    let rows = |from: usize, count: usize| {
        (from..from + count).map(|at| put(Table::Seen, &at.to_string(), "")).collect()
    };
    ledger.write(rows(0, limits::LEDGER_PENDING_MAX)).unwrap();
    assert!(matches!(ledger.write(rows(limits::LEDGER_PENDING_MAX, 1)), Err(LedgerFault::Full { .. })));
    assert_eq!(ledger.usage().refused, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// The model is a map that takes every row at once.
    #[test]
    fn any_rows_in_any_batches_give_what_a_map_gives(
        batches in prop::collection::vec(
            prop::collection::vec((0..6u8, prop::option::of(0..9u8)), 1..8), 1..12),
        restart_after in 0..12usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut model = BTreeMap::new();
        let mut open = Ledger::open(dir.path()).unwrap();
        for (at, batch) in batches.into_iter().enumerate() {
            let rows = batch.into_iter().map(|(key, value)| {
                let key = key.to_string();
                match value {
                    Some(value) => { model.insert(key.clone(), value.to_string()); put(Table::Tasks, &key, &value.to_string()) }
                    None => { model.remove(&key); delete(Table::Tasks, &key) }
                }
            });
            open.0.write(rows.collect()).unwrap();
            if at == restart_after {
                open.0.close();
                open.1.run().unwrap();
                drop(open.0);
                open = Ledger::open(dir.path()).unwrap();
            }
            for key in 0..6u8 {
                let key = key.to_string();
                prop_assert_eq!(value(&open.0, Table::Tasks, &key), model.get(&key).cloned());
            }
        }
        open.0.close();
        open.1.run().unwrap();
        let mut found = BTreeMap::new();
        open.0.scan(Table::Tasks, b"", &mut |key, value| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            found.insert(text(key), text(value));
            ControlFlow::Continue(())
        }).unwrap();
        prop_assert_eq!(found, model);
    }
}
