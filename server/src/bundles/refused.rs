//! Why a bundle did not come into force, by rule.

use cardea_policy_store::disk::DiskError;
use cardea_policy_store::fault::{Fault, Faults};
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
    #[error("{0} is not kept here; `cardea bundle list --node` shows what is")]
    NotKept(String),
    /// The source cannot be read.
    #[error("the bundle cannot be read from `{0}`: {1}")]
    Unreadable(String, std::io::Error),
    /// It came in while something newer came into force.
    #[error("{0}")]
    NotHigher(#[from] NotHigher),
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
            Self::Unreadable(..) => "unreadable",
            Self::NotHigher(_) => "not_higher",
        }
    }
}

/// Each with the name of its rule, for Status and the log.
impl From<Refused> for Faults {
    fn from(refused: Refused) -> Self {
        let text = format!("{refused} [{}]", refused.rule());
        if let Refused::Faults(faults) = refused { faults } else { Fault::new("bundle", text).into() }
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
