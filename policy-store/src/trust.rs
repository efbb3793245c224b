//! `trust.toml`: whose signatures a node believes, how many it wants, and what must have been proven.
//!
//! [`Trust::verify`] is the only way from a packed bundle to a [`Verified`] one. It verifies the signature over the
//! packed bytes first and unpacks only what somebody trusted has signed. Limits: [`KEYS_MAX`] keys.

use serde::Deserialize;
use smol_str::SmolStr;

use crate::digest::Digest;
use crate::dsse::{Envelope, EnvelopeError};
use crate::fault::{Fault, Faults};
use crate::keys::PublicKey;
use crate::load::Files;
use crate::manifest::Manifest;
use crate::pack::{PackError, Packed};
use crate::stamp::Stamp;
use crate::statement::{Evidence, Statement, StatementError};

/// Most keys; each costs one verification for each signature.
pub const KEYS_MAX: usize = 64;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// How many different keys must have signed.
    #[serde(default = "one")]
    threshold: usize,
    /// Only bundles of this name; absent: any.
    #[serde(default)]
    name: Option<SmolStr>,
    /// The keys.
    #[serde(rename = "key", default)]
    keys: Vec<TrustedKey>,
    /// What must have been proven.
    #[serde(default)]
    require: Required,
}

/// `[[key]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustedKey {
    /// What people call it.
    name: SmolStr,
    /// The key.
    public_key: PublicKey,
    /// It counts from this instant on.
    #[serde(default)]
    not_before: Option<Stamp>,
    /// It no longer counts from this instant on.
    #[serde(default)]
    not_after: Option<Stamp>,
}

impl TrustedKey {
    fn counts(&self, wall_ms: i64) -> bool {
        self.not_before.is_none_or(|from| from.unix_ms() <= wall_ms)
            && self.not_after.is_none_or(|until| wall_ms < until.unix_ms())
    }
}

/// `[require]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Required {
    /// The check found no error.
    check: bool,
    /// Most warnings of the check.
    warnings_max: Option<usize>,
    /// All tests passed, and at least so many there were.
    tests_min: Option<usize>,
    /// Least policy coverage, in percent.
    coverage_min: Option<f64>,
}

fn one() -> usize {
    1
}

/// A bundle that may serve as far as signature, evidence and time go: unpacked, every file as the manifest says.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Identifies it.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its files.
    pub files: Files,
    /// Names of the trusted keys that signed it; none if signatures were not asked for.
    pub signed_by: Vec<SmolStr>,
    /// What was proven before it was signed.
    pub evidence: Option<Evidence>,
}

/// Why a packed bundle may not serve. Each is a rule of its own, with a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The file is not a packed bundle, or breaks one of its limits.
    #[error("{0}")]
    Malformed(#[from] PackError),
    /// No signature.
    #[error("the bundle is not signed; sign it with `cardea bundle sign`")]
    Unsigned,
    /// The signature cannot be read.
    #[error("{0}")]
    Envelope(#[from] EnvelopeError),
    /// A trusted key is named for a signature that is not its own.
    #[error("the signature that names key `{0}` is not that key's: the bundle or its signature was changed")]
    BadSignature(SmolStr),
    /// Fewer trusted keys than the threshold.
    #[error("{signed} of {threshold} trusted keys signed the bundle{}", listed(.by))]
    TooFewKeys {
        /// How many did.
        signed: usize,
        /// How many must.
        threshold: usize,
        /// Their names.
        by: Vec<SmolStr>,
    },
    /// What was signed is not a statement about this bundle.
    #[error("{0}")]
    Statement(#[from] StatementError),
    /// Signed for another name or revision than the manifest says.
    #[error("the signed evidence speaks of {evidence}, the manifest of {manifest}")]
    EvidenceMismatch {
        /// Name and revision in the evidence.
        evidence: String,
        /// Name and revision in the manifest.
        manifest: String,
    },
    /// A bundle of another name.
    #[error("the bundle is named `{found}`; this node takes `{wanted}`")]
    WrongName {
        /// Its name.
        found: SmolStr,
        /// The name that is taken.
        wanted: SmolStr,
    },
    /// Something that trust.toml requires was not proven.
    #[error("the signed evidence does not meet `{rule}` of trust.toml: {found}")]
    Evidence {
        /// The key of `[require]`.
        rule: &'static str,
        /// What the evidence says.
        found: String,
    },
    /// The clock is before its beginning.
    #[error("the bundle may not serve before {0}; check this machine's clock if that has passed")]
    NotYetValid(Stamp),
    /// It was over before it came.
    #[error("the bundle expired at {0}; build it again with a later `--expires`")]
    Expired(Stamp),
}

fn listed(names: &[SmolStr]) -> String {
    if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) }
}

impl Refusal {
    /// The rule's name, for metrics, records and programs.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Unsigned => "unsigned",
            Self::Envelope(_) => "envelope",
            Self::BadSignature(_) => "bad_signature",
            Self::TooFewKeys { .. } => "too_few_keys",
            Self::Statement(_) => "statement",
            Self::EvidenceMismatch { .. } => "evidence_mismatch",
            Self::WrongName { .. } => "wrong_name",
            Self::Evidence { rule, .. } => rule,
            Self::NotYetValid(_) => "not_yet_valid",
            Self::Expired(_) => "expired",
        }
    }
}

/// How strictly a bundle's end is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// A bundle that is over is refused: nothing new may come into force that way.
    Refuse,
    /// A bundle that served before goes on, and counts as stale.
    Allow,
}

impl Trust {
    /// Reads `trust.toml`; `name` is what faults call it.
    ///
    /// # Errors
    /// Every fault.
    pub fn parse(name: &str, text: &str) -> Result<Self, Faults> {
        let trust: Self = toml::from_str(text).map_err(|error| {
            let fault = Fault::new(name, error.message().to_owned())
                .help("docs/bundle.md shows every key of trust.toml");
            match error.span() {
                Some(span) => fault.at(text, span.start, span.len()),
                None => fault,
            }
        })?;
        match Faults::of(trust.faults(name)) {
            Some(faults) => Err(faults),
            None => Ok(trust),
        }
    }

    fn faults(&self, name: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |message: String, help: &str| faults.push(Fault::new(name, message).help(help));
        if self.keys.is_empty() || self.keys.len() > KEYS_MAX {
            fault(
                format!("has {} keys; 1 to {KEYS_MAX} are read", self.keys.len()),
                "add a [[key]] with what `cardea bundle keygen` printed",
            );
        }
        if self.threshold == 0 || self.threshold > self.keys.len() {
            fault(
                format!("asks for {} signatures of {} keys", self.threshold, self.keys.len()),
                "set `threshold` between 1 and the number of keys",
            );
        }
        for (at, key) in self.keys.iter().enumerate() {
            let before = self.keys.iter().take(at);
            if before.clone().any(|other| other.public_key == key.public_key) {
                fault(format!("key `{}` is there twice", key.name), "a key counts once: remove one of them");
            }
            if before.clone().any(|other| other.name == key.name) {
                fault(format!("two keys are named `{}`", key.name), "give each key a name of its own");
            }
        }
        if self.require.coverage_min.is_some_and(|least| !(0.0..=100.0).contains(&least)) {
            fault("`coverage_min` is not a percentage".to_owned(), "write a number from 0 to 100");
        }
        faults
    }

    /// Verifies a packed bundle against this trust, at an instant.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn verify(&self, packed: &Packed, wall_ms: i64, expiry: Expiry) -> Result<Verified, Refusal> {
        let json = packed.envelope()?.ok_or(Refusal::Unsigned)?;
        let envelope = Envelope::parse_canonical(json)?;
        let digest = packed.digest();
        let signed_by = self.signers(&envelope, wall_ms)?;
        let evidence = Statement::evidence(&envelope.payload_type, &envelope.payload, digest)?;
        let verified = unsigned(packed, digest, wall_ms, expiry)?;
        let manifest = &verified.manifest;
        if (&evidence.name, evidence.revision) != (&manifest.name, manifest.revision) {
            return Err(Refusal::EvidenceMismatch {
                evidence: format!("`{}` revision {}", evidence.name, evidence.revision),
                manifest: format!("`{}` revision {}", manifest.name, manifest.revision),
            });
        }
        if let Some(wanted) = self.name.as_ref().filter(|wanted| **wanted != manifest.name) {
            return Err(Refusal::WrongName { found: manifest.name.clone(), wanted: wanted.clone() });
        }
        self.require.holds(&evidence)?;
        Ok(Verified { signed_by, evidence: Some(evidence), ..verified })
    }

    /// Names of the trusted keys that signed, if they are enough. Stricter than DSSE asks: a signature counts only under the
    /// id of its own key, and one that names a trusted key and is not its own is refused, even beside enough others.
    fn signers(&self, envelope: &Envelope, wall_ms: i64) -> Result<Vec<SmolStr>, Refusal> {
        let message = envelope.signed_bytes();
        let mut by = Vec::new();
        for key in &self.keys {
            let id = key.public_key.id().to_string();
            let mut named = envelope.signatures.iter().filter(|signature| signature.key_id == id).peekable();
            if named.peek().is_none() {
                continue;
            }
            if named.any(|signature| !key.public_key.verifies(&message, &signature.bytes)) {
                return Err(Refusal::BadSignature(key.name.clone()));
            }
            if key.counts(wall_ms) {
                by.push(key.name.clone());
            }
        }
        if by.len() < self.threshold {
            return Err(Refusal::TooFewKeys { signed: by.len(), threshold: self.threshold, by });
        }
        Ok(by)
    }
}

/// Unpacks a bundle without asking who signed it, for nodes that were told to. Its form and its times are held to the same
/// rules.
///
/// # Errors
/// The first rule that it breaks.
pub fn accept_unsigned(packed: &Packed, wall_ms: i64, expiry: Expiry) -> Result<Verified, Refusal> {
    unsigned(packed, packed.digest(), wall_ms, expiry)
}

fn unsigned(packed: &Packed, digest: Digest, wall_ms: i64, expiry: Expiry) -> Result<Verified, Refusal> {
    let unpacked = packed.unpack()?;
    let manifest = unpacked.manifest;
    if let Some(from) = manifest.not_before.filter(|from| wall_ms < from.unix_ms()) {
        return Err(Refusal::NotYetValid(from));
    }
    if let Some(end) = manifest.expires.filter(|end| expiry == Expiry::Refuse && end.unix_ms() <= wall_ms) {
        return Err(Refusal::Expired(end));
    }
    Ok(Verified { digest, manifest, files: unpacked.files, signed_by: Vec::new(), evidence: None })
}

impl Required {
    fn holds(&self, evidence: &Evidence) -> Result<(), Refusal> {
        let refuse = |rule, found: String| Err(Refusal::Evidence { rule, found });
        if self.check && evidence.check.errors > 0 {
            return refuse("check", format!("the check found {} errors", evidence.check.errors));
        }
        if self.warnings_max.is_some_and(|most| evidence.check.warnings > most) {
            return refuse("warnings_max", format!("the check found {} warnings", evidence.check.warnings));
        }
        let tests = evidence.tests.unwrap_or_default();
        if let Some(least) = self.tests_min
            && (tests.failed > 0 || tests.passed < least)
        {
            return refuse("tests_min", format!("{} tests passed and {} failed", tests.passed, tests.failed));
        }
        let coverage = f64::from(tests.coverage_permille) / 10.0;
        if self.coverage_min.is_some_and(|least| coverage < least) {
            return refuse("coverage_min", format!("the tests cover {coverage} % of the policies"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
