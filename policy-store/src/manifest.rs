//! `manifest.json`: what a packed bundle says of itself.
//!
//! One form only: [`Manifest::to_json`] is the inverse of [`Manifest::parse`], and any other text is refused.
//! Limits: [`MANIFEST_BYTES_MAX`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::digest::Digest;
use crate::fragment;
use crate::stamp::Stamp;

/// Largest manifest, in bytes: the most files with the longest paths take about 3 MiB.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// The form that this version writes and reads.
pub const FORMAT: &str = "cardea.bundle/v1";
/// Path of the manifest within a packed bundle.
pub const PATH: &str = "manifest.json";

/// See the module. Fields in the order in which they are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: SmolStr,
    /// The bundle's name, as in `bundle.toml`.
    pub name: SmolStr,
    /// Its revision, which only rises; at least 1.
    pub revision: u64,
    /// When its content was made, if that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Stamp>,
    /// First instant at which it may serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Stamp>,
    /// First instant at which it is stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Stamp>,
    /// The revision whose content this is again, if somebody went back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<u64>,
    /// What it was validated with.
    pub validated_with: ValidatedWith,
    /// Every other file of the archive, by its path.
    pub files: BTreeMap<String, FileEntry>,
}

/// What a bundle was validated with. For people and for later versions; a node validates again with its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidatedWith {
    /// Version of Cardea.
    pub cardea: SmolStr,
    /// Version of Cedar's library.
    pub cedar: SmolStr,
    /// Version of Cedar's language.
    pub cedar_language: SmolStr,
    /// Digest of the schema fragment of the facts that Cardea supplies.
    pub facts: Digest,
    /// Digest of the bundle's schema.
    pub schema: Digest,
}

/// One file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its length.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Digest,
}

/// Why a text is no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Beyond [`MANIFEST_BYTES_MAX`].
    #[error("the manifest has {0} bytes; at most {MANIFEST_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not JSON, or not in the form of a manifest.
    #[error("the manifest cannot be read: {0}")]
    Malformed(String),
    /// Made by another version.
    #[error("the manifest has format `{0}`; this version reads `{FORMAT}`")]
    Format(SmolStr),
    /// Not in the one form that is written.
    #[error("the manifest is not in canonical form: build the bundle with `cardea bundle build`")]
    NotCanonical,
    /// Revision 0.
    #[error("the manifest has revision 0; the first is 1")]
    NoRevision,
    /// Name out of bounds.
    #[error("the manifest's name must have 1 to 128 bytes")]
    Name,
    /// Ends before it begins.
    #[error("the manifest's `not_before` is not before its `expires`")]
    EmptyValidity,
}

impl ValidatedWith {
    /// This program, with a schema.
    #[must_use]
    pub fn this(schema: &[u8]) -> Self {
        Self {
            cardea: SmolStr::new_static(env!("CARGO_PKG_VERSION")),
            cedar: cedar_policy::get_sdk_version().to_string().into(),
            cedar_language: cedar_policy::get_lang_version().to_string().into(),
            facts: Digest::of(fragment::SCHEMA.as_bytes()),
            schema: Digest::of(schema),
        }
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// When it is not exactly what [`Manifest::to_json`] writes, or says what no bundle can be.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        if json.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge(json.len()));
        }
        let manifest: Self =
            serde_json::from_slice(json).map_err(|error| ManifestError::Malformed(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(ManifestError::Format(manifest.format.chars().take(64).collect()));
        }
        manifest.check()?;
        if manifest.to_json() == json { Ok(manifest) } else { Err(ManifestError::NotCanonical) }
    }

    /// What no bundle can be.
    ///
    /// # Errors
    /// The first such thing.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.revision == 0 {
            return Err(ManifestError::NoRevision);
        }
        if self.name.is_empty() || self.name.len() > 128 {
            return Err(ManifestError::Name);
        }
        match (self.not_before, self.expires) {
            (Some(from), Some(until)) if from >= until => Err(ManifestError::EmptyValidity),
            _ => Ok(()),
        }
    }

    /// The manifest as JSON, indented, with a line end.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT.into(),
            name: "agents".into(),
            revision: 7,
            created: Stamp::from_unix_s(1_790_000_000),
            not_before: None,
            expires: Stamp::from_unix_s(1_800_000_000),
            rollback_of: None,
            validated_with: ValidatedWith::this(b"entity E;"),
            files: [("bundle.toml".to_owned(), FileEntry { bytes: 3, sha256: Digest::of(b"abc") })].into(),
        }
    }

    #[test]
    fn a_manifest_reads_what_it_writes_and_no_other_form() {
        let manifest = manifest();
        let json = manifest.to_json();
        assert_eq!(Manifest::parse(&json).unwrap(), manifest);
        let text = String::from_utf8(json).unwrap();
        let parse = |text: String| Manifest::parse(text.as_bytes()).unwrap_err();
        assert_eq!(parse(text.replace("\": ", "\":  ")), ManifestError::NotCanonical);
        assert_eq!(parse(text.replace("13:20Z", "13:20+00:00")), ManifestError::NotCanonical);
        assert_eq!(
            parse(text.replace("bundle/v1", "bundle/v2")),
            ManifestError::Format("cardea.bundle/v2".into())
        );
        assert!(matches!(parse(text.replace("\"name\"", "\"nam\"")), ManifestError::Malformed(_)));
        assert_eq!(parse(text.replace("\"revision\": 7", "\"revision\": 0")), ManifestError::NoRevision);
    }

    #[test]
    fn a_bundle_ends_after_it_begins() {
        let mut manifest = manifest();
        manifest.not_before = manifest.expires;
        assert_eq!(Manifest::parse(&manifest.to_json()), Err(ManifestError::EmptyValidity));
    }

    proptest! {
        #[test]
        fn a_flipped_byte_is_refused_or_means_something_else(at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut json = manifest().to_json();
            let place = at.index(json.len());
            json[place] ^= 1 << bit;
            prop_assert!(Manifest::parse(&json).map_or(true, |read| read != manifest()));
        }
    }
}
