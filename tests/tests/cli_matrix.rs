//! `cardea bundle matrix`: the table of verdicts and its snapshot.

use std::fs;
use std::path::Path;

use anyhow::Result;
use cardea_tests::bundle;
use cardea_tests::process::{Finished, run_cardea};
use serde_json::Value;

fn matrix(dir: &Path, more: &[&str]) -> Result<Finished> {
    let mut arguments = vec!["bundle".as_ref(), "matrix".as_ref(), dir.as_os_str()];
    arguments.extend(more.iter().map(|argument| std::ffi::OsStr::new(*argument)));
    run_cardea(&arguments, b"")
}

fn copied() -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    bundle::copy_web(dir.path())?;
    Ok(dir)
}

/// The line of a cell, its columns joined by single spaces.
fn line(text: &str, cell: &[&str]) -> Option<String> {
    let squeezed = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    squeezed.into_iter().find(|line| line.contains(&format!(" {} ", cell.join(" "))))
}

#[test]
fn a_stranger_gets_nothing_and_a_calm_member_what_policy_permits() -> Result<()> {
    let finished = matrix(&bundle::web(), &[])?;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for (cell, wanted) in [
        (["calm", "Agent::\"stranger\"", "read", "Table::\"orders\""], "deny calm"),
        (["calm", "Agent::\"biller\"", "read", "Table::\"orders\""], "allow calm"),
        (["unknown", "Agent::\"biller\"", "read", "Table::\"orders\""], "deny unknown"),
        (["calm", "Agent::\"biller\"", "drop", "Table::\"orders\""], "deny calm"),
        (["calm", "Agent::\"biller\"", "transfer", "Account::\"stranger\""], "allow calm"),
        (["calm", "User::\"stranger\"", "write", "Table::\"salaries\""], "deny calm"),
    ] {
        let found = line(&finished.stdout, &cell).unwrap_or_default();
        assert!(found.starts_with(wanted), "{cell:?}: `{found}` in\n{}", finished.stdout);
    }
    let again = matrix(&bundle::web(), &[])?;
    assert_eq!(again.stdout, finished.stdout, "the same bundle gives the same text");
    let line = line(&finished.stdout, &["calm", "Agent::\"biller\"", "read", "Table::\"orders\""]);
    assert!(line.is_some_and(|line| line.ends_with("billing_works_on_sales + mask_personal_data")));
    Ok(())
}

#[test]
fn the_example_says_what_its_snapshot_says_and_strangers_get_nothing() -> Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/agents");
    let finished = matrix(&example, &["--check"])?;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let strangers = matrix(&example, &["--principal", "::\"stranger\""])?.stdout;
    let cells: Vec<&str> = strangers.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(cells.len() > 100 && cells.iter().all(|line| line.starts_with("deny ")), "{strangers}");
    Ok(())
}

#[test]
fn the_snapshot_shows_a_change_as_changed_cells() -> Result<()> {
    let dir = copied()?;
    let digest = |dir: &Path| -> Result<Value> {
        let checked = run_cardea(&["bundle", "check", &dir.display().to_string(), "--format", "json"], b"")?;
        Ok(serde_json::from_str::<Value>(&checked.stdout)?
            .pointer("/bundle/digest")
            .cloned()
            .unwrap_or_default())
    };
    let before = digest(dir.path())?;
    let finished = matrix(dir.path(), &["--check"])?;
    assert_eq!(finished.code, Some(2), "no snapshot yet: {finished:?}");
    assert!(finished.stderr.contains("--write"), "{}", finished.stderr);
    let finished = matrix(dir.path(), &["--write"])?;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(digest(dir.path())?, before, "the snapshot is no part of the bundle's content");
    assert_eq!(matrix(dir.path(), &["--check"])?.code, Some(0));

    bundle::edit(
        dir.path(),
        "policies/access.cedar",
        "principal is Workload, action == Action::\"read\"",
        "principal is Workload, action in [Action::\"read\", Action::\"write\"]",
    )?;
    let finished = matrix(dir.path(), &["--check"])?;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(
        finished.stdout.contains("unknown: Workload::\"stranger\" write Table::\"orders\""),
        "{}",
        finished.stdout
    );
    assert!(
        finished.stdout.contains("deny (no_permit) -> allow workloads_read_sales"),
        "{}",
        finished.stdout
    );
    assert!(finished.stderr.contains("2 of "), "one cell in each situation: {}", finished.stderr);
    let finished = matrix(dir.path(), &["--check", "--format", "json"])?;
    let said: Value = serde_json::from_str(&finished.stdout)?;
    assert_eq!(said.pointer("/ok"), Some(&false.into()));
    assert_eq!(said.pointer("/changed").and_then(Value::as_array).map(Vec::len), Some(2));
    Ok(())
}

#[test]
fn filters_narrow_the_table_and_must_fit_the_snapshot() -> Result<()> {
    let dir = copied()?;
    let finished =
        matrix(dir.path(), &["--principal", "biller", "--action", "read", "--resource", "orders"])?;
    assert_eq!(
        finished.stdout.lines().filter(|line| !line.starts_with('#')).count(),
        2,
        "{}",
        finished.stdout
    );
    assert_eq!(matrix(dir.path(), &["--write", "--action", "read"])?.code, Some(0));
    assert_eq!(matrix(dir.path(), &["--check", "--action", "read"])?.code, Some(0));
    let finished = matrix(dir.path(), &["--check"])?;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("--action read"), "{}", finished.stderr);
    Ok(())
}

#[test]
fn situations_of_its_own_are_read_from_the_bundle() -> Result<()> {
    let dir = copied()?;
    fs::create_dir_all(dir.path().join("tests"))?;
    let file = dir.path().join("tests/matrix.yaml");
    fs::write(
        &file,
        "request:\n  read: {limit: 5000}\nsituations:\n  risky:\n    session: {}\n    signals:\n      - risk: {kind: operator, severity: 50}\n",
    )?;
    let finished = matrix(dir.path(), &["--principal", "biller"])?;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let write = line(&finished.stdout, &["risky", "Agent::\"biller\"", "write", "Table::\"orders\""]);
    assert_eq!(
        write.as_deref(),
        Some(
            "step_up risky Agent::\"biller\" write Table::\"orders\" medium_risk_writes_need_approval -> second_pair_of_eyes"
        )
    );
    let read = line(&finished.stdout, &["calm", "Agent::\"biller\"", "read", "Table::\"orders\""]);
    assert!(read.is_some_and(|line| line.starts_with("deny")), "{}", finished.stdout);
    for (text, wanted) in [
        ("request:\n  reed: {}\n", "matrix.yaml:2:9"),
        ("situations:\n  a b: {}\n", "no name of a situation"),
        ("situations:\n  a:\n    session: {id: x}\n", "no `id`"),
        ("situation: {}\n", "unknown field"),
    ] {
        fs::write(&file, text)?;
        let finished = matrix(dir.path(), &[])?;
        assert_eq!(finished.code, Some(2), "{text}: {finished:?}");
        assert!(finished.stderr.contains(wanted), "`{wanted}` is not in\n{}", finished.stderr);
    }
    Ok(())
}

#[test]
fn too_many_cells_ask_for_filters() -> Result<()> {
    let dir = copied()?;
    let entity = |kind: &str, id: usize| {
        format!("{{\"uid\":{{\"type\":\"{kind}\",\"id\":\"{id}\"}},\"attrs\":{{}},\"parents\":[]}}")
    };
    let all: Vec<String> = (0..300).flat_map(|id| [entity("Agent", id), entity("Table", id)]).collect();
    fs::write(dir.path().join("entities.json"), format!("[{}]", all.join(",")))?;
    let finished = matrix(dir.path(), &[])?;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("--principal"), "{}", finished.stderr);
    assert_eq!(matrix(dir.path(), &["--principal", "Agent::\"7\""])?.code, Some(0));
    Ok(())
}
