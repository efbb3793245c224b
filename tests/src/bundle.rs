//! Copies of the test bundle that a test may edit.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The bundle `web`, as it is in the source tree.
#[must_use]
pub fn web() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bundles/web")
}

/// Copies `web` to `to`.
///
/// # Errors
/// If a file cannot be read or written.
pub fn copy_web(to: &Path) -> Result<()> {
    copy(&web(), to)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Replaces text in a file of a bundle.
///
/// # Errors
/// If the text is not there.
pub fn edit(bundle: &Path, file: &str, old: &str, new: &str) -> Result<()> {
    let path = bundle.join(file);
    let text = fs::read_to_string(&path)?;
    anyhow::ensure!(text.contains(old), "`{old}` is not in {file}");
    // Written beside and moved, so that no reader sees half a file.
    let beside = path.with_extension("edited");
    fs::write(&beside, text.replace(old, new))?;
    fs::rename(&beside, &path)?;
    Ok(())
}
