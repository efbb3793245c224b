//! What an operator can ask of a node's bundles, as the admin door sees it: a seam, so that the door knows no store.
//!
//! Whoever keeps the bundles implements [`Revisions`]: it verifies, swaps and records; the door reads the wire, asks
//! here, and puts the answer into the wire's words. Each change is one `BundleRecord`, made with [`record`].
//! Never does: transport, deciding.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cardea_policy_store::fault::Faults;
use cardea_policy_store::snapshot::Snapshot;
use cardea_proto::v1::{self, record::Entry};
use smol_str::SmolStr;

/// Keeps the bundles of a node. All but [`Revisions::health`] may read files and compile, so they are called off the
/// serving threads.
pub trait Revisions: Send + Sync + fmt::Debug {
    /// How the bundle in force and its source are doing.
    fn health(&self) -> Health;

    /// Every revision that this node has, in any order. The candidate of a shadow is not its business.
    ///
    /// # Errors
    /// The store cannot be read.
    fn list(&self) -> Result<Vec<Kept>, Refusal>;

    /// Verifies and compiles a bundle as for service, and changes nothing. A revision below the floor is not refused:
    /// that is for [`Revisions::activate`].
    ///
    /// # Errors
    /// It is not there, or does not pass.
    fn load(&self, source: &Source) -> Result<Arc<Snapshot>, Refusal>;

    /// Verifies a bundle, keeps it, puts it in force, and records `change` with who asked; a refusal is recorded too.
    ///
    /// # Errors
    /// It is not there, or does not pass; what was in force goes on serving.
    fn activate(&self, source: &Source, change: Change, asked: &Asked) -> Result<Kept, Refusal>;

    /// Puts the content of a kept revision in force under a new, higher revision, and records that with who asked; a
    /// refusal is recorded too.
    ///
    /// # Errors
    /// It is not there, or does not pass; what was in force goes on serving.
    fn roll_back(&self, to_revision: u64, asked: &Asked) -> Result<Kept, Refusal>;
}

/// Where a bundle is to be taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The store, by revision.
    Revision(u64),
    /// The store, by SHA-256, lower-case hexadecimal.
    Digest(SmolStr),
    /// A packed bundle, not yet verified.
    Packed(Bytes),
}

/// A revision that this node keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Its number.
    pub revision: u64,
    /// Name of the bundle.
    pub name: SmolStr,
    /// SHA-256, lower-case hexadecimal.
    pub digest: SmolStr,
    /// When it was built, Unix milliseconds.
    pub created_ms: Option<i64>,
    /// Whether it is in force.
    pub in_force: bool,
    /// Ids of the keys whose signatures were verified.
    pub signed_by: Vec<SmolStr>,
    /// When it last came into force, Unix milliseconds.
    pub activated_ms: Option<i64>,
    /// When it ends, Unix milliseconds.
    pub expires_ms: Option<i64>,
}

impl Kept {
    /// What a snapshot tells of itself; the rest is empty.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let settings = snapshot.settings();
        Self {
            revision: settings.revision,
            name: settings.name.as_str().into(),
            digest: snapshot.digest().clone(),
            ..Self::default()
        }
    }
}

/// How the bundle in force and its source are doing.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Activations since the start.
    pub activations: u64,
    /// When the snapshot in force was activated, Unix milliseconds.
    pub activated_ms: Option<i64>,
    /// When and why the newest offer was refused, if it was.
    pub refused: Option<(i64, Arc<Faults>)>,
    /// The bundle in force is past its end.
    pub stale: bool,
    /// When it ends, Unix milliseconds.
    pub expires_ms: Option<i64>,
    /// Ids of the keys whose signatures were verified.
    pub signed_by: Vec<SmolStr>,
    /// The highest revision ever accepted; 0: none is kept.
    pub floor: u64,
    /// Where newer bundles come from.
    pub source: SourceHealth,
}

/// Where newer bundles come from, and how that place is doing.
#[derive(Clone, Debug, Default)]
pub struct SourceHealth {
    /// `directory`, `file`, `https` or `oci`.
    pub kind: &'static str,
    /// Path, URL or reference, without credentials.
    pub place: String,
    /// When it was last read with success, Unix milliseconds.
    pub contact_ms: Option<i64>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// Attempts that failed since the last success.
    pub failures: u64,
}

/// Who asked for a change, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// As the connection proves it; empty if it proves nothing.
    pub by: SmolStr,
    /// In the words of whoever asked.
    pub reason: SmolStr,
}

/// What happened to a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It came into force.
    Activated,
    /// It came into force again when the process started.
    Restored,
    /// It was refused.
    Refused,
    /// Its content came into force again, under a new revision.
    RolledBack,
    /// It is evaluated beside the one in force.
    ShadowStarted,
    /// It no longer is.
    ShadowStopped,
    /// It came into force after it was evaluated beside the one before.
    Promoted,
}

impl Change {
    /// Its name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Activated => "activated",
            Self::Restored => "restored",
            Self::Refused => "refused",
            Self::RolledBack => "rolled_back",
            Self::ShadowStarted => "shadow_started",
            Self::ShadowStopped => "shadow_stopped",
            Self::Promoted => "promoted",
        }
    }
}

/// The record of a change.
#[must_use]
pub fn record(change: Change, bundle: &Kept, asked: &Asked) -> Entry {
    Entry::Bundle(v1::BundleRecord {
        change: change.name().to_owned(),
        name: bundle.name.to_string(),
        revision: bundle.revision,
        digest: bundle.digest.to_string(),
        reason: asked.reason.to_string(),
        asked_by: asked.by.to_string(),
        baseline_version: 0,
        baseline_approved_by: String::new(),
    })
}

/// Why a change was not made. What was in force goes on serving.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// Caller: no such revision.
    #[error("{0} is not in this node's store; list the revisions to see what is")]
    NotFound(String),
    /// Caller: the bundle does not pass.
    #[error("{0}")]
    Faults(Arc<Faults>),
    /// Configuration: this node cannot do that as it is set up. The text says what to do instead.
    #[error("{0}")]
    NotHere(String),
    /// Us: the store cannot be read or written.
    #[error("the store of bundles cannot be used: {0}")]
    Store(String),
}
