//! `cardea bundle fmt`: what it changes, what it leaves alone, and how it exits.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::Result;
use cardea_tests::bundle;
use cardea_tests::process::{Finished, run_cardea};

fn format(path: &Path, more: &[&str]) -> Result<Finished> {
    let mut arguments = vec!["bundle".as_ref(), "fmt".as_ref(), path.as_os_str()];
    arguments.extend(more.iter().map(|argument| OsStr::new(*argument)));
    run_cardea(&arguments, b"")
}

const UGLY: &str = "// why\n@id(\"extra\")\npermit(principal is User,action==Action::\"read\",resource is Table)when{context.session.known};";

#[test]
fn a_bundle_is_formatted_once_and_then_left_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    bundle::copy_web(dir.path())?;
    let file = dir.path().join("policies/deep/extra.cedar");
    fs::create_dir_all(dir.path().join("policies/deep"))?;
    fs::write(&file, UGLY)?;
    let first = format(dir.path(), &[])?;
    assert_eq!(first.code, Some(0), "{first:?}");
    let text = fs::read_to_string(&file)?;
    assert!(text.starts_with("// why\n@id(\"extra\")\npermit ("), "{text}");
    let checked = format(dir.path(), &["--check"])?;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let left: Vec<_> = fs::read_dir(dir.path().join("policies/deep"))?.collect();
    assert_eq!(left.len(), 1, "{left:?}");
    // Formatting changed no meaning.
    let check = run_cardea(&["bundle".as_ref(), "check".as_ref(), dir.path().as_os_str()], b"")?;
    assert_eq!(check.code, Some(0), "{check:?}");
    Ok(())
}

#[test]
fn check_shows_what_would_change_and_changes_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("one.cedar");
    fs::write(&file, UGLY)?;
    let checked = format(&file, &["--check"])?;
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(
        checked.stdout.contains("- permit(principal is User") && checked.stdout.contains("+ permit ("),
        "{checked:?}"
    );
    assert_eq!(fs::read_to_string(&file)?, UGLY);
    let json = format(&file, &["--check", "--format", "json"])?;
    assert_eq!(json.code, Some(1), "{json:?}");
    let said: serde_json::Value = serde_json::from_str(&json.stdout)?;
    assert_eq!(said["changed"][0], file.display().to_string());
    Ok(())
}

#[test]
fn a_file_that_does_not_parse_is_told_and_not_touched_while_others_are_formatted() -> Result<()> {
    let dir = tempfile::tempdir()?;
    bundle::copy_web(dir.path())?;
    let (bad, good) = (dir.path().join("policies/bad.cedar"), dir.path().join("policies/good.cedar"));
    fs::write(&bad, "permit(principal,\n\n action);")?;
    fs::write(&good, UGLY)?;
    let finished = format(dir.path(), &[])?;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("bad.cedar:3"), "{finished:?}");
    assert_eq!(fs::read_to_string(&bad)?, "permit(principal,\n\n action);");
    assert_ne!(fs::read_to_string(&good)?, UGLY);
    Ok(())
}

#[test]
fn what_is_no_bundle_and_no_policy_cannot_be_formatted() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("a.txt"), "x")?;
    for path in [dir.path().to_owned(), dir.path().join("a.txt"), dir.path().join("missing")] {
        let finished = format(&path, &[])?;
        assert_eq!(finished.code, Some(2), "{}: {finished:?}", path.display());
        assert!(!finished.stderr.contains("panicked"), "{finished:?}");
    }
    Ok(())
}
