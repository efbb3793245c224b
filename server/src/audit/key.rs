//! The key that signs the audit's checkpoints: a file that only its owner reads, made at the first start.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use cardea_tlog::{BadKey, Signer};
use ring::rand::{SecureRandom as _, SystemRandom};
use thiserror::Error;

/// Why there is no key.
#[derive(Debug, Error)]
pub enum NoKey {
    /// The file holds something else.
    #[error("`{}` is no key that signs an audit: {why}; `cardea audit key` makes one", .path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: BadKey,
    },
    /// Others could read it.
    #[error("`{}` can be read by others; `chmod 600` it, and make a new one if somebody may have read it", .0.display())]
    Open(PathBuf),
    /// The file system refused, or the machine has no randomness.
    #[error("cannot {action} the key `{}`", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads the key, or makes one of this name where there is no file.
///
/// # Errors
/// See [`NoKey`].
pub fn read_or_make(path: &Path, name: &str) -> Result<Signer, NoKey> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let io = |source| NoKey::Io { action: "read", path: path.to_owned(), source };
            if fs::metadata(path).map_err(io)?.mode() & 0o077 != 0 {
                return Err(NoKey::Open(path.to_owned()));
            }
            Signer::parse(&text).map_err(|why| NoKey::Bad { path: path.to_owned(), why })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path, name),
        Err(source) => Err(NoKey::Io { action: "read", path: path.to_owned(), source }),
    }
}

/// Makes a key and puts it into a file that must not be there.
///
/// # Errors
/// See [`NoKey`].
pub fn make(path: &Path, name: &str) -> Result<Signer, NoKey> {
    let io = |action| move |source| NoKey::Io { action, path: path.to_owned(), source };
    let mut seed = [0; 32];
    let no_randomness = |_| io("make")(io::Error::other("the machine has no randomness"));
    SystemRandom::new().fill(&mut seed).map_err(no_randomness)?;
    let signer = Signer::new(name, seed).map_err(|why| NoKey::Bad { path: path.to_owned(), why })?;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir).map_err(io("make a directory for"))?;
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io("make"))?;
    writeln!(file, "{}", signer.secret()).and_then(|()| file.sync_all()).map_err(io("write"))?;
    Ok(signer)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_only_and_read_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deeper/audit.key");
        let made = read_or_make(&path, "node.example/audit").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let read = read_or_make(&path, "another.example").unwrap();
        assert_eq!(read.verifier(), made.verifier());
        assert!(matches!(make(&path, "x"), Err(NoKey::Io { action: "make", .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_or_make(&path, "x"), Err(NoKey::Open(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "no key").unwrap();
        assert!(matches!(read_or_make(&path, "x"), Err(NoKey::Bad { why: BadKey::Form, .. })));
    }
}
