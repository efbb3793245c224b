//! The tar archive within a packed bundle (POSIX ustar), in the one form that is written and read.
//!
//! A header says path and size; all else is fixed. Reading compares each header with the one that would be written, so
//! links, devices, extension headers and hidden fields have no place to be.

use std::collections::BTreeMap;
use std::path::Path;

use tar::{EntryType, Header};

use super::{PackError, paths};
use crate::digest::Digest;
use crate::load::{BUNDLE_BYTES_MAX, FILE_BYTES_MAX, FILES_MAX, Files};
use crate::manifest::{self, FileEntry, MANIFEST_BYTES_MAX, Manifest};

const BLOCK: usize = 512;
/// Largest archive: the largest bundle, its manifest, and a header and padding for each file.
pub(super) const UNPACKED_BYTES_MAX: u64 =
    BUNDLE_BYTES_MAX + (MANIFEST_BYTES_MAX + (FILES_MAX + 2) * 2 * BLOCK) as u64;

/// What the manifest says of the files.
pub(super) fn entries(files: &Files) -> Result<BTreeMap<String, FileEntry>, PackError> {
    if files.len() > FILES_MAX {
        return Err(PackError::TooManyFiles);
    }
    let entry = |(path, content): (&std::path::PathBuf, &Vec<u8>)| {
        let path = paths::text(path)?.to_owned();
        let bytes = content.len() as u64;
        if bytes > FILE_BYTES_MAX {
            return Err(PackError::FileTooLarge { path, bytes });
        }
        Ok((path, FileEntry { bytes, sha256: Digest::of(content) }))
    };
    files.iter().map(entry).collect()
}

pub(super) fn write(manifest: &[u8], files: &Files) -> Result<Vec<u8>, PackError> {
    let content: usize = files.values().map(|content| content.len() + 2 * BLOCK).sum();
    let mut tar = Vec::with_capacity(content + manifest.len() + 4 * BLOCK);
    append(&mut tar, manifest::PATH, manifest)?;
    // By the bytes of their paths, not by their parts as `Path` is ordered.
    let by_text: Result<BTreeMap<&str, &Vec<u8>>, PackError> =
        files.iter().map(|(path, content)| Ok((paths::text(path)?, content))).collect();
    for (path, content) in by_text? {
        append(&mut tar, path, content)?;
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    Ok(tar)
}

fn append(tar: &mut Vec<u8>, path: &str, content: &[u8]) -> Result<(), PackError> {
    tar.extend(header(path, content.len() as u64)?.as_bytes());
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    Ok(())
}

fn header(path: &str, size: u64) -> Result<Header, PackError> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_path(Path::new(path)).map_err(|_| PackError::NotCanonical(path.to_owned()))?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}

/// The manifest's bytes, and the files in the order of their paths.
type Entries<'t> = (&'t [u8], BTreeMap<String, &'t [u8]>);

/// Reads an archive.
pub(super) fn read(tar: &[u8]) -> Result<Entries<'_>, PackError> {
    let mut rest = tar;
    let Some((path, manifest)) = next(&mut rest)? else { return Err(PackError::NoManifest) };
    if path != manifest::PATH {
        return Err(PackError::NoManifest);
    }
    let mut files = BTreeMap::new();
    let mut total: u64 = 0;
    while let Some((path, content)) = next(&mut rest)? {
        paths::check(&path)?;
        let bytes = content.len() as u64;
        total += bytes;
        if bytes > FILE_BYTES_MAX || total > BUNDLE_BYTES_MAX {
            return Err(PackError::FileTooLarge { path, bytes });
        }
        if files.len() == FILES_MAX {
            return Err(PackError::TooManyFiles);
        }
        if files.last_key_value().is_some_and(|(before, _): (&String, _)| *before >= path) {
            return Err(PackError::Order(path));
        }
        files.insert(path, content);
    }
    Ok((manifest, files))
}

/// Takes the next entry off the archive; `None` at its end.
fn next<'t>(rest: &mut &'t [u8]) -> Result<Option<(String, &'t [u8])>, PackError> {
    let (block, after) = rest.split_at_checked(BLOCK).ok_or(PackError::ArchiveEnd)?;
    if block.iter().all(|byte| *byte == 0) {
        // The end is two blocks of zeros, and nothing after them.
        let ends = after.len() == BLOCK && after.iter().all(|byte| *byte == 0);
        return if ends { Ok(None) } else { Err(PackError::ArchiveEnd) };
    }
    let head = Header::from_byte_slice(block);
    let path = String::from_utf8_lossy(&head.path_bytes()).into_owned();
    if let Some(kind) = irregular(head.entry_type()) {
        return Err(PackError::EntryKind { path, kind });
    }
    let Ok(size) = head.entry_size() else { return Err(PackError::NotCanonical(path)) };
    let length = usize::try_from(size).map_err(|_| PackError::ArchiveEnd)?;
    let (content, after) = after.split_at_checked(length).ok_or(PackError::ArchiveEnd)?;
    let padding = length.checked_next_multiple_of(BLOCK).ok_or(PackError::ArchiveEnd)? - length;
    let (padding, after) = after.split_at_checked(padding).ok_or(PackError::ArchiveEnd)?;
    if path != manifest::PATH {
        paths::check(&path)?;
    }
    if header(&path, size)?.as_bytes() != block || padding.iter().any(|byte| *byte != 0) {
        return Err(PackError::NotCanonical(path));
    }
    *rest = after;
    Ok(Some((path, content)))
}

/// What an entry is that is no plain file.
#[expect(clippy::wildcard_enum_match_arm, reason = "kinds that the library does not name either")]
fn irregular(kind: EntryType) -> Option<&'static str> {
    if kind == EntryType::Regular {
        return None;
    }
    Some(match kind {
        EntryType::Link => "a hard link",
        EntryType::Symlink => "a symbolic link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Directory => "a directory",
        EntryType::Fifo => "a pipe",
        EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader => {
            "an extension header"
        }
        _ => "of an unknown kind",
    })
}

/// Holds the files against the manifest.
pub(super) fn compare(manifest: &Manifest, files: &BTreeMap<String, &[u8]>) -> Result<(), PackError> {
    let listed = manifest.files.keys().find(|path| !files.contains_key(*path));
    let found = files.keys().find(|path| !manifest.files.contains_key(*path));
    if let Some(path) = listed.or(found) {
        return Err(PackError::FileList(path.clone()));
    }
    let differs = |(path, content): (&String, &&[u8])| {
        let says = manifest.files.get(path);
        let is = FileEntry { bytes: content.len() as u64, sha256: Digest::of(content) };
        (says != Some(&is)).then(|| PackError::FileDigest(path.clone()))
    };
    files.iter().find_map(differs).map_or(Ok(()), Err)
}
