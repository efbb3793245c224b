//! Why a bundle did not come into force, by rule.

use cardea_policy_store::digest::Digest;
use cardea_policy_store::disk::DiskError;
use cardea_policy_store::fault::Faults;
use cardea_policy_store::pack::PackError;
use cardea_policy_store::store::NotHigher;
use cardea_policy_store::trust::Refusal;

/// Why a bundle did not come into force, or something else that was asked for was not done.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It breaks a rule of form, signature, evidence or time.
    #[error("{0}")]
    Rule(#[from] Refusal),
    /// trust.toml cannot be read, so nobody is trusted.
    #[error("trust.toml cannot be used, so no bundle is trusted: {0}")]
    Trust(Faults),
    /// A directory carries no signature.
    #[error(
        "a directory carries no signature: give a packed bundle that is signed, or say --allow-unsigned in place of --trust"
    )]
    DirectoryUnsigned,
    /// Its content does not load.
    #[error("{0}")]
    Faults(Faults),
    /// An older revision than was ever in force.
    #[error(
        "revision {offered} is lower than {floor}, the highest that was ever in force here; go back with `cardea bundle rollback`, which makes a new, higher revision"
    )]
    RolledBack {
        /// Its revision.
        offered: u64,
        /// The highest ever.
        floor: u64,
    },
    /// The revision was used for something else.
    #[error("revision {0} was in force here with another content; build it again with a higher `--revision`")]
    Reused(u64),
    /// The store cannot keep it.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// Nothing of that name is kept.
    #[error("no bundle {0} is kept here; `cardea bundle list --node` shows those that are")]
    NotKept(String),
    /// There is no candidate, or it is another.
    #[error("the candidate is {found}, not {wanted}: look at it again before promoting it")]
    NotTheCandidate {
        /// What the candidate is.
        found: String,
        /// The digest that was named.
        wanted: Digest,
    },
    /// The source cannot be read.
    #[error("the bundle cannot be read from `{0}`: {1}")]
    Unreadable(String, std::io::Error),
    /// It came in while something newer came into force.
    #[error("{0}")]
    NotHigher(#[from] NotHigher),
    /// Too many requests wait.
    #[error("the node is busy with bundles; try again in a moment")]
    Busy,
    /// The process ends.
    #[error("the node is stopping")]
    Stopping,
}

impl Refused {
    /// The rule's name, for metrics, records and programs.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Rule(refusal) => refusal.rule(),
            Self::Trust(_) => "trust",
            Self::DirectoryUnsigned => "unsigned",
            Self::Faults(_) => "faults",
            Self::RolledBack { .. } => "rolled_back",
            Self::Reused(_) => "revision_reused",
            Self::Disk(_) => "store",
            Self::NotKept(_) => "not_kept",
            Self::NotTheCandidate { .. } => "not_the_candidate",
            Self::Unreadable(..) => "unreadable",
            Self::NotHigher(_) => "not_higher",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
        }
    }

    /// Every fault on a line of its own.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Faults(faults) => faults.list().iter().map(ToString::to_string).collect(),
            other => vec![format!("{}: {other}", other.rule())],
        }
    }
}

impl From<Faults> for Refused {
    fn from(faults: Faults) -> Self {
        Self::Faults(faults)
    }
}

impl From<PackError> for Refused {
    fn from(error: PackError) -> Self {
        Self::Rule(error.into())
    }
}
