//! The revisions of a node that serves a directory: the one in force, and no store.
//!
//! What a directory holds comes into force by itself, so nothing can be activated here; every refusal says so.

use std::fs;
use std::sync::Arc;

use cardea_policy_store::snapshot::Snapshot;

use super::{Asked, Change, Health, Kept, Refusal, Revisions, Source, SourceHealth, record};
use crate::watch::BundleWatch;

impl Revisions for BundleWatch {
    fn health(&self) -> Health {
        let history = self.history();
        let readable = fs::read_dir(self.dir());
        let source = SourceHealth {
            kind: "directory",
            place: self.dir().display().to_string(),
            contact_ms: readable.is_ok().then(|| self.pipeline().now().wall_ms),
            failures: u64::from(readable.is_err()),
            error: readable.err().map(|error| format!("cannot be read: {error}")),
        };
        Health {
            activations: history.activations,
            activated_ms: history.activated_ms,
            refused: history.refused,
            source,
            ..Health::default()
        }
    }

    fn list(&self) -> Result<Vec<Kept>, Refusal> {
        let current = self.pipeline().policy().snapshot();
        let in_force = |snapshot: Arc<Snapshot>| Kept {
            in_force: true,
            activated_ms: self.history().activated_ms,
            ..Kept::of(&snapshot)
        };
        Ok(current.map(in_force).into_iter().collect())
    }

    fn load(&self, source: &Source) -> Result<Arc<Snapshot>, Refusal> {
        let current = self.pipeline().policy().snapshot();
        let named = match source {
            Source::Revision(revision) => format!("revision {revision}"),
            Source::Digest(digest) => format!("digest `{digest}`"),
            Source::Packed(_) => return Err(self.keeps_none()),
        };
        current
            .filter(|snapshot| match source {
                Source::Revision(revision) => snapshot.settings().revision == *revision,
                Source::Digest(digest) => snapshot.digest() == digest,
                Source::Packed(_) => false,
            })
            .ok_or(Refusal::NotFound(named))
    }

    fn activate(&self, _source: &Source, _change: Change, asked: &Asked) -> Result<Kept, Refusal> {
        Err(self.refuse(asked))
    }

    fn roll_back(&self, _to_revision: u64, asked: &Asked) -> Result<Kept, Refusal> {
        Err(self.refuse(asked))
    }
}

impl BundleWatch {
    fn keeps_none(&self) -> Refusal {
        Refusal::NotHere(format!(
            "this node serves the directory `{}` and keeps no store of revisions; change the directory, and its content \
             comes into force by itself",
            self.dir().display()
        ))
    }

    fn refuse(&self, asked: &Asked) -> Refusal {
        let refusal = self.keeps_none();
        let asked = Asked { reason: refusal.to_string().into(), ..asked.clone() };
        self.pipeline().record(record(Change::Refused, &Kept::default(), &asked), self.pipeline().now());
        refusal
    }
}
