//! The Unix socket: its file, its permissions, its end.
//!
//! A socket file left behind by a process that died is removed, but only when nobody answers on it; anything else in
//! the way is left alone and refused. The file has mode [`limits::UDS_MODE`] and is removed when the listener goes, if
//! it is still ours.
//! Never does: making directories.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::ListenFault;
use crate::limits;

/// A bound Unix socket; dropping it removes the file.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// The file in the file system, by identity, so that a successor's file is never removed.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl UnixSocket {
    /// Binds `path`.
    ///
    /// # Errors
    /// When somebody answers there, something else is in the way, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, ListenFault> {
        remove_stale(path)?;
        let make = || {
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            fs::set_permissions(path, fs::Permissions::from_mode(limits::UDS_MODE))?;
            let metadata = fs::symlink_metadata(path)?;
            let file = SocketFile { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() };
            Ok(Self { listener, file })
        };
        make().map_err(|source| ListenFault::Unix { path: path.to_owned(), source })
    }

    /// The listener, and the guard that removes the file.
    pub(super) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket file could not be removed");
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), ListenFault> {
    let unusable = |source| ListenFault::Unix { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unusable(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenFault::InTheWay { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        // Only a refusal proves that nobody listens; any other error (permissions, a full backlog) does not.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(unusable)
        }
        Err(error) => Err(unusable(error)),
        Ok(_) => Err(ListenFault::Occupied { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_and_group_may_connect_and_the_file_goes_with_the_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cardea.sock");
        let socket = UnixSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_nobody_answers_on_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cardea.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file behind");
        let _socket = UnixSocket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_socket_that_somebody_answers_on_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cardea.sock");
        let _other = UnixListener::bind(&path).unwrap();
        assert!(matches!(UnixSocket::bind(&path), Err(ListenFault::Occupied { .. })));
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(UnixSocket::bind(&path), Err(ListenFault::InTheWay { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_successors_file_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cardea.sock");
        let old = UnixSocket::bind(&path).unwrap();
        // The old inode stays in use under another name, so the new file cannot get its number.
        fs::rename(&path, dir.path().join("moved.sock")).unwrap();
        let _new = UnixListener::bind(&path).unwrap();
        drop(old);
        assert!(path.exists());
    }
}
