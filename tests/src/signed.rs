//! Signed packed bundles, made by the program itself as a pipeline makes them.
//!
//! Owns: a copy of the bundle `web`, keys, `trust.toml`, and the place that nodes watch.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1;
use serde_json::Value;
use tempfile::TempDir;

use crate::cardea::Options;
use crate::clients::Clients;
use crate::process::{Finished, run_cardea};
use crate::{bundle, wait};

/// See the module.
#[derive(Debug)]
pub struct Publisher {
    dir: TempDir,
}

impl Publisher {
    /// With a copy of `web` and three keys: `trust.toml` trusts `ci`; `second` and `stranger` are there to be added.
    ///
    /// # Errors
    /// If the program cannot make a key.
    pub fn new() -> Result<Self> {
        let this = Self { dir: tempfile::Builder::new().prefix("publisher-").tempdir()? };
        bundle::copy_web(&this.tree())?;
        fs::create_dir(this.path("out"))?;
        fs::create_dir(this.path("place"))?;
        for name in ["ci", "second", "stranger"] {
            good(&["keygen", name, "-o", &shown(&this.path("keys"))])?;
        }
        this.trust(1, &["ci"])?;
        Ok(this)
    }

    /// The copy of `web` that is built.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.path("tree")
    }

    /// The file that nodes watch.
    #[must_use]
    pub fn place(&self) -> PathBuf {
        self.path("place/web.cardea")
    }

    /// A path in its directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Options of a node that watches the place and trusts what `trust.toml` trusts.
    #[must_use]
    pub fn node(&self) -> Options {
        Options::default().signed(shown(&self.place()), self.path("trust.toml"))
    }

    /// Writes `trust.toml`: as many of these keys must sign.
    ///
    /// # Errors
    /// If a key cannot be read.
    pub fn trust(&self, threshold: usize, names: &[&str]) -> Result<()> {
        let mut text = format!("threshold = {threshold}\n");
        for name in names {
            let pem = fs::read_to_string(self.path(&format!("keys/{name}.pub")))?;
            text.push_str(&format!("\n[[key]]\nname = \"{name}\"\npublic_key = \"\"\"{pem}\"\"\"\n"));
        }
        Ok(fs::write(self.path("trust.toml"), text)?)
    }

    /// Builds a revision, with more arguments.
    ///
    /// # Errors
    /// If the program does not build it.
    pub fn build(&self, revision: u64, more: &[&str]) -> Result<PathBuf> {
        let (tree, out, number) = (shown(&self.tree()), shown(&self.path("out")), revision.to_string());
        let all = [&["build", &tree, "--revision", &number, "-o", &out, "--format", "json"], more].concat();
        let built: Value = serde_json::from_str(&good(&all)?.stdout)?;
        Ok(built.get("file").and_then(Value::as_str).context("no file")?.into())
    }

    /// Signs a packed bundle in its place.
    ///
    /// # Errors
    /// If the program does not sign it.
    pub fn sign(&self, file: &Path, key: &str) -> Result<()> {
        let key = shown(&self.path(&format!("keys/{key}.key")));
        good(&["sign", &shown(file), "--key", &key]).map(drop)
    }

    /// Builds a revision and signs it with the key `ci`.
    ///
    /// # Errors
    /// If the program does not do it.
    pub fn signed(&self, revision: u64, more: &[&str]) -> Result<PathBuf> {
        let file = self.build(revision, more)?;
        self.sign(&file, "ci")?;
        Ok(file)
    }

    /// Renames a copy of the file over the watched one.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn publish(&self, file: &Path) -> Result<()> {
        self.publish_bytes(&fs::read(file)?)
    }

    /// Renames a file with this content over the watched one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn publish_bytes(&self, bytes: &[u8]) -> Result<()> {
        let beside = self.path("place/.beside");
        fs::write(&beside, bytes)?;
        Ok(fs::rename(beside, self.place())?)
    }

    /// From now on what is built denies every read, or again only some.
    ///
    /// # Errors
    /// If the tree is so already.
    pub fn deny_reads(&self, deny: bool) -> Result<()> {
        let (some, every) = (r#"action == Action::"drop", resource);"#, "action, resource);");
        let guard = |scope: &str| {
            format!("@reason(\"Tables are not dropped through the API\")\nforbid (principal, {scope}")
        };
        let (old, new) = if deny { (some, every) } else { (every, some) };
        bundle::edit(&self.tree(), "policies/guards.cedar", &guard(old), &guard(new))
    }
}

/// `cardea bundle` with arguments; it must end well.
///
/// # Errors
/// If it does not.
pub fn good(arguments: &[&str]) -> Result<Finished> {
    let finished = run_cardea(&[&["bundle"], arguments].concat(), b"")?;
    ensure!(finished.code == Some(0), "{arguments:?}: {finished:?}");
    Ok(finished)
}

/// A path as an argument.
#[must_use]
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Status of the bundle.
///
/// # Errors
/// If the call fails.
pub async fn status(clients: &mut Clients) -> Result<v1::BundleStatus> {
    clients.status().await?.bundle.context("no bundle in Status")
}

/// Waits until a revision is in force.
///
/// # Errors
/// If it does not come in time.
pub async fn in_force(clients: &mut Clients, revision: u64) -> Result<v1::BundleStatus> {
    until(clients, &format!("revision {revision} to be in force"), |bundle| bundle.revision == revision).await
}

/// Waits until a revision is in force and nothing is told any more of what was refused before it.
///
/// # Errors
/// If it does not come in time.
pub async fn accepted(clients: &mut Clients, revision: u64) -> Result<v1::BundleStatus> {
    let what = format!("revision {revision} to be in force, and no refusal");
    until(clients, &what, |bundle| bundle.revision == revision && bundle.refusal.is_none()).await
}

/// Waits until a bundle is refused by this rule.
///
/// # Errors
/// If it does not happen in time.
pub async fn refused(clients: &mut Clients, rule: &str) -> Result<v1::BundleStatus> {
    let name = format!("[{rule}]");
    until(clients, &format!("a refusal by `{rule}`"), |bundle| {
        let faults = bundle.refusal.as_ref().map_or(&[][..], |refusal| &refusal.faults);
        faults.iter().any(|fault| fault.contains(&name))
    })
    .await
}

async fn until(
    clients: &mut Clients,
    what: &str,
    wanted: impl Fn(&v1::BundleStatus) -> bool,
) -> Result<v1::BundleStatus> {
    let mut last = None;
    let found = wait::until(what, async || {
        let bundle = status(clients).await?;
        last = Some(bundle.clone());
        Ok(wanted(&bundle).then_some(bundle))
    });
    found.await.with_context(|| format!("{last:?}"))
}
