//! `cardea bundle check`: what it says and how it exits.

use std::path::Path;

use anyhow::Result;
use cardea_tests::bundle;
use cardea_tests::process::{Finished, run_cardea};

fn check(dir: &Path, more: &[&str]) -> Result<Finished> {
    let mut arguments = vec!["bundle".as_ref(), "check".as_ref(), dir.as_os_str()];
    arguments.extend(more.iter().map(|argument| std::ffi::OsStr::new(*argument)));
    run_cardea(&arguments, b"")
}

#[test]
fn a_good_bundle_passes() -> Result<()> {
    let finished = check(&bundle::web(), &[])?;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    Ok(())
}

#[test]
fn each_fault_is_told_with_file_line_and_remedy_in_one_run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    bundle::copy_web(dir.path())?;
    bundle::edit(
        dir.path(),
        "policies/access.cedar",
        "context.session.known };\n\n@id(\"w",
        "context.session.knwon };\n\n@id(\"w",
    )?;
    bundle::edit(
        dir.path(),
        "policies/guards.cedar",
        "context.risk.score >= 70",
        "context.risk.score >= \"70\"",
    )?;
    bundle::edit(dir.path(), "routes.toml", "action = \"drop\"", "acton = \"drop\"")?;
    let finished = check(dir.path(), &[])?;
    assert!(finished.code.is_some_and(|code| code != 0), "{finished:?}");
    let said = format!("{}{}", finished.stdout, finished.stderr);
    for wanted in ["access.cedar:13", "guards.cedar:10", "routes.toml:36", "knwon", "acton"] {
        assert!(said.contains(wanted), "`{wanted}` is not in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    Ok(())
}

#[test]
fn a_machine_reads_the_same_faults_as_json() -> Result<()> {
    let dir = tempfile::tempdir()?;
    bundle::copy_web(dir.path())?;
    bundle::edit(
        dir.path(),
        "policies/guards.cedar",
        "context.risk.score >= 70",
        "context.risk.scores >= 70",
    )?;
    let finished = check(dir.path(), &["--format", "json"])?;
    assert!(finished.code.is_some_and(|code| code != 0), "{finished:?}");
    let said: serde_json::Value = serde_json::from_str(finished.stdout.trim())?;
    let text = said.to_string();
    assert!(text.contains("policies/guards.cedar") && text.contains("10"), "{said}");
    let good = check(&bundle::web(), &["--format", "json"])?;
    assert_eq!(good.code, Some(0), "{good:?}");
    let _: serde_json::Value = serde_json::from_str(good.stdout.trim())?;
    Ok(())
}

#[test]
fn what_is_no_bundle_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for path in [dir.path().to_owned(), dir.path().join("missing")] {
        let finished = check(&path, &[])?;
        assert!(finished.code.is_some_and(|code| code != 0), "{}: {finished:?}", path.display());
        assert!(!finished.stderr.is_empty() && !finished.stderr.contains("panicked"), "{finished:?}");
    }
    Ok(())
}

/// A bundle with one error-free mistake: a permit for everybody, without an id.
fn careless(dir: &Path) -> Result<()> {
    bundle::copy_web(dir)?;
    std::fs::write(
        dir.join("policies/zz.cedar"),
        "permit (principal, action == Action::\"read\", resource is Table)\nwhen { context.risk.score < 9 };\n",
    )?;
    Ok(())
}

#[test]
fn warnings_pass_unless_they_are_denied_and_rules_can_be_left_out() -> Result<()> {
    let dir = tempfile::tempdir()?;
    careless(dir.path())?;
    for (more, code) in [
        (&[] as &[&str], 0),
        (&["--deny", "warnings"], 1),
        (&["--deny", "missing-id"], 1),
        (&["--deny", "unused-step-up"], 0),
        (&["--deny", "warnings", "--allow", "missing-id", "--allow", "permit-every-principal"], 0),
        (&["--allow", "schema-invalid"], 2),
        (&["--deny", "no-such-rule"], 2),
    ] {
        let finished = check(dir.path(), more)?;
        assert_eq!(finished.code, Some(code), "{more:?}: {finished:?}");
    }
    Ok(())
}

#[test]
fn annotations_and_sarif_name_files_as_seen_from_the_working_directory() -> Result<()> {
    let dir = tempfile::tempdir()?;
    careless(dir.path())?;
    let path = dir.path().join("policies/zz.cedar");
    let annotated = check(dir.path(), &["--format", "github"])?;
    let wanted = format!("::warning file={},line=1,", path.display());
    assert!(annotated.stdout.lines().all(|line| line.starts_with(&wanted)), "{annotated:?}");
    assert_eq!(annotated.stdout.lines().count(), 2, "{annotated:?}");
    let scanned = check(dir.path(), &["--format", "sarif"])?;
    assert_eq!(scanned.code, Some(0), "{scanned:?}");
    let log: serde_json::Value = serde_json::from_str(&scanned.stdout)?;
    let results = log["runs"][0]["results"].as_array().map(Vec::len);
    assert_eq!(results, Some(2), "{log}");
    let uri = &log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
    assert_eq!(*uri, format!("file://{}", path.display()));
    Ok(())
}

#[test]
fn several_bundles_are_checked_in_one_run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    careless(dir.path())?;
    let both = check(dir.path(), &[&bundle::web().display().to_string(), "--format", "json"])?;
    assert_eq!(both.code, Some(0), "{both:?}");
    let said: serde_json::Value = serde_json::from_str(&both.stdout)?;
    assert_eq!(said["bundles"].as_array().map(Vec::len), Some(2), "{said}");
    assert_eq!((&said["warnings"], &said["bundles"][1]["warnings"]), (&2.into(), &0.into()), "{said}");
    let missing = check(dir.path(), &["/no/such/bundle"])?;
    assert_eq!(missing.code, Some(2), "{missing:?}");
    Ok(())
}

#[test]
fn every_rule_is_listed_with_its_meaning() -> Result<()> {
    let listed = check(Path::new("."), &["--list"])?;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    for wanted in ["unguarded-entity ", "policy-syntax ", "a permit does not say who"] {
        assert!(listed.stdout.contains(wanted), "`{wanted}` is not in:\n{}", listed.stdout);
    }
    Ok(())
}
