//! Files of which nobody ever sees half.

use std::io::Write as _;
use std::path::Path;

use super::Fault;

/// Replaces a file whole.
///
/// # Errors
///
/// It cannot be written; an older file is still there then.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let place =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let unwritten = |error: std::io::Error| Fault::of(path, format!("cannot be written: {error}"));
    let mut file = tempfile::NamedTempFile::new_in(place).map_err(unwritten)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(unwritten)?;
    file.persist(path).map_err(|error| unwritten(error.error))?;
    Ok(())
}
