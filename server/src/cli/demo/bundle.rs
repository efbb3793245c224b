//! The example bundle, in the binary, so that the demo runs from anywhere.
//!
//! Owns the copy on disk that the service reads: a directory that is removed with the value.

use std::path::Path;

use anyhow::Context;
use tempfile::TempDir;

macro_rules! example {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../../examples/agents/", $name)))
    };
}

/// Every file of `examples/agents` that makes the bundle, by its path within it. Not its scenarios: the demo plays the
/// stories itself, over gRPC.
const FILES: [(&str, &str); 11] = [
    example!("bundle.toml"),
    example!("schema.cedarschema"),
    example!("entities.json"),
    example!("routes.toml"),
    example!("policies/always.cedar"),
    example!("policies/story-1-task.cedar"),
    example!("policies/story-2-workflow.cedar"),
    example!("policies/story-3-lateral.cedar"),
    example!("policies/story-4-oauth.cedar"),
    example!("policies/story-5-tools.cedar"),
    example!("policies/story-6-people.cedar"),
];

/// A copy of the bundle on disk.
#[derive(Debug)]
pub struct Unpacked(TempDir);

impl Unpacked {
    /// Writes the bundle to a new temporary directory.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn new() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("cardea-demo-")
            .tempdir()
            .context("cannot create a temporary directory for the example bundle")?;
        for (name, text) in FILES {
            let path = dir.path().join("bundle").join(name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)
                    .with_context(|| format!("cannot create `{}`", parent.display()))?;
            }
            std::fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        Ok(Self(dir))
    }

    /// The bundle's directory.
    #[must_use]
    pub fn bundle(&self) -> std::path::PathBuf {
        self.0.path().join("bundle")
    }

    /// A directory beside it, for what the service writes.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.0.path()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn every_file_of_the_example_is_in_the_binary() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/agents");
        let mut found = BTreeSet::new();
        for dir in ["", "policies"] {
            for entry in std::fs::read_dir(example.join(dir)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&example).unwrap().to_owned();
                let is_about_it = ["README.md", "matrix.snap"].iter().any(|file| name == Path::new(file));
                if path.is_file() && !is_about_it {
                    found.insert(name);
                }
            }
        }
        let embedded: BTreeSet<PathBuf> = FILES.iter().map(|(name, _)| PathBuf::from(name)).collect();
        assert_eq!(found, embedded);
    }

    #[test]
    fn the_unpacked_bundle_loads() {
        let unpacked = Unpacked::new().unwrap();
        let loaded = cardea_policy_store::load::directory(&unpacked.bundle()).unwrap();
        assert_eq!(loaded.snapshot.settings().name, "agents");
        let root = unpacked.root().to_owned();
        drop(unpacked);
        assert!(!root.exists());
    }
}
