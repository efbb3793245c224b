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
