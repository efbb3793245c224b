//! What a signature says of a bundle: an in-toto statement (v1) whose subject is the digest of the packed archive, and
//! whose predicate is the evidence that was made of exactly that content.
//!
//! <https://github.com/in-toto/attestation/blob/v1.1/spec/v1/statement.md>. The evidence holds no times and no names
//! of machines, so that a second signer who makes it again signs the same bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::digest::Digest;
use crate::manifest::Manifest;

/// Type of the payload within the envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Type of the predicate.
pub const PREDICATE_TYPE: &str = "https://github.com/cardea-rs/cardea/bundle-evidence/v1";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// The statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Evidence,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: BTreeMap<String, String>,
}

/// What was proven of the content before it was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Name of the bundle.
    pub name: SmolStr,
    /// Its revision.
    pub revision: u64,
    /// What made the evidence.
    pub tool: Tool,
    /// What `bundle check` found.
    pub check: CheckEvidence,
    /// What `bundle test` found; absent if the bundle has no tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests: Option<TestEvidence>,
}

/// A program and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// `cardea`
    pub name: SmolStr,
    /// Its version.
    pub version: SmolStr,
}

/// Findings of the check, counted by severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckEvidence {
    /// Errors.
    pub errors: usize,
    /// Warnings.
    pub warnings: usize,
}

/// Results of the scenario tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestEvidence {
    /// Attempts that came out as expected.
    pub passed: usize,
    /// Attempts that did not.
    pub failed: usize,
    /// Policy coverage in thousandths.
    pub coverage_permille: u32,
}

/// Why a payload is no statement about a bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Another type of payload.
    #[error("the envelope's payload is `{0}`, not an in-toto statement")]
    PayloadType(String),
    /// Not JSON, or not in the form of a statement about a bundle.
    #[error("the signed statement cannot be read: {0}")]
    Malformed(String),
    /// A statement of another kind.
    #[error("the signed statement is of type `{0}`, not about a bundle's evidence")]
    Kind(String),
    /// It speaks of something else.
    #[error("the signed statement is about another bundle than the one that it comes with")]
    Subject,
}

impl Statement {
    /// The statement about a packed bundle.
    #[must_use]
    pub fn about(digest: Digest, manifest: &Manifest, evidence: Evidence) -> Self {
        let subject = Subject {
            name: crate::pack::file_name(manifest),
            digest: [("sha256".to_owned(), digest.to_string())].into(),
        };
        Self {
            kind: STATEMENT_TYPE.to_owned(),
            subject: vec![subject],
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: evidence,
        }
    }

    /// The payload to sign.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a payload whose signature was verified, and holds it against the digest of the bundle. The subject is matched
    /// by digest alone.
    ///
    /// # Errors
    /// When it is no statement about this bundle.
    pub fn evidence(payload_type: &str, payload: &[u8], digest: Digest) -> Result<Evidence, StatementError> {
        let shown = |text: &str| text.chars().take(128).collect::<String>();
        if payload_type != PAYLOAD_TYPE {
            return Err(StatementError::PayloadType(shown(payload_type)));
        }
        let statement: Self =
            serde_json::from_slice(payload).map_err(|error| StatementError::Malformed(error.to_string()))?;
        if statement.kind != STATEMENT_TYPE {
            return Err(StatementError::Kind(shown(&statement.kind)));
        }
        if statement.predicate_type != PREDICATE_TYPE {
            return Err(StatementError::Kind(shown(&statement.predicate_type)));
        }
        let digest = digest.to_string();
        let is_about = |subject: &Subject| subject.digest.get("sha256") == Some(&digest);
        if statement.subject.iter().any(is_about) {
            Ok(statement.predicate)
        } else {
            Err(StatementError::Subject)
        }
    }
}
