//! DuckDB, which reads tables as analysts do.
//!
//! It is the PyPI package `duckdb`, which `tests/run` installs into `target/venv`.
//! Never does: fetching extensions; what a query needs is in the package.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::process::target_dir;

const SCRIPT: &str = "\
import duckdb, json, sys
database = duckdb.connect(config={'autoinstall_known_extensions': 'false'})
print(json.dumps(database.sql(sys.argv[1]).fetchall()))";

/// The rows of a query, each a list.
///
/// # Errors
/// If there is no DuckDB, or it refuses the query.
pub fn rows(sql: &str) -> Result<Vec<Value>> {
    let output = Command::new(python()?).args(["-c", SCRIPT, sql]).output()?;
    let fault = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "DuckDB refuses `{sql}`: {fault}");
    serde_json::from_slice(&output.stdout).with_context(|| format!("what DuckDB says of `{sql}`"))
}

/// The Python that has DuckDB.
///
/// # Errors
/// If there is none.
pub fn python() -> Result<PathBuf> {
    let venv = target_dir()?.join("venv");
    let pythons = fs::read_dir(venv.join("lib")).map(|dirs| dirs.flatten().collect());
    let pythons: Vec<fs::DirEntry> = pythons.unwrap_or_default();
    if !pythons.iter().any(|dir| dir.path().join("site-packages/duckdb").exists()) {
        bail!("there is no DuckDB in {}: run tests/run, which installs it", venv.display());
    }
    Ok(venv.join("bin/python3"))
}
