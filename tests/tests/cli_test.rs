//! `cardea bundle test`: scenarios as a table of verdicts, coverage, reports and exit codes.

use std::fs;
use std::path::Path;

use anyhow::Result;
use cardea_tests::bundle;
use cardea_tests::process::{Finished, run_cardea};
use serde_json::Value;

const SCENARIO: &str = "\
name: A biller works on orders
steps:
  - session: {id: s, principal: 'Agent::\"biller\"'}
  - attempts:
      defaults: {principal: 'Agent::\"biller\"', session: s}
      columns: [action,   resource,            request,         expect,  policies]
      rows:
        -      [read,     'Table::\"orders\"',   {limit: 5},      allow,   billing_works_on_sales]
        -      [read,     'Table::\"orders\"',   {limit: 5000},   deny,    reads_are_bounded]
        -      [drop,     'Table::\"orders\"',   ~,               deny,    tables_are_never_dropped]
        -      [transfer, 'Account::\"a-1\"',    ~,               step_up, transfers_need_a_fresh_login]
  - signal: {subject: 'Agent::\"biller\"', risk: {kind: operator, severity: 80, half_life: 1h}}
  - attempt: &read {principal: 'Agent::\"biller\"', action: read, resource: 'Table::\"orders\"', session: s, expect: deny, policies: high_risk_stops}
  - advance: 3h
  - attempt: {<<: *read, name: after its session's hour, reasons: session_expired, policies: []}
";

fn test(dir: &Path, more: &[&str]) -> Result<Finished> {
    let mut arguments = vec!["bundle".as_ref(), "test".as_ref(), dir.as_os_str()];
    arguments.extend(more.iter().map(|argument| std::ffi::OsStr::new(*argument)));
    run_cardea(&arguments, b"")
}

/// A copy of the bundle with these scenarios in `tests/t.yaml`.
fn with(scenarios: &str) -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    bundle::copy_web(dir.path())?;
    fs::create_dir_all(dir.path().join("tests/deep"))?;
    fs::write(dir.path().join("tests/deep/t.yaml"), scenarios)?;
    Ok(dir)
}

#[test]
fn the_example_is_proven_whole() -> Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/agents");
    let finished = test(&example, &["--min-coverage", "100"])?;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("0 failed; coverage 100.0 %"), "{}", finished.stdout);
    for side in ["never satisfied", "never failed"] {
        assert!(!finished.stdout.contains(side), "{}", finished.stdout);
    }
    Ok(())
}

#[test]
fn scenarios_play_in_time_order_with_their_own_clock() -> Result<()> {
    let dir = with(SCENARIO)?;
    let finished = test(dir.path(), &[])?;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("6 tests, 6 passed, 0 failed"), "{}", finished.stdout);
    for side in [
        "never satisfied  workloads_read_sales  policies/access.cedar:15",
        "never satisfied  medium_risk_writes_need_approval",
        "never failed     billing_transfers",
    ] {
        assert!(finished.stdout.contains(side), "`{side}` is not in\n{}", finished.stdout);
    }
    Ok(())
}

#[test]
fn a_wrong_expectation_is_told_with_what_came_out_and_what_to_change() -> Result<()> {
    let dir = with(&SCENARIO.replace("deny,    reads_are_bounded", "allow,   billing_works_on_sales"))?;
    let junit = dir.path().join("report.xml");
    let finished = test(dir.path(), &["--junit", &junit.display().to_string()])?;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    for said in [
        "FAILED  tests/deep/t.yaml:1  A biller works on orders",
        "9:16 Agent::\"biller\" read Table::\"orders\"",
        "expect: expected allow, got deny",
        "policies: expected [billing_works_on_sales], got [reads_are_bounded]",
        "reason forbidden: At most a thousand rows at a time",
        "settled by reads_are_bounded  policies/guards.cedar:",
        "write `expect: deny, policies: [reads_are_bounded]`",
        "6 tests, 5 passed, 1 failed",
    ] {
        assert!(finished.stdout.contains(said), "`{said}` is not in\n{}", finished.stdout);
    }
    let report = fs::read_to_string(&junit)?;
    for said in
        ["tests=\"6\"", "failures=\"1\"", "<testsuite name=\"tests/deep/t.yaml\"", "expected allow, got deny"]
    {
        assert!(report.contains(said), "`{said}` is not in\n{report}");
    }
    let finished = test(dir.path(), &["--format", "json"])?;
    let said: Value = serde_json::from_str(&finished.stdout)?;
    let pointer = |at: &str| said.pointer(at).cloned().unwrap_or_default();
    assert_eq!((pointer("/ok"), pointer("/failed"), pointer("/passed")), (false.into(), 1.into(), 5.into()));
    assert_eq!(pointer("/scenarios/0/cases/1/got/decision"), "deny");
    assert_eq!(pointer("/scenarios/0/cases/1/differences/0/key"), "expect");
    Ok(())
}

#[test]
fn what_nobody_permits_says_which_permits_did_not_hold() -> Result<()> {
    let dir = with(
        "name: n\nsteps:\n  - attempt: {principal: 'Agent::\"biller\"', action: read, resource: 'Table::\"orders\"', expect: allow}\n",
    )?;
    let finished = test(dir.path(), &[])?;
    assert_eq!(finished.code, Some(1));
    let said = "permits in scope whose condition does not hold: `billing_works_on_sales`";
    assert!(finished.stdout.contains(said), "{}", finished.stdout);
    Ok(())
}

#[test]
fn a_step_that_cannot_be_done_fails_with_its_place_and_remedy() -> Result<()> {
    let attempt = "principal: 'Agent::\"biller\"', action: read, resource: 'Table::\"orders\"', expect: deny";
    for (step, wanted) in [
        (format!("attempt: {{{attempt}, session: x}}"), "session `x` was never opened"),
        (format!("attempt: {{{attempt}, request: {{limt: 1}}}}"), "has no field `limt`"),
        (format!("attempt: {{{attempt}, request: {{limit: many}}}}"), "must be written as Long"),
        (attempt_of("Robot::\"r\"", "read"), "`Robot`, which is not in the schema"),
        (attempt_of("Agent::\"a\"", "reed"), "action `reed` is not in the schema"),
        ("update_session: {id: x, acr: a}".to_owned(), "session `x` is not known"),
        ("signal: {session: x, aal: 1}".to_owned(), "a session that is not open"),
        ("signal: {subject: 'Agent::\"a\"'}".to_owned(), "a signal tells one change"),
        ("session: {id: s}".to_owned(), "a session needs `id` and `principal`"),
        ("session: {id: s, principal: 'Agent::\"a\"', aal: 9}".to_owned(), "`aal` is 0 to 3"),
        ("advance: 5".to_owned(), "`5` is no span of time"),
        ("wait: 5s".to_owned(), "unknown variant"),
    ] {
        let dir = with(&format!("name: n\nsteps:\n  - {step}\n"))?;
        let finished = test(dir.path(), &[])?;
        assert_eq!(finished.code, Some(1), "{step}: {finished:?}");
        let said = format!("{}{}", finished.stdout, finished.stderr)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        assert!(said.contains(wanted), "`{wanted}` is not in\n{said}");
        assert!(said.contains("tests/deep/t.yaml:3:"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    Ok(())
}

fn attempt_of(principal: &str, action: &str) -> String {
    format!(
        "attempt: {{principal: '{principal}', action: {action}, resource: 'Table::\"orders\"', expect: deny}}"
    )
}

#[test]
fn a_scenario_may_bring_entities_of_its_own() -> Result<()> {
    let scenario = "\
name: A new table, and ann leaves the team
entities:
  - uid: {type: Table, id: invoices}
    parents: [{type: Schema, id: sales}]
  - uid: {type: User, id: ann}
steps:
  - session: {id: b, principal: 'Agent::\"biller\"'}
  - session: {id: a, principal: 'User::\"ann\"'}
  - attempts:
      defaults: {action: read}
      columns: [principal,           session, resource,             expect]
      rows:
        -      ['Agent::\"biller\"',   b,       'Table::\"invoices\"',  allow]
        -      ['User::\"ann\"',       a,       'Table::\"orders\"',    deny]
";
    let finished = test(with(scenario)?.path(), &[])?;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let wrong = scenario.replace("id: ann}\nsteps", "id: ann}\n    attrs: {age: 3}\nsteps");
    let finished = test(with(&wrong)?.path(), &[])?;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("do not fit the bundle"), "{}", finished.stderr);
    Ok(())
}

#[test]
fn no_tests_and_too_little_coverage_are_findings_and_no_bundle_is_an_error() -> Result<()> {
    let finished = test(&bundle::web(), &[])?;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("no tests"), "{}", finished.stderr);
    let dir = with(SCENARIO)?;
    let finished = test(dir.path(), &["--min-coverage", "90"])?;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("must be 90 % at least"), "{}", finished.stderr);
    let finished = test(dir.path(), &["--filter", "no such name"])?;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let finished = test(&dir.path().join("missing"), &[])?;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    bundle::edit(dir.path(), "policies/access.cedar", "permit (", "permt (")?;
    assert_eq!(test(dir.path(), &[])?.code, Some(2));
    Ok(())
}
