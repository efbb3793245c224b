//! The packed form of a bundle: one file, in which nothing can be changed without being noticed.
//!
//! ```text
//! zstd frame      a tar archive: manifest.json, then every file of the bundle in the order of their paths
//! skippable frame the signature, a DSSE envelope over an in-toto statement about the digest of the first frame
//! ```
//!
//! Both are standard: `tar --zstd -xf` reads the file and passes over the signature. The signature covers the frame as
//! it lies on disk, so it can be verified before anything is unpacked. The archive has one form: headers carry no
//! times, owners or modes of the machine that built it, so the same content gives the same bytes everywhere.
//!
//! Limits, enforced before or while reading: [`PACKED_BYTES_MAX`], [`RATIO_MAX`], those of [`crate::load`] for files,
//! and those of [`paths`] for their names. Never does: writing to disk, believing anything (see [`crate::trust`]).

mod archive;
mod frame;
pub mod paths;

use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::dsse::EnvelopeError;
use crate::load::{BUNDLE_BYTES_MAX, FILE_BYTES_MAX, FILES_MAX, Files};
use crate::manifest::{self, Manifest, ManifestError};
use paths::PathError;

/// Largest packed bundle, in bytes; 100,000 policies with 100,000 entities take about 6 MiB.
pub const PACKED_BYTES_MAX: usize = 64 << 20;
/// How many times larger than its packed form a bundle may be; the most repetitive generated policies reach about 60.
pub const RATIO_MAX: u64 = 400;
/// Extension of packed bundles.
pub const EXTENSION: &str = "cardea";
/// Media type of packed bundles.
pub const MEDIA_TYPE: &str = "application/vnd.cardea.bundle.v1.tar+zstd";

/// Why bytes are no packed bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Beyond [`PACKED_BYTES_MAX`].
    #[error("it has {0} bytes; a packed bundle has at most {PACKED_BYTES_MAX}")]
    TooLarge(u64),
    /// Does not begin as one.
    #[error("it is not a packed bundle: it does not begin with a zstd frame")]
    NotPacked,
    /// Ends within a frame.
    #[error("it is cut off or damaged: {0}")]
    Truncated(&'static str),
    /// Something stands where the signature should, or after it.
    #[error("after the archive it has bytes that are no signature")]
    Trailing,
    /// The frame does not say how large its content is.
    #[error("its archive does not say how large it is unpacked")]
    UnknownSize,
    /// Too much content, or too much for its packed size.
    #[error(
        "it would unpack to {unpacked} bytes, {ratio} times its size; at most {most} bytes and {RATIO_MAX} times"
    )]
    Bomb {
        /// Bytes of content that the frame announces.
        unpacked: u64,
        /// How many times its packed size that is.
        ratio: u64,
        /// Most bytes of content.
        most: u64,
    },
    /// The compressed data is damaged.
    #[error("its archive cannot be unpacked: {0}")]
    Compression(String),
    /// The archive is not whole.
    #[error("its archive is cut off or has bytes after its end")]
    ArchiveEnd,
    /// A link, device, directory, extension header, …
    #[error("entry `{path}` of its archive is {kind}; only plain files are allowed")]
    EntryKind {
        /// Path of the entry.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// A path that no file of a bundle can have.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The same path twice, or paths out of order.
    #[error("entry `{0}` of its archive is there twice or out of order")]
    Order(String),
    /// A header that says more than path and size.
    #[error(
        "the header of entry `{0}` is not in canonical form: build the bundle with `cardea bundle build`"
    )]
    NotCanonical(String),
    /// Too many files.
    #[error("it has more than {FILES_MAX} files")]
    TooManyFiles,
    /// A file beyond the limit.
    #[error("file `{path}` has {bytes} bytes; at most {FILE_BYTES_MAX}")]
    FileTooLarge {
        /// Its path.
        path: String,
        /// Its length.
        bytes: u64,
    },
    /// No manifest at its place.
    #[error("its archive does not begin with `manifest.json`")]
    NoManifest,
    /// A manifest that cannot be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file that the manifest does not name, or the other way round.
    #[error("file `{0}` is not both in its manifest and in its archive")]
    FileList(String),
    /// A file whose content is not what the manifest says.
    #[error("file `{0}` is not what its manifest says")]
    FileDigest(String),
    /// The signature cannot be read.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

/// A packed bundle whose two frames were told apart. Nothing in it is trusted or unpacked yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Packed {
    bytes: Vec<u8>,
    /// Length of the archive's frame.
    archive: usize,
}

/// What a packed bundle holds; every file is what the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The manifest.
    pub manifest: Manifest,
    /// The files, without the manifest.
    pub files: Files,
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({} bytes, {})", self.bytes.len(), self.digest().short())
    }
}

impl Packed {
    /// Packs a bundle's files; without a signature.
    ///
    /// # Errors
    /// Files that a bundle cannot have, and a manifest that no bundle can have.
    pub fn new(mut manifest: Manifest, files: &Files) -> Result<Self, PackError> {
        manifest.check()?;
        manifest.files = archive::entries(files)?;
        let tar = archive::write(&manifest.to_json(), files)?;
        if u64::try_from(tar.len()).unwrap_or(u64::MAX) > archive::UNPACKED_BYTES_MAX {
            return Err(PackError::Bomb { unpacked: tar.len() as u64, ratio: 1, most: BUNDLE_BYTES_MAX });
        }
        let bytes = frame::compress(&tar)?;
        if bytes.len() > PACKED_BYTES_MAX {
            return Err(PackError::TooLarge(bytes.len() as u64));
        }
        Ok(Self { archive: bytes.len(), bytes })
    }

    /// Tells the frames apart.
    ///
    /// # Errors
    /// When the bytes are not one archive and at most one signature.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, PackError> {
        if bytes.len() > PACKED_BYTES_MAX {
            return Err(PackError::TooLarge(bytes.len() as u64));
        }
        let archive = frame::archive_length(&bytes)?;
        let packed = Self { bytes, archive };
        packed.envelope()?;
        Ok(packed)
    }

    /// The whole file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Identifies the bundle: the digest of the archive as it is packed. Signing does not change it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.archive())
    }

    /// The signature's envelope, in JSON; `None` if the bundle is not signed.
    ///
    /// # Errors
    /// When what follows the archive is not one skippable frame.
    pub fn envelope(&self) -> Result<Option<&[u8]>, PackError> {
        frame::signature(self.bytes.get(self.archive..).unwrap_or_default())
    }

    /// The same bundle with this envelope in place of the one that it had.
    #[must_use]
    pub fn with_envelope(&self, json: &[u8]) -> Self {
        let mut bytes = self.archive().to_vec();
        frame::append_signature(&mut bytes, json);
        Self { bytes, archive: self.archive }
    }

    /// Unpacks, within the limits, and holds every file against the manifest.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub fn unpack(&self) -> Result<Unpacked, PackError> {
        let tar = frame::decompress(self.archive(), archive::UNPACKED_BYTES_MAX)?;
        let (manifest, files) = archive::read(&tar)?;
        let manifest = Manifest::parse(manifest)?;
        archive::compare(&manifest, &files)?;
        let owned = |(path, bytes): (String, &[u8])| (PathBuf::from(path), bytes.to_vec());
        Ok(Unpacked { manifest, files: files.into_iter().map(owned).collect() })
    }

    /// The manifest alone. Not held against the files: for lists, not for serving.
    ///
    /// # Errors
    /// As [`Packed::unpack`].
    pub fn manifest(&self) -> Result<Manifest, PackError> {
        let tar = frame::decompress(self.archive(), archive::UNPACKED_BYTES_MAX)?;
        Ok(Manifest::parse(archive::read(&tar)?.0)?)
    }

    fn archive(&self) -> &[u8] {
        self.bytes.get(..self.archive).unwrap_or_default()
    }
}

/// Whether bytes begin as a packed bundle does, for telling a packed bundle from something else.
#[must_use]
pub fn looks_packed(bytes: &[u8]) -> bool {
    bytes.starts_with(&frame::ZSTD_MAGIC)
}

/// Name of the file of a bundle: `agents-7.cardea`.
#[must_use]
pub fn file_name(manifest: &Manifest) -> String {
    let plain = |character: char| {
        if character.is_ascii_alphanumeric() || "-_.".contains(character) { character } else { '_' }
    };
    let name: String = manifest.name.chars().map(plain).collect();
    format!("{name}-{}.{EXTENSION}", manifest.revision)
}

/// A manifest for files that have not been packed yet; [`Packed::new`] fills in their digests.
#[must_use]
pub fn manifest_for(name: &str, revision: u64, files: &Files) -> Manifest {
    let schema = files.get(Path::new("schema.cedarschema")).map_or(&[][..], Vec::as_slice);
    Manifest {
        format: manifest::FORMAT.into(),
        name: name.into(),
        revision,
        created: None,
        not_before: None,
        expires: None,
        rollback_of: None,
        validated_with: manifest::ValidatedWith::this(schema),
        files: std::collections::BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests;
