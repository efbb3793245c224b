//! `cardea bundle init`: what it writes passes everything that the pipeline asks.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::Result;
use cardea_tests::process::{Finished, run_cardea};

fn bundle(command: &str, path: &Path, more: &[&str]) -> Result<Finished> {
    let mut arguments = vec!["bundle".as_ref(), command.as_ref(), path.as_os_str()];
    arguments.extend(more.iter().map(|argument| OsStr::new(*argument)));
    run_cardea(&arguments, b"")
}

#[test]
fn a_new_bundle_has_no_finding_and_is_formatted() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("policies");
    let written = bundle("init", &path, &["--name", "ours"])?;
    assert_eq!(written.code, Some(0), "{written:?}");
    assert!(written.stdout.contains("Next:"), "{written:?}");
    let checked = bundle("check", &path, &["--deny", "warnings", "--format", "json"])?;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let said: serde_json::Value = serde_json::from_str(&checked.stdout)?;
    assert_eq!(said["findings"], serde_json::json!([]));
    assert_eq!(said["bundles"][0]["name"], "ours");
    let formatted = bundle("fmt", &path, &["--check"])?;
    assert_eq!(formatted.code, Some(0), "{formatted:?}");
    Ok(())
}

#[test]
fn the_scenarios_of_a_new_bundle_pass_and_cover_every_policy() -> Result<()> {
    let dir = tempfile::tempdir()?;
    bundle("init", dir.path(), &["--name", "ours", "--ci", "none"])?;
    let tested = bundle("test", dir.path(), &["--min-coverage", "100"])?;
    assert_eq!(tested.code, Some(0), "{tested:?}");
    for mode in ["--write", "--check"] {
        let matrix = bundle("matrix", dir.path(), &[mode])?;
        assert_eq!(matrix.code, Some(0), "{matrix:?}");
    }
    Ok(())
}

#[test]
fn each_ci_system_gets_its_file_for_a_bundle_at_the_root() -> Result<()> {
    for (ci, file) in
        [("github", Some(".github/workflows/policy.yml")), ("gitlab", Some(".gitlab-ci.yml")), ("none", None)]
    {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("new");
        let written = bundle("init", &path, &["--ci", ci])?;
        assert_eq!(written.code, Some(0), "{written:?}");
        for candidate in [".github/workflows/policy.yml", ".gitlab-ci.yml"] {
            assert_eq!(path.join(candidate).exists(), file == Some(candidate), "{ci}: {candidate}");
        }
        if let Some(file) = file {
            assert!(fs::read_to_string(path.join(file))?.contains("BUNDLE: .\n"));
        }
        assert!(fs::read_to_string(path.join("bundle.toml"))?.contains("name = \"new\""));
    }
    Ok(())
}

#[test]
fn nothing_is_overwritten_and_nothing_is_written_beside_what_is_in_the_way() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("bundle.toml"), "mine")?;
    let refused = bundle("init", dir.path(), &[])?;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.stderr.contains("bundle.toml") && !refused.stderr.contains("entities.json"),
        "{refused:?}"
    );
    assert_eq!(fs::read_to_string(dir.path().join("bundle.toml"))?, "mine");
    assert_eq!(fs::read_dir(dir.path())?.count(), 1);
    let json = bundle("init", dir.path(), &["--format", "json"])?;
    assert_eq!(json.code, Some(2), "{json:?}");
    let said: serde_json::Value = serde_json::from_str(&json.stdout)?;
    assert_eq!(said["in_the_way"], serde_json::json!(["bundle.toml"]));
    Ok(())
}

#[test]
fn a_name_that_bundle_toml_could_not_hold_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for name in ["", "a\nb", "a\"b", &"x".repeat(129)] {
        let refused = bundle("init", &dir.path().join("new"), &["--name", name])?;
        assert_eq!(refused.code, Some(2), "{name}: {refused:?}");
    }
    assert!(!dir.path().join("new").exists());
    Ok(())
}
